//! Whether the database answers, as all lanes together see it: one outage has one beginning, one end and one lane that tries.
//!
//! Closed: every lane works. Open: none does until the pause is over. Half-open: one lane tries; what becomes of it closes the circuit
//! or opens it again for twice as long. A call that does not end ([`super::super::call`]) is told of as an outage as well. What a lane
//! hears of a call that began before the outage ended belongs to that outage, and begins no other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Observer, WriteFailed};
use crate::domain::breaker::{Breaker, BreakerSettings, CircuitState, Turn};

/// The database's state as the drain sees it changed.
#[derive(Clone, Debug, PartialEq)]
pub enum HealthChange {
    /// It failed, first time after it had worked (or at the start).
    Down {
        /// Why.
        cause: WriteFailed,
        /// Readings that wait.
        waiting: u64,
    },
    /// It works; told at the start too.
    Up {
        /// How long it had been away.
        away: Duration,
        /// Readings that wait.
        waiting: u64,
    },
}

/// Whether a lane may call the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    Go,
    /// Ask again after at most this.
    Wait(Duration),
}

/// How long a lane waits while another one tries the ground.
const TRIED_BY_ANOTHER: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(super) struct Circuit(Mutex<State>);

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// The lane that tries while the circuit is half-open.
    trying: Option<usize>,
    down_since: Option<Instant>,
    /// When the last outage ended.
    up_at: Option<Instant>,
    told_up: bool,
    shown: CircuitState,
}

impl Circuit {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self(Mutex::new(State {
            breaker: Breaker::new(settings),
            trying: None,
            down_since: None,
            up_at: None,
            told_up: false,
            shown: CircuitState::Closed,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked before a lane opens the database.
    pub(super) fn permit(&self, observer: &dyn Observer, lane: usize, now: Instant) -> Permit {
        let mut state = self.lock();
        if let Some(until) = state.breaker.opens_again_at(now) {
            return Permit::Wait(until - now);
        }
        if state.breaker.state(now) == CircuitState::HalfOpen {
            if state.trying.is_some_and(|trying| trying != lane) {
                return Permit::Wait(TRIED_BY_ANOTHER);
            }
            state.trying = Some(lane);
            state.show(observer, now, "");
        }
        Permit::Go
    }

    /// A call of `lane` failed that had begun at `began`.
    pub(super) fn failed(&self, observer: &dyn Observer, lane: usize, began: Instant, cause: WriteFailed, waiting: u64) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.trying == Some(lane) {
            state.trying = None;
        }
        if state.is_of_the_past(began) {
            return;
        }
        state.breaker.failed(now);
        state.show(observer, now, &cause.message);
        state.went_down(observer, now, cause, waiting);
    }

    /// A call that began at `since` does not end.
    pub(super) fn silent(&self, observer: &dyn Observer, since: Instant, cause: WriteFailed, waiting: u64) {
        let mut state = self.lock();
        if !state.is_of_the_past(since) {
            // It has not failed yet: nothing passes all the same.
            state.tell(observer, CircuitState::Open, &cause.message);
            state.went_down(observer, since, cause, waiting);
        }
    }

    /// The lane had nothing to try the database with: the next one may.
    pub(super) fn nothing_tried(&self, lane: usize) {
        let mut state = self.lock();
        if state.trying == Some(lane) {
            state.trying = None;
        }
    }

    /// The database has taken something, or has nothing to take and answers.
    pub(super) fn succeeded(&self, observer: &dyn Observer, lane: usize, waiting: impl FnOnce() -> u64) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.trying == Some(lane) {
            state.trying = None;
        }
        let turn = state.breaker.succeeded();
        if turn != Turn::Closed && state.told_up && state.down_since.is_none() {
            return;
        }
        state.show(observer, now, "");
        let away = state.down_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if !std::mem::replace(&mut state.told_up, true) || !away.is_zero() {
            state.up_at = Some(now);
            observer.health(&HealthChange::Up { away, waiting: waiting() });
        }
    }
}

impl State {
    /// Whether a call that began then says nothing of the time since the last outage. The next try of its lane does.
    fn is_of_the_past(&self, began: Instant) -> bool {
        self.down_since.is_none() && self.up_at.is_some_and(|up_at| began < up_at)
    }

    fn went_down(&mut self, observer: &dyn Observer, since: Instant, cause: WriteFailed, waiting: u64) {
        if self.down_since.is_none() {
            self.down_since = Some(since);
            observer.health(&HealthChange::Down { cause, waiting });
        }
    }

    fn show(&mut self, observer: &dyn Observer, now: Instant, cause: &str) {
        self.tell(observer, self.breaker.state(now), cause);
    }

    fn tell(&mut self, observer: &dyn Observer, state: CircuitState, cause: &str) {
        if state != self.shown {
            self.shown = state;
            observer.circuit(state, cause);
        }
    }
}
