//! Channels that come back: a sink that takes something again gets at once what waited for it, and while it does not, one of those that
//! wait tries it again and again.
//!
//! ```text
//!  circuit open ........ nothing is claimed
//!  half-open ........... one is claimed: what is ready, else one that waits for its channel is made ready for it
//!  closed again, or the first success of this process ........ all that wait are made ready, in both stores, and once more a moment
//!                        later: what ended while that went on may have come to wait behind it
//!  a start ............. a sink for which something waits from an earlier life is doubted: its circuit begins half-open
//! ```
//! In: ends of attempts. Out: deliveries that are ready, which go out in the order of their lanes, as many at once and a minute as the sink
//! takes. A crash loses nothing: at the start it is asked what waits.

use std::time::{Duration, Instant};

use super::{
    dispatcher::{Order, Wanted, claim},
    state::{Outbox, lock},
};
use crate::{
    event::ChannelBack,
    store::{
        Conn, StoreResult,
        deliveries::{self, Taken},
    },
};

/// From the return to the second look: longer than an end takes to be written.
const AGAIN: Duration = Duration::from_secs(1);

/// When what waits in one store is to be brought forward.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forward {
    at: Option<Instant>,
    again: bool,
}

impl Forward {
    /// The channel is back.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = Self { at: Some(now), again: true };
    }

    /// When.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Whether it is time; then it counts as done.
    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.at.is_some_and(|at| at <= now);
        if is_due {
            let second = std::mem::take(&mut self.again).then(|| now + AGAIN);
            self.at = second;
        }
        is_due
    }
}

impl Outbox {
    /// Sinks whose waiting deliveries in this store are to be brought forward now.
    pub(super) fn to_forward(&self, side: usize) -> Vec<String> {
        let now = Instant::now();
        let mut ways = lock(&self.sinks);
        ways.iter_mut().filter_map(|(name, way)| way.forward(side).take(now).then(|| name.clone())).collect()
    }

    /// It failed, or there is more: once more.
    pub(super) fn forward_again(&self, side: usize, sinks: impl IntoIterator<Item = String>, now: Instant) {
        let mut ways = lock(&self.sinks);
        for sink in sinks {
            if let Some(way) = ways.get_mut(&sink) {
                way.forward(side).begin(now);
            }
        }
    }

    /// What was brought forward. Returns whether there is more of it.
    pub(super) fn forwarded(&self, side: usize, counts: Vec<(String, usize)>) -> bool {
        let is_full = |count: usize| count >= deliveries::FORWARD_ROWS;
        let full: Vec<String> = counts.iter().filter(|(_, count)| is_full(*count)).map(|(sink, _)| sink.clone()).collect();
        for (sink, deliveries) in counts.into_iter().filter(|(_, count)| *count > 0) {
            ChannelBack { sink: &sink, store: self.sides[side].name, deliveries }.emit(&self.metrics);
        }
        let more = !full.is_empty();
        self.forward_again(side, full, Instant::now());
        more
    }

    /// Something waits for these from an earlier life.
    pub(super) fn doubt(&self, sinks: &[String]) {
        let now = Instant::now();
        let mut ways = lock(&self.sinks);
        for sink in sinks {
            if let Some(way) = ways.get_mut(sink) {
                way.breaker.doubt(now);
            }
        }
    }

    /// Every sink's name.
    pub(super) fn sink_names(&self) -> Vec<String> {
        lock(&self.sinks).keys().cloned().collect()
    }
}

/// Of the sinks that this round concerns, those for which anything waits. Writes nothing.
pub(super) fn waiting(conn: &mut Conn, order: &Order) -> StoreResult<Vec<String>> {
    let tries = order.wanted.iter().filter(|one| one.tries).map(|one| one.sink.clone());
    let sinks: Vec<String> = order.doubted.iter().chain(&order.forward).cloned().chain(tries).collect();
    if sinks.is_empty() { Ok(sinks) } else { deliveries::waiting_sinks(conn, &sinks) }
}

/// Brings forward what waits for the sinks that are back.
pub(super) fn forward(conn: &mut Conn, order: &Order) -> StoreResult<Vec<(String, usize)>> {
    let each = order.forward.iter();
    each.map(|sink| deliveries::forward(conn, sink, order.now_us).map(|count| (sink.clone(), count))).collect()
}

/// A claim; where it is to try the channel and nothing is ready, one that waits is made ready for it.
pub(super) fn claim_to_try(conn: &mut Conn, order: &Order, one: &Wanted, waiting: &[String]) -> StoreResult<Taken> {
    let taken = claim(conn, order, one)?;
    let tries = one.tries && taken.rows.is_empty() && waiting.contains(&one.sink);
    if tries && deliveries::forward_one(conn, &one.sink, order.now_us)? {
        let mut from_the_first = one.clone();
        from_the_first.after = None;
        return claim(conn, order, &from_the_first);
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_brought_forward_at_once_and_a_moment_later() {
        let (now, mut forward) = (Instant::now(), Forward::default());
        assert!(!forward.take(now));
        forward.begin(now);
        assert!(forward.take(now));
        assert!(!forward.take(now), "done");
        assert_eq!(forward.at(), Some(now + AGAIN));
        assert!(forward.take(now + AGAIN));
        assert_eq!(forward.at(), None);
    }
}
