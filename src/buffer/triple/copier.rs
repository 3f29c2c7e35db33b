//! The copier: one thread that puts what the journal has synced into Redis, and answers those who wait while the database is away.
//!
//! In: frames behind the commit, by readers of its own. Out: the same frames in Redis, in the stream and with the numbers that they have; room
//! in the journal; answers. A crash loses nothing: Redis says how far it is. Bounds: 16 entries or 1 MB a round trip; while Redis is away
//! or full nothing is read, and the journal keeps what is not copied.

use std::{
    sync::{
        Arc, Condvar, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use redis::{Cmd, Value, cmd};

use super::{TripleObserver, origin};
use crate::{
    buffer::{
        Buffer, Frame, OnVisible,
        journal::{Found, GapKind, Item, LaneReader, LaneState, disk::RealDisk, tier::JournalBuffer},
        redis::{
            RedisBuffer,
            core::lock,
            entry::{ENTRY_BYTES, Entry, GROUP, Registered, add_copy, add_void, entries, last_id},
            link::{Link, LinkError},
            send::add_all,
        },
    },
    domain::{ack::AckLevel, batch::Batch, receipt::StreamId},
};

/// Most entries in one round trip.
const GROUP_ENTRIES: usize = 16;
/// Most bytes of readings in one round trip, but for a larger frame.
const GROUP_BYTES: u64 = 1024 * 1024;
/// Longest sleep.
const IDLE: Duration = Duration::from_millis(250);
/// The same while somebody waits for an answer that only time gives.
const WAITING: Duration = Duration::from_millis(20);
/// How often an idle copy is looked at: whether it is still there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(100);
/// Readings that wait for the database below which an outage is caught up with.
const CAUGHT_UP_ROWS: u64 = 10_000;

/// Wakes the copier.
#[derive(Debug, Default)]
pub(super) struct Bell(Mutex<bool>, Condvar);

impl Bell {
    pub(super) fn ring(&self) {
        let mut rung = lock(&self.0);
        if !std::mem::replace(&mut *rung, true) {
            self.1.notify_one();
        }
    }

    fn wait(&self, limit: Duration) {
        let mut rung = lock(&self.0);
        if !*rung {
            rung = self.1.wait_timeout(rung, limit).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        *rung = false;
    }
}

/// What the buffer and the copier share.
pub(super) struct Desk {
    pub(super) redis: Arc<RedisBuffer>,
    pub(super) journal: Arc<JournalBuffer<RealDisk>>,
    pub(super) observer: Arc<dyn TripleObserver>,
    /// Whether the database takes readings, as far as is known.
    pub(super) store_is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// Longest wait for Redis.
    pub(super) timeout: Duration,
    /// Lanes whose copy is astray, for their drains to renumber.
    pub(super) renumber: Vec<AtomicBool>,
    /// Copies with holes that are to be made anew: the stream, and the first number of its copy.
    pub(super) anew: Vec<Mutex<Option<(StreamId, u64)>>>,
    /// Redis never takes what removes a copy ([`LinkError::is_forbidden`]): holes are only told, until the next start.
    pub(super) cannot_remove: AtomicBool,
    /// Lanes with a gap that is being filled.
    pub(super) filling: Vec<AtomicBool>,
    /// The backlog of an outage is being written.
    pub(super) recovering: AtomicBool,
    /// Readings that are synced and not copied.
    pub(super) uncopied: AtomicU64,
    pub(super) bell: Arc<Bell>,
    pub(super) hook: OnceLock<Arc<OnVisible>>,
    pub(super) ended: AtomicBool,
}

impl Desk {
    /// Whether Redis takes copies.
    pub(super) fn copying(&self) -> bool {
        self.redis.core.is_up() && !self.redis.core.full.load(Ordering::Acquire)
    }
}

/// Starts the thread.
pub(super) fn start(desk: Arc<Desk>) -> std::io::Result<thread::JoinHandle<()>> {
    let mut copier = Copier::new(desk);
    thread::Builder::new().name("redis-copier".into()).spawn(move || {
        while !copier.desk.ended.load(Ordering::Acquire) {
            let limit = copier.turn();
            if !limit.is_zero() {
                copier.desk.bell.wait(limit);
            }
        }
    })
}

/// Why a lane was not copied.
enum Failed {
    /// Redis does not do what it should.
    Away(LinkError),
    /// The copy cannot be gone on with.
    Astray,
    /// The journal cannot be read now.
    Medium(std::io::Error),
}

impl From<LinkError> for Failed {
    fn from(cause: LinkError) -> Self {
        Self::Away(cause)
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Medium(error)
    }
}

/// What goes in one round trip.
struct Group {
    adds: Vec<Cmd>,
    bytes: u64,
    /// The last id among them.
    newest: u64,
    /// The last number that was read; those without a frame are not to be had.
    end: u64,
}

pub(super) struct Copier {
    desk: Arc<Desk>,
    lanes: Vec<LaneCopy>,
    dropped: u64,
}

struct LaneCopy {
    lane: usize,
    reader: LaneReader<RealDisk>,
    link: Option<Link>,
    stream: StreamId,
    placed: bool,
    /// Last number that Redis has, or that is not to be had for it.
    at: u64,
    /// The last id that Redis has, as it was left.
    newest: u64,
    look_at: Instant,
    /// What was synced at that time: whoever waits for it has waited long enough a little later.
    mark: (Instant, u64),
    not_before: Instant,
}

impl Copier {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        let now = Instant::now();
        let lanes = (0..desk.journal.lanes()).map(|lane| LaneCopy::new(lane, desk.journal.copy_reader(lane), now)).collect();
        Self { desk, lanes, dropped: 0 }
    }

    /// One round. Returns how long to sleep.
    pub(super) fn turn(&mut self) -> Duration {
        self.desk.observer.alive();
        let mut busy = false;
        for lane in &mut self.lanes {
            lane.follow(&self.desk);
            if !self.desk.copying() || Instant::now() < lane.not_before || self.desk.renumber[lane.lane].load(Ordering::Acquire) {
                continue;
            }
            match lane.copy(&self.desk) {
                Ok(copied) => busy |= copied,
                Err(failed) => lane.failed(&self.desk, failed),
            }
        }
        let uncopied = self.lanes.iter().map(|lane| self.desk.journal.end(lane.lane).saturating_sub(lane.at)).sum();
        self.desk.uncopied.store(uncopied, Ordering::Release);
        let waits = self.release();
        let dropped = self.desk.journal.dropped_uncopied();
        if dropped > self.dropped {
            self.dropped = dropped;
            self.desk.observer.dropped_uncopied(dropped);
        }
        if self.desk.filling.iter().any(|lane| lane.load(Ordering::Acquire))
            && self.desk.redis.core.is_readable()
            && let Some(hook) = self.desk.hook.get()
        {
            // A gap waits for Redis, and Redis can be read.
            hook(1, true);
        }
        if busy {
            Duration::ZERO
        } else if waits {
            WAITING
        } else {
            IDLE
        }
    }

    /// Answers those whom the database keeps waiting. Returns whether somebody is left who is answered by time alone.
    fn release(&mut self) -> bool {
        let up = (self.desk.store_is_up)();
        let waiting: u64 = (0..self.desk.journal.lanes()).map(|lane| self.desk.journal.waiting(lane)).sum();
        if !up {
            self.desk.recovering.store(true, Ordering::Release);
        } else if waiting < CAUGHT_UP_ROWS {
            self.desk.recovering.store(false, Ordering::Release);
        }
        if !self.desk.recovering.load(Ordering::Acquire) || !self.desk.journal.has_waiters() {
            return false;
        }
        let copying = self.desk.copying();
        for lane in &mut self.lanes {
            let end = self.desk.journal.end(lane.lane);
            let mut up_to = if copying { lane.at } else { end };
            if lane.mark.0.elapsed() >= self.desk.timeout / 2 {
                up_to = up_to.max(lane.mark.1);
                lane.mark = (Instant::now(), end);
            }
            self.desk.journal.release(lane.lane, up_to, AckLevel::Journal);
        }
        self.desk.journal.has_waiters()
    }
}

impl LaneCopy {
    fn new(lane: usize, reader: LaneReader<RealDisk>, now: Instant) -> Self {
        Self {
            lane,
            reader,
            link: None,
            stream: StreamId::nil(),
            placed: false,
            at: 0,
            newest: 0,
            look_at: now,
            mark: (now, 0),
            not_before: now,
        }
    }

    fn failed(&mut self, desk: &Desk, failed: Failed) {
        self.placed = false;
        match failed {
            Failed::Away(cause) => {
                self.link = None;
                self.not_before = Instant::now() + PAUSE;
                desk.redis.core.order_give_up(cause);
            }
            Failed::Astray => desk.renumber[self.lane].store(true, Ordering::Release),
            Failed::Medium(error) => {
                self.not_before = Instant::now() + IDLE;
                log::debug!(target: "belayd::buffer", lane = self.lane as u64, error:% = error; "the journal could not be read for its copy; tried again");
            }
        }
    }

    /// The lane has another stream: its copy begins.
    fn follow(&mut self, desk: &Desk) {
        let stream = desk.journal.stream(self.lane);
        if stream != self.stream {
            lock(&desk.redis.core.books).copies.forget(self.stream);
            (self.stream, self.placed, self.at, self.link) = (stream, false, 0, None);
            desk.journal.copied(self.lane, stream, 0);
        }
    }

    fn state(&self, desk: &Desk) -> Option<LaneState> {
        desk.journal.lane_states().get(self.lane).copied().filter(|state| state.stream == self.stream)
    }

    /// Copies a group. Returns whether there may be more.
    fn copy(&mut self, desk: &Desk) -> Result<bool, Failed> {
        let Some(state) = self.state(desk) else { return Ok(true) };
        let key = desk.redis.core.keys.stream(self.stream);
        let mut link = match self.link.take() {
            Some(link) => link,
            None => desk.redis.core.settings.server.connect(&key)?,
        };
        let anew = lock(&desk.anew[self.lane]).take().filter(|(stream, _)| *stream == self.stream);
        if let Some((_, first)) = anew {
            self.placed = false;
            origin::remove_copy(desk, (self.lane, self.stream), first, &mut link, &key)?;
        }
        if !self.placed {
            self.place(desk, &mut link, &key, &state)?;
            self.placed = true;
            self.look_at = Instant::now() + LOOK_EVERY;
        }
        if state.next_seq() <= self.at + 1 {
            if Instant::now() >= self.look_at {
                self.look_at = Instant::now() + LOOK_EVERY;
                // Gone, sealed, or put back: placed again.
                self.placed = last_id(&mut link, &key)? == Some(self.newest);
            }
            self.link = Some(link);
            return Ok(!self.placed);
        }
        let Group { adds, bytes, newest, end } = self.gather(&key, state.base)?;
        if self.state(desk).is_none() {
            // Numbered anew meanwhile.
            return Ok(true);
        }
        if !adds.is_empty()
            && let Err(cause) = add_all(&mut link, adds, desk.redis.core.settings.replicas)
        {
            if cause.code == "gone" || (cause.definite && cause.code == "ERR") {
                // Redis says what it has.
                (self.placed, self.link) = (false, Some(link));
                return Ok(true);
            }
            return Err(cause.into());
        }
        self.link = Some(link);
        (self.at, self.newest) = (end, newest);
        lock(&desk.redis.core.books).copies.taken(self.stream, end, bytes);
        desk.journal.copied(self.lane, self.stream, end);
        Ok(true)
    }

    /// Reads what comes next.
    fn gather(&mut self, key: &str, shift: u64) -> Result<Group, Failed> {
        let (mut adds, mut bytes, mut newest, mut end) = (Vec::new(), 0, self.newest, self.at);
        while adds.len() < GROUP_ENTRIES && bytes < GROUP_BYTES {
            match self.reader.next()? {
                None => break,
                Some(Item::Frame { first_seq, rows, prev_chain, chain, received_at_us, payload }) => {
                    let last = first_seq + u64::from(rows) - 1;
                    if last <= end {
                        continue;
                    }
                    if first_seq <= end {
                        // Redis has an entry that ends inside this frame.
                        return Err(Failed::Astray);
                    }
                    let batch = Batch::from_bytes(received_at_us, rows, payload).map_err(std::io::Error::other)?;
                    bytes += batch.bytes().len() as u64 + ENTRY_BYTES;
                    adds.push(add_copy(key, &Frame { first_seq, batch, chain_before: prev_chain, chain }, shift));
                    (newest, end) = (last, last);
                }
                Some(Item::Gap { first_seq, last_seq, kind, .. }) if last_seq > end => {
                    if kind == GapKind::Void {
                        bytes += ENTRY_BYTES;
                        adds.push(add_void(key, first_seq.max(end + 1), last_seq));
                        newest = last_seq;
                    }
                    end = last_seq;
                }
                Some(Item::Gap { .. }) => {}
            }
        }
        Ok(Group { adds, bytes, newest, end })
    }

    /// Asks Redis how far it is, and puts the reader there.
    fn place(&mut self, desk: &Desk, link: &mut Link, key: &str, state: &LaneState) -> Result<(), Failed> {
        let newest = last_id(link, key)?;
        if newest.is_none() {
            link.ask(cmd("XGROUP").arg("CREATE").arg(key).arg(GROUP).arg("0").arg("MKSTREAM"))?;
        }
        self.list(desk, link)?;
        let newest = newest.unwrap_or(0);
        if newest == u64::MAX || newest >= state.next_seq() {
            return Err(Failed::Astray);
        }
        let (known, is_first) = {
            let books = lock(&desk.redis.core.books);
            (books.copies.span(self.stream), !books.copies.knows(self.stream))
        };
        let retained = desk.journal.first_retained(self.lane);
        let last = entries(link.ask(cmd("XREVRANGE").arg(key).arg("+").arg("-").arg("COUNT").arg(1))?).pop();
        let first = entries(link.ask(cmd("XRANGE").arg(key).arg("-").arg("+").arg("COUNT").arg(1))?).pop();
        let mut put_back = 0;
        match &last {
            Some(Entry::Whole(frame)) => match self.reader.seek_after(newest, frame.chain)? {
                Found::At => {}
                Found::Behind { first } => put_back = (first - 1).saturating_sub(newest),
                Found::Elsewhere => return Err(Failed::Astray),
            },
            // Nothing to compare: by its number alone.
            _ => self.reader.rewind(),
        }
        (self.at, self.newest) = (newest.max(retained - 1), newest);
        if let Some((from, to)) = known
            && newest < to
        {
            let lost = (retained - 1).min(to).saturating_sub(newest.max(from - 1));
            put_back = put_back.max(lost);
        }
        if put_back > 0 {
            desk.observer.copy_lost(self.stream, put_back);
        }
        let bytes = match link.ask(cmd("MEMORY").arg("USAGE").arg(key)) {
            Ok(Value::Int(bytes)) if newest > 0 => u64::try_from(bytes).unwrap_or(0),
            Err(failed) if !failed.definite => return Err(failed.into()),
            _ => 0,
        };
        let first = first.map_or(self.at + 1, |entry| entry.first_seq());
        let mut books = lock(&desk.redis.core.books);
        books.copies.found(self.stream, first, self.at, bytes);
        if is_first && newest == 0 {
            books.copies.began_behind(self.stream, retained - 1);
        }
        drop(books);
        desk.journal.copied(self.lane, self.stream, self.at);
        Ok(())
    }

    /// Writes the copy into the list of streams, from where others find it.
    fn list(&self, desk: &Desk, link: &mut Link) -> Result<(), Failed> {
        let core = &desk.redis.core;
        let registry = core.keys.registry();
        let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros());
        let value = Registered::value(&core.settings.instance, false, i64::try_from(now_us).unwrap_or(0));
        let mut set = cmd("HSET");
        set.arg(&registry).arg(self.stream.to_string()).arg(value);
        if core.settings.server.is_cluster() {
            core.settings.server.connect(&registry)?.ask(&set)?;
        } else {
            link.ask(&set)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
