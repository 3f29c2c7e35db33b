//! The daily clean-up: sessions and tokens that have ended, and SQLite's own housekeeping. PostgreSQL does its own (autovacuum).

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    schedule::{Duty, DutyContext, DutyReport, Rhythm},
    store::{StoreError, conn::tidy, sessions, tokens},
};

/// See the module.
pub(in crate::schedule) struct Cleanup;

impl Duty for Cleanup {
    fn name(&self) -> &'static str {
        "cleanup"
    }

    fn rhythm(&self, config: &Config) -> Rhythm {
        Rhythm::DailyAtMinute(config.schedule.cleanup_at_min)
    }

    fn needs_store(&self) -> bool {
        true
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move {
            let now_us = context.clock.now_us();
            // Ended tokens stay for as long as the audit does: it names them.
            let tokens_us = context.ago_us(context.config.retention.audit);
            let (sessions, tokens) = context
                .control
                .call(move |conn| Ok((sessions::prune(conn, now_us)?, conn.write(|conn| tokens::prune(conn, tokens_us))?)))
                .await?;
            context.control.call(tidy).await?;
            context.store.call(tidy).await?;
            Ok(DutyReport::of(vec![("sessions", sessions as u64), ("tokens", tokens as u64)]))
        })
    }
}
