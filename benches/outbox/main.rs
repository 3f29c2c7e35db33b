//! Deliveries a second through the outbox, and how soon one is sent: the daemon's own dispatchers and tables with the settings that
//! ship, on SQLite and on a PostgreSQL of its own with that server's default settings. The sink does nothing, so that all there is to see
//! is the outbox; `smtp` has the real one, into a receiver that takes everything in a process of its own.
//!
//! `cargo bench --bench outbox` runs everything; `-- --help` tells how to run a part. Rounds are interleaved, and every figure is printed
//! with its median, its range, the disk's own fdatasync time measured beside it and what other programs took of the cores meanwhile.

#![allow(unreachable_pub, reason = "a benchmark has no readers")]
#![allow(clippy::print_stdout, reason = "printing figures is what it is for")]

mod bare;
#[path = "../ingest/host.rs"]
mod host;
mod lists;
mod mail;
#[path = "../../tests/support/needs.rs"]
mod needs;
#[path = "../../tests/support/ports.rs"]
mod ports;
#[path = "../../tests/support/postgres.rs"]
mod postgres;
#[path = "../ingest/report.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part")]
mod report;
mod scenarios;
mod setup;
#[path = "../../tests/support/smtp_server.rs"]
mod smtp_server;

use report::Scenario;
use setup::Bench;

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rounds; the median is quoted.
    pub rounds: usize,
    /// Deliveries of one round of throughput.
    pub deliveries: u64,
    /// Length of a round of latency or of doing nothing.
    pub seconds: u64,
    /// Messages, deliveries, issues and alerts each that lists are taken from.
    pub rows: u64,
    /// Only scenarios whose name begins with this.
    pub only: Option<String>,
}

const HELP: &str = "cargo bench --bench outbox -- [--quick] [--only NAME] [--rounds N] [--deliveries N] [--seconds N] [--rows N]

  --quick         one short round of everything, for a first look
  --only NAME     only scenarios whose name begins with NAME; --list names them
  --rounds N      rounds, interleaved; the median is quoted (default 3)
  --deliveries N  deliveries of one round of throughput (default 300000)
  --seconds N     length of one round of latency or of doing nothing (default 10)
  --rows N        rows of each table that lists are taken from (default 1000000)

PostgreSQL is one of its own, with that server's default settings, from the binaries of the distribution.";

fn main() {
    let mut args = std::env::args().skip(1);
    let mut options = Options { rounds: 3, deliveries: 300_000, seconds: 10, rows: 1_000_000, only: None };
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| usage(&format!("{arg} takes a number")));
        match arg.as_str() {
            "--quick" => options = Options { rounds: 1, deliveries: 60_000, seconds: 3, rows: 200_000, ..options },
            "--rounds" => options.rounds = number().max(1) as usize,
            "--deliveries" => options.deliveries = number().max(1_000),
            "--seconds" => options.seconds = number().max(1),
            "--rows" => options.rows = number().max(10_000),
            "--only" => options.only = args.next(),
            "--list" => {
                scenarios::ALL.iter().for_each(|scenario| println!("{:<24} {}", scenario.name, scenario.what));
                return;
            }
            // The other process of `latency-other-process`: this program once more.
            setup::ENQUEUE => return setup::enqueue_slowly(&args.collect::<Vec<_>>()),
            // And the receiver of `smtp`.
            mail::RECEIVE => return mail::receive(),
            // `cargo bench` passes this to every bench.
            "--bench" => {}
            "--help" | "-h" => usage(""),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    println!("machine: {} cores, {}", std::thread::available_parallelism().map_or(1, usize::from), host::cpu_model());
    let only = options.only.clone();
    let wanted: Vec<&Scenario> =
        scenarios::ALL.iter().filter(|scenario| only.as_deref().is_none_or(|only| scenario.name.starts_with(only))).collect();
    report::run(&mut Bench::new(options), &wanted);
}

/// What the shared helper for PostgreSQL asks of its parent.
fn left_out(what: &str) {
    println!("left out: {what}");
}

fn usage(problem: &str) -> ! {
    println!("{problem}\n{HELP}");
    std::process::exit(i32::from(!problem.is_empty()) * 2);
}
