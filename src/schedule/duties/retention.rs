//! Retention of the store: readings, ledger, decided failures, messages and settled deliveries that are older than they must be kept.
//!
//! Readings on PostgreSQL go a partition at a time, once all of it is too old. What has no partition of its own, or one that is wider than
//! those of today, goes in slices, as everything does on SQLite.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::slices::drop_all;
use crate::{
    config::Config,
    schedule::{Duty, DutyContext, DutyReport, Rhythm},
    store::{
        Backend, Conn, StoreError, StoreResult, deliveries, failures, issues, ledger, messages,
        partitions::{self, Partition},
        readings, shared_duties,
    },
};

/// See the module.
pub(in crate::schedule) struct Retention;

impl Duty for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::Every(config.schedule.retention_interval)
    }

    fn needs_store(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            let keep = &context.config.retention;
            let (store, before) = (&context.store, |age| context.ago_us(age));
            let issues_us = before(keep.issues);
            let (readings_us, ledger_us, deliveries_us) = (before(keep.readings), before(keep.ledger), before(keep.deliveries));
            let keys_us = before(keep.idempotency_keys);
            announce(context, self.name(), deliveries_us).await?;
            let (partitions, readings) = drop_readings(context, readings_us).await?;
            let counts = vec![
                ("partitions", partitions),
                ("readings", readings),
                ("ledger", drop_all(context, store, move |c, limit| ledger::prune(c, ledger_us, limit)).await?),
                ("failures", drop_all(context, store, move |c, limit| failures::prune(c, readings_us, limit)).await?),
                // Messages before the deliveries that tell how they stand.
                ("messages", drop_all(context, store, move |c, limit| messages::prune(c, deliveries_us, limit)).await?),
                ("idempotencyKeys", drop_all(context, store, move |c, limit| messages::prune_keys(c, keys_us, limit)).await?),
                ("issues", drop_all(context, store, move |c, limit| issues::prune(c, issues_us, limit)).await?),
                (
                    "deliveries",
                    drop_all(context, store, move |c, limit| deliveries::prune(c, deliveries_us, limit).map(|n| n as u64)).await?,
                ),
            ];
            Ok(DutyReport::of(counts))
        })
    }
}

/// Says up to which moment deliveries may be dropped from now on, for the integrity check: before the first of them is, because a run that
/// fails half-way has dropped some; and a longer retention brings none back.
async fn announce(context: &DutyContext, duty: &'static str, before_us: i64) -> StoreResult<()> {
    let instance = context.lease.as_ref().map_or_else(String::new, |lease| lease.owner.clone());
    let mark = move |conn: &mut Conn| {
        let last = shared_duties::last(conn, duty)?;
        let before_us = last.map_or(before_us, |last| before_us.max(shared_duties::deliveries_dropped_before(&last)));
        shared_duties::announce(conn, duty, &instance, &shared_duties::dropped_before(before_us))
    };
    context.call(&context.store, mark).await
}

/// How often a partition that somebody uses is asked for in one run, and the pause in between: a long query of a person's ends, or the next
/// run comes.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// Drops the readings from before `before_us`. Returns how many partitions and how many readings that were.
async fn drop_readings(context: &DutyContext, before_us: i64) -> StoreResult<(u64, u64)> {
    let store = &context.store;
    if store.backend() == Backend::Sqlite {
        return Ok((0, drop_all(context, store, move |c, limit| readings::prune(c, before_us, limit)).await?));
    }
    let (now_us, width_us) = (context.clock.now_us(), partitions::width_us(context.config.retention.readings));
    context.call(store, move |conn| partitions::make_ahead(conn, now_us, width_us)).await?;
    // A clock of this host that was set forward drops nothing that the server's clock does not find too old.
    let before_us = before_us.min(before_us.saturating_add(store.call(partitions::clock_us).await?.saturating_sub(now_us)));
    // What an earlier run, or another instance, has not brought to its end. Counting is not done under the lease: it takes long, and may
    // be done by several.
    let mut rows = store.call(partitions::finish_gone).await?;
    let (mut dropped, mut slices) = (0, vec![partitions::DEFAULT.to_owned()]);
    for partition in store.call(partitions::list).await? {
        if context.is_stopping() {
            break;
        }
        if partition.to_us <= before_us {
            if take_out(context, &partition).await? {
                dropped += 1;
                rows += store.call(partitions::finish_gone).await?;
            }
        } else if partition.is_wider(width_us) {
            slices.push(partition.name);
        }
    }
    for table in slices {
        rows += drop_all(context, store, move |c, limit| readings::prune_in(c, &table, before_us, limit)).await?;
    }
    Ok((dropped, rows))
}

async fn take_out(context: &DutyContext, partition: &Partition) -> StoreResult<bool> {
    for _ in 0..ATTEMPTS {
        let one = partition.clone();
        if context.call(&context.store, move |conn| partitions::detach(conn, &one)).await? {
            return Ok(true);
        }
        if context.is_stopping() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    log::warn!(
        target: "belayd::schedule", partition = partition.name.as_str();
        "a partition of old readings is in use; the next run tries again"
    );
    Ok(false)
}
