//! From resolved tables to the typed [`Config`]. Everything was checked before: what is missing here is a fault of the table of
//! keys, and is said so rather than made a panic.

mod alerts;
mod sinks;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    model::*,
    relations::is_anomaly,
    resolve::{Entry, Resolved},
    texts::metric_name,
    value::Value,
};
use crate::domain::{anomaly::AnomalyRule, breaker::BreakerSettings, rule::Rule};

/// How far behind a timestamp may lie unless the file says otherwise: 10 years.
const MAX_BEHIND_DEFAULT: Duration = Duration::from_secs(3_650 * 86_400);

/// How long idempotency keys are kept unless the file says otherwise: a day, in which every sensible repeat has come.
const IDEMPOTENCY_KEYS_DEFAULT: Duration = Duration::from_secs(86_400);

/// Streams of the journal unless the file says otherwise: SQLite has one writer, PostgreSQL keeps two connections busy.
const STREAMS_SQLITE: usize = 1;
const STREAMS_POSTGRES: usize = 2;

/// The path of the key that has no value.
type Missing = String;

/// A type that a [`Value`] can become.
trait Take: Sized {
    fn take(value: &Value) -> Option<Self>;
}

macro_rules! take {
    ($($type:ty: $pattern:pat => $result:expr;)+) => {
        $(impl Take for $type {
            fn take(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $result,
                    _ => None,
                }
            }
        })+
    };
}

take! {
    bool: Value::Bool(flag) => Some(*flag);
    u16: Value::Int(number) => u16::try_from(*number).ok();
    u32: Value::Int(number) => u32::try_from(*number).ok();
    usize: Value::Int(number) => usize::try_from(*number).ok();
    f64: Value::Float(number) => Some(*number);
    Duration: Value::Duration(duration) => Some(*duration);
    u64: Value::Size(bytes) => Some(*bytes);
    String: Value::Text(text) => Some(text.clone());
    PathBuf: Value::Path(path) => Some(path.clone());
    SocketAddr: Value::Socket(socket) => Some(*socket);
    Vec<String>: Value::Texts(texts) => Some(texts.clone());
    Vec<IpAddr>: Value::Addresses(addresses) => Some(addresses.clone());
    BTreeMap<String, String>: Value::Map(map) => Some(map.clone());
    BTreeMap<String, (f64, f64)>: Value::Ranges(ranges) => Some(ranges.clone());
}

impl Entry {
    fn get<T: Take>(&self, key: &str) -> Result<T, Missing> {
        self.option(key).ok_or_else(|| self.key_path(key))
    }

    fn option<T: Take>(&self, key: &str) -> Option<T> {
        self.value(key).and_then(T::take)
    }

    fn parsed<T: std::str::FromStr>(&self, key: &str) -> Result<T, Missing> {
        self.get::<String>(key)?.parse().map_err(|_| self.key_path(key))
    }
}

/// Makes the configuration of resolved tables without faults.
pub(super) fn assemble(resolved: &Resolved, own_texts: BTreeMap<String, String>) -> Result<Config, Missing> {
    let one = |name: &str| resolved.one(name).ok_or_else(|| name.to_owned());
    let server = server(one("server")?)?;
    let retention = retention(one("retention")?)?;
    let store = store(one("store")?, &server)?;
    let mut config = Config {
        buffer: buffer(one("buffer")?, &store)?,
        store,
        redis: redis(one("redis")?)?,
        readings: readings(one("readings")?, &retention)?,
        sources: resolved.entries("sources").map(source).collect::<Result<_, _>>()?,
        rules: resolved.entries("rules").filter(|e| !is_anomaly(e)).map(rule).collect::<Result<_, _>>()?,
        anomaly_rules: resolved.entries("rules").filter(|e| is_anomaly(e)).map(anomaly_rule).collect::<Result<_, _>>()?,
        messages: messages(one("messages")?)?,
        limits: limits(one("limits")?)?,
        alerts: alerts::alerts(one("alerts")?)?,
        deadman: alerts::deadman(one("deadman")?)?,
        outbox: outbox(one("outbox")?)?,
        kafka: kafka(one("kafka")?)?,
        schedule: schedule(one("schedule")?)?,
        monitor: monitor(one("monitor")?)?,
        recovery: recovery(one("recovery")?)?,
        supervision: supervision(one("supervision")?)?,
        log: log(one("log")?)?,
        server,
        retention,
        smtp: sinks::smtp(one("smtp")?)?,
        slack: sinks::chat(one("slack")?)?,
        discord: sinks::chat(one("discord")?)?,
        webhooks: resolved.entries("webhooks").map(sinks::webhook).collect::<Result<_, _>>()?,
        bots: resolved.entries("bots").map(sinks::bot).collect::<Result<_, _>>()?,
        templates: sinks::templates(one("templates")?, own_texts)?,
        routes: resolved.entries("routes").map(alerts::route).collect::<Result<_, _>>()?,
    };
    if config.routes.is_empty() {
        config.routes.push(sinks::everything_everywhere(&config));
    }
    Ok(config)
}

fn server(e: &Entry) -> Result<ServerConfig, Missing> {
    Ok(ServerConfig {
        listen: e.get("listen")?,
        data_dir: e.get("data_dir")?,
        hosts: e.get("hosts")?,
        tls_cert: e.option("tls_cert"),
        tls_key: e.option("tls_key"),
        behind_proxy: e.get("behind_proxy")?,
        metrics_open: e.get("metrics_open")?,
        workers: e.get("workers")?,
        max_connections: e.get("max_connections")?,
        client_timeout: e.get("client_timeout")?,
        session_lifetime: e.get("session_lifetime")?,
        max_streams: e.get("max_streams")?,
        stop_timeout: e.get("stop_timeout")?,
    })
}

fn store(e: &Entry, server: &ServerConfig) -> Result<StoreConfig, Missing> {
    let url = e.option("url").unwrap_or_else(|| format!("sqlite://{}", server.data_dir.join("belayd.db").display()));
    Ok(StoreConfig {
        url,
        pool_size: e.get("pool_size")?,
        connect_timeout: e.get("connect_timeout")?,
        statement_timeout: e.get("statement_timeout")?,
        breaker: breaker(e)?,
    })
}

fn breaker(e: &Entry) -> Result<BreakerSettings, Missing> {
    let open_base = e.get("breaker_pause")?;
    let open_max = e.get::<Duration>("breaker_pause_max")?.max(open_base);
    Ok(BreakerSettings { failures_max: e.get("breaker_failures")?, open_base, open_max })
}

fn recovery(e: &Entry) -> Result<RecoveryConfig, Missing> {
    Ok(RecoveryConfig {
        outbox_within: e.get("outbox_within")?,
        buffer_within: e.get("buffer_within")?,
        within: e.get("within")?,
        success_percent: e.get("success_percent")?,
    })
}

fn buffer(e: &Entry, store: &StoreConfig) -> Result<BufferConfig, Missing> {
    let streams = if store.url.starts_with("sqlite:") { STREAMS_SQLITE } else { STREAMS_POSTGRES };
    Ok(BufferConfig {
        tier: match e.get::<String>("tier")?.as_str() {
            "memory" => Tier::Memory,
            "redis" => Tier::Redis,
            "triple" => Tier::Triple,
            _ => Tier::Journal,
        },
        batch_rows: e.get("batch_rows")?,
        flush_interval: e.get("flush_interval")?,
        memory_rows: e.get("memory_rows")?,
        memory_bytes: e.get("memory_bytes")?,
        journal_bytes: e.get("journal_bytes")?,
        streams: e.option("streams").unwrap_or(streams),
        ack_timeout: e.get("ack_timeout")?,
        admission_bytes: e.get("admission_bytes")?,
        readings_per_s: e.option("readings_per_s"),
    })
}

fn redis(e: &Entry) -> Result<RedisConfig, Missing> {
    Ok(RedisConfig {
        url: e.option("url"),
        cluster: e.option("cluster").unwrap_or_default(),
        prefix: e.get("prefix")?,
        timeout: e.get("timeout")?,
        keep: e.get("keep")?,
        stream_bytes: e.get("stream_bytes")?,
        replicas: e.get("replicas")?,
        breaker: breaker(e)?,
    })
}

fn readings(e: &Entry, retention: &RetentionConfig) -> Result<ReadingsConfig, Missing> {
    Ok(ReadingsConfig {
        max_ahead: e.get("max_ahead")?,
        max_behind: e.option("max_behind").unwrap_or(MAX_BEHIND_DEFAULT.min(retention.readings)),
        ranges: e.option("ranges").unwrap_or_default(),
        max_engines: e.get("max_engines")?,
    })
}

fn source(e: &Entry) -> Result<SourceConfig, Missing> {
    Ok(SourceConfig {
        name: e.get("name")?,
        url: e.get("url")?,
        interval: e.get("interval")?,
        timeout: e.get("timeout")?,
        headers: e.option("headers").unwrap_or_default(),
        ca: e.option("ca"),
        fields: e.option("fields").unwrap_or_default(),
        allow_link_local: e.get("allow_link_local")?,
        breaker: breaker(e)?,
    })
}

fn rule(e: &Entry) -> Result<Rule, Missing> {
    let lasts: Duration = e.get("for")?;
    Ok(Rule {
        name: e.get("name")?,
        metric: e.get("metric")?,
        op: e.parsed("op")?,
        threshold: e.get("threshold")?,
        clear: e.option("clear"),
        for_us: i64::try_from(lasts.as_micros()).map_err(|_| e.key_path("for"))?,
        level: e.parsed("level")?,
        labels: e.option("labels").unwrap_or_default(),
    })
}

fn anomaly_rule(e: &Entry) -> Result<AnomalyRule, Missing> {
    let mut metrics: Vec<String> = e.option("metrics").unwrap_or_default();
    metrics.extend(e.option::<String>("metric"));
    let mut metrics: Vec<String> = metrics.iter().filter_map(|name| metric_name(name)).collect();
    metrics.sort_unstable();
    metrics.dedup();
    Ok(AnomalyRule {
        name: e.get("name")?,
        metrics,
        sensitivity: e.get("sensitivity")?,
        warm_up: e.get("warm_up")?,
        level: e.parsed("level")?,
        labels: e.option("labels").unwrap_or_default(),
    })
}

fn outbox(e: &Entry) -> Result<OutboxConfig, Missing> {
    Ok(OutboxConfig {
        poll_interval: e.get("poll_interval")?,
        lease: e.get("lease")?,
        max_attempts: e.get("max_attempts")?,
        retry_base: e.get("retry_base")?,
        retry_max: e.get("retry_max")?,
        concurrency: e.get("concurrency")?,
    })
}

fn messages(e: &Entry) -> Result<MessagesConfig, Missing> {
    Ok(MessagesConfig { on_unknown: on_unknown(e)? })
}

fn limits(e: &Entry) -> Result<LimitsConfig, Missing> {
    Ok(LimitsConfig { messages_per_minute: e.get("messages_per_minute")?, requests_per_minute: e.get("requests_per_minute")? })
}

fn on_unknown(e: &Entry) -> Result<OnUnknown, Missing> {
    Ok(if e.get::<String>("on_unknown")? == "review" { OnUnknown::Review } else { OnUnknown::Resend })
}

fn kafka(e: &Entry) -> Result<Option<KafkaConfig>, Missing> {
    let Some(brokers) = e.option("brokers") else { return Ok(None) };
    let security: String = e.get("security")?;
    Ok(Some(KafkaConfig {
        brokers,
        topic: e.get("topic")?,
        create_topic: e.get("create_topic")?,
        partitions: e.get("partitions")?,
        replication: e.option("replication"),
        timeout: e.get("timeout")?,
        security: KafkaSecurity::ALL.into_iter().find(|way| way.as_str() == security).ok_or_else(|| e.key_path("security"))?,
        mechanism: e.get("mechanism")?,
        username: e.option("username"),
        password: e.option("password"),
        ca: e.option("ca"),
        cert: e.option("cert"),
        key: e.option("key"),
        breaker: breaker(e)?,
    }))
}

fn retention(e: &Entry) -> Result<RetentionConfig, Missing> {
    let deliveries = e.get("deliveries")?;
    Ok(RetentionConfig {
        readings: e.get("readings")?,
        deliveries,
        idempotency_keys: e.option("idempotency_keys").unwrap_or(IDEMPOTENCY_KEYS_DEFAULT.min(deliveries)),
        ledger: e.get("ledger")?,
        alerts: e.get("alerts")?,
        audit: e.get("audit")?,
        issues: e.get("issues")?,
    })
}

fn schedule(e: &Entry) -> Result<ScheduleConfig, Missing> {
    Ok(ScheduleConfig {
        cleanup_at_min: e.get("cleanup_at")?,
        integrity_interval: e.get("integrity_interval")?,
        retention_interval: e.get("retention_interval")?,
        statistics_interval: e.get("statistics_interval")?,
    })
}

fn monitor(e: &Entry) -> Result<MonitorConfig, Missing> {
    Ok(MonitorConfig {
        interval: e.get("interval")?,
        cpu_percent: e.get("cpu_percent")?,
        memory_percent: e.get("memory_percent")?,
        disk_percent: e.get("disk_percent")?,
    })
}

fn supervision(e: &Entry) -> Result<SupervisionConfig, Missing> {
    Ok(SupervisionConfig {
        max_restarts: e.get("max_restarts")?,
        within: e.get("within")?,
        backoff_base: e.get("backoff_base")?,
        backoff_max: e.get("backoff_max")?,
        healthy_after: e.get("healthy_after")?,
        hang_after: e.get("hang_after")?,
    })
}

fn log(e: &Entry) -> Result<LogConfig, Missing> {
    Ok(LogConfig {
        format: if e.get::<String>("format")? == "json" { LogFormat::Json } else { LogFormat::Logfmt },
        level: e.get("level")?,
        file: e.option("file"),
        rotate_bytes: e.get("rotate_bytes")?,
        keep_files: e.get("keep_files")?,
    })
}

impl Default for Config {
    /// What holds without any file. Paths are relative to the working directory.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the defaults are constants, and a test loads them")]
        super::load::parse("").expect("the defaults are without fault")
    }
}
