//! The alerts that the page and the API show without a query: every open one, and the newest that are over.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    domain::alert::{Alert, AlertState, Level},
    store::{Conn, StoreResult, alerts},
};

/// Alerts that are over and still shown.
pub(super) const RECENT_MAX: usize = 200;

/// See the module. Made once, shared in an `Arc`; loaded at the start, then kept by the alert side after each commit.
#[derive(Debug, Default)]
pub struct AlertBoard {
    inner: RwLock<Inner>,
    revision: AtomicU64,
}

/// Keyed by the time of opening, then id, so that walking backwards is newest first.
#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<(i64, String), Alert>,
    recent: BTreeMap<(i64, String), Alert>,
}

/// Open alerts by level, and how many that are over are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertTally {
    /// Open ones.
    pub open: usize,
    /// Of those: CRITICAL.
    pub critical: usize,
    /// Of those: WARNING.
    pub warning: usize,
    /// Of those: INFO.
    pub info: usize,
    /// The newest that are over, at most 200.
    pub resolved: usize,
    /// Whether there may be more of them.
    pub resolved_more: bool,
}

impl AlertBoard {
    /// Fills the board from the control store.
    ///
    /// # Errors
    /// Those of the control store; the board is as before then.
    pub fn load(&self, conn: &mut Conn) -> StoreResult<()> {
        let (open, newest) = (alerts::open(conn)?, alerts::newest(conn, RECENT_MAX as u32)?);
        let mut inner = Inner::default();
        open.into_iter().chain(newest).for_each(|alert| inner.put(alert));
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = inner;
        self.revision.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    pub(super) fn put_all(&self, alerts: Vec<Alert>) {
        if alerts.is_empty() {
            return;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        alerts.into_iter().for_each(|alert| inner.put(alert));
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// Rises with every change: whoever shows the board needs to look only when it has.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// At most `limit` alerts, newest first. Open ones come before any that is over when there is no room for all.
    pub fn list(&self, limit: usize) -> Vec<Alert> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut alerts: Vec<Alert> = inner.open.values().rev().chain(inner.recent.values().rev()).take(limit).cloned().collect();
        alerts.sort_unstable_by(|a, b| (b.opened_at_us, &b.id).cmp(&(a.opened_at_us, &a.id)));
        alerts
    }

    /// Every open alert, newest first.
    pub fn open(&self) -> Vec<Alert> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).open.values().rev().cloned().collect()
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).open.len()
    }

    /// How many there are, however many a list has room for.
    pub fn tally(&self) -> AlertTally {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let of = |level| inner.open.values().filter(|alert| alert.level == level).count();
        AlertTally {
            open: inner.open.len(),
            critical: of(Level::Critical),
            warning: of(Level::Warning),
            info: of(Level::Info),
            resolved: inner.recent.len(),
            resolved_more: inner.recent.len() == RECENT_MAX,
        }
    }

    /// The highest level among the open alerts; `None` where all is well.
    pub fn worst(&self) -> Option<Level> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).open.values().map(|alert| alert.level).max()
    }
}

impl Inner {
    fn put(&mut self, alert: Alert) {
        let key = (alert.opened_at_us, alert.id.clone());
        if alert.state != AlertState::Resolved {
            self.open.insert(key, alert);
            return;
        }
        self.open.remove(&key);
        self.recent.insert(key, alert);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_first();
        }
    }
}
