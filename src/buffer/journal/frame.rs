//! The unit in the log: consecutive readings of one lane, between a header and a footer that say the same.
//!
//! ```text
//! offset   0 magic 8 | payload length 4 | rows 4 | first position 8 | chain before 8 | chain after 8 | received at 8 | group 4 |
//!         52 empty pieces 2 | lane 1 | kind 1 | checksum 8                                                      (header, 64 bytes)
//!         64 zeros up to a multiple of 8, then the payload
//!   end - 64 first position 8 | rows 4 | payload length 4 | magic 8 | the rest as above | checksum 8            (footer, 64 bytes)
//! ```
//!
//! Header and footer have a checksum each, seeded by log, segment and offset: no payload and no frame from elsewhere passes. The payload
//! is held to them by the chain: `chain after = xxh3_64(seed = chain before, payload ++ first position ++ rows)`, which is why the
//! footer begins with those two. One of header and footer is enough to read the frame. A crash loses nothing here: this is a codec.

use twox_hash::xxhash3_64;

/// Size of a header, and of a footer.
pub const EDGE: usize = 64;
/// Frames begin at multiples of this.
pub const ALIGN: usize = 8;
/// Most bytes of payload in one frame.
pub const MAX_PAYLOAD: usize = 30 * 1024 * 1024;
/// What a disk writes whole or not at all, at least.
pub const SECTOR: u64 = 512;

/// Begins a header. About half of its bits are set, so that a few flipped bits do not turn empty space into something like it.
pub const HEAD: u64 = u64::from_le_bytes(*b"\xb5bElAyD\xd3");
/// Stands in a footer.
pub const FOOT: u64 = u64::from_le_bytes(*b"\xd3DyAlEb\xb5");
const KIND_READINGS: u8 = 1;
/// Keeps a header from passing for a footer at the same place.
const FOOT_SEED: u64 = 0x6a09_e667_f3bc_c909;

/// What header and footer say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The lane.
    pub lane: u8,
    /// Readings, at least 1.
    pub rows: u32,
    /// Bytes of payload.
    pub payload: u32,
    /// Position of the first reading in its lane; it never starts again, also where a new stream numbers it differently.
    pub first: u64,
    /// The chain before.
    pub prev_chain: u64,
    /// The chain after.
    pub chain: u64,
    /// When they were received, microseconds since the epoch.
    pub received_at_us: i64,
    /// Where in the segment the group of frames that is synced together begins. What lies before it was durable when this was written.
    pub group: u32,
    /// How many of its pieces (see [`empty_pieces`]) were nothing but zeros when it was written.
    pub empty: u16,
}

impl Frame {
    /// Position of the last reading, inclusive.
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.rows) - 1
    }

    /// Bytes in the log, edges included.
    pub fn extent(&self) -> u64 {
        extent(self.payload as usize)
    }

    /// Where the payload begins, from the frame's beginning.
    pub fn payload_at(&self) -> usize {
        EDGE + padding(self.payload as usize)
    }

    /// Writes the header.
    pub fn head(&self, seed: u64, out: &mut [u8; EDGE]) {
        out[..8].copy_from_slice(&HEAD.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload.to_le_bytes());
        out[12..16].copy_from_slice(&self.rows.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        self.rest(seed, out);
    }

    /// Writes the footer.
    pub fn foot(&self, seed: u64, out: &mut [u8; EDGE]) {
        out[..8].copy_from_slice(&self.first.to_le_bytes());
        out[8..12].copy_from_slice(&self.rows.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload.to_le_bytes());
        out[16..24].copy_from_slice(&FOOT.to_le_bytes());
        self.rest(seed ^ FOOT_SEED, out);
    }

    fn rest(&self, seed: u64, out: &mut [u8; EDGE]) {
        out[24..32].copy_from_slice(&self.prev_chain.to_le_bytes());
        out[32..40].copy_from_slice(&self.chain.to_le_bytes());
        out[40..48].copy_from_slice(&self.received_at_us.to_le_bytes());
        out[48..52].copy_from_slice(&self.group.to_le_bytes());
        out[52..54].copy_from_slice(&self.empty.to_le_bytes());
        out[54] = self.lane;
        out[55] = KIND_READINGS;
        let sum = checksum(seed, &out[..56]);
        out[56..].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a header; `None` where it is none, or not of this place.
    pub fn from_head(bytes: &[u8], seed: u64) -> Option<Self> {
        let bytes = bytes.get(..EDGE)?;
        if u64_at(bytes, 0) != HEAD || checksum(seed, &bytes[..56]) != u64_at(bytes, 56) {
            return None;
        }
        Self::checked(bytes, u32_at(bytes, 8), u32_at(bytes, 12), u64_at(bytes, 16))
    }

    /// Reads a footer; `seed` is the one of the frame's beginning, which `foot_payload` tells.
    pub fn from_foot(bytes: &[u8], seed: u64) -> Option<Self> {
        let bytes = bytes.get(..EDGE)?;
        if u64_at(bytes, 16) != FOOT || checksum(seed ^ FOOT_SEED, &bytes[..56]) != u64_at(bytes, 56) {
            return None;
        }
        Self::checked(bytes, u32_at(bytes, 12), u32_at(bytes, 8), u64_at(bytes, 0))
    }

    fn checked(bytes: &[u8], payload: u32, rows: u32, first: u64) -> Option<Self> {
        let frame = Self {
            lane: bytes[54],
            rows,
            payload,
            first,
            prev_chain: u64_at(bytes, 24),
            chain: u64_at(bytes, 32),
            received_at_us: u64_at(bytes, 40).cast_signed(),
            group: u32_at(bytes, 48),
            empty: u16::from_le_bytes([bytes[52], bytes[53]]),
        };
        let whole = rows > 0 && first > 0 && first < super::segment::LIMIT && payload as usize <= MAX_PAYLOAD;
        (whole && bytes[55] == KIND_READINGS && usize::from(frame.lane) < super::MAX_LANES).then_some(frame)
    }

    /// Whether this payload is what header and footer speak of.
    pub fn holds(&self, payload: &[u8]) -> bool {
        let mut end = [0; 12];
        end[..8].copy_from_slice(&self.first.to_le_bytes());
        end[8..].copy_from_slice(&self.rows.to_le_bytes());
        payload.len() == self.payload as usize && chain_of_parts(self.prev_chain, [payload, &end]) == self.chain
    }
}

/// What a footer at this place, if it is one, says of the payload's length.
pub fn foot_payload(bytes: &[u8]) -> Option<usize> {
    (bytes.len() >= EDGE && u64_at(bytes, 16) == FOOT).then(|| u32_at(bytes, 12) as usize).filter(|len| *len <= MAX_PAYLOAD)
}

/// Bytes that a frame with so much payload takes.
pub fn extent(payload: usize) -> u64 {
    (2 * EDGE + payload + padding(payload)) as u64
}

/// Zeros between header and payload.
pub fn padding(payload: usize) -> usize {
    payload.next_multiple_of(ALIGN) - payload
}

/// The chain over a payload that lies in one piece with the first 12 bytes of its footer behind it.
pub fn chain(prev: u64, payload_and_end: &[u8]) -> u64 {
    xxhash3_64::Hasher::oneshot_with_seed(prev, payload_and_end)
}

/// The same over parts.
pub fn chain_of_parts<'a>(prev: u64, parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = xxhash3_64::Hasher::with_seed(prev);
    parts.into_iter().for_each(|part| hasher.write(part));
    hasher.finish()
}

/// The chain after numbers that no frame holds: void, or damaged at the very end of the log.
pub fn gap_chain(prev: u64, first: u64, last: u64) -> u64 {
    chain_of_parts(prev, [&b"gap"[..], &first.to_le_bytes(), &last.to_le_bytes()])
}

/// What every checksum in a segment is seeded with; [`place`] adds the offset.
pub fn segment_seed(log: u128, number: u64) -> u64 {
    chain_of_parts(0, [&log.to_le_bytes()[..], &number.to_le_bytes()])
}

/// The seed at an offset of a segment.
pub fn place(segment_seed: u64, offset: u64) -> u64 {
    segment_seed.wrapping_add(offset.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A checksum that is never 0, so that its bytes are told from what was never written.
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    #[cfg(test)]
    let seed = if super::mutant::SEED_IGNORED.get() { 0 } else { seed };
    xxhash3_64::Hasher::oneshot_with_seed(seed, bytes).max(1)
}

/// How many pieces of `bytes`, cut at the sectors' borders, are nothing but zeros. A write that power cut short leaves such pieces; a
/// flipped bit does not.
pub fn empty_pieces(bytes: &[u8], offset: u64) -> u64 {
    let mut pieces = Pieces::new(offset);
    pieces.push(bytes);
    pieces.empty()
}

/// Counts empty pieces of what comes in parts; see [`empty_pieces`].
#[derive(Debug)]
pub struct Pieces {
    offset: u64,
    /// The piece at hand has begun, and has something in it.
    begun: bool,
    filled: bool,
    empty: u64,
}

impl Pieces {
    /// The first byte stands at `offset`.
    pub fn new(offset: u64) -> Self {
        Self { offset, begun: false, filled: false, empty: 0 }
    }

    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = ((SECTOR - self.offset % SECTOR) as usize).min(rest.len());
            self.begun = true;
            self.filled = self.filled || rest[..piece].iter().any(|byte| *byte != 0);
            self.offset += piece as u64;
            rest = &rest[piece..];
            if self.offset.is_multiple_of(SECTOR) {
                self.close();
            }
        }
    }

    /// How many there were.
    pub fn empty(mut self) -> u64 {
        self.close();
        self.empty
    }

    fn close(&mut self) {
        self.empty += u64::from(self.begun && !self.filled);
        (self.begun, self.filled) = (false, false);
    }
}

/// Whether what stands here is nearer to empty space than to the beginning of a frame.
pub fn looks_empty(bytes: &[u8]) -> bool {
    let differ = |other: &[u8; 8]| bytes.iter().zip(other).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    differ(&[0; 8]) < differ(&HEAD.to_le_bytes())
}

/// Reads a number; 0 where there are too few bytes.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Reads a number; 0 where there are too few bytes.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}
