//! A sink with its circuit, its limits, and what waits for it in this process.
//!
//! In: what was claimed. Out: runs, at most as many at once as the sink takes; how much more may be claimed. A crash loses only what is
//! counted here: the deliveries themselves are found by their leases.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{channel::Forward, rate::Rate, state::CONTROL_AT};
use crate::{
    domain::breaker::{Breaker, BreakerSettings, CircuitState},
    sinks::Sink,
    store::deliveries::DeliveryRow,
};

/// What is claimed and not settled of a sink whose repeats can be told is at most what it sends in this time.
const AHEAD: Duration = Duration::from_millis(100);
/// Most deliveries of one sink that are claimed and not settled.
const CLAIMED_MAX: usize = 4_000;
/// Most of them in one claim: beyond it a larger claim gains nothing.
const CLAIM_MAX: usize = 1_000;
/// Of one claim, at most this part is of one lane.
const LANE_PART: usize = 4;

/// Deliveries of one lane that were claimed together, to be sent one after the other.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) side: usize,
    pub(super) sink: String,
    pub(super) rows: Vec<DeliveryRow>,
}

/// Orders what was claimed into runs, each in its order.
pub(super) fn runs_of(side: usize, rows: Vec<DeliveryRow>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(rows.len());
    let mut places: HashMap<(String, String), usize> = HashMap::with_capacity(rows.len());
    for row in rows {
        let place = *places.entry((row.sink.clone(), row.lane.clone())).or_insert(runs.len());
        if place == runs.len() {
            runs.push(Run { side, sink: row.sink.clone(), rows: Vec::with_capacity(1) });
        }
        runs[place].rows.push(row);
    }
    runs
}

/// See the module.
pub(super) struct Way {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) breaker: Breaker,
    /// Whether people know how it is: before the first word of this run, an earlier one may have left its alert open.
    pub(super) told: bool,
    /// Runs that wait for a place; those of the control store go first.
    queue: VecDeque<Run>,
    /// Runs on their way.
    working: usize,
    /// Deliveries that were claimed and are not settled, by store.
    claimed: [usize; 2],
    rate: Option<Rate>,
    /// What an attempt takes, a moving average; unknown before the first.
    spent: Option<Duration>,
    /// What waits for this channel is to be brought forward, by store.
    forward: [Forward; 2],
    /// Stores that were given nothing while another had places, a part of the rate, or the one attempt of a half-open circuit: it may
    /// have asked for more than it needs.
    denied: [bool; 2],
}

impl Way {
    pub(super) fn new(sink: Arc<dyn Sink>, settings: BreakerSettings) -> Self {
        let rate = sink.limits().per_minute.map(Rate::new);
        let breaker = Breaker::new(settings);
        Self {
            sink,
            breaker,
            told: false,
            queue: VecDeque::new(),
            working: 0,
            claimed: [0; 2],
            rate,
            spent: None,
            forward: Default::default(),
            denied: [false; 2],
        }
    }

    /// Takes another sink of the same name; the circuit and what is on its way stay.
    pub(super) fn replace(&mut self, sink: Arc<dyn Sink>, settings: BreakerSettings) {
        let wanted = sink.limits().per_minute;
        if wanted != self.rate.map(|rate| rate.per_minute()) {
            self.rate = wanted.map(Rate::new);
        }
        self.sink = sink;
        self.breaker.set(settings);
    }

    /// Sends at once.
    fn places(&self, concurrency: usize) -> usize {
        self.sink.limits().concurrency.unwrap_or(concurrency).max(1)
    }

    /// How much a claim for the store `side` may take, and how much of one lane. It counts as claimed from here on; what is not used
    /// goes back by [`Self::put_back`].
    pub(super) fn reserve(&mut self, side: usize, now: Instant, concurrency: usize) -> (usize, usize) {
        let places = self.places(concurrency);
        let most = if self.sink.takes_batches() { self.ahead(places) } else { places };
        // Alerts do not wait for messages: what the other store has claimed leaves them their places.
        let held = if side == CONTROL_AT { self.claimed[CONTROL_AT] } else { self.claimed.iter().sum() };
        let mut free = most.saturating_sub(held).min(CLAIM_MAX);
        if most > places * 8 && free < most / 4 {
            free = 0; // Soon there is room for a claim that is worth it.
        }
        let allowed = self.breaker.allowed(now, free, self.claimed.iter().sum());
        free = if self.sink.is_ready() { allowed } else { 0 };
        if let Some(rate) = &mut self.rate {
            free = free.min(rate.available(now));
            rate.take(now, free);
        }
        self.claimed[side] += free;
        self.denied[side] |= free == 0 && self.claimed[1 - side] > 0;
        (free, if self.sink.takes_batches() { (free / LANE_PART).max(1) } else { 1 })
    }

    /// What was reserved and not claimed. Returns whether another store waits to try the channel.
    pub(super) fn put_back(&mut self, side: usize, count: usize) -> bool {
        self.refund(count);
        self.denied[side] = false;
        self.settled(side, count)
    }

    /// These were no sends after all: nothing got as far as the receiver.
    pub(super) fn refund(&mut self, count: usize) {
        if let Some(rate) = &mut self.rate {
            rate.put_back(count);
        }
    }

    /// When what waits for this channel is brought forward in a store.
    pub(super) fn forward(&mut self, side: usize) -> &mut Forward {
        &mut self.forward[side]
    }

    /// It takes something again: what waits for it, in either store, need wait no longer.
    pub(super) fn came_back(&mut self, now: Instant) {
        self.forward.iter_mut().for_each(|forward| forward.begin(now));
    }

    /// How many may be claimed and not settled: what is sent within [`AHEAD`], so that a crash leaves little unknown and a sink that has
    /// become slow holds back little from other instances.
    fn ahead(&self, places: usize) -> usize {
        let Some(spent) = self.spent else { return places };
        let sends = AHEAD.as_nanos() * places as u128 / spent.as_nanos().max(1);
        usize::try_from(sends).unwrap_or(usize::MAX).clamp(places, CLAIMED_MAX.max(places))
    }

    /// Runs on their way, each with one send at a time. What is claimed beyond that waits, and what is reserved may come to nothing.
    pub(super) fn sending(&self) -> usize {
        self.working
    }

    /// Deliveries whose end is written. Returns whether another store waits for their places.
    pub(super) fn settled(&mut self, side: usize, count: usize) -> bool {
        self.claimed[side] = self.claimed[side].saturating_sub(count);
        count > 0 && std::mem::take(&mut self.denied[1 - side])
    }

    /// An attempt has ended.
    pub(super) fn took(&mut self, spent: Duration) {
        self.spent = Some(self.spent.map_or(spent, |before| (before * 7 + spent) / 8));
    }

    /// Adds a run, and says whether another worker may begin.
    pub(super) fn push(&mut self, run: Run, concurrency: usize) -> bool {
        if run.side == CONTROL_AT {
            let behind = self.queue.iter().take_while(|waits| waits.side == CONTROL_AT).count();
            self.queue.insert(behind, run);
        } else {
            self.queue.push_back(run);
        }
        let begins = self.working < self.places(concurrency);
        self.working += usize::from(begins);
        begins
    }

    /// What a worker does next; with `None` it has ended.
    pub(super) fn next(&mut self) -> Option<(Run, Arc<dyn Sink>)> {
        let run = self.queue.pop_front();
        if run.is_none() {
            self.ended();
        }
        run.map(|run| (run, self.sink.clone()))
    }

    /// A worker has ended.
    pub(super) fn ended(&mut self) {
        self.working = self.working.saturating_sub(1);
    }

    /// Everything that waits for a place, to be given back.
    pub(super) fn take_queue(&mut self) -> Vec<Run> {
        self.queue.drain(..).collect()
    }

    /// Whether its circuit is open.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.breaker.state(now) == CircuitState::Open
    }

    /// Whether one attempt may try it.
    pub(super) fn is_half_open(&self, now: Instant) -> bool {
        self.breaker.state(now) == CircuitState::HalfOpen
    }

    /// How long until there may be something to do for it in a store; `None` where only something new can tell.
    pub(super) fn next_look(&self, side: usize, now: Instant) -> Option<Duration> {
        let forward = self.forward[side].at().map(|at| at.saturating_duration_since(now));
        self.wait(now).into_iter().chain(forward).min()
    }

    /// How long nothing can be claimed because of its circuit or its rate; `None` where something can.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let circuit = self.breaker.opens_again_at(now).map(|at| at.saturating_duration_since(now) + Duration::from_millis(1));
        let rate = self.rate.map(|rate| rate.wait(now)).filter(|wait| !wait.is_zero());
        circuit.max(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{
        Limits,
        doubles::{LimitedSink, NoopSink},
    };

    fn way(sink: Arc<dyn Sink>) -> Way {
        Way::new(sink, BreakerSettings::SINK)
    }

    #[test]
    fn a_sink_whose_repeats_cannot_be_told_claims_no_more_than_it_sends_at_once() {
        let (now, mut way) = (Instant::now(), way(LimitedSink::named("smtp", Limits { concurrency: Some(3), per_minute: None })));
        way.took(Duration::from_micros(1));
        assert_eq!((way.reserve(1, now, 8), way.reserve(1, now, 8)), ((3, 1), (0, 1)));
        assert_eq!(way.reserve(CONTROL_AT, now, 8), (3, 1), "alerts find a place");
        assert!(!way.settled(1, 2), "alerts wait for nobody");
        assert_eq!(way.reserve(1, now, 8), (0, 1));
        assert!(way.settled(CONTROL_AT, 3), "whoever waited for their places is woken");
        assert_eq!(way.reserve(1, now, 8), (2, 1));
    }

    #[test]
    fn the_one_attempt_of_a_half_open_circuit_goes_to_the_store_that_has_something() {
        let (now, mut way) = (Instant::now(), way(NoopSink::named("hook")));
        way.breaker.doubt(now);
        assert_eq!((way.reserve(0, now, 4).0, way.reserve(1, now, 4).0), (1, 0));
        assert!(way.put_back(0, 1), "the other is to be woken");
        assert_eq!((way.reserve(1, now, 4).0, way.reserve(0, now, 4).0), (1, 0));
        assert!(way.put_back(1, 1), "and back once");
        assert_eq!(way.reserve(0, now, 4).0, 1);
        assert!(!way.put_back(0, 1), "but not for ever");
    }

    #[test]
    fn a_quick_sink_claims_what_it_sends_in_a_moment_and_a_slow_one_little() {
        let (now, mut way) = (Instant::now(), way(NoopSink::named("hook")));
        assert_eq!(way.reserve(1, now, 4).0, 4, "nothing is known of it yet");
        way.put_back(1, 4);
        way.took(Duration::from_micros(1));
        assert_eq!(way.reserve(1, now, 4), (CLAIM_MAX, CLAIM_MAX / LANE_PART));
        way.put_back(1, CLAIM_MAX);
        (0..100).for_each(|_| way.took(Duration::from_millis(10)));
        let slow = way.reserve(1, now, 4).0;
        assert!((40..80).contains(&slow), "{slow}");
    }

    #[test]
    fn what_is_reserved_or_waits_for_a_place_is_not_being_sent() {
        let (now, mut way) = (Instant::now(), way(NoopSink::named("hook")));
        way.took(Duration::from_micros(1));
        assert!(way.reserve(1, now, 2).0 > 2);
        assert_eq!(way.sending(), 0, "nothing has come of it yet");
        let run = || Run { side: 1, sink: "hook".to_owned(), rows: Vec::new() };
        assert_eq!([(); 5].map(|()| way.push(run(), 2)), [true, true, false, false, false]);
        assert_eq!(way.sending(), 2);
        while way.next().is_some() {}
        assert_eq!(way.sending(), 1, "one of the two workers has nothing left to do");
    }

    #[test]
    fn a_limit_a_minute_bounds_what_is_claimed() {
        let (now, mut way) =
            (Instant::now(), way(LimitedSink::named("smtp", Limits { concurrency: Some(50), per_minute: Some(100) })));
        assert_eq!(way.reserve(1, now, 8).0, 10);
        assert!(way.wait(now).is_some());
        way.put_back(1, 7);
        assert_eq!((way.wait(now), way.reserve(1, now, 8).0), (None, 7));
    }
}
