//! Duty: the bounds of one body of readings, in one place. What happens at each is the reason code named beside it
//! (see [`super::reason`]). Pure constants: nothing comes in, nothing goes out, a crash loses nothing.

/// Most bytes of one body, inflated: 8 MB. Beyond it the whole body is refused (`body_too_large`).
pub const MAX_BODY_BYTES: usize = 8_000_000;
/// Most readings of one body. Beyond it the whole body is refused (`too_many_items`).
pub const MAX_ITEMS: u32 = 10_000;
/// Most rejections that are listed one by one; further ones are only counted.
pub const MAX_LISTED_REJECTIONS: usize = 1_000;
/// Deepest nesting that is read over. A reading is flat, so anything nested is refused anyway; this bounds the work
/// (`too_deep`).
pub const MAX_DEPTH: u32 = 64;
/// Longest piece of a sender's text that is repeated in a message, in characters.
pub const MAX_QUOTED_CHARS: usize = 64;
/// How many times larger than its gzip form a body may be once it is above [`GZIP_RATIO_FROM_BYTES`] (`gzip_bomb`).
/// Readings that repeat themselves reach 200; deflate itself ends at 1,032.
pub const MAX_GZIP_RATIO: usize = 500;
/// Inflated size in bytes from which the ratio counts: small bodies of equal readings are harmless, whatever their ratio.
pub const GZIP_RATIO_FROM_BYTES: usize = 1_000_000;
/// Longest `X-Next` value that a source may send, in bytes.
pub const MAX_NEXT_BYTES: usize = 1_024;
