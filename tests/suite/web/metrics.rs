//! Metrics move by real causes.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::Duration,
};

use crate::support::daemon::{Daemon, Setup};

/// Every sample by its name with labels.
fn scrape(daemon: &Daemon) -> BTreeMap<String, f64> {
    let text = daemon.get("/metrics").body;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect()
}

/// Waits until a sample is at least `least`.
fn reaches(daemon: &Daemon, name: &str, least: f64) {
    daemon.wait_for(&format!("{name} at {least}"), Duration::from_secs(20), |daemon| {
        scrape(daemon).get(name).is_some_and(|value| *value >= least)
    });
}

/// A receiver of webhooks that answers every request with `status`.
fn receiver(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten().take(100) {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(300)));
            let _ = socket.read(&mut [0; 8192]);
            let _ = write!(socket, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    format!("http://{address}/")
}

#[test]
fn pushes_move_the_metrics_of_readings() {
    let daemon = Setup::with("[buffer]\nflush_interval = \"100ms\"\n").start();
    let body = r#"[{"engineId":"e","timestamp":1700000000000,"rpm":1},{"engineId":"e","rpm":"x"}]"#;
    assert_eq!(daemon.post("/api/readings?ack=store", body).status, 202);
    assert_eq!(daemon.post("/api/readings", body).status, 202);
    let conflict = daemon.post("/api/readings", r#"{"engineId":"e","timestamp":1700000000000,"rpm":2}"#);
    assert_eq!(conflict.status, 202, "{conflict:?}");
    for (name, least) in [
        ("belayd_readings_accepted_total", 3.0),
        ("belayd_readings_rejected_total{reason=\"wrong_type\"}", 2.0),
        ("belayd_readings_stored_total", 1.0),
        ("belayd_readings_duplicate_total", 1.0),
        ("belayd_readings_conflict_total", 1.0),
        ("belayd_ack_seconds_count{level=\"store\"}", 1.0),
        ("belayd_ack_seconds_count{level=\"journal\"}", 2.0),
        ("process_resident_memory_bytes", 1.0),
        ("process_open_fds", 1.0),
    ] {
        reaches(&daemon, name, least);
    }
    let all = scrape(&daemon);
    for zero in ["belayd_conservation_violation", "belayd_data_loss_ratio", "belayd_duplicate_ratio", "belayd_readings_buffered"] {
        assert_eq!(all.get(zero), Some(&0.0), "{zero}");
    }
    for actor in ["IngestActor", "BatchBufferActor", "AlertActor", "OutboxActor", "ScheduleActor", "MonitorActor"] {
        assert!(all.contains_key(&format!("belayd_actor_mailbox_depth{{actor=\"{actor}\"}}")), "{actor}");
    }
}

#[test]
fn a_restart_by_name_is_counted_and_audited() {
    let daemon = Setup::default().start();
    let answer = daemon.post("/admin/actors/AlertActor/restart", r#"{"reason":"drill"}"#);
    assert_eq!(answer.status, 202, "{answer:?}");
    reaches(&daemon, "belayd_actor_restarts_total{actor=\"AlertActor\",reason=\"requested\"}", 1.0);
    let audit = daemon.get("/admin/audit").json();
    assert_eq!((&audit["items"][0]["action"], &audit["items"][0]["reason"]), (&"actor.restart".into(), &"drill".into()), "{audit}");
}

#[test]
fn readings_that_were_only_in_memory_are_counted_as_lost_after_a_kill() {
    let mut daemon = Setup::with("[buffer]\nflush_interval = \"60s\"\n").start();
    assert_eq!(daemon.post("/api/readings?ack=store", r#"{"engineId":"e","rpm":1}"#).status, 202);
    assert_eq!(daemon.post("/api/readings", r#"[{"engineId":"e","rpm":1},{"engineId":"e","rpm":2}]"#).status, 202);
    reaches(&daemon, "belayd_readings_buffered", 2.0);
    daemon.kill();
    daemon.start_again();
    // What died with the process was counted by nobody: only the ledger speaks for the runs before.
    reaches(&daemon, "belayd_readings_stored_total", 1.0);
}

#[test]
fn alerts_move_the_metrics_of_the_outbox() {
    let (good, bad) = (receiver("204 No Content"), receiver("500 Oops"));
    // Takes every connection and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mute_url = format!("http://{}/", mute.local_addr().expect("bound"));
    let webhook = |name: &str, url: &str| format!("[[webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\n");
    let more = [
        webhook("good", &good),
        webhook("bad", &bad),
        webhook("mute", &mute_url),
        "[[routes]]\nsinks = [\"good\", \"bad\", \"mute\"]\n".into(),
    ];
    let more = more.concat();
    let daemon = Setup::with(&more).start();
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e1","temperature":400}"#).status, 202);
    for (name, least) in [
        ("belayd_alert_latency_seconds_count", 1.0),
        ("belayd_dispatch_duration_seconds_count{sink=\"good\"}", 1.0),
        ("belayd_dispatch_duration_seconds_count{sink=\"bad\"}", 1.0),
        ("belayd_outbox_backlog{sink=\"bad\"}", 1.0),
    ] {
        reaches(&daemon, name, least);
    }
    let failures = scrape(&daemon).into_iter().filter(|(name, _)| name.starts_with("belayd_send_failures_total{sink=\"bad\""));
    assert!(failures.map(|(_, value)| value).sum::<f64>() >= 1.0);
    reaches(&daemon, "belayd_outbox_oldest_age_seconds{sink=\"mute\"}", 0.5);
}

#[test]
fn an_outage_of_the_database_opens_its_circuit_and_its_end_is_timed() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let folder = place.path().join("db");
    // A file where the database's folder should be: it cannot be opened until someone mends that.
    std::fs::write(&folder, "").expect("a file");
    let setup = Setup::with("[buffer]\nflush_interval = \"100ms\"\n");
    let daemon = setup.store(&format!("sqlite://{}/belayd.db", folder.display())).start();
    reaches(&daemon, "belayd_circuit_state{party=\"database\"}", 2.0);
    assert_eq!(daemon.get("/readyz").json()["state"], "buffering");
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e","rpm":1}"#).status, 202, "senders are let in");
    let query = daemon.get("/api/readings");
    assert_eq!((query.status, query.code()), (503, "store_unavailable".into()), "{query:?}");
    assert!(query.head.contains("retry-after: "), "{query:?}");
    assert_eq!(daemon.get("/api/engines").json()["total"], 1, "the engine table answers");
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| {
        daemon.get("/api/alerts?state=firing").body.contains("\"name\":\"database-down\"")
    });

    std::fs::remove_file(&folder).expect("removed");
    std::fs::create_dir(&folder).expect("a folder");
    reaches(&daemon, "belayd_readings_stored_total", 1.0);
    reaches(&daemon, "belayd_recovery_seconds", 0.000_001);
    assert_eq!(daemon.metric("belayd_circuit_state{party=\"database\"}"), 0.0);
    assert_eq!(daemon.get("/readyz").json()["state"], "ready");
}
