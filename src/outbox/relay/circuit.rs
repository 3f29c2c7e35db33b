//! The circuit breaker around Kafka, shared by all streams, and the faults that wait for a person.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::breaker::{Breaker, BreakerSettings, CircuitState, Turn};

/// From one try to the next while a person has to change something.
const FATAL_PAUSE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Circuit(Mutex<State>);

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// A try is under way while the circuit is not closed.
    trying: bool,
    fatal_until: Option<Instant>,
    told: bool,
    /// Nothing has come of it in this run: an earlier one may have left its alert open.
    fresh: bool,
}

/// What an end of a try means for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    None,
    /// It has failed for good reasons to tell.
    Down,
    /// It works again.
    Up,
}

impl Circuit {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        let breaker = Breaker::new(settings);
        Self(Mutex::new(State { breaker, trying: false, fatal_until: None, told: false, fresh: true }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is now.
    pub(super) fn state(&self) -> CircuitState {
        let (state, now) = (self.lock(), Instant::now());
        match state.fatal_until {
            Some(until) if until > now => CircuitState::Open,
            Some(_) => CircuitState::HalfOpen,
            None => state.breaker.state(now),
        }
    }

    /// Whether a link may be opened now, and otherwise how long to wait. Whoever may must tell its end.
    pub(super) fn permit(&self) -> Result<(), Duration> {
        let (mut state, now) = (self.lock(), Instant::now());
        if let Some(until) = state.fatal_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        let closed = state.fatal_until.is_none() && state.breaker.state(now) == CircuitState::Closed;
        if closed {
            return Ok(());
        }
        if let Some(until) = state.breaker.opens_again_at(now) {
            return Err(until - now);
        }
        if state.trying {
            return Err(Duration::from_millis(50));
        }
        state.trying = true;
        Ok(())
    }

    /// A link works.
    pub(super) fn succeeded(&self) -> News {
        let mut state = self.lock();
        state.trying = false;
        state.fatal_until = None;
        state.breaker.succeeded();
        let fresh = std::mem::take(&mut state.fresh);
        if std::mem::take(&mut state.told) || fresh { News::Up } else { News::None }
    }

    /// A link failed; `fatal` where only a person can change that.
    pub(super) fn failed(&self, fatal: bool) -> News {
        let (mut state, now) = (self.lock(), Instant::now());
        state.trying = false;
        let turn = state.breaker.failed(now);
        if fatal {
            state.fatal_until = Some(now + FATAL_PAUSE);
        }
        if (fatal || turn == Turn::Opened) && !state.told {
            state.told = true;
            return News::Down;
        }
        News::None
    }

    /// A try ended without a word about Kafka.
    pub(super) fn nothing_tried(&self) {
        self.lock().trying = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let circuit = Circuit::new(BreakerSettings::RELAY);
        assert_eq!(circuit.permit(), Ok(()));
        assert_eq!(circuit.failed(false), News::None);
        assert_eq!(circuit.failed(false), News::Down);
        assert_eq!(circuit.state(), CircuitState::Open);
        assert!(circuit.permit().is_err());
        assert_eq!(circuit.failed(false), News::None);
        assert_eq!(circuit.succeeded(), News::Up);
        assert_eq!((circuit.state(), circuit.succeeded()), (CircuitState::Closed, News::None));
    }

    #[test]
    fn its_settings_are_those_that_it_is_given() {
        let settings = BreakerSettings { failures_max: 3, open_base: Duration::from_secs(7), open_max: Duration::from_secs(9) };
        let circuit = Circuit::new(settings);
        assert_eq!((circuit.failed(false), circuit.failed(false), circuit.permit()), (News::None, News::None, Ok(())));
        assert_eq!(circuit.failed(false), News::Down);
        assert!(circuit.permit().is_err_and(|wait| wait > Duration::from_secs(6) && wait <= Duration::from_secs(7)));
    }

    #[test]
    fn the_first_success_of_a_run_is_told_because_an_earlier_run_may_have_left_the_alert_open() {
        let circuit = Circuit::new(BreakerSettings::RELAY);
        assert_eq!((circuit.succeeded(), circuit.succeeded()), (News::Up, News::None));
    }

    #[test]
    fn what_a_person_must_change_is_told_at_once_and_tried_seldom() {
        let circuit = Circuit::new(BreakerSettings::RELAY);
        assert_eq!(circuit.failed(true), News::Down);
        assert!(circuit.permit().is_err_and(|wait| wait > Duration::from_secs(20)));
        assert_eq!(circuit.state(), CircuitState::Open);
    }

    #[test]
    fn half_open_lets_one_pass() {
        let circuit = Circuit::new(BreakerSettings::RELAY);
        circuit.failed(false);
        circuit.failed(false);
        std::thread::sleep(BreakerSettings::RELAY.open_base + Duration::from_millis(20));
        assert_eq!(circuit.state(), CircuitState::HalfOpen);
        assert_eq!(circuit.permit(), Ok(()));
        assert!(circuit.permit().is_err(), "the second waits for the first");
        circuit.nothing_tried();
        assert_eq!(circuit.permit(), Ok(()));
    }
}
