//! Figures of host and process, read from /proc and statvfs: a few small reads a second, no scan of processes.

use std::{
    ffi::CString,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Used and total of something, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes there are.
    pub total_bytes: u64,
}

impl Usage {
    /// 0 to 100.
    pub fn percent(&self) -> f64 {
        if self.total_bytes == 0 { 0.0 } else { self.used_bytes as f64 * 100.0 / self.total_bytes as f64 }
    }
}

/// The daemon's own figures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessFigures {
    /// Resident memory, shared pages included, bytes (`VmRSS`).
    pub rss_bytes: u64,
    /// Private memory, bytes (`RssAnon`).
    pub private_bytes: u64,
}

/// One look at the host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostFigures {
    /// Busy share of all processors since the look before, 0 to 100.
    pub cpu_percent: f64,
    /// Main memory; used is what is not available (`MemAvailable`).
    pub memory: Usage,
    /// The file system of the data directory, as an ordinary user sees it.
    pub disk: Usage,
    /// The daemon itself.
    pub process: ProcessFigures,
}

/// Looks at the host; keeps what the CPU share needs from one look to the next.
#[derive(Debug)]
pub struct HostProbe {
    data_dir: PathBuf,
    last_cpu: Option<CpuTimes>,
}

/// Clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq)]
struct CpuTimes {
    busy: u64,
    total: u64,
}

impl HostProbe {
    /// A probe that watches the disk under `data_dir`.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), last_cpu: cpu_times(&read("/proc/stat")) }
    }

    /// Looks. What cannot be read stays 0: the daemon runs without it.
    pub fn look(&mut self) -> HostFigures {
        let now = cpu_times(&read("/proc/stat"));
        let cpu_percent = match (self.last_cpu, now) {
            (Some(before), Some(now)) => busy_percent(before, now),
            _ => 0.0,
        };
        self.last_cpu = now;
        HostFigures {
            cpu_percent,
            memory: memory(&read("/proc/meminfo")),
            disk: disk_of(&self.data_dir),
            process: process(&read("/proc/self/status")),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal (proc(5)); guest times are part of user already.
fn cpu_times(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    let total = ticks.iter().sum();
    let idle: u64 = ticks.get(3..5)?.iter().sum();
    Some(CpuTimes { busy: total - idle, total })
}

fn busy_percent(before: CpuTimes, now: CpuTimes) -> f64 {
    let total = now.total.saturating_sub(before.total);
    if total == 0 { 0.0 } else { (now.busy.saturating_sub(before.busy) as f64 * 100.0 / total as f64).min(100.0) }
}

/// A value of a `Name:  123 kB` table, bytes.
fn kilobytes(table: &str, name: &str) -> Option<u64> {
    let rest = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(rest.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn memory(meminfo: &str) -> Usage {
    let total_bytes = kilobytes(meminfo, "MemTotal").unwrap_or(0);
    let available = kilobytes(meminfo, "MemAvailable").unwrap_or(total_bytes);
    Usage { used_bytes: total_bytes.saturating_sub(available), total_bytes }
}

fn process(status: &str) -> ProcessFigures {
    ProcessFigures { rss_bytes: kilobytes(status, "VmRSS").unwrap_or(0), private_bytes: kilobytes(status, "RssAnon").unwrap_or(0) }
}

/// The file system of `path`, as `df` shows it to an ordinary user; zeros where it cannot be asked.
pub fn disk_of(path: &Path) -> Usage {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return Usage::default() };
    // SAFETY: an all-zero statvfs is a valid value, the path ends in a zero byte, and the pointer is valid for the call.
    let figures = unsafe {
        let mut figures: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut figures) != 0 {
            return Usage::default();
        }
        figures
    };
    // As df does: what is reserved for root counts neither as used nor as free.
    let used = figures.f_blocks.saturating_sub(figures.f_bfree);
    let total = used + figures.f_bavail;
    Usage { used_bytes: used * figures.f_frsize, total_bytes: total * figures.f_frsize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_share_is_what_happened_between_two_looks() {
        let before = cpu_times("cpu  100 0 100 700 100 0 0 0 5 5\ncpu0 1\n").expect("a line");
        let now = cpu_times("cpu  130 0 110 750 110 0 0 0 9 9\n").expect("a line");
        assert_eq!(before, CpuTimes { busy: 200, total: 1_000 });
        assert_eq!(busy_percent(before, now), 40.0);
        assert_eq!(busy_percent(now, now), 0.0);
        assert_eq!(cpu_times("intr 1"), None);
    }

    #[test]
    fn used_memory_is_what_is_not_available() {
        let usage = memory("MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    250 kB\n");
        assert_eq!(usage, Usage { used_bytes: 750 * 1024, total_bytes: 1000 * 1024 });
        assert_eq!(usage.percent(), 75.0);
        assert_eq!(Usage::default().percent(), 0.0);
    }

    #[test]
    fn a_look_at_this_host_finds_something_everywhere() {
        let mut probe = HostProbe::new(Path::new("/"));
        let figures = probe.look();
        assert!(figures.memory.total_bytes > 0 && figures.disk.total_bytes > 0);
        assert!(figures.process.rss_bytes >= figures.process.private_bytes && figures.process.private_bytes > 0);
    }
}
