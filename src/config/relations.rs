//! What must hold between keys. In: resolved tables. Out: faults at the key to change; and notes on what is allowed and yet
//! probably not meant.

use std::collections::BTreeSet;

use super::{
    model::{Config, Tier},
    resolve::{Entry, Report, Resolved},
    texts::{metric_slip, nearest},
    units::format_duration,
    value::{Value, Wrong},
};

/// The sink that is always there.
pub(super) const LOG_SINK: &str = "log";

/// Checks everything that more than one key decides.
pub(super) fn check(resolved: &Resolved, report: &mut Report) {
    server(resolved, report);
    bounds(resolved, report);
    readings(resolved, report);
    for section in ["sources", "rules", "webhooks"] {
        unique_names(resolved, section, report);
    }
    resolved.entries("rules").for_each(|rule| clear_side(rule, report));
    sinks(resolved, report);
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
        if section == "webhooks" && name == LOG_SINK {
            let message = format!("\"{LOG_SINK}\" is the name of the log's own sink");
            report.add(entry.place_of("name"), entry.key_path("name"), Wrong::hint(message, "choose another"));
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

fn sinks(resolved: &Resolved, report: &mut Report) {
    let known: Vec<&str> =
        std::iter::once(LOG_SINK).chain(resolved.entries("webhooks").filter_map(|hook| text(hook, "name"))).collect();
    for route in resolved.entries("routes") {
        let Some(Value::Texts(sinks)) = route.value("sinks") else { continue };
        if sinks.is_empty() {
            report.add(
                route.place_of("sinks"),
                route.key_path("sinks"),
                Wrong::hint("is empty", "name a sink, for example \"log\""),
            );
        }
        for sink in sinks.iter().filter(|sink| !known.contains(&sink.as_str())) {
            let near = nearest(sink, known.iter().copied());
            let hint = near.map_or_else(|| format!("known are: {}", known.join(", ")), |near| format!("did you mean \"{near}\"?"));
            report.add(route.place_of("sinks"), route.key_path("sinks"), Wrong::hint(format!("there is no sink \"{sink}\""), hint));
        }
    }
}

/// What is allowed and yet probably not meant.
pub(super) fn notes(config: &Config, resolved: &Resolved) -> Vec<String> {
    let mut notes = buffer_notes(config, resolved);
    for rule in &config.rules {
        if let Some(near) = metric_slip(&rule.metric) {
            notes.push(format!("rule \"{}\" watches the extra metric \"{}\"; did you mean \"{near}\"?", rule.name, rule.metric));
        }
    }
    let routed: BTreeSet<&str> = config.routes.iter().flat_map(|route| &route.sinks).map(String::as_str).collect();
    for hook in config.webhooks.iter().filter(|hook| !routed.contains(hook.name.as_str())) {
        notes.push(format!("webhook \"{}\" is named by no route: nothing goes there", hook.name));
    }
    notes
}

/// The same about the buffer.
fn buffer_notes(config: &Config, resolved: &Resolved) -> Vec<String> {
    // journal_bytes stands in the example, and means no harm.
    let given = resolved.one("buffer").is_some_and(|entry| entry.is_given("streams"));
    let mut notes = Vec::new();
    if config.buffer.tier == Tier::Memory && given {
        notes.push("buffer.streams means nothing with buffer.tier = \"memory\"".to_owned());
    } else if config.buffer.streams > 1 && config.store.url.starts_with("sqlite:") {
        let streams = config.buffer.streams;
        notes.push(format!("buffer.streams = {streams} makes SQLite no faster: it has one writer; leave it out"));
    }
    notes
}
