//! Which medium should keep acknowledged readings until the database has them: an own segment log, or a library as the store of blobs?
//!
//! `cargo run --release` in this folder measures all of them, interleaved, and prints the tables of `docs/JOURNAL_MEDIA.md`.
//! Each measurement is a process of its own, so that `/proc/self/io` and the memory are of that medium alone. `-- --help` tells more.

#![allow(clippy::print_stdout, reason = "printing figures is what it is for")]
#![warn(missing_docs)]

mod commit;
mod disk;
mod media;
mod preallocation;
mod report;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use media::{MEDIA, Medium};

/// Bytes of one reading as the daemon encodes it.
const READING_BYTES: usize = 55;
/// Senders that wait for their acknowledgement at any time.
const WAITERS: usize = 16;
/// What the database has not taken yet: anything older is dropped by the commit that comes next.
const BACKLOG_BYTES: u64 = 64 << 20;

const HELP: &str = "cargo run --release -- [preallocation] [--rounds N] [--seconds N] [--backlog-mb N] [--dir DIR] [--only MEDIUM]

  preallocation   instead, how a segment's room should be made (--rounds and --dir only)
  --rounds N      rounds of each measurement, interleaved; the median is quoted (default 5)
  --seconds N     length of one measurement of load (default 3)
  --backlog-mb N  what lies in the medium when it is opened again (default 1024)
  --dir DIR       where the files lie (default: a temporary directory below the working directory)
  --only MEDIUM   only one of them";

/// What the command line asked for.
#[derive(Clone, Debug)]
struct Options {
    rounds: usize,
    seconds: u64,
    backlog_mb: u64,
    dir: PathBuf,
    only: Option<String>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    match texts.as_slice() {
        // The parts that the orchestrator below starts as processes of their own.
        ["load", medium, push, seconds, dir] => load(medium, number(push) as usize, number(seconds), Path::new(dir)),
        ["fill", medium, megabytes, dir] => fill(medium, number(megabytes), Path::new(dir)),
        ["reopen", medium, dir] => reopen(medium, Path::new(dir)),
        ["preallocation", rest @ ..] => {
            let options = options(rest);
            preallocation::run(&options.dir, options.rounds, 400).unwrap_or_else(|error| usage(&error.to_string()));
        }
        _ => report::run(&options(&texts)),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| usage(&format!("{text} is no number")))
}

fn usage(problem: &str) -> ! {
    println!("{problem}\n{HELP}");
    std::process::exit(i32::from(!problem.is_empty()) * 2);
}

fn options(texts: &[&str]) -> Options {
    let mut options = Options { rounds: 5, seconds: 3, backlog_mb: 1_024, dir: ".".into(), only: None };
    let mut words = texts.iter();
    while let Some(word) = words.next() {
        let mut value = || *words.next().unwrap_or_else(|| usage(&format!("{word} takes a value")));
        match *word {
            "--rounds" => options.rounds = number(value()).max(1) as usize,
            "--seconds" => options.seconds = number(value()).max(1),
            "--backlog-mb" => options.backlog_mb = number(value()).max(1),
            "--dir" => options.dir = value().into(),
            "--only" => options.only = Some(value().to_owned()),
            "--help" | "-h" => usage(""),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    options
}

fn open(name: &str, dir: &Path) -> Box<dyn Medium> {
    let (_, open) = MEDIA.iter().find(|(known, _)| *known == name).unwrap_or_else(|| usage(&format!("no medium {name}")));
    open(dir).unwrap_or_else(|error| panic!("{name} in {}: {error}", dir.display()))
}

/// Senders push as fast as they are answered.
fn load(name: &str, push: usize, seconds: u64, dir: &Path) {
    let medium = open(name, dir);
    let before = disk::write_bytes();
    let outcome = commit::run(medium, WAITERS, push, Duration::from_secs(seconds));
    println!("readings_per_s {}", outcome.readings as f64 / outcome.took.as_secs_f64());
    println!("p50_us {}", outcome.latency.value_at_quantile(0.5));
    println!("p99_us {}", outcome.latency.value_at_quantile(0.99));
    println!("commits_per_s {}", outcome.commits as f64 / outcome.took.as_secs_f64());
    println!("written_per_reading {}", (disk::write_bytes() - before) as f64 / outcome.readings as f64);
    println!("cpu_us_per_reading {}", disk::cpu().as_secs_f64() * 1e6 / outcome.readings as f64);
    println!("private_mb {}", disk::private_bytes() as f64 / 1e6);
}

/// Leaves a backlog behind, as a process that is killed leaves it.
fn fill(name: &str, megabytes: u64, dir: &Path) {
    let mut medium = open(name, dir);
    let rows = 4_096;
    let blobs: Vec<_> = (0..64).map(|seed| commit::payload(rows, seed)).collect();
    let (mut first_seq, mut bytes) = (1, 0);
    for blob in blobs.iter().cycle() {
        if bytes >= megabytes << 20 {
            break;
        }
        medium.commit(first_seq, rows as u32, std::slice::from_ref(blob), 0).expect("the disk takes it");
        first_seq += rows as u64;
        bytes += blob.len() as u64;
    }
    // SAFETY: plain system calls on this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

/// From nothing to the first commit that is durable.
fn reopen(name: &str, dir: &Path) {
    let started = Instant::now();
    let mut medium = open(name, dir);
    let opened = started.elapsed();
    let next_seq = medium.next_seq();
    assert!(next_seq > 1, "{name} forgot its backlog");
    medium.commit(next_seq, 1, &[commit::payload(1, 0)], 0).expect("the disk takes it");
    println!("open_ms {}", opened.as_secs_f64() * 1e3);
    println!("durable_ms {}", started.elapsed().as_secs_f64() * 1e3);
}
