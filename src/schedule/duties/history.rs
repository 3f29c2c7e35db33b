//! Retention of the control store: resolved alerts, silences that are over, settled deliveries and audit that are older than they must be kept. It works
//! while the store is away.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::slices::drop_all;
use crate::{
    config::Config,
    schedule::{Duty, DutyContext, DutyReport, Rhythm},
    store::{StoreError, alerts, audit, deliveries, silences},
};

/// Groups of notices of which nothing was told for so long are forgotten: longer than any digest waits.
const GROUPS_KEPT: Duration = Duration::from_secs(2 * 86_400);

/// See the module.
pub(in crate::schedule) struct History;

impl Duty for History {
    fn name(&self) -> &'static str {
        "history"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::Every(config.schedule.retention_interval)
    }

    fn needs_store(&self) -> bool {
        false
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            let keep = &context.config.retention;
            let (store, before) = (&context.control, |age| context.ago_us(age));
            let (alerts_us, deliveries_us, audit_us) = (before(keep.alerts), before(keep.deliveries), before(keep.audit));
            let groups_us = before(GROUPS_KEPT);
            let counts = vec![
                ("alerts", drop_all(context, store, move |c, limit| alerts::prune(c, alerts_us, limit).map(|n| n as u64)).await?),
                (
                    "silences",
                    drop_all(context, store, move |c, limit| silences::prune(c, alerts_us, limit).map(|n| n as u64)).await?,
                ),
                (
                    "groups",
                    drop_all(context, store, move |c, limit| alerts::groups::prune(c, groups_us, limit).map(|n| n as u64)).await?,
                ),
                (
                    "fallbacks",
                    drop_all(context, store, move |c, limit| alerts::fallbacks::prune(c, groups_us, limit).map(|n| n as u64))
                        .await?,
                ),
                (
                    "deliveries",
                    drop_all(context, store, move |c, limit| deliveries::prune(c, deliveries_us, limit).map(|n| n as u64)).await?,
                ),
                ("audit", drop_all(context, store, move |c, limit| audit::prune(c, audit_us, limit).map(|n| n as u64)).await?),
            ];
            Ok(DutyReport::of(counts))
        })
    }
}
