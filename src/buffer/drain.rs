//! The drain: one OS thread that writes what waits in the buffer to the database, a transaction at a time.
//!
//! In: orders to flush from `BatchBufferActor`. Out: frames to a [`Writer`], outcomes back to the buffer. It is no actor because a
//! transaction blocks. A crash loses nothing here: frames leave the buffer only when the database has committed them, and cursor
//! and rows are one transaction, so that a repeat stores nothing twice. While the database is away it tries again with a growing
//! pause, and the buffer fills up to its bound.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Buffer, DrainOutcome, Frame,
    call::{Call, SILENCE},
};
use crate::domain::receipt::StreamId;

/// Most readings in one transaction.
pub const MAX_BATCH_ROWS: u32 = 10_000;
/// A transaction that takes longer halves the next one's ceiling, so that a slow database is not asked for ever more at once.
const SLOW_WRITE: Duration = Duration::from_millis(500);
/// First pause after a failure; it doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between two tries. A second, because what waits is bounded and a returned database should be seen at once.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Longest sleep without a sign of life.
const IDLE_STEP: Duration = Duration::from_millis(250);

/// Why a write failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFailed {
    /// Whether the database is likely to take the same rows later.
    pub transient: bool,
    /// The database's own code, where it gave one.
    pub code: Option<String>,
    /// For a person; no secrets.
    pub message: String,
}

impl fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The database as the drain sees it. Both calls may block.
pub trait Writer: Send {
    /// Called until it succeeds, before the first write and again after each failure: connects, migrates, registers the stream.
    ///
    /// # Errors
    /// Whatever keeps the database from being used now.
    fn open(&mut self, stream: StreamId) -> Result<(), WriteFailed>;

    /// Writes rows, ledger and cursor in one transaction.
    ///
    /// # Errors
    /// Nothing has been written then.
    fn write(&mut self, stream: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed>;
}

/// What the drain tells as it happens.
pub trait Observer: Send + Sync {
    /// It turns, or is inside a call to the database; called at least every second.
    fn alive(&self);
    /// A transaction was committed.
    fn settled(&self, outcome: &DrainOutcome, took: Duration);
    /// The database ceased to answer, or does again.
    fn health(&self, change: &HealthChange);
}

/// The database's state as the drain sees it changed.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthChange {
    /// It failed, first time after it had worked (or at the start).
    Down {
        /// Why.
        cause: WriteFailed,
        /// Readings that wait.
        waiting: u64,
    },
    /// It works; told at the start too.
    Up {
        /// How long it had been away.
        away: Duration,
        /// Readings that wait.
        waiting: u64,
    },
}

/// What may be set.
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// Readings that make a batch when the load is light.
    pub batch_rows: u32,
}

/// Orders to the drain thread. Cheap to clone.
#[derive(Clone)]
pub struct DrainHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for DrainHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainHandle").field("flush", &self.shared.flush).finish_non_exhaustive()
    }
}

struct Shared {
    buffer: Arc<dyn Buffer>,
    observer: Arc<dyn Observer>,
    settings: DrainSettings,
    flush: AtomicBool,
    stop: AtomicBool,
    asleep: Mutex<bool>,
    signal: Condvar,
    call: Call,
}

impl DrainHandle {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        buffer: Arc<dyn Buffer>,
        mut writer: Box<dyn Writer>,
        observer: Arc<dyn Observer>,
        settings: DrainSettings,
    ) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            buffer,
            observer,
            settings,
            flush: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            asleep: Mutex::new(false),
            signal: Condvar::new(),
            call: Call::default(),
        });
        let watched = shared.clone();
        thread::Builder::new().name("drain-watch".into()).spawn(move || {
            while !watched.stopping() {
                watched.call.look(watched.observer.as_ref(), SILENCE, || watched.buffer.stats().rows);
                thread::sleep(IDLE_STEP);
            }
        })?;
        let mine = shared.clone();
        let thread = thread::Builder::new().name("drain".into()).spawn(move || {
            // The thread outlives a panic in a driver: what was in hand is still in the buffer.
            while catch_unwind(AssertUnwindSafe(|| mine.run(writer.as_mut()))).is_err() {
                log::error!(target: "belayd::buffer", errorType = "panic"; "the drain panicked and goes on");
                thread::sleep(RETRY_FIRST);
            }
        })?;
        Ok((Self { shared }, thread))
    }

    /// Writes everything that waits, soon.
    pub fn flush(&self) {
        if !self.shared.flush.swap(true, Ordering::AcqRel) {
            self.shared.wake();
        }
    }

    /// Ends the thread after what it does now. Ask [`Buffer::stats`] for what is left.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
    }
}

impl Shared {
    fn wake(&self) {
        let asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        if *asleep {
            self.signal.notify_one();
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps until there is an order or `limit` has passed.
    fn sleep(&self, limit: Duration, until_order: bool) {
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        let ordered = || self.stopping() || (until_order && self.flush.load(Ordering::Acquire));
        if !ordered() {
            *asleep = true;
            let (guard, _) = self.signal.wait_timeout(asleep, limit).unwrap_or_else(PoisonError::into_inner);
            asleep = guard;
        }
        *asleep = false;
    }

    fn run(&self, writer: &mut dyn Writer) {
        let mut health = Health::new();
        health.was_silent(self.call.forget());
        let mut ceiling = MAX_BATCH_ROWS;
        let mut open = false;
        while !self.stopping() {
            self.observer.alive();
            if !open {
                let (opened, silent) = self.call.watched(|| writer.open(self.buffer.stream()));
                health.was_silent(silent);
                match opened {
                    Ok(()) => {
                        open = true;
                        self.flush.store(true, Ordering::Release);
                    }
                    Err(cause) => health.down(self, cause),
                }
            } else if self.flush.swap(false, Ordering::AcqRel) {
                if let Err(cause) = self.drain(writer, &mut ceiling, &mut health) {
                    open = false;
                    health.down(self, cause);
                }
            } else {
                self.sleep(IDLE_STEP, true);
            }
        }
    }

    /// Writes until less than a batch is left that nobody waits for. The database works once it has taken what waits: one that can be
    /// opened and refuses to write (a full disk, a missing right) would otherwise be up and down twenty times a second.
    fn drain(&self, writer: &mut dyn Writer, ceiling: &mut u32, health: &mut Health) -> Result<(), WriteFailed> {
        let batch_rows = u64::from(self.settings.batch_rows);
        // Everything that was there when the order came is written, then whole batches for as long as they come.
        let mut ordered = self.buffer.stats().rows;
        loop {
            let waiting = self.buffer.stats().rows;
            if waiting == 0 || (ordered == 0 && waiting < batch_rows) {
                if waiting == 0 {
                    health.up(self);
                }
                return Ok(());
            }
            let limit = waiting.clamp(batch_rows, u64::from(MAX_BATCH_ROWS)) as u32;
            let frames = self.buffer.pending(limit.min(*ceiling));
            let started = Instant::now();
            let (written, silent) = self.call.watched(|| writer.write(self.buffer.stream(), &frames));
            health.was_silent(silent);
            let outcome = written?;
            let took = started.elapsed();
            health.up(self);
            self.buffer.settle(&outcome);
            self.observer.settled(&outcome, took);
            self.observer.alive();
            *ceiling =
                if took > SLOW_WRITE { (*ceiling / 2).max(self.settings.batch_rows) } else { (*ceiling * 2).min(MAX_BATCH_ROWS) };
            ordered = ordered.saturating_sub(outcome.last_seq + 1 - outcome.first_seq);
            if self.flush.swap(false, Ordering::AcqRel) {
                ordered = self.buffer.stats().rows;
            }
        }
    }
}

/// Remembers whether the database answers, and how long to wait before it is asked again.
struct Health {
    down_since: Option<Instant>,
    told: bool,
    pause: Duration,
}

impl Health {
    fn new() -> Self {
        Self { down_since: None, told: false, pause: RETRY_FIRST }
    }

    /// A call that has ended now had been told of as an outage, which thus began with it.
    fn was_silent(&mut self, since: Option<Instant>) {
        self.down_since = self.down_since.or(since);
    }

    fn down(&mut self, shared: &Shared, cause: WriteFailed) {
        if self.down_since.is_none() {
            self.down_since = Some(Instant::now());
            shared.observer.health(&HealthChange::Down { cause, waiting: shared.buffer.stats().rows });
        }
        let wake_at = Instant::now() + self.pause;
        while Instant::now() < wake_at && !shared.stopping() {
            shared.sleep((wake_at - Instant::now()).min(IDLE_STEP), false);
            shared.observer.alive();
        }
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }

    fn up(&mut self, shared: &Shared) {
        let away = self.down_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if !std::mem::replace(&mut self.told, true) || !away.is_zero() {
            shared.observer.health(&HealthChange::Up { away, waiting: shared.buffer.stats().rows });
        }
        self.pause = RETRY_FIRST;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        buffer::memory::MemoryBuffer,
        domain::{ack::AckLevel, batch::BatchBuilder, reading::ReadingRef},
    };

    #[derive(Default)]
    struct Script {
        failures: u32,
        panics: u32,
        batches: Vec<u64>,
    }

    struct Scripted(Arc<Mutex<Script>>);

    impl Writer for Scripted {
        fn open(&mut self, _: StreamId) -> Result<(), WriteFailed> {
            Ok(())
        }

        fn write(&mut self, _: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed> {
            let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if script.panics > 0 {
                script.panics -= 1;
                panic!("planned");
            }
            if script.failures > 0 {
                script.failures -= 1;
                return Err(WriteFailed { transient: true, code: None, message: "planned".into() });
            }
            let rows = frames.iter().map(|frame| u64::from(frame.batch.len())).sum();
            script.batches.push(rows);
            let last_seq = frames.last().expect("never empty").last_seq();
            Ok(DrainOutcome { first_seq: frames[0].first_seq, last_seq, stored: rows, ..Default::default() })
        }
    }

    #[derive(Default)]
    struct Seen(Mutex<Vec<bool>>);

    impl Observer for Seen {
        fn alive(&self) {}
        fn settled(&self, _: &DrainOutcome, _: Duration) {}
        fn health(&self, change: &HealthChange) {
            self.0.lock().expect("no panic here").push(matches!(change, HealthChange::Up { .. }));
        }
    }

    fn submit(buffer: &dyn Buffer, rows: u32) -> oneshot::Receiver<AckLevel> {
        let mut builder = BatchBuilder::default();
        for n in 0..rows {
            builder.push(&ReadingRef {
                engine_id: "e",
                observed_at_us: i64::from(n),
                status: None,
                temperature: Some(1.0),
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: None,
            });
        }
        let (reply, mut answer) = oneshot::channel();
        buffer.submit(builder.finish(0), AckLevel::Store, None, reply);
        answer.try_recv().expect("answered at once").expect("there is room").upgrade.expect("a waiter")
    }

    fn run(script: Script) -> (Arc<Mutex<Script>>, Arc<Seen>, Arc<MemoryBuffer>) {
        let script = Arc::new(Mutex::new(script));
        let seen = Arc::new(Seen::default());
        let buffer = Arc::new(MemoryBuffer::new(100_000, 10_000_000));
        let waiters: Vec<_> = (0..5).map(|_| submit(buffer.as_ref(), 700)).collect();
        let settings = DrainSettings { batch_rows: 100 };
        let (handle, thread) =
            DrainHandle::start(buffer.clone(), Box::new(Scripted(script.clone())), seen.clone(), settings).expect("a thread");
        handle.flush();
        for waiter in waiters {
            assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
        }
        handle.stop();
        thread.join().expect("the thread ends");
        (script, seen, buffer)
    }

    #[test]
    fn everything_that_waits_is_written_in_few_large_batches() {
        let (script, seen, buffer) = run(Script::default());
        assert_eq!(script.lock().expect("no panic").batches.iter().sum::<u64>(), 3_500);
        assert!(script.lock().expect("no panic").batches.len() <= 2);
        assert_eq!(*seen.0.lock().expect("no panic"), [true]);
        assert_eq!(buffer.stats().difference, 0);
    }

    #[test]
    fn a_failing_database_is_tried_again_and_told_of_once() {
        let (_, seen, buffer) = run(Script { failures: 1, ..Script::default() });
        assert_eq!(*seen.0.lock().expect("no panic"), [false, true]);
        assert_eq!(buffer.stats().account.stored, 3_500);
    }

    #[test]
    fn a_database_that_opens_and_refuses_to_write_is_down_until_it_writes() {
        let (_, seen, buffer) = run(Script { failures: 4, ..Script::default() });
        assert_eq!(*seen.0.lock().expect("no panic"), [false, true], "told once, not at each try");
        assert_eq!(buffer.stats().account.stored, 3_500);
    }

    #[test]
    fn a_panic_in_a_driver_loses_nothing() {
        let (_, _, buffer) = run(Script { panics: 2, ..Script::default() });
        assert_eq!(buffer.stats().account.stored, 3_500);
        assert_eq!(buffer.stats().rows, 0);
    }
}
