//! Facts of the alert side: what became of notices, what waits, what the outside was told.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::{
    catalog::names,
    metrics::{counter_vec, gauge},
};

/// The metrics of alerts.
pub struct AlertMetrics {
    /// Decisions about notices, by what became of them.
    pub notices: IntCounterVec,
    /// Notices that are due and that nobody takes up.
    pub overdue: IntGauge,
    /// Deliveries copied to a fallback, by the sink that did not take them.
    pub fallbacks: IntCounterVec,
    /// Pings to the outside, by outcome.
    pub deadman: IntCounterVec,
}

impl AlertMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            notices: counter_vec(registry, names::ALERT_NOTICES)?,
            overdue: gauge(registry, names::NOTICES_OVERDUE)?,
            fallbacks: counter_vec(registry, names::FALLBACKS)?,
            deadman: counter_vec(registry, names::DEADMAN_PINGS)?,
        })
    }
}

/// What one commit decided about notices.
#[derive(Clone, Copy, Debug)]
pub struct AlertsTold<'a> {
    /// How many became what.
    pub outcomes: &'a BTreeMap<&'static str, u64>,
}

impl AlertsTold<'_> {
    /// Counts it; the line is at debug level, since each delivery has its own.
    pub fn emit(self, metrics: &super::Metrics) {
        for (outcome, count) in self.outcomes {
            metrics.alerts.notices.with_label_values(&[outcome]).inc_by(*count);
            log::debug!(target: "belayd::alert", outcome = outcome, notices = *count; "notices decided");
        }
    }
}

/// The ping that says that belayd works went out, or did not.
#[derive(Clone, Copy, Debug)]
pub struct DeadmanPinged<'a> {
    /// `sent`, `failed`, or `withheld` where something in belayd does not work.
    pub outcome: &'static str,
    /// Why, without secrets; empty where it was sent.
    pub message: &'a str,
    /// Whether the log is to hear of it: once an outage, not each time.
    pub loud: bool,
}

impl DeadmanPinged<'_> {
    /// Counts it and says so.
    pub fn emit(self, metrics: &super::Metrics) {
        metrics.alerts.deadman.with_label_values(&[self.outcome]).inc();
        let level = if self.loud { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "belayd::deadman", level, outcome = self.outcome, cause = self.message; "dead-man ping");
    }
}
