//! Files of the journal that somebody removes while belayd runs and the database is away: missed by the integrity check, and written elsewhere.

use std::time::Duration;

use crate::{
    redis::{
        account,
        compared::compared_by,
        room::{alert, push_bulky},
        stored,
    },
    support::{
        daemon::{Daemon, Setup},
        postgres::{self, Postgres},
    },
};

#[test]
fn a_file_of_the_journal_that_somebody_removed_is_told_while_it_can_be_put_back() {
    if !postgres::is_installed() {
        return;
    }
    let mut database = Postgres::start(&["fsync=off"]);
    let daemon = Setup::with("[buffer]\njournal_bytes = \"8MB\"\nstreams = 1\nflush_interval = \"100ms\"\n")
        .store(&database.url("postgres"))
        .start();
    database.crash();
    let journal = daemon.dir().join("data/journal");
    let segments = || {
        let mut files: Vec<_> =
            std::fs::read_dir(&journal).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        files.retain(|path| path.extension().is_some_and(|end| end == "seg"));
        files.sort();
        files
    };
    let mut pushed = 0;
    while segments().len() < 5 {
        push_bulky(&daemon, pushed, pushed + 100);
        pushed += 100;
    }
    let compared = |daemon: &Daemon| compared_by(daemon, "journal");
    let whole = compared(&daemon);
    assert_eq!((whole["waitingMissing"], whole["readings"]), (0, pushed as u64), "{whole:?}");

    let (file, aside) = (segments().swap_remove(1), journal.join("aside"));
    std::fs::rename(&file, &aside).expect("moved");
    let found = compared(&daemon);
    let missing = found["waitingMissing"];
    assert!(missing > 0 && found["readings"] == pushed as u64 - missing, "{found:?}");
    assert_eq!(daemon.metric("belayd_integrity_journal_missing_rows"), missing as f64);
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| alert(daemon, "journal-incomplete") == "firing");
    std::fs::rename(&aside, &file).expect("moved back");
    assert_eq!(compared(&daemon)["waitingMissing"], 0);
    daemon.wait_for("over", Duration::from_secs(10), |daemon| alert(daemon, "journal-incomplete") == "resolved");

    database.restart();
    daemon.wait_for("stored", Duration::from_secs(60), |daemon| daemon.metric("belayd_readings_stored_total") == pushed as f64);
    assert_eq!(daemon.metric("belayd_readings_lost_total{reason=\"quarantined\"}"), 0.0);
}

#[test]
fn what_is_acknowledged_after_the_journals_files_were_removed_survives_a_kill_and_what_was_in_them_is_told() {
    if !postgres::is_installed() {
        return;
    }
    let mut database = Postgres::start(&["fsync=off"]);
    let mut daemon = Setup::with("[buffer]\nstreams = 1\nflush_interval = \"100ms\"\n").store(&database.url("postgres")).start();
    push_bulky(&daemon, 0, 100);
    assert_eq!(daemon.drained(), 100);
    database.crash();
    push_bulky(&daemon, 100, 200);
    for entry in std::fs::read_dir(daemon.dir().join("data/journal")).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "seg") {
            std::fs::remove_file(path).expect("removed");
        }
    }
    daemon.wait_for("noticed", Duration::from_secs(30), |daemon| alert(daemon, "journal-damaged") == "firing");
    push_bulky(&daemon, 200, 300);
    daemon.kill();
    database.restart();
    daemon.start_again();
    daemon.wait_for("stored", Duration::from_secs(60), |daemon| daemon.metric("belayd_readings_stored_total") == 200.0);
    let mut there = stored(&daemon);
    there.sort_unstable();
    assert!(there == (0..100).chain(200..300).collect::<Vec<_>>(), "{} readings", there.len());
    // Of the hundred that were in them nobody could say that they are elsewhere.
    let lost = account(&daemon)["total"]["lost"].as_u64();
    assert_eq!((lost, account(&daemon)["difference"].as_i64()), (Some(100), Some(0)));
    daemon.wait_for("told", Duration::from_secs(10), |daemon| alert(daemon, "store-restored") == "firing");
}
