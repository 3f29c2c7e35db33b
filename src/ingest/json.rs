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

mod number;
mod text;

use super::limits::MAX_DEPTH;

pub(super) use number::Number;
pub(super) use text::Text;

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
