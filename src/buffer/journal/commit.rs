//! The group commit: one thread appends whatever waits and syncs once for all of it, then answers.
//!
//! In: submitted batches. Out: answers, never before the sync that covers them, except for those who asked for level `memory`. A crash
//! loses what is in the queue and was not acknowledged; its senders come again. While a sync is under way the next group gathers by
//! itself; at middling rates pushes gather on their way in (`supervise/linger.rs`), and the thread waits for the last of such a group,
//! because a sync costs 60 to 80 us of CPU.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    AppendError, Appended, Log, SyncFailed,
    disk::Disk,
    rate::Rate,
    tier::{Core, Room, lock},
};
use crate::{
    domain::{
        ack::AckLevel,
        batch::Batch,
        receipt::{Receipt, StreamId},
    },
    protocol::{Accepted, Refusal, Reply},
};

/// Most readings in a frame that is put together of several pushes.
const FRAME_ROWS: u32 = 4_096;
/// Most bytes in such a frame.
const FRAME_BYTES: usize = 256 * 1024;
/// From the first push of a group that comes together to the last, where that pays: they are handed on one by one, right after each other.
const GATHER: Duration = Duration::from_micros(100);
/// Readings that wait for the database above which frames go to all lanes in turn.
const CATCH_UP_ROWS: u64 = 5_000;
/// How often chores are done: trimming, making the next segment, looking for room again.
const CHORES_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether the file that is written is still under its name.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Once the log has said that the disk does not do a chore: how long until it is said again.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What waits for the commit thread.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) submitted: Vec<Submitted>,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) orders: Vec<Order>,
    /// The thread waits to be woken.
    pub(super) sleeping: bool,
    pub(super) ended: bool,
}

/// One push.
pub(super) struct Submitted {
    pub(super) batch: Batch,
    pub(super) ack: AckLevel,
    pub(super) alerts: Option<oneshot::Receiver<()>>,
    pub(super) reply: Reply,
}

/// What only the owner of the log can do.
pub(super) enum Order {
    /// Number the readings of `from` from `from_seq` on anew, if the lane still has that stream.
    Fork { lane: usize, from: StreamId, from_seq: u64, stream: StreamId, answer: SyncSender<io::Result<()>> },
    /// Close the log, and answer when everything that was queued before is durable.
    Close { answer: SyncSender<()> },
}

/// A push that has its numbers and waits for the sync.
struct Numbered {
    lane: usize,
    receipt: Receipt,
    /// `None` once it was answered.
    waiting: Option<(AckLevel, Option<oneshot::Receiver<()>>, Reply)>,
}

/// Starts the thread.
pub(super) fn start<D: Disk>(log: Log<D>, core: Arc<Core<D>>) -> io::Result<thread::JoinHandle<()>> {
    let mut committer = Committer {
        log,
        core,
        lane: 0,
        numbered: Vec::new(),
        frames: Vec::new(),
        parts: Vec::new(),
        rate: Rate::new(),
        chores_at: Instant::now(),
        syncs: 0,
        freed_for: 0,
        complained_at: None,
        looked_at: Instant::now(),
        missing: false,
    };
    thread::Builder::new().name("journal".into()).spawn(move || while committer.turn() {})
}

struct Committer<D: Disk> {
    log: Log<D>,
    core: Arc<Core<D>>,
    /// The lane that the next frame goes to.
    lane: usize,
    numbered: Vec<Numbered>,
    frames: Vec<(usize, Appended)>,
    parts: Vec<Bytes>,
    rate: Rate,
    chores_at: Instant,
    /// Syncs that worked.
    syncs: u64,
    freed_for: u64,
    complained_at: Option<Instant>,
    looked_at: Instant,
    /// The file that is written is gone from its name, and there is no other.
    missing: bool,
}

impl<D: Disk> Committer<D> {
    /// One group. `false` ends the thread.
    fn turn(&mut self) -> bool {
        let Some((submitted, orders)) = self.take() else { return false };
        if !submitted.is_empty() {
            self.rate.count(submitted.iter().filter(|submitted| submitted.batch.is_small()).count());
            self.commit(submitted);
        }
        for order in orders {
            match order {
                Order::Fork { lane, from, from_seq, stream, answer } => {
                    let forked = self.fork(lane, from, from_seq, stream);
                    let _ = answer.send(forked);
                }
                Order::Close { answer } => {
                    self.close();
                    let _ = answer.send(());
                }
            }
        }
        if Instant::now() >= self.chores_at {
            self.chores();
        }
        true
    }

    /// Waits for a group to form and takes it. `None` at the end.
    fn take(&mut self) -> Option<(Vec<Submitted>, Vec<Order>)> {
        let core = self.core.clone();
        let mut queue = lock(&core.queue);
        let mut slept = false;
        while queue.submitted.is_empty() && queue.orders.is_empty() {
            if queue.ended {
                self.close();
                return None;
            }
            let left = self.chores_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some((Vec::new(), Vec::new()));
            }
            queue.sleeping = true;
            queue = core.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            queue.sleeping = false;
            slept = true;
        }
        let urgent = || queue.submitted.iter().any(|submitted| submitted.ack >= AckLevel::Store);
        // What came while a sync was under way is a group already.
        if slept && self.rate.pays_to_gather() && queue.orders.is_empty() && !queue.ended && !urgent() {
            drop(queue);
            thread::sleep(GATHER);
            queue = lock(&core.queue);
        }
        (queue.bytes, queue.rows) = (0, 0);
        // As much room as this group took, so that the next one does not grow step by step.
        let room = queue.submitted.len();
        let submitted = std::mem::replace(&mut queue.submitted, Vec::with_capacity(room.min(1_024)));
        Some((submitted, std::mem::take(&mut queue.orders)))
    }

    fn commit(&mut self, submitted: Vec<Submitted>) {
        let catching_up = {
            let waiting = lock(&self.core.books).waiting_total();
            waiting > CATCH_UP_ROWS
        };
        if !catching_up {
            self.lane = 0;
        }
        let mut refused: Option<Refusal> = None;
        let mut submitted = submitted.into_iter().peekable();
        while submitted.peek().is_some() {
            // Pushes that came together share a frame.
            let mut group: Vec<Submitted> = Vec::new();
            let (mut rows, mut bytes) = (0, 0);
            while let Some(next) = submitted.peek() {
                let fits =
                    group.is_empty() || (rows + next.batch.len() <= FRAME_ROWS && bytes + next.batch.bytes().len() <= FRAME_BYTES);
                if !fits {
                    break;
                }
                rows += next.batch.len();
                bytes += next.batch.bytes().len();
                group.extend(submitted.next());
            }
            match refused {
                None => refused = self.append(group, rows),
                Some(refusal) => refuse(group, refusal),
            }
            if catching_up {
                self.lane = (self.lane + 1) % self.core.settings.streams.clamp(1, self.core.lanes.len());
            }
        }
        match self.log.sync() {
            // Over nothing it says nothing of the disk.
            Ok(()) if self.frames.is_empty() => {}
            Ok(()) => {
                self.syncs += 1;
                self.synced();
            }
            Err(failed) => self.sync_failed(&failed),
        }
        self.numbered.clear();
        self.frames.clear();
        self.core.bytes.store(self.log.bytes(), Ordering::Release);
    }

    /// Appends one frame; its pushes then wait for the sync. Gives back why later ones need not be tried.
    fn append(&mut self, group: Vec<Submitted>, rows: u32) -> Option<Refusal> {
        let first = group.first()?;
        self.parts.clear();
        self.parts.extend(group.iter().map(|submitted| submitted.batch.bytes().clone()));
        let at_us = first.batch.received_at_us();
        let mut appended = self.log.append(self.lane, at_us, rows, &self.parts);
        while matches!(appended, Err(AppendError::Full)) && self.core.make_way(&mut self.log, self.frames.is_empty()) {
            appended = self.log.append(self.lane, at_us, rows, &self.parts);
        }
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => {
                let (room, cause) = match &error {
                    AppendError::Full => (Room::Full, None),
                    AppendError::DiskFull => (Room::DiskFull, None),
                    AppendError::NoSegment(cause) => (Room::Failing, Some(cause)),
                    // The sync that comes says what it means.
                    AppendError::Failed(_) => (Room::Free, None),
                };
                if room != Room::Free {
                    self.set_room(room, cause);
                }
                let refusal = room.refusal().unwrap_or(Refusal::Failed);
                refuse(group, refusal);
                return Some(refusal);
            }
        };
        let (lane, stream) = (self.lane, appended.stream);
        let mut next = appended.first_seq;
        for Submitted { batch, ack, alerts, reply } in group {
            let receipt = Receipt { stream, first_seq: next, last_seq: next + u64::from(batch.len()) - 1 };
            next = receipt.last_seq + 1;
            let waiting = if ack == AckLevel::Memory {
                let _ = reply.send(Ok(Accepted { receipt, level: AckLevel::Memory, upgrade: None, alerts }));
                None
            } else {
                Some((ack, alerts, reply))
            };
            self.numbered.push(Numbered { lane, receipt, waiting });
        }
        self.frames.push((lane, appended));
        None
    }

    fn synced(&mut self) {
        let mut books = lock(&self.core.books);
        for (lane, appended) in &self.frames {
            books.synced(*lane, appended);
        }
        let upgrades: Vec<_> = self.numbered.iter_mut().map(|numbered| upgrade(&mut books, numbered)).collect();
        let waiting = books.waiting_total();
        drop(books);
        if let Some(hook) = self.core.on_visible.get() {
            hook(waiting, upgrades.iter().any(Option::is_some));
        }
        for (numbered, upgrade) in self.numbered.drain(..).zip(upgrades) {
            if let Some((_, alerts, reply)) = numbered.waiting {
                let _ = reply.send(Ok(Accepted { receipt: numbered.receipt, level: AckLevel::Journal, upgrade, alerts }));
            }
        }
    }

    /// What the log gave up is refused, what is durable all the same is acknowledged.
    fn sync_failed(&mut self, failed: &SyncFailed) {
        let given_up = |lane: usize, seq: u64| {
            failed.voids.iter().any(|(void_lane, first, last)| *void_lane == lane && (*first..=*last).contains(&seq))
        };
        let (mut refused, mut lost) = (0, 0);
        let mut told_of = vec![0_u64; failed.voids.len()];
        let numbered = std::mem::take(&mut self.numbered);
        let frames = std::mem::take(&mut self.frames);
        let mut books = lock(&self.core.books);
        for (lane, appended) in frames.iter().filter(|(lane, appended)| !given_up(*lane, appended.first_seq)) {
            books.synced(*lane, appended);
        }
        let mut answers = Vec::with_capacity(numbered.len());
        for mut numbered in numbered {
            let rows = numbered.receipt.last_seq + 1 - numbered.receipt.first_seq;
            if !given_up(numbered.lane, numbered.receipt.first_seq) {
                let upgrade = upgrade(&mut books, &mut numbered);
                if let Some((_, alerts, reply)) = numbered.waiting {
                    answers.push((reply, Ok(Accepted { receipt: numbered.receipt, level: AckLevel::Journal, upgrade, alerts })));
                }
            } else if let Some((_, _, reply)) = numbered.waiting {
                refused += rows;
                answers.push((reply, Err(Refusal::Failed)));
            } else {
                lost += rows;
                let void = failed.voids.iter().position(|(lane, first, last)| {
                    *lane == numbered.lane && (*first..=*last).contains(&numbered.receipt.first_seq)
                });
                if let Some(told) = void.and_then(|void| told_of.get_mut(void)) {
                    *told += rows;
                }
            }
        }
        for ((lane, first, last), told) in failed.voids.iter().zip(told_of) {
            books.gave_up(*lane, *first, *last, told);
        }
        drop(books);
        self.core.observer.sync_failed(&failed.cause, refused, lost);
        for (reply, answer) in answers {
            let _ = reply.send(answer);
        }
    }

    fn fork(&mut self, lane: usize, from: StreamId, from_seq: u64, stream: StreamId) -> io::Result<()> {
        if self.log.lanes().get(lane).is_none_or(|state| state.stream != from) {
            // The numbers of the order are those of a stream that has ended: they mean other readings now.
            return Err(io::Error::other("the lane has another stream by now"));
        }
        self.log.fork(lane, from_seq, stream)?;
        if let Some(state) = self.log.lanes().get(lane) {
            lock(&self.core.books).forked(lane, from_seq, state);
        }
        self.core.bytes.store(self.log.bytes(), Ordering::Release);
        Ok(())
    }

    fn close(&mut self) {
        if let Err(error) = self.log.close() {
            log::warn!(target: "belayd::buffer", error:% = error; "the journal could not be closed in order; the next start looks at its end as after a crash");
        }
    }

    fn set_room(&self, room: Room, cause: Option<&io::Error>) {
        if self.core.room.swap(room as u8, Ordering::AcqRel) != room as u8 {
            match cause {
                Some(cause) => self.core.observer.failing(cause),
                None => self.core.observer.room(room),
            }
        }
    }

    /// Whether to log now what the disk goes on not to do.
    fn complains(&mut self) -> bool {
        let due = self.complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        if due {
            self.complained_at = Some(Instant::now());
        }
        due
    }

    /// Whether what is acknowledged is where the next start looks for it. Where not even another segment can be had, pushes are refused.
    fn is_there(&mut self) -> bool {
        self.looked_at = Instant::now();
        let left = self.log.leave_missing();
        self.missing = left.is_err();
        match left {
            Ok(None) => {}
            Ok(Some(damage)) => self.core.observer.damaged(&[damage]),
            Err(AppendError::Full) => self.set_room(Room::Full, None),
            Err(AppendError::DiskFull) => self.set_room(Room::DiskFull, None),
            Err(AppendError::NoSegment(cause) | AppendError::Failed(cause)) => self.set_room(Room::Failing, Some(&cause)),
        }
        !self.missing
    }

    /// Gives room back, makes the next segment before it is needed, and looks whether a full disk has room again.
    fn chores(&mut self) {
        self.chores_at = Instant::now() + CHORES_EVERY;
        self.core.observer.alive(self.syncs);
        let settled = self.core.copied.limit(&lock(&self.core.books).all_settled(), self.log.lanes());
        let settled_sum: u64 = settled.iter().sum();
        if settled_sum != self.freed_for {
            self.freed_for = settled_sum;
            if let Err(error) = self.log.trim(&settled) {
                if self.complains() {
                    log::warn!(target: "belayd::buffer", error:% = error; "a segment of the journal could not be removed; tried again");
                }
                self.freed_for = u64::MAX;
            }
        }
        if (self.missing || self.looked_at.elapsed() >= LOOK_EVERY) && !self.is_there() {
            return;
        }
        let room = Room::from_u8(self.core.room.load(Ordering::Acquire));
        let prepared = if room == Room::Failing { self.log.prepare_now() } else { self.log.prepare() };
        let prepared = match prepared {
            Err(AppendError::Full) if self.core.drop_uncopied(&mut self.log) => self.log.prepare(),
            prepared => prepared,
        };
        match prepared {
            Ok(()) => self.set_room(Room::Free, None),
            // There may be room left in the segment being written, so only a refused push says that there is none.
            Err(AppendError::Full) if matches!(room, Room::DiskFull | Room::Failing) => self.set_room(Room::Full, None),
            Err(AppendError::DiskFull) if room == Room::Failing => self.set_room(Room::DiskFull, None),
            Err(AppendError::Full | AppendError::DiskFull) => {}
            Err(AppendError::NoSegment(error) | AppendError::Failed(error)) => {
                if self.complains() {
                    log::warn!(target: "belayd::buffer", error:% = error; "the journal's next segment could not be made; tried again");
                }
                if room != Room::Free || self.log.is_stranded() {
                    self.set_room(Room::Failing, Some(&error));
                }
            }
        }
        self.core.bytes.store(self.log.bytes(), Ordering::Release);
    }
}

fn refuse(group: Vec<Submitted>, refusal: Refusal) {
    for submitted in group {
        // A sender that has gone needs no answer.
        let _ = submitted.reply.send(Err(refusal));
    }
}

/// Notes who waits for more than the journal.
fn upgrade(books: &mut super::books::Books, numbered: &mut Numbered) -> Option<oneshot::Receiver<AckLevel>> {
    let (ack, _, _) = numbered.waiting.as_ref()?;
    (*ack > AckLevel::Journal).then(|| {
        let (sender, receiver) = oneshot::channel();
        books.wait_for_store(numbered.lane, numbered.receipt.last_seq, sender);
        receiver
    })
}
