//! Service levels of recovery and circuit breakers, each moved by a real cause.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use diesel::{Connection, PgConnection, RunQueryDsl};

use crate::support::{
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
};

/// Whether `recovery-late` is open for this level.
pub(crate) fn is_late(daemon: &Daemon, level: &str) -> bool {
    let alerts = daemon.get("/api/alerts").json();
    let items = alerts["items"].as_array().cloned().unwrap_or_default();
    items.iter().any(|alert| alert["name"] == "recovery-late" && alert["subject"] == level && alert["state"] == "firing")
}

fn circuit(daemon: &Daemon, party: &str) -> f64 {
    daemon.metric(&format!("belayd_circuit_state{{party=\"{party}\"}}"))
}

/// A server that answers 500 while `ill`, else `body`.
fn server(body: &'static str) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let ill = Arc::new(AtomicBool::new(true));
    let state = ill.clone();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(300)));
            let _ = socket.read(&mut [0; 8192]);
            let status = if state.load(Relaxed) { "500 Oops" } else { "200 OK" };
            let _ = write!(
                socket,
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, ill)
}

#[test]
fn a_source_and_a_sink_that_fail_open_their_circuits_by_their_own_settings_and_close_them_again() {
    let (plant, plant_ill) = server(r#"{"engineId":"p1","rpm":100}"#);
    let (hook, hook_ill) = server("");
    let mut setup = Setup::with(&format!(
        "[recovery]\noutbox_within = \"200ms\"\n\
         [[sources]]\nname = \"plant\"\nurl = \"{plant}\"\ninterval = \"50ms\"\nbreaker_failures = 2\nbreaker_pause = \"300ms\"\nbreaker_pause_max = \"400ms\"\n\
         [[webhooks]]\nname = \"hook\"\nurl = \"{hook}\"\nbreaker_failures = 1\nbreaker_pause = \"40s\"\n\
         [outbox]\nretry_base = \"100ms\"\nretry_max = \"200ms\"\nmax_attempts = 100\n"
    ));
    setup.log = "info,belayd::circuit=debug".into();
    let daemon = setup.start();
    daemon.wait_for("the source is left alone", Duration::from_secs(10), |daemon| circuit(daemon, "source/plant") == 2.0);
    for engine in ["e1", "e2"] {
        let body = format!(r#"{{"engineId":"{engine}","temperature":400}}"#);
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    }
    daemon.wait_for("the sink is left alone", Duration::from_secs(10), |daemon| circuit(daemon, "hook") == 2.0);
    daemon.wait_for("all shown", Duration::from_secs(10), |daemon| {
        let shown = daemon.get("/api/state").json();
        let parties: Vec<&str> =
            shown["circuits"].as_array().into_iter().flatten().filter_map(|one| one["party"].as_str()).collect();
        parties == ["database", "hook", "issues", "log", "source/plant"]
    });
    daemon.wait_for("deliveries are late", Duration::from_secs(20), |daemon| is_late(daemon, "outbox"));

    plant_ill.store(false, Relaxed);
    hook_ill.store(false, Relaxed);
    daemon.wait_for("the source is asked again", Duration::from_secs(10), |daemon| circuit(daemon, "source/plant") == 0.0);
    daemon.wait_for("the sink takes again", Duration::from_secs(90), |daemon| circuit(daemon, "hook") == 0.0);
    daemon.wait_for("nothing is late", Duration::from_secs(20), |daemon| !is_late(daemon, "outbox"));
    let log = daemon.log();
    for (party, state) in
        [("source/plant", "open"), ("source/plant", "half-open"), ("source/plant", "closed"), ("hook", "open"), ("hook", "closed")]
    {
        let line = |line: &&str| {
            line.contains("circuit breaker turned") && line.contains(party) && line.contains(&format!("circuit={state} "))
        };
        assert!(log.lines().any(|text| line(&text)), "{party} {state}");
    }
    let opened = log
        .lines()
        .filter(|line| line.contains("circuit breaker turned") && line.contains("party=hook ") && line.contains("circuit=open "));
    assert_eq!(opened.count(), 1, "one line a turn");
}

#[test]
fn readings_that_cannot_be_stored_lower_the_success_ratio_and_are_told() {
    let daemon = Setup::with("[buffer]\nflush_interval = \"100ms\"\n").start();
    let push = |from: i64, to: i64, rpm: i64| {
        let items: Vec<String> =
            (from..to).map(|n| format!(r#"{{"engineId":"e","timestamp":{},"rpm":{rpm}}}"#, 1_700_000_000_000 + n)).collect();
        assert_eq!(daemon.post("/api/readings", &format!("[{}]", items.join(","))).status, 202);
    };
    push(0, 1_200, 1);
    daemon.drained();
    assert_eq!(daemon.metric("belayd_success_ratio"), 1.0);
    assert!(!is_late(&daemon, "readings"));
    push(0, 100, 2);
    daemon.drained();
    let ratio = daemon.metric("belayd_success_ratio");
    assert!((ratio - 1_200.0 / 1_300.0).abs() < 1e-9, "{ratio}");
    daemon.wait_for("told", Duration::from_secs(10), |daemon| is_late(daemon, "readings"));
}

#[test]
fn a_buffer_that_nobody_tries_and_a_recovery_that_takes_too_long_are_told() {
    if !postgres::is_installed() {
        crate::support::left_out("late recoveries, because PostgreSQL's binaries are not installed (tests/run installs them)");
        return;
    }
    let mut server = Postgres::start(&["fsync=off"]);
    let url = server.new_database("late");
    let daemon = Setup::with("[buffer]\nflush_interval = \"100ms\"\n[recovery]\nbuffer_within = \"1s\"\nwithin = \"1s\"\n")
        .store(&url)
        .start();
    let push = |from: i64| {
        let items: Vec<String> =
            (from..from + 300).map(|n| format!(r#"{{"engineId":"e","timestamp":{},"rpm":1}}"#, 1_700_000_000_000 + n)).collect();
        assert_eq!(daemon.post("/api/readings", &format!("[{}]", items.join(","))).status, 202);
    };
    push(0);
    daemon.drained();
    assert_eq!(daemon.metric("belayd_recovery_seconds"), 0.0);
    // Every row takes 10 ms from now on.
    let mut conn = PgConnection::establish(&url).expect("an answer");
    for text in [
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN new; END'",
        "CREATE TRIGGER slow BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION slowly()",
    ] {
        diesel::sql_query(text).execute(&mut conn).expect("made");
    }
    drop(conn);
    // A server that hangs: the call has no end, and nobody tries again.
    server.freeze(true);
    push(1_000);
    daemon.wait_for("the buffer waits", Duration::from_secs(15), |daemon| is_late(daemon, "buffer"));
    server.freeze(false);
    server.crash();
    push(2_000);
    daemon.wait_for("the outage is seen", Duration::from_secs(15), |daemon| circuit(daemon, "database") == 2.0);
    daemon.wait_for("it is tried", Duration::from_secs(10), |daemon| !is_late(daemon, "buffer"));
    server.restart();
    daemon.wait_for("the recovery is late", Duration::from_secs(15), |daemon| is_late(daemon, "database"));
    daemon.drained();
    daemon.wait_for("it is over", Duration::from_secs(10), |daemon| !is_late(daemon, "database"));
    let took = daemon.metric("belayd_recovery_seconds");
    assert!((2.0..60.0).contains(&took), "{took}");
    assert_eq!((circuit(&daemon, "database"), daemon.metric("belayd_readings_stored_total")), (0.0, 900.0));
}
