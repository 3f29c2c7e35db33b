//! Measures the daemon from outside, as its users would see it: a release binary, its own generator on the same machine, real
//! sockets, a real database on the same machine.
//!
//! `cargo bench --bench ingest` runs everything; `-- --help` tells how to run one part, quicker or for longer. Rounds are interleaved,
//! and every figure is printed with its median, its range and the disk's own fdatasync time measured beside it, because a figure
//! without the disk it was measured on says little.

#![allow(unreachable_pub, reason = "a benchmark has no readers")]
#![allow(clippy::print_stdout, reason = "printing figures is what it is for")]

mod acks;
mod alert;
mod bare;
#[path = "../../tests/support/daemon.rs"]
mod daemon;
mod flood;
mod host;
#[path = "../../tests/support/kafka.rs"]
mod kafka;
mod load;
mod memory;
mod message;
#[path = "../../tests/support/needs.rs"]
mod needs;
mod outages;
mod overload;
mod poison;
#[path = "../../tests/support/ports.rs"]
mod ports;
#[path = "../../tests/support/postgres.rs"]
mod postgres;
#[path = "../../tests/support/redis.rs"]
mod redis_server;
mod relay;
mod report;
mod setup;
mod sustained;
mod tiers;

use report::Scenario;
use setup::Bench;

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of one round of load.
    pub seconds: u64,
    /// Rounds of each short scenario; the median is quoted.
    pub rounds: usize,
    /// Only scenarios whose name begins with this.
    pub only: Option<String>,
    /// Length of each sustained load.
    pub sustained_seconds: u64,
    /// Length of the memory scenario.
    pub memory_seconds: u64,
    /// Length of the long outage.
    pub outage_seconds: u64,
    /// What waits in the journal at the restart, MB.
    pub backlog_mb: u64,
}

/// Everything that is measured, in the order in which it is printed.
const SCENARIOS: &[Scenario] = &[
    acks::PUSH_100,
    acks::PUSH_1000,
    acks::SINGLE_16,
    acks::SINGLE_64,
    bare::PUSH_100,
    bare::PUSH_1000,
    bare::SINGLE_16,
    bare::SINGLE_64,
    acks::DRAINING_100,
    acks::DRAINING_1000,
    acks::DRAINING_SINGLE,
    acks::OFFERED,
    acks::TRICKLE,
    bare::OFFERED_5000,
    bare::OFFERED_10000,
    acks::STORE_SQLITE,
    acks::STORE_POSTGRES,
    alert::ALERT,
    message::BESIDE_SQLITE,
    poison::POISON,
    overload::RATE,
    overload::BYTES,
    overload::CPU,
    sustained::POSTGRES_100,
    sustained::POSTGRES_1000,
    sustained::SQLITE_100,
    sustained::SQLITE_1000,
    memory::IDLE,
    memory::TRICKLE,
    memory::FULL,
    outages::SHORT,
    outages::RESTART,
    outages::LONG,
    relay::SUSTAINED,
    relay::LATENCY,
    relay::OUTAGE,
    relay::OUTAGE_LONG,
    tiers::REDIS_EVERYSEC,
    tiers::REDIS_ALWAYS,
    tiers::TRIPLE,
];

const HELP: &str = "cargo bench --bench ingest -- [--quick] [--only NAME] [--seconds N] [--rounds N] [--sustained-seconds N]
                               [--memory-seconds N] [--outage-seconds N] [--backlog-mb N]

  --quick                one short round of everything, for a first look
  --only NAME            only scenarios whose name begins with NAME; --list names them
  --seconds N            length of one round of load (default 8)
  --rounds N             rounds of each short scenario, interleaved; the median is quoted (default 3)
  --sustained-seconds N  length of each sustained load (default 60)
  --memory-seconds N     length of the memory scenario at 5,000 readings/s (default 60)
  --outage-seconds N     length of the long outage at 5,000 readings/s (default 600)
  --backlog-mb N         what waits in the journal at the restart (default 1024)

Kafka is one of its own too, from the jars that BELAYD_TEST_KAFKA or tests/run gives, and so is Redis. PostgreSQL is one of its own, with that server's default settings, from the binaries of the distribution. As root, page caches are
emptied before the restart; else the restart is measured with what is cached.";

fn main() {
    let mut options = Options {
        seconds: 8,
        rounds: 3,
        only: None,
        sustained_seconds: 60,
        memory_seconds: 60,
        outage_seconds: 600,
        backlog_mb: 1_024,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| usage(&format!("{arg} takes a number")));
        match arg.as_str() {
            "--quick" => {
                options = Options {
                    seconds: 3,
                    rounds: 1,
                    sustained_seconds: 10,
                    memory_seconds: 10,
                    outage_seconds: 20,
                    backlog_mb: 256,
                    ..options
                }
            }
            "--seconds" => options.seconds = number().max(1),
            "--rounds" => options.rounds = number().max(1) as usize,
            "--sustained-seconds" => options.sustained_seconds = number().max(5),
            "--memory-seconds" => options.memory_seconds = number().max(5),
            "--outage-seconds" => options.outage_seconds = number().max(5),
            "--backlog-mb" => options.backlog_mb = number().max(1),
            "--only" => options.only = args.next(),
            "--list" => {
                SCENARIOS.iter().for_each(|scenario| println!("{:<24} {}", scenario.name, scenario.what));
                return;
            }
            // This program once more, as the server that `bare` measures.
            bare::SERVE => {
                let (dir, gather_us) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
                return bare::serve(&dir, &gather_us);
            }
            // `cargo bench` passes this to every bench.
            "--bench" => {}
            "--help" | "-h" => usage(""),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    println!("machine: {} cores, {}", std::thread::available_parallelism().map_or(1, usize::from), host::cpu_model());
    let only = options.only.clone();
    let wanted: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| only.as_deref().is_none_or(|only| scenario.name.starts_with(only))).collect();
    report::run(&mut Bench::new(options), &wanted);
}

/// What the shared helpers for PostgreSQL, Kafka and Redis ask of their parent.
fn left_out(what: &str) {
    println!("left out: {what}");
}

fn usage(problem: &str) -> ! {
    if problem.is_empty() {
        println!("{HELP}");
        std::process::exit(0);
    }
    eprintln!("{problem}\n\n{HELP}");
    std::process::exit(2);
}
