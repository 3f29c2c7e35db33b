//! The drain: one OS thread a lane that writes what waits in the buffer to the database, a transaction at a time.
//!
//! In: orders to flush from `BatchBufferActor`. Out: frames to a [`Writer`], outcomes back to the buffer. It is no actor because a
//! transaction blocks. A crash loses nothing here: frames leave the buffer only when the database has committed them, and cursor
//! and rows are one transaction, so that a repeat stores nothing twice. While the database is away one lane at a time tries it with a
//! growing pause ([`outage`]), and the buffer fills up to its bound.

mod lane;
pub mod outage;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use self::{
    lane::Lane,
    outage::{Circuit, HealthChange},
};
use super::{Attached, Buffer, DrainOutcome, Frame, Gap, Position, call::SILENCE};
use crate::domain::{
    breaker::{BreakerSettings, CircuitState},
    receipt::StreamId,
};

/// Most readings in one transaction, about: it rewrites two or three pages an engine, however many rows it has.
pub const MAX_BATCH_ROWS: u32 = 20_000;
/// The same where several lanes write side by side: what each has in hand takes memory, and beyond so many a row costs hardly less there.
const MAX_BATCH_ROWS_OF_MANY: u32 = 5_000;
/// Readings that wait above which nothing is paced: they are many enough to share a transaction.
pub const UNPACED_ROWS: u64 = 2_000;
/// Longest sleep without a sign of life.
const IDLE_STEP: Duration = Duration::from_millis(250);
/// Pause after a panic in a driver.
const PANIC_PAUSE: Duration = Duration::from_millis(50);

/// Why a write failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFailed {
    /// What to do about it.
    pub verdict: Verdict,
    /// The database's own code, where it gave one.
    pub code: Option<String>,
    /// For a person; no secrets.
    pub message: String,
}

/// What a failed write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The database is away or refuses: try again later.
    Outage,
    /// The cursor stands elsewhere than the frames begin: ask for the position and attach again.
    Moved,
}

impl fmt::Display for WriteFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The database as one lane sees it. The calls may block.
pub trait Writer: Send {
    /// Called until it succeeds, before the first write and again after each failure: connects, migrates, registers the stream, and
    /// says where the database stands in it.
    ///
    /// # Errors
    /// Whatever keeps the database from being used now.
    fn open(&mut self, stream: StreamId) -> Result<Position, WriteFailed>;

    /// Writes rows, ledger and cursor in one transaction.
    ///
    /// # Errors
    /// Nothing has been written then, or the outcome is unknown and the next [`Writer::open`] tells.
    fn write(&mut self, stream: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed>;

    /// Writes down that numbers have no readings, and moves the cursor past them.
    ///
    /// # Errors
    /// As [`Writer::write`].
    fn pass_over(&mut self, stream: StreamId, gap: &Gap) -> Result<DrainOutcome, WriteFailed>;
}

/// What the drain tells as it happens. Several lanes may tell at once.
pub trait Observer: Send + Sync {
    /// Every lane turns, or is inside a call to the database; called at least every second by each.
    fn alive(&self, lane: usize);
    /// A transaction was committed.
    fn settled(&self, outcome: &DrainOutcome, took: Duration);
    /// A lane compared its frames of `stream` with the database, which was opened for it.
    fn attached(&self, lane: usize, stream: StreamId, attached: &Attached);
    /// What waits in `lane` could not be read, `times` in a row and for `lasting`; tried again, five times a second where the answer
    /// comes at once.
    fn medium_failed(&self, lane: usize, times: u32, lasting: Duration, error: &std::io::Error);
    /// What waits in `lane` has been asked for and not answered for `lasting`; told once a call.
    fn medium_silent(&self, lane: usize, lasting: Duration);
    /// It can be read; told at every reading.
    fn medium_works(&self, lane: usize);
    /// The database ceased to answer, or does again.
    fn health(&self, change: &HealthChange);
    /// The circuit of the database turned, for this reason where it opened.
    fn circuit(&self, state: CircuitState, cause: &str);
}

/// What may be set.
#[derive(Clone, Copy, Debug)]
pub struct DrainSettings {
    /// Readings that make a batch when the load is light.
    pub batch_rows: u32,
    /// The circuit breaker of the database.
    pub breaker: BreakerSettings,
}

/// Orders to the drain's threads. Cheap to clone.
#[derive(Clone)]
pub struct DrainHandle {
    lanes: Arc<[Arc<Lane>]>,
}

impl fmt::Debug for DrainHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainHandle").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl DrainHandle {
    /// Starts a thread for each lane of the buffer; `writer` makes the connection of one.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(
        buffer: Arc<dyn Buffer>,
        mut writer: impl FnMut(usize) -> Box<dyn Writer>,
        observer: Arc<dyn Observer>,
        settings: DrainSettings,
    ) -> std::io::Result<(Self, Vec<thread::JoinHandle<()>>)> {
        let circuit = Arc::new(Circuit::new(settings.breaker));
        let most = if buffer.lanes() > 1 { MAX_BATCH_ROWS_OF_MANY } else { MAX_BATCH_ROWS };
        let make = |lane| Arc::new(Lane::new((lane, most), buffer.clone(), observer.clone(), settings, circuit.clone()));
        let lanes: Arc<[_]> = (0..buffer.lanes()).map(make).collect();
        let mut threads = Vec::with_capacity(lanes.len());
        for (number, lane) in lanes.iter().enumerate() {
            let (mine, mut writer) = (lane.clone(), writer(number));
            threads.push(thread::Builder::new().name(format!("drain-{number}")).spawn(move || {
                // The thread outlives a panic in a driver: what was in hand is still in the buffer.
                while catch_unwind(AssertUnwindSafe(|| mine.run(writer.as_mut()))).is_err() {
                    log::error!(target: "belayd::buffer", errorType = "panic"; "the drain panicked and goes on");
                    mine.forget_call();
                    thread::sleep(PANIC_PAUSE);
                }
            })?);
        }
        let watched = lanes.clone();
        thread::Builder::new().name("drain-watch".into()).spawn(move || {
            while !watched.iter().all(|lane| lane.stopping()) {
                watched.iter().for_each(|lane| lane.look_at_call(SILENCE));
                thread::sleep(IDLE_STEP);
            }
        })?;
        Ok((Self { lanes }, threads))
    }

    /// Writes everything that waits, now.
    pub fn flush(&self) {
        self.lanes.iter().for_each(|lane| lane.flush());
    }

    /// A batch is full: it is written within 50 ms, at once where nothing was written for so long, and with what has come meanwhile.
    pub fn full(&self) {
        self.lanes.iter().for_each(|lane| lane.full());
    }

    /// Ends the threads after what they do now. Ask [`Buffer::stats`] for what is left.
    pub fn stop(&self) {
        self.lanes.iter().for_each(|lane| lane.stop());
    }
}
