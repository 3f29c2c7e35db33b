//! How recovery stands to its service levels: what is late, and what the page shows of it.
//!
//! In: the looks at buffer, database, outbox and account. Out: conditions for the alert `recovery-late`, one a level, and the view.

use std::time::Duration;

use serde::Serialize;

use super::Condition;
use crate::{
    buffer::{Account, BufferStats, health::HealthView},
    config::RecoveryConfig,
    domain::alert::Level,
};

/// The name of the condition; its subject is the level that is missed.
pub(super) const RECOVERY_LATE: &str = "recovery-late";
/// Looks in a row before a delivery counts as late: the counts are a second old at most.
const OUTBOX_LOOKS: u32 = 4;
/// Settled readings from which their success is judged: one conflict among the first ten is no trend.
const SETTLED_MIN: u64 = 1_000;

/// Each level with where it stands, seconds or percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// How long the oldest due delivery has waited to be taken up, and how long it may.
    pub outbox_s: (f64, f64),
    /// How long nobody has tried to store what waits, and how long that may be.
    pub buffer_s: (f64, f64),
    /// How long the recovery under way has taken, and how long it may.
    pub running_s: (f64, f64),
    /// How long the last recovery took.
    pub last_s: Option<f64>,
    /// Share of settled readings that are stored, and how large it should be.
    pub success_percent: (f64, f64),
    /// Whether there are enough readings to judge that share.
    pub judged: bool,
}

impl Recovery {
    pub(super) fn of(
        levels: &RecoveryConfig,
        flush_interval: Duration,
        stats: &BufferStats,
        account: &Account,
        health: &HealthView,
        outbox_s: f64,
    ) -> Self {
        // What has waited for a shorter time than the last try is ago has nobody to blame.
        let untried = health.tried_at.map_or(f64::MAX, |at| at.elapsed().as_secs_f64());
        let idle_s = if stats.rows == 0 { 0.0 } else { untried.min(stats.oldest_age_ms as f64 / 1e3) };
        let since = if health.up { health.recovering_since } else { health.answers_since.filter(|_| stats.rows > 0) };
        let running = since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        Self {
            outbox_s: (outbox_s, levels.outbox_within.as_secs_f64()),
            // Where a person wants readings to wait for longer, that is no fault.
            buffer_s: (idle_s, levels.buffer_within.max(flush_interval * 2).as_secs_f64()),
            running_s: (running, levels.within.as_secs_f64()),
            last_s: health.last_recovery.map(|took| took.as_secs_f64()),
            success_percent: (account.success_ratio() * 100.0, levels.success_percent),
            judged: account.settled() >= SETTLED_MIN,
        }
    }

    /// `known`: the account is whole; before, its level is neither kept nor missed.
    pub(super) fn conditions(&self, known: bool) -> Vec<Condition> {
        let late = |subject: &str, what: &'static str, (value, limit): (f64, f64), looks: u32| Condition {
            name: RECOVERY_LATE,
            subject: subject.into(),
            level: Level::Warning,
            value,
            limit,
            clear: limit,
            looks,
            what,
            unit: " s",
            cause: None,
        };
        let (percent, wanted) = self.success_percent;
        let missing = match (known, self.judged) {
            (false, _) => f64::NAN,
            (true, false) => 0.0,
            (true, true) => 100.0 - percent,
        };
        let success = Condition {
            level: Level::Critical,
            unit: " %",
            cause: Some(format!(
                "{percent:.3} % of the readings that do not wait any more are stored, the level is {wanted} %: see belayd failures list, \
                 and belayd_readings_lost_total for what is gone"
            )),
            ..late("readings", "Readings that were not stored", (missing, 100.0 - wanted), 1)
        };
        vec![
            late("outbox", "The oldest due delivery has waited to be taken up", self.outbox_s, OUTBOX_LOOKS),
            late("buffer", "Nobody has tried to store what waits in the buffer", self.buffer_s, 1),
            late("database", "The database is back, and what waited is still being stored", self.running_s, 1),
            success,
        ]
    }
}

/// As the page and `/api/state` show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryView {
    /// Seconds that the oldest due delivery has waited, and the level.
    #[serde(rename = "outboxS")]
    pub outbox_s: f64,
    #[serde(rename = "outboxWithinS")]
    outbox_within_s: f64,
    /// Seconds since what waits in the buffer was tried, and the level.
    #[serde(rename = "bufferS")]
    pub buffer_s: f64,
    #[serde(rename = "bufferWithinS")]
    buffer_within_s: f64,
    /// Seconds that the recovery under way has taken; 0 where none is; and the level.
    #[serde(rename = "runningS")]
    pub running_s: f64,
    #[serde(rename = "withinS")]
    within_s: f64,
    /// Seconds that the last recovery took.
    #[serde(rename = "lastS")]
    pub last_s: Option<f64>,
    /// Percent of settled readings that are stored, and the level.
    pub success_percent: f64,
    success_level: f64,
}

impl RecoveryView {
    pub(super) fn of(recovery: &Recovery) -> Self {
        Self {
            outbox_s: recovery.outbox_s.0,
            outbox_within_s: recovery.outbox_s.1,
            buffer_s: recovery.buffer_s.0,
            buffer_within_s: recovery.buffer_s.1,
            running_s: recovery.running_s.0,
            within_s: recovery.running_s.1,
            last_s: recovery.last_s,
            success_percent: recovery.success_percent.0,
            success_level: recovery.success_percent.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_that_is_missed_is_a_condition_of_its_own() {
        let good = Recovery {
            outbox_s: (1.0, 2.0),
            buffer_s: (9.0, 60.0),
            running_s: (0.0, 300.0),
            last_s: None,
            success_percent: (99.95, 99.9),
            judged: true,
        };
        let late = |recovery: Recovery| -> Vec<String> {
            recovery.conditions(true).into_iter().filter(|look| look.value > look.limit).map(|look| look.subject).collect()
        };
        assert!(late(good).is_empty());
        assert_eq!(late(Recovery { outbox_s: (2.1, 2.0), ..good }), ["outbox"]);
        assert_eq!(late(Recovery { buffer_s: (61.0, 60.0), ..good }), ["buffer"]);
        assert_eq!(late(Recovery { running_s: (301.0, 300.0), ..good }), ["database"]);
        assert_eq!(late(Recovery { success_percent: (99.0, 99.9), ..good }), ["readings"]);
        assert!(late(Recovery { success_percent: (90.0, 99.9), judged: false, ..good }).is_empty());
        let unknown = good.conditions(false);
        assert!(unknown.iter().find(|look| look.subject == "readings").is_some_and(|look| look.value.is_nan()), "not over either");
    }
}
