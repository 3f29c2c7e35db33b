//! What is measured of the machine and of other processes, because a figure without it says little.

#![allow(dead_code, reason = "each benchmark uses its own part")]

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// How long the disk of the working directory takes to make 4 KiB durable: p50 and p99.
pub fn fdatasync(length: Duration) -> (Duration, Duration) {
    let mut file = tempfile::NamedTempFile::new_in(Path::new(".")).expect("the working directory can be written");
    let mut times = Vec::new();
    let until = Instant::now() + length;
    while Instant::now() < until {
        file.write_all(&[7; 4096]).expect("the disk has room");
        let started = Instant::now();
        file.as_file().sync_data().expect("the disk syncs");
        times.push(started.elapsed());
    }
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// The processor's name.
pub fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    line.split(": ").nth(1).unwrap_or("unknown processor").to_owned()
}

/// Processor time that a process has used so far, its own and, where it has waited for them, that of children that ended.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = (11..=14).filter_map(|n| fields.get(n)?.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every Linux that Rust runs on.
    Duration::from_millis(ticks * 10)
}

/// The same of a process and all that it has started, as PostgreSQL's.
pub fn cpu_of_all(pid: u32) -> Duration {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = list.split_whitespace().filter_map(|word| word.parse().ok());
    cpu_of(pid) + children.map(cpu_of).sum::<Duration>()
}

/// Processor time that all cores together have spent at work since the machine started.
pub fn busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, …
    let working: u64 = [0, 1, 2, 5, 6].iter().filter_map(|n| ticks.get(*n)).sum();
    Duration::from_millis(working * 10)
}
