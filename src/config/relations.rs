//! What must hold between keys. In: resolved tables. Out: faults at the key to change; and notes on what is allowed and yet
//! probably not meant.

mod sinks;

use std::collections::BTreeSet;

use super::{
    keys::{Absent, Key},
    model::{Config, Tier},
    node,
    resolve::{Entry, Report, Resolved},
    texts::metric_slip,
    units::format_duration,
    value::{Value, Wrong, convert},
};

/// Checks everything that more than one key decides.
pub(super) fn check(resolved: &Resolved, report: &mut Report) {
    server(resolved, report);
    bounds(resolved, report);
    readings(resolved, report);
    idempotency_keys(resolved, report);
    redis(resolved, report);
    for section in ["sources", "rules"] {
        unique_names(resolved, section, report);
    }
    for rule in resolved.entries("rules") {
        rule_kind(rule, report);
        clear_side(rule, report);
    }
    sinks::check(resolved, report);
    routes(resolved, report);
    kafka(resolved, report);
}

/// Whether an entry of `[[rules]]` is an anomaly rule.
pub(super) fn is_anomaly(rule: &Entry) -> bool {
    text(rule, "kind") == Some("anomaly")
}

/// Keys of threshold rules that must be there, with an example of each.
const THRESHOLD_KEYS: [(&str, &str); 3] = [("metric", r#""temperature""#), ("op", r#"">""#), ("threshold", "350.0")];

/// Each kind of rule has keys of its own.
fn rule_kind(rule: &Entry, report: &mut Report) {
    if !rule.values.contains_key("kind") && !rule.wrong.contains(&"kind") {
        // No table at all, which is told already.
        return;
    }
    let (wrong, other, hint): (&[&str], _, _) = if is_anomaly(rule) {
        let hint = "remove it: an anomaly rule learns its limits from the engine itself, and sensitivity moves them";
        (&["op", "threshold", "clear", "for"], "threshold", hint)
    } else {
        // What stands there and is wrong is told already, and so is a kind that there is not.
        let lacks =
            |key: &str| !rule.values.contains_key(key) && !rule.wrong.iter().any(|wrong| matches!(*wrong, "kind") || *wrong == key);
        for (key, example) in THRESHOLD_KEYS.into_iter().filter(|(key, _)| lacks(key)) {
            report.add(&rule.place, rule.key_path(key), Wrong::hint("is missing", format!("add for example: {key} = {example}")));
        }
        (&["metrics", "sensitivity", "warm_up"], "anomaly", "remove it, or set kind = \"anomaly\"")
    };
    for key in wrong.iter().filter(|key| rule.is_given(key)) {
        let message = format!("belongs to rules of kind \"{other}\"");
        report.add(rule.place_of(key), rule.key_path(key), Wrong::hint(message, hint));
    }
}

fn server(resolved: &Resolved, report: &mut Report) {
    let Some(server) = resolved.one("server") else { return };
    let (cert, key) = (server.is_given("tls_cert"), server.is_given("tls_key"));
    for (given, has, lacks) in [(cert && !key, "tls_cert", "tls_key"), (key && !cert, "tls_key", "tls_cert")] {
        if given {
            report.add(
                server.place_of(has),
                server.key_path(has),
                Wrong::hint(format!("is given without {lacks}"), format!("add {lacks}")),
            );
        }
    }
    let behind_proxy = matches!(server.value("behind_proxy"), Some(Value::Addresses(proxies)) if !proxies.is_empty());
    if let Some(Value::Socket(listen)) = server.value("listen")
        && !listen.ip().is_loopback()
        && !(cert || key || behind_proxy)
    {
        let message = format!("{listen} is beyond loopback, and tokens would cross the network in the clear");
        let hint = "add tls_cert and tls_key, or behind_proxy = [\"ADDRESS\"], or listen on 127.0.0.1";
        report.add(server.place_of("listen"), server.key_path("listen"), Wrong::hint(message, hint));
    }
    if matches!(server.value("hosts"), Some(Value::Texts(hosts)) if hosts.is_empty()) {
        report.add(
            server.place_of("hosts"),
            server.key_path("hosts"),
            Wrong::hint("is empty: nobody could reach belayd", "name a host"),
        );
    }
}

/// Pairs of keys of which the first must not exceed the second.
const ORDERED: [(&str, &str, &str); 3] = [
    ("buffer", "batch_rows", "memory_rows"),
    ("outbox", "retry_base", "retry_max"),
    ("supervision", "backoff_base", "backoff_max"),
];

fn bounds(resolved: &Resolved, report: &mut Report) {
    for (section, low, high) in ORDERED {
        let Some(entry) = resolved.one(section) else { continue };
        let exceeds = match (entry.value(low), entry.value(high)) {
            (Some(Value::Int(a)), Some(Value::Int(b))) => a > b,
            (Some(Value::Duration(a)), Some(Value::Duration(b))) => a > b,
            _ => false,
        };
        if exceeds {
            // The one that was written is the one to change.
            let at = if entry.is_given(low) { low } else { high };
            let message = format!("{low} exceeds {high}");
            report.add(entry.place_of(at), entry.key_path(at), Wrong::hint(message, format!("lower {low} or raise {high}")));
        }
    }
}

fn readings(resolved: &Resolved, report: &mut Report) {
    let (Some(readings), Some(retention)) = (resolved.one("readings"), resolved.one("retention")) else { return };
    if let (Some(Value::Duration(behind)), Some(Value::Duration(keep))) =
        (readings.value("max_behind"), retention.value("readings"))
        && behind > keep
    {
        let message = format!("is beyond retention.readings ({}): such a reading would be deleted at once", format_duration(*keep));
        report.add(
            readings.place_of("max_behind"),
            readings.key_path("max_behind"),
            Wrong::hint(message, "lower it, raise retention.readings, or leave it out"),
        );
    }
}

/// A key must not outlive the message that it leads to.
fn idempotency_keys(resolved: &Resolved, report: &mut Report) {
    let Some(retention) = resolved.one("retention") else { return };
    if let (Some(Value::Duration(keys)), Some(Value::Duration(keep))) =
        (retention.value("idempotency_keys"), retention.value("deliveries"))
        && keys > keep
    {
        let message = format!("is beyond retention.deliveries ({}), with which messages go", format_duration(*keep));
        report.add(
            retention.place_of("idempotency_keys"),
            retention.key_path("idempotency_keys"),
            Wrong::hint(message, "lower it, raise retention.deliveries, or leave it out"),
        );
    }
}

fn redis(resolved: &Resolved, report: &mut Report) {
    let (Some(redis), Some(buffer)) = (resolved.one("redis"), resolved.one("buffer")) else { return };
    if redis.is_given("cluster")
        && let Some(way) = ["url", "url_file", "url_credential"].into_iter().find(|way| redis.is_given(way))
    {
        let wrong = Wrong::hint(format!("given beside \"{way}\""), "keep one of them");
        report.add(redis.place_of("cluster"), redis.key_path("cluster"), wrong);
    }
    if let (Some(Value::Duration(timeout)), Some(Value::Duration(ack))) = (redis.value("timeout"), buffer.value("ack_timeout"))
        && *timeout * 2 > *ack
        && redis.is_given("timeout")
    {
        let (timeout, ack) = (format_duration(*timeout), format_duration(*ack));
        let message = format!("{timeout} leaves no time for the journal's answer within buffer.ack_timeout ({ack})");
        report.add(redis.place_of("timeout"), redis.key_path("timeout"), Wrong::hint(message, "lower it to half of that at most"));
    }
}

fn text<'a>(entry: &'a Entry, key: &str) -> Option<&'a str> {
    match entry.value(key) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn unique_names(resolved: &Resolved, section: &str, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for entry in resolved.entries(section) {
        let Some(name) = text(entry, "name") else { continue };
        if !seen.insert(name) {
            let message = format!("\"{name}\" names another of [[{section}]] already");
            report.add(entry.place_of("name"), entry.key_path("name"), Wrong::hint(message, "give each a name of its own"));
        }
    }
}

fn clear_side(rule: &Entry, report: &mut Report) {
    let (Some(op), Some(Value::Float(threshold)), Some(Value::Float(clear))) =
        (text(rule, "op"), rule.value("threshold"), rule.value("clear"))
    else {
        return;
    };
    let upper = op.starts_with('>');
    if (upper && clear > threshold) || (!upper && clear < threshold) {
        let side = if upper { "above" } else { "below" };
        let hint = format!("with op = \"{op}\" it must be {threshold} or {}", if upper { "lower" } else { "higher" });
        report.add(
            rule.place_of("clear"),
            rule.key_path("clear"),
            Wrong::hint(format!("{clear} lies {side} the threshold {threshold}"), hint),
        );
    }
}

/// Whether deliveries to this sink say to whom.
fn takes_recipients(resolved: &Resolved, sink: &str) -> bool {
    sink == "smtp" || resolved.entries("bots").any(|bot| text(bot, "name") == Some(sink))
}

fn routes(resolved: &Resolved, report: &mut Report) {
    for route in resolved.entries("routes") {
        if let (Some(Value::Texts(sinks)), true) = (route.value("sinks"), route.is_given("recipients"))
            && !sinks.iter().any(|sink| takes_recipients(resolved, sink))
        {
            let wrong =
                Wrong::hint("none of its sinks takes recipients", "remove it: a webhook and the log are receivers themselves");
            report.add(route.place_of("recipients"), route.key_path("recipients"), wrong);
        }
        if let Some(Value::Texts(fields)) = route.value("group_by")
            && fields.iter().any(|field| field == "level")
        {
            let hint = "it may rise while an alert is open: write a route for each level, or group by name";
            let wrong = Wrong::hint("a level makes no group", hint);
            report.add(route.place_of("group_by"), route.key_path("group_by"), wrong);
        }
    }
}

fn is_default(entry: &Entry, key: &Key) -> bool {
    let Absent::Is(default) = key.absent else { return false };
    let (mut table, _) = node::read(&format!("value = {default}"), "defaults");
    let default = table.get_mut("value").and_then(|field| convert(key.kind, &field.item).ok());
    default.as_ref() == entry.value(key.name)
}

/// A key that somebody gave and meant something by: the printed example gives the defaults, and means nothing by it.
fn meant(entry: &Entry) -> Option<&'static str> {
    entry.section.keys.iter().find(|key| entry.is_given(key.name) && !is_default(entry, key)).map(|key| key.name)
}

fn kafka(resolved: &Resolved, report: &mut Report) {
    let Some(kafka) = resolved.one("kafka") else { return };
    let mut wrong = |key: &str, wrong: Wrong| report.add(kafka.place_of(key), kafka.key_path(key), wrong);
    if !kafka.is_given("brokers") {
        if let Some(key) = meant(kafka) {
            wrong(
                "brokers",
                Wrong::hint(format!("is missing, and {key} is given"), "add for example: brokers = \"127.0.0.1:9092\""),
            );
        }
        return;
    }
    if text(kafka, "topic").is_some_and(|topic| topic.contains(':') || topic == "." || topic == "..") {
        wrong("topic", Wrong::hint("is not a name that Kafka takes", "use letters, digits, '.', '_' and '-'"));
    }
    let security = text(kafka, "security").unwrap_or_default();
    let mechanism = text(kafka, "mechanism").unwrap_or_default();
    let sasl = security.starts_with("sasl");
    if sasl && !(kafka.is_given("username") && kafka.value("password").is_some()) {
        wrong("security", Wrong::hint(format!("{security} needs a username and a password"), "add username and password_file"));
    }
    if !cfg!(feature = "kafka-tls")
        && let Some((key, what)) = needs_openssl(security, mechanism)
    {
        wrong(key, what);
    }
    for (has, lacks) in [("cert", "key"), ("key", "cert")] {
        if kafka.is_given(has) && !kafka.is_given(lacks) {
            wrong(has, Wrong::hint(format!("is given without {lacks}"), format!("add {lacks}")));
        }
    }
}

/// What only a build with OpenSSL can do, and by which key it was asked for.
pub(super) fn needs_openssl(security: &str, mechanism: &str) -> Option<(&'static str, Wrong)> {
    let hint = "build belayd with its default features, or use plaintext or sasl_plaintext with PLAIN";
    if security.ends_with("ssl") {
        return Some(("security", Wrong::hint(format!("this build cannot speak {security}: it has no TLS to Kafka"), hint)));
    }
    let scram = security.starts_with("sasl") && mechanism != "PLAIN";
    scram.then(|| ("mechanism", Wrong::hint(format!("this build cannot sign in by {mechanism}: it needs OpenSSL"), hint)))
}

/// What is allowed and yet probably not meant.
pub(super) fn notes(config: &Config, resolved: &Resolved) -> Vec<String> {
    let mut notes = buffer_notes(config, resolved);
    let thresholds = config.rules.iter().map(|rule| (&rule.name, &rule.metric));
    let anomalies = config.anomaly_rules.iter().flat_map(|rule| rule.metrics.iter().map(move |metric| (&rule.name, metric)));
    for (name, metric) in thresholds.chain(anomalies) {
        if let Some(near) = metric_slip(metric) {
            notes.push(format!("rule \"{name}\" watches the extra metric \"{metric}\"; did you mean \"{near}\"?"));
        }
    }
    notes.extend(sinks::notes(config));
    notes
}

/// The same about the buffer.
fn buffer_notes(config: &Config, resolved: &Resolved) -> Vec<String> {
    // journal_bytes stands in the example, and means no harm.
    let given = resolved.one("buffer").is_some_and(|entry| entry.is_given("streams"));
    let mut notes = Vec::new();
    if config.buffer.tier == Tier::Memory && given {
        notes.push("buffer.streams means nothing with buffer.tier = \"memory\"".to_owned());
    } else if !config.buffer.tier.uses_redis() && resolved.one("redis").is_some_and(|entry| entry.is_given("url")) {
        notes.push("[redis] means nothing unless buffer.tier is \"redis\" or \"triple\"".to_owned());
    } else if config.buffer.streams > 1 && config.store.url.starts_with("sqlite:") {
        let streams = config.buffer.streams;
        notes.push(format!("buffer.streams = {streams} makes SQLite no faster: it has one writer; leave it out"));
    }
    notes
}
