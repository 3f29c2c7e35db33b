//! The relay: readings that were committed go to Kafka, each of them once.
//!
//! ```text
//!  wake, or 2 s -> keeper: which streams have something, and which lease can be had
//!                     |  one thread a stream
//!                     v
//!                  lane: lease -> link (fences, ends what was open, reads the mark) -> resolve
//!                        -> [ settle what went, claim a run (one transaction) -> records and mark (one transaction of Kafka) ]…
//! ```
//! In: deliveries that the drain committed with their readings. Out: records, and settled deliveries. It is threads, not actors, because
//! both of its parties block. A crash loses nothing: a run whose end nobody saw is found again as being sent, and Kafka's mark tells what
//! became of it. Whoever writes does so under the stream's lease, and the link fences whoever lost it.

mod board;
mod circuit;
mod keeper;
mod lane;
mod spread;

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::{board::Board, circuit::Circuit, spread::Spread};
use super::Outbox;
use crate::{
    clock::SharedClock,
    config::KafkaConfig,
    domain::{breaker::CircuitState, receipt::StreamId},
    event::Metrics,
    store::{Store, relay::Numbers},
};

/// Longest time between two looks for something to relay.
const LOOK: Duration = Duration::from_secs(2);
/// Longest wait of a stop for the threads to end what they do.
const STOP: Duration = Duration::from_secs(5);

/// What the relay works with.
pub struct RelayParts {
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The store.
    pub store: Store,
    /// Whether the store answers and is migrated.
    pub store_is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// The streams that this process writes: they are relayed by itself while it lives.
    pub own: Box<dyn Fn() -> Vec<StreamId> + Send + Sync>,
    /// Most engines to keep in mind.
    pub max_engines: usize,
    /// Under which name leases are taken.
    pub worker: String,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The outbox: its counts hold the relay's deliveries too, and it raises the relay's conditions.
    pub outbox: Arc<Outbox>,
}

/// See the module. Its threads end with it.
pub struct Relay {
    shared: Arc<Shared>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the threads share.
struct Shared {
    parts: RelayParts,
    board: Board,
    circuit: Circuit,
    spread: Spread,
    /// Rises with every wake-up.
    wakes: Mutex<u64>,
    woken: Condvar,
    stopping: AtomicBool,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("circuit", &self.circuit()).finish_non_exhaustive()
    }
}

impl Relay {
    /// Starts the relay. It connects by itself, when the store is up.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(parts: RelayParts) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            circuit: Circuit::new(parts.kafka.breaker),
            spread: Spread::new(parts.max_engines),
            parts,
            board: Board::default(),
            wakes: Mutex::new(0),
            woken: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let keeper = {
            let shared = shared.clone();
            std::thread::Builder::new().name("relay".into()).spawn(move || keeper::keep(&shared))?
        };
        Ok(Arc::new(Self { shared, keeper: Mutex::new(Some(keeper)) }))
    }

    /// The drain is about to write `stream`, at first or again: the database has committed it up to `cursor`, and what of it waits for
    /// Kafka ends at `waiting`, `None` where nothing does. Of streams that were not opened nobody is told anything.
    pub fn opened(&self, stream: StreamId, cursor: u64, waiting: Option<u64>) {
        self.shared.board.opened(stream, cursor, waiting);
    }

    /// The database has committed numbers of `stream` up to `last_seq`; `relay_seq`: the last of them that is to be relayed, 0 where none is;
    /// `unsure`: those of them that repeat what may wait elsewhere ([`crate::store::relay::unsure`]).
    pub fn committed(&self, stream: StreamId, last_seq: u64, relay_seq: u64, unsure: &[Numbers]) {
        self.shared.board.committed(stream, last_seq, relay_seq, unsure);
        if relay_seq > 0 {
            self.shared.wake();
        }
    }

    /// There may be something to relay.
    pub fn wake(&self) {
        self.shared.wake();
    }

    /// Resolves when what was to be relayed of these numbers of `stream` is in Kafka, and what they repeat too. Closed without a word
    /// where nobody will know, or where a person has to decide first.
    pub fn wait_for(&self, stream: StreamId, numbers: Numbers) -> oneshot::Receiver<()> {
        self.shared.board.wait_for(stream, numbers)
    }

    /// The circuit breaker around Kafka.
    pub fn circuit(&self) -> CircuitState {
        self.shared.circuit.state()
    }

    /// Ends the threads, after the transactions that are under way. What has not gone is in the database.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let until = Instant::now() + STOP;
        while keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if keeper.as_ref().is_some_and(|keeper| !keeper.is_finished()) {
            log::warn!(target: "belayd::relay", "the relay is in a call that has no end; the next start finds out what became of it");
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn wake(&self) {
        *self.wakes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.woken.notify_all();
    }

    fn wakes(&self) -> u64 {
        *self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there was a wake-up since `seen`, or `limit` has passed, or the relay stops.
    fn wait(&self, seen: u64, limit: Duration) {
        let wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        let unseen = |wakes: &mut u64| *wakes == seen && !self.stopping();
        drop(self.woken.wait_timeout_while(wakes, limit, unseen));
    }

    /// Waits for `limit`, or until the relay stops.
    fn pause(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while !self.stopping() && Instant::now() < until {
            let seen = self.wakes();
            self.wait(seen, until.saturating_duration_since(Instant::now()));
        }
    }

    fn owns(&self, lane: &str) -> bool {
        (self.parts.own)().iter().any(|stream| stream.to_string() == lane)
    }
}
