//! The snapshot: what the page shows, once a second, in the form of the stream's `state` event.

use serde::Serialize;

use crate::{
    alert::AlertTally,
    buffer::Account,
    domain::alert::{Alert, Level},
    ingest::board::SourceState,
    supervise::ActorState,
};

/// Everything at one moment.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// RFC 3339.
    pub now: String,
    /// Of belayd.
    pub version: &'static str,
    /// RFC 3339.
    pub started_at: String,
    /// `ready`, `buffering`, `starting`, `full`, `failing` or `stopping`.
    pub readiness: &'static str,
    /// The host's name.
    pub instance: String,
    /// Whether this is `belayd demo`.
    pub demo: bool,
    /// Host and process.
    pub system: SystemView,
    /// The way in.
    pub ingest: IngestView,
    /// The buffer.
    pub buffer: BufferView,
    /// Redis, where the tier has one.
    pub redis: Option<crate::buffer::redis::RedisView>,
    /// The database.
    pub store: StoreView,
    /// The instances that use the same database, this one first.
    pub instances: Vec<super::InstanceView>,
    /// How recovery stands to its service levels.
    pub recovery: super::RecoveryView,
    /// The circuit breakers of the outside parties.
    pub circuits: Vec<CircuitView>,
    /// The outbox.
    pub outbox: OutboxView,
    /// The actors.
    pub actors: Vec<ActorView>,
    /// The engines.
    pub engines: EnginesView,
    /// Open alerts and the newest resolved ones, at most 100.
    pub alerts: Vec<Alert>,
    /// How many there are in all.
    pub alert_counts: AlertTally,
    /// Demo only: what the catcher caught, newest first.
    pub inbox: Option<Vec<InboxItem>>,
}

/// Host and process.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemView {
    /// All processors.
    pub cpu: CpuView,
    /// Main memory.
    pub memory: UsageView,
    /// The file system of the data directory.
    pub disk: UsageView,
    /// The daemon.
    pub process: ProcessView,
}

/// All processors.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CpuView {
    /// Busy share, 0 to 100.
    pub percent: f64,
    /// Above this an alert is raised.
    pub limit: f64,
}

/// Memory or disk.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageView {
    /// Used share, 0 to 100.
    pub percent: f64,
    /// Above this an alert is raised.
    pub limit: f64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

/// The daemon.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Private memory, bytes.
    pub private_bytes: u64,
    /// Seconds since the start.
    #[serde(rename = "uptimeS")]
    pub uptime_s: u64,
}

/// The way in.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngestView {
    /// Readings accepted, over all streams.
    pub accepted_total: u64,
    /// Readings refused since the start.
    pub rejected_total: u64,
    /// Readings accepted a second, over the last few seconds.
    pub rate_per_s: f64,
    /// Polled sources.
    pub sources: Vec<SourceView>,
}

/// A polled source.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// As configured.
    pub name: String,
    /// `ok`, `failing` or `starting`.
    pub state: SourceState,
    /// RFC 3339.
    pub last_ok_at: Option<String>,
    /// Why the last poll failed.
    pub error: Option<String>,
}

/// The buffer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BufferView {
    /// The medium.
    pub tier: &'static str,
    /// What a crash may lose, in words.
    pub may_lose: &'static str,
    /// The same as a word, for translations.
    pub may_lose_code: &'static str,
    /// Readings waiting.
    pub rows: u64,
    /// Most readings that may wait.
    pub rows_bound: Option<u64>,
    /// Bytes waiting.
    pub bytes: u64,
    /// Most bytes that may wait.
    pub bytes_bound: u64,
    /// Milliseconds.
    pub oldest_age_ms: u64,
    /// Streams being written, each drained by a connection of its own.
    pub lanes: usize,
    /// When the journal is full at the rate of the last minutes, milliseconds; null where it does not grow.
    pub full_in_ms: Option<u64>,
    /// Over all streams.
    pub account: Account,
    /// 0 unless a reading vanished or was made up.
    pub difference: i64,
}

/// The database.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreView {
    /// `sqlite` or `postgres`.
    pub backend: &'static str,
    /// `up` or `down`.
    pub state: &'static str,
    /// RFC 3339.
    pub down_since: Option<String>,
    /// Size, where it is known.
    pub size_bytes: Option<u64>,
    /// What takes how much, as of the last statistics; null before the first.
    pub disk: Option<StoreDisk>,
    /// Free bytes of the data directory's file system.
    pub disk_free_bytes: u64,
    /// When that is full at the rate of the last minutes, milliseconds; null where it does not fill.
    pub disk_full_in_ms: Option<u64>,
    /// Why a commit may be lost in a crash of the server; null where a commit is durable.
    pub weak: Option<String>,
    /// The last whole integrity check since the start.
    pub integrity: Option<IntegrityView>,
}

/// What takes how much of the disk, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreDisk {
    /// Readings; null, as the next three, where SQLite's file is too large to look through.
    pub readings_bytes: Option<u64>,
    /// Deliveries.
    pub deliveries_bytes: Option<u64>,
    /// The ledger.
    pub ledger_bytes: Option<u64>,
    /// Indexes.
    pub index_bytes: Option<u64>,
    /// Room within SQLite's file; null on PostgreSQL.
    pub free_bytes: Option<u64>,
    /// The control store.
    pub control_bytes: u64,
    /// Partitions of readings; 0 on SQLite.
    pub partitions: u64,
    /// When the oldest reading was observed, RFC 3339.
    pub oldest_reading_at: Option<String>,
}

/// What the last whole integrity check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntegrityView {
    /// RFC 3339.
    pub ended_at: String,
    /// Readings compared.
    pub rows: u64,
    /// Readings missing, stored twice, and faults of the ledger, together.
    pub faults: u64,
}

/// The outbox: deliveries by state.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxView {
    /// Not due yet.
    pub scheduled: u64,
    /// Due.
    pub ready: u64,
    /// Held under a lease.
    pub claimed: u64,
    /// On their way.
    pub sending: u64,
    /// Failed for now.
    pub retry: u64,
    /// Waiting for a person: the outcome is unknown.
    pub uncertain: u64,
    /// Waiting for a person: they cannot succeed.
    pub dead: u64,
    /// Confirmed by their receivers and not pruned yet.
    pub sent_total: u64,
    /// Of the oldest due one, seconds.
    #[serde(rename = "oldestAgeS")]
    pub oldest_age_s: f64,
    /// Of the oldest due one that nobody has taken up, seconds.
    #[serde(rename = "oldestWaitingS")]
    pub oldest_waiting_s: f64,
    /// By sink.
    pub sinks: Vec<SinkView>,
}

/// The circuit breaker of an outside party.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CircuitView {
    /// `database`, `redis`, `kafka`, `source/NAME`, or a sink's name.
    pub party: String,
    /// `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// RFC 3339.
    pub since: String,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkView {
    /// As configured.
    pub name: String,
    /// Its circuit breaker: `closed`, `open` or `half-open`.
    pub state: &'static str,
    /// Due or in the works.
    pub backlog: u64,
    /// Being sent.
    pub in_flight: usize,
}

/// One actor.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActorView {
    /// For example `IngestActor`.
    pub name: &'static str,
    /// What it is doing.
    pub state: ActorState,
    /// How often it has begun a fresh life.
    pub generation: u64,
    /// Restarts for any reason.
    pub restarts: u64,
    /// Messages that wait.
    pub mailbox_depth: usize,
    /// Most messages that may wait.
    pub mailbox_bound: usize,
    /// Milliseconds since it last handled a message.
    pub last_progress_ms: u64,
}

/// The engines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EnginesView {
    /// How many are known.
    pub total: usize,
    /// How many of them have an alert.
    pub alarmed: usize,
    /// The worst alarm first; at most 200.
    pub items: Vec<EngineItem>,
}

/// One engine.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineItem {
    /// Its id.
    pub engine_id: String,
    /// RFC 3339.
    pub observed_at: String,
    /// As sent.
    pub status: Option<String>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Revolutions a minute.
    pub rpm: Option<f64>,
    /// Unit of the source.
    pub pressure: Option<f64>,
    /// Unit of the source.
    pub fuel_flow: Option<f64>,
    /// The highest level among its open alerts.
    pub alarm: Option<Level>,
    /// The last samples.
    pub trend: TrendView,
}

/// The last samples, oldest first; null where the reading lacked the metric.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TrendView {
    /// Degrees Celsius.
    pub temperature: Vec<Option<f32>>,
    /// Revolutions a minute.
    pub rpm: Vec<Option<f32>>,
}

/// One message that the demo's catcher caught.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InboxItem {
    /// RFC 3339.
    pub at: String,
    /// `webhook`, `mail` or `chat`.
    pub via: String,
    /// One line.
    pub title: String,
    /// The rest.
    pub body: String,
}

impl EngineItem {
    /// From the engine table's row.
    pub fn from_view(view: crate::ingest::engines::EngineView) -> Self {
        Self {
            engine_id: view.engine_id,
            observed_at: crate::domain::time::rfc3339_us(view.observed_at_us),
            status: view.status,
            temperature: view.temperature,
            rpm: view.rpm,
            pressure: view.pressure,
            fuel_flow: view.fuel_flow,
            alarm: view.alarm,
            trend: TrendView { temperature: view.trend_temperature, rpm: view.trend_rpm },
        }
    }
}
