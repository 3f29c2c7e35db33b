//! What was learned of one engine: where each metric lies, how far it strays, and in which regimes the engine works.
//!
//! It never changes once it is learned: wear that comes slowly must not become the normal state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::regimes::Regimes;

/// What is made of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    /// Its residuals are judged in standard deviations.
    Judged,
    /// It never changed while it was learned; it is judged by whether it does now.
    Constant,
    /// It is not judged: too rarely there, or a counter, which only ever grows.
    Left,
}

/// One metric as it was learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Normal {
    pub(super) part: Part,
    /// By regime.
    pub(super) location: Box<[f64]>,
    /// Standard deviation of the residuals; above 0 where it is judged.
    pub(super) scale: f64,
    /// Mean change from one reading to the next, in standard deviations.
    pub(super) roughness: f32,
    /// Most readings in a row with the very same value.
    pub(super) longest_run: u16,
}

/// What was learned of one engine under one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// The names beyond the four named ones, in the order of their places.
    pub(super) names: Arc<[Box<str>]>,
    /// By place.
    pub(super) normals: Box<[Normal]>,
    pub(super) regimes: Regimes,
    /// Readings that were learned from, and the metrics that the rule asked for: under another rule it does not hold.
    pub(super) warm_up: usize,
    pub(super) metrics: Vec<String>,
}

impl Baseline {
    /// Whether it was learned as `rule` would learn it, and is whole: it may come from a file that somebody changed.
    pub fn fits(&self, rule: &super::AnomalyRule) -> bool {
        let regimes = self.regimes.len();
        let whole = |normal: &Normal| {
            normal.location.len() == regimes
                && normal.location.iter().all(|location| location.is_finite())
                && (normal.part != Part::Judged || (normal.scale.is_finite() && normal.scale > 0.0))
                && normal.roughness.is_finite()
        };
        self.warm_up == rule.warm_up
            && self.metrics == rule.metrics
            && (1..=super::METRICS_MAX).contains(&self.normals.len())
            && self.normals.len() == self.names.len() + crate::domain::reading::NAMED_METRICS.len()
            && self.regimes.is_sound(self.normals.len())
            && self.normals.iter().all(whole)
    }

    /// Shares its list of names with other engines.
    pub fn share_names(&mut self, names: &mut super::Names) {
        self.names = names.share(&self.names);
    }

    /// How many metrics are judged.
    pub fn judged(&self) -> usize {
        self.normals.iter().filter(|normal| normal.part == Part::Judged).count()
    }

    /// How many operating regimes were found; 1 where the engine works in one.
    pub fn regimes(&self) -> usize {
        self.regimes.len()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let normals = self.normals.len() * (size_of::<Normal>() + self.regimes.len() * size_of::<f64>());
        normals + self.regimes.len() * size_of::<f64>() + self.metrics.iter().map(|name| name.len() + 24).sum::<usize>()
    }
}
