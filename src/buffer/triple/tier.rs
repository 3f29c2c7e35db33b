//! The tier itself: what the daemon holds. See the module above for the flow and the states.
//!
//! In: batches, and what the drains ask. Out: what the journal and the heritage lane of Redis say, with gaps filled. A crash loses nothing
//! here: it keeps no more than gaps on their way.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    TripleObserver,
    copier::{self, Desk},
    fill::Fill,
};
use crate::{
    buffer::{
        Attached, Buffer, BufferStats, DrainOutcome, Frame, GapKind, OnVisible, Position, Work,
        audit::{Audit, Medium},
        journal::{disk::RealDisk, tier::JournalBuffer},
        redis::{RedisBuffer, RedisView, audit::RedisAudit, core::lock},
    },
    domain::{
        ack::AckLevel,
        batch::Batch,
        receipt::{ReceiptState, StreamId},
    },
    protocol::{Refusal, Reply},
};

/// How often an orderly stop looks whether everything is copied.
const STOP_LOOK: Duration = Duration::from_millis(10);

/// What the tier is made of.
pub struct TripleSettings {
    /// The journal, which numbers.
    pub journal: Arc<JournalBuffer<RealDisk>>,
    /// Redis, with no streams of its own to write, and the journal inside.
    pub redis: Arc<RedisBuffer>,
    /// Whether the database takes readings, as far as is known.
    pub store_is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// Who is told.
    pub observer: Arc<dyn TripleObserver>,
}

impl fmt::Debug for TripleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TripleSettings").field("redis", &self.redis).finish_non_exhaustive()
    }
}

/// See the module.
pub struct TripleBuffer {
    desk: Arc<Desk>,
    /// Gaps that are being filled, one a lane of the journal.
    fills: Vec<Mutex<Option<Fill>>>,
    copier: Mutex<Option<thread::JoinHandle<()>>>,
}

impl fmt::Debug for TripleBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TripleBuffer").field("redis", &self.desk.redis).finish_non_exhaustive()
    }
}

impl TripleBuffer {
    /// Starts the copier; Redis and the database may be away.
    ///
    /// # Errors
    /// No thread could be had.
    pub fn start(settings: TripleSettings) -> io::Result<Self> {
        let TripleSettings { journal, redis, store_is_up, observer } = settings;
        let lanes = journal.lanes();
        let flags = || (0..lanes).map(|_| AtomicBool::new(false)).collect::<Vec<_>>();
        let desk = Arc::new(Desk {
            timeout: redis.core.settings.server.timeout(),
            redis,
            journal,
            observer,
            store_is_up,
            renumber: flags(),
            anew: (0..lanes).map(|_| Mutex::new(None)).collect(),
            cannot_remove: AtomicBool::new(false),
            filling: flags(),
            recovering: AtomicBool::new(false),
            uncopied: AtomicU64::new(0),
            bell: Arc::default(),
            hook: OnceLock::new(),
            ended: AtomicBool::new(false),
        });
        // From the first moment on: what was not copied before the last stop is still to be.
        for lane in 0..lanes {
            desk.journal.copied(lane, desk.journal.stream(lane), 0);
        }
        let copier = copier::start(desk.clone())?;
        Ok(Self { desk, fills: (0..lanes).map(|_| Mutex::new(None)).collect(), copier: Mutex::new(Some(copier)) })
    }

    /// The journal's lane, where it is one.
    fn journal_lane(&self, lane: usize) -> Option<usize> {
        lane.checked_sub(self.desk.redis.core.own_lanes()).filter(|lane| *lane < self.fills.len())
    }

    fn set_fill(&self, lane: usize, fill: Option<Fill>) {
        self.desk.filling[lane].store(fill.is_some(), Ordering::Release);
        *lock(&self.fills[lane]) = fill;
    }

    /// Streams that are settled to their end may not be in the database any more.
    fn look_again(&self) {
        self.desk.redis.core.look_again.store(true, Ordering::Release);
        self.desk.redis.core.wake_keeper();
    }

    /// How many of the numbers behind the database's cursor Redis cannot have either; 0 where it does not say.
    fn beyond_redis(&self, stream: StreamId, cursor: u64, missing: u64) -> u64 {
        match self.desk.redis.core.span(stream) {
            Ok(Some((first, _))) => (first - 1).saturating_sub(cursor).min(missing),
            Ok(None) if self.desk.redis.core.is_readable() => missing,
            _ => 0,
        }
    }

    /// What may be lost, as a code and in words.
    fn may_lose(&self) -> (&'static str, &'static str) {
        let keeps = self.desk.redis.view().facts.is_some_and(|facts| facts.level() == AckLevel::Redis);
        match ((self.desk.store_is_up)(), self.desk.copying(), keeps) {
            (true, true, true) => {
                ("triple", "nothing that was acknowledged, also if one of journal, database and Redis is destroyed")
            }
            (false, true, true) => (
                "triple-no-store",
                "nothing that was acknowledged, unless the journal and Redis are both destroyed before the database is back",
            ),
            (true, true, false) => (
                "triple-forgetful",
                "nothing that was acknowledged, unless the journal and the database are both destroyed: Redis does not keep its copy on disk, or evicts it",
            ),
            (false, true, false) => (
                "triple-forgetful-no-store",
                "what waits for the database, if this host's disk is destroyed and Redis ends: it does not keep its copy on disk, or evicts it",
            ),
            (true, false, _) => (
                "triple-no-redis",
                "nothing that was acknowledged, unless the journal and the database are both destroyed: Redis takes no copies now",
            ),
            (false, false, _) => (
                "triple-journal",
                "what waits for the database, if this host's disk is destroyed: neither the database nor Redis takes anything now",
            ),
        }
    }
}

impl Drop for TripleBuffer {
    fn drop(&mut self) {
        self.desk.ended.store(true, Ordering::Release);
        self.desk.bell.ring();
        if let Some(copier) = lock(&self.copier).take() {
            let _ = copier.join();
        }
    }
}

impl Buffer for TripleBuffer {
    fn tier(&self) -> &'static str {
        "triple"
    }

    fn lane_tier(&self, lane: usize) -> &'static str {
        // What is drained from Redis alone is told apart.
        if self.journal_lane(lane).is_some() { "triple" } else { "redis" }
    }

    fn level(&self) -> AckLevel {
        AckLevel::Store
    }

    fn medium_level(&self) -> AckLevel {
        AckLevel::Journal
    }

    fn reaches(&self, level: AckLevel) -> bool {
        self.desk.journal.reaches(level)
    }

    fn lanes(&self) -> usize {
        self.desk.redis.lanes()
    }

    fn stream(&self, lane: usize) -> StreamId {
        self.desk.redis.stream(lane)
    }

    fn writes(&self, stream: StreamId) -> bool {
        self.desk.redis.writes(stream)
    }

    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64 {
        self.desk.journal.submit(batch, ack, alerts, reply)
    }

    fn on_visible(&self, hook: OnVisible) {
        // Set once, by the daemon at its start.
        let hook = Arc::new(hook);
        let _ = self.desk.hook.set(hook.clone());
        let bell = self.desk.bell.clone();
        self.desk.redis.on_visible(Box::new(move |waiting, urgent| {
            hook(waiting, urgent);
            bell.ring();
        }));
    }

    fn refuses(&self, batch: &Batch) -> Option<Refusal> {
        self.desk.journal.refuses(batch)
    }

    fn turn(&self, lane: usize) {
        let Some(journal) = self.journal_lane(lane) else { return self.desk.redis.turn(lane) };
        if !self.desk.renumber[journal].load(Ordering::Acquire) {
            return;
        }
        match self.desk.journal.renumber(journal) {
            Ok(Attached::DirectoryRestored { from, to }) => {
                self.set_fill(journal, None);
                self.desk.renumber[journal].store(false, Ordering::Release);
                self.desk.observer.renumbered(from, to);
                self.look_again();
                self.desk.bell.ring();
            }
            Ok(_) => self.desk.renumber[journal].store(false, Ordering::Release),
            Err(error) => {
                log::warn!(target: "belayd::buffer", lane = journal as u64, error:% = error; "a lane of the journal could not be given a new stream; tried again");
            }
        }
    }

    fn waiting(&self, lane: usize) -> u64 {
        self.desk.redis.waiting(lane)
    }

    fn attach(&self, lane: usize, position: &Position) -> io::Result<Attached> {
        let Some(journal) = self.journal_lane(lane) else { return self.desk.redis.attach(lane, position) };
        self.set_fill(journal, None);
        let stream = self.desk.journal.stream(journal);
        let attached = self.desk.journal.attach(journal, position)?;
        match attached {
            Attached::Resumed => {
                lock(&self.desk.redis.core.books).copies.settled(stream, position.cursor_seq);
                if position.cursor_seq == 0 {
                    // A new stream, or an empty database: then what was settled of others is not there either.
                    self.look_again();
                }
            }
            Attached::StoreRestored { missing } => {
                lock(&self.desk.redis.core.books).copies.settled(stream, position.cursor_seq);
                self.look_again();
                self.desk.observer.filling(stream, missing);
                let missing = self.beyond_redis(stream, position.cursor_seq, missing);
                return Ok(Attached::StoreRestored { missing });
            }
            Attached::DirectoryRestored { .. } => self.look_again(),
        }
        Ok(attached)
    }

    fn next(&self, lane: usize, max_rows: u32) -> io::Result<Work> {
        let Some(journal) = self.journal_lane(lane) else { return self.desk.redis.next(lane, max_rows) };
        let mut fill = lock(&self.fills[journal]);
        if fill.is_none() {
            match self.desk.journal.next(journal, max_rows)? {
                Work::Gap(gap) if gap.kind != GapKind::Void => *fill = Some(Fill::new(gap)),
                work => return Ok(work),
            }
        }
        let stream = self.desk.journal.stream(journal);
        let Some(open) = fill.as_mut() else { return Ok(Work::Nothing) };
        let work = open.next(&self.desk.redis.core, stream);
        if open.is_done() {
            *fill = None;
        }
        self.desk.filling[journal].store(fill.is_some(), Ordering::Release);
        drop(fill);
        if let Work::Gap(gap) = &work
            && gap.kind != GapKind::Void
        {
            self.desk.observer.missing(stream, gap.acknowledged);
        }
        Ok(work)
    }

    fn settle(&self, lane: usize, outcome: &DrainOutcome) {
        self.desk.redis.settle(lane, outcome);
        if let Some(journal) = self.journal_lane(lane) {
            let stream = self.desk.journal.stream(journal);
            lock(&self.desk.redis.core.books).copies.settled(stream, outcome.last_seq);
        }
    }

    fn close(&self) {
        self.desk.redis.close();
        self.desk.journal.close();
    }

    fn abandon(&self) -> u64 {
        self.close();
        // The last of it gets its copy too, where Redis takes it in time.
        let until = Instant::now() + self.desk.timeout;
        let copied = || {
            (0..self.fills.len()).all(|lane| {
                let copies = lock(&self.desk.redis.core.books);
                copies.copies.span(self.desk.journal.stream(lane)).map_or(0, |(_, end)| end) >= self.desk.journal.end(lane)
            })
        };
        while self.desk.copying() && Instant::now() < until && !copied() {
            self.desk.bell.ring();
            thread::sleep(STOP_LOOK);
        }
        self.desk.redis.abandon()
    }

    fn locate(&self, stream: StreamId, seq: u64) -> (StreamId, u64) {
        self.desk.journal.locate(stream, seq)
    }

    fn earlier(&self, stream: StreamId) -> Vec<StreamId> {
        self.desk.journal.earlier(stream)
    }

    fn knows(&self, stream: StreamId) -> bool {
        self.desk.redis.knows(stream)
    }

    fn held(&self, stream: StreamId) -> Option<(u64, u64)> {
        self.desk.redis.held(stream)
    }

    fn read_again(&self, stream: StreamId, first: u64, last: u64) -> io::Result<Vec<Frame>> {
        self.desk.redis.read_again(stream, first, last)
    }

    fn audit(&self, medium: Medium) -> Option<Box<dyn Audit>> {
        match medium {
            Medium::Redis => Some(Box::new(RedisAudit::begin(self.desk.redis.core.clone(), Some(self.desk.clone())))),
            Medium::Journal => self.desk.journal.audit(medium),
        }
    }

    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        self.desk.redis.state_of(stream, seq)
    }

    fn redis(&self) -> Option<RedisView> {
        let uncopied = Some(self.desk.uncopied.load(Ordering::Acquire));
        let dropped = Some(self.desk.journal.dropped_uncopied());
        Some(RedisView { uncopied, uncopied_dropped_bytes: dropped, ..self.desk.redis.view() })
    }

    fn stats(&self) -> BufferStats {
        let (may_lose_code, may_lose) = self.may_lose();
        let ack = if (self.desk.store_is_up)() { AckLevel::Store } else { AckLevel::Journal };
        let inner = self.desk.redis.stats();
        let refuses = self.desk.journal.stats().refuses;
        BufferStats { tier: "triple", ack, may_lose, may_lose_code, refuses, ..inner }
    }
}
