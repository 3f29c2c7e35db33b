//! Messages handed in while the drain writes into the same SQLite file without a rest: each is a transaction of its own, and there is one writer.

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    load::{self, Refused, Reins},
    report::{Aim::AtMost, Figure, Scenario, aimed, plain},
    setup::{self, Bench, Database},
};

pub const BESIDE_SQLITE: Scenario = Scenario {
    name: "message-sqlite",
    what: "a message handed in and answered, beside pushes of 1,000 as fast as SQLite takes them",
    once: false,
    run: beside_sqlite,
};

/// Readings that wait meanwhile, at least about: the drain always has a large transaction to go on with.
const WAITING: f64 = 200_000.0;
/// From one answer to the next message.
const EVERY: Duration = Duration::from_millis(50);

fn beside_sqlite(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "[limits]\nmessages_per_minute = 0\nrequests_per_minute = 0\n");
    let reins = Arc::new(Reins::default());
    let load = setup::load(&daemon, 16, 1_000);
    let length = bench.length();
    let pushing = {
        let reins = reins.clone();
        thread::spawn(move || load.closed_under(length + Duration::from_secs(300), &reins, Refused::Waits))
    };
    let hold = || reins.pause.store(setup::buffered(&daemon) > WAITING, Ordering::Relaxed);
    while setup::buffered(&daemon) < WAITING {
        thread::sleep(Duration::from_millis(20));
    }
    let (mut latency, mut refused) = (load::histogram(), 0);
    let until = Instant::now() + length;
    while Instant::now() < until {
        hold();
        let message = json!({"subject": "load", "body": "beside readings", "via": "log"}).to_string();
        let handed_in = Instant::now();
        let answer = daemon.post("/api/messages", &message);
        latency.saturating_record(u64::try_from(handed_in.elapsed().as_micros()).unwrap_or(u64::MAX));
        refused += u32::from(answer.status != 202);
        thread::sleep(EVERY);
    }
    let waiting = setup::buffered(&daemon);
    reins.pause.store(false, Ordering::Relaxed);
    reins.stop.store(true, Ordering::Relaxed);
    let outcome = pushing.join().expect("the generator failed");
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(60));
    vec![
        plain("messages", latency.len() as f64),
        plain("answered after, p50, ms", latency.value_at_quantile(0.5) as f64 / 1e3),
        plain("the same, p99, ms", latency.value_at_quantile(0.99) as f64 / 1e3),
        plain("the longest, ms", latency.max() as f64 / 1e3),
        aimed("not taken", f64::from(refused), AtMost(0.0)),
        plain("readings waiting at the end", waiting),
    ]
}
