//! An issue: something that people work on, opened by an alert or by a person, its states and the legal moves between them.
//!
//! [`MOVES`] is the one place that says which event moves which state where; `store::issues` carries a move out. `docs/STATES.md`
//! draws the same table, and a test keeps them equal.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ack::UnknownWord;

/// Where an issue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IssueState {
    /// Nobody works on it yet.
    Open,
    /// Somebody works on it.
    InProgress,
    /// It is mended; it may come back.
    Resolved,
    /// It is done with; whoever meets it again opens another.
    Closed,
}

impl IssueState {
    /// Every state, in the order of a life.
    pub const ALL: [IssueState; 4] = [Self::Open, Self::InProgress, Self::Resolved, Self::Closed];

    /// States in which an alert of the same condition adds to the issue instead of opening another.
    pub const WORKED_ON: [IssueState; 2] = [Self::Open, Self::InProgress];

    /// The word in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::InProgress => "IN_PROGRESS",
            Self::Resolved => "RESOLVED",
            Self::Closed => "CLOSED",
        }
    }
}

impl fmt::Display for IssueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IssueState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

/// What people do to an issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IssueEvent {
    /// Somebody takes it up.
    Start,
    /// It is mended.
    Resolve,
    /// It is done with.
    Close,
    /// It was not mended after all.
    Reopen,
}

impl IssueEvent {
    /// Every event.
    pub const ALL: [IssueEvent; 4] = [Self::Start, Self::Resolve, Self::Close, Self::Reopen];

    /// The word in paths, SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resolve => "resolve",
            Self::Close => "close",
            Self::Reopen => "reopen",
        }
    }

    /// What it does to an issue, for people: an issue is …
    fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Resolve => "resolved",
            Self::Close => "closed",
            Self::Reopen => "reopened",
        }
    }
}

impl FromStr for IssueEvent {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|event| event.as_str() == text)
            .ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

/// The life of an issue: event, the states it moves, the state it leads to. Whatever is not listed is illegal.
pub const MOVES: [(IssueEvent, &[IssueState], IssueState); 4] = {
    use IssueState::*;
    [
        (IssueEvent::Start, &[Open], InProgress),
        (IssueEvent::Resolve, &[Open, InProgress], Resolved),
        (IssueEvent::Close, &[Open, InProgress, Resolved], Closed),
        (IssueEvent::Reopen, &[InProgress, Resolved, Closed], Open),
    ]
};

/// A move that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// Where the issue stands.
    pub state: IssueState,
    /// What was asked of it.
    pub event: IssueEvent,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an issue that is {} cannot be {}", self.state, self.event.done())
    }
}

impl std::error::Error for Illegal {}

/// Where `event` leads an issue that stands in `state`.
///
/// # Errors
/// [`Illegal`], where the table has no such move.
pub fn next(state: IssueState, event: IssueEvent) -> Result<IssueState, Illegal> {
    MOVES
        .iter()
        .find(|(moving, from, _)| *moving == event && from.contains(&state))
        .map(|(_, _, to)| *to)
        .ok_or(Illegal { state, event })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_drawing_has_exactly_the_moves_of_the_code() {
        let drawn: BTreeSet<(String, String, String)> = include_str!("../../docs/STATES.md")
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
                let &[from, event, to, ..] = cells.as_slice() else { return None };
                from.parse::<IssueState>().ok()?;
                Some((from.to_owned(), event.to_owned(), to.to_owned()))
            })
            .collect();
        let mut coded = BTreeSet::new();
        for state in IssueState::ALL {
            for event in IssueEvent::ALL {
                match next(state, event) {
                    Ok(to) => {
                        assert_ne!(to, state, "{event:?} must move");
                        coded.insert((state.to_string(), format!("{event:?}"), to.to_string()));
                    }
                    Err(illegal) => assert_eq!(illegal, Illegal { state, event }),
                }
            }
        }
        assert_eq!(drawn, coded);
        assert_eq!(coded.len(), 9);
    }

    #[test]
    fn every_event_stands_once_in_the_table_and_every_state_can_be_left_and_reached() {
        assert_eq!(MOVES.map(|(event, _, _)| event), IssueEvent::ALL);
        for state in IssueState::ALL {
            assert!(IssueEvent::ALL.iter().any(|event| next(state, *event).is_ok()), "{state} can be left");
            assert!(MOVES.iter().any(|(_, _, to)| *to == state), "{state} can be reached");
        }
    }

    #[test]
    fn words_read_back_as_what_they_name() {
        for state in IssueState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).expect("a word"), state.as_str());
        }
        for event in IssueEvent::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
        }
        assert!("open".parse::<IssueState>().is_err());
        assert!("Close".parse::<IssueEvent>().is_err());
    }
}
