//! Everything that can be looked at, in one place: the boards of the stages, and how a snapshot is made of them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    ActorView, Board, BufferView, CircuitView, CpuView, EngineItem, EnginesView, HostFigures, InboxItem, IngestView, InstanceBoard,
    IntegrityView, OutboxView, ProcessView, Readiness, Recovery, RecoveryView, Snapshot, SourceView, StoreDisk, StoreView,
    SystemView, UsageView,
};
use crate::{
    alert::AlertTally,
    buffer::{Account, Buffer, BufferStats, health::StoreHealth},
    clock::SharedClock,
    config::Config,
    domain::{alert::Alert, breaker::CircuitState, receipt::StreamId, time::rfc3339_us},
    event::{Metrics, circuits::CircuitIs},
    ingest::{board::SourceBoard, engines::EngineTable},
    store::{Store, failures::Delta},
    supervise::ActorRegistry,
};

/// Most engines in a snapshot.
const ENGINES_SHOWN: usize = 200;
/// Most alerts in a snapshot.
pub const ALERTS_SHOWN: usize = 100;

/// Looks at something that another stage keeps; must not block.
pub type Look<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// When what fills up will be full; `None` where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FullIn {
    /// The journal, by `buffer.journal_bytes`.
    pub journal: Option<Duration>,
    /// The file system of the data directory.
    pub disk: Option<Duration>,
}

/// What is known of the database beyond its health.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct StoreFacts {
    /// The account of this directory's earlier streams, from the ledger.
    earlier: Account,
}

/// Handles on everything that can be looked at. Made once in `daemon.rs`.
pub struct Views {
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// Wall clock.
    pub clock: SharedClock,
    /// When the process started: microseconds since the epoch, and monotonic.
    pub started: (i64, Instant),
    /// Whether this is `belayd demo`.
    pub demo: bool,
    /// The latest snapshot and the stage.
    pub board: Arc<Board>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The buffer.
    pub buffer: Arc<dyn Buffer>,
    /// The database, for its name.
    pub store: Store,
    /// Whether it answers.
    pub health: Arc<StoreHealth>,
    /// Engines.
    pub engines: Arc<EngineTable>,
    /// Polled sources.
    pub sources: Arc<SourceBoard>,
    /// Actors.
    pub registry: Arc<ActorRegistry>,
    /// Open alerts and the newest resolved ones, at most `ALERTS_SHOWN`.
    pub alerts: Look<Vec<Alert>>,
    /// How many there are in all.
    pub alert_counts: Look<AlertTally>,
    /// Deliveries of both stores together.
    pub outbox: Look<OutboxView>,
    /// Bytes that the database takes, and of what, where they are known.
    pub store_disk: Look<Option<(u64, StoreDisk)>>,
    /// The instances that use the same database.
    pub instances: Arc<InstanceBoard>,
    /// What the last integrity check found.
    pub integrity: Look<Option<IntegrityView>>,
    /// Demo only: the catcher's inbox.
    pub inbox: Option<Look<Vec<InboxItem>>>,
    /// What was measured or found out; starts with `Default`.
    pub measured: Measured,
}

/// What is written by `MonitorActor` and the periodic duties, and read by all.
#[derive(Debug, Default)]
pub struct Measured {
    host: Mutex<HostFigures>,
    rate_per_s: Mutex<f64>,
    full_in: Mutex<FullIn>,
    store_facts: Mutex<StoreFacts>,
    /// By how much decisions of people moved the accounts of the streams being written, since their sums were read.
    decided: Mutex<HashMap<StreamId, Delta>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Plain figures: a panic while one is held leaves at worst an old value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("board", &self.board).finish_non_exhaustive()
    }
}

impl Views {
    /// The buffer's look and the account over all streams of this directory, taken together.
    pub fn account(&self) -> (BufferStats, Account) {
        let stats = self.buffer.stats();
        let account = lock(&self.measured.store_facts).earlier.plus(&stats.account);
        let account = lock(&self.measured.decided).values().fold(account, |account, delta| shifted(&account, delta));
        (stats, account)
    }

    /// Whether the account is whole: the database has told the sums of every stream that is written now, and of the earlier ones.
    pub fn accounted(&self) -> bool {
        (0..self.buffer.lanes()).all(|lane| {
            let stream = self.buffer.stream(lane);
            stream.is_nil() || self.health.is_attached(lane, stream)
        })
    }

    /// A person decided about a failed reading: the sums follow.
    pub fn follow_decision(&self, delta: &Delta) {
        if !self.buffer.writes(delta.stream) {
            // Sums of earlier streams come from the ledger, which has it already, at the next opening; until then from here.
            let mut facts = lock(&self.measured.store_facts);
            facts.earlier = shifted(&facts.earlier, delta);
            return;
        }
        let mut decided = lock(&self.measured.decided);
        let sums = decided.entry(delta.stream).or_insert_with(|| Delta::none(delta.stream));
        sums.stored += delta.stored;
        sums.duplicate += delta.duplicate;
        sums.conflict += delta.conflict;
        sums.dead += delta.dead;
        sums.discarded += delta.discarded;
    }

    /// The sums of this stream have been read from the database anew, and hold every decision so far.
    pub fn forget_decisions(&self, stream: StreamId) {
        lock(&self.measured.decided).remove(&stream);
    }

    /// The account of this directory's earlier streams is known; told once, when the database first answers.
    pub fn set_earlier(&self, earlier: Account) {
        lock(&self.measured.store_facts).earlier = earlier;
    }

    /// The last look at the host.
    pub fn set_host(&self, figures: HostFigures) {
        *lock(&self.measured.host) = figures;
    }

    /// Readings accepted a second, over the last few seconds.
    pub fn set_rate(&self, rate_per_s: f64) {
        *lock(&self.measured.rate_per_s) = rate_per_s;
    }

    /// When journal and disk will be full at the rate of the last minutes.
    pub fn set_full_in(&self, full_in: FullIn) {
        *lock(&self.measured.full_in) = full_in;
    }

    /// What `/readyz` says now.
    pub fn readiness(&self) -> Readiness {
        self.readiness_with(&self.buffer.stats())
    }

    fn readiness_with(&self, stats: &BufferStats) -> Readiness {
        self.board.readiness(self.health.is_up(), stats.refuses, stats.failing)
    }

    /// Sets the metrics that are kept elsewhere. Give it to [`Metrics::on_scrape`].
    pub fn gather(&self, metrics: &Metrics) {
        let (stats, account) = self.account();
        // What the ledger calls lost went with a database; what a medium in memory abandons went with its process.
        metrics.set_account(&account, stats.abandoned, i128::from(stats.difference));
        metrics.buffer_bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        metrics.buffer_bytes_bound.set(i64::try_from(stats.bytes_bound).unwrap_or(i64::MAX));
        metrics.journal_lost_ends.set(i64::try_from(stats.lost_ends).unwrap_or(i64::MAX));
        if let Some(redis) = self.buffer.redis() {
            metrics.redis_bytes.set(i64::try_from(redis.bytes).unwrap_or(i64::MAX));
            for (before, bytes) in [("keep", redis.removed_early_bytes), ("relay", redis.removed_unrelayed_bytes)] {
                metrics.redis_removed_early.with_label_values(&[before]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            metrics.redis_uncopied.set(i64::try_from(redis.uncopied.unwrap_or(0)).unwrap_or(i64::MAX));
            metrics.redis_uncopied_dropped.set(i64::try_from(redis.uncopied_dropped_bytes.unwrap_or(0)).unwrap_or(i64::MAX));
        }
        let full_in = *lock(&self.measured.full_in);
        for (what, left) in [("journal", full_in.journal), ("disk", full_in.disk)] {
            metrics.full_in_seconds.with_label_values(&[what]).set(left.map_or(f64::INFINITY, |left| left.as_secs_f64()));
        }
        let host = lock(&self.measured.host).disk;
        metrics.disk_free.set(i64::try_from(host.total_bytes.saturating_sub(host.used_bytes)).unwrap_or(i64::MAX));
        if let Some((size, disk)) = (self.store_disk)() {
            let kinds = [
                ("all", Some(size)),
                ("readings", disk.readings_bytes),
                ("deliveries", disk.deliveries_bytes),
                ("ledger", disk.ledger_bytes),
                ("indexes", disk.index_bytes),
                ("free", disk.free_bytes),
                ("control", Some(disk.control_bytes)),
            ];
            for (kind, bytes) in kinds.into_iter().filter_map(|(kind, bytes)| Some((kind, bytes?))) {
                metrics.store_bytes.with_label_values(&[kind]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            metrics.store_partitions.set(disk.partitions as i64);
        }
        for actor in self.registry.statuses() {
            metrics.actor_mailbox_depth.with_label_values(&[actor.name]).set(actor.mailbox_depth as i64);
            let by = actor.restarts_by_reason;
            for (reason, restarts) in [("panic", by.panic), ("stop", by.stop), ("hang", by.hang), ("requested", by.requested)] {
                metrics.set_actor_restarts(actor.name, reason, restarts);
            }
        }
        for state in ["alive", "dead"] {
            metrics.instances.with_label_values(&[state]).set(self.instances.count(state) as i64);
        }
        for sink in (self.outbox)().sinks {
            metrics.outbox_backlog.with_label_values(&[&sink.name]).set(sink.backlog as i64);
            let state = match sink.state {
                "open" => CircuitState::Open,
                "half-open" => CircuitState::HalfOpen,
                _ => CircuitState::Closed,
            };
            CircuitIs { party: &sink.name, state, cause: "", now_us: self.clock.now_us() }.emit(metrics);
        }
    }

    /// Everything at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let config = self.config.load();
        let (stats, account) = self.account();
        Snapshot {
            now: rfc3339_us(self.clock.now_us()),
            version: env!("CARGO_PKG_VERSION"),
            started_at: rfc3339_us(self.started.0),
            readiness: self.readiness_with(&stats).as_str(),
            instance: instance(),
            demo: self.demo,
            system: self.system(&config),
            ingest: IngestView {
                accepted_total: account.accepted,
                rejected_total: self.metrics.rejected_total(),
                rate_per_s: round1(*lock(&self.measured.rate_per_s)),
                sources: self.sources.list().into_iter().map(source_view).collect(),
            },
            redis: self.buffer.redis(),
            store: self.store_view(),
            instances: self.instances.list(),
            recovery: RecoveryView::of(&self.recovery(&stats, &account)),
            circuits: self.metrics.circuits().into_iter().map(circuit_view).collect(),
            outbox: (self.outbox)(),
            actors: self.registry.statuses().into_iter().map(actor_view).collect(),
            engines: EnginesView {
                total: self.engines.len(),
                alarmed: self.engines.alarmed(),
                items: self.engines.views(ENGINES_SHOWN).into_iter().map(EngineItem::from_view).collect(),
            },
            alerts: (self.alerts)(),
            alert_counts: (self.alert_counts)(),
            inbox: self.inbox.as_ref().map(|look| look()),
            buffer: buffer_view(stats, account, *lock(&self.measured.full_in)),
        }
    }

    /// How recovery stands to its service levels.
    pub fn recovery(&self, stats: &BufferStats, account: &Account) -> Recovery {
        let config = self.config.load();
        Recovery::of(
            &config.recovery,
            config.buffer.flush_interval,
            stats,
            account,
            &self.health.view(),
            (self.outbox)().oldest_waiting_s,
        )
    }

    fn system(&self, config: &Config) -> SystemView {
        let host = *lock(&self.measured.host);
        let usage = |usage: super::Usage, limit| UsageView {
            percent: round1(usage.percent()),
            limit,
            used_bytes: usage.used_bytes,
            total_bytes: usage.total_bytes,
        };
        SystemView {
            cpu: CpuView { percent: round1(host.cpu_percent), limit: config.monitor.cpu_percent },
            memory: usage(host.memory, config.monitor.memory_percent),
            disk: usage(host.disk, config.monitor.disk_percent),
            process: ProcessView {
                rss_bytes: host.process.rss_bytes,
                private_bytes: host.process.private_bytes,
                uptime_s: self.started.1.elapsed().as_secs(),
            },
        }
    }

    fn store_view(&self) -> StoreView {
        let health = self.health.view();
        let (size_bytes, disk) = (self.store_disk)().unzip();
        let host = lock(&self.measured.host).disk;
        let full_in = lock(&self.measured.full_in).disk;
        StoreView {
            backend: self.store.backend().as_str(),
            state: if health.up { "up" } else { "down" },
            down_since: health.down_since_us.map(rfc3339_us),
            size_bytes,
            disk,
            disk_free_bytes: host.total_bytes.saturating_sub(host.used_bytes),
            disk_full_in_ms: full_in.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            weak: health.weak,
            integrity: (self.integrity)(),
        }
    }
}

/// An account after decisions of people.
fn shifted(account: &Account, by: &Delta) -> Account {
    let moved = |count: u64, by: i64| count.saturating_add_signed(by);
    Account {
        stored: moved(account.stored, by.stored),
        duplicate: moved(account.duplicate, by.duplicate),
        conflict: moved(account.conflict, by.conflict),
        dead: moved(account.dead, by.dead),
        discarded: moved(account.discarded, by.discarded),
        ..*account
    }
}

/// One digit is all that a bar shows, and it keeps the snapshot small.
fn round1(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The host's name.
pub fn instance() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "localhost".into(), |name| name.trim().to_owned())
}

fn circuit_view(circuit: crate::event::circuits::Circuit) -> CircuitView {
    CircuitView { party: circuit.party, state: circuit.state.as_str(), since: rfc3339_us(circuit.since_us) }
}

fn source_view(status: crate::ingest::board::SourceStatus) -> SourceView {
    SourceView { name: status.name, state: status.state, last_ok_at: status.last_ok_at_us.map(rfc3339_us), error: status.error }
}

fn actor_view(status: crate::supervise::ActorStatus) -> ActorView {
    ActorView {
        name: status.name,
        state: status.state,
        generation: status.generation,
        restarts: status.restarts,
        mailbox_depth: status.mailbox_depth,
        mailbox_bound: status.mailbox_bound,
        last_progress_ms: status.last_progress_ms,
    }
}

fn buffer_view(stats: BufferStats, account: Account, full_in: FullIn) -> BufferView {
    BufferView {
        tier: stats.tier,
        may_lose: stats.may_lose,
        may_lose_code: stats.may_lose_code,
        rows: stats.rows,
        rows_bound: stats.rows_bound,
        bytes: stats.bytes,
        bytes_bound: stats.bytes_bound,
        oldest_age_ms: stats.oldest_age_ms,
        lanes: stats.streams.len(),
        full_in_ms: full_in.journal.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        account,
        difference: stats.difference,
    }
}
