//! Private memory (`RssAnon`), because that is what one more process costs; the resident size (`VmRSS`) beside it.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    daemon::Daemon,
    report::{Aim::AtMost, Figure, Scenario, aimed, plain},
    setup::{self, Bench, Database},
};

pub const IDLE: Scenario = Scenario { name: "memory-idle", what: "nothing happens for 15 s", once: true, run: idle };
pub const TRICKLE: Scenario =
    Scenario { name: "memory-5000", what: "5,000 single readings a second", once: true, run: |bench| loaded(bench, false) };
pub const FULL: Scenario = Scenario {
    name: "memory-full",
    what: "pushes of 100 on 64 connections, as fast as it goes",
    once: true,
    run: |bench| loaded(bench, true),
};

fn idle(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "");
    thread::sleep(Duration::from_secs(5));
    let before = daemon.cpu();
    thread::sleep(Duration::from_secs(10));
    let (private, resident) = daemon.memory();
    let cpu = (daemon.cpu() - before).as_secs_f64() * 10.0;
    vec![
        aimed("RssAnon, MB", private as f64 / 1e6, AtMost(8.0)),
        plain("VmRSS, MB", resident as f64 / 1e6),
        plain("daemon, % of a core", cpu),
    ]
}

fn loaded(bench: &mut Bench, full: bool) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "");
    let length = Duration::from_secs(bench.options.memory_seconds);
    let load = setup::load(&daemon, setup::SENDERS, if full { 100 } else { 1 });
    let pushing = thread::spawn(move || if full { load.closed(length) } else { load.open(5_000, length) });
    let (early, most, resident) = watch(&daemon, length);
    let outcome = pushing.join().expect("the generator failed");
    vec![
        aimed("RssAnon, most, MB", most, AtMost(if full { 24.0 } else { 16.0 })),
        plain("RssAnon after a tenth of the time, MB", early),
        plain("VmRSS, most, MB", resident),
        plain("readings/s", outcome.readings_per_s()),
        plain("answer p99, ms", outcome.ms(0.99)),
    ]
}

/// RssAnon after a tenth of `length`, its maximum, and VmRSS's.
pub fn watch(daemon: &Daemon, length: Duration) -> (f64, f64, f64) {
    let started = Instant::now();
    let (mut early, mut most, mut resident) = (0.0, 0.0_f64, 0.0_f64);
    while started.elapsed() < length {
        thread::sleep(Duration::from_millis(100));
        let (private, all) = daemon.memory();
        let private = private as f64 / 1e6;
        if started.elapsed() < length / 10 {
            early = private;
        }
        most = most.max(private);
        resident = resident.max(all as f64 / 1e6);
    }
    (early, most, resident)
}
