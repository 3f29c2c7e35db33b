//! Time as an input: everything that is due, expires or is stamped asks a [`Clock`], so that tests turn it by hand.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Wall-clock time in microseconds since the epoch, UTC. Durations inside one process use `std::time::Instant` instead.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now.
    fn now_us(&self) -> i64;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Starts at `now_us`.
    pub fn at(now_us: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now_us)))
    }

    /// Moves by `us`, which may be negative: a step of the clock.
    pub fn advance_us(&self, us: i64) {
        self.0.fetch_add(us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Hands out arrival times that never repeat within one process, so that two readings without a timestamp never collide.
#[derive(Debug)]
pub struct ArrivalClock {
    clock: SharedClock,
    next_us: AtomicI64,
}

impl ArrivalClock {
    /// Arrival times by `clock`.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, next_us: AtomicI64::new(i64::MIN) }
    }

    /// Reserves `count` consecutive microseconds and returns the first: now, or later where now has been handed out already.
    pub fn reserve_us(&self, count: u32) -> i64 {
        let now_us = self.clock.now_us();
        let mut first = now_us;
        let _ = self.next_us.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |next| {
            first = now_us.max(next);
            Some(first + i64::from(count))
        });
        first
    }

    /// The clock beneath.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrival_times_never_repeat_even_when_the_clock_steps_back() {
        let clock = ManualClock::at(1_000);
        let arrivals = ArrivalClock::new(clock.clone());
        assert_eq!(arrivals.reserve_us(3), 1_000);
        assert_eq!(arrivals.reserve_us(1), 1_003);
        clock.advance_us(-500);
        assert_eq!(arrivals.reserve_us(1), 1_004);
        clock.advance_us(5_000);
        assert_eq!(arrivals.reserve_us(1), 5_500);
    }
}
