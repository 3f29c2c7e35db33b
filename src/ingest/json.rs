//! Duty: a strict, flat-footed scanner over JSON text (RFC 8259): no recursion, no allocation, every value left behind whole.
//!
//! Comes in: text. Goes out: strings and numbers borrowed from it, or a [`Syntax`] error with its place. A crash loses nothing.
//!
//! Why not serde_json's own reader: it ends the whole document at a number beyond f64 (one sensor would spoil the readings of all
//! others), it cannot go on behind an item whose meaning is wrong, and without a slower feature it rounds the last bit
//! differently than the sender wrote it. A test compares the two on random documents.
//!
//! One leniency: the words `NaN`, `Infinity` and `-Infinity`, which Python and others write, are read as values that are not
//! finite, so that they cost one reading and not the body.

use std::borrow::Cow;

use super::limits::MAX_DEPTH;

// One bit a level, see `Scanner::skip_nested`.
const _: () = assert!(MAX_DEPTH <= u64::BITS);

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends inside a value.
    Cut,
    /// Something else than this stands there.
    Expected(&'static str),
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// A fault and the byte at which it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) fault: Fault,
    pub(super) at: usize,
}

/// The inside of a string, checked but not unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The text that was meant; allocates only where there are escapes.
    #[inline]
    pub(super) fn unescape(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
}

/// A number as written and as the nearest f64 (infinite where it is beyond it).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number<'a> {
    pub(super) raw: &'a str,
    pub(super) value: f64,
}

/// One value; of objects and arrays only their kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Text(Text<'a>),
    Number(Number<'a>),
    Bool,
    Null,
    Object,
    Array,
}

impl Value<'_> {
    /// What a message calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
            Self::Object => "an object",
            Self::Array => "an array",
        }
    }
}

/// Reads a text from its start to its end.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not white space, left where it is.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.here() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    /// Steps over `byte` where it comes next.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Steps over a key and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Text<'a>, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("a key in quotes"));
        }
        let key = self.string()?;
        if !self.take(b':') {
            return Err(self.wrong("a colon after the key"));
        }
        Ok(key)
    }

    /// Steps over one value of any kind.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Value<'a>, Syntax> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Number),
            Some(b'{') => self.skip_nested().map(|()| Value::Object),
            Some(b'[') => self.skip_nested().map(|()| Value::Array),
            _ => self.word(),
        }
    }

    /// The error "`expected` should stand here", or that the text is cut where it ends.
    #[cold]
    pub(super) fn wrong(&self, expected: &'static str) -> Syntax {
        let fault = if self.at >= self.text.len() { Fault::Cut } else { Fault::Expected(expected) };
        Syntax { fault, at: self.at }
    }

    #[inline]
    fn here(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn word(&mut self) -> Result<Value<'a>, Syntax> {
        const WORDS: [(&str, Value<'static>); 5] = [
            ("true", Value::Bool),
            ("false", Value::Bool),
            ("null", Value::Null),
            ("NaN", Value::Number(Number { raw: "NaN", value: f64::NAN })),
            ("Infinity", Value::Number(Number { raw: "Infinity", value: f64::INFINITY })),
        ];
        let rest = &self.text[self.at..];
        for (word, value) in WORDS {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
            if word.starts_with(rest) {
                return Err(Syntax { fault: Fault::Cut, at: self.text.len() });
            }
        }
        Err(self.wrong("a value"))
    }

    /// Steps over a string; the cursor is at its first quote.
    #[inline]
    fn string(&mut self) -> Result<Text<'a>, Syntax> {
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            match self.here() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0..=0x1f) => return Err(self.wrong("an escape instead of a control character")),
                Some(_) => self.at += 1,
                None => return Err(self.wrong("")),
            }
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        Ok(Text { raw, escaped })
    }

    /// Steps over one escape; of `\u`, over both halves of a surrogate pair.
    #[cold]
    fn escape(&mut self) -> Result<(), Syntax> {
        const EXPECTED: &str = "one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX";
        self.at += 1;
        match self.here() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let unit = self.hex_unit()?;
                if (0xdc00..0xe000).contains(&unit) {
                    return Err(self.wrong("a high surrogate before a low one"));
                }
                if (0xd800..0xdc00).contains(&unit) {
                    let pair = self.text.as_bytes().get(self.at..self.at + 2);
                    if pair != Some(b"\\u") {
                        return Err(self.wrong("a low surrogate after a high one"));
                    }
                    self.at += 1;
                    let low = self.hex_unit()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(self.wrong("a low surrogate after a high one"));
                    }
                }
            }
            _ => return Err(self.wrong(EXPECTED)),
        }
        Ok(())
    }

    /// Steps over `uXXXX`.
    fn hex_unit(&mut self) -> Result<u32, Syntax> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.here().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.wrong("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(unit)
    }

    /// Steps over a number; the cursor is at its minus or first digit.
    #[inline]
    fn number(&mut self) -> Result<Number<'a>, Syntax> {
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

    /// Steps over an object or array; the cursor is at its bracket. The kinds of the open brackets are bits, 1 for an object.
    fn skip_nested(&mut self) -> Result<(), Syntax> {
        let mut kinds = 0u64;
        let mut depth = 0u32;
        loop {
            // A value begins here.
            let opened = self.peek().filter(|byte| matches!(byte, b'{' | b'['));
            match opened {
                Some(bracket) => {
                    if depth == MAX_DEPTH {
                        return Err(Syntax { fault: Fault::TooDeep, at: self.at });
                    }
                    self.at += 1;
                    let is_object = bracket == b'{';
                    if self.peek() != Some(if is_object { b'}' } else { b']' }) {
                        kinds = kinds << 1 | u64::from(is_object);
                        depth += 1;
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                    self.at += 1;
                }
                None => {
                    self.value()?;
                }
            }
            // A value has ended: close what ends with it, or go on to the next.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = kinds & 1 == 1;
                if self.take(b',') {
                    if in_object {
                        self.key()?;
                    }
                    break;
                }
                if !self.take(if in_object { b'}' } else { b']' }) {
                    return Err(self.wrong(if in_object { "a comma or }" } else { "a comma or ]" }));
                }
                kinds >>= 1;
                depth -= 1;
            }
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

/// Undoes the escapes of a string that the scanner has checked.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut high = 0;
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let unit = escape.get(1..5).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or_default();
                if (0xd800..0xdc00).contains(&unit) {
                    high = unit;
                } else {
                    let code =
                        if (0xdc00..0xe000).contains(&unit) { 0x10000 + ((high & 0x3ff) << 10 | unit & 0x3ff) } else { unit };
                    out.extend(char::from_u32(code));
                }
                chars = escape.get(5..).unwrap_or_default().chars();
            }
            other => out.extend(other),
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
    out
}
