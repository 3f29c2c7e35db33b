//! Anomaly rules: what an engine's own readings were like at first, and whether they still are.
//!
//! In: the metrics of one engine, reading by reading. Out: that an episode begins, became graver, or is over, with the metrics that
//! moved, how far in standard deviations, and since when. Pure: no clock, no I/O. What a crash loses is the owner's to say; a
//! [`Baseline`] can be kept and given back.
//!
//! `docs/ANOMALY.md` tells the method, its sources and what it reaches. In short: the first `warm_up` readings give each metric a
//! robust location and scale ([`learning`]), apart for each operating regime where there are several ([`regimes`]). After that
//! exponentially weighted averages of the standardised residuals tell what moved ([`watch`]).

mod baseline;
mod finding;
mod learning;
mod metrics;
mod regimes;
#[cfg(test)]
mod tests;
mod watch;

pub use self::{
    baseline::Baseline,
    finding::Finding,
    metrics::{METRICS_MAX, Names},
};
use self::{learning::Learning, watch::Watch};
use super::{
    alert::{Labels, Level},
    reading::ReadingRef,
};

/// Readings that are learned from unless the rule says otherwise.
pub const WARM_UP_DEFAULT: usize = 50;
/// Fewest and most readings that a rule may learn from. What is being learned takes 4 bytes a reading and metric.
pub const WARM_UP_RANGE: (usize, usize) = (20, 250);
/// Least and most of [`AnomalyRule::sensitivity`].
pub const SENSITIVITY_RANGE: (f64, f64) = (0.2, 5.0);
/// Readings after a restart in which the averages find their feet again: nothing is told meanwhile about an episode that was open.
const SETTLING: u8 = 20;

/// One anomaly rule. It is evaluated for each engine apart, against that engine's own past.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyRule {
    /// Unique among all rules.
    pub name: String,
    /// The metrics that count, in SQL spelling; empty: every one that a reading brings.
    pub metrics: Vec<String>,
    /// Every limit is divided by it: 2 warns at half the distance, 0.5 at twice.
    pub sensitivity: f64,
    /// How many readings of an engine are learned from, within [`WARM_UP_RANGE`].
    pub warm_up: usize,
    /// The level of the alert.
    pub level: Level,
    /// What its alerts carry for routes and silences to select by.
    pub labels: Labels,
}

impl AnomalyRule {
    /// Whether what was learned under `other` still holds under this rule.
    pub fn learns_like(&self, other: &AnomalyRule) -> bool {
        (&self.name, &self.metrics, self.warm_up) == (&other.name, &other.metrics, other.warm_up)
    }
}

/// What a reading made of an episode.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing to tell.
    Quiet,
    /// An episode begins.
    Opens(Finding),
    /// The open episode has become graver: it is to be ended and a new one begun, so that whoever took on the lesser one is told.
    Graver(Finding),
    /// The open episode is over.
    Closes(Finding),
}

/// What one anomaly rule knows of one engine.
#[derive(Clone, Debug)]
pub struct Detector {
    state: State,
    /// Time of the newest reading taken into account, microseconds since the epoch.
    last_us: i64,
    /// 0: no episode; 1: single metrics; 2 and more: the engine as a whole, each step half as far again.
    grade: u8,
    settling: u8,
    /// Whether a baseline was learned since the last call of [`Detector::take_learned`].
    fresh: bool,
}

#[derive(Clone, Debug)]
enum State {
    Learning(Box<Learning>),
    Watching(Box<Watch>),
}

impl Default for Detector {
    fn default() -> Self {
        Self { state: State::Learning(Box::default()), last_us: i64::MIN, grade: 0, settling: 0, fresh: false }
    }
}

impl Detector {
    /// A detector that goes on with what was learned before, and with an episode that may be open. Without a baseline it learns
    /// anew; an open episode then stays open until the engine has been watched again.
    pub fn resume(baseline: Option<Baseline>, firing: bool) -> Self {
        let state = match baseline {
            Some(baseline) => State::Watching(Box::new(Watch::new(baseline))),
            None => State::Learning(Box::default()),
        };
        Self { state, grade: u8::from(firing), settling: if firing { SETTLING } else { 0 }, ..Self::default() }
    }

    /// Whether an episode is open.
    pub fn is_firing(&self) -> bool {
        self.grade > 0
    }

    /// Whether the baseline is still being learned.
    pub fn is_learning(&self) -> bool {
        matches!(self.state, State::Learning(_))
    }

    /// The baseline, where one was learned since the last call.
    pub fn take_learned(&mut self) -> Option<&Baseline> {
        match (&self.state, std::mem::take(&mut self.fresh)) {
            (State::Watching(watch), true) => Some(watch.baseline()),
            _ => None,
        }
    }

    /// The baseline was not kept: give it out again.
    pub fn mark_unsaved(&mut self) {
        self.fresh = !self.is_learning();
    }

    /// Bytes held beyond the detector itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Learning(learning) => size_of::<Learning>() + learning.heap_bytes(),
            State::Watching(watch) => size_of::<Watch>() + watch.heap_bytes(),
        }
    }

    /// Takes one reading into account. Readings count in the order of their times: one that is not newer than the newest is left
    /// out, so that repeats and late ones change nothing. A time ahead of `arrived_at_us` holds up nobody who comes after it.
    pub fn observe(&mut self, rule: &AnomalyRule, names: &mut Names, reading: &ReadingRef<'_>, arrived_at_us: i64) -> Outcome {
        let at_us = reading.observed_at_us;
        if at_us == self.last_us || (at_us < self.last_us && self.last_us <= arrived_at_us) {
            return Outcome::Quiet;
        }
        self.last_us = at_us;
        match &mut self.state {
            State::Learning(learning) => {
                if let Some(baseline) = learning.take(rule, names, reading) {
                    self.state = State::Watching(Box::new(Watch::new(baseline)));
                    self.fresh = true;
                }
                Outcome::Quiet
            }
            State::Watching(watch) => {
                let strangers = watch.take(rule, reading, at_us);
                if strangers && self.grade == 0 {
                    // For a whole warm-up most readings brought metrics that the baseline does not know: another set of sensors.
                    *self = Self { last_us: self.last_us, ..Self::default() };
                    return Outcome::Quiet;
                }
                self.judge(rule)
            }
        }
    }

    fn judge(&mut self, rule: &AnomalyRule) -> Outcome {
        let State::Watching(watch) = &self.state else { return Outcome::Quiet };
        let grade = watch.grade(rule.sensitivity, self.grade);
        if self.settling > 0 {
            self.settling -= 1;
            self.grade = self.grade.max(grade);
            return Outcome::Quiet;
        }
        let before = self.grade;
        if grade == before || (grade > 0 && grade < before) {
            // A lesser grade of the same episode: still the same, and it may grow again without being told twice.
            return Outcome::Quiet;
        }
        self.grade = grade;
        let finding = watch.finding(rule, grade);
        match (before, grade) {
            (_, 0) => Outcome::Closes(finding),
            (0, _) => Outcome::Opens(finding),
            _ => Outcome::Graver(finding),
        }
    }
}
