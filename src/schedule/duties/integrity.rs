//! The integrity check: whether what the ledger says is stored is there, once, and whether the ledger agrees with itself.
//! `docs/DATABASE.md` says what is compared, what is repaired and what is only told.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    domain::alert::{AlertKind, Level, Transition},
    schedule::{Duty, DutyContext, DutyReport, Integrity, Rhythm},
    store::{
        StoreError,
        integrity::{Findings, Pass},
    },
};

/// Longest run; what is left goes on in the next.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Pause between slices, in which readings and alerts are written.
const PAUSE: Duration = Duration::from_millis(10);
/// The condition that readings or ledger are not as they should be.
const INTEGRITY: &str = "integrity";

/// See the module.
#[derive(Debug, Default)]
pub(in crate::schedule) struct IntegrityCheck {
    /// A pass that is not at its end.
    pass: Mutex<Option<Box<Pass>>>,
}

impl Duty for IntegrityCheck {
    fn name(&self) -> &'static str {
        "integrity"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::Every(config.schedule.integrity_interval)
    }

    fn needs_store(&self) -> bool {
        true
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            let (until, now_us) = (Instant::now() + RUN_MAX, context.clock.now_us());
            let unfinished = self.pass.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut pass = match unfinished {
                Some(pass) => pass,
                None => context.store.call(move |conn| Pass::begin(conn, now_us).map(Box::new)).await?,
            };
            loop {
                let before = pass.rows();
                // A pass whose step failed is forgotten: the next run begins another.
                let (rows, next) = context
                    .store
                    .call(move |conn| {
                        let found = pass.step(conn)?;
                        Ok((pass.rows(), found.map_or_else(|| Err(pass), Ok)))
                    })
                    .await?;
                pass = match next {
                    Ok(found) => {
                        context.metrics.integrity_rows.inc_by(found.rows.saturating_sub(before));
                        return Ok(told(context, found));
                    }
                    Err(pass) => pass,
                };
                context.metrics.integrity_rows.inc_by(rows.saturating_sub(before));
                if context.is_stopping() || Instant::now() >= until {
                    *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
                    return Ok(DutyReport::of(vec![("rowsSoFar", rows)]));
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }
}

/// What a whole pass found, for the board, the metrics, the log and the alert.
fn told(context: &DutyContext, found: Findings) -> DutyReport {
    let (now_us, metrics) = (context.clock.now_us(), &context.metrics);
    metrics.integrity_missing.set(i64::try_from(found.missing).unwrap_or(i64::MAX));
    metrics.integrity_ledger_faults.set(i64::try_from(found.ledger_faults).unwrap_or(i64::MAX));
    metrics.integrity_repaired.inc_by(found.repaired);
    metrics.integrity_pass.set(now_us as f64 / 1e6);
    metrics.duplicate_ratio.set(if found.rows == 0 { 0.0 } else { found.twice as f64 / found.rows as f64 });
    let counts = vec![
        ("streams", found.streams),
        ("ledgerRows", found.ledger_rows),
        ("rows", found.rows),
        ("missing", found.missing),
        ("twice", found.twice),
        ("unsettled", found.unsettled),
        ("ledgerFaults", found.ledger_faults),
        ("repaired", found.repaired),
    ];
    let conditions = vec![condition(&found, now_us)];
    context.board.show_integrity(Integrity {
        ended_at_us: now_us,
        streams: found.streams,
        ledger_rows: found.ledger_rows,
        rows: found.rows,
        missing: found.missing,
        twice: found.twice,
        unsettled: found.unsettled,
        ledger_faults: found.ledger_faults,
        repaired: found.repaired,
        faults: found.words,
    });
    DutyReport { counts, conditions }
}

fn condition(found: &Findings, now_us: i64) -> Transition {
    let firing = found.is_fault();
    let text = if firing {
        format!(
            "the integrity check found {} readings missing, {} stored twice and {} faults in the ledger ({} set right): {}",
            found.missing,
            found.twice,
            found.ledger_faults,
            found.repaired,
            found.words.join("; ")
        )
    } else {
        format!("the integrity check compared {} readings with the ledger and found nothing amiss", found.rows)
    };
    Transition {
        kind: AlertKind::System,
        name: INTEGRITY.into(),
        subject: "store".into(),
        level: Level::Critical,
        firing,
        observed_at_us: now_us,
        arrived_at_us: now_us,
        value: Some((found.missing + found.twice + found.ledger_faults) as f64),
        threshold: Some(0.0),
        text,
    }
}
