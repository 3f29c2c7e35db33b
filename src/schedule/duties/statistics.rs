//! Statistics of the store: sizes and row counts, for the page and the metrics.

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    domain::alert::Transition,
    schedule::{Duty, DutyContext, DutyReport, Rhythm, Statistics},
    store::{StoreError, failures, readings},
};

/// Readings are counted one by one; above this size of the database that would cost more than the number is worth.
const COUNT_UP_TO_BYTES: u64 = 256 * 1024 * 1024;

/// The figures as the instances hand them to each other.
#[derive(serde::Serialize, serde::Deserialize)]
struct Shared {
    taken_at_us: i64,
    size_bytes: u64,
    control_bytes: u64,
    readings: Option<u64>,
    conflicts: u64,
    dead: u64,
}

impl From<Shared> for Statistics {
    fn from(shared: Shared) -> Self {
        let Shared { taken_at_us, size_bytes, control_bytes, readings, conflicts, dead } = shared;
        Self { taken_at_us, size_bytes, control_bytes, readings, conflicts, dead }
    }
}

/// See the module.
pub(in crate::schedule) struct StatisticsOfTheStore;

impl Duty for StatisticsOfTheStore {
    fn name(&self) -> &'static str {
        "statistics"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::Every(config.schedule.statistics_interval)
    }

    fn needs_store(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn adopt(&self, context: &DutyContext, result: &str) -> Vec<Transition> {
        if let Ok(mut statistics) = serde_json::from_str::<Shared>(result) {
            // The control store's size is this instance's own.
            statistics.control_bytes = context.board.statistics().map_or(0, |own| own.control_bytes);
            context.board.show(statistics.into());
        }
        Vec::new()
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            let (size_bytes, rows, open) = context
                .store
                .call(|conn| {
                    let size_bytes = readings::size_bytes(conn)?;
                    let rows = if size_bytes <= COUNT_UP_TO_BYTES { Some(readings::count(conn)?) } else { None };
                    Ok((size_bytes, rows, failures::counts(conn)?))
                })
                .await?;
            let control_bytes = context.control.call(readings::size_bytes).await?;
            let shared = Shared {
                taken_at_us: context.clock.now_us(),
                size_bytes,
                control_bytes,
                readings: rows,
                conflicts: open.conflict,
                dead: open.dead,
            };
            let result = serde_json::to_string(&shared).ok();
            context.board.show(shared.into());
            let mut counts = vec![("sizeBytes", size_bytes), ("controlBytes", control_bytes)];
            counts.extend(rows.map(|rows| ("readings", rows)));
            counts.extend([("conflicts", open.conflict), ("dead", open.dead)]);
            Ok(DutyReport { result, ..DutyReport::of(counts) })
        })
    }
}
