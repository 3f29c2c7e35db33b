//! The configuration as named values again, in the spelling of the file: for what is shown and for telling what changed.
//! In: a [`Config`]. Out: JSON, secrets included. Pure.

pub(super) mod sinks;

use serde_json::{Map, Value as Json, json};

use super::{
    alerts::{AlertsConfig, DeadmanConfig, RouteConfig},
    keys::{SECTIONS, Section},
    model::*,
    units::{format_duration, format_size},
};
use crate::domain::{anomaly::AnomalyRule, rule::Rule};

/// The tables of one section: exactly one unless it is a list of tables.
pub(super) type Tables = Vec<Map<String, Json>>;

/// Every value by section, in the order of [`SECTIONS`], secrets included.
pub(super) fn values(config: &Config) -> Vec<(&'static Section, Tables)> {
    SECTIONS.into_iter().map(|section| (section, tables(config, section.name))).collect()
}

fn tables(config: &Config, section: &str) -> Tables {
    let values: Vec<Json> = match section {
        "server" => vec![server(&config.server)],
        "store" => vec![store(&config.store)],
        "buffer" => vec![buffer(&config.buffer)],
        "redis" => vec![redis(&config.redis)],
        "readings" => vec![readings(&config.readings)],
        "sources" => config.sources.iter().map(source).collect(),
        "rules" => config.rules.iter().map(rule).chain(config.anomaly_rules.iter().map(anomaly_rule)).collect(),
        "smtp" => vec![config.smtp.as_ref().map_or_else(|| none("smtp"), sinks::smtp)],
        "slack" => vec![config.slack.as_ref().map_or_else(|| none("slack"), sinks::chat)],
        "discord" => vec![config.discord.as_ref().map_or_else(|| none("discord"), sinks::chat)],
        "webhooks" => config.webhooks.iter().map(sinks::webhook).collect(),
        "bots" => config.bots.iter().map(sinks::bot).collect(),
        "templates" => vec![sinks::templates(&config.templates)],
        "routes" => config.routes.iter().map(route).collect(),
        "messages" => vec![json!({ "on_unknown": config.messages.on_unknown })],
        "limits" => vec![limits(&config.limits)],
        "alerts" => vec![alerts(&config.alerts)],
        "deadman" => vec![config.deadman.as_ref().map_or_else(|| none("deadman"), deadman)],
        "outbox" => vec![outbox(&config.outbox)],
        "kafka" => vec![config.kafka.as_ref().map_or_else(|| none("kafka"), kafka)],
        "retention" => vec![retention(&config.retention)],
        "schedule" => vec![schedule(&config.schedule)],
        "monitor" => vec![monitor(&config.monitor)],
        "recovery" => vec![recovery(&config.recovery)],
        "supervision" => vec![supervision(&config.supervision)],
        "log" => vec![log(&config.log)],
        _ => Vec::new(),
    };
    values.into_iter().filter_map(|value| if let Json::Object(map) = value { Some(map) } else { None }).collect()
}

fn server(c: &ServerConfig) -> Json {
    json!({
        "listen": c.listen.to_string(),
        "data_dir": c.data_dir,
        "hosts": c.hosts,
        "tls_cert": c.tls_cert,
        "tls_key": c.tls_key,
        "behind_proxy": c.behind_proxy,
        "metrics_open": c.metrics_open,
        "workers": c.workers,
        "max_connections": c.max_connections,
        "client_timeout": format_duration(c.client_timeout),
        "session_lifetime": format_duration(c.session_lifetime),
        "max_streams": c.max_streams,
        "stop_timeout": format_duration(c.stop_timeout),
    })
}

pub(super) fn store(c: &StoreConfig) -> Json {
    json!({
        "url": c.url,
        "pool_size": c.pool_size,
        "connect_timeout": format_duration(c.connect_timeout),
        "statement_timeout": format_duration(c.statement_timeout),
        "breaker_failures": c.breaker.failures_max,
        "breaker_pause": format_duration(c.breaker.open_base),
        "breaker_pause_max": format_duration(c.breaker.open_max),
    })
}

fn buffer(c: &BufferConfig) -> Json {
    json!({
        "tier": c.tier.as_str(),
        "batch_rows": c.batch_rows,
        "flush_interval": format_duration(c.flush_interval),
        "memory_rows": c.memory_rows,
        "memory_bytes": format_size(c.memory_bytes),
        "journal_bytes": format_size(c.journal_bytes),
        "streams": c.streams,
        "ack_timeout": format_duration(c.ack_timeout),
        "admission_bytes": format_size(c.admission_bytes),
        "readings_per_s": c.readings_per_s,
    })
}

pub(super) fn redis(c: &RedisConfig) -> Json {
    json!({
        "url": c.url,
        "cluster": c.cluster,
        "prefix": c.prefix,
        "timeout": format_duration(c.timeout),
        "keep": format_duration(c.keep),
        "stream_bytes": format_size(c.stream_bytes),
        "replicas": c.replicas,
        "breaker_failures": c.breaker.failures_max,
        "breaker_pause": format_duration(c.breaker.open_base),
        "breaker_pause_max": format_duration(c.breaker.open_max),
    })
}

fn recovery(c: &RecoveryConfig) -> Json {
    json!({
        "outbox_within": format_duration(c.outbox_within),
        "buffer_within": format_duration(c.buffer_within),
        "within": format_duration(c.within),
        "success_percent": c.success_percent,
    })
}

fn readings(c: &ReadingsConfig) -> Json {
    json!({
        "max_ahead": format_duration(c.max_ahead),
        "max_behind": format_duration(c.max_behind),
        "ranges": c.ranges,
        "max_engines": c.max_engines,
    })
}

pub(super) fn source(c: &SourceConfig) -> Json {
    json!({
        "name": c.name,
        "url": c.url,
        "interval": format_duration(c.interval),
        "timeout": format_duration(c.timeout),
        "headers": c.headers,
        "ca": c.ca,
        "fields": c.fields,
        "allow_link_local": c.allow_link_local,
        "breaker_failures": c.breaker.failures_max,
        "breaker_pause": format_duration(c.breaker.open_base),
        "breaker_pause_max": format_duration(c.breaker.open_max),
    })
}

fn rule(r: &Rule) -> Json {
    json!({
        "name": r.name,
        "kind": "threshold",
        "metric": r.metric,
        "metrics": null,
        "sensitivity": null,
        "warm_up": null,
        "op": r.op,
        "threshold": r.threshold,
        "clear": r.clear,
        "for": format_duration(std::time::Duration::from_micros(r.for_us.unsigned_abs())),
        "level": r.level,
        "labels": r.labels,
    })
}

fn anomaly_rule(r: &AnomalyRule) -> Json {
    json!({
        "name": r.name,
        "kind": "anomaly",
        "metric": null,
        "metrics": r.metrics,
        "sensitivity": r.sensitivity,
        "warm_up": r.warm_up,
        "op": null,
        "threshold": null,
        "clear": null,
        "for": null,
        "level": r.level,
        "labels": r.labels,
    })
}

fn route(c: &RouteConfig) -> Json {
    json!({
        "levels": c.levels,
        "kinds": c.kinds,
        "names": c.names,
        "subjects": c.subjects,
        "labels": c.labels,
        "sinks": c.sinks,
        "recipients": c.recipients,
        "on_unknown": c.on_unknown,
        "notify_resolved": c.notify_resolved,
        "group_by": c.group_by,
        "group_wait": format_duration(c.group_wait),
        "group_interval": format_duration(c.group_interval),
        "group_max": c.group_max,
        "repeat_interval": format_duration(c.repeat_interval.unwrap_or_default()),
    })
}

fn alerts(c: &AlertsConfig) -> Json {
    json!({ "fallback_after": format_duration(c.fallback_after), "overdue_after": format_duration(c.overdue_after) })
}

pub(super) fn deadman(c: &DeadmanConfig) -> Json {
    json!({
        "url": c.url,
        "interval": format_duration(c.interval),
        "timeout": format_duration(c.timeout),
        "allow_link_local": c.allow_link_local,
    })
}

fn limits(c: &LimitsConfig) -> Json {
    json!({ "messages_per_minute": c.messages_per_minute, "requests_per_minute": c.requests_per_minute })
}

fn outbox(c: &OutboxConfig) -> Json {
    json!({
        "poll_interval": format_duration(c.poll_interval),
        "lease": format_duration(c.lease),
        "max_attempts": c.max_attempts,
        "retry_base": format_duration(c.retry_base),
        "retry_max": format_duration(c.retry_max),
        "concurrency": c.concurrency,
    })
}

pub(super) fn kafka(c: &KafkaConfig) -> Json {
    json!({
        "brokers": c.brokers,
        "topic": c.topic,
        "create_topic": c.create_topic,
        "partitions": c.partitions,
        "replication": c.replication,
        "timeout": format_duration(c.timeout),
        "security": c.security.as_str(),
        "mechanism": c.mechanism,
        "username": c.username,
        "password": c.password,
        "ca": c.ca,
        "cert": c.cert,
        "key": c.key,
        "breaker_failures": c.breaker.failures_max,
        "breaker_pause": format_duration(c.breaker.open_base),
        "breaker_pause_max": format_duration(c.breaker.open_max),
    })
}

/// Of a section that is off none of the keys holds.
fn none(section: &str) -> Json {
    let keys = super::keys::section(section).map_or(&[][..], |section| section.keys);
    let shown = keys.iter().filter(|key| !super::secrets::is_way(key.name));
    Json::Object(shown.map(|key| (key.name.to_owned(), Json::Null)).collect())
}

fn retention(c: &RetentionConfig) -> Json {
    json!({
        "readings": format_duration(c.readings),
        "deliveries": format_duration(c.deliveries),
        "idempotency_keys": format_duration(c.idempotency_keys),
        "ledger": format_duration(c.ledger),
        "alerts": format_duration(c.alerts),
        "audit": format_duration(c.audit),
        "issues": format_duration(c.issues),
    })
}

fn schedule(c: &ScheduleConfig) -> Json {
    json!({
        "cleanup_at": format!("{:02}:{:02}", c.cleanup_at_min / 60, c.cleanup_at_min % 60),
        "integrity_interval": format_duration(c.integrity_interval),
        "retention_interval": format_duration(c.retention_interval),
        "statistics_interval": format_duration(c.statistics_interval),
    })
}

fn monitor(c: &MonitorConfig) -> Json {
    json!({
        "interval": format_duration(c.interval),
        "cpu_percent": c.cpu_percent,
        "memory_percent": c.memory_percent,
        "disk_percent": c.disk_percent,
    })
}

fn supervision(c: &SupervisionConfig) -> Json {
    json!({
        "max_restarts": c.max_restarts,
        "within": format_duration(c.within),
        "backoff_base": format_duration(c.backoff_base),
        "backoff_max": format_duration(c.backoff_max),
        "healthy_after": format_duration(c.healthy_after),
        "hang_after": format_duration(c.hang_after),
    })
}

fn log(c: &LogConfig) -> Json {
    json!({
        "format": match c.format {
            LogFormat::Logfmt => "logfmt",
            LogFormat::Json => "json",
        },
        "level": c.level,
        "file": c.file,
        "rotate_bytes": format_size(c.rotate_bytes),
        "keep_files": c.keep_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{keys::Key, secrets::is_way};

    #[test]
    fn every_key_of_the_table_is_in_the_view_and_the_other_way_round() {
        let text = "[[sources]]\nname = \"s\"\nurl = \"http://h\"\n[[webhooks]]\nname = \"w\"\nurl = \"http://h\"\n\
                    [smtp]\nhost = \"h\"\nfrom = \"a@b.c\"\n[slack]\nurl = \"http://h\"\n[[bots]]\nname = \"b\"\nurl = \"http://h\"\n";
        for (section, tables) in values(&crate::config::parse(text).expect("no fault")) {
            let shown: Vec<&str> = tables[0].keys().map(String::as_str).collect();
            let known = |key: &&Key| !is_way(key.name);
            let mut keys: Vec<&str> = section.keys.iter().filter(known).map(|key| key.name).collect();
            keys.sort_unstable();
            assert_eq!(shown, keys, "[{}]", section.name);
        }
    }
}
