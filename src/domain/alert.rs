//! Alerts: their levels, their life cycle, and the facts that open and close them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ack::UnknownWord;

/// How much an alert matters, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth a look today.
    Warning,
    /// Someone must act now.
    Critical,
}

impl Level {
    /// Every level, in rising order.
    pub const ALL: [Level; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The word in configuration, SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

/// The life cycle of an alert: `firing -> acknowledged -> resolved`, or `firing -> resolved`. A resolved alert never reopens:
/// the next breach of the same rule and subject is a new episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The condition holds and nobody has taken it on.
    Firing,
    /// The condition holds and a person has taken it on.
    Acknowledged,
    /// The condition is over.
    Resolved,
}

impl AlertState {
    /// The word in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

impl FromStr for AlertState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "firing" => Ok(Self::Firing),
            "acknowledged" => Ok(Self::Acknowledged),
            "resolved" => Ok(Self::Resolved),
            _ => Err(UnknownWord::new(text, &["firing", "acknowledged", "resolved"])),
        }
    }
}

/// Where an alert comes from: routes select by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// A threshold rule on readings; the subject is the engine.
    Rule,
    /// The daemon or its host; the subject is the part (`database`, `disk`, an actor's name).
    System,
}

impl AlertKind {
    /// The word in configuration, SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::System => "system",
        }
    }
}

/// A condition began to hold or ceased to. The alert side turns it into an episode; `(kind, name, subject)` identifies that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// Rule or system.
    pub kind: AlertKind,
    /// The rule's name, or the system condition's (`database-down`).
    pub name: String,
    /// The engine id, or the part of the system.
    pub subject: String,
    /// The level it is raised at.
    pub level: Level,
    /// `true` when the condition began to hold, `false` when it ceased to.
    pub firing: bool,
    /// When it happened, by the reading's time for rules: microseconds since the epoch.
    pub observed_at_us: i64,
    /// When belayd got to know: microseconds since the epoch. Latency is counted from here.
    pub arrived_at_us: i64,
    /// What was measured, where something was.
    pub value: Option<f64>,
    /// What it was compared with, where it was.
    pub threshold: Option<f64>,
    /// One English sentence for a person, without secrets.
    pub text: String,
}
