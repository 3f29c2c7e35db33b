//! Threshold rules: when a metric breaches, for how long it must, and when it is clear again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    ack::UnknownWord,
    alert::{Labels, Level},
};

/// The comparison that makes a breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// `value > threshold`
    #[serde(rename = ">")]
    Above,
    /// `value >= threshold`
    #[serde(rename = ">=")]
    AtLeast,
    /// `value < threshold`
    #[serde(rename = "<")]
    Below,
    /// `value <= threshold`
    #[serde(rename = "<=")]
    AtMost,
}

impl Op {
    /// The sign used in configuration and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
        }
    }

    /// Whether `value` breaches `threshold`.
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
        }
    }

    /// Whether a high value is the bad one.
    pub fn is_upper(self) -> bool {
        matches!(self, Self::Above | Self::AtLeast)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Op {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Above, Self::AtLeast, Self::Below, Self::AtMost]
            .into_iter()
            .find(|op| op.as_str() == text)
            .ok_or_else(|| UnknownWord::new(text, &[">", ">=", "<", "<="]))
    }
}

/// One threshold rule. It is evaluated for each engine apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique among the rules.
    pub name: String,
    /// A metric's SQL name (`fuel_flow`) or the name of an extra metric.
    pub metric: String,
    /// The comparison that makes a breach.
    pub op: Op,
    /// What the metric is compared with.
    pub threshold: f64,
    /// Hysteresis: once firing, the alert is over only when the value has come back to this side of `clear`
    /// (`value <= clear` for `>` and `>=`, `value >= clear` for the others). `None`: as soon as it no longer breaches.
    pub clear: Option<f64>,
    /// How long, in microseconds of reading time, the breach must last before it fires; 0 fires at the first reading.
    pub for_us: i64,
    /// The level of the alert.
    pub level: Level,
    /// What its alerts carry for routes and silences to select by.
    pub labels: Labels,
}

/// What one rule knows of one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase")]
pub enum Phase {
    /// No breach.
    #[default]
    Clear,
    /// In breach, but not yet for long enough.
    Pending {
        /// Time of the first breaching reading, microseconds since the epoch.
        since_us: i64,
    },
    /// The alert is open.
    Firing {
        /// Time of the newest breaching reading, microseconds since the epoch.
        last_breach_us: i64,
    },
}

/// What a reading made of a rule's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to tell.
    Quiet,
    /// The alert opens.
    Opens,
    /// The alert is over.
    Closes,
}

impl Rule {
    /// Takes one value into account and tells what follows. Readings count in the order in which they arrive; one that is older
    /// than the newest breach may raise an alert but never clears one, because the newer reading knows better. A breach stamped ahead
    /// of its arrival counts as of its arrival there, else nothing could clear it until its time has come.
    pub fn step(&self, phase: Phase, value: f64, observed_at_us: i64, arrived_at_us: i64) -> (Phase, Verdict) {
        let breach_us = observed_at_us.min(arrived_at_us);
        let breach = self.op.breaches(value, self.threshold);
        match phase {
            Phase::Clear | Phase::Pending { .. } if breach => {
                let since_us = match phase {
                    Phase::Pending { since_us } => since_us.min(observed_at_us),
                    _ => observed_at_us,
                };
                if observed_at_us - since_us >= self.for_us {
                    (Phase::Firing { last_breach_us: breach_us }, Verdict::Opens)
                } else {
                    (Phase::Pending { since_us }, Verdict::Quiet)
                }
            }
            Phase::Pending { since_us } if observed_at_us < since_us => (phase, Verdict::Quiet),
            Phase::Clear | Phase::Pending { .. } => (Phase::Clear, Verdict::Quiet),
            Phase::Firing { last_breach_us } if breach => {
                (Phase::Firing { last_breach_us: last_breach_us.max(breach_us) }, Verdict::Quiet)
            }
            Phase::Firing { last_breach_us } if observed_at_us < last_breach_us || !self.is_clear(value) => (phase, Verdict::Quiet),
            Phase::Firing { .. } => (Phase::Clear, Verdict::Closes),
        }
    }

    fn is_clear(&self, value: f64) -> bool {
        match self.clear {
            None => !self.op.breaches(value, self.threshold),
            Some(clear) if self.op.is_upper() => value <= clear,
            Some(clear) => value >= clear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(clear: Option<f64>, for_us: i64) -> Rule {
        Rule {
            name: "r".into(),
            metric: "rpm".into(),
            op: Op::Above,
            threshold: 100.0,
            clear,
            for_us,
            level: Level::Warning,
            labels: Labels::new(),
        }
    }

    fn run(rule: &Rule, values: &[(f64, i64)]) -> Vec<Verdict> {
        let mut phase = Phase::Clear;
        values
            .iter()
            .map(|&(value, at)| {
                let (next, verdict) = rule.step(phase, value, at, 1_000);
                phase = next;
                verdict
            })
            .collect()
    }

    #[test]
    fn a_breach_opens_once_and_closes_once() {
        use Verdict::{Closes, Opens, Quiet};
        let got = run(&rule(None, 0), &[(100.0, 0), (100.1, 1), (150.0, 2), (100.0, 3), (90.0, 4)]);
        assert_eq!(got, [Quiet, Opens, Quiet, Closes, Quiet]);
    }

    #[test]
    fn hysteresis_holds_the_alert_until_the_clear_value() {
        use Verdict::{Closes, Opens, Quiet};
        let got = run(&rule(Some(80.0), 0), &[(101.0, 0), (99.0, 1), (81.0, 2), (80.0, 3), (99.0, 4), (101.0, 5)]);
        assert_eq!(got, [Opens, Quiet, Quiet, Closes, Quiet, Opens]);
    }

    #[test]
    fn a_breach_must_last_for_its_duration_without_a_break() {
        use Verdict::{Opens, Quiet};
        let got = run(&rule(None, 10), &[(101.0, 0), (101.0, 9), (99.0, 10), (101.0, 11), (101.0, 20), (101.0, 21)]);
        assert_eq!(got, [Quiet, Quiet, Quiet, Quiet, Quiet, Opens]);
    }

    #[test]
    fn a_late_reading_raises_but_never_clears() {
        use Verdict::{Closes, Opens, Quiet};
        let got = run(&rule(None, 0), &[(50.0, 100), (101.0, 10), (101.0, 50), (50.0, 20), (50.0, 60)]);
        assert_eq!(got, [Quiet, Opens, Quiet, Quiet, Closes]);
    }

    #[test]
    fn a_breach_stamped_ahead_is_cleared_by_readings_of_now() {
        use Verdict::{Closes, Opens};
        assert_eq!(run(&rule(None, 0), &[(101.0, 90_000), (50.0, 1_001)]), [Opens, Closes]);
    }

    #[test]
    fn every_operator_has_its_own_side() {
        for (op, at, beyond, clear) in [(Op::Above, false, true, 99.0), (Op::AtLeast, true, true, 99.0)] {
            assert_eq!(op.breaches(100.0, 100.0), at);
            assert_eq!(op.breaches(101.0, 100.0), beyond);
            assert!(!op.breaches(clear, 100.0));
        }
        for (op, at) in [(Op::Below, false), (Op::AtMost, true)] {
            assert_eq!(op.breaches(100.0, 100.0), at);
            assert!(op.breaches(99.0, 100.0));
            assert!(!op.breaches(101.0, 100.0));
        }
    }
}
