//! The integrity check: whether what the ledger says is stored is there, once, whether its deliveries to Kafka are, and whether the ledger
//! agrees with itself.
//! `docs/DATABASE.md` says what is compared, what is repaired and what is only told.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    domain::alert::{Level, Transition},
    schedule::{Duty, DutyContext, DutyReport, Integrity, Rhythm},
    store::{
        Conn, StoreError, StoreResult, control,
        integrity::{self, Findings, Pass},
        shared_duties,
    },
};

/// Longest run; what is left goes on in the next.
const RUN_MAX: Duration = Duration::from_secs(60);
/// Pause between slices, in which readings and alerts are written.
const PAUSE: Duration = Duration::from_millis(10);
/// From one note of the place to the next: what a crash costs. The first is made with the first readings that were compared.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Under this name the place of an unfinished pass is kept.
const PLACE: &str = "integrity/place";
/// Under this name what the last whole pass found is kept.
const RESULT: &str = "integrity/result";
/// The condition that readings or ledger are not as they should be.
const INTEGRITY: &str = "integrity";

/// See the module.
#[derive(Debug, Default)]
pub(in crate::schedule) struct IntegrityCheck {
    /// A pass that is not at its end.
    pass: Mutex<Option<Box<Pass>>>,
    /// The place of one that an earlier process began.
    kept: Mutex<Option<String>>,
}

impl IntegrityCheck {
    /// The pass to go on with: the one at hand, or that of an earlier process where nobody has finished another since, or a new one.
    async fn pass(&self, context: &DutyContext) -> Result<Box<Pass>, StoreError> {
        let unfinished = self.pass.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(pass) = unfinished {
            return Ok(pass);
        }
        let (kept, now_us) = (self.kept.lock().unwrap_or_else(PoisonError::into_inner).take(), context.clock.now_us());
        let begin = move |conn: &mut Conn| {
            if let Some(kept) = kept
                && let Some(pass) = Pass::resume(conn, &kept, now_us)?
                && ended_last(conn)?.is_none_or(|ended_at_us| ended_at_us < pass.since_us())
            {
                log::info!(target: "belayd::schedule", rows = pass.rows(); "the integrity check goes on where an earlier process stopped");
                return Ok(Box::new(pass));
            }
            Pass::begin(conn, now_us).map(Box::new)
        };
        context.store.call(begin).await
    }
}

/// From when on deliveries cannot have been dropped by retention, that of this configuration or of an earlier one. What another instance
/// begins to drop later the pass finds out where it misses one.
async fn deliveries_from_us(context: &DutyContext) -> Result<i64, StoreError> {
    let dropped_us = context.store.call(integrity::deliveries_from_us).await?.unwrap_or(0);
    Ok(dropped_us.max(context.ago_us(context.config.retention.deliveries).saturating_add(integrity::CLOCKS_US)))
}

/// When the last whole pass of any instance ended.
fn ended_last(conn: &mut Conn) -> Result<Option<i64>, StoreError> {
    let last = shared_duties::last(conn, "integrity")?.and_then(|last| last.result);
    Ok(last.and_then(|result| serde_json::from_str::<Shared>(&result).ok()).map(|shared| shared.ended_at_us))
}

/// Writes a note down. Where that fails, a restart costs more, and nothing else.
async fn keep(context: &DutyContext, name: &'static str, note: Option<String>) {
    let now_us = context.clock.now_us();
    let kept = context.control.call(move |conn| control::keep_duty_note(conn, name, note.as_deref(), now_us)).await;
    if let Err(error) = kept {
        log::warn!(target: "belayd::schedule", note = name, error:% = error; "the integrity check could not write down where it stands");
    }
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

    fn is_shared(&self) -> bool {
        true
    }

    fn adopt(&self, context: &DutyContext, result: &str) -> Vec<Transition> {
        let Ok(shared) = serde_json::from_str::<Shared>(result) else { return Vec::new() };
        let found = Findings::from(&shared);
        let condition = condition(&found, context.clock.now_us());
        show(context, found, shared.ended_at_us);
        vec![condition]
    }

    fn recall(&self, context: &DutyContext) -> StoreResult<()> {
        let read = |conn: &mut Conn| Ok((control::duty_note(conn, PLACE)?, control::duty_note(conn, RESULT)?));
        let (place, result) = context.control.with(read)?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = place;
        if let Some(shared) = result.and_then(|result| serde_json::from_str::<Shared>(&result).ok()) {
            show(context, Findings::from(&shared), shared.ended_at_us);
        }
        Ok(())
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            let until = Instant::now() + RUN_MAX;
            let mut pass = self.pass(context).await?;
            pass.look_for_deliveries_from(deliveries_from_us(context).await?);
            let mut noted: Option<Instant> = None;
            loop {
                let before = pass.rows();
                // A pass whose step failed is forgotten: the next run begins another.
                let step = move |conn: &mut Conn| {
                    let found = pass.step(conn)?;
                    Ok((pass.rows(), found.map_or_else(|| Err(pass), Ok)))
                };
                let (rows, next) = context.call(&context.store, step).await?;
                pass = match next {
                    Ok(found) => {
                        context.metrics.integrity_rows.inc_by(found.rows.saturating_sub(before));
                        keep(context, PLACE, None).await;
                        let found = fill(context, found).await?;
                        let report = told(context, found);
                        keep(context, RESULT, report.result.clone()).await;
                        return Ok(report);
                    }
                    Err(pass) => pass,
                };
                context.metrics.integrity_rows.inc_by(rows.saturating_sub(before));
                let ends = context.is_stopping() || Instant::now() >= until;
                if ends || noted.map_or(rows > 0, |noted| noted.elapsed() >= NOTE_EVERY) {
                    keep(context, PLACE, pass.note()).await;
                    noted = Some(Instant::now());
                }
                if ends {
                    *self.pass.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
                    return Ok(DutyReport::of(vec![("rowsSoFar", rows)]));
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }
}

/// Stores again what is missing and still held by the medium before the database.
async fn fill(context: &DutyContext, mut found: Findings) -> Result<Findings, StoreError> {
    for hole in std::mem::take(&mut found.holes) {
        let held = context.held.clone();
        let restored = context.call(&context.store, move |conn| integrity::refill(conn, &hole, held.as_ref())).await?;
        found.restored += restored;
        found.missing = found.missing.saturating_sub(restored);
    }
    if found.restored > 0 {
        log::warn!(target: "belayd::schedule", readings = found.restored; "readings that were missing in the database are stored again from the journal");
        context.metrics.integrity_restored.inc_by(found.restored);
    }
    Ok(found)
}

/// What was found, as the instances hand it to each other.
#[derive(serde::Serialize, serde::Deserialize)]
struct Shared {
    ended_at_us: i64,
    streams: u64,
    ledger_rows: u64,
    rows: u64,
    missing: u64,
    twice: u64,
    unsettled: u64,
    ledger_faults: u64,
    repaired: u64,
    #[serde(default)]
    restored: u64,
    #[serde(default)]
    deliveries: u64,
    #[serde(default)]
    delivery_faults: u64,
    words: Vec<String>,
}

impl From<&Shared> for Findings {
    fn from(shared: &Shared) -> Self {
        Self {
            streams: shared.streams,
            ledger_rows: shared.ledger_rows,
            rows: shared.rows,
            missing: shared.missing,
            twice: shared.twice,
            unsettled: shared.unsettled,
            ledger_faults: shared.ledger_faults,
            repaired: shared.repaired,
            restored: shared.restored,
            deliveries: shared.deliveries,
            delivery_faults: shared.delivery_faults,
            holes: Vec::new(),
            words: shared.words.clone(),
        }
    }
}

/// What a whole pass found, for the board, the metrics, the log and the alert.
fn told(context: &DutyContext, found: Findings) -> DutyReport {
    let now_us = context.clock.now_us();
    context.metrics.integrity_repaired.inc_by(found.repaired);
    let counts = vec![
        ("streams", found.streams),
        ("ledgerRows", found.ledger_rows),
        ("rows", found.rows),
        ("missing", found.missing),
        ("twice", found.twice),
        ("unsettled", found.unsettled),
        ("ledgerFaults", found.ledger_faults),
        ("repaired", found.repaired),
        ("restored", found.restored),
        ("deliveries", found.deliveries),
        ("deliveryFaults", found.delivery_faults),
    ];
    let shared = Shared {
        ended_at_us: now_us,
        streams: found.streams,
        ledger_rows: found.ledger_rows,
        rows: found.rows,
        missing: found.missing,
        twice: found.twice,
        unsettled: found.unsettled,
        ledger_faults: found.ledger_faults,
        repaired: found.repaired,
        restored: found.restored,
        deliveries: found.deliveries,
        delivery_faults: found.delivery_faults,
        words: found.words.clone(),
    };
    let (conditions, result) = (vec![condition(&found, now_us)], serde_json::to_string(&shared).ok());
    show(context, found, now_us);
    DutyReport { counts, conditions, result }
}

fn show(context: &DutyContext, found: Findings, ended_at_us: i64) {
    let metrics = &context.metrics;
    metrics.integrity_missing.set(i64::try_from(found.missing).unwrap_or(i64::MAX));
    metrics.integrity_ledger_faults.set(i64::try_from(found.ledger_faults).unwrap_or(i64::MAX));
    metrics.integrity_delivery_faults.set(i64::try_from(found.delivery_faults).unwrap_or(i64::MAX));
    metrics.integrity_pass.set(ended_at_us as f64 / 1e6);
    metrics.duplicate_ratio.set(if found.rows == 0 { 0.0 } else { found.twice as f64 / found.rows as f64 });
    context.board.show_integrity(Integrity {
        ended_at_us,
        streams: found.streams,
        ledger_rows: found.ledger_rows,
        rows: found.rows,
        missing: found.missing,
        twice: found.twice,
        unsettled: found.unsettled,
        ledger_faults: found.ledger_faults,
        repaired: found.repaired,
        restored: found.restored,
        deliveries: found.deliveries,
        delivery_faults: found.delivery_faults,
        faults: found.words,
    });
}

fn condition(found: &Findings, now_us: i64) -> Transition {
    let firing = found.is_fault();
    let text = if firing {
        format!(
            "the integrity check found {} readings missing, {} stored twice, {} faults in the ledger ({} set right) and {} among the \
             deliveries to Kafka: {}",
            found.missing,
            found.twice,
            found.ledger_faults,
            found.repaired,
            found.delivery_faults,
            found.words.join("; ")
        )
    } else {
        format!("the integrity check compared {} readings with the ledger and found nothing amiss", found.rows)
    };
    Transition::system((INTEGRITY, "store"), Level::Critical, firing, text, now_us)
        .measured((found.missing + found.twice + found.ledger_faults + found.delivery_faults) as f64, 0.0)
}
