//! What became of the readings of one run.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::Progress;

/// Reasons of refused readings that are kept to be shown.
const REASONS_MAX: usize = 5;

/// Counts while a run lasts; shared by its lanes.
pub struct Tally {
    counts: Mutex<Summary>,
    progress: Progress,
}

/// The outcome of a run. Counts are readings unless they say otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Made or read from the file.
    pub made: u64,
    /// Acknowledged by the daemon.
    pub accepted: u64,
    /// Refused by the daemon, one by one.
    pub rejected: u64,
    /// The first refusals: engine or position, code and message.
    pub reasons: Vec<String>,
    /// Sent again because an outcome was unknown; the daemon may have had them already.
    pub repeated: u64,
    /// Pushes that had to be sent again, for whatever reason.
    pub retries: u64,
    /// The first fault that ended the run early.
    pub fault: Option<String>,
    /// Bytes of the file read.
    pub bytes_read: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    /// Readings without an acknowledgement.
    pub fn undelivered(&self) -> u64 {
        self.made.saturating_sub(self.accepted + self.rejected)
    }

    /// Whether every reading was accepted.
    pub fn is_clean(&self) -> bool {
        self.rejected == 0 && self.undelivered() == 0 && self.fault.is_none()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "sent {} readings in {seconds:.2} s ({:.0} readings/s): {} accepted, {} rejected, {} not delivered",
            self.made,
            (self.accepted + self.rejected) as f64 / seconds.max(1e-6),
            self.accepted,
            self.rejected,
            self.undelivered()
        )?;
        if self.retries > 0 {
            writeln!(
                f,
                "{} pushes were sent again; {} readings of them after an unknown outcome: the daemon stores each once",
                self.retries, self.repeated
            )?;
        }
        for reason in &self.reasons {
            writeln!(f, "rejected: {reason}")?;
        }
        Ok(())
    }
}

impl Tally {
    pub(super) fn new(progress: Progress) -> Self {
        Self { counts: Mutex::default(), progress }
    }

    fn lock(&self) -> MutexGuard<'_, Summary> {
        // Counters are whole at any moment, whoever panicked.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_made(&self, rows: u64, bytes_read: u64) {
        let mut counts = self.lock();
        counts.made += rows;
        counts.bytes_read = bytes_read;
    }

    pub(super) fn add_settled(&self, accepted: u64, rejected: u64, reasons: impl Iterator<Item = String>) {
        let (settled, bytes_read) = {
            let mut counts = self.lock();
            counts.accepted += accepted;
            counts.rejected += rejected;
            let room = REASONS_MAX.saturating_sub(counts.reasons.len());
            counts.reasons.extend(reasons.take(room));
            (counts.accepted + counts.rejected, counts.bytes_read)
        };
        (self.progress)(settled, bytes_read);
    }

    pub(super) fn add_retry(&self, rows_unknown: u64) {
        let mut counts = self.lock();
        counts.retries += 1;
        counts.repeated += rows_unknown;
    }

    pub(super) fn fail(&self, fault: String) {
        self.lock().fault.get_or_insert(fault);
    }

    pub(super) fn summary(&self, elapsed: Duration) -> Summary {
        Summary { elapsed, ..self.lock().clone() }
    }
}
