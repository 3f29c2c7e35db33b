//! What moved since the baseline was learned.
//!
//! Of each judged metric's standardised residual z three exponentially weighted averages are kept (EWMA; Roberts 1959, "Control chart
//! tests based on geometric moving averages"), quick, middle and slow, and one of how much z changes from reading to reading:
//!
//! - *displaced*: the middle one lies far from 0;
//! - *jumped*: the quick one has run away from the slow one;
//! - *noisier*: the changes have grown against the warm-up;
//! - *stuck*: the very same value for longer than ever, while other metrics live.
//!
//! The engine as a whole is judged by the mean of the middle ones' amounts over its metrics: wear moves many of them a little. z is cut
//! off, so that one wild reading moves nothing for long. Memory is fixed by the number of metrics.

use super::{
    AnomalyRule,
    baseline::{Baseline, Normal, Part},
    finding::{Finding, Moved, What},
    metrics::{METRICS_MAX, Values, name_of, place},
    regimes::Regime,
};
use crate::domain::reading::ReadingRef;

/// Residuals beyond so many standard deviations count as this many.
const CUT: f32 = 12.0;
/// What a metric that never changed and now does counts as.
const CHANGED: f32 = 10.0;
const QUICK: f32 = 0.2;
const MIDDLE: f32 = 0.1;
const SLOW: f32 = 0.05;
/// Displaced: limit of the middle average, standard deviations.
const DISPLACED: f32 = 6.0;
/// Jumped: limit of quick less slow; a step of S standard deviations drives it to S / 2.
const JUMPED: f32 = 2.5;
/// Noisier: limit of the growth of the mean change.
const NOISIER: f32 = 2.5;
/// The whole engine: limit of the mean displacement, standard deviations.
const ENGINE: f32 = 2.5;
/// Fewest judged metrics for which the engine as a whole says more than each alone.
const ENGINE_METRICS_MIN: usize = 4;
/// What has moved counts until it is back within this part of its limit.
const BACK: f32 = 0.5;
/// A graver grade of the whole engine begins at so many times the one before.
const GRAVER: f32 = 1.5;
/// Stuck: at least so many equal readings, and so many times the longest run of the warm-up.
const STUCK: (u32, u32) = (20, 5);
/// Another metric must have changed within so many readings, else everything stands still and nothing is stuck.
const ALIVE: u32 = 5;
/// Away from the baseline begins here, for "since when"; it ends at half of it.
const AWAY: f32 = 2.0;

#[derive(Clone, Debug)]
struct Track {
    quick: f32,
    middle: f32,
    slow: f32,
    change: f32,
    last_z: f32,
    run: u32,
    last: f64,
    /// Since when it lies away from the baseline, microseconds since the epoch; `i64::MAX` while it does not.
    since_us: i64,
    jumped: bool,
    displaced: bool,
    noisier: bool,
    stuck: bool,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            quick: 0.0,
            middle: 0.0,
            slow: 0.0,
            change: 1.0,
            last_z: f32::NAN,
            run: 0,
            last: f64::NAN,
            since_us: i64::MAX,
            jumped: false,
            displaced: false,
            noisier: false,
            stuck: false,
        }
    }
}

/// A baseline with what has been seen against it.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    baseline: Baseline,
    tracks: Box<[Track]>,
    /// Mean displacement of the judged metrics, standard deviations.
    engine: f32,
    judged: usize,
    /// How far the readings with metrics unknown to the baseline outweigh the others.
    strangers: u32,
}

impl Watch {
    pub(super) fn new(baseline: Baseline) -> Self {
        let tracks = vec![Track::default(); baseline.normals.len()].into();
        let judged = baseline.judged();
        Self { baseline, tracks, engine: 0.0, judged, strangers: 0 }
    }

    pub(super) fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.tracks.len() * size_of::<Track>() + self.baseline.heap_bytes()
    }

    /// Takes a reading; `true` where for a whole warm-up most readings brought metrics that the baseline does not know.
    pub(super) fn take(&mut self, rule: &AnomalyRule, reading: &ReadingRef<'_>, at_us: i64) -> bool {
        let mut values: Values = [f64::NAN; METRICS_MAX];
        let strange = place(reading, &self.baseline.names, &mut values) > 0 && rule.metrics.is_empty();
        self.strangers = if strange { self.strangers + 1 } else { self.strangers.saturating_sub(1) };
        let regime = self.baseline.regimes.of(|key| values[key]);
        // Where the limits lie farther out, what counts reaches as far beyond them.
        let reach = 1.0 / (rule.sensitivity as f32).min(1.0);
        let mut sum = 0.0;
        let mut alive = false;
        for (place, track) in self.tracks.iter_mut().enumerate() {
            let normal = &self.baseline.normals[place];
            let value = values[place];
            if !value.is_nan() && normal.part != Part::Left {
                let index = match regime {
                    Regime::Known(index) => Some(index),
                    // The others say nothing where the engine has never worked; the key itself says where it is.
                    Regime::Beyond(index) if self.baseline.regimes.key() == Some(place) => Some(index),
                    Regime::Beyond(_) | Regime::Unknown => None,
                };
                track.repeat(value);
                if let Some(index) = index {
                    track.take(normal, residual(normal, value, index, reach), at_us);
                }
            }
            if normal.part == Part::Judged {
                sum += track.middle.abs();
                alive |= !value.is_nan() && track.run < ALIVE;
            }
        }
        self.engine = sum / self.judged.max(1) as f32;
        let alone = self.judged == 1;
        for (normal, track) in self.baseline.normals.iter().zip(&mut self.tracks) {
            track.mark(normal, rule.sensitivity as f32, alive || alone);
        }
        self.strangers as usize > rule.warm_up
    }

    /// How grave it is now, given the grade that was told. See [`super::Detector`].
    pub(super) fn grade(&self, sensitivity: f64, told: u8) -> u8 {
        let far = self.engine * sensitivity as f32 / ENGINE;
        // One metric far away is no engine that moved as a whole.
        let away = self.tracks.iter().filter(|track| track.since_us != i64::MAX).count();
        let many = self.judged >= ENGINE_METRICS_MIN && away >= self.judged.div_ceil(4).max(2);
        if many && far >= 1.0 {
            // The cut-off bounds the mean, so this is small.
            return 2 + (far.ln() / GRAVER.ln()) as u8;
        }
        let whole_engine = told >= 2 && far > BACK;
        u8::from(whole_engine || self.tracks.iter().any(Track::has_moved))
    }

    /// What to tell of it.
    pub(super) fn finding(&self, rule: &AnomalyRule, grade: u8) -> Finding {
        let sensitivity = rule.sensitivity as f32;
        let mut moved: Vec<Moved<'_>> = self
            .tracks
            .iter()
            .zip(&self.baseline.normals)
            .enumerate()
            .filter(|(_, (track, _))| track.has_moved() || (grade >= 2 && track.since_us != i64::MAX))
            .map(|(place, (track, normal))| track.tell(name_of(place, &self.baseline.names), normal))
            .collect();
        moved.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.name.cmp(b.name)));
        let limit = if grade >= 2 { ENGINE } else { moved.first().map_or(DISPLACED, |first| first.limit) } / sensitivity;
        Finding::new(&rule.name, grade, self.engine, self.judged, limit, &moved)
    }
}

/// How far a value lies from where it should, in standard deviations, cut off.
fn residual(normal: &Normal, value: f64, regime: usize, reach: f32) -> f32 {
    let location = normal.location[regime];
    let difference = value - location;
    if normal.part == Part::Constant {
        // What was stored as a difference in single precision may be off by its last digits.
        let same = difference.abs() <= (location.abs() + value.abs()) * 1e-6;
        return if same { 0.0 } else { (CHANGED * reach).copysign(difference as f32) };
    }
    ((difference / normal.scale) as f32).clamp(-CUT * reach, CUT * reach)
}

impl Track {
    fn repeat(&mut self, value: f64) {
        self.run = if value == self.last { self.run.saturating_add(1) } else { 1 };
        self.last = value;
    }

    fn take(&mut self, normal: &Normal, z: f32, at_us: i64) {
        self.quick += QUICK * (z - self.quick);
        self.middle += MIDDLE * (z - self.middle);
        self.slow += SLOW * (z - self.slow);
        if !self.last_z.is_nan() {
            // A metric that was nearly still is not known well enough to multiply its stillness.
            let usual = normal.roughness.max(0.5);
            self.change += SLOW * ((z - self.last_z).abs() / usual - self.change);
        }
        self.last_z = z;
        if self.middle.abs() >= AWAY {
            self.since_us = self.since_us.min(at_us);
        } else if self.middle.abs() < AWAY / 2.0 {
            self.since_us = i64::MAX;
        }
    }

    /// Says what has moved and what is back.
    fn mark(&mut self, normal: &Normal, sensitivity: f32, alive: bool) {
        let over = |mark: &mut bool, amount: f32, limit: f32, rest: f32| {
            // `rest` is what the amount is when nothing is wrong.
            let far = (amount - rest) * sensitivity / (limit - rest);
            *mark = if *mark { far > BACK } else { far >= 1.0 };
        };
        if normal.part == Part::Left {
            return;
        }
        over(&mut self.displaced, self.middle.abs(), DISPLACED, 0.0);
        if normal.part == Part::Judged {
            let (gap, middle) = ((self.quick - self.slow).abs(), self.middle.abs());
            // A jump is over when the metric has come back, not when it has settled elsewhere.
            let back = middle * sensitivity <= DISPLACED * BACK && gap * sensitivity <= JUMPED * BACK;
            self.jumped = if self.jumped { !back } else { gap * sensitivity >= JUMPED };
            over(&mut self.noisier, self.change, NOISIER, 1.0);
            let limit = STUCK.0.max(STUCK.1 * u32::from(normal.longest_run));
            self.stuck = self.run >= limit && (self.stuck || alive);
        }
    }

    fn has_moved(&self) -> bool {
        self.displaced || self.jumped || self.noisier || self.stuck
    }

    fn tell<'a>(&self, name: &'a str, normal: &Normal) -> Moved<'a> {
        let away = self.displaced || self.jumped || (!self.noisier && !self.stuck);
        let (what, limit) = if normal.part == Part::Constant {
            (What::Changed, DISPLACED)
        } else if self.jumped && !self.displaced {
            (What::Jumped { sd: self.quick, gap: self.quick - self.slow }, JUMPED)
        } else if away {
            (What::Displaced(self.middle), DISPLACED)
        } else if self.noisier {
            (What::Noisier(self.change), NOISIER)
        } else {
            (What::Stuck(self.run), DISPLACED)
        };
        let weight = if away { self.middle.abs() } else { 0.0 };
        Moved { name, what, weight, limit, since_us: self.since_us }
    }
}
