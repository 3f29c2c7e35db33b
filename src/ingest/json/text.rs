//! Duty: JSON strings: their grammar, and the text that is meant. Pure.

use std::borrow::Cow;

use super::{Scanner, Syntax};

/// The inside of a string, checked but not unescaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The text that was meant; allocates only where there are escapes.
    #[inline]
    pub(in crate::ingest) fn unescape(self) -> Cow<'a, str> {
        if self.escaped { Cow::Owned(unescape(self.raw)) } else { Cow::Borrowed(self.raw) }
    }
}

impl<'a> Scanner<'a> {
    /// Steps over a string; the cursor is at its first quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text<'a>, Syntax> {
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
