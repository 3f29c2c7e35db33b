//! Whether the database answers, and whether what waits for it can be read, as the drain last saw it: for readiness, the page and the
//! metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::domain::{breaker::CircuitState, receipt::StreamId};

/// Shared; the drain's observer writes, everyone reads.
#[derive(Debug, Default)]
pub struct StoreHealth {
    view: Mutex<HealthView>,
    /// Lanes of the buffer that cannot be read, a bit each.
    unreadable: AtomicU64,
    /// The stream of each lane whose sums the database has told, by lane.
    attached: Mutex<BTreeMap<usize, StreamId>>,
}

/// What is known of the database now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthView {
    /// Whether the last try worked. `false` from the start until the first success.
    pub up: bool,
    /// Since when it has been away, microseconds since the epoch; `None` while it is up, and before the first try.
    pub down_since_us: Option<i64>,
    /// Why, without secrets.
    pub cause: Option<String>,
    /// The circuit breaker around it.
    pub circuit: CircuitState,
    /// Why a commit of it may be lost in a crash of its server, as it was opened last; `None` where a commit is durable.
    pub weak: Option<String>,
    /// How long the last outage took, microseconds.
    pub last_outage_us: Option<i64>,
    /// When the drain began to speak to it last.
    pub tried_at: Option<Instant>,
    /// Since when it answers although it has taken nothing yet; `None` after a failure, and while it is up.
    pub answers_since: Option<Instant>,
    /// Since when what an outage left waiting is being written; `None` once nothing of it is left.
    pub recovering_since: Option<Instant>,
    /// How long the last recovery took.
    pub last_recovery: Option<Duration>,
}

impl StoreHealth {
    /// The state now.
    pub fn view(&self) -> HealthView {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the database answers.
    pub fn is_up(&self) -> bool {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).up
    }

    /// It ceased to answer at `now_us`.
    pub fn went_down(&self, now_us: i64, cause: String) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.up = false;
        view.down_since_us.get_or_insert(now_us);
        view.cause = Some(cause);
    }

    /// It answers at `now_us`.
    pub fn came_up(&self, now_us: i64) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = view.down_since_us.map(|since| now_us - since);
        let last_outage_us = outage.or(view.last_outage_us);
        let weak = view.weak.take();
        *view =
            HealthView { up: true, weak, down_since_us: None, cause: None, answers_since: None, last_outage_us, ..view.clone() };
    }

    /// What it promises of a commit.
    pub fn found_weak(&self, weak: Option<String>) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).weak = weak;
    }

    /// Whether what waits can be read, in all lanes.
    pub fn buffer_reads(&self) -> bool {
        self.unreadable.load(Ordering::Acquire) == 0
    }

    /// A lane of the buffer (0 to 63) cannot be read, or can again. Returns whether it could not before.
    pub fn medium_failed(&self, lane: usize, failed: bool) -> bool {
        let bit = 1 << (lane % 64);
        let before = if failed {
            self.unreadable.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.unreadable.fetch_and(!bit, Ordering::AcqRel)
        };
        before & bit != 0
    }

    /// A lane has compared its stream with the database.
    pub fn attached(&self, lane: usize, stream: StreamId) {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, stream);
    }

    /// Whether this stream of a lane has been compared with the database since the start.
    pub fn is_attached(&self, lane: usize, stream: StreamId) -> bool {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).get(&lane) == Some(&stream)
    }

    /// The drain speaks to it.
    pub fn tried(&self) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).tried_at = Some(Instant::now());
    }

    /// What became of a word with it.
    pub fn answered(&self, well: bool) {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        if !well {
            view.answers_since = None;
        } else if !view.up {
            view.answers_since.get_or_insert_with(Instant::now);
        }
    }

    /// It is back and readings of the outage wait, or (`None`) nothing of them is left. Returns how long that took.
    pub fn recovers(&self, since: Option<Instant>) -> Option<Duration> {
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut view.recovering_since, since);
        let took = before.filter(|_| since.is_none()).map(|began| began.elapsed());
        view.last_recovery = took.or(view.last_recovery);
        took
    }

    /// Its circuit breaker turned.
    pub fn turned(&self, circuit: CircuitState) {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).circuit = circuit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_one_beginning_and_one_length() {
        let health = StoreHealth::default();
        assert!(!health.is_up());
        health.went_down(10, "refused".into());
        health.went_down(20, "refused".into());
        assert_eq!(health.view().down_since_us, Some(10));
        health.found_weak(Some("fsync".into()));
        health.came_up(50);
        assert!(health.buffer_reads() && !health.medium_failed(1, true) && !health.buffer_reads());
        assert!(health.medium_failed(1, false) && health.buffer_reads() && !health.medium_failed(1, false));
        let weak = Some("fsync".into());
        let healthy = HealthView { up: true, weak, last_outage_us: Some(40), ..HealthView::default() };
        assert_eq!(health.view(), healthy);
    }
}
