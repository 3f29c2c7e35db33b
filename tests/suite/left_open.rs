//! Alerts across restarts: one that an earlier run left open goes on while nobody can know whether it is over.

use std::{fs, path::PathBuf, time::Duration};

use super::restored::{SLOW, SMALL, push, segments, settle, wait_for_alert};
use crate::support::daemon::{Daemon, Setup};

#[test]
fn an_alert_of_lost_readings_is_not_over_while_nobody_can_know() {
    let mut daemon = Setup::with(&format!("{SLOW}{SMALL}[monitor]\ninterval = \"200ms\"\n")).start();
    settle(&daemon);
    push(&daemon, 0, 20_000);
    daemon.kill();
    let segment = segments(&daemon).first().cloned().expect("a segment");
    let mut bytes = fs::read(&segment).expect("readable");
    bytes[400_000] ^= 1;
    fs::write(&segment, bytes).expect("writable");
    daemon.start_again();
    settle(&daemon);
    wait_for_alert(&daemon, "readings-lost");
    daemon.kill();

    // The next start finds no database where it was.
    let (file, aside) = (daemon.dir().join("belayd.db"), daemon.dir().join("aside.db"));
    for end in ["", "-wal", "-shm"] {
        let with = |path: &PathBuf| PathBuf::from(format!("{}{end}", path.display()));
        if with(&file).exists() {
            fs::rename(with(&file), with(&aside)).expect("renamed");
        }
    }
    fs::create_dir(&file).expect("in the way");
    daemon.spawn();
    let looked = |daemon: &Daemon| {
        let state = daemon.get("/api/state").json();
        state["store"]["state"] == "down" && state["system"]["memory"]["totalBytes"].as_u64().is_some_and(|total| total > 0)
    };
    daemon.wait_for("a look at the host while the database is away", Duration::from_secs(60), looked);
    wait_for_alert(&daemon, "database-down");
    fs::remove_dir(&file).expect("removed");
    for end in ["", "-wal", "-shm"] {
        let with = |path: &PathBuf| PathBuf::from(format!("{}{end}", path.display()));
        if with(&aside).exists() {
            fs::rename(with(&aside), with(&file)).expect("renamed");
        }
    }
    settle(&daemon);
    daemon.wait_for("the account", Duration::from_secs(60), |daemon| {
        daemon.metric("belayd_readings_lost_total{reason=\"quarantined\"}") > 0.0
    });
    let alerts = daemon.get("/api/alerts").json();
    let lost = alerts["items"].as_array().into_iter().flatten().filter(|alert| alert["name"] == "readings-lost");
    assert_eq!(lost.map(|alert| alert["state"].clone()).collect::<Vec<_>>(), ["firing"], "one, and it goes on");
}
