//! What the drain thread is given: the store as its writer, and an observer that tells the rest of the daemon what it sees.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    buffer::{
        Attached, DrainOutcome, Frame, Gap, Position,
        drain::{Observer, Verdict, WriteFailed, Writer, outage::HealthChange},
        health::StoreHealth,
    },
    clock::SharedClock,
    domain::{
        alert::{AlertKind, Level, Transition},
        breaker::CircuitState,
        receipt::StreamId,
    },
    event::{Metrics, Recovered, StoreCameBack, StoreWentDown},
    ingest::raiser::Raiser,
    store::{self, Store, StoreError, StoreErrorKind, ledger::Closing},
    supervise::LoopStamp,
};

/// Called each time the database has been opened, with a connection that works: loads what waited for it.
pub(super) type OnOpen = Box<dyn FnMut(&mut store::Conn, StreamId) -> store::StoreResult<()> + Send>;

/// Writes frames through a connection of its own.
pub(super) struct StoreWriter {
    store: Store,
    writer: store::Writer,
    clock: SharedClock,
    tier: &'static str,
    instance: String,
    migrated: bool,
    /// The stream that was opened last.
    stream: Option<StreamId>,
    on_open: OnOpen,
}

impl StoreWriter {
    pub(super) fn new(store: Store, clock: SharedClock, tier: &'static str, instance: String, on_open: OnOpen) -> Self {
        Self { writer: store.writer(), store, clock, tier, instance, migrated: false, stream: None, on_open }
    }
}

impl From<StoreError> for WriteFailed {
    fn from(error: StoreError) -> Self {
        let verdict = if error.kind == StoreErrorKind::Moved { Verdict::Moved } else { Verdict::Outage };
        Self { verdict, code: error.code, message: error.message }
    }
}

impl Writer for StoreWriter {
    fn open(&mut self, stream: StreamId) -> Result<Position, WriteFailed> {
        if !self.migrated {
            for name in self.store.migrate()? {
                log::info!(target: "belayd::store", migration = name.as_str(); "migration run");
            }
            self.migrated = true;
        }
        let (now_us, tier, instance, on_open) = (self.clock.now_us(), self.tier, &self.instance, &mut self.on_open);
        let before = self.stream.filter(|before| *before != stream);
        let position = self.writer.with(|conn| {
            let position = store::ledger::register_stream(conn, stream, tier, instance, now_us)?;
            if let Some(before) = before {
                store::ledger::close_stream(conn, before, Closing::Forked, now_us)?;
            }
            on_open(conn, stream)?;
            Ok(position)
        })?;
        self.stream = Some(stream);
        Ok(position)
    }

    fn write(&mut self, stream: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed> {
        let now_us = self.clock.now_us();
        Ok(self.writer.with(|conn| store::readings::store_frames(conn, stream, frames, now_us))?)
    }

    fn pass_over(&mut self, stream: StreamId, gap: &Gap) -> Result<DrainOutcome, WriteFailed> {
        let now_us = self.clock.now_us();
        Ok(self.writer.with(|conn| store::readings::pass_over(conn, stream, gap, now_us))?)
    }
}

/// Turns what the drain sees into facts: metrics, log lines, the alert `database-down`, a stamp for the overseer.
pub(super) struct DrainObserver {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<StoreHealth>,
    pub(super) raiser: Raiser,
    pub(super) clock: SharedClock,
    /// One a lane.
    pub(super) stamps: Vec<LoopStamp>,
    pub(super) recovery: Mutex<Option<Recovery>>,
    pub(super) waiting: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// The database is back, and what piled up is being written.
pub(super) struct Recovery {
    since: Instant,
    left: u64,
}

impl DrainObserver {
    /// An alert of the daemon's own that a person has to look at; it stays open until the daemon is started again.
    fn tell(&self, name: &str, subject: &str, text: String) {
        log::error!(target: "belayd::buffer", "{text}");
        self.transition((name, subject), true, text);
    }

    fn transition(&self, (name, subject): (&str, &str), firing: bool, text: String) {
        let now_us = self.clock.now_us();
        // Nobody waits for this commit; the raiser repeats it until it is done.
        drop(self.raiser.raise(vec![Transition {
            kind: AlertKind::System,
            name: name.into(),
            subject: subject.into(),
            level: Level::Critical,
            firing,
            observed_at_us: now_us,
            arrived_at_us: now_us,
            value: None,
            threshold: None,
            text,
        }]));
    }
}

/// Name and subject of the alert about an outage of the database.
const DATABASE_DOWN: (&str, &str) = ("database-down", "database");

impl Observer for DrainObserver {
    fn alive(&self, lane: usize) {
        if let Some(stamp) = self.stamps.get(lane) {
            stamp.beat();
        }
    }

    fn attached(&self, attached: &Attached) {
        match attached {
            Attached::Resumed => {}
            Attached::StoreRestored { missing } => self.tell(
                "store-restored",
                "database",
                format!(
                    "the database stands behind what this directory has stored: an older one was put in its place; \
                     {missing} readings that it had are lost (see \"Backup and restore\" in the operations manual)"
                ),
            ),
            Attached::DirectoryRestored { from, to } => self.tell(
                "directory-restored",
                "daemon",
                format!(
                    "the database knows another history of stream {from}: an older data directory was put in place, or a copy of it runs \
                     elsewhere; what waits goes on as stream {to}, and what is in the database already is counted as duplicate"
                ),
            ),
        }
    }

    fn medium_failed(&self, error: &std::io::Error) {
        log::error!(target: "belayd::buffer", error:% = error, errorType = "medium"; "the buffer's medium could not be read; tried again");
    }

    fn circuit(&self, state: CircuitState) {
        self.metrics.circuit_state.with_label_values(&["store"]).set(state.as_metric());
        self.health.turned(state);
        log::debug!(target: "belayd::buffer", party = "store", circuit = state.as_str(); "circuit breaker turned");
    }

    fn settled(&self, outcome: &DrainOutcome, took: Duration) {
        log::debug!(
            target: "belayd::buffer",
            firstSeq = outcome.first_seq, lastSeq = outcome.last_seq, stored = outcome.stored, duplicate = outcome.duplicate,
            conflict = outcome.conflict, dead = outcome.dead, durationMs = took.as_millis() as u64;
            "batch stored"
        );
        if outcome.conflict + outcome.dead > 0 {
            log::warn!(target: "belayd::buffer", conflict = outcome.conflict, dead = outcome.dead; "readings kept among the failures; see `belayd failures list`");
        }
        let mut recovery = self.recovery.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = recovery.as_mut() {
            running.left = running.left.saturating_sub(outcome.last_seq + 1 - outcome.first_seq);
            if running.left == 0 || (self.waiting)() == 0 {
                Recovered { took: running.since.elapsed() }.emit(&self.metrics);
                *recovery = None;
            }
        }
    }

    fn health(&self, change: &HealthChange) {
        match change {
            HealthChange::Down { cause, waiting } => {
                StoreWentDown { error_type: cause.code.as_deref().unwrap_or("unavailable"), message: &cause.message }
                    .emit(&self.metrics);
                self.health.went_down(self.clock.now_us(), cause.to_string());
                self.transition(
                    DATABASE_DOWN,
                    true,
                    format!("the database does not answer: {cause}; {waiting} readings wait in the buffer"),
                );
            }
            HealthChange::Up { away, waiting } => {
                let was_down = self.health.view().down_since_us.is_some();
                self.health.came_up(self.clock.now_us());
                if was_down {
                    StoreCameBack { outage: *away }.emit(&self.metrics);
                    let recovery = (*waiting > 0).then(|| Recovery { since: Instant::now(), left: *waiting });
                    *self.recovery.lock().unwrap_or_else(PoisonError::into_inner) = recovery;
                    let text = format!(
                        "the database answers again after {:.1} s; {waiting} readings are being written",
                        away.as_secs_f64()
                    );
                    self.transition(DATABASE_DOWN, false, text);
                } else {
                    self.metrics.circuit_state.with_label_values(&["store"]).set(0);
                    // An alert that an earlier run left open is over too.
                    self.transition(DATABASE_DOWN, false, "the database answers".into());
                }
            }
        }
    }
}
