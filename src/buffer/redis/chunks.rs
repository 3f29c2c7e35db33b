//! What of one stream is in Redis, in pieces that are trimmed together.
//!
//! In: what was added, and when. Out: the number before which everything may go. A crash loses the times: what is found at the next start
//! counts as added then, and stays longer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Bytes that are trimmed together.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// Longest time that one chunk spans.
const CHUNK_SPAN: Duration = Duration::from_secs(30);
/// Chunks of one stream; beyond, two become one.
const CHUNKS_MAX: usize = 4_096;

/// Entries that were taken together.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    end: u64,
    bytes: u64,
    began: Instant,
    last: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chunks(VecDeque<Chunk>);

impl Chunks {
    /// A stream that is there already.
    pub(super) fn found(end: u64, bytes: u64) -> Self {
        let now = Instant::now();
        Self(if end > 0 { VecDeque::from([Chunk { end, bytes, began: now, last: now }]) } else { VecDeque::new() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|chunk| chunk.bytes).sum()
    }

    /// When the last of it was added; now, where nothing is there.
    pub(super) fn last_taken(&self) -> Instant {
        self.0.back().map_or_else(Instant::now, |chunk| chunk.last)
    }

    /// Everything up to `last_seq` was added now.
    pub(super) fn take(&mut self, last_seq: u64, bytes: u64, now: Instant) {
        match self.0.back_mut() {
            Some(chunk) if chunk.bytes + bytes <= CHUNK_BYTES && now - chunk.began <= CHUNK_SPAN => {
                (chunk.end, chunk.bytes, chunk.last) = (last_seq, chunk.bytes + bytes, now);
            }
            _ => self.0.push_back(Chunk { end: last_seq, bytes, began: now, last: now }),
        }
        if self.0.len() > CHUNKS_MAX {
            let chunks = self.0.make_contiguous();
            let join = |pair: &[Chunk]| {
                let (first, last) = (pair.first()?, pair.last()?);
                Some(Chunk { bytes: pair.iter().map(|chunk| chunk.bytes).sum(), began: first.began, ..*last })
            };
            self.0 = chunks.chunks(2).filter_map(join).collect();
        }
    }

    /// Forgets what may go, and returns the first number to keep: up to `settled` where `too_many` bytes are there, else up to `relayed`
    /// what is older than `keep`.
    pub(super) fn trim(&mut self, now: Instant, keep: Duration, (settled, relayed): (u64, u64), too_many: &mut u64) -> Option<u64> {
        let mut first = None;
        while let Some(chunk) = self.0.front().copied() {
            let old = now.saturating_duration_since(chunk.last) >= keep && chunk.end <= relayed;
            if chunk.end > settled || (!old && *too_many == 0) {
                break;
            }
            *too_many = too_many.saturating_sub(chunk.bytes);
            self.0.pop_front();
            first = Some(chunk.end + 1);
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn what_is_old_stays_until_it_is_settled_and_relayed_and_goes_before_that_for_room() {
        let now = Instant::now();
        let keep = Duration::from_secs(60);
        let late = now + keep;
        let mut chunks = Chunks::default();
        for end in [10, 20, 30] {
            chunks.take(end, MIB, now);
        }
        assert_eq!(chunks.bytes(), 3 * MIB);
        assert_eq!(chunks.trim(now, keep, (30, 30), &mut 0), None, "too young");
        assert_eq!(chunks.trim(late, keep, (30, 9), &mut 0), None, "not relayed");
        assert_eq!(chunks.trim(late, keep, (30, 15), &mut 0), Some(11));
        let mut too_many = 1;
        assert_eq!(chunks.trim(now, keep, (25, 0), &mut too_many), Some(21), "room comes before the relay");
        assert_eq!(too_many, 0);
        assert_eq!(chunks.trim(now, keep, (25, 0), &mut 5), None, "what the database has not never goes");
        assert_eq!(chunks.bytes(), MIB);
    }
}
