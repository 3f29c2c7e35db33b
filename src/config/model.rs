//! The configuration as typed values. What each key means, its default and its range stand in `keys.rs`, from which the
//! example and the reference are printed; this file only gives them types.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::alerts::{AlertsConfig, DeadmanConfig, RouteConfig};
use super::sinks::{BotConfig, ChatConfig, SmtpConfig, TemplatesConfig, WebhookConfig};
pub use super::{
    messages::{LimitsConfig, MessagesConfig},
    retention::RetentionConfig,
};
use crate::domain::{anomaly::AnomalyRule, breaker::BreakerSettings, rule::Rule};

/// Everything that `belayd.toml`, the environment and the flags can say.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The HTTP surface and the data directory.
    pub server: ServerConfig,
    /// The database.
    pub store: StoreConfig,
    /// The buffer between ingest and the database.
    pub buffer: BufferConfig,
    /// The Redis of tier redis.
    pub redis: RedisConfig,
    /// What a reading may look like.
    pub readings: ReadingsConfig,
    /// Sources that are polled.
    pub sources: Vec<SourceConfig>,
    /// Threshold rules.
    pub rules: Vec<Rule>,
    /// Anomaly rules.
    pub anomaly_rules: Vec<AnomalyRule>,
    /// Mail, where there is a server.
    pub smtp: Option<SmtpConfig>,
    /// Slack, where there is a webhook of it.
    pub slack: Option<ChatConfig>,
    /// Discord, where there is a webhook of it.
    pub discord: Option<ChatConfig>,
    /// Receivers of webhooks.
    pub webhooks: Vec<WebhookConfig>,
    /// Chat bots.
    pub bots: Vec<BotConfig>,
    /// The texts of mails and chats.
    pub templates: TemplatesConfig,
    /// Which alert goes where.
    pub routes: Vec<RouteConfig>,
    /// Messages to people.
    pub messages: MessagesConfig,
    /// How much a caller may ask.
    pub limits: LimitsConfig,
    /// What holds for all alerts.
    pub alerts: AlertsConfig,
    /// The ping to an outside address that says that belayd works, where there is one.
    pub deadman: Option<DeadmanConfig>,
    /// The outbox.
    pub outbox: OutboxConfig,
    /// The relay to Kafka, where there is one.
    pub kafka: Option<KafkaConfig>,
    /// How long things are kept.
    pub retention: RetentionConfig,
    /// Periodic duties.
    pub schedule: ScheduleConfig,
    /// Thresholds of host and daemon.
    pub monitor: MonitorConfig,
    /// Service levels of recovery.
    pub recovery: RecoveryConfig,
    /// Restart policy of the actors.
    pub supervision: SupervisionConfig,
    /// The log.
    pub log: LogConfig,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Where the HTTP surface listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Control store, journal, control socket; mode 0700.
    pub data_dir: PathBuf,
    /// Accepted Host headers, without port.
    pub hosts: Vec<String>,
    /// PEM certificate chain; with `tls_key` it serves HTTPS.
    pub tls_cert: Option<PathBuf>,
    /// PEM private key.
    pub tls_key: Option<PathBuf>,
    /// Addresses of reverse proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub behind_proxy: Vec<IpAddr>,
    /// Whether `/metrics` needs no token.
    pub metrics_open: bool,
    /// HTTP worker threads.
    pub workers: usize,
    /// Most connections at once; further ones wait in the listen queue.
    pub max_connections: usize,
    /// How long a client may take to send its headers, and to send each part of its body.
    pub client_timeout: Duration,
    /// How long a sign-in lasts.
    pub session_lifetime: Duration,
    /// Most live pages and log tails at once.
    pub max_streams: usize,
    /// How long an orderly stop may take altogether.
    pub stop_timeout: Duration,
}

/// `[store]`
#[derive(Clone, PartialEq)]
pub struct StoreConfig {
    /// `sqlite://PATH` or `postgres://…`, secrets resolved and relative paths made absolute. Never logged: see `redacted_url`.
    pub url: String,
    /// Connections for queries beside the one that drains.
    pub pool_size: u32,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long one statement may take (PostgreSQL).
    pub statement_timeout: Duration,
    /// Its circuit breaker.
    pub breaker: BreakerSettings,
}

/// Where accepted readings wait for the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In memory: fast, and lost if the process dies.
    Memory,
    /// In files of the data directory, synced before anything is acknowledged.
    Journal,
    /// In Redis, and in the journal while it is away.
    Redis,
    /// In the journal and the database, with a copy in Redis.
    Triple,
}

impl Tier {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Journal => "journal",
            Self::Redis => "redis",
            Self::Triple => "triple",
        }
    }

    /// Whether `[redis]` is used.
    pub fn uses_redis(self) -> bool {
        matches!(self, Self::Redis | Self::Triple)
    }
}

/// `[buffer]`
#[derive(Clone, Debug, PartialEq)]
pub struct BufferConfig {
    /// The medium.
    pub tier: Tier,
    /// Rows a batch when the load is light; it grows by itself while catching up.
    pub batch_rows: u32,
    /// Longest wait before rows are written, however few.
    pub flush_interval: Duration,
    /// Most readings in memory; the first bound that is hit wins.
    pub memory_rows: u32,
    /// Most bytes in memory.
    pub memory_bytes: u64,
    /// Most bytes of journal on disk, read or not (tier journal).
    pub journal_bytes: u64,
    /// Numbered sequences in the journal, 1 to 8, each with a database connection of its own (tier journal); where the file does
    /// not say, as many as the database takes at once.
    pub streams: usize,
    /// Longest wait for the ack level that a sender asked for.
    pub ack_timeout: Duration,
    /// Most bytes of request bodies being read and parsed at once; beyond that 429.
    pub admission_bytes: u64,
    /// Most readings a second that are let in by push; beyond that 429. `None`: no limit.
    pub readings_per_s: Option<u32>,
}

/// `[redis]`
#[derive(Clone, PartialEq)]
pub struct RedisConfig {
    /// The server, where it is no cluster; secret.
    pub url: Option<String>,
    /// Nodes of the cluster; secret.
    pub cluster: Vec<String>,
    /// What the names of keys begin with.
    pub prefix: String,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// How long settled readings stay there.
    pub keep: Duration,
    /// Most bytes of readings there, about.
    pub stream_bytes: u64,
    /// Replicas that must have a batch.
    pub replicas: u32,
    /// Its circuit breaker.
    pub breaker: BreakerSettings,
}

impl RedisConfig {
    /// Where Redis is: URLs, and whether they name a cluster.
    pub fn urls(&self) -> (Vec<String>, bool) {
        if self.cluster.is_empty() {
            (vec![self.url.clone().unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned())], false)
        } else {
            (self.cluster.clone(), true)
        }
    }
}

/// `[readings]`
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingsConfig {
    /// How far ahead of now a timestamp may lie.
    pub max_ahead: Duration,
    /// How far behind now a timestamp may lie; never beyond `retention.readings`.
    pub max_behind: Duration,
    /// Lowest and highest accepted value by metric (SQL name); a value outside is refused.
    pub ranges: BTreeMap<String, (f64, f64)>,
    /// Most engines whose latest reading and rule state are kept in memory; beyond that the one quiet for longest is dropped.
    pub max_engines: usize,
}

/// One of `[[sources]]`
#[derive(Clone, PartialEq)]
pub struct SourceConfig {
    /// Unique among the sources.
    pub name: String,
    /// `http(s)://…`; `{after}` in it is replaced by the last `X-Next` header.
    pub url: String,
    /// From one poll to the next.
    pub interval: Duration,
    /// For one whole answer.
    pub timeout: Duration,
    /// Extra request headers.
    pub headers: BTreeMap<String, String>,
    /// PEM file of a further certificate authority.
    pub ca: Option<PathBuf>,
    /// The source's field name by reading field, for example `temperature = "egt"`.
    pub fields: BTreeMap<String, String>,
    /// Whether link-local and metadata addresses may be asked.
    pub allow_link_local: bool,
    /// Its circuit breaker.
    pub breaker: BreakerSettings,
}

/// What happens to a delivery whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// Sent again, marked as a possible repeat.
    Resend,
    /// Left for a person.
    Review,
}

/// `[outbox]`
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxConfig {
    /// Longest time between looks for due deliveries; a new one wakes the outbox at once.
    pub poll_interval: Duration,
    /// How long a claim lasts before another worker may take over.
    pub lease: Duration,
    /// Attempts before a delivery is dead.
    pub max_attempts: u32,
    /// First wait before a retry; it doubles, with jitter.
    pub retry_base: Duration,
    /// Longest wait before a retry.
    pub retry_max: Duration,
    /// Sends at once for each sink.
    pub concurrency: usize,
}

/// How Kafka's brokers are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaSecurity {
    /// In the clear, without a name.
    Plaintext,
    /// TLS, without a name or with a certificate.
    Ssl,
    /// In the clear, signed in.
    SaslPlaintext,
    /// TLS, signed in.
    SaslSsl,
}

impl KafkaSecurity {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Plaintext, Self::Ssl, Self::SaslPlaintext, Self::SaslSsl];

    /// The word in the configuration, which is Kafka's own in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }
}

/// `[kafka]`
#[derive(Clone, PartialEq)]
pub struct KafkaConfig {
    /// `HOST:PORT`, separated by commas.
    pub brokers: String,
    /// Where readings go.
    pub topic: String,
    /// Whether a missing topic is made.
    pub create_topic: bool,
    /// Partitions of a topic that is made.
    pub partitions: u32,
    /// Copies of each partition of a topic that is made; `None` for the broker's default.
    pub replication: Option<u32>,
    /// For each step of a transaction.
    pub timeout: Duration,
    /// How brokers are spoken to.
    pub security: KafkaSecurity,
    /// The SASL mechanism, in Kafka's spelling.
    pub mechanism: String,
    /// Who signs in.
    pub username: Option<String>,
    /// Never logged.
    pub password: Option<String>,
    /// PEM file of authorities.
    pub ca: Option<PathBuf>,
    /// PEM certificate of belayd.
    pub cert: Option<PathBuf>,
    /// PEM private key of it.
    pub key: Option<PathBuf>,
    /// Its circuit breaker.
    pub breaker: BreakerSettings,
}

/// `[schedule]`
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// Time of day (UTC) of the daily clean-up, minutes after midnight.
    pub cleanup_at_min: u32,
    /// From one run of the integrity check to the next.
    pub integrity_interval: Duration,
    /// From one retention pass to the next.
    pub retention_interval: Duration,
    /// From one statistics pass to the next.
    pub statistics_interval: Duration,
}

/// `[monitor]`
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorConfig {
    /// From one look to the next.
    pub interval: Duration,
    /// CPU of the host above which a WARNING is raised, percent.
    pub cpu_percent: f64,
    /// Memory of the host above which a CRITICAL is raised, percent.
    pub memory_percent: f64,
    /// Disk of the data directory above which a WARNING is raised, percent.
    pub disk_percent: f64,
}

/// `[recovery]`
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryConfig {
    /// Within what time a due delivery is taken up.
    pub outbox_within: Duration,
    /// How often readings that wait are tried with the database, at least.
    pub buffer_within: Duration,
    /// Within what time of the database's return everything is stored.
    pub within: Duration,
    /// Share of settled readings that are stored, percent.
    pub success_percent: f64,
}

/// `[supervision]`
#[derive(Clone, Debug, PartialEq)]
pub struct SupervisionConfig {
    /// Restarts of one actor within `within` that end the process.
    pub max_restarts: u32,
    /// The window of `max_restarts`.
    pub within: Duration,
    /// First wait before a restart; it doubles, with jitter.
    pub backoff_base: Duration,
    /// Longest wait before a restart.
    pub backoff_max: Duration,
    /// Health that resets the wait to the first.
    pub healthy_after: Duration,
    /// Silence after which an actor counts as hung: restarted where its thread still turns, else the watchdog goes silent.
    pub hang_after: Duration,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `time=… level=… target=… msg="…" key=value`
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// A level, or filter directives such as `info,belayd::outbox=debug`.
    pub level: String,
    /// A file instead of stderr.
    pub file: Option<PathBuf>,
    /// Size at which the file is rotated, bytes.
    pub rotate_bytes: u64,
    /// Rotated files kept.
    pub keep_files: u32,
}
