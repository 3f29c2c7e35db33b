//! Ends of attempts, written down in groups: whatever has ended while the group before was written goes in the next.
//!
//! In: ends, from workers. Out: settled deliveries, free places. On SQLite the dispatcher writes them, in the transaction of its claim:
//! there is one writer, and a sync for each would cost the most. What cannot be written waits, its leases are renewed, and is tried again at the
//! dispatcher's next look.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    state::{InFlight, Outbox, lock},
    way::Run,
};
use crate::store::{
    Backend,
    deliveries::{self, DeliveryRow, Held, Outcome, Settlement},
};

/// Ends in one transaction.
const SETTLE_MAX: usize = 2_000;

impl Outbox {
    /// Notes what is being worked on from here on; it was asked for at `since`.
    pub(super) fn note_in_flight(&self, at: usize, rows: &[DeliveryRow], since: Instant) {
        let until = since + self.config.load().outbox.lease;
        let mut in_flight = lock(&self.sides[at].in_flight);
        for row in rows {
            in_flight.insert(row.seq, InFlight { held: row.held(), sink: row.sink.clone(), since, until });
        }
    }

    /// An attempt has ended.
    pub(super) fn ended(self: &Arc<Self>, at: usize, end: Settlement) {
        lock(&self.sides[at].ends).push(end);
        self.settle_beside(at);
        if self.sides[at].store.backend() == Backend::Sqlite {
            self.sides[at].wake.notify_one();
        }
    }

    /// Nothing of it was sent: others may have it, or this worker later.
    pub(super) fn give_back(&self, run: Run) {
        let side = &self.sides[run.side];
        let ends = run.rows.iter().map(|row| Settlement {
            held: row.held(),
            outcome: Outcome::GivenBack { attempts: row.attempt.unsigned_abs().saturating_sub(1) },
            error: None,
            answer: None,
            made: None,
        });
        lock(&side.ends).extend(ends);
        side.wake.notify_one();
    }

    /// Has ends written by a task beside the dispatcher, where the store has more than one writer and none runs.
    pub(super) fn settle_beside(self: &Arc<Self>, at: usize) {
        let side = &self.sides[at];
        if side.store.backend() == Backend::Sqlite || lock(&side.ends).is_empty() || side.settles.swap(true, Ordering::AcqRel) {
            return;
        }
        let settler = Settler(self.clone(), at);
        actix::spawn(async move { while settler.0.settle(at).await {} });
    }

    /// Writes some of the ends that wait, in one transaction. Returns whether it wrote any.
    pub(super) async fn settle(&self, at: usize) -> bool {
        let side = &self.sides[at];
        let _turn = side.settling.lock().await;
        let ends = Arc::new(side.take_ends(SETTLE_MAX));
        if ends.is_empty() {
            return false;
        }
        let (batch, now_us) = (ends.clone(), self.clock.now_us());
        match side.store.call(move |conn| deliveries::settle(conn, &batch, now_us)).await {
            Ok(fenced) => {
                self.settled(at, &ends, &fenced);
                side.wake.notify_one(); // Places are free, and lanes may go on.
                true
            }
            Err(error) => {
                log::debug!(target: "belayd::outbox", store = side.name, ends = ends.len(), error:% = error; "ends of attempts wait");
                lock(&side.ends).splice(0..0, ends.iter().cloned());
                false
            }
        }
    }

    /// These ends are written.
    pub(super) fn settled(&self, at: usize, ends: &[Settlement], fenced: &[Held]) {
        if ends.is_empty() {
            return;
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut in_flight = lock(&self.sides[at].in_flight);
        for end in ends {
            // A later claim of the same delivery has an entry of its own.
            let is_ours = in_flight.get(&end.held.seq).is_some_and(|one| one.held.epoch == end.held.epoch);
            if is_ours && let Some(one) = in_flight.remove(&end.held.seq) {
                match counts.get_mut(&one.sink) {
                    Some(count) => *count += 1,
                    None => drop(counts.insert(one.sink, 1)),
                }
            }
        }
        drop(in_flight);
        let mut ways = lock(&self.sinks);
        let mut other_waits = false;
        for (sink, count) in counts {
            if let Some(way) = ways.get_mut(&sink) {
                other_waits |= way.settled(at, count);
            }
        }
        drop(ways);
        if other_waits {
            self.wake_other(at);
        }
        self.watch.touch();
        for held in fenced {
            log::warn!(target: "belayd::outbox", deliveryId = held.id.as_str(), epoch = held.epoch;
                "the lease was lost while sending; another worker decides about this delivery");
        }
    }
}

/// The right to write ends beside the dispatcher, given back however the task ends.
struct Settler(Arc<Outbox>, usize);

impl Drop for Settler {
    fn drop(&mut self) {
        self.0.sides[self.1].settles.store(false, Ordering::Release);
    }
}
