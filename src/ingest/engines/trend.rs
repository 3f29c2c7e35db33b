//! The small trend of each engine that the page draws.

use crate::domain::reading::ReadingRef;

/// Samples kept for the small trend of each engine.
pub(super) const TREND_SAMPLES: usize = 30;
/// Least reading time between two samples of a trend, microseconds.
const TREND_STEP_US: i64 = 1_000_000;

/// The last samples of the two metrics that the page draws, at most one a second of reading time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Trend {
    last_us: i64,
    /// Oldest first; `NaN` where the reading lacked the metric.
    pub(super) samples: Vec<(f32, f32)>,
}

impl Trend {
    pub(super) fn take(&mut self, reading: &ReadingRef<'_>) {
        if !self.samples.is_empty() && reading.observed_at_us < self.last_us.saturating_add(TREND_STEP_US) {
            return;
        }
        self.last_us = reading.observed_at_us;
        if self.samples.len() == TREND_SAMPLES {
            self.samples.remove(0);
        }
        // A trend is drawn 60 pixels high: single precision is plenty.
        let sample = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        self.samples.push((sample(reading.temperature), sample(reading.rpm)));
    }
}
