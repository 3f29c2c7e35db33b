//! Actors are made to fail on purpose while readings come in, and the oracle outside counts what was acknowledged.
//! Needs the feature `fault-injection`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::daemon::{Daemon, Setup};

const ACTORS: [&str; 6] = ["IngestActor", "BatchBufferActor", "OutboxActor", "ScheduleActor", "MonitorActor", "AlertActor"];
/// Twice 5,000 readings a second are offered: pushes of 20 from 5 senders, each 100 times a second. The senders wait for the database's
/// commit, so that a busy machine takes less.
const SENDERS: usize = 5;
const PUSH: usize = 20;

fn patient(max_restarts: u32) -> Setup {
    Setup::with(&format!(
        "[supervision]\nmax_restarts = {max_restarts}\nwithin = \"60s\"\nhealthy_after = \"3s\"\n[buffer]\nflush_interval = \"200ms\"\n"
    ))
}

fn fault(daemon: &Daemon, actor: &str, kind: &str) -> u16 {
    daemon.post(&format!("/admin/actors/{actor}/fault"), &format!(r#"{{"kind":"{kind}"}}"#)).status
}

/// Pushes with `ack=store` until told to stop. A push without a clear answer is repeated with the same body until it is answered.
fn sender(
    address: String,
    token: String,
    number: usize,
    stop: &AtomicBool,
    acknowledged: &Mutex<Vec<(String, i64)>>,
    repeats: &AtomicU64,
) {
    let client = crate::support::client::Client::new(&address, &token);
    let started = Instant::now();
    let base_us = 1_700_000_000_000_000_i64;
    for push in 0_i64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let keys: Vec<_> = (0..PUSH).map(|n| (format!("kill-{number}-{n}"), base_us + push * 1_000)).collect();
        let items: Vec<_> = keys
            .iter()
            .map(|(engine, at)| format!(r#"{{"engineId":"{engine}","timestamp":{},"rpm":{}}}"#, at / 1_000, push % 7_000))
            .collect();
        let body = format!("[{}]", items.join(","));
        loop {
            let answer = client.post("/api/readings?ack=store", &body);
            if answer.status == 202 && answer.json()["ack"] == "store" {
                acknowledged.lock().expect("no panic").extend(keys);
                break;
            }
            repeats.fetch_add(1, Ordering::Relaxed);
            assert!(matches!(answer.status, 0 | 202 | 429 | 503), "{answer:?}");
            thread::sleep(Duration::from_millis(20));
        }
        let due = started + Duration::from_millis(10) * u32::try_from(push + 1).expect("a short test");
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

#[test]
fn a_panic_a_second_in_every_actor_in_turn_loses_nothing_and_ends_nothing() {
    let daemon = patient(100).start();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let repeats = Arc::new(AtomicU64::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|number| {
            let (address, token) = (daemon.address.clone(), daemon.token.clone());
            let (stop, acknowledged, repeats) = (stop.clone(), acknowledged.clone(), repeats.clone());
            thread::spawn(move || sender(address, token, number, &stop, &acknowledged, &repeats))
        })
        .collect();

    let mut kills = [0_u64; ACTORS.len()];
    let mut restart_ms = Vec::new();
    let started = Instant::now();
    for second in 0..60_u32 {
        let index = second as usize % ACTORS.len();
        assert_eq!(fault(&daemon, ACTORS[index], "panic"), 202);
        kills[index] += 1;
        thread::sleep((started + Duration::from_secs(u64::from(second) + 1)).saturating_duration_since(Instant::now()));
        let actor = |daemon: &Daemon| {
            let actors = daemon.get("/admin/actors").json();
            let actor = actors["items"].as_array().and_then(|all| all.iter().find(|actor| actor["name"] == ACTORS[index])).cloned();
            actor.expect("every actor is listed")
        };
        daemon.wait_for("started again", Duration::from_secs(30), |daemon| actor(daemon)["restarts"] == kills[index]);
        restart_ms.push(actor(&daemon)["lastRestartMs"].as_f64().expect("a number"));
    }
    stop.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().expect("a sender failed"));

    restart_ms.sort_by(f64::total_cmp);
    // The highest of 60 is how long the machine stood still at most; it is printed.
    let (median, highest) = (restart_ms[restart_ms.len() / 2], restart_ms[restart_ms.len() - 1]);
    assert!(median < 50.0, "restart median {median} ms, all {restart_ms:?}");
    for (actor, kills) in ACTORS.iter().zip(kills) {
        let counted = daemon.metric(&format!(r#"belayd_actor_restarts_total{{actor="{actor}",reason="panic"}}"#));
        assert_eq!(counted, kills as f64, "{actor}");
    }
    daemon.drained();
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);

    let acknowledged = acknowledged.lock().expect("no panic");
    let stored = crate::support::rows::keys(&daemon.dir().join("belayd.db"));
    let missing: Vec<_> = acknowledged.iter().filter(|key| !stored.contains(*key)).take(5).collect();
    assert!(missing.is_empty(), "acknowledged at level store and not in the database: {missing:?}");
    let per_second = acknowledged.len() as f64 / 60.0;
    eprintln!(
        "{per_second:.0} readings/s acknowledged at level store, {} pushes repeated, restart median {median:.1} ms, at most {highest:.1} ms",
        repeats.load(Ordering::Relaxed)
    );
    assert!(per_second > 50.0, "the load must be worth the name: {per_second:.0} readings/s");
}

#[test]
fn more_restarts_than_allowed_end_the_process_with_a_failure() {
    let mut daemon = patient(3).start();
    for _ in 0..4 {
        // The last one may find the daemon gone already.
        fault(&daemon, "MonitorActor", "panic");
        thread::sleep(Duration::from_millis(200));
    }
    let status = daemon.wait(Duration::from_secs(40));
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("MonitorActor failed 4 times"), "{}", daemon.log());
}

#[test]
fn an_actor_that_stops_or_hangs_comes_back_with_its_mailbox() {
    let daemon = Setup::with("[supervision]\nhang_after = \"5s\"\nmax_restarts = 20\n").start();
    for kind in ["stop", "hang"] {
        assert_eq!(fault(&daemon, "IngestActor", kind), 202);
        let answer = daemon.post("/api/readings", r#"{"engineId":"e1","rpm":1}"#);
        if answer.status != 202 {
            // The answer may be 503 while it is away, never worse, and the sender comes again.
            assert_eq!(answer.status, 503, "{answer:?}");
            daemon.wait_for("taken", Duration::from_secs(60), |daemon| {
                daemon.post("/api/readings", r#"{"engineId":"e1","rpm":1}"#).status == 202
            });
        }
        let counted = daemon.metric(&format!(r#"belayd_actor_restarts_total{{actor="IngestActor",reason="{kind}"}}"#));
        assert_eq!(counted, 1.0, "{kind}");
    }
}
