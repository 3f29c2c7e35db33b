//! The integrity check through the whole daemon, and who may work on a data directory and its tables.

use std::time::Duration;

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use crate::support::{
    daemon::{Daemon, Setup},
    rows::number,
};

pub(crate) fn check(daemon: &Daemon) -> serde_json::Value {
    let before = daemon.metric("belayd_integrity_pass_timestamp_seconds");
    assert_eq!(daemon.post("/admin/duties/integrity/run", r#"{"reason":"drill"}"#).status, 202);
    daemon.wait_for("checked", Duration::from_secs(20), |daemon| daemon.metric("belayd_integrity_pass_timestamp_seconds") > before);
    daemon.get("/admin/duties").json()["integrity"].clone()
}

pub(crate) fn alter(daemon: &Daemon, sql: &str) {
    let path = daemon.dir().join("belayd.db");
    let mut conn = SqliteConnection::establish(path.to_str().expect("a plain path")).expect("opens");
    conn.batch_execute("PRAGMA busy_timeout = 10000").expect("a pragma");
    conn.batch_execute(sql).expect("plain SQL");
}

fn alert(daemon: &Daemon) -> Option<String> {
    let alerts = daemon.get("/api/alerts").json();
    let found = alerts["items"].as_array()?.iter().find(|alert| alert["name"] == "integrity")?.clone();
    found["state"].as_str().map(str::to_owned)
}

#[test]
fn what_vanished_or_is_there_twice_is_measured_and_alarmed_until_it_is_mended() {
    // In tier memory nothing lies before the database that could mend it.
    let daemon = Setup::with("[buffer]\ntier = \"memory\"\nflush_interval = \"100ms\"\n").start();
    for n in 0..100 {
        let body = format!(r#"{{"engineId":"e","timestamp":{},"rpm":1}}"#, 1_700_000_000_000_i64 + n);
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    }
    assert_eq!(daemon.drained(), 100);
    let found = check(&daemon);
    assert_eq!(
        (&found["rows"], &found["missing"], &found["twice"], &found["ledgerFaults"]),
        (&100.into(), &0.into(), &0.into(), &0.into())
    );
    assert_eq!(alert(&daemon), None);
    assert!(daemon.metric("belayd_integrity_rows_total") >= 100.0);

    alter(
        &daemon,
        "INSERT INTO readings (engine_id, observed_at_us, stream_no, seq, created_at_us)
         SELECT 'copy', observed_at_us, stream_no, seq, created_at_us FROM readings WHERE seq = 7",
    );
    let found = check(&daemon);
    assert_eq!(found["twice"], 1, "{found}");
    assert!(daemon.metric("belayd_duplicate_ratio") > 0.0);
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| alert(daemon).as_deref() == Some("firing"));

    // Without its trigger nobody counts the deletion: two readings are gone, one of them the copy.
    alter(&daemon, "DROP TRIGGER readings_removed; DELETE FROM readings WHERE engine_id = 'copy' OR seq = 9");
    let found = check(&daemon);
    assert_eq!((&found["missing"], &found["twice"]), (&1.into(), &0.into()), "{found}");
    assert_eq!(daemon.metric("belayd_integrity_missing_rows"), 1.0);
    alter(&daemon, "UPDATE readings SET seq = 9 WHERE seq = 9; INSERT INTO removed_readings SELECT no, 0, 1 FROM streams");
    check(&daemon);
    daemon.wait_for("over", Duration::from_secs(10), |daemon| alert(daemon).as_deref() == Some("resolved"));

    alter(&daemon, "UPDATE streams SET duplicate = 5");
    let found = check(&daemon);
    assert_eq!((&found["repaired"], &found["ledgerFaults"]), (&1.into(), &1.into()), "{found}");
    assert_eq!(daemon.metric("belayd_integrity_repaired_total"), 1.0);
}

#[test]
fn what_the_journal_still_has_is_stored_again_and_what_was_deleted_stays_away() {
    let daemon = Setup::with("[buffer]\nflush_interval = \"100ms\"\n").start();
    let push = |n: i64| {
        let body = format!(r#"{{"engineId":"e","timestamp":{},"rpm":{n}}}"#, 1_700_000_000_000_i64 + n);
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    };
    (0..100).for_each(push);
    // A repeat has a number and no row.
    push(50);
    assert_eq!(daemon.drained(), 100);
    alter(
        &daemon,
        "CREATE TABLE kept AS SELECT * FROM readings; DROP TRIGGER readings_removed; DELETE FROM readings WHERE rpm < 10",
    );
    let found = check(&daemon);
    assert_eq!((&found["restored"], &found["missing"], &found["twice"]), (&10.into(), &0.into(), &0.into()), "{found}");
    assert_eq!(daemon.metric("belayd_integrity_restored_total"), 10.0);
    assert_eq!(alert(&daemon), None, "nothing is missing any more");
    let path = daemon.dir().join("belayd.db");
    let columns = "engine_id, observed_at_us, rpm, stream_no, seq, created_at_us";
    let other = format!("SELECT count(*) AS n FROM (SELECT {columns} FROM kept EXCEPT SELECT {columns} FROM readings)");
    assert_eq!(number(&path, &other), 0, "they are as they were");

    // Where a person has deleted something, nobody can tell which of the missing ones that was.
    alter(&daemon, "INSERT INTO removed_readings SELECT no, 0, 1 FROM streams; DELETE FROM readings WHERE rpm < 3");
    let found = check(&daemon);
    assert_eq!((&found["restored"], &found["missing"]), (&0.into(), &2.into()), "{found}");
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| alert(daemon).as_deref() == Some("firing"));
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let daemon = Setup::default().start();
    let second = daemon.command(&["run"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another belayd") && said.contains(&format!("process {}", daemon.pid())), "{said}");
    assert_eq!(daemon.post("/api/readings?ack=store", r#"{"engineId":"e","rpm":1}"#).status, 202);
}

#[test]
fn a_claim_that_the_database_refuses_is_counted_and_the_delivery_leaves_later() {
    let daemon = Setup::with("[outbox]\npoll_interval = \"100ms\"\n").start();
    let control = daemon.dir().join("data/control.db");
    let rename = |from: &str, to: &str| {
        let mut conn = SqliteConnection::establish(control.to_str().expect("a plain path")).expect("opens");
        conn.batch_execute("PRAGMA busy_timeout = 10000; PRAGMA legacy_alter_table = ON").expect("a pragma");
        conn.batch_execute(&format!("ALTER TABLE {from} RENAME TO {to}")).expect("renamed");
    };
    rename("deliveries", "elsewhere");
    daemon.wait_for("counted", Duration::from_secs(20), |daemon| daemon.metric("belayd_claim_failures_total") >= 1.0);
    rename("elsewhere", "deliveries");
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"hot","temperature":400}"#).status, 202);
    daemon.wait_for("told", Duration::from_secs(20), |daemon| {
        daemon.log().lines().any(|line| line.contains("deliveryId") && line.contains("overheat"))
    });
}

#[test]
fn a_pass_that_was_killed_in_the_middle_goes_on_from_its_place_and_its_result_outlives_a_restart() {
    const PUSHES: i64 = 12;
    const EACH: i64 = 10_000;
    let mut daemon = Setup::with("[buffer]\nflush_interval = \"100ms\"\n").start();
    let limit = Duration::from_secs(120);
    // The first one, over nothing, is due at once.
    daemon.wait_for("checked", limit, |daemon| daemon.metric("belayd_integrity_pass_timestamp_seconds") > 0.0);
    for push in 0..PUSHES {
        let one = |n: i64| format!(r#"{{"engineId":"e","timestamp":{},"rpm":1}}"#, 1_700_000_000_000_i64 + push * EACH + n);
        let body = format!("[{}]", (0..EACH).map(one).collect::<Vec<_>>().join(","));
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    }
    assert_eq!(daemon.drained() as i64, PUSHES * EACH);
    let control = daemon.dir().join("data/control.db");
    let place = "FROM duty_notes WHERE name = 'integrity/place'";
    let noted = || number(&control, &format!("SELECT count(*) AS n {place}")) == 1;
    let shown = |daemon: &Daemon| daemon.get("/admin/duties").json()["integrity"].clone();
    // Where the pass is over before the kill comes, it is tried again.
    for attempt in 0.. {
        assert!(attempt < 20, "never killed in the middle");
        let before = shown(&daemon);
        assert_eq!(daemon.post("/admin/duties/integrity/run", r#"{"reason":"drill"}"#).status, 202);
        daemon.wait_for("under way", limit, |daemon| noted() || shown(daemon) != before);
        daemon.kill();
        if noted() {
            break;
        }
        daemon.start_again();
    }
    let compared = number(&control, &format!("SELECT json_extract(note, '$.found.rows') AS n {place}"));
    assert!((1..PUSHES * EACH).contains(&compared), "{compared}");
    daemon.start_again();
    assert!(shown(&daemon)["endedAt"].is_string(), "what the pass before found is still shown");
    let found = check(&daemon);
    assert_eq!((&found["rows"], &found["missing"], &found["twice"]), (&(PUSHES * EACH).into(), &0.into(), &0.into()), "{found}");
    assert_eq!(daemon.metric("belayd_integrity_rows_total") as i64, PUSHES * EACH - compared, "the rest, and no more");
    assert!(!noted(), "it is at its end");
    daemon.stop();
    daemon.start_again();
    assert_eq!(shown(&daemon), found);
}
