//! System conditions with hysteresis: when a figure of host or daemon becomes an alert, and when that is over.

use std::collections::HashMap;

use crate::domain::alert::{Level, Transition};

/// Looks in a row above the limit before an alert opens, so that one busy second wakes nobody.
const LOOKS_TO_OPEN: u32 = 3;
/// How far below its limit a percentage must come before the alert is over.
const CLEAR_MARGIN: f64 = 5.0;

/// One look at one condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// For example `cpu-high`.
    pub name: &'static str,
    /// The part: `host`, `database`, …
    pub subject: String,
    /// The level of the alert.
    pub level: Level,
    /// What was measured.
    pub value: f64,
    /// Above this it holds.
    pub limit: f64,
    /// At or below this it is over.
    pub clear: f64,
    /// Looks in a row above the limit before it opens.
    pub looks: u32,
    /// What it is about, for the sentence: `CPU of the host`.
    pub what: &'static str,
    /// Unit for the sentence.
    pub unit: &'static str,
    /// A sentence that says more than the figures, while it holds.
    pub cause: Option<String>,
}

impl Condition {
    /// A share of something, 0 to 100.
    pub fn percent(name: &'static str, what: &'static str, level: Level, value: f64, limit: f64) -> Self {
        let clear = (limit - CLEAR_MARGIN).max(0.0);
        Self { name, subject: "host".into(), level, value, limit, clear, looks: LOOKS_TO_OPEN, what, unit: " %", cause: None }
    }

    /// Something that should be 0 and is told at once.
    pub fn never(name: &'static str, subject: &str, what: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            name,
            subject: subject.into(),
            level: Level::Critical,
            value,
            limit: 0.0,
            clear: 0.0,
            looks: 1,
            what,
            unit,
            cause: None,
        }
    }

    fn transition(&self, firing: bool, now_us: i64) -> Transition {
        let Self { what, value, limit, unit, .. } = self;
        let text = match (firing, &self.cause) {
            (true, Some(cause)) => cause.clone(),
            (true, None) => format!("{what}: {value:.1}{unit}, limit {limit:.1}{unit}"),
            (false, _) if *limit == 0.0 => format!("{what}: that is over"),
            (false, _) => format!("{what} is back at {value:.1}{unit}"),
        };
        Transition::system((self.name, &self.subject), self.level, firing, text, now_us).measured(self.value, self.limit)
    }
}

#[derive(Clone, Copy, Debug)]
struct Standing {
    above: u32,
    firing: bool,
    level: Level,
}

/// What is known of each condition from the looks before. As many as there are limits and sources.
#[derive(Debug, Default)]
pub struct Conditions {
    standing: HashMap<(&'static str, String), Standing>,
}

impl Conditions {
    /// Takes over that a condition had an open alert before this life began.
    pub fn resume(&mut self, name: &'static str, subject: &str, level: Level) {
        self.standing.insert((name, subject.to_owned()), Standing { above: 0, firing: true, level });
    }

    /// Takes one look at everything into account and returns what began or ceased. A condition that is not among the looks any
    /// more (its source was removed from the configuration) is over.
    pub fn step(&mut self, looks: &[Condition], now_us: i64) -> Vec<Transition> {
        let mut transitions = Vec::new();
        for look in looks {
            let key = (look.name, look.subject.clone());
            let standing = self.standing.entry(key).or_insert(Standing { above: 0, firing: false, level: look.level });
            standing.above = if look.value > look.limit { standing.above.saturating_add(1) } else { 0 };
            if !standing.firing && standing.above >= look.looks {
                standing.firing = true;
                transitions.push(look.transition(true, now_us));
            } else if standing.firing && look.value <= look.clear {
                standing.firing = false;
                transitions.push(look.transition(false, now_us));
            }
        }
        self.standing.retain(|(name, subject), standing| {
            let looked_at = looks.iter().any(|look| look.name == *name && look.subject == *subject);
            if !looked_at && standing.firing {
                let gone =
                    Condition { level: standing.level, ..Condition::never(name, subject, "It is not watched any more", "", 0.0) };
                transitions.push(Transition { text: "it is not watched any more".into(), ..gone.transition(false, now_us) });
            }
            looked_at
        });
        transitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(values: &[f64]) -> Vec<(usize, bool)> {
        let mut conditions = Conditions::default();
        let mut seen = Vec::new();
        for (at, &value) in values.iter().enumerate() {
            let look = Condition::percent("cpu-high", "CPU of the host", Level::Warning, value, 80.0);
            seen.extend(conditions.step(&[look], 0).iter().map(|transition| (at, transition.firing)));
        }
        seen
    }

    #[test]
    fn three_looks_in_a_row_open_and_a_margin_below_closes() {
        assert_eq!(run(&[90.0, 90.0, 10.0, 81.0, 82.0, 83.0, 79.0, 76.0, 75.0, 90.0]), [(5, true), (8, false)]);
    }

    #[test]
    fn what_should_never_be_is_told_at_once_and_once() {
        let mut conditions = Conditions::default();
        let look = |value| Condition::never("conservation-violation", "buffer", "Readings that cannot be accounted for", "", value);
        let firing = |transitions: Vec<Transition>| transitions.iter().map(|t| t.firing).collect::<Vec<_>>();
        assert_eq!(firing(conditions.step(&[look(1.0)], 7)), [true]);
        assert!(conditions.step(&[look(2.0)], 8).is_empty());
        assert_eq!(firing(conditions.step(&[look(0.0)], 9)), [false]);
    }

    #[test]
    fn an_alert_that_was_open_before_a_restart_is_closed_and_not_opened_again() {
        let mut conditions = Conditions::default();
        conditions.resume("cpu-high", "host", Level::Warning);
        let look = |value| Condition::percent("cpu-high", "CPU of the host", Level::Warning, value, 80.0);
        for _ in 0..5 {
            assert!(conditions.step(&[look(99.0)], 1).is_empty());
        }
        assert_eq!(conditions.step(&[look(1.0)], 2).len(), 1);
    }

    #[test]
    fn what_is_not_watched_any_more_is_over() {
        let mut conditions = Conditions::default();
        let look = Condition::never("source-failing", "plant", "A source fails", "", 1.0);
        assert!(conditions.step(&[look], 1)[0].firing);
        let over = conditions.step(&[], 2);
        assert_eq!(over.iter().map(|t| (t.subject.as_str(), t.firing)).collect::<Vec<_>>(), [("plant", false)]);
        assert!(conditions.step(&[], 3).is_empty());
    }
}
