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
/// base after `healthy_after` without a failure; more than `max_restarts` failures within `within` escalate.
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
        if now.saturating_sub(self.began) >= self.settings.healthy_after {
            self.step = 0;
        }
        let nominal = self.settings.backoff_base.saturating_mul(1_u32.checked_shl(self.step).unwrap_or(u32::MAX));
        let nominal = nominal.min(self.settings.backoff_max);
        self.step = (self.step + 1).min(31);
        nominal.mul_f64(rand::rng().random_range(0.5..0.9))
    }
}
