//! Duty: what is known of each polled source, shared by the pollers (who write) and by the page, metrics and status (who read).
//! Comes in: the outcome of polls. Goes out: [`SourceStatus`]. It lives outside the actor, so a restart of that loses nothing;
//! a crash of the process loses the `X-Next` positions, and the sources are asked from their beginning: duplicates, no loss.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How a source does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Not yet asked, or not yet answered.
    #[default]
    Starting,
    /// The last answer was taken.
    Ok,
    /// The last poll failed.
    Failing,
}

/// What is known of one source. Counts are since the start of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// How it does.
    pub state: SourceState,
    /// When an answer was last taken, microseconds since the epoch.
    pub last_ok_at_us: Option<i64>,
    /// Why the last poll failed; one sentence without the URL.
    pub error: Option<String>,
    /// Polls that ended, well or not.
    pub polls: u64,
    /// Polls that failed.
    pub failures: u64,
    /// Polls that failed since the last that did not.
    pub consecutive: u32,
    /// Readings taken.
    pub accepted: u64,
    /// Readings refused.
    pub rejected: u64,
    /// Whether `source-failing` is open for it.
    pub raised: bool,
    /// What replaces `{after}` in the next poll.
    pub next: Option<String>,
}

/// The status of every source by name. Share it in an `Arc`.
#[derive(Debug, Default)]
pub struct SourceBoard {
    sources: Mutex<BTreeMap<String, SourceStatus>>,
}

impl SourceBoard {
    /// Every source, by name.
    pub fn list(&self) -> Vec<SourceStatus> {
        self.lock().values().cloned().collect()
    }

    /// One source.
    pub fn get(&self, name: &str) -> Option<SourceStatus> {
        self.lock().get(name).cloned()
    }

    /// Keeps the sources named, forgets the others (after a change of the configuration) and returns those.
    pub fn keep_only(&self, names: &[&str]) -> Vec<SourceStatus> {
        let mut sources = self.lock();
        let all = std::mem::take(&mut *sources);
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = all.into_iter().partition(|(name, _)| names.contains(&name.as_str()));
        *sources = kept;
        gone.into_values().collect()
    }

    /// Changes the status of `name`, which is made where it is new, and returns what `change` returns.
    pub fn update<T>(&self, name: &str, change: impl FnOnce(&mut SourceStatus) -> T) -> T {
        let mut sources = self.lock();
        let status =
            sources.entry(name.to_owned()).or_insert_with(|| SourceStatus { name: name.to_owned(), ..SourceStatus::default() });
        change(status)
    }

    /// A poller that panicked while it held the lock left at worst one status half-written: still worth showing.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SourceStatus>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
