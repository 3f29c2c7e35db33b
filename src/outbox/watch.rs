//! What is shown of the outbox, and the conditions it raises: counts, taken from both stores when something changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::state::{Outbox, lock};
use crate::{
    domain::{
        alert::{Level, Transition},
        delivery::DeliveryState,
    },
    sinks,
    store::{
        deliveries::{self, Count},
        relay,
    },
};

/// Of the time of a store, counting takes at most one part of so many.
const COUNT_PART: u32 = 30;
/// Longest pause between two counts.
const COUNT_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Unsettled deliveries of both stores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutboxCounts {
    /// By state.
    pub by_state: BTreeMap<DeliveryState, u64>,
    /// By sink; sinks that are not configured any more included.
    pub by_sink: BTreeMap<String, SinkCounts>,
    /// When the oldest one that is due was due, microseconds since the epoch.
    pub oldest_due_at_us: Option<i64>,
    /// When the oldest one that nobody has taken up was or is due, microseconds since the epoch.
    pub oldest_waiting_at_us: Option<i64>,
}

/// Unsettled deliveries of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Due or in the works.
    pub backlog: u64,
    /// Waiting for a person.
    pub failed: u64,
    /// When the oldest in the backlog was due, microseconds since the epoch.
    pub oldest_due_at_us: Option<i64>,
}

/// The last counts.
#[derive(Debug, Default)]
pub(super) struct Watch {
    changed: AtomicBool,
    counts: Mutex<Vec<Option<OutboxCounts>>>,
    /// Sinks whose condition has been raised; `None` before the first look, after which every sink's is told once.
    raised: Mutex<Option<BTreeSet<String>>>,
    /// When each store may be counted again.
    not_before: Mutex<BTreeMap<usize, Instant>>,
}

impl Watch {
    /// Something changed: the next look counts.
    pub(super) fn touch(&self) {
        self.changed.store(true, Ordering::Release);
    }

    pub(super) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }
}

impl Outbox {
    /// The counts of both stores as they were last seen, at most a poll interval ago.
    pub fn counts(&self) -> OutboxCounts {
        let mut sum = OutboxCounts::default();
        for side in lock(&self.watch.counts).iter().flatten() {
            sum.add(side);
        }
        sum
    }

    /// Counts both stores. One that is away keeps its last counts, and one with so much to count that it takes long is left alone for
    /// longer.
    pub(super) async fn refresh(&self) {
        for (index, side) in self.sides.iter().enumerate() {
            if !(side.is_up)() {
                continue;
            }
            let began = Instant::now();
            if lock(&self.watch.not_before).get(&index).is_some_and(|at| *at > began) {
                self.watch.touch();
                continue;
            }
            let counted = side.store.call(deliveries::counts).await;
            lock(&self.watch.not_before).insert(index, Instant::now() + (began.elapsed() * COUNT_PART).min(COUNT_PAUSE_MAX));
            match counted {
                Ok(rows) => {
                    let mut counts = lock(&self.watch.counts);
                    counts.resize(self.sides.len(), None);
                    counts[index] = Some(OutboxCounts::of(&rows));
                }
                Err(error) => {
                    log::debug!(target: "belayd::outbox", store = side.name, error:% = error; "deliveries were not counted");
                    self.watch.touch();
                }
            }
        }
        let counts = self.counts();
        self.show_ages(&counts);
        if self.can_raise() {
            self.raise_failed(&counts);
        }
    }

    fn show_ages(&self, counts: &OutboxCounts) {
        let now_us = self.clock.now_us();
        let relay = self.config.load().kafka.as_ref().map(|_| relay::SINK.to_owned());
        for sink in self.circuits().into_iter().map(|(name, _)| name).chain(relay) {
            let due_us = counts.by_sink.get(&sink).and_then(|sink| sink.oldest_due_at_us);
            let age_s = due_us.map_or(0.0, |due_us| now_us.saturating_sub(due_us).max(0) as f64 / 1e6);
            self.metrics.outbox_oldest_age.with_label_values(&[sink.as_str()]).set(age_s);
        }
    }

    /// Delivered, or you are told: one alert a sink while deliveries of it wait for a person.
    fn raise_failed(&self, counts: &OutboxCounts) {
        let failed: BTreeSet<String> =
            counts.by_sink.iter().filter(|(_, sink)| sink.failed > 0).map(|(name, _)| name.clone()).collect();
        let mut raised = lock(&self.watch.raised);
        // After a start nobody knows what an earlier life left open: then every sink's condition is told once, over or not.
        let (known, before) = match raised.take() {
            Some(before) => (before.clone(), before),
            None => (BTreeSet::new(), self.circuits().into_iter().map(|(name, _)| name).chain([relay::SINK.to_owned()]).collect()),
        };
        let begun = failed.difference(&known).map(|sink| self.failed_transition(sink, true));
        let over = before.difference(&failed).map(|sink| self.failed_transition(sink, false));
        let transitions: Vec<Transition> = begun.chain(over).collect();
        *raised = Some(failed);
        drop(raised);
        self.raise(transitions);
    }

    /// Without a number: it is told once, with the first that failed, and read when there are more.
    fn failed_transition(&self, sink: &str, firing: bool) -> Transition {
        let now_us = self.clock.now_us();
        let text = if firing {
            format!("deliveries to sink {sink} could not be made and wait for a decision (how many: belayd failures causes)")
        } else {
            format!("no delivery to sink {sink} waits for a decision any more")
        };
        Transition::system((sinks::DELIVERY_FAILED, sink), Level::Warning, firing, text, now_us)
    }
}

impl OutboxCounts {
    fn of(rows: &[Count]) -> Self {
        let mut counts = Self::default();
        for row in rows {
            // A run that Kafka did not take stays marked as being sent until Kafka says what became of it.
            let unsent = row.state == DeliveryState::Sending && row.sink == relay::SINK;
            if unsent || matches!(row.state, DeliveryState::Scheduled | DeliveryState::Ready | DeliveryState::Retry) {
                counts.oldest_waiting_at_us = earliest(counts.oldest_waiting_at_us, row.oldest_due_at_us);
            }
            *counts.by_state.entry(row.state).or_default() += row.count;
            let sink = counts.by_sink.entry(row.sink.clone()).or_default();
            if DeliveryState::FAILED.contains(&row.state) {
                sink.failed += row.count;
            } else if DeliveryState::BLOCKING.contains(&row.state) {
                sink.backlog += row.count;
                sink.oldest_due_at_us = earliest(sink.oldest_due_at_us, row.oldest_due_at_us);
                counts.oldest_due_at_us = earliest(counts.oldest_due_at_us, row.oldest_due_at_us);
            }
        }
        counts
    }

    fn add(&mut self, other: &Self) {
        for (state, count) in &other.by_state {
            *self.by_state.entry(*state).or_default() += count;
        }
        for (name, sink) in &other.by_sink {
            let sum = self.by_sink.entry(name.clone()).or_default();
            sum.backlog += sink.backlog;
            sum.failed += sink.failed;
            sum.oldest_due_at_us = earliest(sum.oldest_due_at_us, sink.oldest_due_at_us);
        }
        self.oldest_due_at_us = earliest(self.oldest_due_at_us, other.oldest_due_at_us);
        self.oldest_waiting_at_us = earliest(self.oldest_waiting_at_us, other.oldest_waiting_at_us);
    }

    /// How many stand in a state.
    pub fn of_state(&self, state: DeliveryState) -> u64 {
        self.by_state.get(&state).copied().unwrap_or(0)
    }
}

fn earliest(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a.into_iter().chain(b).min()
}
