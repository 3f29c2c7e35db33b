//! What is measured of the machine itself, because a figure without it says little.

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
