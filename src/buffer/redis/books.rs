//! The books of the streams in Redis: which of them each lane drains, where it stands, who waits, and the account.
//!
//! In: acknowledgements from the commit thread, outcomes and positions from the drains, streams of earlier lives from the keeper. Out: the
//! account that has to add up: `accepted` is the last number that was acknowledged, the rest is what the database reports, `buffered` lies
//! between. A crash loses these books; the streams themselves and the database's sums make them again.
//!
//! A lane is a queue of streams: the front is drained; the last one of a lane that is written takes what comes. Only the commit thread
//! begins and ends what is written; only the lane's drain takes a stream from the front, by settling it to its end.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::oneshot;

use super::{
    audit::Extent,
    book::{Book, Kept},
    chunks::{Early, Trim},
    copies::Copies,
};
use crate::{
    buffer::{Account, Differences, DrainOutcome, Position},
    domain::{
        ack::AckLevel,
        receipt::{ReceiptState, StreamId},
    },
};

/// Streams of this process that are remembered after they were settled to their end; older ones are left to the database's sums.
const RETIRED_MAX: usize = 4_096;

/// Most settled streams that the database is asked about at once, oldest first.
const ASKED_MAX: usize = 16;

/// Who waited for the database, to be told.
pub(super) type Reached = Vec<oneshot::Sender<AckLevel>>;

/// See the module.
#[derive(Debug)]
pub(in crate::buffer) struct Books {
    lanes: Vec<VecDeque<Book>>,
    /// The account of the streams that this process has settled to their end, and theirs one by one.
    retired: Account,
    retired_streams: VecDeque<(StreamId, Account)>,
    /// Settled to their end since the last look: the database closes them.
    pub(super) finished: VecDeque<StreamId>,
    /// Settled to their end and still in Redis, oldest first.
    pub(super) kept: VecDeque<Kept>,
    /// Copies of the journal's streams (tier triple).
    pub(in crate::buffer) copies: Copies,
    /// What left Redis before its time, since the start.
    pub(super) early: Early,
}

impl Books {
    pub(super) fn new(lanes: usize) -> Self {
        let lanes = (0..lanes).map(|_| VecDeque::new()).collect();
        Self {
            lanes,
            retired: Account::default(),
            retired_streams: VecDeque::new(),
            finished: VecDeque::new(),
            kept: VecDeque::new(),
            copies: Copies::default(),
            early: Early::default(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Book> {
        self.lanes.iter().flatten()
    }

    fn front_mut(&mut self, lane: usize) -> Option<&mut Book> {
        self.lanes.get_mut(lane)?.front_mut()
    }

    fn find_mut(&mut self, stream: StreamId) -> Option<&mut Book> {
        self.lanes.iter_mut().flatten().find(|book| book.stream == stream)
    }

    /// The stream that a lane drains now; nil where it has none.
    pub(super) fn stream(&self, lane: usize) -> StreamId {
        self.front(lane).map_or_else(StreamId::nil, |book| book.stream)
    }

    /// The same with its books.
    pub(super) fn front(&self, lane: usize) -> Option<&Book> {
        self.lanes.get(lane)?.front()
    }

    /// A lane drains this stream, or will, or has done so in this life.
    pub(super) fn knows(&self, stream: StreamId) -> bool {
        self.all().any(|book| book.stream == stream)
            || self.has_retired(stream)
            || self.kept.iter().any(|kept| kept.stream == stream)
    }

    /// Whether streams of another instance are still drained here.
    pub(super) fn drains_for(&self, instance: &str) -> bool {
        self.all().any(|book| book.of.as_deref() == Some(instance))
    }

    /// Whether the account of `stream` is counted here and not among the database's earlier ones.
    pub(super) fn counts(&self, stream: StreamId) -> bool {
        let front = |lane: &VecDeque<Book>| {
            lane.iter().enumerate().any(|(at, book)| book.stream == stream && book.own && (at == 0 || book.begun_here))
        };
        self.lanes.iter().any(front) || self.has_retired(stream)
    }

    fn has_retired(&self, stream: StreamId) -> bool {
        self.retired_streams.iter().any(|(retired, _)| *retired == stream)
    }

    /// The database was replaced by an older one: streams that were settled to their end may not be there any more. They are found anew.
    pub(super) fn forget_kept(&mut self) {
        for kept in std::mem::take(&mut self.kept) {
            if let Some(at) = self.retired_streams.iter().position(|(stream, _)| *stream == kept.stream) {
                self.retired_streams.remove(at);
            }
        }
        self.retired = self.retired_streams.iter().fold(Account::default(), |sum, (_, account)| sum.plus(account));
    }

    /// Streams in Redis of which something may wait for the relay, with the number up to which the database has them.
    pub(super) fn unrelayed(&self) -> Vec<(StreamId, u64)> {
        let books = self.all().filter(|book| book.relayed < book.settled).map(|book| (book.stream, book.settled));
        let kept = self.kept.iter().filter(|kept| !kept.relayed).take(ASKED_MAX).map(|kept| (kept.stream, u64::MAX));
        books.chain(kept).chain(self.copies.unrelayed()).collect()
    }

    /// Nothing of `stream` up to `last_seq` waits for the relay.
    pub(super) fn relayed(&mut self, stream: StreamId, last_seq: u64) {
        if let Some(book) = self.find_mut(stream) {
            (book.relayed, book.asked) = (last_seq, true);
        }
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.stream == stream) {
            (kept.relayed, kept.asked) = (last_seq == u64::MAX, true);
        }
        self.copies.relayed(stream, last_seq);
    }

    /// A new stream takes what comes in `lane`.
    pub(super) fn begin(&mut self, lane: usize, stream: StreamId) {
        if let Some(queue) = self.lanes.get_mut(lane) {
            queue.push_back(Book::begun(stream));
        }
    }

    /// A stream of an earlier life, or of another instance, is drained in `lane` after those that are there.
    pub(super) fn inherit(&mut self, lane: usize, book: Book) {
        if let Some(queue) = self.lanes.get_mut(lane) {
            queue.push_back(book);
        }
    }

    /// Where the next batch of `lane` goes: stream, its first number, the chain before. `None` where nothing is written.
    pub(super) fn target(&self, lane: usize) -> Option<(StreamId, u64, u64)> {
        let book = self.lanes.get(lane)?.back().filter(|book| book.writing)?;
        Some((book.stream, book.end + 1, book.chain))
    }

    /// Redis has taken everything up to `last_seq`. `false`: the stream was given up meanwhile, nothing may be acknowledged.
    pub(super) fn taken(&mut self, lane: usize, stream: StreamId, last_seq: u64, chain: u64, bytes: u64) -> bool {
        let Some(book) = self.lanes.get_mut(lane).and_then(VecDeque::back_mut) else { return false };
        if !book.writing || book.stream != stream {
            return false;
        }
        book.taken(last_seq, chain, bytes);
        true
    }

    /// Nothing is written any more; what was not acknowledged is behind the end of its stream.
    pub(super) fn end_all(&mut self) {
        self.lanes.iter_mut().flatten().for_each(|book| book.writing = false);
    }

    pub(super) fn wait_for_store(&mut self, stream: StreamId, last_seq: u64, waiter: oneshot::Sender<AckLevel>) {
        if let Some(book) = self.find_mut(stream) {
            book.wait_for_store(last_seq, waiter);
        }
    }

    /// The database stands at `position` in the stream that `lane` drains.
    pub(super) fn attach(&mut self, lane: usize, position: &Position) -> Reached {
        let Some(book) = self.front_mut(lane) else { return Vec::new() };
        let reached = book.attach(position);
        self.advance(lane);
        reached
    }

    /// The database has committed these numbers.
    pub(super) fn settle(&mut self, lane: usize, outcome: &DrainOutcome) -> Reached {
        let Some(book) = self.front_mut(lane) else { return Vec::new() };
        let reached = book.settle(outcome);
        self.advance(lane);
        reached
    }

    /// Takes what is settled to its end from the front of a lane. Only the lane's drain comes here, so that no position of one stream is
    /// taken for another's.
    pub(super) fn advance(&mut self, lane: usize) {
        let Some(queue) = self.lanes.get_mut(lane) else { return };
        while queue.front().is_some_and(Book::is_done) {
            let Some(book) = queue.pop_front() else { return };
            self.finished.push_back(book.stream);
            if self.finished.len() > RETIRED_MAX {
                self.finished.pop_front();
            }
            if book.own {
                let account = book.account();
                self.retired = self.retired.plus(&account);
                self.retired_streams.push_back((book.stream, account));
                if self.retired_streams.len() > RETIRED_MAX {
                    self.retired_streams.pop_front();
                }
            }
            self.kept.push_back(book.kept());
        }
    }

    /// Readings that wait in `lane` in its front stream.
    pub(super) fn waiting(&self, lane: usize) -> u64 {
        self.front(lane).map_or(0, Book::waiting)
    }

    pub(super) fn waiting_total(&self) -> u64 {
        self.all().map(Book::waiting).sum()
    }

    pub(super) fn waiters(&self) -> usize {
        self.all().map(Book::waiters).sum()
    }

    pub(super) fn oldest_age(&self) -> Option<Duration> {
        self.all().filter_map(Book::oldest).map(|since| since.elapsed()).max()
    }

    /// Bytes in Redis, about.
    pub(super) fn bytes(&self) -> u64 {
        self.all().map(Book::bytes).sum::<u64>() + self.kept.iter().map(|kept| kept.bytes).sum::<u64>() + self.copies.bytes()
    }

    /// The streams that are drained or written.
    pub(super) fn streams(&self) -> Vec<StreamId> {
        self.all().map(|book| book.stream).collect()
    }

    /// Every stream of which anything may lie in Redis.
    pub(super) fn in_redis(&self) -> Vec<StreamId> {
        let kept = self.kept.iter().map(|kept| kept.stream);
        self.streams().into_iter().chain(kept).chain(self.copies.streams()).collect()
    }

    /// What Redis must have of `stream`; `None` where it was taken over and the database has not said yet how far it has it, or where it is
    /// none of those in Redis any more.
    pub(super) fn extent(&self, stream: StreamId) -> Option<Extent> {
        if let Some(book) = self.all().find(|book| book.stream == stream) {
            return book.extent();
        }
        let kept = self.kept.iter().find(|kept| kept.stream == stream).map(Kept::extent);
        kept.or_else(|| self.copies.extent(stream))
    }

    /// Whether what would go next of any stream is stored and for certain not relayed.
    pub(super) fn begin_unrelayed(&self) -> bool {
        let kept = self.kept.front().is_some_and(|kept| kept.asked && !kept.relayed);
        kept || self.all().any(Book::begins_unrelayed) || self.copies.begin_unrelayed()
    }

    /// Streams whose first entries may go: those settled (and relayed) and old enough or, where bytes are too many, as far as needed.
    /// Returns the stream and the first number to keep.
    pub(super) fn trim(&mut self, trim: &mut Trim) -> Vec<(StreamId, u64)> {
        let mut cuts = Vec::new();
        for book in self.lanes.iter_mut().flatten() {
            if let Some(first) = book.trim(trim) {
                cuts.push((book.stream, first));
            }
        }
        cuts.extend(self.copies.trim(trim));
        cuts
    }

    pub(super) fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        self.all().find(|book| book.stream == stream)?.state_of(seq)
    }

    /// The account of this instance, and the differences of all streams, also those taken over from others.
    pub(super) fn account(&self) -> (Account, Differences) {
        let (mut account, mut differences) = (self.retired, Differences::default());
        differences.add(self.retired.difference());
        for book in self.all() {
            let one = book.account();
            differences.add(one.difference());
            if book.own {
                account = account.plus(&one);
            }
        }
        (account, differences)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::buffer::Totals;

    fn at(cursor_seq: u64) -> Position {
        Position { cursor_seq, cursor_chain: 0, totals: Totals { stored: cursor_seq, ..Totals::default() } }
    }

    fn span(books: &Books, stream: StreamId) -> Option<(u64, u64, u64)> {
        books.extent(stream).map(|extent| (extent.first, extent.end, extent.settled))
    }

    #[test]
    fn what_is_settled_must_stay_in_redis_until_it_is_trimmed_or_removed() {
        let (mut books, stream) = (Books::new(2), StreamId::from_u128(1));
        let mut trim = Trim { now: Instant::now(), keep: Duration::MAX, relays: false, too_many: 1, early: Early::default() };
        books.begin(0, stream);
        assert!(books.taken(0, stream, 10, 7, 2 * 1024 * 1024) && books.taken(0, stream, 30, 8, 100));
        assert!(books.attach(0, &at(20)).is_empty());
        assert_eq!(span(&books, stream), Some((1, 30, 20)), "also what the database has");
        assert_eq!(books.trim(&mut trim), [(stream, 11)]);
        assert_eq!(span(&books, stream), Some((11, 30, 20)));
        books.attach(0, &at(30));
        books.end_all();
        books.advance(0);
        assert_eq!((books.streams(), span(&books, stream)), (vec![], Some((11, 30, 30))), "kept");
        books.kept.pop_front();
        assert_eq!(span(&books, stream), None, "removed");
    }

    #[test]
    fn what_the_database_has_beyond_a_stream_was_in_redis_unless_the_stream_is_a_copy() {
        for (copied, end) in [(false, 50), (true, 40)] {
            let (mut books, stream) = (Books::new(1), StreamId::from_u128(2));
            books.inherit(0, Book::found(stream, None, 40, 100).beginning_with(21).copied(copied));
            assert_eq!(span(&books, stream), None, "the database was not asked");
            books.attach(0, &at(50));
            assert_eq!(span(&books, stream), Some((21, end, end)), "settled to its end, and kept");
        }
    }

    #[test]
    fn what_is_settled_of_another_instances_stream_need_not_be_there() {
        let (mut books, stream) = (Books::new(1), StreamId::from_u128(2));
        books.inherit(0, Book::found(stream, Some("b"), 40, 100).beginning_with(21));
        books.attach(0, &at(30));
        assert_eq!(span(&books, stream), Some((31, 40, 30)), "what waits must be");
    }
}
