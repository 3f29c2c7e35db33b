//! How far each stream has come: for senders that wait until their readings are in Kafka. Kept in memory; who waits for it ends with the
//! process.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::domain::receipt::StreamId;

/// Streams that are kept in mind; the one that was heard of first is forgotten beyond that.
const STREAMS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<HashMap<StreamId, Course>>);

#[derive(Debug, Default)]
struct Course {
    /// The database has committed up to here.
    committed: u64,
    /// The last of these numbers that had anything to relay.
    owed: u64,
    /// Kafka has committed up to here.
    relayed: u64,
    /// Who waits, by number; senders wait for the ack time-out at most, so these are as many as there are connections.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
}

impl Course {
    /// Up to where everything that is to be relayed is.
    fn reached(&self) -> u64 {
        if self.relayed >= self.owed { self.committed.max(self.relayed) } else { self.relayed }
    }

    fn tell(&mut self) {
        let reached = self.reached();
        let (done, waiting) = std::mem::take(&mut self.waiters).into_iter().partition(|(seq, _)| *seq <= reached);
        self.waiters = waiting;
        // Who does not listen any more has given up.
        for (_, waiter) in Vec::from_iter::<Vec<_>>(done) {
            let _ = waiter.send(());
        }
        self.waiters.retain(|(_, waiter)| !waiter.is_closed());
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Course>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, stream: StreamId, change: impl FnOnce(&mut Course)) {
        let mut courses = self.lock();
        if courses.len() >= STREAMS_MAX && !courses.contains_key(&stream) {
            // Streams end with starts and restores: one that nobody waits for is not needed any more.
            courses.retain(|_, course| !course.waiters.is_empty());
        }
        let course = courses.entry(stream).or_default();
        change(course);
        course.tell();
    }

    /// The database has committed up to `last_seq`; `rows`: whether anything since the last call is to be relayed.
    pub(super) fn committed(&self, stream: StreamId, last_seq: u64, rows: bool) {
        self.with(stream, |course| {
            course.committed = course.committed.max(last_seq);
            if rows {
                course.owed = course.owed.max(last_seq);
            }
        });
    }

    /// Kafka has committed a run that ends at `last_seq`.
    pub(super) fn relayed(&self, stream: StreamId, last_seq: u64) {
        self.with(stream, |course| course.relayed = course.relayed.max(last_seq));
    }

    /// See [`super::Relay::wait_for`].
    pub(super) fn wait_for(&self, stream: StreamId, seq: u64) -> oneshot::Receiver<()> {
        let (waiter, told) = oneshot::channel();
        self.with(stream, |course| course.waiters.push((seq, waiter)));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(receiver: &mut oneshot::Receiver<()>) -> bool {
        receiver.try_recv().is_ok()
    }

    #[test]
    fn who_waits_is_told_when_its_number_is_relayed_and_not_before() {
        let (board, stream) = (Board::default(), StreamId::from_u128(1));
        let mut tenth = board.wait_for(stream, 10);
        board.committed(stream, 10, true);
        assert!(!told(&mut tenth));
        board.relayed(stream, 9);
        assert!(!told(&mut tenth));
        board.relayed(stream, 10);
        assert!(told(&mut tenth));
        assert!(told(&mut board.wait_for(stream, 10)), "it is known afterwards too");
    }

    #[test]
    fn numbers_without_anything_to_relay_are_there_once_those_before_them_are() {
        let (board, stream) = (Board::default(), StreamId::from_u128(1));
        let (mut fifth, mut tenth) = (board.wait_for(stream, 5), board.wait_for(stream, 10));
        board.committed(stream, 5, true);
        board.committed(stream, 10, false);
        assert!(!told(&mut tenth));
        // The run ends at the last number that was stored; the fifth was a duplicate.
        board.relayed(stream, 4);
        assert!(!told(&mut fifth));
        board.committed(stream, 11, true);
        board.relayed(stream, 11);
        assert!(told(&mut fifth) && told(&mut tenth));
        board.committed(stream, 20, false);
        assert!(told(&mut board.wait_for(stream, 20)));
    }

    #[test]
    fn streams_and_those_who_gave_up_are_forgotten() {
        let board = Board::default();
        for n in 0..1_000 {
            drop(board.wait_for(StreamId::from_u128(n), 1));
            board.committed(StreamId::from_u128(n), 1, true);
        }
        assert!(board.lock().len() <= STREAMS_MAX);
        assert!(board.lock().values().all(|course| course.waiters.is_empty()));
    }
}
