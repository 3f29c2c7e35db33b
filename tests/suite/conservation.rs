//! The account of every reading: counted on two sides, looked at under load, and tripped on purpose.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{client::Client, daemon::Setup, tiers};

const PARTS: [&str; 9] = ["stored", "duplicate", "conflict", "dead", "discarded", "quarantined", "void", "lost", "buffered"];

fn push(engine: &str, first_ms: i64, rows: i64, value: i64) -> String {
    let items: Vec<_> =
        (0..rows).map(|n| format!(r#"{{"engineId":"{engine}","timestamp":{},"rpm":{value}}}"#, first_ms + n)).collect();
    format!("[{}]", items.join(","))
}

#[test]
fn the_identity_holds_at_every_look_under_load_with_duplicates_and_conflicts() {
    tiers().into_iter().for_each(hold_under_load);
}

fn hold_under_load(tier: &str) {
    let daemon = Setup::with(&format!("[buffer]\ntier = \"{tier}\"\nflush_interval = \"100ms\"\n")).start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..4 {
            let (stop, daemon) = (&stop, &daemon);
            scope.spawn(move || {
                let client = Client::new(&daemon.address, &daemon.token);
                let engine = format!("c{number}");
                for round in 0_i64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    // Every fourth push repeats the one before, every eighth with other values.
                    let (first, value) = if round % 4 == 3 { (round - 1, i64::from(round % 8 == 7)) } else { (round, 0) };
                    client.post("/api/readings", &push(&engine, 1_700_000_000_000 + first * 50, 50, value));
                }
            });
        }
        let (soonest, latest) = (Instant::now() + Duration::from_secs(8), Instant::now() + Duration::from_secs(90));
        let mut looks = 0;
        while Instant::now() < soonest || (looks <= 20 && Instant::now() < latest) {
            let buffer = daemon.get("/admin/buffer").json();
            let account = &buffer["account"];
            let sum: u64 = PARTS.iter().map(|part| account[part].as_u64().unwrap_or_else(|| panic!("{part} in {buffer}"))).sum();
            assert_eq!(account["accepted"].as_u64(), Some(sum), "{buffer}");
            assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
            looks += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(looks > 20, "only {looks} looks");
    });
    daemon.drained();
    for moved in ["stored", "duplicate", "conflict"] {
        assert!(daemon.metric(&format!("belayd_readings_{moved}_total")) > 0.0, "{moved} must have been moved by a real cause");
    }
    let stored = crate::support::rows::number(&daemon.dir().join("belayd.db"), "SELECT count(*) AS n FROM readings");
    assert_eq!(daemon.metric("belayd_readings_stored_total"), stored as f64);
}

// Only a build with faults on purpose can drop one.
#[cfg(feature = "fault-injection")]
#[test]
fn a_build_that_drops_one_row_is_found_out() {
    tiers().into_iter().for_each(find_the_dropped_row);
}

#[cfg(feature = "fault-injection")]
fn find_the_dropped_row(tier: &str) {
    let setup = Setup::with(&format!("[buffer]\ntier = \"{tier}\"\nflush_interval = \"100ms\"\n"));
    let daemon = setup.env("BELAYD_FAULT", "drop-row").start();
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings", &push("m", 1_700_000_000_000, 500, 1)).status, 202);
    daemon.wait_for("found out", Duration::from_secs(15), |daemon| daemon.metric("belayd_conservation_violation") == 1.0);
    let ready = daemon.get("/readyz");
    assert_ne!(ready.json()["checks"]["conservation"], "ok", "{}", ready.body);
    assert_eq!(daemon.get("/healthz").status, 200, "a violation never ends the process");
    daemon.wait_for("alarmed", Duration::from_secs(15), |daemon| daemon.get("/api/alerts").body.contains("conservation"));
}
