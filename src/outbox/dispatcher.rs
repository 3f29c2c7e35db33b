//! The dispatcher: one task that settles, reclaims, claims and starts attempts, whenever there may be something to do.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::state::{CONTROL, Outbox, Side, Trouble, lock};
use crate::{
    event::ClaimFailed,
    sinks,
    store::{
        Backend, Conn, StoreError, StoreResult,
        deliveries::{self, Claim, DeliveryRow, Owner},
        relay,
    },
};

/// Longest pause of a store that fails, in poll intervals' doubling.
const TROUBLE_MAX: Duration = Duration::from_secs(30);
/// Shortest pause between two looks that nothing asked for.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// How often a claim in flight looks whether its store is still there.
const AWAY_LOOK: Duration = Duration::from_millis(100);

/// Deliveries of one vanished sink that are handed to a person in one look.
const ORPHANS_MAX: u32 = 64;

/// What one look at a store brought.
struct Look {
    claimed: Vec<DeliveryRow>,
    /// When the next scheduled or retried delivery is due, microseconds since the epoch.
    next_due_us: Option<i64>,
}

impl Outbox {
    /// Starts the dispatcher on this thread, unless it runs. Its panic is noticed by the actor's tick, which starts it anew.
    pub(super) fn drive(self: &Arc<Self>) {
        if self.driving.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = Driver(self.clone());
        actix::spawn(async move {
            let mut renewed = Instant::now();
            while !driver.0.stopping.load(Ordering::Acquire) {
                let pause = driver.0.look(&mut renewed).await;
                // Woken or not: look again.
                let _ = tokio::time::timeout(pause, driver.0.wake.notified()).await;
            }
        });
    }

    /// One round over both stores; returns how long nothing can be due.
    async fn look(self: &Arc<Self>, renewed: &mut Instant) -> Duration {
        let config = self.config.load_full();
        self.show_circuits();
        if renewed.elapsed() >= config.outbox.lease / 3 {
            *renewed = Instant::now();
            self.renew(config.outbox.lease).await;
        }
        let mut pause = config.outbox.poll_interval.min(config.outbox.lease / 3);
        for side in &self.sides {
            self.settle(side).await;
            let now = Instant::now();
            if !(side.is_up)() || lock(&side.trouble).not_before.is_some_and(|at| at > now) {
                continue;
            }
            match self.claim_while_up(side).await {
                Ok(look) => {
                    *lock(&side.trouble) = Trouble { taken_back: true, ..Trouble::default() };
                    pause = pause.min(self.until(look.next_due_us));
                    self.start(side.name, look.claimed);
                }
                Err(error) => self.note_trouble(side, &error),
            }
        }
        pause.min(self.until_half_open()).max(PAUSE_MIN)
    }

    fn until(&self, due_us: Option<i64>) -> Duration {
        let wait_us = due_us.map_or(i64::MAX, |due_us| due_us.saturating_sub(self.clock.now_us()));
        Duration::from_micros(u64::try_from(wait_us).unwrap_or(0))
    }

    fn until_half_open(&self) -> Duration {
        let now = Instant::now();
        let next = lock(&self.sinks).values().filter_map(|way| way.breaker.opens_again_at(now)).min();
        next.map_or(Duration::MAX, |at| at.saturating_duration_since(now) + Duration::from_millis(1))
    }

    /// [`Self::claim`], given up where the store is found away meanwhile: a claim in a database that hangs has no end, and the other
    /// store's alerts must leave. What it claims after all is taken back at the next look that works.
    async fn claim_while_up(&self, side: &Side) -> StoreResult<Look> {
        let gone = async {
            while (side.is_up)() {
                tokio::time::sleep(AWAY_LOOK).await;
            }
        };
        tokio::select! {
            look = self.claim(side) => look,
            () = gone => {
                lock(&side.trouble).taken_back = false;
                Err(StoreError::unavailable("the database hangs; its deliveries wait"))
            }
        }
    }

    /// Claims and marks as many as may be sent now, in one transaction: the first byte leaves only after its commit.
    async fn claim(&self, side: &Side) -> StoreResult<Look> {
        let mut wanted = self.free_places();
        if side.name == CONTROL {
            wanted.extend(self.orphans());
        }
        let (worker, lease) = (self.worker.clone(), self.config.load().outbox.lease);
        let (now_us, take_back) = (self.clock.now_us(), !lock(&side.trouble).taken_back);
        let keep = if take_back { side.held() } else { Vec::new() };
        side.store
            .call(move |conn| {
                conn.write(|conn| {
                    if take_back {
                        let owner = if conn.backend() == Backend::Sqlite { Owner::Anyone } else { Owner::Worker(&worker) };
                        deliveries::take_back(conn, owner, &keep, now_us)?;
                    }
                    deliveries::reclaim_expired(conn, now_us)?;
                    deliveries::promote_due(conn, now_us)?;
                    let mut claimed = Vec::new();
                    for (sink, limit) in &wanted {
                        let claim = Claim { sink, worker: &worker, limit: *limit, lease, now_us };
                        claimed.append(&mut claim_and_mark(conn, &claim)?);
                    }
                    Ok(Look { claimed, next_due_us: deliveries::next_due(conn)? })
                })
            })
            .await
    }

    /// How many attempts each sink may begin.
    fn free_places(&self) -> Vec<(String, u32)> {
        let (concurrency, now) = (self.config.load().outbox.concurrency.max(1), Instant::now());
        lock(&self.sinks)
            .iter()
            .filter(|(_, way)| way.sink.is_ready())
            .map(|(name, way)| {
                let free = concurrency.saturating_sub(way.in_flight);
                (name.clone(), way.breaker.allowed(now, free, way.in_flight) as u32)
            })
            .filter(|(_, limit)| *limit > 0)
            .collect()
    }

    /// Sinks that have a backlog and are gone from the configuration. Their deliveries are claimed to be handed to a person: nobody
    /// else would ever look at them.
    fn orphans(&self) -> Vec<(String, u32)> {
        let known = sinks::known(&self.config.load());
        let gone =
            |name: &str| name != relay::SINK && !known.iter().any(|known| known == name) && !lock(&self.sinks).contains_key(name);
        let backlogs = self.counts().by_sink;
        backlogs.into_iter().filter(|(name, sink)| sink.backlog > 0 && gone(name)).map(|(name, _)| (name, ORPHANS_MAX)).collect()
    }

    fn note_trouble(&self, side: &Side, error: &StoreError) {
        let poll = self.config.load().outbox.poll_interval;
        let mut trouble = lock(&side.trouble);
        trouble.failures = trouble.failures.saturating_add(1);
        let pause = poll.saturating_mul(1 << trouble.failures.min(8)).min(TROUBLE_MAX);
        trouble.not_before = Some(Instant::now() + pause);
        drop(trouble);
        let error_type = error.code.as_deref().unwrap_or("other");
        ClaimFailed { store: side.name, error_type, message: &error.message }.emit(&self.metrics);
    }

    /// Prolongs the leases of what is being worked on. A lease that was lost is only told: the end of that attempt is fenced.
    async fn renew(&self, lease: Duration) {
        for side in &self.sides {
            let held = side.held();
            if held.is_empty() || !(side.is_up)() {
                continue;
            }
            let count = held.len();
            let kept = side.store.call(move |conn| conn.write(|conn| deliveries::renew(conn, &held, lease))).await;
            match kept {
                Ok(kept) if kept.len() < count => {
                    log::warn!(target: "belayd::outbox", store = side.name, lost = count - kept.len();
                        "leases were taken over by another worker; their deliveries may be sent twice");
                }
                Ok(_) => {}
                Err(error) => log::debug!(target: "belayd::outbox", store = side.name, error:% = error; "leases were not renewed"),
            }
        }
    }
}

fn claim_and_mark(conn: &mut Conn, claim: &Claim<'_>) -> StoreResult<Vec<DeliveryRow>> {
    let mut rows = deliveries::claim_due(conn, claim)?;
    let held: Vec<_> = rows.iter().map(DeliveryRow::held).collect();
    let marked = deliveries::mark_sending(conn, &held, claim.now_us)?;
    rows.retain(|row| marked.contains(&row.held()));
    rows.iter_mut().for_each(|row| row.attempt += 1);
    Ok(rows)
}

/// The right to dispatch. Given back however the task ends; whoever ends it in a panic is replaced at the actor's next tick.
struct Driver(Arc<Outbox>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.driving.store(false, Ordering::Release);
    }
}
