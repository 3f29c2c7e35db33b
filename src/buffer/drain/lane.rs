//! One lane of the drain: its thread's loop.
//!
//! ```text
//!   open (connect, register) -> attach -> [ wait for an order or a full batch -> next -> write -> settle ]…
//!      ^                                                       |
//!      '------------ pause of the circuit <------- failure ----'
//! ```

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    DrainSettings, IDLE_STEP, Observer, UNPACED_ROWS, Verdict, WriteFailed, Writer,
    outage::{Circuit, Permit},
};
use crate::{
    buffer::{Attached, Buffer, DrainOutcome, Work, call::Call},
    domain::receipt::StreamId,
};

/// A transaction that takes longer halves the next one's ceiling, so that a slow database is not asked for ever more at once.
const SLOW_WRITE: Duration = Duration::from_millis(500);
/// Tries in a row to attach before the database counts as failing: each renumbering costs a stream.
const ATTACHES_MAX: u32 = 3;
/// Shortest time from a call that failed to the next, however many failures the circuit breaker allows: what is refused at once would be tried
/// thousands of times a second.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// From the beginning of one light transaction to the next. A transaction that writes a hundred readings and one that writes twice as many
/// change nearly the same pages, so that at some thousand readings a second each of them costs the less the fewer transactions there are.
const PACE: Duration = Duration::from_millis(50);
/// Pause after the medium could not be read.
const MEDIUM_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Lane {
    lane: usize,
    /// Most readings in one transaction.
    most: u32,
    buffer: Arc<dyn Buffer>,
    observer: Arc<dyn Observer>,
    settings: DrainSettings,
    circuit: Arc<Circuit>,
    /// Write what waits, now.
    flush: AtomicBool,
    /// A batch is full: write it, at the pace.
    full: AtomicBool,
    stop: AtomicBool,
    asleep: Mutex<bool>,
    signal: Condvar,
    /// The call to the database.
    call: Call,
    /// The call to the medium.
    reading: Call,
    /// Since when the medium has failed, and how often in a row.
    failing: Mutex<Option<(Instant, u32)>>,
}

/// What ends a lane's sleep before its time, besides the end of all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Stop,
    /// An order to write now.
    Flush,
    /// That, or a full batch.
    Order,
}

/// Why a lane's loop leaves what it does.
enum Interrupted {
    Write(WriteFailed),
    /// Told already.
    Medium,
}

impl From<WriteFailed> for Interrupted {
    fn from(failed: WriteFailed) -> Self {
        Self::Write(failed)
    }
}

impl From<io::Error> for Interrupted {
    fn from(_: io::Error) -> Self {
        Self::Medium
    }
}

impl Lane {
    pub(super) fn new(
        (lane, most): (usize, u32),
        buffer: Arc<dyn Buffer>,
        observer: Arc<dyn Observer>,
        settings: DrainSettings,
        circuit: Arc<Circuit>,
    ) -> Self {
        Self {
            lane,
            most,
            buffer,
            observer,
            settings,
            circuit,
            flush: AtomicBool::new(false),
            full: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(false),
            signal: Condvar::new(),
            call: Call::default(),
            reading: Call::default(),
            failing: Mutex::default(),
        }
    }

    pub(super) fn flush(&self) {
        if !self.flush.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    pub(super) fn full(&self) {
        if !self.full.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// How long until there is something to write; `None` where there is no order. `began` is when the last was begun to be carried out.
    fn due(&self, began: Option<Instant>) -> Option<Duration> {
        if self.flush.load(Ordering::Acquire) {
            return Some(Duration::ZERO);
        }
        let paced = || self.buffer.waiting(self.lane) < UNPACED_ROWS;
        let left = || began.filter(|_| paced()).map_or(Duration::ZERO, |began| PACE.saturating_sub(began.elapsed()));
        self.full.load(Ordering::Acquire).then(left)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The watch's look at the call that this lane is in.
    pub(super) fn look_at_call(&self, silence: Duration) {
        let waiting = || self.buffer.stats().rows;
        self.call.look(
            silence,
            || self.observer.alive(self.lane),
            |since| {
                let message = format!("no answer for {} s; it may be stopped or stuck", silence.as_secs());
                let cause = WriteFailed { verdict: Verdict::Outage, code: None, message };
                self.circuit.silent(self.observer.as_ref(), since, cause, waiting());
            },
        );
        self.reading.look(
            silence,
            || self.observer.alive(self.lane),
            |since| self.observer.medium_silent(self.lane, since.elapsed()),
        );
    }

    /// A call that ended in a panic has ended.
    pub(super) fn forget_call(&self) {
        self.call.forget();
        self.reading.forget();
    }

    /// Asks the medium under watch: a disk that tries for long before it gives up must not look like a hang of ours.
    fn read<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let began = Instant::now();
        let result = self.reading.watched(call);
        if let Err(error) = &result {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            let (since, times) = failing.get_or_insert((began, 0));
            *times += 1;
            let (lasting, times) = (since.elapsed(), *times);
            drop(failing);
            self.observer.medium_failed(self.lane, times, lasting, error);
        }
        result
    }

    /// What waits was read, or nothing does.
    fn readable(&self) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.observer.medium_works(self.lane);
    }

    fn wake(&self) {
        let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if *asleep {
            self.signal.notify_one();
        }
    }

    /// Sleeps until what it waits for is there, or `limit` has passed.
    fn sleep(&self, limit: Duration, until: Until) {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        let flush = || until != Until::Stop && self.flush.load(Ordering::Acquire);
        let full = || until == Until::Order && self.full.load(Ordering::Acquire);
        if !self.stopping() && !flush() && !full() {
            *asleep = true;
            let (guard, _) = self.signal.wait_timeout(asleep, limit).unwrap_or_else(PoisonError::into_inner);
            asleep = guard;
        }
        *asleep = false;
    }

    fn pause(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.stopping() && Instant::now() < until {
            self.sleep(until.saturating_duration_since(Instant::now()).min(IDLE_STEP), Until::Stop);
            self.observer.alive(self.lane);
        }
    }

    pub(super) fn run(&self, writer: &mut dyn Writer) {
        let mut ceiling = self.most;
        let mut open = false;
        // The stream that the database was opened for.
        let mut opened = StreamId::nil();
        // Opened, and nothing asked of the database since.
        let mut fresh = false;
        // When the last order was begun.
        let mut began = None;
        let mut moved = 0;
        while !self.stopping() {
            self.observer.alive(self.lane);
            self.buffer.turn(self.lane);
            let stream = self.buffer.stream(self.lane);
            if open && stream != opened {
                // The one before is settled to its end.
                open = false;
            }
            if stream.is_nil() {
                self.sleep(IDLE_STEP, Until::Order);
                self.flush.store(false, Ordering::Release);
                self.full.store(false, Ordering::Release);
                continue;
            }
            if !open {
                match self.circuit.permit(self.observer.as_ref(), self.lane, Instant::now()) {
                    Permit::Wait(limit) => {
                        self.pause(limit.min(IDLE_STEP));
                        continue;
                    }
                    Permit::Go => {}
                }
            }
            let due = self.due(began);
            let done = if !open {
                self.open(writer).map(|stream| {
                    open = true;
                    opened = stream;
                    fresh = true;
                    self.flush.store(true, Ordering::Release);
                })
            } else if due == Some(Duration::ZERO) {
                // Before what waits is counted: who makes a batch full behind that finds no order, and gives one.
                self.flush.store(false, Ordering::Release);
                self.full.store(false, Ordering::Release);
                began = Some(Instant::now());
                self.drain(writer, opened, &mut ceiling, std::mem::take(&mut fresh))
            } else {
                self.sleep(due.unwrap_or(IDLE_STEP), if due.is_some() { Until::Flush } else { Until::Order });
                Ok(())
            };
            match done {
                Ok(()) => moved = if open && self.buffer.waiting(self.lane) == 0 { 0 } else { moved },
                Err(Interrupted::Medium) => {
                    // It says nothing of the database: another lane may try that.
                    self.circuit.nothing_tried(self.lane);
                    self.flush.store(true, Ordering::Release);
                    self.pause(MEDIUM_PAUSE);
                }
                Err(Interrupted::Write(failed)) => {
                    open = false;
                    moved += 1;
                    // A cursor that keeps moving under a writer who has just asked for it is no news but a fault.
                    if failed.verdict == Verdict::Outage || moved > ATTACHES_MAX {
                        let waiting = self.buffer.stats().rows;
                        self.circuit.failed(self.observer.as_ref(), self.lane, self.call.began(), failed, waiting);
                        self.pause(TRY_AGAIN);
                    }
                }
            }
        }
    }

    /// Connects, and lets the medium compare its frames with where the database stands.
    fn open(&self, writer: &mut dyn Writer) -> Result<StreamId, Interrupted> {
        for _ in 0..ATTACHES_MAX {
            let stream = self.buffer.stream(self.lane);
            let position = self.call.watched(|| writer.open(stream))?;
            let attached = self.read(|| self.buffer.attach(self.lane, &position))?;
            self.observer.attached(self.lane, stream, &attached);
            if !matches!(attached, Attached::DirectoryRestored { .. }) {
                return Ok(stream);
            }
        }
        let message = "the database knows another history of every stream that is begun".to_owned();
        Err(WriteFailed { verdict: Verdict::Outage, code: None, message }.into())
    }

    fn write(writer: &mut dyn Writer, stream: StreamId, work: &Work) -> Result<DrainOutcome, WriteFailed> {
        match work {
            Work::Frames(frames) => writer.write(stream, frames),
            Work::Gap(gap) => writer.pass_over(stream, gap),
            Work::Nothing => Ok(DrainOutcome::default()),
        }
    }

    /// Writes what was ordered, and goes on while much waits. The database works once it has taken what waits: one that can be
    /// opened and refuses to write (a full disk, a missing right) would otherwise be up and down twenty times a second.
    ///
    /// A lane without readings has tried nothing: only one that has just opened the database while no lane has any may say that it
    /// works. Otherwise each idle lane would end the outage that another one has found.
    fn drain(&self, writer: &mut dyn Writer, stream: StreamId, ceiling: &mut u32, fresh: bool) -> Result<(), Interrupted> {
        let batch_rows = u64::from(self.settings.batch_rows);
        // Everything that was there when the order came is written, then large batches for as long as they come. A small one that is full by
        // then waits for the pace.
        let go_on = UNPACED_ROWS.max(batch_rows);
        let mut ordered = self.buffer.waiting(self.lane);
        while !self.stopping() && self.buffer.stream(self.lane) == stream {
            let waiting = self.buffer.waiting(self.lane);
            if ordered == 0 && waiting < go_on {
                if waiting >= batch_rows {
                    self.full.store(true, Ordering::Release);
                }
                break;
            }
            // batch_rows may be set above the ceiling.
            let limit = waiting.max(batch_rows).min(u64::from(self.most)) as u32;
            let work = self.read(|| self.buffer.next(self.lane, limit.min(*ceiling)))?;
            self.readable();
            if matches!(work, Work::Nothing) {
                break;
            }
            let started = Instant::now();
            let outcome = self.call.watched(|| Self::write(writer, stream, &work))?;
            let took = started.elapsed();
            self.circuit.succeeded(self.observer.as_ref(), self.lane, || self.buffer.stats().rows);
            self.buffer.settle(self.lane, &outcome);
            self.observer.settled(&outcome, took);
            self.observer.alive(self.lane);
            *ceiling = if took > SLOW_WRITE { (*ceiling / 2).max(self.settings.batch_rows) } else { (*ceiling * 2).min(self.most) };
            ordered = ordered.saturating_sub(outcome.last_seq + 1 - outcome.first_seq);
            if self.flush.swap(false, Ordering::AcqRel) {
                ordered = self.buffer.waiting(self.lane);
            }
        }
        // Where nothing waits there is nothing that could not be read.
        self.readable();
        if fresh {
            if (0..self.buffer.lanes()).all(|lane| self.buffer.waiting(lane) == 0) {
                self.circuit.succeeded(self.observer.as_ref(), self.lane, || 0);
            } else {
                self.circuit.nothing_tried(self.lane);
            }
        }
        Ok(())
    }
}
