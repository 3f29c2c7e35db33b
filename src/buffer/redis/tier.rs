//! The tier itself: what the daemon holds. See the module above for the flow and the states.

use std::{
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    RedisObserver, RedisSettings, RedisView, again,
    audit::RedisAudit,
    books::{Books, Reached},
    commit::{self, Order, Queue, Submitted},
    core::{Core, journal_level, lock},
    entry::Keys,
    facts::Facts,
    health::Health,
    keeper,
    lane::{Front, LaneSide, ReadFailed},
    link::LinkError,
};
use crate::{
    buffer::{
        Attached, Buffer, BufferStats, DrainOutcome, Frame, OnVisible, Position, Work,
        audit::{Audit, Medium},
    },
    domain::{
        ack::AckLevel,
        batch::Batch,
        receipt::{ReceiptState, StreamId},
    },
    protocol::{Refusal, Reply},
};

/// Longest wait for the commit thread to carry out an order.
const ORDER_WAIT: Duration = Duration::from_secs(30);

fn tell(reached: Reached) {
    for waiter in reached {
        // A sender that has gone needs no answer.
        let _ = waiter.send(AckLevel::Store);
    }
}

/// See the module.
pub struct RedisBuffer {
    pub(in crate::buffer) core: Arc<Core>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl fmt::Debug for RedisBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuffer").field("server", &self.core.settings.server).finish_non_exhaustive()
    }
}

impl RedisBuffer {
    /// Starts the threads; Redis may be away. `inner` takes what Redis does not.
    ///
    /// # Errors
    /// No thread could be had.
    pub fn start(settings: RedisSettings, inner: Arc<dyn Buffer>, observer: Arc<dyn RedisObserver>) -> io::Result<Self> {
        let keys = Keys::new(&settings.prefix);
        let lane = |_| Mutex::new(LaneSide::new(settings.server.clone(), keys.clone(), &settings.instance));
        let core = Arc::new(Core {
            lanes: (0..=settings.streams).map(lane).collect(),
            books: Mutex::new(Books::new(settings.streams + 1)),
            keys,
            inner,
            observer,
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            up: AtomicBool::new(false),
            readable: AtomicBool::new(false),
            full: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            health: Mutex::new(Health::new(settings.breaker)),
            found: AtomicBool::new(false),
            look_again: AtomicBool::new(false),
            may_drain: AtomicBool::new(false),
            others: Mutex::default(),
            take_over: Mutex::new(Vec::new()),
            on_visible: OnceLock::new(),
            keeper: (Mutex::new(false), Condvar::new()),
            settings,
        });
        let threads = vec![commit::start(core.clone())?, keeper::start(core.clone())?];
        Ok(Self { core, threads: Mutex::new(threads) })
    }

    /// Whether this instance drains its own streams. `false` at the start: earlier ones are looked for once it may.
    pub fn may_drain(&self, may: bool) {
        self.core.may_drain.store(may, Ordering::Release);
        self.core.wake_keeper();
        self.core.tell_visible();
    }

    /// Streams that were settled to their end since the last call.
    pub fn take_finished(&self) -> Vec<StreamId> {
        lock(&self.core.books).finished.drain(..).collect()
    }

    /// Streams of this instance that the database knows as open and that are nowhere: whatever they held is lost. `None` until Redis has
    /// been looked through.
    pub fn vanished(&self, open: &[StreamId]) -> Option<Vec<StreamId>> {
        if !self.core.found.load(Ordering::Acquire) {
            return None;
        }
        let books = lock(&self.core.books);
        let gone =
            |stream: &StreamId| !books.knows(*stream) && !books.finished.contains(stream) && !self.core.inner.writes(*stream);
        let vanished: Vec<_> = open.iter().copied().filter(gone).collect();
        drop(books);
        vanished.iter().for_each(|stream| self.core.observer.lost(*stream, None));
        Some(vanished)
    }

    /// Streams of which something may wait for the relay, with the number up to which the database has them; none where nothing is relayed.
    pub fn unrelayed(&self) -> Vec<(StreamId, u64)> {
        if self.core.settings.relays { lock(&self.core.books).unrelayed() } else { Vec::new() }
    }

    /// Nothing of `stream` up to `last_seq` waits for the relay; `u64::MAX` where nothing of it does.
    pub fn relayed(&self, stream: StreamId, last_seq: u64) {
        lock(&self.core.books).relayed(stream, last_seq);
    }

    /// An instance is dead: its streams are drained here.
    pub fn take_over(&self, instance: &str) {
        lock(&self.core.take_over).push(instance.to_owned());
        self.core.wake_keeper();
    }

    /// Whether streams of a dead instance are still to be drained here.
    pub fn drains_for(&self, instance: &str) -> bool {
        // In this order: the keeper puts them into the books before it takes the order away.
        lock(&self.core.take_over).iter().any(|order| order == instance) || lock(&self.core.books).drains_for(instance)
    }

    /// Redis as it is shown.
    pub fn view(&self) -> RedisView {
        let (bytes, early, streams, rows) = {
            let books = lock(&self.core.books);
            (books.bytes(), books.early, books.streams().len(), books.waiting_total())
        };
        let health = lock(&self.core.health);
        let full = self.core.full.load(Ordering::Acquire);
        RedisView {
            address: self.core.settings.server.shown().to_owned(),
            state: match (health.is_up(), full) {
                (true, true) => "full",
                (true, false) => "up",
                (false, _) => "down",
            },
            circuit: health.circuit().as_str(),
            cause: health.cause.clone(),
            down_ms: health.down_since.map(|since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)),
            facts: health.facts.clone(),
            bytes,
            bytes_bound: self.core.settings.stream_bytes,
            removed_early_bytes: early.keep,
            removed_unrelayed_bytes: early.relay,
            streams,
            rows,
            uncopied: None,
            uncopied_dropped_bytes: None,
            looked_back: self.core.found.load(Ordering::Acquire),
        }
    }

    /// Redis' lane, or the journal's.
    fn lane(&self, lane: usize) -> Result<usize, usize> {
        let own = self.core.lanes.len();
        if lane < own { Ok(lane) } else { Err(lane - own) }
    }

    /// Whether the front of a lane is drained here: one's own, while no other has taken this instance for dead; others' always.
    fn may_read(&self, lane: usize) -> bool {
        self.core.may_drain.load(Ordering::Acquire) || lock(&self.core.books).front(lane).is_some_and(|book| !book.own)
    }

    /// Whether a batch may go to Redis now.
    fn takes(&self, queue: &Queue, batch: &Batch) -> bool {
        self.core.settings.streams > 0
            && self.core.is_up()
            && !self.core.full.load(Ordering::Acquire)
            && queue.bytes + batch.bytes().len() as u64 <= self.core.settings.queue_bytes
    }
}

impl Drop for RedisBuffer {
    fn drop(&mut self) {
        self.core.ended.store(true, Ordering::Release);
        lock(&self.core.queue).ended = true;
        self.core.wake.notify_one();
        self.core.wake_keeper();
        for thread in lock(&self.threads).drain(..) {
            let _ = thread.join();
        }
    }
}

impl Buffer for RedisBuffer {
    fn tier(&self) -> &'static str {
        "redis"
    }

    fn lane_tier(&self, lane: usize) -> &'static str {
        match self.lane(lane) {
            Ok(_) => "redis",
            Err(inner) => self.core.inner.lane_tier(inner),
        }
    }

    fn level(&self) -> AckLevel {
        AckLevel::Redis
    }

    fn reaches(&self, level: AckLevel) -> bool {
        level == AckLevel::Redis || self.core.inner.reaches(level)
    }

    fn lanes(&self) -> usize {
        self.core.lanes.len() + self.core.inner.lanes()
    }

    fn stream(&self, lane: usize) -> StreamId {
        match self.lane(lane) {
            Ok(lane) => lock(&self.core.books).stream(lane),
            Err(inner) => self.core.inner.stream(inner),
        }
    }

    fn writes(&self, stream: StreamId) -> bool {
        lock(&self.core.books).counts(stream) || self.core.inner.writes(stream)
    }

    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64 {
        // Whoever asks for this host's disk by name gets it.
        if ack != AckLevel::Journal && !self.core.closed.load(Ordering::Acquire) {
            let mut queue = lock(&self.core.queue);
            if self.takes(&queue, &batch) {
                queue.bytes += batch.bytes().len() as u64;
                queue.rows += u64::from(batch.len());
                let rows = queue.rows;
                queue.submitted.push(Submitted { batch, ack, alerts, reply });
                drop(queue);
                self.core.wake.notify_one();
                return lock(&self.core.books).waiting_total() + rows;
            }
        }
        let waiting = lock(&self.core.books).waiting_total();
        self.core.inner.submit(batch, journal_level(ack), alerts, reply) + waiting
    }

    fn on_visible(&self, hook: OnVisible) {
        // Set once, by the daemon at its start.
        let hook = Arc::new(hook);
        let _ = self.core.on_visible.set(hook.clone());
        self.core.inner.on_visible(Box::new(move |waiting, urgent| hook(waiting, urgent)));
    }

    fn refuses(&self, batch: &Batch) -> Option<Refusal> {
        if self.core.closed.load(Ordering::Acquire) {
            return Some(Refusal::Stopping);
        }
        if self.takes(&lock(&self.core.queue), batch) { None } else { self.core.inner.refuses(batch) }
    }

    fn turn(&self, lane: usize) {
        match self.lane(lane) {
            Ok(lane) => lock(&self.core.books).advance(lane),
            Err(inner) => self.core.inner.turn(inner),
        }
    }

    fn waiting(&self, lane: usize) -> u64 {
        match self.lane(lane) {
            // What cannot be read now does not wait for the database.
            Ok(lane) if self.core.is_readable() && self.may_read(lane) => lock(&self.core.books).waiting(lane),
            Ok(_) => 0,
            Err(inner) => self.core.inner.waiting(inner),
        }
    }

    fn attach(&self, lane: usize, position: &Position) -> io::Result<Attached> {
        let lane = match self.lane(lane) {
            Ok(lane) => lane,
            Err(inner) => return self.core.inner.attach(inner, position),
        };
        let mut books = lock(&self.core.books);
        let stream = books.stream(lane);
        let reached = books.attach(lane, position);
        drop(books);
        lock(&self.core.lanes[lane]).attach(stream, (position.cursor_seq, position.cursor_chain));
        tell(reached);
        Ok(Attached::Resumed)
    }

    fn next(&self, lane: usize, max_rows: u32) -> io::Result<Work> {
        let lane = match self.lane(lane) {
            Ok(lane) => lane,
            Err(inner) => return self.core.inner.next(inner, max_rows),
        };
        if !self.core.is_readable() || !self.may_read(lane) {
            return Ok(Work::Nothing);
        }
        let front =
            lock(&self.core.books).front(lane).map(|book| Front { stream: book.stream, end: book.end, writing: book.writing });
        let Some(front) = front else { return Ok(Work::Nothing) };
        match lock(&self.core.lanes[lane]).next(front, max_rows) {
            Ok(work) => Ok(work),
            Err(ReadFailed::Away(cause)) => {
                // The keeper looks when it can be read again.
                self.core.readable.store(false, Ordering::Release);
                self.core.order_give_up(cause);
                Ok(Work::Nothing)
            }
            Err(ReadFailed::Missing) => {
                let text = "readings that Redis had acknowledged are not there any more";
                self.core.order_give_up(LinkError::ours("gone", text));
                Ok(Work::Nothing)
            }
        }
    }

    fn settle(&self, lane: usize, outcome: &DrainOutcome) {
        let lane = match self.lane(lane) {
            Ok(lane) => lane,
            Err(inner) => return self.core.inner.settle(inner, outcome),
        };
        lock(&self.core.lanes[lane]).settled(outcome.last_seq);
        let mut books = lock(&self.core.books);
        let stream = books.stream(lane);
        let reached = books.settle(lane, outcome);
        drop(books);
        tell(reached);
        if outcome.lost + outcome.quarantined > 0 {
            self.core.observer.lost(stream, Some(outcome.lost + outcome.quarantined));
        }
    }

    fn close(&self) {
        self.core.closed.store(true, Ordering::Release);
    }

    fn abandon(&self) -> u64 {
        self.close();
        // What is queued still goes its way: to Redis, or to the journal, which is closed after it.
        let (answer, done) = std::sync::mpsc::sync_channel(1);
        lock(&self.core.queue).orders.push(Order::Flush { answer });
        self.core.wake.notify_one();
        let _ = done.recv_timeout(ORDER_WAIT);
        self.core.inner.abandon()
    }

    fn locate(&self, stream: StreamId, seq: u64) -> (StreamId, u64) {
        self.core.inner.locate(stream, seq)
    }

    fn earlier(&self, stream: StreamId) -> Vec<StreamId> {
        // Streams in Redis are closed as they are settled to their end.
        self.core.inner.earlier(stream)
    }

    fn knows(&self, stream: StreamId) -> bool {
        self.writes(stream) || self.core.inner.knows(stream)
    }

    fn held(&self, stream: StreamId) -> Option<(u64, u64)> {
        let here = self.core.span(stream).unwrap_or_else(|cause| {
            log::debug!(target: "belayd::buffer", error:% = cause; "Redis could not be asked what it holds");
            None
        });
        let inner = self.core.inner.held(stream);
        match (here, inner) {
            (Some(here), Some(inner)) => Some((here.0.min(inner.0), here.1.max(inner.1))),
            (here, inner) => here.or(inner),
        }
    }

    fn read_again(&self, stream: StreamId, first: u64, last: u64) -> io::Result<Vec<Frame>> {
        let mut frames = self.core.inner.read_again(stream, first, last).unwrap_or_default();
        for (from, to) in again::missing(&frames, first, last) {
            frames.extend(self.core.read_range(stream, from, to).map_err(|cause| io::Error::other(cause.message))?);
        }
        frames.sort_by_key(|frame| frame.first_seq);
        Ok(frames)
    }

    fn audit(&self, medium: Medium) -> Option<Box<dyn Audit>> {
        match medium {
            Medium::Redis => Some(Box::new(RedisAudit::begin(self.core.clone(), None))),
            Medium::Journal => self.core.inner.audit(medium),
        }
    }

    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        let here = lock(&self.core.books).state_of(stream, seq);
        here.or_else(|| self.core.inner.state_of(stream, seq))
    }

    fn redis(&self) -> Option<RedisView> {
        Some(self.view())
    }

    fn stats(&self) -> BufferStats {
        let inner = self.core.inner.stats();
        let books = lock(&self.core.books);
        let (account, mut differences) = books.account();
        let (rows, waiters) = (books.waiting_total(), books.waiters());
        let oldest = books.oldest_age().unwrap_or(Duration::ZERO);
        let streams: Vec<_> = books.streams().into_iter().chain(inner.streams.iter().copied()).collect();
        drop(books);
        let up = self.core.is_up();
        let full = self.core.full.load(Ordering::Acquire);
        let facts = lock(&self.core.health).facts.clone().filter(|_| up && !full);
        differences.add(i128::from(inner.difference));
        BufferStats {
            tier: "redis",
            ack: facts.as_ref().map_or(inner.ack, Facts::level),
            may_lose: facts.as_ref().map_or(inner.may_lose, Facts::may_lose),
            may_lose_code: facts.as_ref().map_or(inner.may_lose_code, Facts::may_lose_code),
            streams,
            rows: rows + inner.rows,
            rows_bound: None,
            bytes: inner.bytes,
            bytes_bound: inner.bytes_bound,
            oldest_age_ms: inner.oldest_age_ms.max(u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX)),
            waiters: waiters + inner.waiters,
            refuses: inner.refuses && facts.is_none(),
            failing: inner.failing && facts.is_none(),
            lost_ends: inner.lost_ends,
            account: account.plus(&inner.account),
            abandoned: inner.abandoned,
            difference: differences.total(),
        }
    }
}
