//! When to restart: the wait before a restart and the limit of restarts. Pure; time comes in as a duration since any fixed origin.

use std::{collections::VecDeque, time::Duration};

use rand::RngExt;

use crate::config::SupervisionConfig;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Restart after this wait.
    Restart(Duration),
    /// Give up: this many failures, the last included, lie within the window.
    Escalate(usize),
}

/// The restart policy of one actor: `backoff_base`, doubling to `backoff_max`, each shortened at random by 10 to 50 %; back to the
/// base after a life of `healthy_after`, and in proportion after a shorter one (half of it forgives half of the doublings, so that a
/// rare failure is not taken for a loop); more than `max_restarts` failures within `within` escalate.
#[derive(Clone, Debug)]
pub struct RestartPolicy {
    settings: SupervisionConfig,
    step: u32,
    began: Duration,
    failures: VecDeque<Duration>,
}

impl RestartPolicy {
    /// The policy of an actor that starts at `now`.
    pub fn new(settings: SupervisionConfig, now: Duration) -> Self {
        Self { settings, step: 0, began: now, failures: VecDeque::new() }
    }

    /// A life has begun at `now`: from here health is counted.
    pub fn life_began(&mut self, now: Duration) {
        self.began = now;
    }

    /// The actor failed at `now`.
    pub fn failed(&mut self, now: Duration) -> Decision {
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| now.saturating_sub(*at) > self.settings.within) {
            self.failures.pop_front();
        }
        if self.failures.len() > self.settings.max_restarts as usize {
            return Decision::Escalate(self.failures.len());
        }
        Decision::Restart(self.wait(now))
    }

    /// The window of the limit.
    pub fn within(&self) -> Duration {
        self.settings.within
    }

    /// Shortened, never lengthened: so the first restart stays within `backoff_base` although timers round up to a millisecond.
    fn wait(&mut self, now: Duration) -> Duration {
        let lived = now.saturating_sub(self.began).as_secs_f64() / self.settings.healthy_after.as_secs_f64().max(f64::EPSILON);
        // Rounded up: a life of no length forgives nothing.
        self.step = (f64::from(self.step) * (1.0 - lived).max(0.0)).ceil() as u32;
        let nominal = self.settings.backoff_base.saturating_mul(1_u32.checked_shl(self.step).unwrap_or(u32::MAX));
        let nominal = nominal.min(self.settings.backoff_max);
        self.step = (self.step + 1).min(31);
        nominal.mul_f64(rand::rng().random_range(0.5..0.9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn policy(max_restarts: u32) -> RestartPolicy {
        let settings = SupervisionConfig {
            max_restarts,
            within: MS(30_000),
            backoff_base: MS(8),
            backoff_max: MS(100),
            healthy_after: MS(10_000),
            hang_after: MS(10_000),
        };
        RestartPolicy::new(settings, Duration::ZERO)
    }

    /// Fails at `now` and asserts that the wait lies between 50 and 90 % of `nominal_ms`.
    fn assert_wait(policy: &mut RestartPolicy, now: Duration, nominal_ms: u64) {
        let Decision::Restart(wait) = policy.failed(now) else { panic!("a restart") };
        let nominal = MS(nominal_ms);
        assert!(wait >= nominal.mul_f64(0.49) && wait <= nominal.mul_f64(0.91), "{wait:?} for a nominal {nominal:?}");
        policy.life_began(now + wait);
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound() {
        let mut policy = policy(100);
        for (index, nominal_ms) in [8, 16, 32, 64, 100, 100].into_iter().enumerate() {
            assert_wait(&mut policy, MS(index as u64 * 100), nominal_ms);
        }
    }

    #[test]
    fn the_wait_is_the_first_again_after_health() {
        let mut policy = policy(100);
        for nominal_ms in [8, 16, 32] {
            assert_wait(&mut policy, MS(0), nominal_ms);
        }
        assert_wait(&mut policy, MS(11_000), 8);
        assert_wait(&mut policy, MS(11_000), 16);
    }

    #[test]
    fn a_failure_every_six_seconds_never_waits_long() {
        let mut policy = policy(100);
        assert_wait(&mut policy, MS(0), 8);
        for turn in 1..20 {
            assert_wait(&mut policy, MS(turn * 6_000), 16);
        }
    }

    #[test]
    fn one_failure_more_than_the_window_allows_escalates() {
        let mut strict = policy(3);
        for at in [0, 100, 200] {
            assert!(matches!(strict.failed(MS(at)), Decision::Restart(_)));
        }
        assert_eq!(strict.failed(MS(300)), Decision::Escalate(4));
        // Spread over more than the window, any number is survived.
        let mut patient = policy(3);
        for turn in 0..50 {
            assert!(matches!(patient.failed(MS(turn * 10_001)), Decision::Restart(_)), "{turn}");
        }
    }

    #[test]
    fn an_extreme_configuration_does_not_overflow() {
        let mut policy = policy(u32::MAX);
        policy.settings.backoff_max = Duration::MAX / 4;
        policy.settings.healthy_after = Duration::ZERO;
        for _ in 0..100 {
            policy.failed(Duration::ZERO);
        }
    }
}
