//! What is shown of the duties: when each ran and runs next, and what the last statistics were.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::{Serialize, Serializer};

use crate::domain::time;

/// The store in figures, as of the last statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// When they were taken.
    #[serde(rename = "takenAt", serialize_with = "rfc3339")]
    pub taken_at_us: i64,
    /// Bytes of the store on its disk.
    pub size_bytes: u64,
    /// Bytes of the control store.
    pub control_bytes: u64,
    /// Bytes of readings, of deliveries, of the ledger and of indexes; null where SQLite's file is too large to look through.
    pub readings_bytes: Option<u64>,
    /// See `readings_bytes`.
    pub deliveries_bytes: Option<u64>,
    /// See `readings_bytes`.
    pub ledger_bytes: Option<u64>,
    /// See `readings_bytes`.
    pub index_bytes: Option<u64>,
    /// Bytes within SQLite's file that hold nothing; null on PostgreSQL.
    pub free_bytes: Option<u64>,
    /// Partitions of readings; 0 on SQLite.
    pub partitions: u64,
    /// When the oldest reading was observed, about where there are many.
    #[serde(rename = "oldestReadingAt", serialize_with = "rfc3339_option")]
    pub oldest_reading_us: Option<i64>,
    /// Readings in the store; `None` where there are too many to count.
    pub readings: Option<u64>,
    /// Conflicts that wait for a decision.
    pub conflicts: u64,
    /// Dead readings that wait for a decision.
    pub dead: u64,
}

/// The last whole integrity check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Integrity {
    /// When it ended.
    #[serde(rename = "endedAt", serialize_with = "rfc3339")]
    pub ended_at_us: i64,
    /// Streams compared.
    pub streams: u64,
    /// Ledger rows compared.
    pub ledger_rows: u64,
    /// Readings compared.
    pub rows: u64,
    /// Readings of the ledger that are not there.
    pub missing: u64,
    /// Readings stored twice.
    pub twice: u64,
    /// Ranges left for the next check, because they changed meanwhile.
    pub unsettled: u64,
    /// Faults of the ledger itself.
    pub ledger_faults: u64,
    /// Sums set right.
    pub repaired: u64,
    /// Missing readings that were stored again from the journal.
    pub restored: u64,
    /// Ledger rows whose delivery to Kafka was looked for.
    pub deliveries: u64,
    /// Faults of those deliveries.
    pub delivery_faults: u64,
    /// The first faults in words.
    pub faults: Vec<String>,
}

/// One duty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DutyStatus {
    /// When it ran last.
    #[serde(rename = "lastRunAt", serialize_with = "rfc3339_option")]
    pub last_run_at_us: Option<i64>,
    /// When it is due.
    #[serde(rename = "nextRunAt", serialize_with = "rfc3339_option")]
    pub next_run_at_us: Option<i64>,
    /// Whether it is at work.
    pub running: bool,
    /// Failures in a row.
    pub failures: u32,
    /// How late the last run began, microseconds.
    pub lateness_us: i64,
    /// What the last run did, or why it failed.
    pub outcome: Option<String>,
}

fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

fn rfc3339_option<S: Serializer>(at_us: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at_us.map(time::rfc3339_us).serialize(serializer)
}

/// See the module. Made once, shared in an `Arc`.
#[derive(Debug, Default)]
pub struct ScheduleBoard {
    statistics: Mutex<Option<Statistics>>,
    integrity: Mutex<Option<Integrity>>,
    duties: Mutex<BTreeMap<&'static str, DutyStatus>>,
}

impl ScheduleBoard {
    /// The last statistics of the store; `None` before the first.
    pub fn statistics(&self) -> Option<Statistics> {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last whole integrity check; `None` before the first.
    pub fn integrity(&self) -> Option<Integrity> {
        self.integrity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn show_integrity(&self, integrity: Integrity) {
        *self.integrity.lock().unwrap_or_else(PoisonError::into_inner) = Some(integrity);
    }

    /// Every duty by name.
    pub fn duties(&self) -> BTreeMap<&'static str, DutyStatus> {
        self.duties.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn show(&self, statistics: Statistics) {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) = Some(statistics);
    }

    pub(super) fn set(&self, name: &'static str, status: DutyStatus) {
        self.duties.lock().unwrap_or_else(PoisonError::into_inner).insert(name, status);
    }
}
