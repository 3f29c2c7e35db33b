//! What the drain thread is given: the store as its writer, and an observer that tells the rest of the daemon what it sees.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    buffer::{
        DrainOutcome, Frame,
        drain::{HealthChange, Observer, WriteFailed, Writer},
        health::StoreHealth,
    },
    clock::SharedClock,
    domain::{
        alert::{AlertKind, Level, Transition},
        receipt::StreamId,
    },
    event::{Metrics, Recovered, StoreCameBack, StoreWentDown},
    ingest::raiser::Raiser,
    store::{self, Store, StoreError},
    supervise::LoopStamp,
};

/// Called each time the database has been opened, with a connection that works: loads what waited for it.
pub(super) type OnOpen = Box<dyn FnMut(&mut store::Conn) -> store::StoreResult<()> + Send>;

/// Writes frames through a connection of its own.
pub(super) struct StoreWriter {
    store: Store,
    writer: store::Writer,
    clock: SharedClock,
    instance: String,
    migrated: bool,
    on_open: OnOpen,
}

impl StoreWriter {
    pub(super) fn new(store: Store, clock: SharedClock, instance: String, on_open: OnOpen) -> Self {
        Self { writer: store.writer(), store, clock, instance, migrated: false, on_open }
    }
}

impl From<StoreError> for WriteFailed {
    fn from(error: StoreError) -> Self {
        Self { transient: error.is_transient(), code: error.code.clone(), message: error.message }
    }
}

impl Writer for StoreWriter {
    fn open(&mut self, stream: StreamId) -> Result<(), WriteFailed> {
        if !self.migrated {
            for name in self.store.migrate()? {
                log::info!(target: "belayd::store", migration = name.as_str(); "migration run");
            }
            self.migrated = true;
        }
        let (now_us, instance, on_open) = (self.clock.now_us(), &self.instance, &mut self.on_open);
        self.writer.with(|conn| {
            store::ledger::register_stream(conn, stream, "memory", instance, now_us)?;
            on_open(conn)
        })?;
        Ok(())
    }

    fn write(&mut self, stream: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed> {
        let now_us = self.clock.now_us();
        Ok(self.writer.with(|conn| store::readings::store_frames(conn, stream, frames, now_us))?)
    }
}

/// Turns what the drain sees into facts: metrics, log lines, the alert `database-down`, a stamp for the overseer.
pub(super) struct DrainObserver {
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: Arc<StoreHealth>,
    pub(super) raiser: Raiser,
    pub(super) clock: SharedClock,
    pub(super) stamp: LoopStamp,
    pub(super) recovery: Mutex<Option<Recovery>>,
    pub(super) waiting: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// The database is back, and what piled up is being written.
pub(super) struct Recovery {
    since: Instant,
    left: u64,
}

impl DrainObserver {
    fn transition(&self, firing: bool, text: String) {
        let now_us = self.clock.now_us();
        // Nobody waits for this commit; the raiser repeats it until it is done.
        drop(self.raiser.raise(vec![Transition {
            kind: AlertKind::System,
            name: "database-down".into(),
            subject: "database".into(),
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

impl Observer for DrainObserver {
    fn alive(&self) {
        self.stamp.beat();
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
                self.transition(true, format!("the database does not answer: {cause}; {waiting} readings wait in the buffer"));
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
                    self.transition(false, text);
                } else {
                    self.metrics.circuit_state.with_label_values(&["store"]).set(0);
                    // An alert that an earlier run left open is over too.
                    self.transition(false, "the database answers".into());
                }
            }
        }
    }
}
