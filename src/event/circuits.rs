//! The circuit breaker of every outside party, as page, metrics and log show it.
//!
//! In: what each breaker is, told whenever it is looked at. Out: one log line a turn, `belayd_circuit_state`, the list. A crash loses
//! nothing: a breaker is closed at the start.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Metrics;
use crate::domain::breaker::CircuitState;

/// The party `database`.
pub const DATABASE: &str = "database";

/// The party of a source that is polled.
pub fn source(name: &str) -> String {
    format!("source/{name}")
}

/// One party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// `database`, `redis`, `kafka`, `source/NAME`, or a sink's name.
    pub party: String,
    /// What it is.
    pub state: CircuitState,
    /// Since when, microseconds since the epoch.
    pub since_us: i64,
}

/// See the module. One in [`Metrics`].
#[derive(Debug, Default)]
pub(super) struct Circuits(Mutex<BTreeMap<String, Known>>);

/// What was told of a party last.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    state: CircuitState,
    since_us: i64,
    /// It has been half-open since it was closed.
    tried: bool,
}

impl Circuits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self) -> Vec<Circuit> {
        let known = self.lock();
        known.iter().map(|(party, known)| Circuit { party: party.clone(), state: known.state, since_us: known.since_us }).collect()
    }

    /// Takes what it is now; what it was, where it has turned, and whether that is the first try since it was closed. A party that is new
    /// begins closed.
    fn turned(&self, party: &str, state: CircuitState, now_us: i64) -> Option<(CircuitState, bool)> {
        let mut all = self.lock();
        let known = all.get(party).copied();
        let before = known.unwrap_or_default();
        let first_try = state == CircuitState::HalfOpen && !before.tried;
        if known.is_none_or(|known| known.state != state) {
            let tried = state != CircuitState::Closed && (before.tried || first_try);
            all.insert(party.to_owned(), Known { state, since_us: now_us, tried });
        }
        (before.state != state).then_some((before.state, first_try))
    }

    pub(super) fn forget(&self, party: &str) {
        self.lock().remove(party);
    }
}

/// What the circuit breaker of a party is. Told as often as one likes: only a turn is written down.
#[derive(Clone, Copy, Debug)]
pub struct CircuitIs<'a> {
    /// As in [`Circuit::party`].
    pub party: &'a str,
    /// What it is.
    pub state: CircuitState,
    /// Why it opened, without secrets; empty where nothing failed.
    pub cause: &'a str,
    /// Now, microseconds since the epoch.
    pub now_us: i64,
}

impl CircuitIs<'_> {
    /// Shows it, and says so where it has turned.
    pub fn emit(self, metrics: &Metrics) {
        let Self { party, state, cause, now_us } = self;
        let turned = metrics.circuits.turned(party, state, now_us);
        metrics.circuit_state.with_label_values(&[party]).set(state.as_metric());
        // A long outage turns open and half-open for ever: after the first time, whoever wants to follow that asks for it.
        let level = match (turned, state) {
            (None, _) => return,
            (Some((CircuitState::Closed, _)), CircuitState::Open) => log::Level::Warn,
            (_, CircuitState::Closed) | (Some((_, true)), CircuitState::HalfOpen) => log::Level::Info,
            _ => log::Level::Debug,
        };
        log::log!(target: "belayd::circuit", level, party = party, circuit = state.as_str(), cause = cause; "circuit breaker turned");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_told_once_and_a_party_begins_closed() {
        let circuits = Circuits::default();
        use CircuitState::{Closed, HalfOpen, Open};
        let turns = [Closed, Open, Open, HalfOpen, Open, HalfOpen, Closed, Closed, Open, HalfOpen]
            .map(|state| circuits.turned("database", state, 1));
        let told = |state, first_try| Some((state, first_try));
        assert_eq!(
            turns,
            [
                None,
                told(Closed, false),
                None,
                told(Open, true),
                told(HalfOpen, false),
                told(Open, false),
                told(HalfOpen, false),
                None,
                told(Closed, false),
                told(Open, true)
            ]
        );
        assert_eq!(circuits.turned("source/a", Open, 2), told(Closed, false));
        assert_eq!(circuits.list().iter().map(|one| one.party.as_str()).collect::<Vec<_>>(), ["database", "source/a"]);
        circuits.forget("source/a");
        assert_eq!(circuits.list().len(), 1);
    }
}
