//! Tier journal: accepted readings wait on this host's disk.
//!
//! ```text
//!   submit -> queue -> commit thread: append, one sync for all that wait, answer      (commit.rs)
//!                          |
//!                     segment log  -> a lane's reader -> drain -> settle -> trim       (lane.rs)
//! ```
//! In: batches. Out: frames, oldest first, one reader a lane. A crash of process or host loses nothing that was acknowledged at level
//! `journal`; what was only acknowledged at `memory` may be gone. At its bound, and while the disk is full, batches are refused whole.

use std::{
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    LogSettings, Recovered, Shared,
    audit::JournalAudit,
    books::Books,
    commit::{self, Order, Queue, Submitted},
    copy::Copied,
    disk::Disk,
    lane::{Forking, LaneSide},
    open,
    scrub::Scrub,
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

/// What may be set.
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// Most bytes on disk.
    pub journal_bytes: u64,
    /// Most bytes of batches that wait for their sync.
    pub queue_bytes: u64,
    /// Lanes to write to.
    pub streams: usize,
}

/// What the journal tells as it happens.
pub trait JournalObserver: Send + Sync {
    /// The commit thread turns, and so many syncs have worked since the start; called at least every second.
    fn alive(&self, syncs: u64);
    /// The room for readings changed: a full disk, the bound, or neither.
    fn room(&self, room: Room);
    /// No segment can be made for another reason than room, and readings are refused. [`JournalObserver::room`] says when it is over.
    fn failing(&self, _cause: &io::Error) {}
    /// A sync failed: readings were refused, or lost where they had been acknowledged at level `memory`.
    fn sync_failed(&self, error: &io::Error, refused: u64, lost: u64);
    /// Stretches of the log are damaged.
    fn damaged(&self, damage: &[super::Damage]);
}

/// Whether the journal takes readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Room {
    /// It does.
    Free = 0,
    /// `journal_bytes` is reached.
    Full = 1,
    /// The file system is full.
    DiskFull = 2,
    /// The disk does not take another segment, for another reason.
    Failing = 3,
}

impl Room {
    pub(super) fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Free,
            1 => Self::Full,
            2 => Self::DiskFull,
            _ => Self::Failing,
        }
    }

    pub(super) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Free => None,
            Self::Full => Some(Refusal::Full),
            Self::DiskFull => Some(Refusal::DiskFull),
            Self::Failing => Some(Refusal::Failed),
        }
    }
}

/// The tier. See the module.
pub struct JournalBuffer<D: Disk> {
    pub(super) core: Arc<Core<D>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// Ends with the tier.
    _scrub: Scrub,
    pub(super) order_wait: Duration,
}

/// What submitters, the commit thread and the drains share.
pub(super) struct Core<D: Disk> {
    pub(super) settings: JournalSettings,
    pub(super) shared: Arc<Shared<D>>,
    pub(super) observer: Arc<dyn JournalObserver>,
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    pub(super) room: AtomicU8,
    /// Bytes that the log takes on the disk.
    pub(super) bytes: AtomicU64,
    pub(super) closed: AtomicBool,
    pub(super) on_visible: OnceLock<OnVisible>,
    pub(super) books: Mutex<Books>,
    pub(super) lanes: Vec<Mutex<LaneSide<D>>>,
    /// How far a second medium has a copy.
    pub(super) copied: Copied,
}

impl<D: Disk> fmt::Debug for JournalBuffer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalBuffer").field("settings", &self.core.settings).finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing below these locks panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(reached: Vec<oneshot::Sender<AckLevel>>) {
    tell_level(reached, AckLevel::Store);
}

pub(super) fn tell_level(reached: Vec<oneshot::Sender<AckLevel>>, level: AckLevel) {
    for waiter in reached {
        // A sender that has gone needs no answer.
        let _ = waiter.send(level);
    }
}

impl<D: Disk> JournalBuffer<D> {
    /// Opens the log on `disk` and starts the commit thread.
    ///
    /// # Errors
    /// What [`open`] says; or no thread could be had.
    pub fn open(disk: D, settings: JournalSettings, observer: Arc<dyn JournalObserver>) -> io::Result<(Self, Recovered)> {
        let log_settings = LogSettings::for_bound(settings.journal_bytes);
        let (log, recovered) = open(disk, log_settings, &mut Uuid::now_v7, settings.streams)?;
        let shared = log.shared();
        let lanes = log.lanes().to_vec();
        let settled: Vec<u64> = (0..lanes.len()).map(|lane| shared.first_retained(lane) - 1).collect();
        let voids: Vec<_> = (0..lanes.len()).map(|lane| shared.voids(lane)).collect();
        let core = Arc::new(Core {
            settings,
            observer,
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            room: AtomicU8::new(Room::Free as u8),
            bytes: AtomicU64::new(log.bytes()),
            closed: AtomicBool::new(false),
            on_visible: OnceLock::new(),
            books: Mutex::new(Books::new(&lanes, &settled, &voids)),
            lanes: (0..lanes.len()).map(|lane| Mutex::new(LaneSide::new(&shared, lane))).collect(),
            shared,
            copied: Copied::default(),
        });
        let scrub = Scrub::start(core.shared.clone(), core.observer.clone())?;
        let thread = commit::start(log, core.clone())?;
        Ok((Self { core, thread: Mutex::new(Some(thread)), _scrub: scrub, order_wait: ORDER_WAIT }, recovered))
    }

    fn room(&self) -> Room {
        Room::from_u8(self.core.room.load(Ordering::Acquire))
    }

    fn refuses_with(&self, queue: &Queue, batch: &Batch) -> Option<Refusal> {
        if self.core.closed.load(Ordering::Acquire) {
            return Some(Refusal::Stopping);
        }
        if let Some(refusal) = self.room().refusal() {
            return Some(refusal);
        }
        // One that is larger than the bound is taken alone: refused, it would come again for ever.
        let full = queue.bytes > 0 && queue.bytes + batch.bytes().len() as u64 > self.core.settings.queue_bytes;
        full.then_some(Refusal::Full)
    }

    /// Gives the commit thread something to do.
    fn order<T>(&self, make: impl FnOnce(mpsc::SyncSender<T>) -> Order) -> mpsc::Receiver<T> {
        let (answer, receiver) = mpsc::sync_channel(1);
        lock(&self.core.queue).orders.push(make(answer));
        self.core.wake.notify_one();
        receiver
    }

    /// Numbers what waits in a lane anew. Only its drain may, between two transactions.
    pub(super) fn fork(&self, lane: usize, side: &mut LaneSide<D>) -> io::Result<Attached> {
        let (from, from_seq) = {
            let books = lock(&self.core.books);
            (books.stream(lane), books.settled(lane) + 1)
        };
        let to = Uuid::now_v7();
        let answer = self.order(|answer| Order::Fork { lane, from, from_seq, stream: to, answer });
        self.forked(lane, side, Forking { from, to, answer })
    }

    /// Waits for a fork. One that the commit thread has not begun in time is withdrawn: carried out late, it would number anew what the
    /// database knows by other numbers. One that it has begun is waited for again when the lane is attached the next time.
    pub(super) fn forked(&self, lane: usize, side: &mut LaneSide<D>, fork: Forking) -> io::Result<Attached> {
        let silent = || io::Error::other("the journal's thread does not answer");
        match fork.answer.recv_timeout(self.order_wait) {
            Ok(done) => {
                done?;
                side.forked();
                Ok(Attached::DirectoryRestored { from: fork.from, to: fork.to })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(silent()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let orders = &mut lock(&self.core.queue).orders;
                let before = orders.len();
                orders.retain(|order| !matches!(order, Order::Fork { lane: at, .. } if *at == lane));
                if orders.len() == before {
                    side.forking = Some(fork);
                }
                Err(silent())
            }
        }
    }
}

impl<D: Disk> Drop for JournalBuffer<D> {
    fn drop(&mut self) {
        self.core.closed.store(true, Ordering::Release);
        lock(&self.core.queue).ended = true;
        self.core.wake.notify_one();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl<D: Disk> Buffer for JournalBuffer<D> {
    fn tier(&self) -> &'static str {
        "journal"
    }

    fn level(&self) -> AckLevel {
        AckLevel::Journal
    }

    fn lanes(&self) -> usize {
        self.core.lanes.len()
    }

    fn stream(&self, lane: usize) -> StreamId {
        lock(&self.core.books).stream(lane)
    }

    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64 {
        let mut queue = lock(&self.core.queue);
        if let Some(refusal) = self.refuses_with(&queue, &batch) {
            drop(queue);
            // A waiter that has gone away needs no answer.
            let _ = reply.send(Err(refusal));
            return lock(&self.core.books).waiting_total();
        }
        queue.bytes += batch.bytes().len() as u64;
        queue.rows += u64::from(batch.len());
        let rows = queue.rows;
        queue.submitted.push(Submitted { batch, ack, alerts, reply });
        let sleeping = std::mem::replace(&mut queue.sleeping, false);
        drop(queue);
        if sleeping {
            self.core.wake.notify_one();
        }
        lock(&self.core.books).waiting_total() + rows
    }

    fn on_visible(&self, hook: OnVisible) {
        // Set once, by the daemon at its start.
        let _ = self.core.on_visible.set(hook);
    }

    fn refuses(&self, batch: &Batch) -> Option<Refusal> {
        self.refuses_with(&lock(&self.core.queue), batch)
    }

    fn waiting(&self, lane: usize) -> u64 {
        lock(&self.core.books).waiting(lane)
    }

    fn attach(&self, lane: usize, position: &Position) -> io::Result<Attached> {
        let Some(side) = self.core.lanes.get(lane) else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
        let mut side = lock(side);
        if let Some(fork) = side.forking.take() {
            // Whatever `position` says, it may say it of the stream that is ending.
            return self.forked(lane, &mut side, fork);
        }
        let attached = side.attach(position)?;
        if let Some(attached) = attached {
            let reached = lock(&self.core.books).attach(lane, position);
            tell(reached);
            return Ok(attached);
        }
        // The database knows another history of this stream.
        self.fork(lane, &mut side)
    }

    fn next(&self, lane: usize, max_rows: u32) -> io::Result<Work> {
        let Some(side) = self.core.lanes.get(lane) else { return Ok(Work::Nothing) };
        let work = lock(side).next(max_rows);
        let damage = self.core.shared.take_damage();
        if !damage.is_empty() {
            self.core.observer.damaged(&damage);
        }
        let work = work?;
        if let Work::Gap(mut gap) = work {
            gap.acknowledged = lock(&self.core.books).acknowledged_in(lane, &gap);
            return Ok(Work::Gap(gap));
        }
        Ok(work)
    }

    fn settle(&self, lane: usize, outcome: &DrainOutcome) {
        if let Some(side) = self.core.lanes.get(lane) {
            lock(side).settled(outcome.last_seq);
        }
        let reached = lock(&self.core.books).settle(lane, outcome);
        tell(reached);
    }

    fn close(&self) {
        // Under the lock, so that whoever was let in before is also in the queue.
        let _queue = lock(&self.core.queue);
        self.core.closed.store(true, Ordering::Release);
    }

    fn abandon(&self) -> u64 {
        self.close();
        // What is queued still gets its sync and its answer; nothing is lost.
        let _ = self.order(|answer| Order::Close { answer }).recv_timeout(self.order_wait);
        0
    }

    fn locate(&self, stream: StreamId, seq: u64) -> (StreamId, u64) {
        match self.core.shared.renumbered(stream, seq) {
            Some((lane, seq)) => (self.stream(usize::from(lane)), seq),
            None => (stream, seq),
        }
    }

    fn earlier(&self, stream: StreamId) -> Vec<StreamId> {
        self.core.shared.earlier(stream)
    }

    fn knows(&self, stream: StreamId) -> bool {
        self.core.shared.knows(stream)
    }

    fn held(&self, stream: StreamId) -> Option<(u64, u64)> {
        let lanes = self.core.shared.lanes();
        let lane = lanes.iter().position(|lane| lane.stream == stream)?;
        let (first, next) = (self.core.shared.first_retained(lane), lanes[lane].next_seq());
        (first < next).then(|| (first, next - 1))
    }

    fn read_again(&self, stream: StreamId, first: u64, last: u64) -> io::Result<Vec<Frame>> {
        let Some(lane) = self.core.shared.lanes().iter().position(|lane| lane.stream == stream) else { return Ok(Vec::new()) };
        super::lane::frames_of(&self.core.shared, lane, first, last)
    }

    fn audit(&self, medium: Medium) -> Option<Box<dyn Audit>> {
        let core = self.core.clone();
        let settled = move |lane| lock(&core.books).compared(lane);
        let begin = || JournalAudit::begin(self.core.shared.clone(), Box::new(settled));
        (medium == Medium::Journal).then(|| Box::new(begin()) as Box<dyn Audit>)
    }

    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        lock(&self.core.books).state_of(stream, seq)
    }

    fn stats(&self) -> BufferStats {
        let bytes = self.core.bytes.load(Ordering::Acquire);
        let books = lock(&self.core.books);
        let (account, differences) = books.account();
        BufferStats {
            tier: "journal",
            ack: AckLevel::Journal,
            may_lose_code: "journal",
            may_lose: "nothing that was acknowledged, unless this host's disk is lost or lies about syncs",
            streams: books.streams(),
            rows: books.waiting_total(),
            rows_bound: None,
            bytes,
            bytes_bound: self.core.settings.journal_bytes,
            oldest_age_ms: u64::try_from(books.oldest_age().unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX),
            waiters: books.waiters(),
            refuses: self.room() != Room::Free,
            failing: self.room() == Room::Failing,
            lost_ends: self.core.shared.lost_ends().len() as u64,
            account,
            abandoned: 0,
            difference: differences.total(),
        }
    }
}
