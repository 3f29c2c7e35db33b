//! What the daemon takes and stores for a whole minute with nothing piling up: the load is held back while too much waits, so that the
//! lag stays flat and the rate is what database, daemon and generator reach together on the same cores.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Refused, Reins},
    report::{
        Aim::{self, AtLeast, AtMost},
        Figure, Scenario, aimed, plain,
    },
    setup::{self, Bench, Database},
};

/// Readings that may wait while the load runs: a fifth of a second of it.
const LAG: f64 = 40_000.0;
/// Before the clock starts: connections are made, plans cached, batches have grown.
const WARM_UP: Duration = Duration::from_secs(3);

pub const POSTGRES_100: Scenario = Scenario {
    name: "sustained-postgres-100",
    what: "pushes of 100 on 16 connections into PostgreSQL, lag flat",
    once: true,
    run: |bench| sustained(bench, Database::Postgres, 100, AtLeast(160_000.0)),
};
pub const POSTGRES_1000: Scenario = Scenario {
    name: "sustained-postgres-1000",
    what: "pushes of 1,000 on 16 connections into PostgreSQL, lag flat",
    once: true,
    run: |bench| sustained(bench, Database::Postgres, 1_000, AtLeast(200_000.0)),
};
pub const SQLITE_100: Scenario = Scenario {
    name: "sustained-sqlite-100",
    what: "pushes of 100 on 16 connections into SQLite, lag flat",
    once: true,
    run: |bench| sustained(bench, Database::Sqlite, 100, AtLeast(150_000.0)),
};
pub const SQLITE_1000: Scenario = Scenario {
    name: "sustained-sqlite-1000",
    what: "pushes of 1,000 on 16 connections into SQLite, lag flat",
    once: true,
    run: |bench| sustained(bench, Database::Sqlite, 1_000, AtLeast(300_000.0)),
};

fn sustained(bench: &mut Bench, database: Database, push: usize, aim: Aim) -> Vec<Figure> {
    let daemon = bench.daemon(database, "");
    let length = Duration::from_secs(bench.options.sustained_seconds);
    let reins = Arc::new(Reins::default());
    let load = setup::load(&daemon, 16, push);
    let pushing = {
        let reins = reins.clone();
        thread::spawn(move || load.closed_under(WARM_UP + length + Duration::from_secs(60), &reins, Refused::Waits))
    };
    let mut lag = Vec::new();
    let hold = |until: Instant, lag: &mut Vec<f64>| {
        while Instant::now() < until {
            let waiting = setup::buffered(&daemon);
            reins.pause.store(waiting > LAG, Ordering::Relaxed);
            lag.push(waiting);
            thread::sleep(Duration::from_millis(50));
        }
    };
    hold(Instant::now() + WARM_UP, &mut Vec::new());
    let (before, cpu, started) = (daemon.metric("belayd_readings_stored_total"), daemon.cpu(), Instant::now());
    hold(started + length, &mut lag);
    let took = started.elapsed().as_secs_f64();
    let stored = daemon.metric("belayd_readings_stored_total") - before;
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / took * 100.0;
    let (private, resident) = daemon.memory();
    reins.pause.store(false, Ordering::Relaxed);
    reins.stop.store(true, Ordering::Relaxed);
    let outcome = pushing.join().expect("the generator failed");
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(60));
    let half = lag.len() / 2;
    let mean = |lag: &[f64]| lag.iter().sum::<f64>() / lag.len().max(1) as f64;
    vec![
        aimed("readings/s stored", stored / took, aim),
        plain("readings waiting, mean of the first half", mean(&lag[..half])),
        plain("readings waiting, mean of the second half", mean(&lag[half..])),
        plain("readings waiting, most", lag.iter().copied().fold(0.0, f64::max)),
        plain("answer p50, ms", outcome.ms(0.5)),
        plain("answer p99, ms", outcome.ms(0.99)),
        plain("daemon, % of a core", cpu),
        aimed("RssAnon, MB", private as f64 / 1e6, AtMost(24.0)),
        plain("VmRSS, MB", resident as f64 / 1e6),
        plain("refused pushes", outcome.refused as f64),
    ]
}
