//! What the drain thread is given: the store as its writer, and an observer that tells the rest of the daemon what it sees.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
        alert::{Level, Transition},
        breaker::CircuitState,
        receipt::StreamId,
    },
    event::{
        Metrics, Recovered, StoreCameBack, StoreWentDown,
        circuits::{self, CircuitIs},
    },
    ingest::raiser::Raiser,
    outbox::Relay,
    store::{self, Store, StoreError, StoreErrorKind, checkpointer::Checkpointer, ledger::Closing, readings::Relaying},
    supervise::LoopStamp,
};

/// See [`Buffer::earlier`](crate::buffer::Buffer::earlier).
pub(super) type Earlier = Box<dyn Fn(StreamId) -> Vec<StreamId> + Send>;

/// Called each time the database has been opened, with a connection that works: loads what waited for it.
pub(super) type OnOpen = Box<dyn FnMut(&mut store::Conn, StreamId) -> store::StoreResult<()> + Send>;

/// Rows of a transaction from which on SQLite's write-ahead log is copied beside the next: fewer are no hurry.
const MUCH_ROWS: u64 = 5_000;

/// Writes frames through a connection of its own.
pub(super) struct StoreWriter {
    store: Store,
    writer: store::Writer,
    checkpointer: Option<Arc<Checkpointer>>,
    clock: SharedClock,
    tier: &'static str,
    instance: String,
    relay: Option<Arc<Relay>>,
    health: Arc<StoreHealth>,
    migrated: bool,
    /// The streams that the given one goes on from.
    earlier: Earlier,
    on_open: OnOpen,
}

impl StoreWriter {
    pub(super) fn new(
        store: Store,
        clock: SharedClock,
        tier: &'static str,
        instance: String,
        earlier: Earlier,
        on_open: OnOpen,
        relay: Option<Arc<Relay>>,
    ) -> Self {
        Self {
            writer: store.writer(),
            checkpointer: None,
            store,
            clock,
            tier,
            instance,
            relay,
            health: Arc::default(),
            migrated: false,
            earlier,
            on_open,
        }
    }

    /// Has SQLite's write-ahead log copied by that one, whom all lanes share.
    pub(super) fn copied_by(mut self, checkpointer: Option<Arc<Checkpointer>>) -> Self {
        self.checkpointer = checkpointer;
        self
    }

    /// Notes there when the database was spoken to, and whether it answered.
    pub(super) fn watched_by(mut self, health: Arc<StoreHealth>) -> Self {
        self.health = health;
        self
    }

    fn open_stream(&mut self, stream: StreamId) -> Result<Position, WriteFailed> {
        if !self.migrated {
            for name in self.store.migrate()? {
                log::info!(target: "belayd::store", migration = name.as_str(); "migration run");
            }
            self.migrated = true;
        }
        let (now_us, tier, instance, on_open) = (self.clock.now_us(), self.tier, &self.instance, &mut self.on_open);
        let earlier = (self.earlier)(stream);
        let relays = self.relay.is_some();
        let opened = self.writer.with(|conn| {
            let position = store::ledger::register_stream(conn, stream, tier, instance, now_us)?;
            for before in &earlier {
                store::ledger::close_stream(conn, *before, Closing::Forked, now_us)?;
            }
            on_open(conn, stream)?;
            let waiting = if relays { store::relay::last_waiting(conn, stream)? } else { None };
            Ok((position, waiting))
        });
        // Whoever comes back may be empty, or of an older schema.
        self.migrated = opened.is_ok();
        let (position, waiting) = opened?;
        if let Some(relay) = &self.relay {
            relay.opened(stream, position.cursor_seq, waiting);
        }
        Ok(position)
    }

    /// Tells the relay what was committed.
    fn tell(&mut self, relay: &Relay, stream: StreamId, outcome: &DrainOutcome) {
        let unsure = if outcome.duplicate == 0 {
            Vec::new()
        } else {
            // Where the database does not say, every number may be one of those.
            let asked = self.writer.with(|conn| store::relay::unsure(conn, stream, outcome));
            asked.unwrap_or_else(|_| vec![(outcome.first_seq, outcome.last_seq)])
        };
        relay.committed(stream, outcome.last_seq, outcome.relay_seq, &unsure);
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
        self.health.tried();
        let opened = self.open_stream(stream);
        self.health.answered(opened.is_ok());
        opened
    }

    fn write(&mut self, stream: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed> {
        self.health.tried();
        let now_us = self.clock.now_us();
        let relaying = if self.relay.is_some() { Relaying::On } else { Relaying::Off };
        let written = self.writer.with(|conn| store::readings::store_for(conn, stream, frames, now_us, relaying));
        self.health.answered(written.is_ok());
        let outcome = written?;
        if let (Some(checkpointer), true) = (&self.checkpointer, outcome.last_seq + 1 - outcome.first_seq >= MUCH_ROWS) {
            checkpointer.due();
        }
        if let Some(relay) = self.relay.clone() {
            self.tell(&relay, stream, &outcome);
        }
        Ok(outcome)
    }

    fn pass_over(&mut self, stream: StreamId, gap: &Gap) -> Result<DrainOutcome, WriteFailed> {
        self.health.tried();
        let now_us = self.clock.now_us();
        let written = self.writer.with(|conn| store::readings::pass_over(conn, stream, gap, now_us));
        self.health.answered(written.is_ok());
        Ok(written?)
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
    /// Lanes whose alert `buffer-unreadable` an earlier run left open, a bit each.
    pub(super) left_unreadable: AtomicU64,
}

/// The database is back, and what piled up is being written.
pub(super) struct Recovery {
    left: u64,
}

impl DrainObserver {
    /// An alert of the daemon's own that a person has to look at; it stays open until the daemon is started again (`left_open.rs`).
    fn tell(&self, name: &str, subject: &str, text: String) {
        log::error!(target: "belayd::buffer", "{text}");
        self.transition((name, subject), true, text);
    }

    fn unreadable(&self, lane: usize, why: &str) {
        if self.health.medium_failed(lane, true) {
            return;
        }
        let text = format!(
            "what waits in lane {lane} of the buffer cannot be read ({why}): the other lanes go on, this one is tried again; look at the \
             disk. Of tier journal, what cannot be read for 30 s is passed over, counted, and kept in journal/quarantine"
        );
        self.transition((BUFFER_UNREADABLE, &lane.to_string()), true, text);
    }

    fn show_circuit(&self, state: CircuitState, cause: &str) {
        CircuitIs { party: circuits::DATABASE, state, cause, now_us: self.clock.now_us() }.emit(&self.metrics);
    }

    fn transition(&self, (name, subject): (&str, &str), firing: bool, text: String) {
        let now_us = self.clock.now_us();
        // Nobody waits for this commit; the raiser repeats it until it is done.
        drop(self.raiser.raise(vec![Transition::system((name, subject), Level::Critical, firing, text, now_us)]));
    }
}

/// Name and subject of the alert about an outage of the database.
const DATABASE_DOWN: (&str, &str) = ("database-down", "database");

/// Name of the alert about a lane of the buffer that cannot be read; its subject is the lane.
pub(super) const BUFFER_UNREADABLE: &str = "buffer-unreadable";
/// A person is told of these once; nothing but another start ends them.
pub(super) const STORE_RESTORED: &str = "store-restored";
pub(super) const DIRECTORY_RESTORED: &str = "directory-restored";
/// How long a lane has failed to be read when a person is told.
const MEDIUM_TOLD_AFTER: Duration = Duration::from_secs(1);
/// Of so many failures in a row one is logged.
const MEDIUM_LOG_EVERY: u32 = 150;

impl Observer for DrainObserver {
    fn alive(&self, lane: usize) {
        if let Some(stamp) = self.stamps.get(lane) {
            stamp.beat();
        }
    }

    fn attached(&self, lane: usize, stream: StreamId, attached: &Attached) {
        if !matches!(attached, Attached::DirectoryRestored { .. }) {
            self.health.attached(lane, stream);
        }
        match attached {
            Attached::Resumed => {}
            Attached::StoreRestored { missing } => {
                let cost = if *missing == 0 {
                    "what it had since is stored again from where a copy is kept".to_owned()
                } else {
                    format!("{missing} readings that it had are lost (see \"Backup and restore\" in the operations manual)")
                };
                let text = format!(
                    "the database stands behind what this directory has stored: an older one was put in its place; {cost}"
                );
                self.tell(STORE_RESTORED, "database", text);
            }
            Attached::DirectoryRestored { from, to } => self.tell(
                DIRECTORY_RESTORED,
                "daemon",
                format!(
                    "the database knows another history of stream {from}: an older data directory was put in place, or a copy of it runs \
                     elsewhere; what waits goes on as stream {to}, and what is in the database already is counted as duplicate"
                ),
            ),
        }
    }

    fn medium_failed(&self, lane: usize, times: u32, lasting: Duration, error: &std::io::Error) {
        if times == 1 || times.is_multiple_of(MEDIUM_LOG_EVERY) {
            log::error!(target: "belayd::buffer", lane = lane as u64, times = times, durationMs = lasting.as_millis() as u64, error:% = error, errorType = "medium"; "what waits in the buffer could not be read; tried again");
        }
        if lasting >= MEDIUM_TOLD_AFTER {
            self.unreadable(lane, &error.to_string());
        }
    }

    fn medium_silent(&self, lane: usize, lasting: Duration) {
        log::error!(target: "belayd::buffer", lane = lane as u64, durationMs = lasting.as_millis() as u64, errorType = "medium"; "what waits in the buffer was asked for, and the disk does not answer");
        self.unreadable(lane, &format!("no answer for {} s", lasting.as_secs()));
    }

    fn medium_works(&self, lane: usize) {
        let bit = 1 << (lane % 64);
        let left = self.left_unreadable.fetch_and(!bit, Ordering::AcqRel) & bit != 0;
        if self.health.medium_failed(lane, false) || left {
            log::info!(target: "belayd::buffer", lane = lane as u64; "what waits in the buffer can be read again");
            self.transition((BUFFER_UNREADABLE, &lane.to_string()), false, format!("lane {lane} of the buffer can be read again"));
        }
    }

    fn circuit(&self, state: CircuitState, cause: &str) {
        self.health.turned(state);
        self.show_circuit(state, cause);
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
                *recovery = None;
                if let Some(took) = self.health.recovers(None) {
                    Recovered { took }.emit(&self.metrics);
                }
            }
        }
    }

    fn health(&self, change: &HealthChange) {
        match change {
            HealthChange::Down { cause, waiting } => {
                StoreWentDown { error_type: cause.code.as_deref().unwrap_or("unavailable"), message: &cause.message }.emit();
                self.health.went_down(self.clock.now_us(), cause.to_string());
                self.transition(
                    DATABASE_DOWN,
                    true,
                    format!("the database does not answer: {cause}; {waiting} readings wait in the buffer"),
                );
            }
            HealthChange::Up { away, waiting } => {
                self.show_circuit(CircuitState::Closed, "");
                let before = self.health.view();
                let was_down = before.down_since_us.is_some();
                self.health.came_up(self.clock.now_us());
                if was_down {
                    StoreCameBack { outage: *away }.emit();
                    let recovery = (*waiting > 0).then_some(Recovery { left: *waiting });
                    // The circuit closes with the first batch that is written; it has answered for as long as that took.
                    self.health.recovers(recovery.is_some().then(|| before.answers_since.unwrap_or_else(Instant::now)));
                    *self.recovery.lock().unwrap_or_else(PoisonError::into_inner) = recovery;
                    let text = format!(
                        "the database answers again after {:.1} s; {waiting} readings are being written",
                        away.as_secs_f64()
                    );
                    self.transition(DATABASE_DOWN, false, text);
                } else {
                    // An alert that an earlier run left open is over too.
                    self.transition(DATABASE_DOWN, false, "the database answers".into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
