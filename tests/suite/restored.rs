//! What happens to the journal's readings when the disk, a restore or a fault takes something away: through the whole daemon, seen from
//! outside by alerts, metrics and rows. PostgreSQL needs its binaries; see `tests/run`.

use std::{fs, path::PathBuf, thread, time::Duration};

use serde_json::Value;

use super::backup::{Side, done, on_both, path, said};
use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
};

/// Small, so that its segments are of 1 MB and roll.
const SMALL: &str = "journal_bytes = \"8MB\"\n";
/// What waits, waits for the test.
const SLOW: &str = "[buffer]\nflush_interval = \"1h\"\nbatch_rows = 100000\n";

fn batch(from: i64, rows: i64) -> String {
    let reading = |n: i64| {
        format!(r#"{{"engineId":"e{}","timestamp":{},"temperature":300,"vibration":{n}}}"#, n % 7, 1_700_000_000_000_i64 + n)
    };
    format!("[{}]", (from..from + rows).map(reading).collect::<Vec<_>>().join(","))
}

/// Pushes in parts of 1,000; each is acknowledged at level `journal`.
fn push(daemon: &Daemon, from: i64, rows: i64) {
    let client = Client::new(&daemon.address, &daemon.token);
    for from in (from..from + rows).step_by(1_000) {
        let answer = client.post("/api/readings?ack=journal", &batch(from, 1_000));
        assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("journal")), "{answer:?}");
    }
}

/// The database has been opened and has all there is: what comes from now on waits, where the configuration says so.
fn settle(daemon: &Daemon) {
    let answer = daemon.post("/api/readings?ack=store", r#"{"engineId":"first","rpm":1}"#);
    assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("store")), "{answer:?}");
    daemon.drained();
}

fn alert(daemon: &Daemon, name: &str) -> Option<Value> {
    let alerts = daemon.get("/api/alerts").json();
    alerts["items"].as_array().and_then(|all| all.iter().find(|alert| alert["name"] == name).cloned())
}

fn wait_for_alert(daemon: &Daemon, name: &str) -> Value {
    daemon.wait_for(name, Duration::from_secs(20), |daemon| alert(daemon, name).is_some_and(|alert| alert["state"] != "resolved"));
    alert(daemon, name).expect("just seen")
}

fn readings_of(side: &Side, daemon: &Daemon) -> usize {
    side.keys(daemon).len()
}

fn segments(daemon: &Daemon) -> Vec<PathBuf> {
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
    push(&daemon, 0, 20_000);
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
    assert!(daemon.dir().join("data/journal/quarantine").exists_with_files());
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
