//! The dead-man's switch: a ping to an outside address as long as every actor and loop makes progress. A service there tells people when it
//! stays away: the one alert that needs no belayd.
//!
//! In: the configuration in force, the signs of life of actors and loops. Out: a GET through the guarded client, the condition
//! `deadman-failed`. A crash is what it is for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use crate::{
    clock::SharedClock,
    config::{Config, DeadmanConfig},
    domain::alert::{Level, Transition},
    event::{Metrics, alerts::DeadmanPinged},
    ingest::http_client::{ClientPolicy, GuardedClient},
    supervise::{ActorRegistry, ActorState},
};

/// The condition that pings do not arrive; its subject is the ping.
pub(super) const DEADMAN_FAILED: &str = "deadman-failed";
/// Failures in a row before it is told: one may be the network's mood.
const FAILURES_TOLD: u32 = 2;
/// Of the answer nothing is used.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Longest sleep at once, so that a reload is seen soon.
const SLICE: Duration = Duration::from_secs(1);

/// What the task works with.
pub(super) struct Parts {
    pub(super) config: Arc<ArcSwap<Config>>,
    pub(super) registry: Arc<ActorRegistry>,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) raise: Box<dyn Fn(Vec<Transition>) + Send + Sync>,
}

/// Starts the task on this thread. It ends with the process.
pub(super) fn start(parts: Parts) {
    let mut switch = Switch { parts, client: None, failures: 0, told: None };
    actix::spawn(async move {
        let mut last: Option<Instant> = None;
        loop {
            let wanted = switch.parts.config.load().deadman.clone();
            match wanted {
                None => switch.is_off(),
                Some(wanted) if last.is_none_or(|last| last.elapsed() >= wanted.interval) => {
                    last = Some(Instant::now());
                    switch.turn(&wanted).await;
                }
                Some(wanted) => {
                    let left = wanted.interval.saturating_sub(last.map(|last| last.elapsed()).unwrap_or_default());
                    tokio::time::sleep(left.min(SLICE)).await;
                    continue;
                }
            }
            tokio::time::sleep(switch.parts.config.load().deadman.as_ref().map_or(SLICE, |wanted| wanted.interval.min(SLICE)))
                .await;
        }
    });
}

struct Switch {
    parts: Parts,
    client: Option<(bool, GuardedClient)>,
    failures: u32,
    /// What people were told in this run: that pings fail, or that they arrive.
    told: Option<bool>,
}

impl Switch {
    async fn turn(&mut self, wanted: &DeadmanConfig) {
        if let Some(who) = self.stuck() {
            DeadmanPinged { outcome: "withheld", message: &format!("{who} makes no progress"), loud: true }
                .emit(&self.parts.metrics);
            return;
        }
        let client = match &self.client {
            Some((allowed, client)) if *allowed == wanted.allow_link_local => client.clone(),
            _ => {
                let policy = ClientPolicy { allow_link_local: wanted.allow_link_local, ..ClientPolicy::default() };
                let client = GuardedClient::new(policy);
                self.client = Some((wanted.allow_link_local, client.clone()));
                client
            }
        };
        let failure = match client.get(&wanted.url, wanted.timeout, ANSWER_MAX_BYTES).await {
            Ok(answer) if (200..300).contains(&answer.status) => None,
            Ok(answer) => Some(format!("the receiver answered HTTP {}", answer.status)),
            Err(error) => Some(error.message),
        };
        let outcome = if failure.is_none() { "sent" } else { "failed" };
        let loud = failure.is_some() && self.failures == 0;
        DeadmanPinged { outcome, message: failure.as_deref().unwrap_or_default(), loud }.emit(&self.parts.metrics);
        self.judge(failure);
    }

    fn judge(&mut self, failure: Option<String>) {
        self.failures = if failure.is_some() { self.failures.saturating_add(1) } else { 0 };
        match failure {
            Some(cause) if self.failures >= FAILURES_TOLD && self.told != Some(true) => {
                self.tell(true, format!("the dead-man ping did not arrive {} times in a row: {cause}", self.failures));
            }
            // The first success of a run is told too: an earlier run may have left the alert open.
            None if self.told != Some(false) => self.tell(false, "the dead-man ping arrives".to_owned()),
            _ => {}
        }
    }

    fn is_off(&mut self) {
        self.failures = 0;
        if self.told != Some(false) {
            self.tell(false, "no dead-man ping is configured".to_owned());
        }
    }

    fn tell(&mut self, firing: bool, text: String) {
        self.told = Some(firing);
        let now_us = self.parts.clock.now_us();
        (self.parts.raise)(vec![Transition::system((DEADMAN_FAILED, "deadman"), Level::Warning, firing, text, now_us)]);
    }

    /// Who makes no progress; `None` where all do. An actor that is being restarted is on its way back.
    fn stuck(&self) -> Option<String> {
        let hang_ms = u64::try_from(self.parts.config.load().supervision.hang_after.as_millis()).unwrap_or(u64::MAX);
        let actors = self.parts.registry.statuses().into_iter();
        let stuck = |state: ActorState, age_ms: u64| match state {
            ActorState::Stalled | ActorState::Stopped => true,
            ActorState::Running => age_ms > hang_ms,
            ActorState::Starting | ActorState::Backoff => false,
        };
        let actor = actors.into_iter().find(|actor| stuck(actor.state, actor.last_progress_ms)).map(|actor| actor.name.to_owned());
        actor.or_else(|| {
            let loops = self.parts.registry.loops();
            loops.into_iter().find(|one| one.last_progress_ms > one.limit_ms).map(|one| one.name)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::clock::ManualClock;

    /// What was raised: whether it began, and the text.
    type Raised = Arc<Mutex<Vec<(bool, String)>>>;

    fn switch() -> (Switch, Raised) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = told.clone();
        let raise = move |all: Vec<Transition>| {
            seen.lock().expect("no panic").extend(all.into_iter().map(|one| (one.firing, one.text)));
        };
        let parts = Parts {
            config: Arc::new(ArcSwap::from_pointee(Config::default())),
            registry: ActorRegistry::new(),
            clock: ManualClock::at(7),
            metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
            raise: Box::new(raise),
        };
        (Switch { parts, client: None, failures: 0, told: None }, told)
    }

    #[test]
    fn two_failures_in_a_row_are_told_once_and_so_is_the_return() {
        let (mut switch, told) = switch();
        for failure in [None, Some("a"), None, Some("b"), Some("c"), Some("d"), None, None] {
            switch.judge(failure.map(str::to_owned));
        }
        let told: Vec<bool> = told.lock().expect("no panic").iter().map(|(firing, _)| *firing).collect();
        assert_eq!(told, [false, true, false]);
    }

    #[actix::test]
    async fn a_loop_that_does_not_turn_keeps_the_ping_back() {
        let (mut switch, _) = switch();
        let _stamp = switch.parts.registry.register_loop("drain", Duration::from_millis(1));
        let end = Instant::now() + Duration::from_secs(30);
        while switch.stuck().is_none() {
            assert!(Instant::now() < end);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Nobody listens there: asked, it would have failed.
        let wanted = DeadmanConfig { url: "http://127.0.0.1:1/".into(), interval: SLICE, timeout: SLICE, allow_link_local: false };
        switch.turn(&wanted).await;
        let count = |outcome: &str| switch.parts.metrics.alerts.deadman.with_label_values(&[outcome]).get();
        assert_eq!((count("withheld"), count("failed")), (1, 0));
    }
}
