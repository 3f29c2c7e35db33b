//! Duty: JSON numbers, read to the last bit. Pure.

use super::{Scanner, Syntax};

/// A number as written and as the nearest f64 (infinite where it is beyond it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::ingest) struct Number<'a> {
    pub(in crate::ingest) raw: &'a str,
    pub(in crate::ingest) value: f64,
}

impl<'a> Scanner<'a> {
    /// Steps over a number; the cursor is at its minus or first digit.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Number<'a>, Syntax> {
        let start = self.at;
        let negative = self.here() == Some(b'-');
        self.at += usize::from(negative);
        let mut digits = Digits::default();
        match self.here() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(&mut digits),
            Some(b'I') if negative && self.text[self.at..].starts_with("Infinity") => {
                self.at += "Infinity".len();
                return Ok(Number { raw: &self.text[start..self.at], value: f64::NEG_INFINITY });
            }
            _ => return Err(self.wrong("a digit")),
        }
        if self.here() == Some(b'.') {
            self.at += 1;
            let first = self.at;
            self.digits(&mut digits);
            if self.at == first {
                return Err(self.wrong("a digit after the point"));
            }
            digits.exponent = -i32::try_from(self.at - first).unwrap_or(i32::MAX);
        }
        let mut exact = digits.count <= 19;
        if matches!(self.here(), Some(b'e' | b'E')) {
            // Rare, so the general conversion does it.
            exact = false;
            self.at += 1;
            self.at += usize::from(matches!(self.here(), Some(b'+' | b'-')));
            let first = self.at;
            self.digits(&mut Digits::default());
            if self.at == first {
                return Err(self.wrong("a digit of the exponent"));
            }
        }
        let raw = &self.text[start..self.at];
        let value = match digits.exact_value().filter(|_| exact) {
            Some(value) if negative => -value,
            Some(value) => value,
            // JSON's numbers are a subset of what Rust reads, so the default is never taken.
            None => raw.parse().unwrap_or(f64::NAN),
        };
        Ok(Number { raw, value })
    }

    #[inline]
    fn digits(&mut self, digits: &mut Digits) {
        while let Some(byte @ b'0'..=b'9') = self.here() {
            digits.mantissa = digits.mantissa.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            digits.count += 1;
            self.at += 1;
        }
    }
}

/// The decimal digits of a number before its exponent.
#[derive(Default)]
struct Digits {
    mantissa: u64,
    count: u32,
    exponent: i32,
}

impl Digits {
    /// Clinger's fast path: both factors are exact in f64, so the one rounding of the operation is the right one.
    #[inline]
    fn exact_value(&self) -> Option<f64> {
        const POWERS: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
            1e21, 1e22,
        ];
        if self.mantissa > 1 << 53 {
            return None;
        }
        let power = POWERS.get(self.exponent.unsigned_abs() as usize)?;
        Some(self.mantissa as f64 / power)
    }
}
