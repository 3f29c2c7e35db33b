//! The integrity check of the journal: whether what waits for the database is there, each number in a whole frame. Each instance looks at its
//! own. `docs/DATABASE.md` says what is compared, what is made good and what is only told.

use futures_util::future::BoxFuture;

use super::comparison::{Comparison, Run, decided};
use crate::{
    config::Config,
    domain::alert::{Level, Transition},
    schedule::{Duty, DutyContext, DutyReport, Rhythm},
    store::{
        StoreError,
        integrity::{Absent, Audited, Medium},
    },
};

/// The condition that the journal lacks readings that wait.
const INCOMPLETE: &str = "journal-incomplete";

/// See the module.
pub(in crate::schedule) struct JournalCheck(Comparison);

impl Default for JournalCheck {
    fn default() -> Self {
        Self(Comparison::of(Medium::Journal))
    }
}

impl Duty for JournalCheck {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::Every(config.schedule.integrity_interval)
    }

    /// While the database is away the journal has the only copy of what waits.
    fn needs_store(&self) -> bool {
        false
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            Ok(match self.0.run(context, &context.metrics.integrity_journal_rows).await? {
                Run::Nothing => DutyReport::default(),
                Run::Away(cause) => {
                    log::warn!(target: "belayd::schedule", error = cause.as_str(); "the journal was not compared to its end");
                    DutyReport::of(vec![("away", 1)])
                }
                Run::SoFar(readings) => DutyReport::of(vec![("readingsSoFar", readings)]),
                Run::Whole(found) => told(context, &found).await,
            })
        })
    }
}

/// Readings that wait and are not there, and the first stretch of them that is known. What the ledger has taken or written off since does not
/// wait any more, and was told when it was.
async fn missing(context: &DutyContext, found: &Audited) -> (u64, Option<Absent>) {
    let (mut missing, mut begins, mut is_away) = (found.further, None, false);
    for absent in &found.absent {
        // One that does not answer is asked once: each question may take as long as a connection does.
        let settled = if is_away || context.is_stopping() { None } else { decided(context, *absent, None).await };
        is_away |= settled.is_none();
        let left = absent.waiting.saturating_sub(settled.map_or(0, |(decided, _)| decided));
        if left > 0 {
            begins.get_or_insert(*absent);
        }
        missing += left;
    }
    (missing, begins)
}

async fn told(context: &DutyContext, found: &Audited) -> DutyReport {
    let ((missing, begins), now_us) = (missing(context, found).await, context.clock.now_us());
    context.metrics.integrity_journal_missing.set(i64::try_from(missing).unwrap_or(i64::MAX));
    let text = if let Some(Absent { stream, first, last, .. }) = begins {
        format!(
            "the journal lacks {missing} readings that wait for the database, first the numbers {first} to {last} of stream {stream}: somebody \
             removed or exchanged a file in server.data_dir, or the disk damaged it; put back what was removed before the database gets there"
        )
    } else if missing > 0 {
        format!("the journal lacks {missing} readings that wait for the database, in many places")
    } else {
        format!("the journal was read, {} readings, and lacks none of those that wait for the database", found.readings)
    };
    let condition =
        Transition::system((INCOMPLETE, "journal"), Level::Critical, missing > 0, text, now_us).measured(missing as f64, 0.0);
    let counts = vec![("streams", found.streams), ("readings", found.readings), ("waitingMissing", missing)];
    DutyReport { conditions: vec![condition], ..DutyReport::of(counts) }
}
