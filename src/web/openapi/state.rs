//! The snapshot that the page shows, as the description has it.

use utoipa::ToSchema;

use super::{AccountItem, AlertItem, Engines, InstanceItem, OutboxLook, RedisItem};

shapes! {
    /// Everything at one moment.
    StateAnswer {
        now: String,
        version: String,
        started_at: String,
        /// ready, buffering, starting, full, failing or stopping
        readiness: String,
        /// The host's name
        instance: String,
        demo: bool,
        system: SystemState,
        ingest: IngestState,
        buffer: BufferState,
        /// Where the tier has one
        redis: Option<RedisItem>,
        store: StoreState,
        instances: Vec<InstanceItem>,
        recovery: RecoveryState,
        circuits: Vec<CircuitState>,
        outbox: OutboxLook,
        actors: Vec<ActorState>,
        engines: Engines,
        /// Open ones and the newest that are over
        alerts: Vec<AlertItem>,
        alert_counts: AlertCounts,
        /// Demo only: what was caught, newest first
        inbox: Option<Vec<Caught>>,
    }
    /// Host and process.
    SystemState { cpu: CpuState, memory: UsageState, disk: UsageState, process: ProcessState, }
    /// All processors.
    CpuState { percent: f64, limit: f64, }
    /// Memory or disk.
    UsageState { percent: f64, limit: f64, used_bytes: u64, total_bytes: u64, }
    /// The daemon.
    ProcessState { rss_bytes: u64, private_bytes: u64, uptime_s: u64, }
    /// The way in.
    IngestState { accepted_total: u64, rejected_total: u64, rate_per_s: f64, sources: Vec<SourceState>, }
    /// A polled source.
    SourceState { name: String, /// ok, failing or starting
        state: String, last_ok_at: Option<String>, error: Option<String>, }
    /// The buffer.
    BufferState {
        tier: String,
        may_lose: String,
        may_lose_code: String,
        rows: u64,
        rows_bound: Option<u64>,
        bytes: u64,
        bytes_bound: u64,
        oldest_age_ms: u64,
        lanes: u64,
        /// Null where it does not grow
        full_in_ms: Option<u64>,
        account: AccountItem,
        difference: i64,
    }
    /// The database.
    StoreState {
        /// sqlite or postgres
        backend: String,
        /// up or down
        state: String,
        down_since: Option<String>,
        size_bytes: Option<u64>,
        /// Null before the first statistics
        disk: Option<StoreDiskState>,
        disk_free_bytes: u64,
        disk_full_in_ms: Option<u64>,
        /// Why a commit may be lost in a crash of the server
        weak: Option<String>,
        /// Null before the first check
        integrity: Option<IntegrityState>,
    }
    /// What takes how much of the disk.
    StoreDiskState {
        readings_bytes: Option<u64>,
        deliveries_bytes: Option<u64>,
        ledger_bytes: Option<u64>,
        index_bytes: Option<u64>,
        free_bytes: Option<u64>,
        control_bytes: u64,
        partitions: u64,
        oldest_reading_at: Option<String>,
    }
    /// What the last whole integrity check found.
    IntegrityState { ended_at: String, rows: u64, faults: u64, }
    /// How recovery stands to its service levels, seconds and percent.
    RecoveryState {
        outbox_s: f64,
        outbox_within_s: f64,
        buffer_s: f64,
        buffer_within_s: f64,
        running_s: f64,
        within_s: f64,
        last_s: Option<f64>,
        success_percent: f64,
        success_level: f64,
    }
    /// The circuit breaker of an outside party.
    CircuitState { party: String, /// closed, open or half-open
        state: String, since: String, }
    /// One actor.
    ActorState {
        name: String,
        /// starting, running, backoff, stalled or stopped
        state: String,
        generation: u64,
        restarts: u64,
        mailbox_depth: u64,
        mailbox_bound: u64,
        last_progress_ms: u64,
    }
    /// How many alerts there are.
    AlertCounts { open: u64, critical: u64, warning: u64, info: u64, resolved: u64, resolved_more: bool, }
    /// One message that the demo caught.
    Caught { at: String, /// webhook, mail or chat
        via: String, title: String, body: String, }
}
