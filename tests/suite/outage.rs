//! The database goes away and comes back: senders are let in, alarms leave, everything catches up. A real PostgreSQL of the test's
//! own, so these tests need its binaries; see `tests/run`.

use std::time::Duration;

use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
};

fn setup(server: &Postgres) -> Setup {
    Setup::with("[buffer]\nflush_interval = \"200ms\"\n").store(&server.url("postgres"))
}

/// Says once what is left out without a PostgreSQL.
fn has_postgres() -> bool {
    static NOTICE: std::sync::Once = std::sync::Once::new();
    let installed = postgres::is_installed();
    if !installed {
        NOTICE.call_once(|| {
            crate::support::left_out(
                "outages of the daemon's database, because PostgreSQL's binaries are not installed (tests/run installs them)",
            )
        });
    }
    installed
}

fn state(daemon: &Daemon) -> String {
    daemon.get("/readyz").json()["state"].as_str().unwrap_or_default().to_owned()
}

fn push(client: &Client, from: i64, rows: i64) {
    for n in from..from + rows {
        let answer = client.post(
            "/api/readings",
            &format!(r#"{{"engineId":"e{}","timestamp":{},"temperature":300}}"#, n % 7, 1_700_000_000_000_i64 + n),
        );
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}

#[test]
fn a_database_that_stops_and_returns_costs_time_and_nothing_else() {
    if !has_postgres() {
        return;
    }
    let mut server = Postgres::start(&["fsync=off"]);
    let daemon = setup(&server).start();
    let client = Client::new(&daemon.address, &daemon.token);
    push(&client, 0, 500);
    daemon.drained();

    server.crash();
    push(&client, 500, 500);
    daemon.wait_for("buffering", Duration::from_secs(10), |daemon| state(daemon) == "buffering");
    assert_eq!(daemon.get("/readyz").status, 200, "buffering lets senders in");
    assert_eq!(daemon.get("/healthz").status, 200);
    let down = |daemon: &Daemon| {
        let alerts = daemon.get("/api/alerts").json();
        alerts["items"].as_array().and_then(|all| all.iter().find(|alert| alert["name"] == "database-down").cloned())
    };
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| down(daemon).is_some_and(|alert| alert["state"] == "firing"));
    daemon.wait_for("told by the log sink", Duration::from_secs(10), |daemon| {
        daemon.log().lines().any(|line| line.contains("deliveryId") && line.contains("database-down"))
    });
    // A rule still fires, and its alert leaves while the store is away.
    assert_eq!(client.post("/api/readings", r#"{"engineId":"hot","temperature":400}"#).status, 202);
    daemon.wait_for("the rule's alert", Duration::from_secs(5), |daemon| daemon.get("/api/alerts").body.contains("overheat"));
    assert!(daemon.create_token("during-the-outage", "viewer").starts_with("bly_"));

    server.restart();
    daemon.wait_for("ready again", Duration::from_secs(20), |daemon| state(daemon) == "ready");
    assert_eq!(daemon.drained(), 1_001);
    daemon.wait_for("resolved", Duration::from_secs(10), |daemon| down(daemon).is_some_and(|alert| alert["state"] == "resolved"));
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
    assert!(daemon.metric("belayd_recovery_seconds") > 0.0);
    let restarts: u64 = daemon.get("/admin/actors").json()["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|actor| actor["restarts"].as_u64())
        .sum();
    assert_eq!(restarts, 0, "an outage is no crash");
}

#[test]
fn a_start_without_the_database_lets_senders_in_and_catches_up() {
    if !has_postgres() {
        return;
    }
    let mut server = Postgres::start(&["fsync=off"]);
    server.crash();
    let daemon = setup(&server).start();
    assert_eq!(state(&daemon), "buffering");
    push(&Client::new(&daemon.address, &daemon.token), 0, 300);
    let waiting = daemon.post("/api/readings?ack=store", r#"{"engineId":"e1","rpm":1}"#);
    assert_eq!(
        (waiting.status, waiting.json()["ack"].as_str()),
        (202, Some("journal")),
        "the level that was reached in time: {waiting:?}"
    );
    server.restart();
    daemon.wait_for("ready", Duration::from_secs(20), |daemon| state(daemon) == "ready");
    assert_eq!(daemon.drained(), 301);
}

#[test]
fn the_buffer_refuses_at_its_bound_and_takes_again_after_the_outage() {
    if !has_postgres() {
        return;
    }
    // Rows a push, and how many are taken: exactly where rows are counted, about where bytes of a file are.
    fill_and_drain("tier = \"memory\"\nmemory_rows = 1000\n", 100, 1_000..=1_000);
    fill_and_drain("tier = \"journal\"\njournal_bytes = \"8MB\"\n", 5_000, 100_000..=600_000);
}

fn fill_and_drain(buffer: &str, rows: i64, bound: std::ops::RangeInclusive<i64>) {
    let mut server = Postgres::start(&["fsync=off"]);
    let mut setup = setup(&server);
    setup.more.push_str(buffer);
    let daemon = setup.start();
    server.crash();
    let body = |n: i64| {
        let time = |i: i64| 1_700_000_000_000_i64 + n * rows + i;
        let items: Vec<_> =
            (0..rows).map(|i| format!(r#"{{"engineId":"e{}","timestamp":{},"rpm":1}}"#, i % 100, time(i))).collect();
        format!("[{}]", items.join(","))
    };
    let mut taken = 0;
    let refused = (0..100).find_map(|n| {
        let answer = daemon.post("/api/readings", &body(n));
        taken += i64::from(answer.status == 202) * rows;
        (answer.status != 202).then_some(answer)
    });
    let refused = refused.expect("the bound is reached");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(bound.contains(&taken), "{buffer}: {taken}");
    assert!(refused.head.contains("retry-after:"), "{}", refused.head);
    assert_eq!((daemon.get("/readyz").status, state(&daemon)), (503, "full".into()));
    server.restart();
    daemon.wait_for("taken again", Duration::from_secs(20), |daemon| daemon.post("/api/readings", &body(200)).status == 202);
    assert_eq!(daemon.drained() as i64, taken + rows, "{buffer}");
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
}

#[test]
fn a_database_whose_commits_a_crash_may_take_back_is_not_acknowledged_as_store() {
    if !has_postgres() {
        return;
    }
    for (setting, name) in [("fsync=off", "fsync = off"), ("synchronous_commit=off", "synchronous_commit = off"), ("fsync=on", "")]
    {
        let server = Postgres::start(&[setting]);
        let daemon = setup(&server).start();
        daemon.wait_for("ready", Duration::from_secs(20), |daemon| state(daemon) == "ready");
        let answer = daemon.post("/api/readings?ack=store", r#"{"engineId":"e1","rpm":1}"#);
        let weak = !name.is_empty();
        assert_eq!(
            (answer.status, answer.json()["ack"].as_str()),
            (202, Some(if weak { "journal" } else { "store" })),
            "{setting}"
        );
        assert_eq!(daemon.metric("belayd_readings_stored_total"), 1.0, "it waited for the commit all the same");
        let checks = daemon.get("/readyz").json()["checks"]["durability"].as_str().unwrap_or_default().to_owned();
        let buffer = daemon.get("/admin/buffer").json()["storeAck"].clone();
        let reason = buffer["reason"].as_str().unwrap_or_default();
        let page = daemon.get("/").body;
        if weak {
            assert!(checks.starts_with("weak: ") && checks.contains(name), "{checks}");
            assert!(buffer["level"] == "journal" && reason.contains(name), "{buffer}");
        } else {
            assert_eq!((checks.as_str(), buffer["level"].as_str(), reason), ("ok", Some("store"), ""));
        }
        assert_eq!(page.contains(" = off: "), weak, "the page says so");
    }
}
