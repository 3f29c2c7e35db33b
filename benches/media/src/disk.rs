//! What the kernel says of this process and of the disk.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

/// Bytes that this process has caused to be written to the disk, data of files only.
pub(crate) fn write_bytes() -> u64 {
    field("/proc/self/io", "write_bytes: ")
}

/// Private memory (`RssAnon`), bytes.
pub(crate) fn private_bytes() -> u64 {
    field("/proc/self/status", "RssAnon:") * 1024
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Processor time of this process.
pub(crate) fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes into `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// How long the disk takes to make 4 KiB durable that are appended to a file: p50 and p99.
pub(crate) fn fdatasync(dir: &Path, length: Duration) -> io::Result<(Duration, Duration)> {
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::new();
    let until = Instant::now() + length;
    while Instant::now() < until || times.is_empty() {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Empties the page cache, so that what follows reads from the disk. Says whether it was allowed to (root only).
pub(crate) fn drop_caches() -> bool {
    // SAFETY: plain system call without arguments.
    unsafe { libc::sync() };
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}
