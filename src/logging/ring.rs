//! The last lines of the log in memory, and a live tail of it. In: every line that passes the filter. Out: snapshots, tails.
//! Bounded in lines and bytes, the oldest go first. A tail that is too slow is told how many lines it missed; the logger never
//! waits. A crash loses all of it: the lines themselves are on stderr or in the file.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use log::LevelFilter;
use tokio::sync::broadcast::{self, error::RecvError};

use super::entry::LogEntry;

/// Most lines kept.
pub const RING_LINES: usize = 2_000;
/// Most bytes kept, about.
pub const RING_BYTES: usize = 1_000_000;
/// Lines that a live tail may lie behind.
const TAIL_LINES: usize = 512;

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter {
    /// This level and worse.
    pub level: LevelFilter,
    /// This target and those below it: `belayd::web` takes `belayd::web::api` too.
    pub target: Option<String>,
    /// At most this many, the newest.
    pub limit: usize,
}

impl Default for LogFilter {
    /// Everything.
    fn default() -> Self {
        Self { level: LevelFilter::Trace, target: None, limit: RING_LINES }
    }
}

impl LogFilter {
    /// Whether this line is wanted.
    pub fn matches(&self, entry: &LogEntry) -> bool {
        let below = |target: &str| entry.target.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        entry.level <= self.level && self.target.as_deref().is_none_or(below)
    }
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<Arc<LogEntry>>,
    bytes: usize,
}

/// The ring. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogRing {
    kept: Arc<Mutex<Lines>>,
    live: broadcast::Sender<Arc<LogEntry>>,
}

impl Default for LogRing {
    fn default() -> Self {
        Self { kept: Arc::default(), live: broadcast::Sender::new(TAIL_LINES) }
    }
}

impl LogRing {
    /// Keeps a line and hands it to all tails. The logger calls it; a test of a reader may.
    pub fn push(&self, entry: LogEntry) {
        let entry = Arc::new(entry);
        let mut kept = self.lock();
        kept.bytes += entry.size();
        kept.lines.push_back(entry.clone());
        while kept.lines.len() > RING_LINES || kept.bytes > RING_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= oldest.size();
        }
        // Inside the lock, so that `follow` sees each line once. It fails only when nobody listens.
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(entry);
        }
    }

    /// The kept lines that match, oldest first.
    pub fn snapshot(&self, filter: &LogFilter) -> Vec<Arc<LogEntry>> {
        Self::select(&self.lock(), filter)
    }

    /// All lines from now on that match.
    pub fn subscribe(&self, filter: LogFilter) -> LogTail {
        LogTail { live: self.live.subscribe(), filter }
    }

    /// The kept lines that match and all from then on: none twice, none left out.
    pub fn follow(&self, filter: LogFilter) -> (Vec<Arc<LogEntry>>, LogTail) {
        let kept = self.lock();
        let lines = Self::select(&kept, &filter);
        (lines, self.subscribe(filter))
    }

    fn select(kept: &Lines, filter: &LogFilter) -> Vec<Arc<LogEntry>> {
        let newest = kept.lines.iter().rev().filter(|entry| filter.matches(entry)).take(filter.limit);
        let mut lines: Vec<_> = newest.cloned().collect();
        lines.reverse();
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What a live tail yields.
#[derive(Clone, Debug, PartialEq)]
pub enum TailEvent {
    /// A line.
    Line(Arc<LogEntry>),
    /// The tail was too slow: this many lines, matching or not, are missing here.
    Missed(u64),
}

/// A live tail. Dropping it ends it.
#[derive(Debug)]
pub struct LogTail {
    live: broadcast::Receiver<Arc<LogEntry>>,
    filter: LogFilter,
}

impl LogTail {
    /// The next line that matches; `None` when the log has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<TailEvent> {
        loop {
            match self.live.recv().await {
                Ok(entry) if self.filter.matches(&entry) => return Some(TailEvent::Line(entry)),
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => return Some(TailEvent::Missed(missed)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use log::{Level, Record};

    use super::*;

    fn push(ring: &LogRing, level: Level, target: &str, message: &str) {
        ring.push(LogEntry::new(&Record::builder().level(level).target(target).args(format_args!("{message}")).build(), 0));
    }

    #[test]
    fn the_ring_is_bounded_in_lines_and_bytes() {
        let ring = LogRing::default();
        for index in 0..RING_LINES + 10 {
            push(&ring, Level::Info, "t", &index.to_string());
        }
        let lines = ring.snapshot(&LogFilter::default());
        assert_eq!((lines.len(), lines[0].message.as_str()), (RING_LINES, "10"));
        let long = "x".repeat(8_000);
        for _ in 0..500 {
            push(&ring, Level::Info, "t", &long);
        }
        let kept = ring.lock();
        assert!(kept.bytes <= RING_BYTES && kept.lines.len() < 126, "{}", kept.lines.len());
        assert_eq!(kept.bytes, kept.lines.iter().map(|entry| entry.size()).sum::<usize>());
    }

    #[test]
    fn a_filter_takes_its_level_and_target_and_the_newest() {
        let ring = LogRing::default();
        push(&ring, Level::Debug, "belayd::web", "debug");
        push(&ring, Level::Warn, "belayd::website", "other");
        push(&ring, Level::Warn, "belayd::web", "first");
        push(&ring, Level::Error, "belayd::web::api", "second");
        let filter = LogFilter { level: LevelFilter::Warn, target: Some("belayd::web".into()), limit: 9 };
        let messages =
            |limit| ring.snapshot(&LogFilter { limit, ..filter.clone() }).iter().map(|e| e.message.clone()).collect::<Vec<_>>();
        assert_eq!(messages(9), ["first", "second"]);
        assert_eq!(messages(1), ["second"]);
    }

    #[tokio::test]
    async fn a_tail_follows_the_snapshot_without_a_gap_and_counts_what_it_missed() {
        let ring = LogRing::default();
        push(&ring, Level::Info, "t", "before");
        let (lines, mut tail) = ring.follow(LogFilter::default());
        assert_eq!(lines.len(), 1);
        push(&ring, Level::Info, "t", "after");
        let Some(TailEvent::Line(line)) = tail.next().await else { panic!("a line") };
        assert_eq!(line.message, "after");
        for _ in 0..TAIL_LINES + 7 {
            push(&ring, Level::Info, "t", "flood");
        }
        assert_eq!(tail.next().await, Some(TailEvent::Missed(7)));
        assert!(matches!(tail.next().await, Some(TailEvent::Line(_))));
    }
}
