//! The database goes away and comes back, and the daemon ends with a full journal and starts again: what senders notice.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    daemon::Daemon,
    load::{Refused, Reins},
    report::{Aim::AtMost, Figure, Scenario, aimed, plain},
    setup::{self, Bench, Database},
};

pub const SHORT: Scenario = Scenario {
    name: "outage-30",
    what: "PostgreSQL stops for 30 s at 10,000 single readings a second",
    once: true,
    run: |bench| {
        let away = Duration::from_secs(bench.options.sustained_seconds.min(30));
        let outage = outage(bench, 10_000, away, Duration::from_secs(40));
        vec![
            aimed("answer p99 over all of it, ms", outage.p99_ms, AtMost(20.0)),
            aimed("caught up after its return, s", outage.caught_up.as_secs_f64(), AtMost(5.0)),
            plain("answer p50, ms", outage.p50_ms),
            plain("longest answer, ms", outage.longest_ms),
            plain("readings that waited at its return", outage.waited),
            plain("refused pushes", outage.refused as f64),
        ]
    },
};

pub const LONG: Scenario = Scenario {
    name: "outage-long",
    what: "PostgreSQL stops for 10 min (--outage-seconds) at 5,000 single readings a second",
    once: true,
    run: |bench| {
        let away = Duration::from_secs(bench.options.outage_seconds);
        // Drained within 90 s of ten minutes, and in proportion of less.
        let aim = (away.as_secs_f64() * 90.0 / 600.0).max(5.0);
        let outage = outage(bench, 5_000, away, Duration::from_secs(300));
        vec![
            aimed("caught up after its return, s", outage.caught_up.as_secs_f64(), AtMost(aim)),
            aimed("VmRSS, most, MB", outage.resident_mb, AtMost(40.0)),
            plain("RssAnon, most, MB", outage.private_mb),
            plain("answer p50, ms", outage.p50_ms),
            plain("answer p99 over all of it, ms", outage.p99_ms),
            plain("readings that waited at its return", outage.waited),
            plain("length of the outage, s", away.as_secs_f64()),
            plain("refused pushes", outage.refused as f64),
        ]
    },
};

struct Outage {
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
    caught_up: Duration,
    waited: f64,
    refused: u64,
    private_mb: f64,
    resident_mb: f64,
}

/// Readings that may wait when it counts as caught up: what comes in within a tenth of a second.
fn outage(bench: &mut Bench, rate: u64, away: Duration, most_after: Duration) -> Outage {
    const BEFORE: Duration = Duration::from_secs(3);
    const AFTER: Duration = Duration::from_secs(5);
    let daemon = Arc::new(bench.daemon(Database::Postgres, ""));
    let load = setup::load(&daemon, setup::SENDERS, 1);
    let reins = Arc::new(Reins::default());
    let pushing = {
        let reins = reins.clone();
        thread::spawn(move || load.open_under(rate, BEFORE + away + most_after + AFTER, &reins))
    };
    let watching = {
        let (daemon, reins) = (daemon.clone(), reins.clone());
        thread::spawn(move || peak(&daemon, &reins))
    };
    thread::sleep(BEFORE);
    bench.server().stop();
    thread::sleep(away);
    bench.server().restart();
    let waited = setup::buffered(&daemon);
    let caught_up = setup::caught_up(&daemon, rate as f64 / 10.0, most_after);
    thread::sleep(AFTER);
    reins.stop.store(true, Ordering::Relaxed);
    let outcome = pushing.join().expect("the generator failed");
    let (private_mb, resident_mb) = watching.join().expect("the watcher failed");
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(60));
    Outage {
        p50_ms: outcome.ms(0.5),
        p99_ms: outcome.ms(0.99),
        longest_ms: outcome.latency.max() as f64 / 1e3,
        caught_up,
        waited,
        refused: outcome.refused,
        private_mb,
        resident_mb,
    }
}

/// The most memory until the load ends: RssAnon and VmRSS, MB.
fn peak(daemon: &Daemon, reins: &Reins) -> (f64, f64) {
    let mut most = (0.0_f64, 0.0_f64);
    while !reins.stop.load(Ordering::Relaxed) {
        let (private, resident) = daemon.memory();
        most = (most.0.max(private as f64 / 1e6), most.1.max(resident as f64 / 1e6));
        thread::sleep(Duration::from_millis(100));
    }
    most
}

pub const RESTART: Scenario = Scenario {
    name: "restart-backlog",
    what: "kill -9 and a new start with 1 GB (--backlog-mb) in the journal, cold cache, PostgreSQL stopped",
    once: false,
    run: restart,
};

fn restart(bench: &mut Bench) -> Vec<Figure> {
    let bytes = bench.options.backlog_mb << 20;
    let more = format!("[buffer]\njournal_bytes = \"{}MB\"\n", bytes * 3 / 1_000_000);
    let mut daemon = bench.daemon(Database::Postgres, &more);
    bench.server().stop();
    let journal = daemon.dir().join("data/journal");
    let reins = Arc::new(Reins::default());
    let pushing = {
        let (load, reins) = (setup::load(&daemon, 16, 1_000), reins.clone());
        thread::spawn(move || load.closed_under(Duration::from_secs(120), &reins, Refused::Ends))
    };
    while size_of(&journal) < bytes && !reins.stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
    reins.stop.store(true, Ordering::Relaxed);
    let outcome = pushing.join().expect("the generator failed");
    let backlog = size_of(&journal);
    daemon.kill();
    setup::drop_caches();
    let started = Instant::now();
    daemon.spawn();
    while !durable_answer(&daemon) {
        assert!(started.elapsed() < Duration::from_secs(60), "no durable answer; the log:\n{}", daemon.log());
        thread::sleep(Duration::from_millis(1));
    }
    let answered = started.elapsed();
    bench.server().restart();
    let drained = Instant::now();
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(300));
    vec![
        aimed("first durable answer after the start, ms", answered.as_secs_f64() * 1e3, AtMost(500.0)),
        plain("journal on disk, MB", backlog as f64 / 1e6),
        plain("readings that waited", outcome.accepted as f64),
        plain("drained into PostgreSQL, readings/s", outcome.accepted as f64 / drained.elapsed().as_secs_f64()),
    ]
}

/// Bytes of the files in a directory.
fn size_of(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|data| data.len()).sum()
}

/// Whether a push is answered with 202 and a level that a crash does not undo. No connection yet counts as no.
fn durable_answer(daemon: &Daemon) -> bool {
    let Ok(mut socket) = TcpStream::connect(&daemon.address) else { return false };
    let body = r#"{"engineId":"first","rpm":1}"#;
    let request = format!(
        "POST /api/readings HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        daemon.address,
        daemon.token,
        body.len()
    );
    let mut answer = String::new();
    let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
    socket.write_all(request.as_bytes()).is_ok()
        && socket.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 202")
        && answer.contains("\"ack\":\"journal\"")
}
