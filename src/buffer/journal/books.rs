//! The journal's books: where each lane stands, who waits for the database, and the account.
//!
//! In: syncs from the commit thread, outcomes and positions from the drains. Out: the account that has to add up. `accepted` is counted
//! when the answer is due, the rest is what the database reports; `buffered` is numbers that the log has given out and the database has
//! not settled. A crash loses these books; the log's headers and the database's sums make them again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Appended, LaneState};
use crate::{
    buffer::{Account, Differences, DrainOutcome, Gap, GapKind, Position, Totals},
    domain::{
        ack::AckLevel,
        receipt::{ReceiptState, StreamId},
    },
};

/// Marks that tell how old what waits is; more are thinned out.
const MARKS_MAX: usize = 1_024;
/// Waiters among whom those who have gone are not looked for.
const WAITERS_LOOK: usize = 1_024;
/// Least time between two marks.
const MARK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Books {
    lanes: Vec<LaneBook>,
}

#[derive(Debug)]
struct LaneBook {
    stream: StreamId,
    /// Last number that a sync has covered, or that was given up.
    end: u64,
    /// Last number that the database has settled.
    settled: u64,
    /// Readings of the stream that were acknowledged.
    accepted: u64,
    /// Numbers of the stream that were given up and that nobody had been told.
    voided: u64,
    /// Those of them that the database has passed over.
    voided_settled: u64,
    /// Given up and not yet passed over: first and last number, and how many of them had been acknowledged at level memory.
    voids: VecDeque<(u64, u64, u64)>,
    totals: Totals,
    /// Whether the database has been asked in this run; before, its sums are not known and nothing can be compared.
    attached: bool,
    /// Senders that wait for `store`, by the last number of their push, rising.
    waiters: VecDeque<(u64, oneshot::Sender<AckLevel>)>,
    /// At how many waiters those who have gone are looked for next.
    waiters_looked_at: usize,
    marks: VecDeque<(u64, Instant)>,
}

impl LaneBook {
    fn waiting(&self) -> u64 {
        self.end - self.settled.min(self.end)
    }

    /// Readings among the waiting numbers: without those that were given up and refused.
    fn buffered(&self) -> u64 {
        self.waiting().saturating_sub(self.voided - self.voided_settled.min(self.voided))
    }

    fn settle_up_to(&mut self, last_seq: u64) -> Vec<oneshot::Sender<AckLevel>> {
        self.settled = self.settled.max(last_seq);
        while self.marks.front().is_some_and(|(end, _)| *end <= last_seq) {
            self.marks.pop_front();
        }
        let mut reached = Vec::new();
        while self.waiters.front().is_some_and(|(waits_for, _)| *waits_for <= last_seq) {
            reached.extend(self.waiters.pop_front().map(|(_, waiter)| waiter));
        }
        reached
    }

    fn mark(&mut self) {
        let now = Instant::now();
        if self.marks.back().is_some_and(|(_, at)| now - *at < MARK_EVERY) {
            // Belongs to the mark before: its readings are at most that much younger.
            if let Some((end, _)) = self.marks.back_mut() {
                *end = self.end;
            }
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            // Two become one: as old as the first, as far as the second.
            let marks = self.marks.make_contiguous();
            self.marks = marks.chunks(2).filter_map(|pair| Some((pair.last()?.0, pair.first()?.1))).collect();
        }
        self.marks.push_back((self.end, now));
    }
}

impl Books {
    /// `voids` are first and last numbers that each lane's log says were given up.
    pub(super) fn new(lanes: &[LaneState], settled: &[u64], voids: &[Vec<(u64, u64)>]) -> Self {
        let book = |((state, settled), voids): ((&LaneState, &u64), &Vec<(u64, u64)>)| {
            let mut book = LaneBook {
                stream: state.stream,
                end: state.next_seq() - 1,
                settled: *settled,
                accepted: state.accepted,
                voided: state.voided,
                voided_settled: 0,
                voids: voids.iter().map(|(first, last)| (*first, *last, 0)).collect(),
                totals: Totals::default(),
                attached: false,
                waiters: VecDeque::new(),
                waiters_looked_at: WAITERS_LOOK,
                marks: VecDeque::new(),
            };
            if book.waiting() > 0 {
                book.mark();
            }
            book
        };
        Self { lanes: lanes.iter().zip(settled).zip(voids).map(book).collect() }
    }

    pub(super) fn stream(&self, lane: usize) -> StreamId {
        self.lanes.get(lane).map_or_else(StreamId::nil, |book| book.stream)
    }

    pub(super) fn streams(&self) -> Vec<StreamId> {
        self.lanes.iter().map(|book| book.stream).collect()
    }

    pub(super) fn settled(&self, lane: usize) -> u64 {
        self.lanes.get(lane).map_or(0, |book| book.settled)
    }

    /// A lane's stream and the last number of it that is settled; `None` where the database has not been asked since the start.
    pub(super) fn compared(&self, lane: usize) -> Option<(StreamId, u64)> {
        self.lanes.get(lane).filter(|book| book.attached).map(|book| (book.stream, book.settled))
    }

    pub(super) fn all_settled(&self) -> Vec<u64> {
        self.lanes.iter().map(|book| book.settled).collect()
    }

    pub(super) fn waiting(&self, lane: usize) -> u64 {
        self.lanes.get(lane).map_or(0, LaneBook::waiting)
    }

    pub(super) fn waiting_total(&self) -> u64 {
        self.lanes.iter().map(LaneBook::waiting).sum()
    }

    pub(super) fn waiters(&self) -> usize {
        self.lanes.iter().map(|book| book.waiters.len()).sum()
    }

    pub(super) fn oldest_age(&self) -> Option<Duration> {
        self.lanes.iter().filter_map(|book| book.marks.front()).map(|(_, since)| since.elapsed()).max()
    }

    /// A sync covers this frame; what it holds is about to be acknowledged.
    pub(super) fn synced(&mut self, lane: usize, appended: &Appended) {
        if let Some(book) = self.lanes.get_mut(lane) {
            book.accepted += appended.last_seq + 1 - appended.first_seq;
            book.end = book.end.max(appended.last_seq);
            book.mark();
        }
    }

    /// These numbers were given up; `told` of them had been acknowledged at level memory.
    pub(super) fn gave_up(&mut self, lane: usize, first: u64, last: u64, told: u64) {
        if let Some(book) = self.lanes.get_mut(lane) {
            book.end = book.end.max(last);
            book.accepted += told;
            book.voided += last + 1 - first - told;
            book.voids.push_back((first, last, told));
            book.mark();
        }
    }

    pub(super) fn wait_for_store(&mut self, lane: usize, last_seq: u64, waiter: oneshot::Sender<AckLevel>) {
        if let Some(book) = self.lanes.get_mut(lane) {
            // In a long outage senders give up one after the other, and would be remembered until the database is back.
            if book.waiters.len() >= book.waiters_looked_at {
                book.waiters.retain(|(_, waiter)| !waiter.is_closed());
                book.waiters_looked_at = (book.waiters.len() * 2).max(WAITERS_LOOK);
            }
            book.waiters.push_back((last_seq, waiter));
        }
    }

    /// Takes out those who wait for numbers up to `last_seq`.
    pub(super) fn release(&mut self, lane: usize, last_seq: u64) -> Vec<oneshot::Sender<AckLevel>> {
        let Some(book) = self.lanes.get_mut(lane) else { return Vec::new() };
        let until = book.waiters.partition_point(|(waits_for, _)| *waits_for <= last_seq);
        book.waiters.drain(..until).map(|(_, waiter)| waiter).collect()
    }

    /// How many readings of a gap had been acknowledged.
    pub(super) fn acknowledged_in(&self, lane: usize, gap: &Gap) -> u64 {
        let numbers = gap.last_seq + 1 - gap.first_seq;
        match (gap.kind, self.lanes.get(lane)) {
            (GapKind::Void, Some(book)) => {
                let within = book.voids.iter().filter(|(first, last, _)| *first >= gap.first_seq && *last <= gap.last_seq);
                within.map(|(_, _, told)| *told).sum::<u64>().min(numbers)
            }
            (GapKind::Lost, Some(book)) => {
                // The segments that said which of these were given up are gone with the readings; how many there were in all is known.
                let behind = book.voids.iter().filter(|(first, ..)| *first > gap.last_seq);
                let refused_behind: u64 = behind.map(|(first, last, told)| last + 1 - first - told).sum();
                let refused = book.voided.saturating_sub(book.voided_settled).saturating_sub(refused_behind);
                numbers - refused.min(numbers)
            }
            _ => numbers,
        }
    }

    pub(super) fn settle(&mut self, lane: usize, outcome: &DrainOutcome) -> Vec<oneshot::Sender<AckLevel>> {
        let Some(book) = self.lanes.get_mut(lane) else { return Vec::new() };
        let before = book.totals.sum();
        book.totals.settle(outcome);
        let counted = book.totals.sum() - before;
        let gone = outcome.quarantined + outcome.void + outcome.lost;
        if gone > 0 || (counted == 0 && outcome.last_seq >= outcome.first_seq) {
            // A gap: the numbers that nobody had been told of are not part of the account, and who waits for others waits in vain.
            book.voided_settled += (outcome.last_seq + 1 - outcome.first_seq).saturating_sub(counted);
            book.voids.retain(|(first, _, _)| *first > outcome.last_seq);
            book.waiters.retain(|(waits_for, _)| !(outcome.first_seq..=outcome.last_seq).contains(waits_for));
        }
        book.settle_up_to(outcome.last_seq)
    }

    /// The database stands at `position`; those who waited for a commit whose answer never came are given back.
    pub(super) fn attach(&mut self, lane: usize, position: &Position) -> Vec<oneshot::Sender<AckLevel>> {
        let Some(book) = self.lanes.get_mut(lane) else { return Vec::new() };
        if !book.attached {
            // The log's header does not tell refused from acknowledged void numbers; the database does for those it has passed over.
            book.accepted += position.totals.void;
            book.voided = book.voided.saturating_sub(position.totals.void);
            book.attached = true;
        }
        book.totals = position.totals;
        // A database that was replaced by an older one stands behind what was settled.
        book.settled = position.cursor_seq.min(book.end);
        book.voided_settled = book.settled.saturating_sub(position.totals.sum()).min(book.voided);
        book.settle_up_to(position.cursor_seq)
    }

    /// Everything from `from_seq` on has numbers of a new stream now, beginning at 1.
    pub(super) fn forked(&mut self, lane: usize, from_seq: u64, state: &LaneState) {
        if let Some(book) = self.lanes.get_mut(lane) {
            let shift = from_seq - 1;
            book.stream = state.stream;
            book.end = state.next_seq() - 1;
            book.accepted = state.accepted;
            book.voided = state.voided;
            book.settled = 0;
            book.voided_settled = 0;
            book.totals = Totals::default();
            book.attached = false;
            let shifted =
                |(first, last, _): (u64, u64, u64)| Some((first.checked_sub(shift).filter(|seq| *seq > 0)?, last - shift, 0));
            book.voids = std::mem::take(&mut book.voids).into_iter().filter_map(shifted).collect();
            book.waiters = std::mem::take(&mut book.waiters)
                .into_iter()
                .filter_map(|(seq, waiter)| Some((seq.checked_sub(shift).filter(|seq| *seq > 0)?, waiter)))
                .collect();
            book.marks.iter_mut().for_each(|(end, _)| *end = end.saturating_sub(shift));
        }
    }

    pub(super) fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        let book = self.lanes.iter().find(|book| book.stream == stream)?;
        if seq == 0 || seq > book.end {
            Some(ReceiptState::Unknown)
        } else if seq > book.settled {
            Some(ReceiptState::Buffered)
        } else {
            None
        }
    }

    /// Over all lanes, and whether it holds for each of them. Before the database has been asked, what it settled earlier is taken for granted.
    pub(super) fn account(&self) -> (Account, Differences) {
        let (mut all, mut differences) = (Account::default(), Differences::default());
        for book in &self.lanes {
            let buffered = book.buffered();
            let mut account = Account { accepted: buffered, buffered, ..Account::default() };
            if book.attached {
                account.accepted = book.accepted;
                account.set_totals(&book.totals);
            }
            differences.add(account.difference());
            all = all.plus(&account);
        }
        (all, differences)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_account_holds_only_where_it_holds_for_each_lane() {
        let states = [1, 2].map(|stream| LaneState::new(Uuid::from_u128(stream)));
        let mut books = Books::new(&states, &[0, 0], &[Vec::new(), Vec::new()]);
        for (lane, state) in states.iter().enumerate() {
            books.attach(lane, &Position { cursor_seq: 0, cursor_chain: 0, totals: Totals::default() });
            books.synced(lane, &Appended { stream: state.stream, first_seq: 1, last_seq: 10, chain: 1 });
        }
        assert_eq!(books.account().1.total(), 0);
        let reported = |stored| DrainOutcome { first_seq: 1, last_seq: 10, stored, ..DrainOutcome::default() };
        books.settle(0, &reported(9));
        books.settle(1, &reported(11));
        let (account, differences) = books.account();
        assert_eq!(
            (account.accepted, account.stored, account.difference()),
            (20, 20, 0),
            "together it looks as if nothing had been"
        );
        assert_eq!(differences.total(), 2);
    }
}
