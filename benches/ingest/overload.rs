//! Five times as much as the daemon is set to have in the works: what still gets through, and how quickly the rest is told to wait.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Load, Outcome, Pusher},
    report::{
        Aim::{AtLeast, AtMost},
        Figure, Scenario, aimed, plain,
    },
    setup::{self, Bench, Database},
};

pub const OVERLOAD: Scenario = Scenario {
    name: "overload",
    what: "pushes of 1,000 at 5 times what admission_bytes = 8MB lets in",
    once: false,
    run: overload,
};

/// Pushes of 1,000 that fill the budget: one takes about 130 kB.
const CAPACITY: usize = 60;

fn overload(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "[buffer]\nadmission_bytes = \"8MB\"\njournal_bytes = \"8GB\"\n");
    let length = bench.length();
    let peak = setup::load(&daemon, CAPACITY / 2, 1_000).swarm(0, length, Duration::ZERO);
    let before = daemon.memory().0;
    // Four of five pushes are refused and come again so that five times the peak is offered.
    let refused_connections = 4 * CAPACITY;
    let pause = Duration::from_secs_f64(refused_connections as f64 / (4.0 * peak.requests_per_s()));
    let flood = setup::load(&daemon, 5 * CAPACITY, 1_000).swarm(CAPACITY, length, pause);
    let after = daemon.memory().0;
    setup::check_all_stored(&daemon, peak.accepted + flood.accepted, Duration::from_secs(120));
    let share = flood.readings_per_s() / peak.readings_per_s() * 100.0;
    vec![
        plain("readings/s accepted at the peak", peak.readings_per_s()),
        plain("readings/s accepted under the flood", flood.readings_per_s()),
        aimed("under the flood, % of the peak", share, AtLeast(90.0)),
        plain("offered, times the accepted", (flood.requests + flood.refused) as f64 / flood.requests.max(1) as f64),
        aimed("refusal p99, ms", flood.refusals.value_at_quantile(0.99) as f64 / 1e3, AtMost(10.0)),
        plain("refusal p50, ms", flood.refusals.value_at_quantile(0.5) as f64 / 1e3),
        plain("RssAnon at the peak, MB", before as f64 / 1e6),
        aimed("RssAnon under the flood, MB", after as f64 / 1e6, AtMost(24.0)),
    ]
}

impl Load {
    /// A thread for each connection, so that no answer waits for another. Who is refused comes again after `pause`. Connections are
    /// numbered from `first`.
    fn swarm(&self, first: usize, length: Duration, pause: Duration) -> Outcome {
        let started = Instant::now();
        let handles: Vec<_> = (0..self.connections)
            .map(|c| {
                let load = self.clone();
                thread::spawn(move || {
                    let mut pusher = Pusher::new(&load, first + c, None);
                    let mut outcome = Outcome::new();
                    while started.elapsed() < length {
                        pusher.send();
                        let status = pusher.receive();
                        if outcome.count(status, load.push, pusher.sent.elapsed(), || pusher.last_answer()) {
                            pusher.advance();
                        } else {
                            pusher.connect_again_if_closed();
                            thread::sleep(pause);
                        }
                    }
                    outcome
                })
            })
            .collect();
        crate::load::join(handles, started)
    }
}
