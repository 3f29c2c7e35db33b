//! The circuit breaker of one outside party: after failures in a row it is left alone for a while, then one attempt tries the ground.
//!
//! Closed: all pass. Open: none pass until the wait is over. Half-open: one passes; its end closes the circuit or opens it again for
//! twice as long. Times are monotonic and come from the caller.

use std::time::{Duration, Instant};

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// First wait while it is open; it doubles with each failed try.
    pub open_base: Duration,
    /// Longest wait while it is open.
    pub open_max: Duration,
}

impl BreakerSettings {
    /// For a receiver of messages: one failure may be one message's fault.
    pub const SINK: Self = Self { failures_max: 5, open_base: Duration::from_secs(1), open_max: Duration::from_secs(30) };
    /// For Kafka: what failed is tried again at once, and its return should be seen soon, because what waits piles up.
    pub const RELAY: Self = Self { failures_max: 2, open_base: Duration::from_millis(250), open_max: Duration::from_secs(2) };
    /// For a source that is polled: a pause that stays short, because what it shows meanwhile is missed.
    pub const SOURCE: Self = Self { failures_max: 5, open_base: Duration::from_secs(1), open_max: Duration::from_secs(5) };
    /// For the database: every failure that gets here is an outage, and its return should be seen within a second, because what waits
    /// is bounded.
    pub const STORE: Self = Self { failures_max: 1, open_base: Duration::from_millis(50), open_max: Duration::from_secs(1) };
}

/// What the page and the metrics show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CircuitState {
    /// All pass.
    #[default]
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

    /// The number in `belayd_circuit_state`.
    pub fn as_metric(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// What an end of an attempt did to the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    None,
    /// It opened.
    Opened,
    /// It closed.
    Closed,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    failures: u32,
    /// While set, the circuit is not closed.
    until: Option<Instant>,
    wait: Duration,
}

impl Breaker {
    /// A closed circuit.
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, failures: 0, until: None, wait: Duration::ZERO }
    }

    /// Takes other settings; the circuit stays as it is.
    pub fn set(&mut self, settings: BreakerSettings) {
        self.settings = settings;
    }

    /// What it is now.
    pub fn state(&self, now: Instant) -> CircuitState {
        match self.until {
            None => CircuitState::Closed,
            Some(until) if until > now => CircuitState::Open,
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// How many of `free` attempts may begin while `in_flight` are on their way.
    pub fn allowed(&self, now: Instant, free: usize, in_flight: usize) -> usize {
        match self.state(now) {
            CircuitState::Closed => free,
            CircuitState::Open => 0,
            CircuitState::HalfOpen => usize::from(in_flight == 0).min(free),
        }
    }

    /// When an open circuit becomes half-open.
    pub fn opens_again_at(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// An attempt succeeded.
    pub fn succeeded(&mut self) -> Turn {
        let was_open = self.until.is_some();
        *self = Self::new(self.settings);
        if was_open { Turn::Closed } else { Turn::None }
    }

    /// An attempt failed.
    pub fn failed(&mut self, now: Instant) -> Turn {
        self.failures = self.failures.saturating_add(1);
        match self.until {
            // Attempts that were on their way when it opened say nothing new.
            Some(until) if until > now => Turn::None,
            Some(_) => {
                self.wait = (self.wait * 2).min(self.settings.open_max);
                self.until = Some(now + self.wait);
                Turn::None
            }
            None if self.failures >= self.settings.failures_max => {
                self.wait = self.settings.open_base;
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

    const SINK: BreakerSettings = BreakerSettings::SINK;

    #[test]
    fn it_opens_after_failures_in_a_row_tries_one_and_closes_again() {
        let (mut breaker, start) = (Breaker::new(SINK), Instant::now());
        for _ in 1..SINK.failures_max {
            assert_eq!(breaker.failed(start), Turn::None);
        }
        assert_eq!((breaker.allowed(start, 4, 2), breaker.succeeded()), (4, Turn::None));
        for _ in 1..SINK.failures_max {
            breaker.failed(start);
        }
        assert_eq!(breaker.failed(start), Turn::Opened);
        assert_eq!((breaker.state(start), breaker.allowed(start, 4, 0)), (CircuitState::Open, 0));
        assert_eq!(breaker.failed(start), Turn::None, "a straggler");
        let later = breaker.opens_again_at(start).expect("open");
        assert_eq!(later, start + SINK.open_base);
        assert_eq!(
            (breaker.state(later), breaker.allowed(later, 4, 0), breaker.allowed(later, 4, 1)),
            (CircuitState::HalfOpen, 1, 0)
        );
        assert_eq!(breaker.failed(later), Turn::None, "opened before");
        assert_eq!(breaker.opens_again_at(later), Some(later + SINK.open_base * 2));
        assert_eq!(breaker.succeeded(), Turn::Closed);
        assert_eq!(breaker.state(later), CircuitState::Closed);
    }

    #[test]
    fn its_wait_is_bounded() {
        let (mut breaker, mut now) = (Breaker::new(SINK), Instant::now());
        for _ in 0..100 {
            breaker.failed(now);
            now = breaker.opens_again_at(now).unwrap_or(now);
        }
        breaker.failed(now);
        assert_eq!(breaker.opens_again_at(now), Some(now + SINK.open_max));
    }
}
