//! Whether Redis takes readings, as keeper and commit thread together see it.

use std::time::{Duration, Instant};

use super::{RedisObserver, facts::Facts};
use crate::domain::breaker::{Breaker, BreakerSettings, CircuitState};

/// One that fails sooner than this after it came back is left alone for longer each time.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Health {
    settings: BreakerSettings,
    breaker: Breaker,
    came_up: Option<Instant>,
    /// Times in a row that it failed soon after it had come back.
    relapses: u32,
    /// Not tried before.
    not_before: Option<Instant>,
    /// As it was told last; `None` before the first time.
    shown: Option<CircuitState>,
    up: bool,
    told: bool,
    pub(super) down_since: Option<Instant>,
    pub(super) cause: Option<String>,
    pub(super) facts: Option<Facts>,
    /// Rises with each return, so that a failure of an earlier life does not end a later one.
    pub(super) generation: u64,
    /// The last failure was for want of memory.
    pub(super) short_of_memory: bool,
}

impl Health {
    pub(super) fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            breaker: Breaker::new(settings),
            came_up: None,
            relapses: 0,
            not_before: None,
            shown: None,
            up: false,
            told: false,
            down_since: None,
            cause: None,
            facts: None,
            generation: 0,
            short_of_memory: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn circuit(&self) -> CircuitState {
        self.shown.unwrap_or_default()
    }

    /// How long to wait before the ground is tried; `None`: now.
    pub(super) fn wait(&mut self, observer: &dyn RedisObserver, now: Instant) -> Option<Duration> {
        let until = self.breaker.opens_again_at(now).max(self.not_before.filter(|until| *until > now));
        let wait = until.map(|at| at - now);
        self.show(observer, now);
        wait
    }

    pub(super) fn failed(&mut self, observer: &dyn RedisObserver, cause: &str, code: &str) {
        let now = Instant::now();
        self.breaker.failed(now);
        if std::mem::take(&mut self.up) {
            let steady = self.came_up.is_some_and(|since| now - since >= STEADY_AFTER);
            self.relapses = if steady { 0 } else { (self.relapses + 1).min(8) };
            self.not_before = Some(now + (self.settings.open_base * 2_u32.pow(self.relapses)).min(self.settings.open_max));
        }
        self.short_of_memory = code == "OOM";
        if self.down_since.is_none() {
            self.down_since = Some(now);
            observer.went_down(cause);
        }
        self.cause = Some(cause.to_owned());
        self.show(observer, now);
    }

    pub(super) fn succeeded(&mut self, observer: &dyn RedisObserver, facts: Facts) {
        let now = Instant::now();
        self.breaker.succeeded();
        self.generation += 1;
        self.up = true;
        self.came_up = Some(now);
        self.cause = None;
        let away = self.down_since.take().map(|since| since.elapsed());
        if away.is_some() || !self.told {
            self.told = true;
            observer.came_up(away.unwrap_or(Duration::ZERO), &facts);
        }
        self.facts = Some(facts);
        self.show(observer, now);
    }

    fn show(&mut self, observer: &dyn RedisObserver, now: Instant) {
        let state = self.breaker.state(now);
        if self.shown.replace(state) != Some(state) {
            observer.circuit(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::receipt::StreamId;

    struct Deaf;

    impl RedisObserver for Deaf {
        fn alive(&self) {}
        fn went_down(&self, _: &str) {}
        fn came_up(&self, _: Duration, _: &Facts) {}
        fn changed(&self, _: &Facts) {}
        fn circuit(&self, _: CircuitState) {}
        fn full(&self, _: bool) {}
        fn unrelayed_gone(&self, _: bool) {}
        fn lost(&self, _: StreamId, _: Option<u64>) {}
        fn unlisted(&self, _: StreamId, _: &str) {}
        fn inherited(&self, _: StreamId, _: Option<&str>, _: u64) {}
    }

    #[test]
    fn it_is_left_alone_after_as_many_failures_and_for_as_long_as_its_settings_say() {
        let settings = BreakerSettings { failures_max: 3, open_base: Duration::from_secs(7), open_max: Duration::from_secs(9) };
        let mut health = Health::new(settings);
        for _ in 0..2 {
            health.failed(&Deaf, "refused", "io");
            assert_eq!((health.circuit(), health.wait(&Deaf, Instant::now())), (CircuitState::Closed, None));
        }
        health.failed(&Deaf, "refused", "io");
        assert_eq!(health.circuit(), CircuitState::Open);
        assert!(health.wait(&Deaf, Instant::now()).is_some_and(|wait| wait > Duration::from_secs(6) && wait <= settings.open_base));
    }
}
