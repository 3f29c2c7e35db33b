//! How quickly a push is answered once it is durable: with the database stopped, with it running, at a fixed rate, and up to the
//! database itself.

use std::time::Duration;

use crate::{
    daemon::Daemon,
    load::{self, Load, Outcome, Pusher, Refused},
    report::{
        Aim::{AtLeast, AtMost, AtMostOnDisk, None},
        Figure, Scenario,
        Sync::{P50, P99},
        aimed, plain,
    },
    setup::{self, Bench, Database},
};

pub const PUSH_100: Scenario = Scenario {
    name: "ack-100",
    what: "durable answers to pushes of 100 on 16 connections, the database stopped",
    once: false,
    run: |bench| stopped(bench, 16, 100, AtLeast(800_000.0), None),
};
pub const PUSH_1000: Scenario = Scenario {
    name: "ack-1000",
    what: "durable answers to pushes of 1,000 on 16 connections, the database stopped",
    once: false,
    run: |bench| stopped(bench, 16, 1_000, AtLeast(1_200_000.0), None),
};
pub const SINGLE_16: Scenario = Scenario {
    name: "ack-single-16",
    what: "durable answers to single readings on 16 connections, the database stopped",
    once: false,
    run: |bench| stopped(bench, 16, 1, None, AtLeast(30_000.0)),
};
pub const SINGLE_64: Scenario = Scenario {
    name: "ack-single-64",
    what: "durable answers to single readings on 64 connections, the database stopped",
    once: false,
    run: |bench| stopped(bench, 64, 1, None, AtLeast(50_000.0)),
};
pub const DRAINING_100: Scenario = Scenario {
    name: "draining-100",
    what: "durable answers to pushes of 100 on 16 connections while PostgreSQL is written as fast as it goes",
    once: false,
    run: |bench| draining(bench, 16, 100, AtLeast(300_000.0), None),
};
pub const DRAINING_1000: Scenario = Scenario {
    name: "draining-1000",
    what: "durable answers to pushes of 1,000 on 16 connections while PostgreSQL is written as fast as it goes",
    once: false,
    run: |bench| draining(bench, 16, 1_000, AtLeast(300_000.0), None),
};
pub const DRAINING_SINGLE: Scenario = Scenario {
    name: "draining-single-16",
    what: "durable answers to single readings on 16 connections while PostgreSQL is written as fast as it goes",
    once: false,
    run: |bench| draining(bench, 16, 1, None, None),
};
pub const OFFERED: Scenario = Scenario {
    name: "offered-10000",
    what: "10,000 single readings a second, whatever the daemon does, with PostgreSQL running",
    once: false,
    run: offered,
};
pub const TRICKLE: Scenario = Scenario {
    name: "offered-5000",
    what: "5,000 single readings a second, whatever the daemon does, with SQLite running",
    once: false,
    run: trickle,
};
pub const STORE_SQLITE: Scenario = Scenario {
    name: "store-sqlite",
    what: "single readings with ?ack=store on an idle daemon, SQLite",
    once: false,
    run: |bench| store(bench, Database::Sqlite),
};
pub const STORE_POSTGRES: Scenario = Scenario {
    name: "store-postgres",
    what: "single readings with ?ack=store on an idle daemon, PostgreSQL",
    once: false,
    run: |bench| store(bench, Database::Postgres),
};

/// The journal takes everything; how long it lasts is how long the load does, or until it is full.
fn stopped(
    bench: &mut Bench,
    connections: usize,
    push: usize,
    readings: crate::report::Aim,
    requests: crate::report::Aim,
) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Postgres, "[buffer]\njournal_bytes = \"8GB\"\n");
    bench.server().stop();
    let figures = answers(bench, &daemon, &setup::load(&daemon, connections, push), readings, requests);
    drop(daemon);
    bench.server().restart();
    figures
}

fn draining(
    bench: &mut Bench,
    connections: usize,
    push: usize,
    readings: crate::report::Aim,
    requests: crate::report::Aim,
) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Postgres, "[buffer]\njournal_bytes = \"8GB\"\n");
    answers(bench, &daemon, &setup::load(&daemon, connections, push), readings, requests)
}

fn answers(bench: &Bench, daemon: &Daemon, load: &Load, readings: crate::report::Aim, requests: crate::report::Aim) -> Vec<Figure> {
    let cpu = daemon.cpu();
    let stored = daemon.metric("belayd_readings_stored_total");
    let outcome = load.closed_under(bench.length(), &std::sync::Arc::default(), Refused::Ends);
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / outcome.took.as_secs_f64() * 100.0;
    let stored = daemon.metric("belayd_readings_stored_total") - stored;
    let (private, resident) = daemon.memory();
    vec![
        aimed("readings/s acknowledged", outcome.readings_per_s(), readings),
        aimed("requests/s", outcome.requests_per_s(), requests),
        plain("answer p50, ms", outcome.ms(0.5)),
        plain("answer p99, ms", outcome.ms(0.99)),
        plain("readings/s stored meanwhile", stored / outcome.took.as_secs_f64()),
        plain("daemon, % of a core", cpu),
        aimed("RssAnon, MB", private as f64 / 1e6, AtMost(24.0)),
        plain("VmRSS, MB", resident as f64 / 1e6),
        plain("refused pushes (the journal is full)", outcome.refused as f64),
    ]
}

fn latencies(outcome: &Outcome, aims: [crate::report::Aim; 2]) -> [Figure; 2] {
    [aimed("answer p50, ms", outcome.ms(0.5), aims[0]), aimed("answer p99, ms", outcome.ms(0.99), aims[1])]
}

fn offered(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Postgres, "");
    let cpu = daemon.cpu();
    let outcome = setup::load(&daemon, setup::SENDERS, 1).open(10_000, bench.length());
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / outcome.took.as_secs_f64() * 100.0;
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(30));
    let mut figures = vec![plain("requests/s", outcome.requests_per_s())];
    figures.extend(latencies(&outcome, [AtMost(2.0), AtMostOnDisk(10.0, P99, 2.0, 3.0)]));
    figures.extend([plain("daemon, % of a core", cpu), plain("refused pushes", outcome.refused as f64)]);
    figures
}

fn trickle(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "");
    let cpu = daemon.cpu();
    let outcome = setup::load(&daemon, setup::SENDERS, 1).open(5_000, bench.length());
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / outcome.took.as_secs_f64() * 100.0;
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(30));
    let mut figures = vec![plain("requests/s", outcome.requests_per_s())];
    figures.extend(latencies(&outcome, [None, AtMostOnDisk(5.0, P99, 2.0, 3.0)]));
    figures.extend([aimed("daemon, % of a core", cpu, AtMost(35.0)), plain("refused pushes", outcome.refused as f64)]);
    figures
}

/// One reading at a time, each when the one before is stored and a little later, so that nothing else is on its way.
fn store(bench: &mut Bench, database: Database) -> Vec<Figure> {
    let daemon = bench.daemon(database, "");
    let load = setup::load(&daemon, 1, 1);
    let mut pusher = Pusher::new(&load, 0, Some("store"));
    let mut latency = load::histogram();
    let until = std::time::Instant::now() + bench.length();
    while std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
        pusher.send();
        let status = pusher.receive();
        let answer = pusher.last_answer();
        assert!(status == 202 && answer.contains("\"ack\":\"store\""), "{answer}");
        latency.saturating_record(pusher.sent.elapsed().as_micros() as u64);
        pusher.advance();
    }
    vec![
        aimed("answer p50, ms", latency.value_at_quantile(0.5) as f64 / 1e3, AtMostOnDisk(3.0, P50, 2.0, 2.0)),
        plain("answer p99, ms", latency.value_at_quantile(0.99) as f64 / 1e3),
        plain("readings", latency.len() as f64),
    ]
}
