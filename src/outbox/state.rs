//! What the outbox knows, outside the actor: its two stores, its sinks with their circuits, attempts in flight, ends to be written.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::watch::Watch;
use crate::{
    clock::SharedClock,
    config::Config,
    domain::{
        alert::Transition,
        breaker::{Breaker, BreakerSettings, CircuitState},
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
    pub(super) worker: String,
    pub(super) sinks: Mutex<HashMap<String, Way>>,
    own_sinks: Vec<Arc<dyn Sink>>,
    pub(super) wake: Notify,
    pub(super) driving: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) sent_total: AtomicU64,
    pub(super) watch: Watch,
    raise: OnceLock<RaiseFn>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("inFlight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// A sink with its circuit.
pub(super) struct Way {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) breaker: Breaker,
    pub(super) in_flight: usize,
    /// Whether people know how it is: before the first word of this run, an earlier one may have left its alert open.
    pub(super) told: bool,
}

/// One of the two stores, from the outbox's view.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) store: Store,
    pub(super) is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// Claims that are being worked on. An entry leaves only when its end is written: until then its lease is renewed.
    pub(super) in_flight: Mutex<HashMap<String, i64>>,
    /// Ends of attempts that are not written yet.
    pub(super) ends: Mutex<Vec<Settlement>>,
    /// One writer of ends at a time; whoever waits finds his written, in a group.
    pub(super) settling: tokio::sync::Mutex<()>,
    pub(super) trouble: Mutex<Trouble>,
}

/// How a store has failed the outbox lately.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Claims of an earlier life have been freed.
    pub(super) taken_back: bool,
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
}

impl Side {
    fn new(name: &'static str, store: Store, is_up: Box<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self {
            name,
            store,
            is_up,
            in_flight: Mutex::default(),
            ends: Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// What is being worked on.
    pub(super) fn held(&self) -> Vec<Held> {
        lock(&self.in_flight).iter().map(|(id, epoch)| Held { id: id.clone(), epoch: *epoch }).collect()
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
            worker: parts.worker,
            sinks: Mutex::default(),
            own_sinks: parts.own_sinks,
            wake: Notify::new(),
            driving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            sent_total: AtomicU64::new(0),
            watch: Watch::default(),
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
            let fresh = || (Breaker::new(settings), Default::default(), false);
            let (mut breaker, in_flight, told) = old.map_or_else(fresh, |way| (way.breaker, way.in_flight, way.told));
            breaker.set(settings);
            ways.insert(sink.name().to_owned(), Way { sink, breaker, in_flight, told });
        }
        drop(ways);
        before.keys().for_each(|gone| self.metrics.forget_circuit(gone));
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

    /// Attempts on their way, by sink.
    pub fn in_flight_by_sink(&self) -> HashMap<String, usize> {
        lock(&self.sinks).iter().map(|(name, way)| (name.clone(), way.in_flight)).collect()
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

    /// Has the dispatcher look for due deliveries now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
