//! Writes down when tokens were used last: kept in memory while requests come, once a minute on disk.

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{
    config::Config,
    schedule::{Duty, DutyContext, DutyReport, Rhythm},
    store::StoreError,
};

/// See the module.
pub(in crate::schedule) struct TokenUse;

impl Duty for TokenUse {
    fn name(&self) -> &'static str {
        "token-use"
    }

    fn rhythm(&self, _: &Config) -> Rhythm {
        Rhythm::Every(Duration::from_secs(60))
    }

    fn needs_store(&self) -> bool {
        false
    }

    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>> {
        Box::pin(async move { Ok(DutyReport::of(vec![("tokens", context.tokens.note_uses().await? as u64)])) })
    }
}
