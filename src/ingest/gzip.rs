//! Duty: content codings of a body, inflated within bounds.
//! Comes in: a body and its `Content-Encoding`. Goes out: the plain bytes, or a [`BodyError`]. A crash loses nothing.

use std::{
    borrow::Cow,
    io::{ErrorKind, Read},
};

use flate2::bufread::MultiGzDecoder;

use super::{
    limits::{GZIP_RATIO_FROM_BYTES, MAX_GZIP_RATIO, MAX_QUOTED_CHARS},
    reason::{BodyError, Reason},
};

/// Bytes inflated at a time: the bounds are looked at that often.
const CHUNK_BYTES: usize = 32 * 1024;

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
                let quoted: String = name.chars().take(MAX_QUOTED_CHARS).collect();
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
            Self::Identity if body.len() > max_bytes => Err(too_large(max_bytes)),
            Self::Identity => Ok(Cow::Borrowed(body)),
            Self::Gzip => inflate(body, max_bytes).map(Cow::Owned),
        }
    }
}

fn too_large(max_bytes: usize) -> BodyError {
    BodyError::new(Reason::BodyTooLarge, format!("the body is larger than {max_bytes} bytes"))
}

/// Inflates one gzip member or several behind one another. Memory grows with what comes out, never with what a header claims.
fn inflate(body: &[u8], max_bytes: usize) -> Result<Vec<u8>, BodyError> {
    let mut decoder = MultiGzDecoder::new(body);
    let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(max_bytes));
    // An empty body is left to the parser, which has a reason for it.
    while !body.is_empty() {
        let room = CHUNK_BYTES.min(max_bytes - out.len() + 1) as u64;
        match decoder.by_ref().take(room).read_to_end(&mut out) {
            Ok(0) => break,
            Ok(_) if out.len() > max_bytes => return Err(too_large(max_bytes)),
            Ok(_) if out.len() > GZIP_RATIO_FROM_BYTES => {
                // Against what has been read so far, so that a long bomb is known by its beginning.
                let read = body.len() - decoder.get_ref().len();
                if out.len() / read.max(1) > MAX_GZIP_RATIO {
                    let message = format!("the body inflates to more than {MAX_GZIP_RATIO} times its size");
                    return Err(BodyError::new(Reason::GzipBomb, message));
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(BodyError::new(Reason::CutBody, "the gzip stream ends too early"));
            }
            Err(_) => return Err(BodyError::new(Reason::BadGzip, "the body is no valid gzip stream")),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes all")
    }

    fn code(body: &[u8], max_bytes: usize) -> Result<usize, Reason> {
        Coding::Gzip.decode(body, max_bytes).map(|plain| plain.len()).map_err(|error| error.code)
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_inflated() {
        let bomb = pack(&vec![0; 50_000_000]);
        assert_eq!(code(&bomb, 8_000_000), Err(Reason::GzipBomb));
        assert_eq!(code(&bomb, 500_000), Err(Reason::BodyTooLarge));
    }

    #[test]
    fn the_size_is_bounded_to_the_byte() {
        let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let body = pack(&noise);
        assert_eq!(code(&body, noise.len()), Ok(noise.len()));
        assert_eq!(code(&body, noise.len() - 1), Err(Reason::BodyTooLarge));
        assert_eq!(Coding::Identity.decode(&noise, 10).map_err(|error| error.status()).err(), Some(413));
    }

    #[test]
    fn equal_readings_may_be_packed_as_tightly_as_they_can() {
        let body = r#"{"engineId":"e1","rpm":5000}"#.repeat(10_000);
        assert_eq!(code(&pack(body.as_bytes()), 8_000_000), Ok(body.len()));
    }

    #[test]
    fn a_stream_that_is_cut_or_damaged_is_refused() {
        let body = pack(&b"0123456789".repeat(100));
        for cut in 1..body.len() {
            assert_eq!(code(&body[..cut], 8_000_000), Err(Reason::CutBody), "cut at {cut}");
        }
        let mut damaged = body.clone();
        let crc = damaged.len() - 8;
        damaged[crc] ^= 1;
        assert_eq!(code(&damaged, 8_000_000), Err(Reason::BadGzip));
        assert_eq!(code(b"{\"engineId\":\"e1\"}", 8_000_000), Err(Reason::BadGzip));
        assert_eq!(code(b"", 8_000_000), Ok(0));
    }

    #[test]
    fn several_members_are_one_body() {
        assert_eq!(code(&[pack(b"abc"), pack(b"de")].concat(), 8_000_000), Ok(5));
    }

    #[test]
    fn codings_are_told_apart() {
        let coding = |value| Coding::from_header(value).map_err(|error| error.status());
        assert_eq!(coding(None), Ok(Coding::Identity));
        assert_eq!(coding(Some(" GZIP ")), Ok(Coding::Gzip));
        assert_eq!(coding(Some("br")), Err(415));
        assert_eq!(coding(Some("gzip, gzip")), Err(415));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = code(&bytes, 1_000);
            let _ = code(&[&[0x1f, 0x8b, 8, 0][..], &bytes].concat(), 1_000);
        }
    }
}
