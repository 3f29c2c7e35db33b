//! Alerts: their levels, their life cycle, and the facts that open and close them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

use super::{ack::UnknownWord, time};

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

impl FromStr for AlertKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "rule" => Ok(Self::Rule),
            "system" => Ok(Self::System),
            _ => Err(UnknownWord::new(text, &["rule", "system"])),
        }
    }
}

/// One episode: from the moment a condition began to hold until it ceased to. This is the form in which the page, `/api/alerts`
/// and webhooks see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// A UUID; it names the episode in every notice and request.
    pub id: String,
    /// Rule or system.
    pub kind: AlertKind,
    /// The rule's name, or the system condition's.
    pub name: String,
    /// The engine id, or the part of the system.
    pub subject: String,
    /// The highest level it has been raised at.
    pub level: Level,
    /// Where it stands.
    pub state: AlertState,
    /// When it was opened: microseconds since the epoch (RFC 3339 in JSON).
    #[serde(rename = "openedAt", serialize_with = "rfc3339")]
    pub opened_at_us: i64,
    /// When a person took it on.
    #[serde(rename = "acknowledgedAt", serialize_with = "rfc3339_option")]
    pub acknowledged_at_us: Option<i64>,
    /// Who took it on: the name of the token.
    pub acknowledged_by: Option<String>,
    /// When it was over.
    #[serde(rename = "resolvedAt", serialize_with = "rfc3339_option")]
    pub resolved_at_us: Option<i64>,
    /// What was measured last.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Option<f64>,
    /// One English sentence for a person.
    pub text: String,
    /// How often it was raised in this episode; at least 1.
    pub count: u64,
}

impl Alert {
    /// `kind/name/subject`: what it is about, the same for every instance that sees it.
    pub fn episode(&self) -> String {
        format!("{}/{}/{}", self.kind.as_str(), self.name, self.subject)
    }
}

fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

fn rfc3339_option<S: Serializer>(at_us: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at_us.map(time::rfc3339_us).serialize(serializer)
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
