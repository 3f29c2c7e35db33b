//! What stands in each list of the page, derived from one snapshot: pure, without markup. `view.js` derives the same for
//! the live page, list by list and slot by slot: change both or neither.

mod flow;
mod host;
mod watch;

use serde_json::Value;

use super::{
    format::{Say, text},
    template::Row,
};

/// Every list and every single text of the page.
#[derive(Debug)]
pub(super) struct View {
    /// The title of the tab: it begins with the number of open critical alerts where there are any.
    pub(super) title: String,
    lists: Vec<(&'static str, Vec<Row>)>,
    texts: Vec<(&'static str, String)>,
}

impl View {
    /// Derives the view of `snapshot`.
    pub(super) fn of(snapshot: &Value, say: Say) -> Self {
        let counts = watch::AlertCounts::of(snapshot);
        let instance = text(snapshot, "/instance");
        let mark = if counts.critical > 0.0 { format!("({}) ", counts.critical) } else { String::new() };
        let engines = watch::engines(snapshot, say);
        Self {
            title: format!("{mark}{instance} · belayd"),
            texts: vec![
                ("instance", instance.to_owned()),
                ("version", text(snapshot, "/version").to_owned()),
                ("alertsNote", counts.note(say)),
                ("enginesNote", watch::engines_note(snapshot, engines.len(), say)),
                ("actorsNote", host::actors_note(snapshot, say)),
            ],
            lists: vec![
                ("ready", vec![host::readiness(snapshot, say)]),
                ("figures", watch::figures(snapshot, &counts, say)),
                ("alerts", watch::alerts(snapshot, say)),
                ("engines", engines),
                ("inbox", watch::inbox(snapshot, say)),
                ("sources", flow::sources(snapshot, say)),
                ("ingest", flow::ingest(snapshot, say)),
                ("bufferBars", flow::buffer_bars(snapshot, say)),
                ("buffer", flow::buffer(snapshot, say)),
                ("store", flow::store(snapshot, say)),
                ("instances", flow::instances(snapshot, say)),
                ("sinks", flow::sinks(snapshot, say)),
                ("outbox", flow::outbox(snapshot, say)),
                ("account", flow::account(snapshot, say)),
                ("verdict", vec![flow::verdict(snapshot, say)]),
                ("failureCounts", flow::failure_counts(snapshot, say)),
                ("system", host::system(snapshot, say)),
                ("process", host::process(snapshot, say)),
                ("circuits", flow::circuits(snapshot, say)),
                ("recovery", flow::recovery(snapshot, say)),
                ("actors", host::actors(snapshot, say)),
            ],
        }
    }

    /// The rows of a list; none where the name is unknown.
    pub(super) fn list(&self, name: &str) -> &[Row] {
        self.lists.iter().find(|(known, _)| *known == name).map_or(&[], |(_, rows)| rows)
    }

    /// A single text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str())
    }
}

/// The tone of a state: how it is coloured, and which shape stands before it. `good`, `wait`, `warn` or `bad`.
fn tone_of(state: &str) -> &'static str {
    match state {
        "ready" | "ok" | "closed" | "running" | "alive" => "good",
        "buffering" | "stopping" | "half-open" | "backoff" => "warn",
        "full" | "failing" | "open" | "stalled" | "stopped" | "dead" => "bad",
        _ => "wait",
    }
}

fn icon(name: &str) -> String {
    format!("#i-{name}")
}

/// A label with a value, and a tone where the value asks for attention.
fn fact(key: &'static str, label: String, value: String, tone: &str) -> Row {
    vec![("key", key.to_owned()), ("label", label), ("value", value), ("tone", tone.to_owned())]
}

/// `tone` where the number is above zero.
fn alarmed(value: Option<f64>, tone: &'static str) -> &'static str {
    if value.unwrap_or_default() > 0.0 { tone } else { "" }
}
