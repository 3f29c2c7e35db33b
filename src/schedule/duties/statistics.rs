//! Statistics of the store: sizes and row counts, for the page and the metrics.

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    domain::alert::Transition,
    schedule::{Duty, DutyContext, DutyReport, Rhythm, Statistics},
    store::{
        StoreError, failures, readings,
        usage::{self, Kinds},
    },
};

/// The figures as the instances hand them to each other. What a newer one adds is 0 or unknown to an older one.
#[derive(serde::Serialize, serde::Deserialize)]
struct Shared {
    taken_at_us: i64,
    size_bytes: u64,
    control_bytes: u64,
    #[serde(default)]
    readings_bytes: Option<u64>,
    #[serde(default)]
    deliveries_bytes: Option<u64>,
    #[serde(default)]
    ledger_bytes: Option<u64>,
    #[serde(default)]
    index_bytes: Option<u64>,
    #[serde(default)]
    free_bytes: Option<u64>,
    #[serde(default)]
    partitions: u64,
    #[serde(default)]
    oldest_reading_us: Option<i64>,
    readings: Option<u64>,
    conflicts: u64,
    dead: u64,
}

impl From<Shared> for Statistics {
    fn from(shared: Shared) -> Self {
        let Shared { taken_at_us, size_bytes, control_bytes, readings, conflicts, dead, .. } = shared;
        Self {
            taken_at_us,
            size_bytes,
            control_bytes,
            readings_bytes: shared.readings_bytes,
            deliveries_bytes: shared.deliveries_bytes,
            ledger_bytes: shared.ledger_bytes,
            index_bytes: shared.index_bytes,
            free_bytes: shared.free_bytes,
            partitions: shared.partitions,
            oldest_reading_us: shared.oldest_reading_us,
            readings,
            conflicts,
            dead,
        }
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
            let (used, open) = context.store.call(|conn| Ok((usage::usage(conn)?, failures::counts(conn)?))).await?;
            let bytes = |of: fn(&Kinds) -> i64| used.kinds.as_ref().map(|kinds| of(kinds).unsigned_abs());
            let control_bytes = context.control.call(readings::size_bytes).await?;
            let shared = Shared {
                taken_at_us: context.clock.now_us(),
                size_bytes: used.size_bytes,
                control_bytes,
                readings_bytes: bytes(|kinds| kinds.readings),
                deliveries_bytes: bytes(|kinds| kinds.deliveries),
                ledger_bytes: bytes(|kinds| kinds.ledger),
                index_bytes: bytes(|kinds| kinds.indexes),
                free_bytes: used.free_bytes,
                partitions: used.partitions,
                oldest_reading_us: used.oldest_us,
                readings: used.readings,
                conflicts: open.conflict,
                dead: open.dead,
            };
            let result = serde_json::to_string(&shared).ok();
            context.board.show(shared.into());
            let mut counts = vec![("sizeBytes", used.size_bytes), ("controlBytes", control_bytes)];
            counts.extend(used.readings.map(|rows| ("readings", rows)));
            counts.extend([("conflicts", open.conflict), ("dead", open.dead)]);
            Ok(DutyReport { result, ..DutyReport::of(counts) })
        })
    }
}
