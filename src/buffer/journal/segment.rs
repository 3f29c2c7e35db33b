//! A segment file's beginning: one block of 4 KiB, twice, so that one damaged sector does not lose it.
//!
//! In: where every lane stands when the segment is begun, where the segment before ends, which numbers were given up. Out: the same,
//! or the word that it is none, or of a newer version. It is durable before the first frame behind it is acknowledged. A crash loses
//! nothing here: this is a codec.

use uuid::Uuid;

use super::{
    LaneState, MAX_LANES,
    frame::{self, SECTOR, u32_at, u64_at},
};
use crate::domain::receipt::StreamId;

/// Size of one copy.
pub const BLOCK: usize = 4096;
/// Where frames begin: behind both copies.
pub const FRAMES_AT: u64 = 2 * BLOCK as u64;
/// The format that is written. A newer one is set aside, never read.
pub const VERSION: u32 = 1;
/// Positions and numbers of segments stay below this: 2,000 years of a million readings a second. What says more was never written by a log.
pub const LIMIT: u64 = 1 << 56;
/// Most earlier streams that a header remembers; the oldest is forgotten first.
pub const MAX_EARLIER: usize = 16;

const MAGIC: [u8; 8] = *b"belayd-J";
const SEED: u64 = 0xbb67_ae85_84ca_a73b;
/// Fills what is not used, so that a sector which was never written (zeros) is told from one that was.
const FILL: u8 = 0xb7;
const LANES_AT: usize = 80;
const LANE: usize = 56;
const VOIDS_AT: usize = LANES_AT + MAX_LANES * LANE;
const VOID: usize = 24;
const EARLIER_AT: usize = VOIDS_AT + MAX_LANES * VOID;
const EARLIER: usize = 40;
const SUM_AT: usize = BLOCK - 8;

/// Numbers that were given out and then given up: a sync failed, and whoever waited was told so. They are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void {
    /// The lane.
    pub lane: u8,
    /// Position of the first.
    pub first: u64,
    /// Position of the last, inclusive.
    pub last: u64,
}

/// A stream that numbered a lane's readings before a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// The lane.
    pub lane: u8,
    /// The stream.
    pub stream: StreamId,
    /// Position minus number in that stream.
    pub base: u64,
    /// First position that it did not number.
    pub until: u64,
    /// It ended because the log's end was cut off or damaged: it may have numbered more readings than are known.
    pub end_unknown: bool,
}

/// What the block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the segment; they rise by one, and none is used twice.
    pub number: u64,
    /// The log that it belongs to.
    pub log: u128,
    /// Length of the file when it was made.
    pub allocated: u64,
    /// The segment before that holds frames; 0 for the first.
    pub previous: u64,
    /// Where that one ends. What lies behind in its file was never acknowledged.
    pub previous_end: u64,
    /// Where every lane stands.
    pub lanes: Vec<LaneState>,
    /// What was given up between the end of the segment before and here.
    pub voids: Vec<Void>,
    /// Streams before forks, oldest first.
    pub earlier: Vec<Earlier>,
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// Whole.
    Good(Box<Header>),
    /// Written by a newer version, and not to be touched.
    Newer(u32),
    /// Not (fully) written: sectors are missing.
    Torn,
    /// Written and damaged, or something else.
    Bad,
}

impl Header {
    /// Writes both copies.
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![FILL; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &(self.lanes.len().min(MAX_LANES) as u32).to_le_bytes());
        put(16, &self.log.to_le_bytes());
        put(32, &self.number.to_le_bytes());
        put(40, &self.allocated.to_le_bytes());
        put(48, &self.previous.to_le_bytes());
        put(56, &self.previous_end.to_le_bytes());
        put(64, &(self.voids.len().min(MAX_LANES) as u32).to_le_bytes());
        put(68, &(self.earlier.len().min(MAX_EARLIER) as u32).to_le_bytes());
        for (index, lane) in self.lanes.iter().take(MAX_LANES).enumerate() {
            let at = LANES_AT + index * LANE;
            put(at, lane.stream.as_bytes());
            for (field, value) in [lane.base, lane.next, lane.chain, lane.accepted, lane.voided].into_iter().enumerate() {
                put(at + 16 + 8 * field, &value.to_le_bytes());
            }
        }
        for (index, void) in self.voids.iter().take(MAX_LANES).enumerate() {
            let at = VOIDS_AT + index * VOID;
            put(at, &u64::from(void.lane).to_le_bytes());
            put(at + 8, &void.first.to_le_bytes());
            put(at + 16, &void.last.to_le_bytes());
        }
        let forgotten = self.earlier.len().saturating_sub(MAX_EARLIER);
        for (index, earlier) in self.earlier.iter().skip(forgotten).enumerate() {
            let at = EARLIER_AT + index * EARLIER;
            put(at, earlier.stream.as_bytes());
            // A journal that does not know of lost ends has a zero there.
            put(at + 16, &[earlier.lane, u8::from(earlier.end_unknown), 0, 0, 0, 0, 0, 0]);
            put(at + 24, &earlier.base.to_le_bytes());
            put(at + 32, &earlier.until.to_le_bytes());
        }
        let sum = frame::checksum(SEED, &block[..SUM_AT]);
        block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
        block.extend_from_within(..);
        block
    }

    /// Reads it from two damaged copies, where no sector is damaged in both.
    pub fn from_both(first: &[u8], second: &[u8]) -> Block {
        if first.len() != BLOCK || second.len() != BLOCK {
            return Block::Bad;
        }
        let sectors = BLOCK / SECTOR as usize;
        (1..1u32 << sectors)
            .map(|choice| {
                let pick = |at: usize| if choice >> (at / SECTOR as usize) & 1 == 1 { second[at] } else { first[at] };
                Self::decode(&(0..BLOCK).map(pick).collect::<Vec<_>>())
            })
            .find(|block| matches!(block, Block::Good(_) | Block::Newer(_)))
            .unwrap_or(Block::Bad)
    }

    /// Reads one copy.
    pub fn decode(block: &[u8]) -> Block {
        if block.len() < BLOCK {
            return if block.iter().all(|byte| *byte == 0) { Block::Torn } else { Block::Bad };
        }
        let block = &block[..BLOCK];
        if frame::checksum(SEED, &block[..SUM_AT]) != u64_at(block, SUM_AT) || block[..8] != MAGIC {
            return if frame::empty_pieces(block, 0) > 0 { Block::Torn } else { Block::Bad };
        }
        let version = u32_at(block, 8);
        if version > VERSION {
            return Block::Newer(version);
        }
        let count = |at: usize, most: usize| (u32_at(block, at) as usize).min(most);
        let lanes = (0..count(12, MAX_LANES)).map(|index| {
            let at = LANES_AT + index * LANE;
            let field = |field: usize| u64_at(block, at + 16 + 8 * field);
            LaneState {
                stream: stream_at(block, at),
                base: field(0),
                next: field(1),
                chain: field(2),
                accepted: field(3),
                voided: field(4),
            }
        });
        let voids = (0..count(64, MAX_LANES)).map(|index| {
            let at = VOIDS_AT + index * VOID;
            Void { lane: block[at], first: u64_at(block, at + 8), last: u64_at(block, at + 16) }
        });
        let earlier = (0..count(68, MAX_EARLIER)).map(|index| {
            let at = EARLIER_AT + index * EARLIER;
            Earlier {
                stream: stream_at(block, at),
                lane: block[at + 16],
                base: u64_at(block, at + 24),
                until: u64_at(block, at + 32),
                end_unknown: block[at + 17] != 0,
            }
        });
        let mut log = [0; 16];
        log.copy_from_slice(&block[16..32]);
        let header = Self {
            number: u64_at(block, 32),
            log: u128::from_le_bytes(log),
            allocated: u64_at(block, 40),
            previous: u64_at(block, 48),
            previous_end: u64_at(block, 56),
            lanes: lanes.collect(),
            voids: voids.collect(),
            earlier: earlier.collect(),
        };
        // A checksum says that nobody damaged it, not that it was a log that wrote it.
        if header.can_be_true() { Block::Good(Box::new(header)) } else { Block::Bad }
    }

    fn can_be_true(&self) -> bool {
        let lane = |lane: &LaneState| lane.base < lane.next && lane.next < LIMIT && lane.accepted < LIMIT && lane.voided < LIMIT;
        let void = |void: &Void| 0 < void.first && void.first <= void.last && void.last < LIMIT;
        let earlier = |earlier: &Earlier| earlier.base < earlier.until && earlier.until < LIMIT;
        self.previous < self.number
            && self.number < LIMIT
            && self.lanes.iter().all(lane)
            && self.voids.iter().all(void)
            && self.earlier.iter().all(earlier)
    }
}

fn stream_at(block: &[u8], at: usize) -> StreamId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&block[at..at + 16]);
    Uuid::from_bytes(bytes)
}

/// Name of a segment's file.
pub fn file_name(number: u64) -> String {
    format!("{number:010}.seg")
}

/// Name of the file while it is being made.
pub fn new_name(number: u64) -> String {
    format!("{number:010}.new")
}

/// The number in a segment file's name.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|number| *number < LIMIT)
}
