//! Retention of the store: readings, ledger, decided failures and settled deliveries that are older than they must be kept.

use futures_util::future::BoxFuture;

use super::slices::drop_all;
use crate::{
    config::Config,
    schedule::{Duty, DutyContext, DutyReport, Rhythm},
    store::{StoreError, deliveries, failures, ledger, readings},
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
            let (readings_us, ledger_us, deliveries_us) = (before(keep.readings), before(keep.ledger), before(keep.deliveries));
            let counts = vec![
                ("readings", drop_all(context, store, move |c, limit| readings::prune(c, readings_us, limit)).await?),
                ("ledger", drop_all(context, store, move |c, limit| ledger::prune(c, ledger_us, limit)).await?),
                ("failures", drop_all(context, store, move |c, limit| failures::prune(c, readings_us, limit)).await?),
                (
                    "deliveries",
                    drop_all(context, store, move |c, limit| deliveries::prune(c, deliveries_us, limit).map(|n| n as u64)).await?,
                ),
            ];
            Ok(DutyReport::of(counts))
        })
    }
}
