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

/// How far a stream has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// The last number that the database has.
    pub(super) settled: u64,
    /// The last number up to which nothing waits for the relay; 0 as long as nobody has asked.
    pub(super) relayed: u64,
    /// Whether the database was asked how far it is relayed.
    pub(super) asked: bool,
}

/// How much has gone for want of room before its time, bytes since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Early {
    /// Before `keep` had passed, or before it was known to be relayed.
    pub(super) keep: u64,
    /// Of this, before it was relayed for certain.
    pub(super) relay: u64,
}

impl Early {
    pub(super) fn plus(self, more: Self) -> Self {
        Self { keep: self.keep + more.keep, relay: self.relay + more.relay }
    }
}

/// What may go now.
#[derive(Debug)]
pub(super) struct Trim {
    pub(super) now: Instant,
    /// How long what is settled stays.
    pub(super) keep: Duration,
    /// Whether what is stored is relayed: then it stays until that is done, too.
    pub(super) relays: bool,
    /// Bytes for which there is no room; less, with each that goes.
    pub(super) too_many: u64,
    /// What goes before its time is added here.
    pub(super) early: Early,
}

impl Trim {
    /// `bytes` go, whether or not they are old enough (`young`) and relayed (`unrelayed`, and whether that is certain).
    pub(super) fn gone(&mut self, bytes: u64, young: bool, (unrelayed, certain): (bool, bool)) {
        self.too_many = self.too_many.saturating_sub(bytes);
        if young || unrelayed {
            self.early.keep += bytes;
        }
        if unrelayed && certain {
            self.early.relay += bytes;
        }
    }
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

    /// Whether what would go next is stored and for certain not relayed.
    pub(super) fn begins_unrelayed(&self, reached: Reached) -> bool {
        let Reached { settled, relayed, asked } = reached;
        self.0.front().is_some_and(|chunk| asked && chunk.end <= settled && chunk.end > relayed)
    }

    /// Forgets what may go, and returns the first number to keep: up to `settled` where there are too many bytes, else up to `relayed`
    /// what is old enough.
    pub(super) fn trim(&mut self, reached: Reached, trim: &mut Trim) -> Option<u64> {
        let Reached { settled, relayed, asked } = reached;
        let mut first = None;
        while let Some(chunk) = self.0.front().copied() {
            let young = trim.now.saturating_duration_since(chunk.last) < trim.keep;
            let unrelayed = trim.relays && chunk.end > relayed;
            if chunk.end > settled || ((young || unrelayed) && trim.too_many == 0) {
                break;
            }
            trim.gone(chunk.bytes, young, (unrelayed, asked));
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
        let mut trim = Trim { now, keep, relays: true, too_many: 0, early: Early::default() };
        let reached = |settled, relayed| Reached { settled, relayed, asked: true };
        let mut chunks = Chunks::default();
        for end in [10, 20, 30, 40] {
            chunks.take(end, MIB, now);
        }
        assert_eq!(chunks.bytes(), 4 * MIB);
        assert_eq!(chunks.trim(reached(40, 40), &mut trim), None, "too young");
        trim.now = now + keep;
        assert_eq!(chunks.trim(reached(40, 9), &mut trim), None, "not relayed");
        assert!(chunks.begins_unrelayed(reached(40, 9)) && !chunks.begins_unrelayed(reached(9, 9)));
        assert_eq!(chunks.trim(reached(40, 15), &mut trim), Some(11));
        assert_eq!(trim.early, Early::default(), "in its time");
        (trim.now, trim.too_many) = (now, 1);
        assert_eq!(chunks.trim(reached(25, 0), &mut trim), Some(21), "room comes before the relay");
        assert_eq!((trim.too_many, trim.early), (0, Early { keep: MIB, relay: MIB }));
        trim.too_many = 5;
        assert_eq!(chunks.trim(reached(25, 0), &mut trim), None, "what the database has not never goes");
        assert_eq!(chunks.bytes(), 2 * MIB);
        let unknown = Reached { settled: 30, relayed: 0, asked: false };
        assert!(!chunks.begins_unrelayed(unknown));
        assert_eq!(chunks.trim(unknown, &mut trim), Some(31));
        assert_eq!(trim.early, Early { keep: 2 * MIB, relay: MIB }, "perhaps it is relayed");
        (trim.relays, trim.too_many) = (false, 1);
        assert_eq!(chunks.trim(reached(40, 0), &mut trim), Some(41));
        assert_eq!(trim.early, Early { keep: 3 * MIB, relay: MIB }, "young, and there is no relay");
    }
}
