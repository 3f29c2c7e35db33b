//! What happens to the journal's readings when the disk, a restore or a fault takes something away: through the whole daemon, seen from
//! outside by alerts, metrics and rows. PostgreSQL needs its binaries; see `tests/run`.

use std::{fs, path::PathBuf, thread, time::Duration};

use diesel::{connection::SimpleConnection, prelude::*, sql_query, sql_types::Text};
use serde_json::Value;

use super::backup::{Side, done, on_both, path, said};
use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
};

/// Small, so that its segments are of 1 MB and roll.
pub(super) const SMALL: &str = "journal_bytes = \"8MB\"\n";
/// What waits, waits for the test.
pub(super) const SLOW: &str = "[buffer]\nflush_interval = \"1h\"\nbatch_rows = 100000\n";

fn batch(from: i64, rows: i64) -> String {
    let reading = |n: i64| {
        format!(r#"{{"engineId":"e{}","timestamp":{},"temperature":300,"vibration":{n}}}"#, n % 7, 1_700_000_000_000_i64 + n)
    };
    format!("[{}]", (from..from + rows).map(reading).collect::<Vec<_>>().join(","))
}

/// Pushes in parts of 1,000; each is acknowledged at level `journal`.
pub(super) fn push(daemon: &Daemon, from: i64, rows: i64) {
    let client = Client::new(&daemon.address, &daemon.token);
    for from in (from..from + rows).step_by(1_000) {
        let answer = client.post("/api/readings?ack=journal", &batch(from, 1_000));
        assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("journal")), "{answer:?}");
    }
}

/// The database has been opened and has all there is: what comes from now on waits, where the configuration says so.
pub(super) fn settle(daemon: &Daemon) {
    let answer = daemon.post("/api/readings?ack=store", r#"{"engineId":"first","rpm":1}"#);
    assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("store")), "{answer:?}");
    daemon.drained();
}

pub(super) fn alert(daemon: &Daemon, name: &str) -> Option<Value> {
    let alerts = daemon.get("/api/alerts").json();
    alerts["items"].as_array().and_then(|all| all.iter().find(|alert| alert["name"] == name).cloned())
}

pub(super) fn wait_for_alert(daemon: &Daemon, name: &str) -> Value {
    daemon.wait_for(name, Duration::from_secs(20), |daemon| alert(daemon, name).is_some_and(|alert| alert["state"] != "resolved"));
    alert(daemon, name).expect("just seen")
}

fn readings_of(side: &Side, daemon: &Daemon) -> usize {
    side.keys(daemon).len()
}

pub(super) fn segments(daemon: &Daemon) -> Vec<PathBuf> {
    let files = fs::read_dir(daemon.dir().join("data/journal")).expect("the journal").flatten().map(|file| file.path());
    let mut found: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "seg")).collect();
    found.sort();
    found
}

#[test]
fn what_waits_in_the_journal_is_in_the_backup_and_is_stored_after_the_restore_without_an_alarm() {
    on_both(|from, to| {
        let daemon = from.setup_with(SLOW).start();
        settle(&daemon);
        push(&daemon, 0, 3_000);
        assert_eq!(readings_of(&from, &daemon), 1, "the others are not stored yet");
        let file = daemon.dir().join("backup.tar.gz");
        assert!(done(&daemon, &["backup", path(&file)]).contains(" of the journal"));
        // The drain stores at a stop, and the backup does not know.
        let mut other = to.setup_with("[buffer]\nflush_interval = \"50ms\"\n").bare();
        done(&other, &["restore", path(&file)]);
        other.token.clone_from(&daemon.token);
        other.start_again();
        other.drained();
        assert_eq!(readings_of(&to, &other), 3_001);
        for name in ["directory-restored", "store-restored", "journal-damaged", "readings-lost"] {
            assert!(alert(&other, name).is_none(), "{name}");
        }
        push(&other, 3_000, 1_000);
        other.drained();
        assert_eq!(readings_of(&to, &other), 4_001);
        assert_eq!(other.metric("belayd_conservation_violation"), 0.0);
        assert_eq!(other.metric("belayd_readings_duplicate_total"), 0.0);
    });
}

#[test]
fn an_older_directory_beside_a_newer_database_goes_on_under_a_new_stream_and_says_so() {
    on_both(|from, _| {
        let mut daemon = from.setup().start();
        push(&daemon, 0, 2_000);
        daemon.drained();
        let file = daemon.dir().join("backup.tar.gz");
        done(&daemon, &["backup", path(&file)]);
        push(&daemon, 2_000, 2_000);
        daemon.drained();
        assert!(daemon.stop().success());
        done(&daemon, &["restore", path(&file), "--only", "directory", "--replace"]);
        daemon.start_again();
        wait_for_alert(&daemon, "directory-restored");
        push(&daemon, 4_000, 1_000);
        daemon.drained();
        assert_eq!(readings_of(&from, &daemon), 5_000, "nothing is lost and nothing is there twice");
        assert!(alert(&daemon, "readings-lost").is_none());
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
        assert_eq!(daemon.metric("belayd_readings_conflict_total"), 0.0);
    });
}

#[test]
fn an_older_database_beside_a_newer_journal_gets_what_the_journal_has_and_the_rest_is_named_lost() {
    on_both(|from, _| {
        let mut daemon = from.setup_with(&format!("[buffer]\nflush_interval = \"50ms\"\n{SMALL}")).start();
        push(&daemon, 0, 1_000);
        daemon.drained();
        let file = daemon.dir().join("backup.tar.gz");
        done(&daemon, &["backup", path(&file)]);
        // Little more: the journal still has it.
        push(&daemon, 1_000, 1_000);
        daemon.drained();
        assert!(daemon.stop().success());
        done(&daemon, &["restore", path(&file), "--only", "database", "--replace"]);
        assert_eq!(readings_of(&from, &daemon), 1_000);
        daemon.start_again();
        daemon.wait_for("stored again", Duration::from_secs(20), |daemon| readings_of(&from, daemon) == 2_000);
        assert_eq!(daemon.metric("belayd_readings_lost_total{reason=\"restored\"}"), 0.0);

        // Much more: its segments were dropped as the database had them.
        let first = segments(&daemon).first().cloned();
        for turn in 0..100 {
            push(&daemon, 2_000 + turn * 2_000, 2_000);
            daemon.drained();
            if segments(&daemon).first() != first.as_ref() {
                break;
            }
        }
        assert!(segments(&daemon).first() != first.as_ref(), "no segment was dropped");
        let stored = readings_of(&from, &daemon);
        assert!(daemon.stop().success());
        done(&daemon, &["restore", path(&file), "--only", "database", "--replace"]);
        daemon.start_again();
        wait_for_alert(&daemon, "store-restored");
        wait_for_alert(&daemon, "readings-lost");
        daemon.drained();
        let lost = daemon.metric("belayd_readings_lost_total{reason=\"restored\"}") as usize;
        assert!(lost > 0);
        assert_eq!(readings_of(&from, &daemon), stored - lost, "exactly as many as it says");
        assert!(daemon.metric("belayd_data_loss_ratio") > 0.0);
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
        push(&daemon, 1_000_000, 1_000);
        daemon.drained();
        assert_eq!(readings_of(&from, &daemon), stored - lost + 1_000);
    });
}

#[test]
fn a_damaged_frame_is_found_by_verify_and_by_the_daemon_counted_alarmed_and_set_aside() {
    let mut daemon = Setup::with(&format!("{SLOW}{SMALL}")).start();
    settle(&daemon);
    push(&daemon, 0, 19_000);
    let receipt_of_the_last = daemon.post("/api/readings?ack=journal", &batch(19_000, 1_000)).json()["receipt"].clone();
    assert_eq!(daemon.metric("belayd_readings_buffered"), 20_000.0);
    assert!(done(&daemon, &["journal", "verify"]).contains("whole"));
    daemon.kill();
    let segment = segments(&daemon).first().cloned().expect("a segment");
    let mut bytes = fs::read(&segment).expect("readable");
    bytes[400_000] ^= 1;
    fs::write(&segment, bytes).expect("writable");
    let verified = daemon.command(&["journal", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!((report["whole"].as_bool(), report["damage"].as_array().map(Vec::len)), (Some(false), Some(1)));
    assert!(!daemon.dir().join("data/journal/quarantine").exists_with_files(), "verify changes nothing");
    // Nothing was passed over before: the journal's positions are the numbers of the only stream.
    let damaged = report["damage"][0]["readings"]["firstPosition"].as_u64().expect("a header tells");

    daemon.start_again();
    let asked = Client::new(&daemon.address, &daemon.token);
    // A waiter for the store flushes all that waits.
    assert_eq!(asked.post("/api/readings?ack=store", r#"{"engineId":"fresh","rpm":1}"#).status, 202);
    daemon.drained();
    wait_for_alert(&daemon, "journal-damaged");
    wait_for_alert(&daemon, "readings-lost");
    let quarantined = daemon.metric("belayd_readings_lost_total{reason=\"quarantined\"}");
    assert!((1.0..=4_096.0).contains(&quarantined), "{quarantined}");
    assert_eq!(daemon.metric("belayd_readings_stored_total"), 20_002.0 - quarantined);
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
    let stream = receipt_of_the_last["stream"].as_str().expect("a stream");
    let state = |seq: u64| daemon.get(&format!("/api/receipts/{stream}/{seq}")).json()["state"].clone();
    assert_eq!((state(damaged), state(damaged - 1)), ("quarantined".into(), "stored".into()));
    assert_eq!(receipt(&daemon, &receipt_of_the_last, 999), "stored");
    assert!(daemon.dir().join("data/journal/quarantine").exists_with_files());
}

/// Cuts the last segment that holds readings in the middle of them.
fn cut_the_last(daemon: &Daemon) {
    let whole = |path: &PathBuf| fs::read(path).expect("readable");
    let used = |path: &PathBuf| whole(path).iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let path = segments(daemon).into_iter().rfind(|path| used(path) > 8_192).expect("a segment with readings");
    let half = (8_192 + used(&path)) / 2;
    fs::OpenOptions::new().write(true).open(&path).expect("writable").set_len(half as u64).expect("cut");
}

#[test]
fn an_end_that_is_cut_off_after_a_crash_is_told_as_a_loss_that_cannot_be_counted() {
    let mut daemon = Setup::with(&format!("{SLOW}{SMALL}")).start();
    settle(&daemon);
    push(&daemon, 0, 5_000);
    assert_eq!(daemon.metric("belayd_journal_lost_ends"), 0.0);
    daemon.kill();
    cut_the_last(&daemon);
    let verified = daemon.command(&["journal", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1), "{}", said(&verified));
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    let last = report["lostEnds"][0]["lastKnownSeq"].as_u64().expect("the last known number");
    assert!((1..5_001).contains(&last), "{report}");

    daemon.start_again();
    let told = wait_for_alert(&daemon, "journal-damaged").to_string();
    assert!(told.contains(&format!("behind number {last} ")) && told.contains("how many is not known"), "{told}");
    assert_eq!(daemon.metric("belayd_journal_lost_ends"), 1.0);
    let asked = Client::new(&daemon.address, &daemon.token);
    assert_eq!(asked.post("/api/readings?ack=store", r#"{"engineId":"fresh","rpm":1}"#).status, 202);
    daemon.drained();
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
    daemon.kill();
    daemon.start_again();
    assert_eq!(daemon.metric("belayd_journal_lost_ends"), 1.0, "a restart does not forget it");
    let stat: Value = serde_json::from_slice(&daemon.command(&["journal", "stat", "--json"]).stdout).expect("JSON");
    assert_eq!(stat["lostEnds"][0]["lastKnownSeq"].as_u64(), Some(last));
}

#[test]
fn an_end_that_is_cut_off_after_an_orderly_stop_is_counted_to_the_last_reading() {
    let mut daemon = Setup::with(&format!("{SLOW}{SMALL}")).start();
    settle(&daemon);
    push(&daemon, 0, 5_000);
    daemon.stop();
    let stored = daemon.command(&["journal", "stat", "--json"]);
    let stat: Value = serde_json::from_slice(&stored.stdout).expect("JSON");
    let next = stat["lanes"][0]["nextSeq"].as_u64();
    cut_the_last(&daemon);
    let verified = daemon.command(&["journal", "verify", "--json"]);
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!((report["whole"].as_bool(), report["lanes"][0]["nextSeq"].as_u64()), (Some(false), next), "{report}");
    assert_eq!(report["lostEnds"].as_array().map(Vec::len), Some(0));
}

trait HasFiles {
    fn exists_with_files(&self) -> bool;
}

impl HasFiles for PathBuf {
    fn exists_with_files(&self) -> bool {
        fs::read_dir(self).is_ok_and(|mut files| files.next().is_some())
    }
}

#[test]
fn a_journal_that_fills_up_is_alarmed_before_it_refuses_and_the_alarm_ends_when_it_is_drained() {
    if !postgres::is_installed() {
        crate::support::left_out("a journal that fills up, because PostgreSQL's binaries are not installed");
        return;
    }
    let mut server = Postgres::start(&["fsync=off"]);
    let more = format!("[buffer]\nflush_interval = \"50ms\"\n{SMALL}[monitor]\ninterval = \"200ms\"\n");
    let daemon = Setup::with(&more).store(&server.url("postgres")).start();
    push(&daemon, 0, 1_000);
    daemon.drained();
    assert_eq!(daemon.metric("belayd_buffer_bound_bytes"), 8_000_000.0);
    server.crash();
    let client = Client::new(&daemon.address, &daemon.token);
    let (mut next, mut alarmed_first) = (1_000, false);
    loop {
        let answer = client.post("/api/readings?ack=journal", &batch(next, 1_000));
        if answer.status == 503 {
            assert!(answer.head.contains("retry-after"), "{answer:?}");
            break;
        }
        assert_eq!(answer.status, 202, "{answer:?}");
        next += 1_000;
        alarmed_first |= alert(&daemon, "journal-filling").is_some();
        assert!(next < 1_000_000, "it never refuses");
        thread::sleep(Duration::from_millis(150));
    }
    assert!(daemon.metric("belayd_full_in_seconds{what=\"journal\"}") < 60.0);
    assert!(alarmed_first, "refused before the alarm, after {next} readings");
    let text = alert(&daemon, "journal-filling").expect("open")["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("full in about") && text.contains("raise buffer.journal_bytes"), "{text}");
    server.restart();
    daemon.wait_for("caught up", Duration::from_secs(60), |daemon| daemon.metric("belayd_readings_buffered") == 0.0);
    daemon.wait_for("resolved", Duration::from_secs(60), |daemon| {
        alert(daemon, "journal-filling").is_some_and(|alert| alert["state"] == "resolved")
    });
    assert_eq!(daemon.metric("belayd_readings_stored_total"), next as f64);
}

fn receipt(daemon: &Daemon, receipt: &Value, nth: u64) -> String {
    let (stream, first) = (receipt["stream"].as_str().expect("a stream"), receipt["firstSeq"].as_u64().expect("a number"));
    let answer = daemon.get(&format!("/api/receipts/{stream}/{}", first + nth));
    answer.json()["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn numbers_acknowledged_after_a_backup_are_not_given_to_other_readings_after_its_restore() {
    on_both(|from, to| {
        let daemon = from.setup_with(SLOW).start();
        settle(&daemon);
        push(&daemon, 0, 1_000);
        let file = daemon.dir().join("backup.tar.gz");
        done(&daemon, &["backup", path(&file)]);
        let late = daemon.post("/api/readings?ack=journal", &batch(1_000, 1_000)).json()["receipt"].clone();
        let mut other = to.setup_with("[buffer]\nflush_interval = \"50ms\"\n").bare();
        done(&other, &["restore", path(&file)]);
        other.token.clone_from(&daemon.token);
        other.start_again();
        let fresh = other.post("/api/readings?ack=store", &batch(5_000, 1_000)).json()["receipt"].clone();
        assert_ne!(fresh["stream"], late["stream"]);
        other.drained();
        assert_eq!(receipt(&other, &late, 0), "lost", "what the restore does not have");
        assert_eq!(receipt(&other, &fresh, 0), "stored");
        assert_eq!(other.metric("belayd_readings_duplicate_total"), 0.0);
        // The mark has done its duty: another start goes on as usual.
        assert!(other.stop().success());
        other.start_again();
        let next = other.post("/api/readings?ack=store", &batch(6_000, 1_000)).json()["receipt"].clone();
        assert_eq!(next["stream"], fresh["stream"]);
        assert_eq!(other.metric("belayd_conservation_violation"), 0.0);
    });
}

#[test]
fn nor_are_they_where_the_directory_alone_comes_back_and_the_database_stands_within_what_it_holds() {
    on_both(|from, _| {
        let mut daemon = from.setup_with(SLOW).start();
        settle(&daemon);
        push(&daemon, 0, 1_000);
        let file = daemon.dir().join("backup.tar.gz");
        done(&daemon, &["backup", path(&file)]);
        let late = daemon.post("/api/readings?ack=journal", &batch(1_000, 1_000)).json()["receipt"].clone();
        daemon.kill();
        done(&daemon, &["restore", path(&file), "--only", "directory", "--replace"]);
        daemon.start_again();
        wait_for_alert(&daemon, "directory-restored");
        let fresh = daemon.post("/api/readings?ack=store", &batch(5_000, 1_000)).json()["receipt"].clone();
        assert_ne!(fresh["stream"], late["stream"]);
        daemon.drained();
        assert_eq!((receipt(&daemon, &late, 0), receipt(&daemon, &fresh, 0)), ("lost".to_owned(), "stored".to_owned()));
        assert_eq!(readings_of(&from, &daemon), 2_001, "what waited at the backup, and what came after the restore");
        assert_eq!(daemon.metric("belayd_readings_duplicate_total"), 0.0, "the mark says what the database has already");
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
        // It was a moment: the next start goes on as usual, and ends the alert.
        assert!(daemon.stop().success());
        daemon.start_again();
        let over = |daemon: &Daemon| alert(daemon, "directory-restored").is_some_and(|alert| alert["state"] == "resolved");
        daemon.wait_for("the alert's end", Duration::from_secs(60), over);
        let next = daemon.post("/api/readings?ack=store", &batch(6_000, 1_000)).json()["receipt"].clone();
        assert_eq!(next["stream"], fresh["stream"]);
    });
}

#[test]
fn a_receipt_says_lost_where_the_journals_end_is_gone() {
    let mut daemon = Setup::with(SLOW).start();
    settle(&daemon);
    push(&daemon, 0, 1_000);
    let gone = daemon.post("/api/readings?ack=journal", &batch(1_000, 1_000)).json()["receipt"].clone();
    daemon.kill();
    let segment = segments(&daemon).last().cloned().expect("a segment");
    let file = fs::OpenOptions::new().write(true).open(segment).expect("writable");
    file.set_len(40_000).expect("cut");
    daemon.start_again();
    settle(&daemon);
    assert_eq!(receipt(&daemon, &gone, 999), "lost");
}

#[test]
fn a_database_that_comes_back_empty_is_migrated_and_takes_what_waits() {
    for tier in ["journal", "memory"] {
        let daemon = Setup::with(&format!("[buffer]\nflush_interval = \"50ms\"\ntier = \"{tier}\"\n")).start();
        let client = Client::new(&daemon.address, &daemon.token);
        let push = |from| assert_eq!(client.post("/api/readings", &batch(from, 1_000)).status, 202);
        push(0);
        daemon.drained();
        empty(&daemon);
        push(1_000);
        daemon.wait_for("what waited", Duration::from_secs(20), |daemon| daemon.metric("belayd_readings_buffered") == 0.0);
        let stored = readings_of(&Side::Sqlite, &daemon);
        let lost = daemon.metric("belayd_readings_lost_total{reason=\"restored\"}") as usize;
        assert_eq!(stored + lost, 2_000, "tier {tier}: {stored} stored, {lost} lost");
        assert!(stored >= 1_000 && (tier == "memory" || lost == 0), "tier {tier}: {lost} lost");
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0, "tier {tier}");
    }
}

/// Takes every table away, as a server would be that was set up anew.
fn empty(daemon: &Daemon) {
    let mut conn = SqliteConnection::establish(path(&daemon.dir().join("belayd.db"))).expect("it opens");
    conn.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").expect("a lock");
    #[derive(QueryableByName)]
    struct Name {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let tables: Vec<Name> = sql_query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .load(&mut conn)
        .expect("its tables");
    for table in tables {
        conn.batch_execute(&format!("DROP TABLE {}", table.name)).expect("dropped");
    }
    conn.batch_execute("COMMIT").expect("committed");
}
