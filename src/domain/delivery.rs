//! A delivery: one row of an outbox, its states and the legal moves between them.
//!
//! [`MOVES`] is the one place that says which event moves which state where; `store::deliveries` is the one file that carries a
//! move out, and takes its `WHERE state IN (…)` from here. `docs/STATES.md` draws the same table, and a test keeps them equal.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ack::UnknownWord;

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Not due yet.
    Scheduled,
    /// Due; any worker may claim it when its turn in the lane has come.
    Ready,
    /// A worker holds it under a lease; nothing has been sent.
    Claimed,
    /// The sink may have got it.
    Sending,
    /// The sink's receiver confirmed it.
    Sent,
    /// An attempt failed for now; due again later, or when its channel is back. It blocks its lane.
    Retry,
    /// The body went out and no answer came; a person decides.
    Uncertain,
    /// It cannot succeed, or attempts ran out; a person decides.
    Dead,
    /// A person gave it up.
    Discarded,
    /// Called off before it was sent.
    Cancelled,
}

impl DeliveryState {
    /// Every state, in the order of a life.
    pub const ALL: [DeliveryState; 10] = [
        Self::Scheduled,
        Self::Ready,
        Self::Claimed,
        Self::Sending,
        Self::Sent,
        Self::Retry,
        Self::Uncertain,
        Self::Dead,
        Self::Discarded,
        Self::Cancelled,
    ];

    /// States that hold up what comes later in the same lane.
    pub const BLOCKING: [DeliveryState; 4] = [Self::Ready, Self::Claimed, Self::Sending, Self::Retry];

    /// Those of them in which it is not its turn now: somebody has it, or its next attempt is not due.
    pub const TAKEN: [DeliveryState; 3] = [Self::Claimed, Self::Sending, Self::Retry];

    /// States that wait for a person.
    pub const FAILED: [DeliveryState; 2] = [Self::Uncertain, Self::Dead];

    /// The word in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Claimed => "claimed",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Retry => "retry",
            Self::Uncertain => "uncertain",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether no event moves it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Sent | Self::Discarded | Self::Cancelled)
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeliveryState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownWord::new(text, &Self::ALL.map(Self::as_str)))
    }
}

/// What can happen to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its time has come, or the channel that it waited for is back, or is to be tried with it.
    Due,
    /// A worker takes it under a lease.
    Claim,
    /// The worker hands it back, not a byte of it sent: it stops, it restarted, the sink's circuit opened, or what was claimed with it
    /// and comes before it in its lane has to come again.
    GiveBack,
    /// The worker was not heard of for the length of the lease, before it began to send.
    LeaseExpired,
    /// The attempt begins; from here on the outcome may be unknown.
    BeginSend,
    /// The receiver confirmed it.
    SentOk,
    /// The attempt failed, another one may succeed.
    Retry,
    /// The receiver will never take it.
    Reject,
    /// The last allowed attempt failed.
    ExhaustedAttempts,
    /// No answer, or the worker vanished while sending; a person is to decide.
    OutcomeUnknown,
    /// As [`Event::OutcomeUnknown`], where its route prefers a repeat to silence.
    Repeat,
    /// Called off.
    Cancel,
    /// A person has it sent again.
    Redrive,
    /// A person has it sent again, at a time that spreads many of them.
    RedriveLater,
    /// A person knows that it arrived.
    MarkSent,
    /// A person gives it up.
    Discard,
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 16] = [
        Self::Due,
        Self::Claim,
        Self::GiveBack,
        Self::LeaseExpired,
        Self::BeginSend,
        Self::SentOk,
        Self::Retry,
        Self::Reject,
        Self::ExhaustedAttempts,
        Self::OutcomeUnknown,
        Self::Repeat,
        Self::Cancel,
        Self::Redrive,
        Self::RedriveLater,
        Self::MarkSent,
        Self::Discard,
    ];

    /// What it does to a delivery, for people: a delivery is …
    fn done(self) -> &'static str {
        match self {
            Self::Due => "made ready",
            Self::Claim => "claimed",
            Self::GiveBack => "given back",
            Self::LeaseExpired => "taken from its worker",
            Self::BeginSend => "put on its way",
            Self::SentOk => "confirmed",
            Self::Retry => "put off for another attempt",
            Self::Reject => "refused by its receiver",
            Self::ExhaustedAttempts => "out of attempts",
            Self::OutcomeUnknown => "left to a person",
            Self::Repeat => "repeated",
            Self::Cancel => "called off",
            Self::Redrive => "sent again",
            Self::RedriveLater => "sent again later",
            Self::MarkSent => "marked as sent",
            Self::Discard => "given up",
        }
    }

    /// The states that this event moves.
    pub fn sources(self) -> &'static [DeliveryState] {
        self.entry().1
    }

    /// The state that this event leads to, wherever it came from.
    pub fn target(self) -> DeliveryState {
        self.entry().2
    }

    /// [`MOVES`] lists every event in the order of the enum (tested), so the index is always in range.
    fn entry(self) -> &'static (Event, &'static [DeliveryState], DeliveryState) {
        &MOVES[self as usize]
    }
}

/// The life of a delivery: event, the states it moves, the state it leads to. Whatever is not listed is illegal.
pub const MOVES: [(Event, &[DeliveryState], DeliveryState); 16] = {
    use DeliveryState::*;
    [
        (Event::Due, &[Scheduled, Retry], Ready),
        (Event::Claim, &[Ready], Claimed),
        (Event::GiveBack, &[Claimed, Sending], Ready),
        (Event::LeaseExpired, &[Claimed], Ready),
        (Event::BeginSend, &[Claimed], Sending),
        (Event::SentOk, &[Sending], Sent),
        (Event::Retry, &[Sending], DeliveryState::Retry),
        (Event::Reject, &[Sending], Dead),
        (Event::ExhaustedAttempts, &[Sending], Dead),
        (Event::OutcomeUnknown, &[Sending], Uncertain),
        (Event::Repeat, &[Sending], DeliveryState::Retry),
        (Event::Cancel, &[Scheduled, Ready, Retry], Cancelled),
        (Event::Redrive, &[Uncertain, Dead], Ready),
        (Event::RedriveLater, &[Uncertain, Dead], Scheduled),
        (Event::MarkSent, &[Uncertain, Dead], Sent),
        (Event::Discard, &[Retry, Uncertain, Dead], Discarded),
    ]
};

/// A move that the table does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// Where the delivery stands.
    pub state: DeliveryState,
    /// What was asked of it.
    pub event: Event,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a delivery that is {} cannot be {}", self.state, self.event.done())
    }
}

impl std::error::Error for Illegal {}

/// Where `event` leads a delivery that stands in `state`.
pub fn next(state: DeliveryState, event: Event) -> Result<DeliveryState, Illegal> {
    if event.sources().contains(&state) { Ok(event.target()) } else { Err(Illegal { state, event }) }
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
                from.parse::<DeliveryState>().ok()?;
                Some((from.to_owned(), event.to_owned(), to.to_owned()))
            })
            .collect()
    }

    #[test]
    fn the_drawing_has_exactly_the_moves_of_the_code() {
        let mut coded = BTreeSet::new();
        for state in DeliveryState::ALL {
            for event in Event::ALL {
                if let Ok(to) = next(state, event) {
                    coded.insert((state.to_string(), format!("{event:?}"), to.to_string()));
                }
            }
        }
        assert_eq!(drawn(), coded);
        assert_eq!(coded.len(), 25);
    }

    #[test]
    fn every_pair_of_state_and_event_is_either_a_move_or_refused_with_its_names() {
        for state in DeliveryState::ALL {
            for event in Event::ALL {
                match next(state, event) {
                    Ok(to) => {
                        assert_ne!(to, state, "{event:?} must move");
                        assert!(!state.is_final(), "{state} is final");
                    }
                    Err(illegal) => assert_eq!(illegal, Illegal { state, event }),
                }
            }
        }
    }

    #[test]
    fn the_table_lists_every_event_once_in_the_order_of_the_enum() {
        assert_eq!(MOVES.map(|(event, _, _)| event), Event::ALL);
        for event in Event::ALL {
            assert_eq!(event.entry().0, event);
            assert!(!event.sources().is_empty());
        }
    }

    #[test]
    fn every_state_can_be_reached_and_every_unfinished_one_left() {
        for state in DeliveryState::ALL {
            let left = Event::ALL.iter().any(|event| next(state, *event).is_ok());
            assert_eq!(left, !state.is_final(), "{state}");
            let reached = Event::ALL.iter().any(|event| event.target() == state);
            assert!(reached || state == DeliveryState::Scheduled, "{state}");
        }
    }

    #[test]
    fn what_is_taken_blocks_too() {
        let taken: Vec<_> = DeliveryState::BLOCKING.into_iter().filter(|state| *state != DeliveryState::Ready).collect();
        assert_eq!(taken, DeliveryState::TAKEN);
    }

    #[test]
    fn words_read_back_as_the_states_they_name() {
        for state in DeliveryState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("lost".parse::<DeliveryState>().is_err());
    }
}
