//! One bad row in a hundred: what it costs the database, and that the others are stored.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection, PgConnection, RunQueryDsl, connection::SimpleConnection, sql_types::Text};
use serde_json::json;

use crate::{
    daemon::Daemon,
    postgres::Postgres,
    report::{
        Aim::{AtLeast, AtMost},
        Figure, Scenario, aimed, plain,
    },
    setup::{self, Bench},
};

pub const POISON: Scenario = Scenario {
    name: "poison",
    what: "one row in 100 that PostgreSQL refuses, counted in that server's log of statements",
    once: true,
    run: poison,
};

#[derive(diesel::QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

fn poison(_: &mut Bench) -> Vec<Figure> {
    let server = Postgres::start(&["log_statement=all", "log_parameter_max_length=0", "log_line_prefix=%p "]);
    let url = server.url("postgres");
    let daemon = crate::daemon::Setup { log: "warn".into(), ..Default::default() }.store(&url).start();
    let mut admin = PgConnection::establish(&url).expect("the server answers");
    // Before the first batch is stored there may be no tables yet.
    setup::flush(&daemon);
    push(&daemon, "warm", None);
    admin.batch_execute("ALTER TABLE readings ADD CONSTRAINT no_devil CHECK (rpm <> 666)").expect("a constraint");
    let directory: Setting =
        diesel::sql_query("SELECT current_setting('data_directory') AS value").get_result(&mut admin).expect("a setting");
    let log = PathBuf::from(directory.value).parent().expect("a parent").join("log");
    let good = statements(&log, || push(&daemon, "good", None));
    let stored = daemon.metric("belayd_readings_stored_total");
    let bad = statements(&log, || push(&daemon, "bad", Some(42)));
    let stored = daemon.metric("belayd_readings_stored_total") - stored;
    let dead = daemon.metric("belayd_readings_dead");
    admin.batch_execute("ALTER TABLE readings DROP CONSTRAINT no_devil").expect("it goes");
    let retried = retry(&daemon);
    vec![
        plain("statements for 100 good rows", good as f64),
        aimed("statements more where one is bad", (bad - good) as f64, AtMost(8.0)),
        aimed("stored of 100", stored, AtLeast(99.0)),
        aimed("dead letters", dead, AtMost(1.0)),
        aimed("stored by a retry once the cause is gone", retried, AtLeast(1.0)),
    ]
}

/// Pushes 100 readings and waits until they are settled.
fn push(daemon: &Daemon, engine: &str, devil: Option<usize>) {
    let reading = |n: usize| json!({"engineId": engine, "timestamp": format!("2026-11-01T00:00:{:02}.{:03}Z", n % 60, n), "rpm": if Some(n) == devil { 666 } else { 5_000 }});
    let body = serde_json::Value::Array((0..100).map(reading).collect()).to_string();
    let answer = daemon.post("/api/readings?ack=store", &body);
    assert_eq!(answer.status, 202, "{answer:?}");
    let until = Instant::now() + Duration::from_secs(10);
    while daemon.metric("belayd_readings_buffered") > 0.0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Statements that reached the server while `work` ran, over the connection that stored its readings; what else the daemon asks meanwhile
/// goes over others.
fn statements(log: &PathBuf, work: impl FnOnce()) -> i64 {
    let before = fs::metadata(log).map_or(0, |data| data.len()) as usize;
    work();
    // The server writes its log as it goes; the last lines may be a moment late.
    thread::sleep(Duration::from_millis(300));
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[before.min(text.len())..]).into_owned();
    let said: Vec<&str> = text.lines().filter(|line| line.contains("LOG:  statement:") || line.contains("LOG:  execute")).collect();
    let ledger = said.iter().find(|line| line.contains("INSERT INTO \"batches\"")).expect("the batch has its row in the ledger");
    said.iter().filter(|line| session(line) == session(ledger)).count() as i64
}

/// The process that serves a connection, from the head of a line (`log_line_prefix = '%p '`).
fn session(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// Retries the dead letter; the readings that this stored.
fn retry(daemon: &Daemon) -> f64 {
    let list = daemon.get("/admin/failures?kind=reading").json();
    let id = list["items"][0]["id"].as_str().expect("a failure with an id").to_owned();
    let before = daemon.metric("belayd_readings_stored_total");
    let answer = daemon.request(
        "PATCH",
        &format!("/admin/failures/{id}/retry"),
        &[("Content-Type", "application/json")],
        r#"{"reason":"the constraint is gone"}"#,
    );
    assert!(answer.status < 300, "{answer:?}");
    let until = Instant::now() + Duration::from_secs(5);
    while daemon.metric("belayd_readings_stored_total") == before && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    daemon.metric("belayd_readings_stored_total") - before
}
