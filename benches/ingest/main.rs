//! Measures the daemon from outside, as its users would see it: a release binary, its own generator on the same machine, real
//! sockets, a real database file.
//!
//! `cargo bench --bench ingest` runs everything once with short rounds; `-- --help` tells how to run one part, or for longer.
//! Every figure is printed with its median over the rounds, beside the disk's own fdatasync time, because a figure without the
//! disk it was measured on says little.

#![allow(unreachable_pub, reason = "a benchmark has no readers")]
#![allow(clippy::print_stdout, reason = "printing figures is what it is for")]

#[path = "../../tests/support/daemon.rs"]
mod daemon;
mod host;
mod load;
mod scenarios;

use std::time::Duration;

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of one round.
    pub seconds: u64,
    /// Rounds of each scenario; the median is quoted.
    pub rounds: usize,
    /// Only scenarios whose name contains this.
    pub only: Option<String>,
    /// Length of the memory scenario.
    pub memory_seconds: u64,
    /// PostgreSQL to store into instead of SQLite.
    pub store_url: Option<String>,
}

const HELP: &str = "cargo bench --bench ingest -- [--seconds N] [--rounds N] [--only NAME] [--memory-seconds N] [--store URL]

  --seconds N         length of one round (default 8)
  --rounds N          rounds of each scenario, the median is quoted (default 3)
  --only NAME         only scenarios whose name contains NAME: push-100, push-1000, push-1, idle-memory, memory, alert
  --memory-seconds N  length of the memory scenario at 5,000 readings/s (default 60; the promise is made over 600)
  --store URL         a PostgreSQL database to store into (default: a new SQLite file)";

fn main() {
    let mut options = Options { seconds: 8, rounds: 3, only: None, memory_seconds: 60, store_url: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| usage(&format!("{arg} takes a number")));
        match arg.as_str() {
            "--seconds" => options.seconds = number().max(1),
            "--rounds" => options.rounds = number().max(1) as usize,
            "--memory-seconds" => options.memory_seconds = number().max(5),
            "--only" => options.only = args.next(),
            "--store" => options.store_url = args.next(),
            // `cargo bench` passes this to every bench.
            "--bench" => {}
            "--help" | "-h" => usage(""),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    println!("machine: {} cores, {}", std::thread::available_parallelism().map_or(1, usize::from), host::cpu_model());
    let (p50, p99) = host::fdatasync(Duration::from_secs(2));
    println!("disk: fdatasync of 4 KiB p50 {p50:?}, p99 {p99:?}\n");
    scenarios::run(&options);
}

fn usage(problem: &str) -> ! {
    if problem.is_empty() {
        println!("{HELP}");
        std::process::exit(0);
    }
    eprintln!("{problem}\n\n{HELP}");
    std::process::exit(2);
}
