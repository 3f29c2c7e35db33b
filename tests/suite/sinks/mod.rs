//! The ways out against receivers of other hands, through the whole daemon.

mod http;
mod mail;
mod silent;
mod texts;

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::Daemon;

/// Quick retries, and a rule that a single reading breaks.
const QUICK: &str = "[outbox]\nretry_base = \"50ms\"\nretry_max = \"200ms\"\npoll_interval = \"100ms\"\n";

/// Raises a CRITICAL alert of that engine.
fn overheat(daemon: &Daemon, engine: &str) {
    let pushed = daemon.post("/api/readings", &format!(r#"{{"engineId":"{engine}","temperature":400}}"#));
    assert_eq!(pushed.status, 202, "{pushed:?}");
}

/// Asks for a test of a sink and waits for its end.
fn test_send(daemon: &Daemon, sink: &str, body: &str) -> Value {
    let asked = daemon.post(&format!("/admin/sinks/{sink}/test"), body);
    assert_eq!(asked.status, 202, "{asked:?}");
    let id = asked.json()["deliveryId"].as_str().expect("an id").to_owned();
    ended(daemon, &id)
}

/// Waits for the end of a delivery.
fn ended(daemon: &Daemon, id: &str) -> Value {
    let mut delivery = Value::Null;
    daemon.wait_for("the delivery's end", Duration::from_secs(30), |daemon| {
        delivery = daemon.get(&format!("/admin/failures/{id}")).json();
        ["sent", "dead", "uncertain", "discarded"].iter().any(|end| delivery["state"] == *end)
    });
    delivery
}

/// Failures of a sink, once there are as many.
fn failures(daemon: &Daemon, sink: &str, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    daemon.wait_for("the failures", Duration::from_secs(30), |daemon| {
        let list = daemon.get("/admin/failures?kind=delivery").json();
        found = list["items"].as_array().into_iter().flatten().filter(|item| item["sink"] == sink).cloned().collect();
        found.len() >= count
    });
    found
}
