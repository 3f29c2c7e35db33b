//! What the outbox knows, outside the actor: its two stores, its sinks with their circuits, attempts in flight, ends to be written.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{told::Told, watch::Watch, way::Way};
use crate::{
    clock::SharedClock,
    config::Config,
    domain::{
        alert::Transition,
        breaker::{BreakerSettings, CircuitState},
    },
    event::{Metrics, circuits::CircuitIs},
    sinks::Sink,
    store::{
        Store,
        deliveries::{Held, Settlement},
    },
};

/// The side of the control store, which is this instance's own.
pub(super) const CONTROL: &str = "control";
/// Its place among the sides.
pub(super) const CONTROL_AT: usize = 0;

/// Hands a condition of the outbox to the alert side.
pub type RaiseFn = Box<dyn Fn(Vec<Transition>) + Send + Sync>;

/// What the outbox works with.
pub struct OutboxParts {
    /// The control store: alerts.
    pub control: Store,
    /// The store, and whether it answers and is migrated: asked before each look, never waited for.
    pub store: Option<(Store, Box<dyn Fn() -> bool + Send + Sync>)>,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// The ways out that the configuration names.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Those of the daemon's own, which no configuration takes away.
    pub own_sinks: Vec<Arc<dyn Sink>>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The name under which deliveries are claimed: the id of the data directory, the same after a restart.
    pub worker: String,
}

/// See the module. Made once in `daemon.rs`; outlives every restart of the actor.
pub struct Outbox {
    pub(super) sides: Vec<Side>,
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) worker: Arc<str>,
    pub(super) sinks: Mutex<HashMap<String, Way>>,
    own_sinks: Vec<Arc<dyn Sink>>,
    pub(super) stopping: AtomicBool,
    pub(super) sent_total: AtomicU64,
    pub(super) watch: Watch,
    pub(super) told: Told,
    raise: OnceLock<RaiseFn>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("inFlight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// One of the two stores, from the outbox's view.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) store: Store,
    pub(super) is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// Has this side's dispatcher look now.
    pub(super) wake: Notify,
    pub(super) driving: AtomicBool,
    /// Whether a thread hears of deliveries that other processes add.
    pub(super) listens: AtomicBool,
    /// Claims that are being worked on, by number. An entry leaves only when its end is written: until then its lease is renewed.
    pub(super) in_flight: Mutex<HashMap<i64, InFlight>>,
    /// Ends of attempts that are not written yet.
    pub(super) ends: Mutex<Vec<Settlement>>,
    /// One writer of ends at a time.
    pub(super) settling: tokio::sync::Mutex<()>,
    /// Whether a task writes ends.
    pub(super) settles: AtomicBool,
    /// How far the round over each sink's lanes has come.
    pub(super) laps: Mutex<HashMap<String, Lap>>,
    pub(super) trouble: Mutex<Trouble>,
}

/// A claim that is being worked on.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) held: Held,
    pub(super) sink: String,
    /// When it was claimed, and until when nobody else may have it: by the monotonic clock, from before the database was asked.
    pub(super) since: Instant,
    pub(super) until: Instant,
}

/// A round over the lanes of a sink.
#[derive(Clone, Debug, Default)]
pub(super) struct Lap {
    /// The lane behind which it goes on; `None` at its beginning.
    pub(super) after: Option<String>,
    /// Whether anything was claimed in it.
    pub(super) was_fruitful: bool,
    /// Whether it was begun at its beginning since the dispatcher was woken.
    pub(super) is_whole: bool,
}

/// How a store has failed the outbox lately.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Claims of an earlier life have been freed.
    pub(super) taken_back: bool,
    /// A claim of this life had no answer: what it claimed is to be given back.
    pub(super) unsure: bool,
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
}

impl Side {
    fn new(name: &'static str, store: Store, is_up: Box<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self {
            name,
            store,
            is_up,
            wake: Notify::new(),
            driving: AtomicBool::new(false),
            listens: AtomicBool::new(false),
            in_flight: Mutex::default(),
            ends: Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            settles: AtomicBool::new(false),
            laps: Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// What has been worked on for longer than `age`.
    pub(super) fn held(&self, age: Duration) -> Vec<Held> {
        lock(&self.in_flight).values().filter(|one| one.since.elapsed() >= age).map(|one| one.held.clone()).collect()
    }

    /// Whether this claim is certainly still ours: a process that was halted may have lost it without a word.
    pub(super) fn holds(&self, seq: i64, epoch: i64) -> bool {
        lock(&self.in_flight).get(&seq).is_some_and(|one| one.held.epoch == epoch && one.until > Instant::now())
    }

    /// These leases were prolonged.
    pub(super) fn renewed(&self, kept: &[Held], until: Instant) {
        let mut in_flight = lock(&self.in_flight);
        for held in kept {
            if let Some(one) = in_flight.get_mut(&held.seq).filter(|one| one.held.epoch == held.epoch) {
                one.until = until;
            }
        }
    }

    /// At most `most` of the ends that wait, the oldest.
    pub(super) fn take_ends(&self, most: usize) -> Vec<Settlement> {
        let mut ends = lock(&self.ends);
        let count = ends.len().min(most);
        ends.drain(..count).collect()
    }
}

impl Outbox {
    /// An outbox that does nothing yet: the actor starts it.
    pub fn new(parts: OutboxParts) -> Arc<Self> {
        let mut sides = vec![Side::new(CONTROL, parts.control, Box::new(|| true))];
        sides.extend(parts.store.map(|(store, is_up)| Side::new("store", store, is_up)));
        let outbox = Self {
            sides,
            config: parts.config,
            clock: parts.clock,
            metrics: parts.metrics,
            worker: parts.worker.into(),
            sinks: Mutex::default(),
            own_sinks: parts.own_sinks,
            stopping: AtomicBool::new(false),
            sent_total: AtomicU64::new(0),
            watch: Watch::default(),
            told: Told::default(),
            raise: OnceLock::new(),
        };
        outbox.replace_sinks(parts.sinks);
        Arc::new(outbox)
    }

    /// Tells where conditions of the outbox (a circuit opened, deliveries wait for a person) go. Later calls change nothing.
    pub fn set_raise(&self, raise: RaiseFn) {
        // A second one would only come from a daemon that wires twice; the first stays valid.
        let _ = self.raise.set(raise);
    }

    pub(super) fn can_raise(&self) -> bool {
        self.raise.get().is_some()
    }

    pub(super) fn raise(&self, transitions: Vec<Transition>) {
        if transitions.is_empty() {
            return;
        }
        if let Some(raise) = self.raise.get() {
            raise(transitions);
        }
    }

    /// Takes these sinks instead of those there were; a sink of the same name keeps its circuit. Attempts on their way end as they
    /// began.
    pub fn replace_sinks(&self, sinks: Vec<Arc<dyn Sink>>) {
        let config = self.config.load();
        let mut ways = lock(&self.sinks);
        let mut before = std::mem::take(&mut *ways);
        for sink in sinks.into_iter().chain(self.own_sinks.iter().cloned()) {
            let old = before.remove(sink.name());
            let settings = config.sink(sink.name()).map_or(BreakerSettings::SINK, |sink| sink.settings.breaker);
            let name = sink.name().to_owned();
            let way = match old {
                Some(mut way) => {
                    way.replace(sink, settings);
                    way
                }
                None => Way::new(sink, settings),
            };
            ways.insert(name, way);
        }
        drop(ways);
        for (gone, mut way) in before {
            self.metrics.forget_circuit(&gone);
            way.take_queue().into_iter().for_each(|run| self.give_back(run));
        }
        self.show_circuits();
    }

    /// Shows what each sink's circuit is now; what a pause over makes half-open is seen at the dispatcher's next look.
    pub(super) fn show_circuits(&self) {
        for (sink, state) in self.circuits() {
            self.show_circuit(&sink, state, "");
        }
    }

    pub(super) fn show_circuit(&self, sink: &str, state: CircuitState, cause: &str) {
        CircuitIs { party: sink, state, cause, now_us: self.clock.now_us() }.emit(&self.metrics);
    }

    /// Attempts on their way, by sink: never more than it takes at once.
    pub fn sending_by_sink(&self) -> HashMap<String, usize> {
        lock(&self.sinks).iter().map(|(name, way)| (name.clone(), way.sending())).collect()
    }

    /// Attempts on their way or not written down yet.
    pub fn in_flight(&self) -> usize {
        self.sides.iter().map(|side| lock(&side.in_flight).len()).sum()
    }

    /// Deliveries that receivers have confirmed since the start.
    pub fn sent_total(&self) -> u64 {
        self.sent_total.load(Ordering::Relaxed)
    }

    /// The circuit of each sink, by name.
    pub fn circuits(&self) -> Vec<(String, CircuitState)> {
        let now = Instant::now();
        let mut circuits: Vec<_> = lock(&self.sinks).iter().map(|(name, way)| (name.clone(), way.breaker.state(now))).collect();
        circuits.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        circuits
    }

    /// Has both dispatchers look for due deliveries now.
    pub fn wake(&self) {
        self.sides.iter().for_each(|side| side.wake.notify_one());
    }

    /// As [`Self::wake`], for the store that waits for places which this one has freed. Not both: they would deny each other again.
    pub(super) fn wake_other(&self, at: usize) {
        self.sides.iter().enumerate().filter(|(other, _)| *other != at).for_each(|(_, side)| side.wake.notify_one());
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
