//! The book of one stream in Redis. See [`super::books`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    audit::Extent,
    books::Reached,
    chunks::{self, Chunks, Trim},
};
use crate::{
    buffer::{Account, DrainOutcome, Position, Totals},
    domain::{
        ack::AckLevel,
        receipt::{ReceiptState, StreamId},
    },
};

/// Marks that tell how old what waits is; more are thinned out.
const MARKS_MAX: usize = 1_024;
/// Least time between two marks.
const MARK_EVERY: Duration = Duration::from_millis(50);
/// Waiters among whom those who have gone are not looked for.
const WAITERS_LOOK: usize = 1_024;

/// A stream that is settled to its end and still in Redis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) stream: StreamId,
    pub(super) bytes: u64,
    /// When its last batch was taken.
    pub(super) since: Instant,
    /// Nothing of it waits for the relay.
    pub(super) relayed: bool,
    /// Whether the database was asked for that.
    pub(super) asked: bool,
    /// First and last number that are there; none where the first is behind the last.
    pub(super) there: (u64, u64),
}

impl Kept {
    /// What Redis must have of it.
    pub(super) fn extent(&self) -> Extent {
        Extent { first: self.there.0, end: self.there.1, settled: self.there.1, lacks: 0, copy: false }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) stream: StreamId,
    /// Numbered by this instance: it is part of its account.
    pub(super) own: bool,
    /// The instance that did, where it is another one.
    pub(super) of: Option<String>,
    /// Begun in this life of the process.
    pub(super) begun_here: bool,
    /// A copy of a journal's stream, in which numbers may have been given up.
    copied: bool,
    /// Takes what comes.
    pub(super) writing: bool,
    /// Last number that was acknowledged. What lies behind is no part of the stream.
    pub(super) end: u64,
    /// The chain at the end.
    pub(super) chain: u64,
    pub(super) settled: u64,
    /// First and last number that Redis has, as they were found or taken, less what was trimmed.
    there: (u64, u64),
    /// Last number up to which nothing waits for the relay, as the database said last.
    pub(super) relayed: u64,
    /// Whether it was asked for that.
    pub(super) asked: bool,
    totals: Totals,
    /// Numbers that nobody had been told of and that were passed over: of a journal's stream only.
    uncounted: u64,
    /// Whether the database has been asked.
    attached: bool,
    waiters: VecDeque<(u64, oneshot::Sender<AckLevel>)>,
    waiters_looked_at: usize,
    marks: VecDeque<(u64, Instant)>,
    chunks: Chunks,
}

impl Book {
    /// A stream that begins now.
    pub(super) fn begun(stream: StreamId) -> Self {
        Self { writing: true, begun_here: true, ..Self::found(stream, None, 0, 0) }
    }

    /// A stream that is there: it ends at `end` and takes `bytes`. `of`: another instance that wrote it.
    pub(super) fn found(stream: StreamId, of: Option<&str>, end: u64, bytes: u64) -> Self {
        Self {
            stream,
            own: of.is_none(),
            of: of.map(str::to_owned),
            begun_here: false,
            copied: false,
            writing: false,
            end,
            chain: 0,
            settled: 0,
            there: (1, end),
            relayed: 0,
            asked: false,
            totals: Totals::default(),
            uncounted: 0,
            attached: false,
            waiters: VecDeque::new(),
            waiters_looked_at: WAITERS_LOOK,
            marks: VecDeque::new(),
            chunks: Chunks::found(end, bytes),
        }
    }

    /// Nothing of it is left to do.
    pub(super) fn is_done(&self) -> bool {
        !self.writing && self.settled >= self.end && (self.attached || (self.begun_here && self.end == 0))
    }

    /// What its group says was settled, until the database is asked.
    pub(super) fn settled_at_least(mut self, settled: u64) -> Self {
        self.settled = settled.min(self.end);
        self
    }

    /// What was before its first number was trimmed by an earlier life.
    pub(super) fn beginning_with(mut self, first: u64) -> Self {
        self.there.0 = first;
        self
    }

    /// It is a copy of a journal's stream.
    pub(super) fn copied(mut self, copied: bool) -> Self {
        self.copied = copied;
        self
    }

    pub(super) fn waiting(&self) -> u64 {
        self.end - self.settled.min(self.end)
    }

    pub(super) fn waiters(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.marks.front().map(|(_, since)| *since)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.chunks.bytes()
    }

    pub(super) fn last_taken(&self) -> Instant {
        self.chunks.last_taken()
    }

    pub(super) fn taken(&mut self, last_seq: u64, chain: u64, bytes: u64) {
        let now = Instant::now();
        self.end = last_seq;
        self.there.1 = last_seq;
        self.chain = chain;
        self.chunks.take(last_seq, bytes, now);
        self.mark(now);
    }

    fn mark(&mut self, now: Instant) {
        if let Some((end, at)) = self.marks.back_mut()
            && now - *at < MARK_EVERY
        {
            // Belongs to the mark before: its readings are at most that much younger.
            *end = self.end;
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            // Two become one: as old as the first, as far as the second.
            let marks = self.marks.make_contiguous();
            self.marks = marks.chunks(2).filter_map(|pair| Some((pair.last()?.0, pair.first()?.1))).collect();
        }
        self.marks.push_back((self.end, now));
    }

    pub(super) fn wait_for_store(&mut self, last_seq: u64, waiter: oneshot::Sender<AckLevel>) {
        // In a long outage senders give up one after the other, and would be remembered until the database is back.
        if self.waiters.len() >= self.waiters_looked_at {
            self.waiters.retain(|(_, waiter)| !waiter.is_closed());
            self.waiters_looked_at = (self.waiters.len() * 2).max(WAITERS_LOOK);
        }
        self.waiters.push_back((last_seq, waiter));
    }

    pub(super) fn attach(&mut self, position: &Position) -> Reached {
        self.attached = true;
        self.totals = position.totals;
        if self.copied {
            self.uncounted = position.cursor_seq.saturating_sub(position.totals.sum());
        }
        // Redis may have been put back to where it stood before the database took what followed.
        self.end = self.end.max(position.cursor_seq);
        // A database that was replaced by an older one stands behind what was settled.
        self.settled = position.cursor_seq;
        if self.waiting() > 0 && self.marks.is_empty() {
            self.mark(Instant::now());
        }
        self.reached(position.cursor_seq)
    }

    pub(super) fn settle(&mut self, outcome: &DrainOutcome) -> Reached {
        let before = self.totals.sum();
        self.totals.settle(outcome);
        let counted = self.totals.sum() - before;
        if counted == 0 && self.copied {
            self.uncounted += outcome.last_seq + 1 - outcome.first_seq;
        }
        if outcome.quarantined + outcome.lost > 0 {
            // Who waits for what is lost waits in vain.
            self.waiters.retain(|(waits_for, _)| !(outcome.first_seq..=outcome.last_seq).contains(waits_for));
        }
        self.reached(outcome.last_seq)
    }

    fn reached(&mut self, last_seq: u64) -> Reached {
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

    /// See [`super::books::Books::trim`].
    pub(super) fn trim(&mut self, trim: &mut Trim) -> Option<u64> {
        if !self.attached {
            return None;
        }
        let first = self.chunks.trim(self.course(), trim)?;
        self.there.0 = self.there.0.max(first);
        Some(first)
    }

    fn course(&self) -> chunks::Reached {
        chunks::Reached { settled: self.settled, relayed: self.relayed, asked: self.asked }
    }

    /// Whether what would go next is for certain not relayed.
    pub(super) fn begins_unrelayed(&self) -> bool {
        self.attached && self.chunks.begins_unrelayed(self.course())
    }

    /// What Redis must have of it: what waits, and what is kept. `None` where it was taken over and the database has not said yet how far it
    /// has it.
    pub(super) fn extent(&self) -> Option<Extent> {
        let (first, end) = self.must_be_there();
        let extent = Extent { first, end, settled: self.settled, lacks: 0, copy: false };
        self.knows_what_is_settled().then_some(extent)
    }

    /// It is settled to its end.
    pub(super) fn kept(&self) -> Kept {
        let there = self.must_be_there();
        let relayed = self.asked && self.relayed >= self.end;
        Kept { stream: self.stream, bytes: self.bytes(), since: self.last_taken(), relayed, asked: self.asked, there }
    }

    fn must_be_there(&self) -> (u64, u64) {
        // What the database has behind the end of a copy came from the journal before it was copied. Behind the end of any other stream it
        // came from Redis, which was put back since.
        let end = if self.copied { self.there.1 } else { self.end };
        // One that was taken over its first owner may keep as well when it is back, and drop what is settled of it for room.
        let first = if self.own { self.there.0 } else { self.there.0.max(self.settled + 1) };
        (first, end)
    }

    /// Of what was taken over only the database knows how much of it is settled, and it has not been asked yet.
    pub(super) fn knows_what_is_settled(&self) -> bool {
        self.attached || self.begun_here
    }

    pub(super) fn state_of(&self, seq: u64) -> Option<ReceiptState> {
        if !self.knows_what_is_settled() {
            // Only the database knows how far it is.
            return None;
        }
        if seq == 0 || seq > self.end {
            Some(ReceiptState::Unknown)
        } else if seq > self.settled {
            Some(ReceiptState::Buffered)
        } else {
            None
        }
    }

    pub(super) fn account(&self) -> Account {
        if !self.knows_what_is_settled() {
            // What the database settled earlier is taken for granted.
            return Account { accepted: self.waiting(), buffered: self.waiting(), ..Account::default() };
        }
        let accepted = self.end.saturating_sub(self.uncounted);
        let mut account = Account { accepted, buffered: self.waiting(), ..Account::default() };
        account.set_totals(&self.totals);
        account
    }
}
