//! How far each stream that this process writes has come, for senders that wait until their readings are in Kafka.
//!
//! In: what the drain found and committed, what Kafka has committed, and what it never will or nobody knows. Out: word to those who wait,
//! and none where it would be a guess: then their channel closes. Kept in memory; who waits ends with the process.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{domain::receipt::StreamId, store::relay::Numbers};

/// Streams that are kept in mind; the one that was heard of longest ago is forgotten beyond that.
const STREAMS_MAX: usize = 64;
/// Ranges of unsure numbers of one stream; beyond it the two oldest become one, with whatever lies between them.
const UNSURE_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Courses>);

#[derive(Debug, Default)]
struct Courses {
    streams: HashMap<StreamId, Course>,
    /// Rises with everything that is heard.
    turn: u64,
}

#[derive(Debug, Default)]
struct Course {
    /// The database has committed up to here.
    committed: u64,
    /// The last number that is to be relayed.
    owed: u64,
    /// Kafka has committed up to here.
    relayed: u64,
    /// Numbers of which nobody here will know that they are in Kafka, whatever comes after them.
    unsure: VecDeque<Numbers>,
    /// Who waits, and for what; senders wait for the ack time-out at most, so these are as many as there are connections.
    waiters: Vec<(Numbers, oneshot::Sender<()>)>,
    /// The turn in which something was heard of it last.
    heard: u64,
}

impl Course {
    /// Up to where everything that is to be relayed is.
    fn reached(&self) -> u64 {
        // Of what the drain has not told of yet it may be unsure.
        if self.relayed >= self.owed { self.committed } else { self.relayed.min(self.committed) }
    }

    fn doubt(&mut self, (first, last): Numbers) {
        if last < first {
            return;
        }
        match self.unsure.back_mut() {
            Some(back) if back.0 <= first && first <= back.1.saturating_add(1) => back.1 = back.1.max(last),
            _ => self.unsure.push_back((first, last)),
        }
        if self.unsure.len() > UNSURE_MAX
            && let (Some(one), Some(two)) = (self.unsure.pop_front(), self.unsure.pop_front())
        {
            self.unsure.push_front((one.0.min(two.0), one.1.max(two.1)));
        }
    }

    fn tell(&mut self) {
        let reached = self.reached();
        for ((first, last), waiter) in std::mem::take(&mut self.waiters) {
            if self.unsure.iter().any(|unsure| unsure.0 <= last && first <= unsure.1) {
                continue;
            }
            if last <= reached {
                // Who does not listen any more has given up.
                let _ = waiter.send(());
            } else if !waiter.is_closed() {
                self.waiters.push(((first, last), waiter));
            }
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Courses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of streams that this process does not write, other instances' for example, nothing is kept: nobody here waits for them.
    fn with(&self, stream: StreamId, change: impl FnOnce(&mut Course)) {
        let mut courses = self.lock();
        courses.turn += 1;
        let turn = courses.turn;
        if let Some(course) = courses.streams.get_mut(&stream) {
            course.heard = turn;
            change(course);
            course.tell();
        }
    }

    /// Makes room for `stream` where it is not there; whether it was.
    fn admit(&self, stream: StreamId) -> bool {
        let mut courses = self.lock();
        let streams = &mut courses.streams;
        let is_known = streams.contains_key(&stream);
        if streams.len() >= STREAMS_MAX && !is_known {
            // One that somebody waits for only where they all are.
            let oldest = streams.iter().min_by_key(|(_, course)| (!course.waiters.is_empty(), course.heard));
            if let Some(oldest) = oldest.map(|(stream, _)| *stream) {
                streams.remove(&oldest);
            }
        }
        streams.entry(stream).or_default();
        is_known
    }

    /// The drain has opened `stream`. The database has it up to `cursor`, and what of it waits for Kafka ends at `waiting`. What it has
    /// and nobody here has heard of (the answer to a commit was lost, or an earlier life wrote it) is unsure.
    pub(super) fn opened(&self, stream: StreamId, cursor: u64, waiting: Option<u64>) {
        self.admit(stream);
        self.with(stream, |course| {
            course.doubt((course.committed + 1, cursor));
            course.committed = course.committed.max(cursor);
            course.owed = course.owed.max(waiting.unwrap_or(0));
        });
    }

    /// The database has committed up to `last_seq`; `relay_seq`: the last number since the last call that is to be relayed, 0 where none is;
    /// `unsure`: which of its numbers were there before, and may wait elsewhere.
    pub(super) fn committed(&self, stream: StreamId, last_seq: u64, relay_seq: u64, unsure: &[Numbers]) {
        let is_known = self.admit(stream);
        self.with(stream, |course| {
            if !is_known {
                // It had to make room for others: of what came up to here nothing is known any more.
                course.doubt((1, last_seq));
            }
            course.committed = course.committed.max(last_seq);
            course.owed = course.owed.max(relay_seq);
            unsure.iter().for_each(|numbers| course.doubt(*numbers));
        });
    }

    /// Kafka has committed a run that ends at `last_seq`.
    pub(super) fn relayed(&self, stream: StreamId, last_seq: u64) {
        self.with(stream, |course| course.relayed = course.relayed.max(last_seq));
    }

    /// These wait for a person, and what comes after them goes without them.
    pub(super) fn left_out(&self, stream: StreamId, numbers: Numbers) {
        self.with(stream, |course| course.doubt(numbers));
    }

    /// See [`super::Relay::wait_for`].
    pub(super) fn wait_for(&self, stream: StreamId, numbers: Numbers) -> oneshot::Receiver<()> {
        let (waiter, told) = oneshot::channel();
        self.with(stream, |course| course.waiters.push((numbers, waiter)));
        told
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError::{Closed, Empty};

    use super::*;

    const STREAM: StreamId = StreamId::from_u128(1);

    fn board() -> Board {
        let board = Board::default();
        board.opened(STREAM, 0, None);
        board
    }

    #[test]
    fn who_waits_is_told_when_its_number_is_relayed_and_not_before() {
        let board = board();
        let mut tenth = board.wait_for(STREAM, (6, 10));
        board.committed(STREAM, 10, 10, &[]);
        assert_eq!(tenth.try_recv(), Err(Empty));
        board.relayed(STREAM, 9);
        assert_eq!(tenth.try_recv(), Err(Empty));
        board.relayed(STREAM, 10);
        assert_eq!(tenth.try_recv(), Ok(()));
        assert_eq!(board.wait_for(STREAM, (6, 10)).try_recv(), Ok(()), "it is known afterwards too");
    }

    #[test]
    fn numbers_without_anything_to_relay_are_there_once_those_before_them_are() {
        let board = board();
        let (mut fifth, mut tenth) = (board.wait_for(STREAM, (1, 5)), board.wait_for(STREAM, (6, 10)));
        // The fifth was a duplicate: the run ends at the last number that was stored.
        board.committed(STREAM, 5, 4, &[]);
        board.committed(STREAM, 10, 0, &[]);
        board.relayed(STREAM, 3);
        assert_eq!((fifth.try_recv(), tenth.try_recv()), (Err(Empty), Err(Empty)));
        board.relayed(STREAM, 4);
        assert_eq!((fifth.try_recv(), tenth.try_recv()), (Ok(()), Ok(())), "nothing has to come behind it");
        board.committed(STREAM, 20, 0, &[]);
        assert_eq!(board.wait_for(STREAM, (12, 20)).try_recv(), Ok(()));
    }

    #[test]
    fn of_numbers_that_may_wait_elsewhere_nothing_is_said_and_their_neighbours_are_told() {
        let board = board();
        let mut early = board.wait_for(STREAM, (1, 4));
        board.committed(STREAM, 10, 10, &[(3, 3), (8, 8)]);
        assert_eq!(early.try_recv(), Err(Closed), "at once: nothing that comes will tell");
        let mut waiters = [(5, 7), (4, 7), (7, 8), (8, 8), (8, 9), (9, 10)].map(|numbers| board.wait_for(STREAM, numbers));
        board.relayed(STREAM, 10);
        let told = waiters.each_mut().map(|waiter| waiter.try_recv());
        assert_eq!(told, [Ok(()), Ok(()), Err(Closed), Err(Closed), Err(Closed), Ok(())]);
    }

    #[test]
    fn nothing_is_said_of_what_the_drain_has_not_told_of_yet() {
        let board = board();
        let mut early = board.wait_for(STREAM, (1, 10));
        // The run was committed, claimed and sent while the drain still asked which of its numbers are unsure.
        board.relayed(STREAM, 10);
        assert_eq!(early.try_recv(), Err(Empty));
        board.committed(STREAM, 10, 10, &[(3, 3)]);
        assert_eq!((early.try_recv(), board.wait_for(STREAM, (4, 10)).try_recv()), (Err(Closed), Ok(())));
    }

    #[test]
    fn what_is_left_out_is_not_told_with_what_comes_after_it() {
        let board = board();
        board.committed(STREAM, 10, 10, &[]);
        let (mut fifth, mut tenth) = (board.wait_for(STREAM, (1, 5)), board.wait_for(STREAM, (6, 10)));
        board.left_out(STREAM, (1, 5));
        board.relayed(STREAM, 10);
        assert_eq!((fifth.try_recv(), tenth.try_recv()), (Err(Closed), Ok(())));
    }

    #[test]
    fn what_an_earlier_life_or_a_commit_without_an_answer_left_is_owed_and_unsure() {
        let board = Board::default();
        board.opened(STREAM, 10, Some(8));
        // A conflict: nothing of it is to be relayed, but what is before it still waits.
        board.committed(STREAM, 11, 0, &[]);
        let mut conflict = board.wait_for(STREAM, (11, 11));
        assert_eq!(conflict.try_recv(), Err(Empty));
        assert_eq!(board.wait_for(STREAM, (10, 10)).try_recv(), Err(Closed));
        board.relayed(STREAM, 8);
        assert_eq!(conflict.try_recv(), Ok(()));
        // Opened again without news; then after a commit up to 20 that nobody has heard of.
        board.opened(STREAM, 11, None);
        assert_eq!(board.wait_for(STREAM, (11, 11)).try_recv(), Ok(()));
        let mut unheard = board.wait_for(STREAM, (12, 20));
        board.opened(STREAM, 20, Some(19));
        board.committed(STREAM, 21, 21, &[]);
        board.relayed(STREAM, 21);
        assert_eq!((unheard.try_recv(), board.wait_for(STREAM, (21, 21)).try_recv()), (Err(Closed), Ok(())));
    }

    #[test]
    fn the_stream_that_was_heard_of_longest_ago_is_forgotten_first_and_of_others_nothing_is_kept() {
        let board = board();
        board.committed(STREAM, 5, 5, &[]);
        for n in 2..1_000 {
            let other = StreamId::from_u128(n);
            assert_eq!(board.wait_for(other, (1, 1)).try_recv(), Err(Closed), "not opened here");
            board.relayed(other, 1);
            board.opened(other, 1, None);
            drop(board.wait_for(other, (2, 2)));
            board.committed(other, 2, 2, &[]);
            board.relayed(STREAM, 4);
        }
        assert_eq!(board.lock().streams.len(), STREAMS_MAX);
        assert!(board.lock().streams.values().all(|course| course.waiters.is_empty()));
        assert_eq!(board.wait_for(STREAM, (4, 4)).try_recv(), Ok(()), "its own is heard of all the time");
        assert_eq!(board.wait_for(STREAM, (5, 5)).try_recv(), Err(Empty));
    }

    #[test]
    fn unsure_numbers_are_bounded_and_never_become_sure() {
        let board = board();
        let many: Vec<Numbers> = (1..=1_000).map(|n| (10 * n, 10 * n + 1)).collect();
        board.committed(STREAM, 20_000, 20_000, &many);
        board.relayed(STREAM, 20_000);
        assert_eq!(board.lock().streams[&STREAM].unsure.len(), UNSURE_MAX);
        assert!(many.iter().all(|numbers| board.wait_for(STREAM, *numbers).try_recv() == Err(Closed)));
        assert_eq!(board.wait_for(STREAM, (9_995, 9_999)).try_recv(), Ok(()));
        assert_eq!(board.wait_for(STREAM, (10_002, 20_000)).try_recv(), Ok(()));
    }
}
