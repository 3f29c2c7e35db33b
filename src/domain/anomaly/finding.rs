//! What is told of an episode: one English sentence, a number and its limit.

use std::fmt::{self, Write};

use crate::domain::time;

/// Metrics that are named in a sentence.
const NAMED: usize = 5;

/// One metric that moved.
#[derive(Clone, Debug)]
pub(super) struct Moved<'a> {
    pub(super) name: &'a str,
    pub(super) what: What,
    /// For the order in which they are told.
    pub(super) weight: f32,
    pub(super) limit: f32,
    /// Microseconds since the epoch; `i64::MAX` where it lies near its baseline.
    pub(super) since_us: i64,
}

/// How it moved.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Standard deviations from the baseline, with their sign.
    Displaced(f32),
    /// The same, and how far the quick average has run away from the slow one.
    Jumped { sd: f32, gap: f32 },
    /// It had never changed, and now it does.
    Changed,
    /// Its noise has grown so many times.
    Noisier(f32),
    /// The very same value, so many readings in a row.
    Stuck(u32),
}

impl fmt::Display for Moved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Displaced(sd) | What::Jumped { sd, .. } => write!(f, "{} {sd:+.1} sd", self.name),
            What::Changed => write!(f, "{} no longer constant", self.name),
            What::Noisier(times) => write!(f, "{} {times:.1} times as noisy", self.name),
            What::Stuck(readings) => write!(f, "{} stuck for {readings} readings", self.name),
        }
    }
}

/// What an alert carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// One English sentence; `{engine}` stands where the engine's id goes.
    text: String,
    /// How far: the mean displacement of the engine's metrics where it moved as a whole, else that of the metric that moved most
    /// (standard deviations; of a jump, how far the quick average is from the slow one), or how many times its noise has grown, or how many readings it has been stuck.
    pub value: f64,
    /// The limit that `value` is compared with, where there is one.
    pub limit: Option<f64>,
    /// Since when the first of the metrics has been away from its baseline, microseconds since the epoch.
    pub since_us: Option<i64>,
}

impl Finding {
    pub(super) fn new(rule: &str, grade: u8, engine: f32, judged: usize, limit: f32, moved: &[Moved<'_>]) -> Self {
        let since_us = moved.iter().map(|moved| moved.since_us).min().filter(|since_us| *since_us != i64::MAX);
        let mut text = format!("{rule}: {{engine}} ");
        // Writing to a string cannot fail.
        let _ = match grade {
            0 => write!(text, "is back at its baseline, {engine:.1} sd away on average over {judged} metrics"),
            1 => write!(text, "has left its baseline"),
            _ => write!(text, "as a whole is {engine:.1} sd from its baseline on average over {judged} metrics"),
        };
        for (index, moved) in moved.iter().take(NAMED).enumerate() {
            let _ = write!(text, "{}{moved}", if index == 0 { ": " } else { ", " });
        }
        if moved.len() > NAMED {
            let _ = write!(text, " and {} more", moved.len() - NAMED);
        }
        if let (Some(since_us), 1..) = (since_us, grade) {
            let _ = write!(text, "; since {}", time::rfc3339_us(since_us));
        }
        let first = moved.first().filter(|_| grade == 1).map(|first| first.what);
        let (value, limit) = match first {
            Some(What::Displaced(sd)) => (f64::from(sd), Some(f64::from(limit))),
            Some(What::Jumped { gap, .. }) => (f64::from(gap), Some(f64::from(limit))),
            Some(What::Noisier(times)) => (f64::from(times), Some(f64::from(limit))),
            Some(What::Stuck(readings)) => (f64::from(readings), None),
            Some(What::Changed) => (0.0, None),
            None => (f64::from(engine), Some(f64::from(limit)).filter(|_| grade > 0)),
        };
        // People read this; a sensor does not know more digits.
        let round = |number: f64| (number * 1_000.0).round() / 1_000.0;
        Self { text, value: round(value), limit: limit.map(round), since_us }
    }

    /// The sentence with the engine's id.
    pub fn text(&self, engine_id: &str) -> String {
        self.text.replacen("{engine}", engine_id, 1)
    }
}
