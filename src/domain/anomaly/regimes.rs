//! Operating regimes: where an engine works at a few distinct points, one metric (an altitude, a load step) tells them apart, and the
//! others follow it.
//!
//! In: the readings of a warm-up. Out: the metric that tells the regimes apart and where each lies. A split is believed only where it
//! explains nearly all that the other metrics do; a metric that merely takes few values (a discrete sensor) explains nothing.

use serde::{Deserialize, Serialize};

/// Most regimes that are told apart.
pub(super) const REGIMES_MAX: usize = 8;
/// Fewest readings of a regime: below it nothing can be said of its location.
const MEMBERS_MIN: usize = 3;
/// A gap that parts two regimes is at least this part of the metric's whole range.
const GAP: f64 = 0.05;
/// The part of the readings that must fall into known regimes.
const COVERED: f64 = 0.9;
/// The part of the variance (median over the other metrics) that the regimes must explain.
const EXPLAINED: f64 = 0.8;
/// A reading farther from every regime than this part of the smallest gap belongs to none.
const REACH: f64 = 0.25;

/// The regimes of one engine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Regimes {
    /// The place of the metric that tells them apart; `None` where there is one regime.
    key: Option<usize>,
    /// Where the key lies in each, rising; empty where there is one regime.
    centres: Vec<f64>,
    /// How far from its centre a reading may lie.
    reach: f64,
}

/// The regime of one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Regime {
    Known(usize),
    /// The key lies where it never lay; the index is the nearest.
    Beyond(usize),
    /// The reading lacks the key.
    Unknown,
}

impl Regimes {
    /// At least 1.
    pub(super) fn len(&self) -> usize {
        self.centres.len().max(1)
    }

    pub(super) fn key(&self) -> Option<usize> {
        self.key
    }

    pub(super) fn is_sound(&self, places: usize) -> bool {
        let count = self.centres.len();
        match self.key {
            None => count == 0,
            Some(key) => {
                key < places
                    && (2..=REGIMES_MAX).contains(&count)
                    && self.centres.iter().chain([&self.reach]).all(|number| number.is_finite())
            }
        }
    }

    /// The regime of a reading, by the value of its key.
    pub(super) fn of(&self, value: impl Fn(usize) -> f64) -> Regime {
        let Some(key) = self.key else { return Regime::Known(0) };
        self.of_key(value(key))
    }

    fn of_key(&self, value: f64) -> Regime {
        if value.is_nan() {
            return Regime::Unknown;
        }
        let distance = |centre: &f64| (value - centre).abs();
        let near = |(_, a): &(usize, &f64), (_, b): &(usize, &f64)| distance(a).total_cmp(&distance(b));
        let Some((index, centre)) = self.centres.iter().enumerate().min_by(near) else { return Regime::Known(0) };
        if distance(centre) <= self.reach { Regime::Known(index) } else { Regime::Beyond(index) }
    }

    /// Moves the centres from differences to values.
    pub(super) fn shift(&mut self, first: &[f64]) {
        if let Some(first) = self.key.and_then(|key| first.get(key)) {
            self.centres.iter_mut().for_each(|centre| *centre += first);
        }
    }

    /// Finds the regimes in `columns`, one column a metric, `NaN` where it was missing.
    pub(super) fn find(columns: &[Vec<f64>]) -> Self {
        let candidates = columns.iter().enumerate().filter_map(|(key, column)| Self::split(key, column));
        let rated = candidates.filter_map(|regimes| Some((regimes.explained(columns)?, regimes)));
        rated
            .filter(|(explained, _)| *explained >= EXPLAINED)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, regimes)| regimes)
            .unwrap_or_default()
    }

    /// Cuts one metric at its wide gaps.
    fn split(key: usize, column: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = column.iter().copied().filter(|value| !value.is_nan()).collect();
        if sorted.len() * 10 < column.len() * 9 {
            return None;
        }
        sorted.sort_unstable_by(f64::total_cmp);
        let range = sorted.last()? - sorted.first()?;
        let groups: Vec<&[f64]> = sorted.chunk_by(|a, b| b - a <= GAP * range).filter(|group| group.len() >= MEMBERS_MIN).collect();
        let covered = groups.iter().map(|group| group.len()).sum::<usize>() as f64;
        if !(2..=REGIMES_MAX).contains(&groups.len()) || covered < COVERED * sorted.len() as f64 || !range.is_finite() {
            return None;
        }
        let gaps = groups.windows(2).map(|pair| pair[1][0] - pair[0][pair[0].len() - 1]);
        let reach = gaps.fold(f64::INFINITY, f64::min) * REACH;
        let wide = groups.iter().map(|group| group[group.len() - 1] - group[0]).fold(0.0, f64::max) / 2.0;
        Some(Self { key: Some(key), centres: groups.iter().map(|group| group[group.len() / 2]).collect(), reach: reach.max(wide) })
    }

    /// Which part of the variance of the other metrics the regimes explain: the median over those that vary.
    fn explained(&self, columns: &[Vec<f64>]) -> Option<f64> {
        let key = self.key?;
        let regimes: Vec<Option<usize>> = columns[key]
            .iter()
            .map(|value| match self.of_key(*value) {
                Regime::Known(index) => Some(index),
                _ => None,
            })
            .collect();
        let mut parts: Vec<f64> = columns
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != key)
            .filter_map(|(_, column)| explained_of(column, &regimes, self.centres.len()))
            .collect();
        // One other metric that happens to follow is no proof.
        if parts.len() < 2 {
            return None;
        }
        parts.sort_unstable_by(f64::total_cmp);
        Some(parts[parts.len() / 2])
    }
}

/// 1 - variance within / variance overall; `None` where the metric does not vary.
fn explained_of(column: &[f64], regimes: &[Option<usize>], count: usize) -> Option<f64> {
    let members = || column.iter().zip(regimes).filter(|(value, _)| !value.is_nan()).filter_map(|(v, r)| Some((*v, (*r)?)));
    let number = members().count() as f64;
    let mean = members().map(|(value, _)| value / number).sum::<f64>();
    let overall = members().map(|(value, _)| (value - mean).powi(2)).sum::<f64>();
    if !overall.is_finite() || overall <= (mean.abs() * 1e-12).powi(2) * number {
        return None;
    }
    let mut sums = vec![(0.0, 0.0); count];
    for (value, regime) in members() {
        sums[regime].0 += value;
        sums[regime].1 += 1.0;
    }
    let within = members().map(|(value, regime)| (value - sums[regime].0 / sums[regime].1).powi(2)).sum::<f64>();
    Some(1.0 - within / overall)
}
