//! A comparison of what a medium holds with its books, as a duty runs it: in slices with pauses, for at most a minute a run, and on from there
//! in the next.
//!
//! In: the comparison that the medium begins. Out: what a whole one found. A crash loses the place: the next process begins anew.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

use crate::{
    schedule::DutyContext,
    store::{
        Conn, StoreError,
        integrity::{self, Absent, Audit, Audited, Medium},
    },
};

/// Longest run; what is left goes on in the next.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Shortest pause between slices. It is as long as the slice before it where that took longer.
const PAUSE: Duration = Duration::from_millis(5);

/// How a run ended.
pub(super) enum Run {
    /// Readings do not wait in this medium.
    Nothing,
    /// It could not be read, for this reason; the next run begins anew.
    Away(String),
    /// So many readings were compared; the next run goes on.
    SoFar(u64),
    /// It is at its end.
    Whole(Audited),
}

/// See the module.
pub(super) struct Comparison {
    medium: Medium,
    /// One that is not at its end.
    unfinished: Mutex<Option<Box<dyn Audit>>>,
}

impl Comparison {
    pub(super) fn of(medium: Medium) -> Self {
        Self { medium, unfinished: Mutex::new(None) }
    }

    /// Goes on with it, or begins another; `compared` counts the readings.
    pub(super) async fn run(&self, context: &DutyContext, compared: &IntCounter) -> Result<Run, StoreError> {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut audit) = unfinished.or_else(|| context.held.audit(self.medium)) else { return Ok(Run::Nothing) };
        let until = Instant::now() + RUN_MAX;
        loop {
            let (began, before) = (Instant::now(), audit.readings());
            let step = move || {
                let found = audit.step();
                (audit, found)
            };
            let (looked, found) = tokio::task::spawn_blocking(step)
                .await
                .map_err(|_| StoreError::other("the comparison with a medium panicked; see the line above"))?;
            audit = looked;
            let found = match found {
                Ok(found) => found,
                Err(cause) => return Ok(Run::Away(cause)),
            };
            let readings = found.as_ref().map_or_else(|| audit.readings(), |found| found.readings);
            compared.inc_by(readings.saturating_sub(before));
            if let Some(found) = found {
                return Ok(Run::Whole(found));
            }
            if context.is_stopping() || Instant::now() >= until {
                audit.rest();
                *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner) = Some(audit);
                return Ok(Run::SoFar(readings));
            }
            tokio::time::sleep(PAUSE.max(began.elapsed())).await;
        }
    }
}

/// What the database says of numbers that a medium has not: how many it has decided about (stored, or written off), and how many of the
/// copies of what it has should still be there (`since_us`, where nothing of the stream is there, asks for those stored since then only).
/// `None` where it does not answer.
pub(super) async fn decided(context: &DutyContext, absent: Absent, since_us: Option<i64>) -> Option<(u64, u64)> {
    let Absent { stream, first, last, .. } = absent;
    let ask = move |conn: &mut Conn| {
        let (settled, written_off) = integrity::settled_readings(conn, stream, first, last)?;
        let kept = match since_us {
            Some(since_us) => integrity::settled_since(conn, stream, (first, last), since_us)?,
            None => settled,
        };
        Ok((settled + written_off, kept))
    };
    let asked = context.store.call(ask).await;
    asked.map_err(|error| log::debug!(target: "belayd::schedule", error:% = error; "what a medium lacks could not be compared with the ledger")).ok()
}
