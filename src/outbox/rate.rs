//! At most so many sends a minute.
//!
//! In: how many are wanted, at a monotonic time. Out: how many may go, and when the next may. Nothing is kept over a restart: a process
//! that has just started may send a minute's worth that the one before it has sent already.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// A bucket of sends: some of a minute's at once, the others evenly, and never more than the limit in any 60 seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    per_minute: u32,
    /// How many may go at once after a pause.
    burst: u32,
    /// From one send to the next when there is no pause.
    step: Duration,
    /// When the bucket was or will be full.
    full_at: Option<Instant>,
}

impl Rate {
    /// A full bucket.
    pub(super) fn new(per_minute: u32) -> Self {
        let per_minute = per_minute.max(1);
        let burst = (per_minute / 10).max(1);
        // In any minute: the burst, and one for each step within it.
        Self { per_minute, burst, step: step(per_minute - burst + 1), full_at: None }
    }

    /// The limit that it was made for.
    pub(super) fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// How many may go at `now`.
    pub(super) fn available(&self, now: Instant) -> usize {
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let taken = missing.as_nanos().div_ceil(self.step.as_nanos().max(1));
        (u128::from(self.burst).saturating_sub(taken)) as usize
    }

    /// Takes `count`, which are available.
    pub(super) fn take(&mut self, now: Instant, count: usize) {
        let from = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(from + self.step * u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Gives back what was taken and not used.
    pub(super) fn put_back(&mut self, count: usize) {
        if let Some(at) = self.full_at {
            self.full_at = at.checked_sub(self.step * u32::try_from(count).unwrap_or(u32::MAX));
        }
    }

    /// How long until one may go.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let missing = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        missing.saturating_sub(self.step * (self.burst - 1))
    }
}

/// So many steps fill a minute, and not a nanosecond less.
fn step(steps: u32) -> Duration {
    Duration::from_nanos((MINUTE.as_nanos() as u64).div_ceil(u64::from(steps)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends whenever it may, for `length`, and returns when.
    fn sends(rate: &mut Rate, start: Instant, length: Duration) -> Vec<Duration> {
        let (mut now, mut sent) = (start, Vec::new());
        while now < start + length {
            let count = rate.available(now);
            rate.take(now, count);
            sent.extend(std::iter::repeat_n(now - start, count));
            let wait = rate.wait(now);
            assert!(wait > Duration::ZERO, "everything was taken");
            now += wait;
        }
        sent
    }

    #[test]
    fn no_minute_sees_more_than_the_limit_and_a_steady_sender_gets_nearly_all_of_it() {
        for limit in [1, 2, 7, 60, 1_000] {
            let sent = sends(&mut Rate::new(limit), Instant::now(), Duration::from_secs(600));
            for (at, first) in sent.iter().enumerate() {
                let within = sent[at..].iter().take_while(|time| **time < *first + MINUTE).count();
                assert!(within <= limit as usize, "{within} within a minute of {first:?}, {limit} allowed");
            }
            assert!(sent.len() as u32 >= limit * 9, "{} in ten minutes, {limit} a minute allowed", sent.len());
        }
    }

    #[test]
    fn what_was_not_used_can_go_again() {
        let (mut rate, now) = (Rate::new(60), Instant::now());
        assert_eq!((rate.available(now), rate.wait(now)), (6, Duration::ZERO));
        rate.take(now, 6);
        assert_eq!(rate.available(now), 0);
        rate.put_back(4);
        assert_eq!((rate.available(now), rate.wait(now)), (4, Duration::ZERO));
    }
}
