//! The warm-up: readings are kept until there are enough, then the baseline is made of them and they are forgotten.
//!
//! Bounded: `warm_up` readings of at most [`METRICS_MAX`] metrics, 4 bytes each, as differences from the first value, so that single
//! precision is enough for a sensor that strays little around a large value.

use super::{
    AnomalyRule, METRICS_MAX, Names,
    baseline::{Baseline, Normal, Part},
    metrics::{Values, extras, place},
    regimes::{Regime, Regimes},
};
use crate::domain::reading::{NAMED_METRICS, ReadingRef};

/// Makes the median of absolute deviations an estimate of the standard deviation of a normal distribution (Hampel 1974).
const MAD_TO_SD: f64 = 1.4826;
/// Residuals beyond so many of those count as this far only.
const OUTLIER: f64 = 4.0;
/// The least part of its variance that a warm-up is taken to show: see [`widened`].
const SHRINK_MIN: f64 = 1.0 / 9.0;

/// What has been seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Learning {
    names: Vec<Box<str>>,
    /// The first value of each place; `NaN` where none has come yet.
    first: Vec<f64>,
    /// Row by row, each as long as `widths` says: names may come late.
    rows: Vec<Box<[f32]>>,
}

impl Learning {
    /// Takes a reading; the baseline with the last one.
    pub(super) fn take(&mut self, rule: &AnomalyRule, names: &mut Names, reading: &ReadingRef<'_>) -> Option<Baseline> {
        for (name, _) in extras(reading) {
            if self.names.len() + NAMED_METRICS.len() < METRICS_MAX && !self.names.iter().any(|known| **known == *name) {
                self.names.push(name.into());
            }
        }
        let width = NAMED_METRICS.len() + self.names.len();
        let mut values: Values = [f64::NAN; METRICS_MAX];
        place(reading, &self.names, &mut values);
        self.first.resize(width, f64::NAN);
        let row = values[..width].iter().zip(&mut self.first).map(|(value, first)| {
            if first.is_nan() {
                *first = *value;
            }
            (*value - *first) as f32
        });
        self.rows.push(row.collect());
        (self.rows.len() >= rule.warm_up).then(|| self.fit(rule, names))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let rows: usize = self.rows.iter().map(|row| size_of_val(&**row)).sum();
        let names: usize = self.names.iter().map(|name| name.len() + size_of::<Box<str>>()).sum();
        rows + self.rows.capacity() * size_of::<Box<[f32]>>() + names + self.first.capacity() * size_of::<f64>()
    }

    fn fit(&self, rule: &AnomalyRule, names: &mut Names) -> Baseline {
        let column = |place: usize| -> Vec<f64> {
            let value = |row: &[f32]| row.get(place).map_or(f64::NAN, |value| f64::from(*value));
            self.rows.iter().map(|row| value(row)).collect()
        };
        let mut columns: Vec<Vec<f64>> = (0..self.first.len()).map(column).collect();
        // Values near the end of what single precision can say have no difference; such a metric is left out.
        for column in &mut columns {
            if column.iter().any(|value| value.is_infinite()) {
                column.fill(f64::NAN);
            }
        }
        let names = names.share(&self.names);
        let wanted = |place: usize| {
            let name = super::metrics::name_of(place, &names);
            rule.metrics.is_empty() || rule.metrics.iter().any(|metric| metric == name)
        };
        let mut regimes = Regimes::find(&columns);
        let of: Vec<Option<usize>> = (0..self.rows.len())
            .map(|row| match regimes.of(|key| columns[key][row]) {
                Regime::Known(index) => Some(index),
                _ => None,
            })
            .collect();
        let count = regimes.len();
        let normals = columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let normal = if wanted(place) { normal(column, &of, count) } else { left(count) };
                let first = self.first[place];
                let location = normal.location.iter().map(|location| if first.is_nan() { 0.0 } else { first + location });
                Normal { location: location.collect(), ..normal }
            })
            .collect();
        regimes.shift(&self.first);
        Baseline { names, normals, regimes, warm_up: rule.warm_up, metrics: rule.metrics.clone() }
    }
}

fn left(count: usize) -> Normal {
    Normal { part: Part::Left, location: vec![0.0; count].into(), scale: 0.0, roughness: 1.0, longest_run: 0 }
}

/// What is normal for one metric, given the regime of each reading.
fn normal(column: &[f64], of: &[Option<usize>], count: usize) -> Normal {
    let seen: Vec<f64> = column.iter().copied().filter(|value| !value.is_nan()).collect();
    if seen.len() * 2 < column.len() || seen.len() < 2 {
        return left(count);
    }
    let longest_run = seen.chunk_by(|a, b| a == b).map(<[f64]>::len).max().unwrap_or(0) as u16;
    if seen.iter().all(|value| *value == seen[0]) {
        return Normal { part: Part::Constant, location: vec![seen[0]; count].into(), scale: 0.0, roughness: 1.0, longest_run };
    }
    // Hours, cycles, fuel left: they only ever grow or only ever shrink, and that is no anomaly.
    let steps: Vec<f64> = seen.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let moving = steps.iter().filter(|step| **step != 0.0).count();
    if (steps.iter().all(|step| *step >= 0.0) || steps.iter().all(|step| *step <= 0.0)) && moving * 10 >= steps.len() {
        return left(count);
    }
    let members = || column.iter().zip(of).filter(|(value, _)| !value.is_nan()).filter_map(|(v, r)| Some((*v, (*r)?)));
    let mut location: Vec<f64> = (0..count)
        .map(|regime| median(members().filter(|(_, of)| *of == regime).map(|(value, _)| value).collect()).unwrap_or(0.0))
        .collect();
    let residual = |(value, regime): (f64, usize), location: &[f64]| value - location[regime];
    let deviation = median(members().map(|member| residual(member, &location).abs()).collect()).unwrap_or(0.0) * MAD_TO_SD;
    let number = members().count().max(2) as f64;
    let spread = |location: &[f64], cut: f64| {
        let squares = members().map(|member| residual(member, location).clamp(-cut, cut).powi(2)).sum::<f64>();
        // Each regime's location has cost one degree of freedom.
        (squares / (number - count as f64).max(1.0)).sqrt()
    };
    // More than half in one place: the median of the deviations says 0, and nothing is an outlier.
    let cut = if deviation > 0.0 { OUTLIER * deviation } else { f64::MAX };
    let mut sums = vec![(0.0, 0.0_f64); count];
    for member in members() {
        sums[member.1].0 += residual(member, &location).clamp(-cut, cut);
        sums[member.1].1 += 1.0;
    }
    for (location, (sum, number)) in location.iter_mut().zip(&sums) {
        *location += sum / number.max(1.0);
    }
    let plain = spread(&location, cut);
    // A sensor that counts in steps is never known better than half a step.
    let least = steps.iter().map(|step| step.abs()).filter(|step| *step > 0.0).fold(f64::INFINITY, f64::min);
    let least = if count == 1 && least.is_finite() { least / 2.0 } else { 0.0 };
    let residuals: Vec<f64> = members().map(|member| residual(member, &location).clamp(-cut, cut)).collect();
    let scale = widened(plain, &residuals).max(least);
    if !(scale.is_finite() && scale > 0.0) {
        // Constant within each regime.
        return Normal { part: Part::Constant, location: location.into(), scale: 0.0, roughness: 1.0, longest_run };
    }
    let changes = residuals.windows(2).map(|pair| (pair[1] - pair[0]).abs() / scale);
    let roughness = changes.sum::<f64>() / (residuals.len().max(2) - 1) as f64;
    Normal { part: Part::Judged, location: location.into(), scale, roughness: roughness as f32, longest_run }
}

/// The standard deviation of a metric whose readings hang together: a short stretch of it strays less than the metric does. With
/// correlation r from one reading to the next, n readings tell as much as n (1 - r) / (1 + r) independent ones (Bayley and Hammersley
/// 1946), and their sample variance falls short by that factor.
fn widened(plain: f64, residuals: &[f64]) -> f64 {
    let number = residuals.len() as f64;
    let squares = residuals.iter().map(|residual| residual * residual).sum::<f64>();
    let changes = residuals.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum::<f64>();
    if squares <= 0.0 {
        return plain;
    }
    let correlation = (1.0 - changes / (2.0 * squares)).clamp(0.0, 0.99);
    let time = (1.0 + correlation) / (1.0 - correlation);
    plain / (1.0 - (time - 1.0) / number).max(SHRINK_MIN).sqrt()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { values[middle - 1].midpoint(upper) })
}
