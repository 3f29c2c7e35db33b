//! The reliability campaign: what was acknowledged is on disk, is stored once, and no fault makes a person act.
//!
//! ```text
//! cargo test --features fault-injection --test campaign -- short           about 5 minutes
//! cargo test --features fault-injection --test campaign -- long            the whole, hours; writes docs/RELIABILITY.md
//! cargo test --features fault-injection --test campaign -- short --only kill,power --seed 7
//! cargo test --features fault-injection --test campaign -- long --only redis,kafka,rollback,instances --scale 0.25
//! cargo test --features fault-injection --test campaign -- short --only mutants --mutant relayed
//! ```
//!
//! A part of the campaign commits one kind of fault over and over on the real daemon while senders push; an oracle in this process
//! writes down what was sent and what was acknowledged, and compares it with the database (SQLite, and a real PostgreSQL). Everything
//! random follows from the seed. SIGTERM ends it early, with the report of what was done. `BELAYD_TEST_BINARY` names another build of the
//! daemon.

#![allow(unreachable_pub, clippy::print_stdout, reason = "a program of the tests")]

#[path = "../../benches/ingest/host.rs"]
mod host;
#[path = "../support/mod.rs"]
mod support;

mod broker;
mod clock;
mod compare;
mod damage;
mod database;
mod dice;
mod full;
mod instances;
mod kill;
mod messages;
mod mutants;
mod oracle;
mod outage;
mod part;
mod power;
mod relay;
mod report;
mod sender;
mod tier_redis;
mod world;

use std::{
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use part::{Campaign, Part};
use world::Tier;

/// A part: what it does, and how often and for how many seconds at most in the short and in the long campaign. A part without a short
/// round, because it starts servers that take their time, is left out of the short campaign unless `--only` names it; then it is long.
struct Entry {
    name: &'static str,
    about: &'static str,
    run: fn(&Campaign, &mut Part),
    short: Option<(u64, u64)>,
    long: (u64, u64),
}

/// From here on the page is written by hand and stays.
const BY_HAND: &str = "\n# The journal by itself\n";

const PARTS: &[Entry] = &[
    Entry {
        name: "kill",
        about: "kill -9 at random moments, also while it starts; SQLite and PostgreSQL in turn",
        run: kill::run,
        short: Some((100, 60)),
        long: (1_000, 3_600),
    },
    Entry {
        name: "power",
        about: "power cuts: under a preloaded layer, everything that was not synced is lost, torn or kept by chance; journal, control store and SQLite store",
        run: power::run,
        short: Some((60, 60)),
        long: (1_000, 3_600),
    },
    Entry {
        name: "damage",
        about: "a byte of the journal flipped, or a segment cut short, while 20,000 readings wait in it",
        run: damage::run,
        short: Some((40, 45)),
        long: (1_000, 3_600),
    },
    Entry {
        name: "postgres",
        about: "PostgreSQL killed, crashed, stopped or frozen, and started again",
        run: outage::postgres,
        short: Some((12, 40)),
        long: (60, 900),
    },
    Entry {
        name: "network",
        about: "connections from senders and to PostgreSQL cut, refused, delayed, throttled, swallowed, half-closed",
        run: outage::network,
        short: Some((24, 40)),
        long: (150, 900),
    },
    Entry { name: "pause", about: "SIGSTOP for up to 4.5 s, SIGCONT", run: outage::pause, short: Some((12, 20)), long: (60, 600) },
    Entry {
        name: "full",
        about: "the data directory's file system of 20 to 27 MB fills up while the database takes nothing; then there is room again",
        run: full::run,
        short: Some((5, 30)),
        long: (60, 900),
    },
    Entry {
        name: "clock",
        about: "the wall clock put forward and back by an hour",
        run: clock::run,
        short: Some((12, 20)),
        long: (60, 600),
    },
    Entry {
        name: "redis",
        about: "tiers redis and triple in turn, appendfsync always: Redis killed, restarted, frozen, slowed or partitioned; belayd killed or halted beside it",
        run: tier_redis::run,
        short: None,
        long: (60, 900),
    },
    Entry {
        name: "kafka",
        about: "Kafka killed, restarted, frozen, slowed or partitioned while readings are relayed, of tiers journal and triple in turn; belayd killed or halted, also alone",
        run: relay::kafka,
        short: None,
        long: (60, 1_800),
    },
    Entry {
        name: "rollback",
        about: "PostgreSQL refuses commits at random; an independent consumer looks each relayed reading up the moment it sees it",
        run: relay::rollback,
        short: None,
        long: (60, 900),
    },
    Entry {
        name: "instances",
        about: "three instances of examples/scale-out, of tiers redis and triple in turn: one killed, or halted beyond its lease, now and then with Redis or Kafka",
        run: instances::run,
        short: None,
        long: (40, 1_800),
    },
    Entry {
        name: "messages",
        about: "messages of three instances, half by mail and half by webhook, and alerts by mail: one killed, or halted beyond its lease, or the database killed, crashed or stopped; receivers count by delivery id",
        run: messages::run,
        short: Some((8, 45)),
        long: (150, 900),
    },
    Entry {
        name: "mutants",
        about: "daemons that are broken on purpose, which the parts above must find",
        run: mutants::run,
        short: Some((7, 120)),
        long: (10, 1_200),
    },
];

/// SIGTERM came: the part in hand compares what it has, and the report is written.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupted(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

static TIER: OnceLock<Tier> = OnceLock::new();

/// The tier that is tried.
fn tier() -> Tier {
    *TIER.get_or_init(|| Tier::JOURNAL)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned();
    let long = args.iter().any(|arg| arg == "long");
    if !long && !args.iter().any(|arg| arg == "short") {
        println!("left out: the reliability campaign, because nobody asked for it (-- short, or -- long)");
        return ExitCode::SUCCESS;
    }
    let seed = value("--seed").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() % 1_000_000
    });
    let scale: f64 = value("--scale").and_then(|scale| scale.parse().ok()).unwrap_or(1.0);
    let only = value("--only");
    match value("--tier").map_or(Ok(Tier::JOURNAL), |name| Tier::named(&name)) {
        Ok(tier) => {
            let _ = TIER.set(tier);
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    }
    let campaign = Campaign { seed, long };
    // SAFETY: the handler only stores into an atomic.
    unsafe { libc::signal(libc::SIGTERM, interrupted as *const () as libc::sighandler_t) };
    println!("campaign: seed {seed}, tier {}, binary {}", tier().name, support::daemon::Daemon::binary());

    let mut parts = Vec::new();
    let takes_part = |entry: &&Entry| match &only {
        Some(only) => only.split(',').any(|name| name == entry.name),
        None => long || entry.short.is_some(),
    };
    for entry in PARTS.iter().filter(takes_part) {
        let (count, limit) = entry.short.filter(|_| !long).unwrap_or(entry.long);
        let count = ((count as f64 * scale).ceil() as u64).max(1);
        let mut part = Part::new(entry.name, entry.about, count, Duration::from_secs(limit));
        part.attempt("the part itself", |part| {
            (entry.run)(&campaign, part);
            Ok(())
        });
        part.finish();
        parts.push(part);
    }
    let head = report::Head {
        seed,
        command: format!("cargo test --features fault-injection --test campaign -- {}", args.join(" ")),
        disk: host::fdatasync(Duration::from_secs(1)),
        processor: host::cpu_model(),
        commit: report::commit(),
    };
    let text = report::markdown(&head, &parts);
    println!("{text}");
    // Only the whole campaign may speak for the project.
    let place = value("--report").or_else(|| (long && only.is_none()).then(|| "docs/RELIABILITY.md".into()));
    let kept = |path: &str| {
        let old = std::fs::read_to_string(path).unwrap_or_default();
        old.find(BY_HAND).map_or_else(String::new, |at| old[at..].to_owned())
    };
    if let Some(Err(error)) = place.map(|path| std::fs::write(&path, format!("{text}{}", kept(&path)))) {
        println!("the report could not be written: {error}");
        return ExitCode::FAILURE;
    }
    if parts.iter().all(|part| part.failures.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
