//! The desk: what waits to be committed, outside the actor, and the one task that commits it, in order and in groups.
//!
//! One task at a time works off the queue, so acknowledgements and transitions reach the table and the board in one order. While the
//! control store fails, everything stays where it is and is tried again; nobody is told that it was committed before it was. What the
//! control store refuses for ever, while it takes everything else, is found by halving the group and set aside (`poison.rs`).

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot};

use super::{
    board::AlertBoard,
    order::{self, Done, Order},
    poison,
    round::{self, Surroundings},
};
use crate::{
    clock::SharedClock,
    config::Config,
    domain::alert::Alert,
    event::{AlertSetAside, Metrics, alerts::AlertsTold},
    protocol::{AcknowledgeAlert, AcknowledgeError, Raise, Wake},
    store::{Store, StoreError, StoreResult},
    supervise::Courier,
};

/// Most entries that wait. Beyond that a raise is not taken: its `committed` closes without a word and the sender keeps it.
pub(super) const QUEUE_MAX: usize = 10_000;
/// Most entries in one transaction.
const GROUP_MAX: usize = 256;
/// Wait before the control store is tried again; it doubles up to [`RETRY_MAX`].
const RETRY_BASE: Duration = Duration::from_millis(50);
/// From one audit to the next.
const AUDIT_EVERY_US: i64 = 30_000_000;
/// Longest wait between tries.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What the desk works with.
pub struct AlertParts {
    /// The control store.
    pub store: Store,
    /// What is shown.
    pub board: Arc<AlertBoard>,
    /// The configuration in force: routes, sinks, attempts.
    pub config: Arc<ArcSwap<Config>>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// The outbox.
    pub outbox: Courier<Wake>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Sinks whose circuit is not closed.
    pub away: AwayFn,
}

/// Tells which sinks take nothing now.
pub type AwayFn = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// See the module. Made once in `daemon.rs`; outlives every restart of the actor.
pub struct AlertDesk {
    parts: AlertParts,
    queue: Mutex<VecDeque<Item>>,
    working: AtomicBool,
    idle: Notify,
    /// A round is on the desk.
    rounding: AtomicBool,
    /// What fires is to be looked at, because the routes may have changed, and has not been.
    rerouted: AtomicBool,
    /// When the last audit was ordered, microseconds since the epoch.
    audited_at_us: AtomicI64,
}

impl fmt::Debug for AlertDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertDesk").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// What is to be committed (shared with the blocking thread that does it) and whom to tell.
struct Item {
    order: Arc<Order>,
    teller: Teller,
}

enum Teller {
    Raised(Option<oneshot::Sender<()>>),
    Acknowledging(oneshot::Sender<Result<Alert, AcknowledgeError>>),
    /// The next tick comes again.
    Nobody,
}

impl AlertDesk {
    /// A desk with nothing on it.
    pub fn new(parts: AlertParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            queue: Mutex::default(),
            working: AtomicBool::new(false),
            idle: Notify::new(),
            rounding: AtomicBool::new(false),
            rerouted: AtomicBool::new(false),
            audited_at_us: AtomicI64::new(i64::MIN),
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Item>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries that are not committed yet.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn take_raise(&self, raise: Raise) {
        let mut queue = self.lock();
        if queue.len() >= QUEUE_MAX {
            log::debug!(target: "belayd::alert", waiting = queue.len(); "alert queue is full; the sender keeps its transitions");
            return; // `committed` closes here.
        }
        queue.push_back(Item { order: Arc::new(Order::Transitions(raise.transitions)), teller: Teller::Raised(raise.committed) });
    }

    pub(super) fn take_acknowledge(&self, wish: AcknowledgeAlert) {
        let mut queue = self.lock();
        if queue.len() >= QUEUE_MAX {
            // The person may have gone; then there is nobody to tell.
            let _ = wish.reply.send(Err(AcknowledgeError::Unavailable("too much waits for the control store; try again".into())));
            return;
        }
        let order = Order::Acknowledge { id: wish.id, by: wish.by, reason: wish.reason };
        queue.push_back(Item { order: Arc::new(order), teller: Teller::Acknowledging(wish.reply) });
    }

    /// Has everything that fires looked at: the routes may have changed.
    pub(super) fn take_rerouted(&self) {
        let mut queue = self.lock();
        self.rerouted.store(true, Ordering::Release);
        queue.push_back(Item { order: Arc::new(Order::Rerouted), teller: Teller::Nobody });
    }

    /// The actor is new: a round that was being prepared is not coming any more.
    pub(super) fn forget_round(&self) {
        let waits = self.lock().iter().any(|item| matches!(*item.order, Order::Round(_)));
        self.rounding.store(waits, Ordering::Release);
    }

    /// Puts a round on the desk where anything is due. Its failure costs one tick.
    pub(super) async fn look_round(&self) {
        if self.rerouted.load(Ordering::Acquire) && self.waiting() == 0 {
            self.take_rerouted(); // The control store did not take it.
        }
        if self.rounding.swap(true, Ordering::AcqRel) {
            return;
        }
        let (config, now_us) = (self.parts.config.load_full(), self.parts.clock.now_us());
        let last_us = self.audited_at_us.load(Ordering::Acquire);
        // Also where the clock was set back behind the last one.
        let audit = now_us.saturating_sub(last_us) >= AUDIT_EVERY_US || now_us < last_us;
        let due = audit || self.parts.store.call(move |conn| round::anything_due(conn, &config, now_us)).await.unwrap_or(false);
        if !due {
            self.rounding.store(false, Ordering::Release);
            return;
        }
        if audit {
            self.audited_at_us.store(now_us, Ordering::Release);
        }
        let around = Surroundings { audit, away: (self.parts.away)(), open: self.parts.board.open() };
        self.lock().push_back(Item { order: Arc::new(Order::Round(around)), teller: Teller::Nobody });
    }

    /// Starts the task that works off the queue, unless it runs or there is nothing to do.
    pub(super) fn work(self: &Arc<Self>) {
        let desk = self.clone();
        let Some(mut right) = desk.right_to_work() else { return };
        actix::spawn(async move {
            loop {
                desk.work_off().await;
                drop(right);
                // Something may have come between the last look and that line.
                match desk.right_to_work() {
                    Some(again) => right = again,
                    None => return,
                }
            }
        });
    }

    fn right_to_work(self: &Arc<Self>) -> Option<Working> {
        (self.waiting() > 0 && !self.working.swap(true, Ordering::AcqRel)).then(|| Working(self.clone()))
    }

    /// Resolves once nothing waits.
    pub(super) async fn emptied(&self) {
        loop {
            let idle = self.idle.notified();
            if self.waiting() == 0 {
                return;
            }
            idle.await;
        }
    }

    async fn work_off(&self) {
        let mut wait = RETRY_BASE;
        let mut failing = false;
        let mut group = GROUP_MAX;
        loop {
            let orders: Vec<Arc<Order>> = self.lock().iter().take(group).map(|item| item.order.clone()).collect();
            if orders.is_empty() {
                return;
            }
            let alone = orders.len() == 1;
            let committed = match self.commit(orders.clone()).await {
                // Alone and refused: whether it is this order or the whole store is found out by asking for something else.
                Err(error) if alone && !error.is_transient() => self.commit_carefully(orders[0].clone()).await,
                committed => committed,
            };
            match committed {
                Ok(done) => {
                    if std::mem::take(&mut failing) {
                        log::info!(target: "belayd::alert", "control store works again; alerts are committed");
                    }
                    wait = RETRY_BASE;
                    group = (group * 2).min(GROUP_MAX);
                    self.finish(done);
                }
                Err(error) if !alone && !error.is_transient() => group = orders.len() / 2,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        log::error!(target: "belayd::alert", error:% = error, waiting = self.waiting();
                            "alerts cannot be committed to the control store; they wait and are tried again");
                    }
                    self.refuse_people(&error);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn commit_carefully(&self, order: Arc<Order>) -> StoreResult<Vec<Done>> {
        let (config, now_us) = (self.parts.config.load_full(), self.parts.clock.now_us());
        self.parts.store.call(move |conn| poison::carry_out(conn, &order, &config, now_us).map(|done| vec![done])).await
    }

    async fn commit(&self, orders: Vec<Arc<Order>>) -> StoreResult<Vec<Done>> {
        let (config, now_us) = (self.parts.config.load_full(), self.parts.clock.now_us());
        self.parts.store.call(move |conn| order::carry_out_all(conn, &orders, &config, now_us)).await
    }

    /// Committed: board, outbox, then those who wait.
    fn finish(&self, done: Vec<Done>) {
        let items: Vec<Item> = self.lock().drain(..done.len()).collect();
        let wake = done.iter().any(|done| done.deliveries > 0);
        let mut alerts = Vec::new();
        let mut told = Vec::with_capacity(items.len());
        for (item, done) in items.into_iter().zip(done) {
            alerts.extend(done.alerts);
            AlertsTold { outcomes: &done.outcomes }.emit(&self.parts.metrics);
            match *item.order {
                Order::Round(_) => self.rounded(done.found),
                Order::Rerouted => {
                    let queue = self.lock();
                    let again = queue.iter().any(|item| matches!(*item.order, Order::Rerouted));
                    self.rerouted.store(again, Ordering::Release);
                }
                _ => {}
            }
            for (transition, error) in done.set_aside {
                AlertSetAside {
                    name: &transition.name,
                    subject: &transition.subject,
                    firing: transition.firing,
                    message: &error.to_string(),
                }
                .emit(&self.parts.metrics);
            }
            told.push((item.teller, done.acknowledged));
        }
        self.parts.board.put_all(alerts);
        if wake {
            // A full mailbox holds a wake-up already; a stopped outbox finds the deliveries at its next start.
            let _ = self.parts.outbox.try_send(Wake);
        }
        for (teller, acknowledged) in told {
            // Whoever has stopped waiting is not told; that changes nothing.
            match (teller, acknowledged) {
                (Teller::Raised(Some(committed)), _) => drop(committed.send(())),
                (Teller::Acknowledging(reply), Some(outcome)) => drop(reply.send(outcome)),
                _ => {}
            }
        }
    }

    /// What a round found becomes alerts and figures.
    fn rounded(&self, found: round::Found) {
        self.rounding.store(false, Ordering::Release);
        let metrics = &self.parts.metrics.alerts;
        found.copied.iter().for_each(|sink| metrics.fallbacks.with_label_values(&[sink]).inc());
        if let Some(overdue) = found.overdue {
            metrics.overdue.set(overdue.iter().map(|(_, number)| *number as i64).sum());
        }
        if !found.conditions.is_empty() {
            self.take_raise(Raise { transitions: found.conditions, committed: None });
        }
    }

    /// A person does not wait for the control store to heal: told at once, and may come again.
    fn refuse_people(&self, error: &StoreError) {
        let mut queue = self.lock();
        let (others, machines) = queue.drain(..).partition(|item| !matches!(item.teller, Teller::Raised(_)));
        *queue = machines;
        drop(queue);
        let others: VecDeque<Item> = others;
        for item in others {
            match item.teller {
                Teller::Acknowledging(reply) => drop(reply.send(Err(AcknowledgeError::Unavailable(error.to_string())))),
                // The next tick finds the same again, also that the routes may have changed.
                _ => self.rounding.store(false, Ordering::Release),
            }
        }
    }
}

/// The right to work off the queue. Given back however the task ends, a panic included; then the next message starts a new one.
struct Working(Arc<AlertDesk>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.store(false, Ordering::Release);
        if self.0.waiting() == 0 {
            self.0.idle.notify_waiters();
        }
    }
}
