//! The circuit breaker of one sink: after failures in a row nothing is sent for a while, then one attempt tries the ground.
//!
//! Closed: all pass. Open: none pass until the wait is over. Half-open: one passes; its end closes the circuit or opens it again for
//! twice as long. Times are monotonic and come from the caller.

use std::time::{Duration, Instant};

/// Failures in a row that open the circuit.
const FAILURES_MAX: u32 = 5;
/// First wait of an open circuit.
const OPEN_BASE: Duration = Duration::from_secs(1);
/// Longest wait of an open circuit.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// What the page and the metrics show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// All pass.
    Closed,
    /// One passes.
    HalfOpen,
    /// None pass.
    Open,
}

impl CircuitState {
    /// The word on the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// What an end of an attempt did to the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    None,
    Opened,
    Closed,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// While set, the circuit is not closed.
    until: Option<Instant>,
    wait: Duration,
}

impl Breaker {
    pub(super) fn state(&self, now: Instant) -> CircuitState {
        match self.until {
            None => CircuitState::Closed,
            Some(until) if until > now => CircuitState::Open,
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// How many of `free` attempts may begin while `in_flight` are on their way.
    pub(super) fn allowed(&self, now: Instant, free: usize, in_flight: usize) -> usize {
        match self.state(now) {
            CircuitState::Closed => free,
            CircuitState::Open => 0,
            CircuitState::HalfOpen => usize::from(in_flight == 0).min(free),
        }
    }

    /// When an open circuit becomes half-open.
    pub(super) fn opens_again_at(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    pub(super) fn succeeded(&mut self) -> Turn {
        let was_open = self.until.is_some();
        *self = Self::default();
        if was_open { Turn::Closed } else { Turn::None }
    }

    pub(super) fn failed(&mut self, now: Instant) -> Turn {
        self.failures = self.failures.saturating_add(1);
        match self.until {
            // Attempts that were on their way when it opened say nothing new.
            Some(until) if until > now => Turn::None,
            Some(_) => {
                self.wait = (self.wait * 2).min(OPEN_MAX);
                self.until = Some(now + self.wait);
                Turn::None
            }
            None if self.failures >= FAILURES_MAX => {
                self.wait = OPEN_BASE;
                self.until = Some(now + self.wait);
                Turn::Opened
            }
            None => Turn::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_tries_one_and_closes_again() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(start), Turn::None);
        }
        assert_eq!((breaker.allowed(start, 4, 2), breaker.succeeded()), (4, Turn::None));
        for _ in 1..FAILURES_MAX {
            breaker.failed(start);
        }
        assert_eq!(breaker.failed(start), Turn::Opened);
        assert_eq!((breaker.state(start), breaker.allowed(start, 4, 0)), (CircuitState::Open, 0));
        assert_eq!(breaker.failed(start), Turn::None, "a straggler");
        let later = breaker.opens_again_at(start).expect("open");
        assert_eq!(later, start + OPEN_BASE);
        assert_eq!(
            (breaker.state(later), breaker.allowed(later, 4, 0), breaker.allowed(later, 4, 1)),
            (CircuitState::HalfOpen, 1, 0)
        );
        assert_eq!(breaker.failed(later), Turn::None, "opened before");
        assert_eq!(breaker.opens_again_at(later), Some(later + OPEN_BASE * 2));
        assert_eq!(breaker.succeeded(), Turn::Closed);
        assert_eq!(breaker.state(later), CircuitState::Closed);
    }

    #[test]
    fn its_wait_is_bounded() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.failed(now);
            now = breaker.opens_again_at(now).unwrap_or(now);
        }
        breaker.failed(now);
        assert_eq!(breaker.opens_again_at(now), Some(now + OPEN_MAX));
    }
}
