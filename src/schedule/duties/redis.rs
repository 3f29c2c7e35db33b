//! The integrity check of Redis: whether it holds what it has acknowledged and the database has not, and the copies that it is to keep.
//! Each instance looks at the streams that it knows. `docs/DATABASE.md` says what is compared, what is made good and what is only told.

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

/// Where nothing of a stream is there, copies count as missing that the database has had for at most this part of `redis.keep`. Redis had them
/// earlier than the database, and may have removed them in time although by the ledger `keep` has not passed.
const KEPT_FOR_CERTAIN: (u32, u32) = (3, 4);
/// The condition that Redis lacks readings.
const INCOMPLETE: &str = "redis-incomplete";

/// See the module.
pub(in crate::schedule) struct RedisCheck(Comparison);

impl Default for RedisCheck {
    fn default() -> Self {
        Self(Comparison::of(Medium::Redis))
    }
}

/// What is not as it should be, after the ledger was asked.
#[derive(Default)]
struct Verdict {
    /// Readings that wait for the database, and that Redis has lost.
    waiting: u64,
    /// Readings that the database has, and whose copy is gone.
    copies: u64,
    /// Readings that could not be judged, because the database does not answer.
    unsettled: u64,
    /// The first stretch in words, behind a colon.
    words: String,
}

impl Duty for RedisCheck {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::Every(config.schedule.integrity_interval)
    }

    /// While the database is away Redis has the only copy of what waits.
    fn needs_store(&self) -> bool {
        false
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            Ok(match self.0.run(context, &context.metrics.integrity_redis_rows).await? {
                Run::Nothing => DutyReport::default(),
                // That it is away is told elsewhere.
                Run::Away(cause) => {
                    log::debug!(target: "belayd::schedule", error = cause.as_str(); "Redis was not compared to its end");
                    DutyReport::of(vec![("away", 1)])
                }
                Run::SoFar(readings) => DutyReport::of(vec![("readingsSoFar", readings)]),
                Run::Whole(found) => told(context, found).await,
            })
        })
    }
}

/// What of `found` is amiss. Numbers that the ledger has written off were told when they were.
async fn judged(context: &DutyContext, found: &Audited) -> Verdict {
    let mut verdict = Verdict { unsettled: found.further, ..Verdict::default() };
    let mut is_away = false;
    let since_us = context.ago_us(context.config.redis.keep * KEPT_FOR_CERTAIN.0 / KEPT_FOR_CERTAIN.1);
    for absent in &found.absent {
        let Absent { stream, first, last, waiting, whole } = *absent;
        let numbers = last + 1 - first;
        // One that does not answer is asked once: each question may take as long as a connection does.
        let settled =
            if is_away || context.is_stopping() { None } else { decided(context, *absent, whole.then_some(since_us)).await };
        match settled {
            // What the database has taken or written off since then does not wait any more.
            Some((decided, kept)) => {
                let missing = waiting.min(numbers.saturating_sub(decided));
                verdict.waiting += missing;
                verdict.copies += kept;
                if verdict.words.is_empty() && missing + kept > 0 {
                    verdict.words = format!(": first numbers {first} to {last} of stream {stream}");
                }
            }
            None => {
                is_away = true;
                verdict.waiting += waiting;
                verdict.unsettled += numbers - waiting;
            }
        }
    }
    verdict
}

async fn told(context: &DutyContext, found: Audited) -> DutyReport {
    let (verdict, now_us) = (judged(context, &found).await, context.clock.now_us());
    if found.copied_again > 0 {
        log::warn!(target: "belayd::schedule", readings = found.copied_again; "readings were missing in the copy that Redis keeps; it is made again from the journal");
        context.metrics.integrity_redis_copied.inc_by(found.copied_again);
    }
    let faults = verdict.waiting + verdict.copies + found.astray;
    context.metrics.integrity_redis_faults.set(i64::try_from(faults).unwrap_or(i64::MAX));
    let text = if faults > 0 {
        format!(
            "Redis lacks {} readings that wait for the database and the copies of {} that it has, and holds {} where none should be{}; \
             look at its persistence, and at who else writes there (docs/TIERS.md)",
            verdict.waiting, verdict.copies, found.astray, verdict.words
        )
    } else {
        format!("Redis was compared with what it should hold, {} readings, and lacks none", found.readings)
    };
    let level = if verdict.waiting > 0 { Level::Critical } else { Level::Warning };
    let condition = Transition::system((INCOMPLETE, "redis"), level, faults > 0, text, now_us).measured(faults as f64, 0.0);
    let counts = vec![
        ("streams", found.streams),
        ("readings", found.readings),
        ("waitingMissing", verdict.waiting),
        ("copiesMissing", verdict.copies),
        ("astray", found.astray),
        ("unsettled", verdict.unsettled),
        ("copiedAgain", found.copied_again),
    ];
    DutyReport { conditions: vec![condition], ..DutyReport::of(counts) }
}
