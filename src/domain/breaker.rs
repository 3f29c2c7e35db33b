//! The circuit breaker of one outside party: after failures in a row it is left alone for a while, then one attempt tries the ground.
//!
//! Closed: all pass. Open: none pass until the wait is over. Half-open: one passes; its end closes the circuit or opens it again for
//! twice as long, or for the first wait again where the caller knows that trying soon does no harm. Times are monotonic and come from the
//! caller.

use std::time::{Duration, Instant};

/// Longest time for which a party that asks for it is left alone without a try.
const ASKED_MAX: Duration = Duration::from_secs(900);

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
    /// For a Redis that readings go to: every failure that gets here is an outage. Its return should be seen soon, and each try makes new
    /// streams, so not too often.
    pub const REDIS: Self = Self { failures_max: 1, open_base: Duration::from_millis(200), open_max: Duration::from_secs(5) };
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

    /// Nothing is known of it and there is reason to doubt: one attempt passes, and its end tells. A circuit that is not closed stays as
    /// it is.
    pub fn doubt(&mut self, now: Instant) {
        self.until.get_or_insert(now);
    }

    /// An attempt failed.
    pub fn failed(&mut self, now: Instant) -> Turn {
        self.failed_and_asks(now, Duration::ZERO)
    }

    /// An attempt failed, and the party asks to be left alone for `least`.
    pub fn failed_and_asks(&mut self, now: Instant, least: Duration) -> Turn {
        let doubled = (self.wait * 2).min(self.settings.open_max).max(self.settings.open_base);
        self.wait_on(now, doubled.max(least.min(ASKED_MAX)))
    }

    /// An attempt failed and nothing was taken, so that another may follow soon: the wait does not grow. `chance`, from 0 to 1, makes up
    /// half of it, so that many who wait do not come together.
    pub fn failed_for_now(&mut self, now: Instant, chance: f64) -> Turn {
        let half = self.settings.open_base / 2;
        self.wait_on(now, half + half.mul_f64(chance.clamp(0.0, 1.0)))
    }

    fn wait_on(&mut self, now: Instant, wait: Duration) -> Turn {
        self.failures = self.failures.saturating_add(1);
        // Doubted, it has not been said to be open yet.
        let is_news = self.wait.is_zero();
        match self.until {
            // Attempts that were on their way when it opened say nothing new.
            Some(until) if until > now => return Turn::None,
            None if self.failures < self.settings.failures_max => return Turn::None,
            _ => {}
        }
        self.wait = wait;
        self.until = Some(now + wait);
        if is_news { Turn::Opened } else { Turn::None }
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
        assert_eq!(breaker.failed_and_asks(now, Duration::from_secs(60)), Turn::None, "a straggler");
        now = breaker.opens_again_at(now).unwrap_or(now);
        breaker.failed_and_asks(now, Duration::from_secs(60));
        assert_eq!(breaker.opens_again_at(now), Some(now + Duration::from_secs(60)));
        now = breaker.opens_again_at(now).unwrap_or(now);
        breaker.failed_and_asks(now, Duration::from_secs(86_400));
        assert_eq!(breaker.opens_again_at(now), Some(now + ASKED_MAX));
    }

    #[test]
    fn it_is_tried_soon_again_where_nothing_was_taken() {
        let (mut breaker, mut now) = (Breaker::new(SINK), Instant::now());
        for _ in 1..SINK.failures_max {
            assert_eq!(breaker.failed_for_now(now, 1.0), Turn::None);
        }
        assert_eq!(breaker.failed_for_now(now, 1.0), Turn::Opened);
        for chance in [0.0, 0.5, 1.0, 7.0] {
            let later = breaker.opens_again_at(now).expect("open");
            assert!(later - now >= SINK.open_base / 2 && later - now <= SINK.open_base, "{:?}", later - now);
            now = later;
            assert_eq!(breaker.failed_for_now(now, chance), Turn::None);
        }
    }

    #[test]
    fn a_doubted_circuit_lets_one_pass_and_its_end_tells() {
        let now = Instant::now();
        for well in [true, false] {
            let mut breaker = Breaker::new(SINK);
            breaker.doubt(now);
            assert_eq!(
                (breaker.state(now), breaker.allowed(now, 9, 0), breaker.allowed(now, 9, 1)),
                (CircuitState::HalfOpen, 1, 0)
            );
            let turn = if well { breaker.succeeded() } else { breaker.failed_for_now(now, 1.0) };
            assert_eq!(turn, if well { Turn::Closed } else { Turn::Opened });
            let before = breaker.opens_again_at(now);
            breaker.doubt(now);
            assert_eq!(breaker.opens_again_at(now), before, "what is open stays so");
        }
    }
}
