//! The relay to Kafka, against a real broker, seen by an independent consumer of committed records.

mod basics;
mod checked;
mod crashes;
mod instances;
mod outages;
mod refusals;
#[cfg(feature = "kafka-tls")]
mod secure;
mod unheard;

use std::time::Duration;

use crate::support::{
    daemon::{Daemon, Setup},
    kafka::Kafka,
    left_out,
    postgres::{self, Postgres},
};

/// How a daemon with a relay is set up.
fn setup(kafka: &Kafka, more: &str) -> Setup {
    Setup::with(&format!(
        "[kafka]\nbrokers = \"{}\"\ntopic = \"engine\"\npartitions = 3\nreplication = 1\n{more}\n[buffer]\nflush_interval = \"50ms\"\n",
        kafka.brokers()
    ))
}

/// The databases that can be had here. The server ends with its handle.
fn databases() -> Vec<(String, Option<Postgres>)> {
    let mut found = vec![("sqlite://belayd.db".to_owned(), None)];
    if let Some(server) = server() {
        found.push((server.new_database("relay"), Some(server)));
    }
    found
}

/// A PostgreSQL of this test's own.
fn server() -> Option<Postgres> {
    if !postgres::is_installed() {
        left_out("the relay on PostgreSQL, because it is not installed (tests/run installs it)");
        return None;
    }
    Some(Postgres::start(&["fsync=off"]))
}

/// `count` readings of `engines` engines, one a millisecond from `from`.
fn body(from: u64, count: u64, engines: u64) -> String {
    let readings: Vec<String> = (from..from + count)
        .map(|n| {
            let (engine, at) = (n % engines, 1_760_000_000_000_u64 + n);
            format!(r#"{{"engineId":"engine-{engine}","timestamp":{at},"temperature":{n},"rpm":{}.5,"status":"ok"}}"#, n % 9_000)
        })
        .collect();
    format!("[{}]", readings.join(","))
}

/// Pushes readings and returns the answer.
fn push(daemon: &Daemon, body: &str, query: &str) -> serde_json::Value {
    let answer = daemon.post(&format!("/api/readings{query}"), body);
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.json()
}

/// Waits until nothing waits for Kafka.
fn relayed(daemon: &Daemon) {
    daemon.wait_for("relayed", Duration::from_secs(180), |daemon| {
        daemon.metric("belayd_readings_buffered") == 0.0 && backlog(daemon) == 0
    });
}

/// Deliveries that wait for Kafka.
fn backlog(daemon: &Daemon) -> u64 {
    let sinks = daemon.get("/admin/outbox").json()["sinks"].clone();
    let kafka = sinks.as_array().into_iter().flatten().find(|sink| sink["name"] == "kafka").cloned().expect("the relay is shown");
    kafka["backlog"].as_u64().expect("a number")
}
