//! Readings that the database refuses, from end to end: listed, shown, tried again while the cause is there and once it is gone, given up,
//! over HTTP and over the command line, on both databases, all of it in the audit.

use std::{path::Path, time::Duration};

use diesel::{Connection, PgConnection, SqliteConnection, connection::SimpleConnection};
use serde_json::Value;

use crate::support::{
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
};

/// Runs SQL past the daemon.
type Sql<'a> = &'a dyn Fn(&str);

fn failures(daemon: &Daemon) -> Vec<Value> {
    daemon.get("/admin/failures?kind=reading").json()["items"].as_array().cloned().unwrap_or_default()
}

fn command(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.command(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn patch(daemon: &Daemon, id: &str, reason: &str) -> Value {
    let path = format!("/admin/failures/{id}/retry");
    let headers = [("Content-Type", "application/json")];
    let answer = daemon.request("PATCH", &path, &headers, &format!(r#"{{"reason":"{reason}"}}"#));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn decide_on_all(daemon: &Daemon, code: &str, allow: Sql<'_>) {
    let items: Vec<_> = (0..20)
        .map(|n| format!(r#"{{"engineId":"d{n}","timestamp":{},"rpm":{}}}"#, 1_700_000_000_000_i64, if n < 5 { 666 } else { 1 }))
        .collect();
    assert_eq!(daemon.post("/api/readings?ack=store", &format!("[{}]", items.join(","))).status, 202);
    daemon.wait_for("five dead letters", Duration::from_secs(10), |daemon| daemon.metric("belayd_readings_dead") == 5.0);
    assert_eq!(daemon.metric("belayd_readings_stored_total"), 15.0);
    let listed = failures(daemon);
    assert_eq!(listed.len(), 5);
    let ids: Vec<String> = listed.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    assert!(listed.iter().all(|one| one["cause"] == "dead" && one["message"].as_str().is_some_and(|text| !text.is_empty())));

    // Listed and shown over both ways.
    let table = command(daemon, &["failures", "list", "--kind", "reading"]);
    assert!(ids.iter().all(|id| table.contains(id)), "{table}");
    let shown = daemon.get(&format!("/admin/failures/{}", ids[0]));
    assert_eq!((shown.status, shown.json()["id"].as_str()), (200, Some(ids[0])));
    assert_eq!(shown.json()["errorCode"], code, "the database's own word for it: {shown:?}");
    assert!(listed.iter().all(|one| one["errorCode"] == code), "{listed:?}");
    assert!(command(daemon, &["failures", "show", ids[0]]).contains(ids[0]));
    let shown: Value = serde_json::from_str(&command(daemon, &["failures", "show", ids[0], "--json"])).expect("JSON");
    assert_eq!((&shown["id"], &shown["errorCode"]), (&ids[0].into(), &code.into()), "{shown}");
    assert_eq!(daemon.get("/admin/failures/nothing").status, 404);
    assert!(!daemon.command(&["failures", "show", "nothing"]).status.success());

    // Tried again while the cause is there: it stays, and says why.
    assert_eq!(patch(daemon, ids[0], "too early")["settled"], false);
    let again = command(daemon, &["failures", "retry", ids[1], "--reason", "too early"]);
    assert!(again.contains("failed again"), "{again}");
    assert_eq!(failures(daemon).len(), 5);

    allow("allow");
    assert_eq!(patch(daemon, ids[0], "rule gone")["settled"], true);
    assert!(command(daemon, &["failures", "retry", ids[1], "--reason", "rule gone"]).contains("is stored"));
    let discard = daemon.post(&format!("/admin/failures/{}/discard", ids[2]), r#"{"reason":"test data"}"#);
    assert_eq!(discard.status, 200, "{discard:?}");
    assert!(command(daemon, &["failures", "discard", ids[3], "--reason", "test data"]).contains("is given up"));
    let left = failures(daemon);
    assert_eq!(left.iter().map(|one| one["id"].as_str()).collect::<Vec<_>>(), [Some(ids[4])]);
    // Once decided, it is decided.
    assert_eq!(daemon.post(&format!("/admin/failures/{}/discard", ids[0]), r#"{"reason":"again"}"#).status, 409);
    assert!(!daemon.command(&["failures", "discard", ids[3], "--reason", "again"]).status.success());

    daemon.wait_for("the account", Duration::from_secs(10), |daemon| daemon.metric("belayd_readings_stored_total") == 17.0);
    assert_eq!((daemon.metric("belayd_readings_dead"), daemon.metric("belayd_conservation_violation")), (1.0, 0.0));
    let audit = daemon.get("/admin/audit?limit=1000").json()["items"].as_array().cloned().unwrap_or_default();
    let told = |id: &str| -> Vec<(String, String)> {
        let of = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let mine = audit.iter().rev().filter(|row| row["subject"].as_str().is_some_and(|subject| subject.contains(id)));
        mine.map(|row| (of(row, "action"), of(row, "reason"))).collect()
    };
    for id in [ids[0], ids[1]] {
        let reasons: Vec<_> = told(id).into_iter().map(|(_, reason)| reason).collect();
        assert!(reasons.starts_with(&["too early".to_owned(), "rule gone".to_owned()]), "{id}: {:?}", told(id));
    }
    for id in [ids[2], ids[3]] {
        assert!(
            told(id).first().is_some_and(|(action, reason)| action.contains("discard") && reason == "test data"),
            "{:?}",
            told(id)
        );
    }
}

fn setup() -> Setup {
    Setup::with("[buffer]\nflush_interval = \"100ms\"\n")
}

#[test]
fn dead_letters_are_decided_over_http_and_the_command_line_on_sqlite() {
    let daemon = setup().start();
    let file = daemon.dir().join("belayd.db");
    let run = |sql: &str| {
        let mut conn = SqliteConnection::establish(Path::to_str(&file).expect("a plain path")).expect("the database");
        conn.batch_execute("PRAGMA busy_timeout = 10000").expect("patient");
        conn.batch_execute(sql).expect("the rule");
    };
    daemon.wait_for("migrated", Duration::from_secs(10), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    run(
        "CREATE TRIGGER no_devils BEFORE INSERT ON readings WHEN new.rpm = 666 BEGIN SELECT RAISE(ABORT, 'rpm 666 is not wanted here'); END",
    );
    decide_on_all(&daemon, "SQLITE_CONSTRAINT_TRIGGER", &|_| run("DROP TRIGGER no_devils"));
}

#[test]
fn dead_letters_are_decided_over_http_and_the_command_line_on_postgresql() {
    if !postgres::is_installed() {
        crate::support::left_out("dead letters on PostgreSQL, because its binaries are not installed (tests/run installs them)");
        return;
    }
    let server = Postgres::start(&["fsync=off"]);
    let daemon = setup().store(&server.url("postgres")).start();
    let run = |sql: &str| {
        let mut conn = PgConnection::establish(&server.url("postgres")).expect("the server answers");
        conn.batch_execute(sql).expect("the rule");
    };
    daemon.wait_for("migrated", Duration::from_secs(20), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    run("ALTER TABLE readings ADD CONSTRAINT no_devils CHECK (rpm <> 666)");
    decide_on_all(&daemon, "23514", &|_| run("ALTER TABLE readings DROP CONSTRAINT no_devils"));
}
