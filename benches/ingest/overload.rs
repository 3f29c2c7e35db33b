//! Five times as much as the daemon is set to take: what still gets through, how quickly the rest is told to wait, and in how much
//! memory. Peak and flood take turns in one run.
//!
//! Three forms: beyond a rate that leaves the processor nearly idle, beyond the bytes that may be in the works at once, and, because it
//! is what a host sees that is simply too small, beyond what two cores do that the generator shares.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    daemon::Daemon,
    flood::{Flooded, Slow},
    load::{Load, Outcome, Pusher},
    report::{
        Aim::{AtLeast, AtMost},
        Figure, Scenario, aimed, plain,
    },
    setup::{self, Bench, Database},
};

pub const RATE: Scenario = Scenario {
    name: "overload-rate",
    what: "pushes of 1,000 on 300 connections at 5 times readings_per_s = 30,000",
    once: false,
    run: beyond_the_rate,
};
pub const BYTES: Scenario = Scenario {
    name: "overload-bytes",
    what: "pushes of 1,000 at 5 times what 60 slow senders get through admission_bytes = 8MB",
    once: false,
    run: beyond_the_bytes,
};
pub const CPU: Scenario = Scenario {
    name: "overload-cpu",
    what: "pushes of 1,000, five times as many connections as fill admission_bytes = 8MB, as fast as it goes",
    once: false,
    run: beyond_the_processor,
};

/// Pushes of 1,000 that fill a budget of 8 MB: one takes about 130 kB.
const CAPACITY: usize = 60;
/// How many times the capacity is offered.
const TIMES: f64 = 5.0;
/// Turns of peak and flood in a round.
const TURNS: usize = 2;

/// What the turns came to.
struct Turns {
    peak: Outcome,
    flood: Outcome,
    due: u64,
    unanswered: u64,
    cpu: Duration,
    /// Most private memory, bytes: before the first flood, and from then on.
    memory: (u64, u64),
}

/// Lets `peak` and `flood` take turns; connections of a turn are numbered from what they are given.
fn take_turns(daemon: &Daemon, peak: impl Fn(usize) -> Flooded, flood: impl Fn(usize) -> Flooded) -> Turns {
    let mut turns =
        Turns { peak: Outcome::new(), flood: Outcome::new(), due: 0, unanswered: 0, cpu: Duration::ZERO, memory: (0, 0) };
    for turn in 0..TURNS {
        let (of_peak, most) = watched(daemon, || peak(turn * 2_000));
        if turn == 0 {
            turns.memory.0 = most;
        }
        turns.peak.add(&of_peak.outcome);
        turns.peak.took += of_peak.outcome.took;
        let cpu = daemon.cpu();
        let (of_flood, most) = watched(daemon, || flood(turn * 2_000 + 1_000));
        turns.cpu += daemon.cpu() - cpu;
        turns.memory.1 = turns.memory.1.max(most);
        turns.flood.add(&of_flood.outcome);
        turns.flood.took += of_flood.outcome.took;
        turns.due += of_flood.due;
        turns.unanswered += of_flood.unanswered + of_peak.unanswered;
    }
    turns
}

/// Does `work` and says how much private memory the daemon took at most meanwhile, bytes.
fn watched<T>(daemon: &Daemon, work: impl FnOnce() -> T) -> (T, u64) {
    let over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(daemon.memory().0);
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (done, watching.join().expect("reading /proc"))
    })
}

fn figures(turns: &Turns) -> Vec<Figure> {
    let Turns { peak, flood, due, unanswered, cpu, memory } = turns;
    let took = flood.took.as_secs_f64();
    let share = flood.readings_per_s() / peak.readings_per_s() * 100.0;
    vec![
        plain("readings/s accepted at the peak", peak.readings_per_s()),
        plain("readings/s accepted under the flood", flood.readings_per_s()),
        aimed("under the flood, % of the peak", share, AtLeast(90.0)),
        plain("answered, times the peak", (flood.requests + flood.refused) as f64 / took / peak.requests_per_s()),
        plain("offered, times the peak", *due as f64 / took / peak.requests_per_s()),
        aimed("refusal p99, ms", flood.refusals.value_at_quantile(0.99) as f64 / 1e3, AtMost(10.0)),
        plain("refusal p50, ms", flood.refusals.value_at_quantile(0.5) as f64 / 1e3),
        plain("acceptance p99, ms", flood.ms(0.99)),
        aimed("connections without an answer", *unanswered as f64, AtMost(0.0)),
        plain("RssAnon at the first peak, most, MB", memory.0 as f64 / 1e6),
        aimed("RssAnon under the flood, most, MB", memory.1 as f64 / 1e6, AtMost(24.0)),
        plain("daemon under the flood, % of a core", cpu.as_secs_f64() / took * 100.0),
    ]
}

fn beyond_the_rate(bench: &mut Bench) -> Vec<Figure> {
    const RATE: f64 = 30_000.0;
    let daemon = bench.daemon(Database::Sqlite, "[buffer]\nreadings_per_s = 30000\n");
    let length = bench.length();
    let load = setup::load(&daemon, 5 * CAPACITY, 1_000);
    let offer = |first, times: f64| load.flood(first, times * RATE / 1_000.0, None, length);
    // A little more than the rate, so that the peak is what the daemon lets in and not what it is sent.
    let turns = take_turns(&daemon, |first| offer(first, 1.1), |first| offer(first, TIMES));
    setup::check_all_stored(&daemon, turns.peak.accepted + turns.flood.accepted, Duration::from_secs(60));
    figures(&turns)
}

fn beyond_the_bytes(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "[buffer]\nadmission_bytes = \"8MB\"\n");
    let length = bench.length();
    // A body of 130 kB in 13 pieces takes half a second: together about 120 pushes a second.
    let slow = Slow { senders: CAPACITY, piece_bytes: 10_000, pause: Duration::from_millis(40) };
    let alone = setup::load(&daemon, 0, 1_000);
    let beside = setup::load(&daemon, 4 * CAPACITY, 1_000);
    let rate = (TIMES - 1.0) * CAPACITY as f64 / (13.0 * slow.pause.as_secs_f64());
    let flood = |first| {
        let mut flooded = beside.flood(first, rate, Some(slow), length);
        // The slow ones are always at it.
        flooded.due += (rate / (TIMES - 1.0) * length.as_secs_f64()) as u64;
        flooded
    };
    let turns = take_turns(&daemon, |first| alone.flood(first, 0.0, Some(slow), length), flood);
    setup::check_all_stored(&daemon, turns.peak.accepted + turns.flood.accepted, Duration::from_secs(60));
    figures(&turns)
}

fn beyond_the_processor(bench: &mut Bench) -> Vec<Figure> {
    let daemon = bench.daemon(Database::Sqlite, "[buffer]\nadmission_bytes = \"8MB\"\njournal_bytes = \"8GB\"\n");
    let length = bench.length();
    let swarm = |first, connections| {
        let outcome = setup::load(&daemon, connections, 1_000).swarm(first, length);
        Flooded { due: outcome.requests + outcome.refused, outcome, unanswered: 0 }
    };
    let turns = take_turns(&daemon, |first| swarm(first, CAPACITY / 2), |first| swarm(first, 5 * CAPACITY));
    setup::check_all_stored(&daemon, turns.peak.accepted + turns.flood.accepted, Duration::from_secs(120));
    figures(&turns)
}

impl Load {
    /// A thread for each connection, so that no answer waits for another. Who is refused comes again after 5 ms. Connections are
    /// numbered from `first`.
    fn swarm(&self, first: usize, length: Duration) -> Outcome {
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
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                    outcome
                })
            })
            .collect();
        crate::load::join(handles, started)
    }
}
