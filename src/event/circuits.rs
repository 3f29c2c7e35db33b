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
pub(super) struct Circuits(Mutex<BTreeMap<String, (CircuitState, i64)>>);

impl Circuits {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (CircuitState, i64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self) -> Vec<Circuit> {
        let known = self.lock();
        known
            .iter()
            .map(|(party, (state, since_us))| Circuit { party: party.clone(), state: *state, since_us: *since_us })
            .collect()
    }

    /// Takes what it is now; what it was, where it has turned. A party that is new begins closed.
    fn turned(&self, party: &str, state: CircuitState, now_us: i64) -> Option<CircuitState> {
        let mut known = self.lock();
        let before = known.get(party).map(|(state, _)| *state);
        if before != Some(state) {
            known.insert(party.to_owned(), (state, now_us));
        }
        Some(before.unwrap_or_default()).filter(|before| *before != state)
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
        // A long outage turns open and half-open for ever: whoever wants to follow that asks for it.
        let level = match (turned, state) {
            (None, _) => return,
            (Some(CircuitState::Closed), CircuitState::Open) => log::Level::Warn,
            (_, CircuitState::Closed) => log::Level::Info,
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
        let turns = [Closed, Open, Open, HalfOpen, Open, Closed, Closed].map(|state| circuits.turned("database", state, 1));
        assert_eq!(turns, [None, Some(Closed), None, Some(Open), Some(HalfOpen), Some(Open), None]);
        assert_eq!(circuits.turned("source/a", Open, 2), Some(Closed));
        assert_eq!(circuits.list().iter().map(|one| one.party.as_str()).collect::<Vec<_>>(), ["database", "source/a"]);
        circuits.forget("source/a");
        assert_eq!(circuits.list().len(), 1);
    }
}
