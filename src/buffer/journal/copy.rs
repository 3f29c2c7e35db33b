//! What a second medium, into which the journal is copied, needs of it: a reader of its own, a hold on what is not copied, and the senders
//! who wait for more than the journal.
//!
//! In: how far the copy is. Out: frames behind the sync, and room only for what is settled *and* copied. At the journal's bound what is
//! settled goes although it is not copied, and that is counted: the other choice would be to refuse readings. A crash loses how far the copy
//! is; whoever makes it asks the second medium.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    LaneReader, LaneState, Log,
    disk::Disk,
    tier::{Core, JournalBuffer, lock, tell_level},
};
use crate::{
    buffer::Attached,
    domain::{ack::AckLevel, receipt::StreamId},
};

/// How far the second medium has each lane. Without one nothing is held back.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// A lane's stream, and the last number of it that is copied.
    lanes: Mutex<Option<Vec<(StreamId, u64)>>>,
    /// Bytes that were dropped uncopied.
    dropped: AtomicU64,
}

impl Copied {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<(StreamId, u64)>>> {
        // A plain value is written below this lock.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a second medium.
    pub(super) fn holds(&self) -> bool {
        self.lock().is_some()
    }

    /// What of `settled` may be dropped. A lane that has another stream by now has nothing copied.
    pub(super) fn limit(&self, settled: &[u64], lanes: &[LaneState]) -> Vec<u64> {
        let copied = self.lock();
        let Some(copied) = copied.as_ref() else { return settled.to_vec() };
        let of = |lane: usize| {
            let stream = lanes.get(lane).map(|state| state.stream);
            copied.get(lane).filter(|(copy, _)| Some(*copy) == stream).map_or(0, |(_, last)| *last)
        };
        settled.iter().enumerate().map(|(lane, settled)| (*settled).min(of(lane))).collect()
    }

    pub(super) fn gave_up(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::AcqRel);
    }
}

impl<D: Disk> Core<D> {
    /// The bound is reached: what the database has goes although it was not copied, before anything is refused. Whether there is room now.
    pub(super) fn drop_uncopied(&self, log: &mut Log<D>) -> bool {
        if !self.copied.holds() {
            return false;
        }
        let settled = lock(&self.books).all_settled();
        let limit = self.copied.limit(&settled, log.lanes());
        // Since the last chores more may have been copied.
        if log.trim(&limit).is_ok_and(|freed| freed > 0) {
            return true;
        }
        let freed = log.trim(&settled).unwrap_or(0);
        self.copied.gave_up(freed);
        freed > 0
    }

    /// As [`Core::drop_uncopied`], and then, where nothing waits to be synced, lets go of what is settled and kept only for a database that is
    /// put back a little.
    pub(super) fn make_way(&self, log: &mut Log<D>, all_synced: bool) -> bool {
        if self.drop_uncopied(log) {
            return true;
        }
        if !all_synced {
            return false;
        }
        let settled = lock(&self.books).all_settled();
        let limit = self.copied.limit(&settled, log.lanes());
        if log.make_way(&limit).unwrap_or(false) {
            return true;
        }
        if limit == settled {
            return false;
        }
        let before = log.bytes();
        let made = log.make_way(&settled).unwrap_or(false);
        if made {
            // The new segment takes a part of it.
            self.copied.gave_up(before.saturating_sub(log.bytes()).max(1));
        }
        made
    }
}

impl<D: Disk> JournalBuffer<D> {
    /// A reader of what is durable in `lane`; the drain's is another one.
    pub fn copy_reader(&self, lane: usize) -> LaneReader<D> {
        LaneReader::new(self.core.shared.clone(), lane)
    }

    /// Where the lanes stand, as far as durable.
    pub fn lane_states(&self) -> Vec<LaneState> {
        self.core.shared.lanes()
    }

    /// First number of a lane's stream that is still held, or would be the next.
    pub fn first_retained(&self, lane: usize) -> u64 {
        self.core.shared.first_retained(lane)
    }

    /// The second medium has `stream` of `lane` up to `last_seq`. From the first call on nothing is dropped that it has not, but for room.
    pub fn copied(&self, lane: usize, stream: StreamId, last_seq: u64) {
        let mut copied = self.core.copied.lock();
        let copied = copied.get_or_insert_with(Vec::new);
        if copied.len() <= lane {
            copied.resize(lane + 1, (StreamId::nil(), 0));
        }
        copied[lane] = (stream, last_seq);
    }

    /// Bytes of segments that were dropped for want of room before they were copied.
    pub fn dropped_uncopied(&self) -> u64 {
        self.core.copied.dropped.load(Ordering::Acquire)
    }

    /// Last number of a lane that a sync has covered.
    pub fn end(&self, lane: usize) -> u64 {
        self.core.shared.lanes().get(lane).map_or(0, |state| state.next_seq() - 1)
    }

    /// Those who wait for the database up to `last_seq` are told that `level` is reached, and wait no longer.
    pub fn release(&self, lane: usize, last_seq: u64, level: AckLevel) {
        let released = lock(&self.core.books).release(lane, last_seq);
        tell_level(released, level);
    }

    /// Whether anybody waits for the database.
    pub fn has_waiters(&self) -> bool {
        lock(&self.core.books).waiters() > 0
    }

    /// Numbers what waits in a lane under a new stream, because the second medium knows another history of this one, or has ended it. Only
    /// the lane's drain may ask, between two transactions.
    ///
    /// # Errors
    /// The commit thread does not answer, or the disk takes no new segment; ask again.
    pub fn renumber(&self, lane: usize) -> io::Result<Attached> {
        let Some(side) = self.core.lanes.get(lane) else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
        let mut side = lock(side);
        match side.forking.take() {
            Some(fork) => self.forked(lane, &mut side, fork),
            None => self.fork(lane, &mut side),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_settled_and_copied_may_go() {
        let (a, b) = (StreamId::now_v7(), StreamId::now_v7());
        let state = |stream| LaneState { stream, base: 0, next: 100, chain: 0, accepted: 99, voided: 0 };
        let lanes = [state(a), state(b)];
        let copied = Copied::default();
        assert_eq!(copied.limit(&[50, 60], &lanes), [50, 60], "without a second medium");
        *copied.lock() = Some(vec![(a, 40), (StreamId::now_v7(), 99)]);
        assert_eq!(copied.limit(&[50, 60], &lanes), [40, 0], "another stream's numbers say nothing");
        assert_eq!(copied.limit(&[30, 60], &lanes), [30, 0]);
    }
}
