//! Alerts: their levels, their life cycle, and the facts that open and close them.
//!
//! [`MOVES`] is the one place that says what can happen to an alert and where that leads; `store::alerts` carries it out.
//! `docs/STATES.md` draws the same table, and a test keeps them equal.

use std::{collections::BTreeMap, fmt, str::FromStr};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// Every state, in the order of a life.
    pub const ALL: [AlertState; 3] = [Self::Firing, Self::Acknowledged, Self::Resolved];

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

impl fmt::Display for AlertState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can happen to an alert that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It is raised again, no higher than before.
    Repeat,
    /// It is raised again at a higher level.
    Escalate,
    /// A person takes it on.
    Acknowledge,
    /// The condition is over.
    Resolve,
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 4] = [Self::Repeat, Self::Escalate, Self::Acknowledge, Self::Resolve];

    /// What it does to an alert, for people: an alert is …
    fn done(self) -> &'static str {
        match self {
            Self::Repeat => "raised again",
            Self::Escalate => "raised to a higher level",
            Self::Acknowledge => "acknowledged",
            Self::Resolve => "resolved",
        }
    }
}

/// The life of an alert: state, event, the state it leads to. Whatever is not listed is illegal. A higher level does not take an alert
/// away from the person who has it: it is told, and stays acknowledged.
pub const MOVES: [(AlertState, Event, AlertState); 8] = {
    use AlertState::*;
    [
        (Firing, Event::Repeat, Firing),
        (Firing, Event::Escalate, Firing),
        (Firing, Event::Acknowledge, Acknowledged),
        (Firing, Event::Resolve, Resolved),
        (Acknowledged, Event::Repeat, Acknowledged),
        (Acknowledged, Event::Escalate, Acknowledged),
        (Acknowledged, Event::Acknowledge, Acknowledged),
        (Acknowledged, Event::Resolve, Resolved),
    ]
};

/// A move that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// Where the alert stands.
    pub state: AlertState,
    /// What was asked of it.
    pub event: Event,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an alert that is {} cannot be {}", self.state, self.event.done())
    }
}

impl std::error::Error for Illegal {}

/// Where `event` leads an alert that stands in `state`.
///
/// # Errors
/// Where the table has no such move.
pub fn next(state: AlertState, event: Event) -> Result<AlertState, Illegal> {
    let found = MOVES.iter().find(|(from, by, _)| (*from, *by) == (state, event));
    found.map(|(_, _, to)| *to).ok_or(Illegal { state, event })
}

/// What a rule says of its alerts beside name and level, for routes and silences to select by: name and value.
pub type Labels = BTreeMap<String, String>;

/// Where an alert comes from: routes select by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// A rule on readings, threshold or anomaly; the subject is the engine.
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
    /// The labels of its rule when it was opened.
    pub labels: Labels,
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

impl Transition {
    /// A condition of belayd itself, seen at `now_us`, by its name (`database-down`) and the part of the system that it is about.
    pub fn system((name, subject): (&str, &str), level: Level, firing: bool, text: String, now_us: i64) -> Self {
        Self {
            kind: AlertKind::System,
            name: name.to_owned(),
            subject: subject.to_owned(),
            level,
            firing,
            observed_at_us: now_us,
            arrived_at_us: now_us,
            value: None,
            threshold: None,
            text,
        }
    }

    /// The same, with what was measured and what it was compared with.
    #[must_use]
    pub fn measured(self, value: f64, threshold: f64) -> Self {
        Self { value: Some(value), threshold: Some(threshold), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The drawing in the documentation, read back: `| state | Event | state |`.
    fn drawn() -> BTreeSet<(String, String, String)> {
        include_str!("../../docs/STATES.md")
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
                let &[from, event, to, ..] = cells.as_slice() else { return None };
                from.parse::<AlertState>().ok()?;
                Some((from.to_owned(), event.to_owned(), to.to_owned()))
            })
            .collect()
    }

    #[test]
    fn the_drawing_has_exactly_the_moves_of_the_code() {
        let coded: BTreeSet<_> =
            MOVES.iter().map(|(from, event, to)| (from.to_string(), format!("{event:?}"), to.to_string())).collect();
        assert_eq!(drawn(), coded);
        assert_eq!(coded.len(), MOVES.len(), "no pair is listed twice");
    }

    #[test]
    fn every_pair_of_state_and_event_is_a_move_or_refused_with_its_names() {
        let mut moves = 0;
        for state in AlertState::ALL {
            for event in Event::ALL {
                match next(state, event) {
                    Ok(to) => {
                        moves += 1;
                        assert_ne!(state, AlertState::Resolved, "a resolved alert never reopens");
                        assert!(to >= state, "a life goes one way: {state} {event:?} {to}");
                    }
                    Err(illegal) => {
                        assert_eq!(illegal, Illegal { state, event });
                        assert_eq!(state, AlertState::Resolved);
                        assert!(illegal.to_string().contains("resolved"));
                    }
                }
            }
        }
        assert_eq!(moves, MOVES.len());
    }

    #[test]
    fn words_read_back_as_the_states_they_name() {
        for state in AlertState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("open".parse::<AlertState>().is_err());
    }
}
