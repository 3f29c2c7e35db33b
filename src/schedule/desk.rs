//! The desk: which duty is due, which runs, how each went; outside the actor, so that its panic repeats no duty and forgets no failure.

use std::{
    collections::BTreeMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::FutureExt;

use super::{
    Duty, DutyContext, DutyReport,
    actor::TICK,
    board::{DutyStatus, ScheduleBoard},
};
use crate::{
    clock::SharedClock,
    config::Config,
    domain::alert::{Level, Transition},
    event::Metrics,
    store::{
        Store, StoreError, StoreResult, control,
        integrity::Held,
        leases::{Lease, TAKEN_OVER_WITHIN, TTL},
        shared_duties::SharedRun,
        tokens::TokenBook,
    },
};

/// Failures in a row that are told to people.
const FAILURES_TOLD: u32 = 3;
/// How soon a duty that failed is tried again, microseconds.
const RETRY_US: i64 = 60_000_000;
/// How soon a duty that another instance is doing is looked at again, microseconds.
const BUSY_US: i64 = 2_000_000;
/// How much later than due an instance does what another one did last: that one comes first, and what is left half done stays in one
/// hand.
pub(super) const GRACE_US: i64 = 10_000_000;
/// Looks come once a tick: a duty whose instance died in the middle of it, or before its turn, is begun elsewhere in time.
const _: () = assert!(TTL.as_micros() as i64 + BUSY_US + TICK.as_micros() as i64 <= TAKEN_OVER_WITHIN.as_micros() as i64);
const _: () = assert!(GRACE_US + TICK.as_micros() as i64 <= TAKEN_OVER_WITHIN.as_micros() as i64);
/// Lateness below this is nothing to write about, microseconds.
const LATE_US: i64 = 60_000_000;
/// The condition that a duty fails again and again; its subject is the duty.
const DUTY_FAILED: &str = "duty-failed";

/// Hands a condition to the alert side.
pub type RaiseFn = Box<dyn Fn(Vec<Transition>) + Send + Sync>;

/// What the duties work with.
pub struct ScheduleParts {
    /// The store.
    pub store: Store,
    /// Whether the store answers and is migrated.
    pub store_is_up: Box<dyn Fn() -> bool + Send + Sync>,
    /// The control store.
    pub control: Store,
    /// Tokens in use.
    pub tokens: Arc<TokenBook>,
    /// The configuration in force.
    pub config: Arc<ArcSwap<Config>>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// What is shown.
    pub board: Arc<ScheduleBoard>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The alert side.
    pub raise: RaiseFn,
    /// What lies before the database.
    pub held: Arc<dyn Held>,
    /// The name under which leases of shared duties are taken: the id of the data directory.
    pub instance: String,
}

/// See the module. Made once in `daemon.rs`; outlives every restart of the actor.
pub struct ScheduleDesk {
    parts: ScheduleParts,
    duties: Vec<Box<dyn Duty>>,
    slots: Mutex<BTreeMap<&'static str, Slot>>,
    /// One duty at a time: they are chores, and share a database with what matters.
    running: AtomicBool,
    stopping: Arc<AtomicBool>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    last_us: Option<i64>,
    /// After a failure: not before.
    retry_us: Option<i64>,
    asked: bool,
    /// Whether it has been done since the start: before, an earlier run may have left its alert open.
    done: bool,
    status: DutyStatus,
}

/// What became of a duty whose turn had come.
pub(super) enum Turn {
    /// It ran.
    Ran(Result<DutyReport, StoreError>),
    /// Another instance has done it; when, and by whom.
    Elsewhere(SharedRun),
    /// Another instance is doing it.
    Busy,
}

impl fmt::Debug for ScheduleDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScheduleDesk").field("duties", &self.duties.len()).finish_non_exhaustive()
    }
}

impl ScheduleDesk {
    /// A desk over these duties, with the times of their last runs. Blocks: called at the start.
    ///
    /// # Errors
    /// Those of the control store.
    pub fn open(parts: ScheduleParts, duties: Vec<Box<dyn Duty>>) -> StoreResult<Arc<Self>> {
        let runs = parts.control.with(control::last_duty_runs)?;
        // A duty that never ran counts from the start, so that one due at a time of day is not put off for ever.
        let slots =
            duties.iter().map(|duty| (duty.name(), Slot { last_us: runs.get(duty.name()).copied(), ..Slot::default() })).collect();
        let desk = Self {
            parts,
            duties,
            slots: Mutex::new(slots),
            running: AtomicBool::new(false),
            stopping: Arc::new(AtomicBool::new(false)),
        };
        desk.first_due();
        for duty in &desk.duties {
            if let Err(error) = duty.recall(&desk.context(None)) {
                log::warn!(target: "belayd::schedule", duty = duty.name(), error:% = error; "what a duty kept over the restart cannot be read; it begins anew");
            }
        }
        Ok(Arc::new(desk))
    }

    fn first_due(&self) {
        let (now_us, config) = (self.parts.clock.now_us(), self.parts.config.load());
        let mut slots = self.lock();
        for duty in &self.duties {
            if let Some(slot) = slots.get_mut(duty.name()) {
                slot.status.last_run_at_us = slot.last_us;
                slot.status.next_run_at_us = Some(duty.rhythm(&config).due_us(slot.last_us, now_us));
                self.parts.board.set(duty.name(), slot.status.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a duty run as soon as none other does. `false` where no duty has this name.
    pub(super) fn ask(&self, name: &str) -> bool {
        self.lock().get_mut(name).map(|slot| slot.asked = true).is_some()
    }

    /// The configuration changed: what is due when is reckoned anew.
    pub(super) fn reckon(&self) {
        let (now_us, config) = (self.parts.clock.now_us(), self.parts.config.load());
        let mut slots = self.lock();
        for duty in &self.duties {
            if let Some(slot) = slots.get_mut(duty.name()) {
                let due_us = duty.rhythm(&config).due_us(slot.last_us, now_us);
                slot.status.next_run_at_us = Some(slot.retry_us.map_or(due_us, |retry_us| retry_us.max(due_us)));
                self.parts.board.set(duty.name(), slot.status.clone());
            }
        }
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// Starts the duty that has waited for longest, where one is due and none runs. What waits for the store waits.
    pub(super) fn work(self: &Arc<Self>) {
        if self.stopping.load(Ordering::Acquire) || self.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let right = Running(self.clone());
        let Some((index, due_us)) = self.next() else { return };
        actix::spawn(async move {
            right.0.run(index, due_us).await;
            let desk = right.0.clone();
            drop(right);
            desk.work();
        });
    }

    fn next(&self) -> Option<(usize, i64)> {
        let now_us = self.parts.clock.now_us();
        let up = (self.parts.store_is_up)();
        let slots = self.lock();
        let due = self.duties.iter().enumerate().filter_map(|(index, duty)| {
            let slot = slots.get(duty.name())?;
            let due_us = if slot.asked { now_us } else { slot.status.next_run_at_us? };
            (due_us <= now_us && (up || !duty.needs_store())).then_some((index, due_us))
        });
        due.min_by_key(|(_, due_us)| *due_us)
    }

    async fn run(&self, index: usize, due_us: i64) {
        let duty = &self.duties[index];
        let name = duty.name();
        let began_us = self.parts.clock.now_us();
        let lateness_us = began_us.saturating_sub(due_us).max(0);
        if lateness_us >= LATE_US {
            log::info!(target: "belayd::schedule", duty = name, latenessMs = lateness_us / 1_000; "duty begins late");
        }
        let mut asked = false;
        self.update(name, |slot| {
            asked = std::mem::take(&mut slot.asked);
            slot.status.running = true;
            slot.status.lateness_us = lateness_us;
        });
        let began = Instant::now();
        let turn = if duty.is_shared() {
            self.run_shared(duty.as_ref(), asked, began_us).await
        } else {
            Turn::Ran(run_caught(duty.as_ref(), &self.context(None)).await)
        };
        match turn {
            Turn::Ran(result) => self.finish(index, began_us, began.elapsed(), &result).await,
            Turn::Elsewhere(last) => self.adopt(index, &last),
            Turn::Busy => {
                let again_us = self.parts.clock.now_us().saturating_add(BUSY_US);
                self.update(name, |slot| {
                    slot.status.running = false;
                    slot.status.next_run_at_us = Some(again_us);
                });
            }
        }
    }

    /// Another instance did it: its run counts as one of ours, and what it found is shown here too.
    fn adopt(&self, index: usize, last: &SharedRun) {
        let duty = &self.duties[index];
        let (now_us, config) = (self.parts.clock.now_us(), self.parts.config.load_full());
        let (mut failures, mut first) = (0, false);
        self.update(duty.name(), |slot| {
            (failures, first) = (slot.status.failures, !slot.done);
            slot.done = true;
            slot.last_us = Some(last.last_run_at_us);
            slot.retry_us = None;
            slot.status.running = false;
            slot.status.failures = 0;
            slot.status.last_run_at_us = slot.last_us;
            slot.status.outcome = Some(format!("{} (by instance {})", last.outcome, last.instance));
            slot.status.next_run_at_us = Some(duty.rhythm(&config).due_us(slot.last_us, now_us).saturating_add(GRACE_US));
        });
        self.tell(duty.name(), failures, (true, first), &last.outcome);
        if let Some(result) = &last.result {
            let conditions = duty.adopt(&self.context(None), result);
            if !conditions.is_empty() {
                (self.parts.raise)(conditions);
            }
        }
    }

    pub(super) fn parts(&self) -> &ScheduleParts {
        &self.parts
    }

    pub(super) fn context(&self, lease: Option<Lease>) -> DutyContext {
        let parts = &self.parts;
        DutyContext {
            store: parts.store.clone(),
            control: parts.control.clone(),
            tokens: parts.tokens.clone(),
            config: parts.config.load_full(),
            clock: parts.clock.clone(),
            board: parts.board.clone(),
            metrics: parts.metrics.clone(),
            stopping: self.stopping.clone(),
            held: parts.held.clone(),
            lease,
            lost: AtomicBool::new(false),
        }
    }

    async fn finish(&self, index: usize, began_us: i64, took: Duration, result: &Result<DutyReport, StoreError>) {
        let duty = &self.duties[index];
        let name = duty.name();
        let outcome = match result {
            Ok(report) => {
                log::info!(target: "belayd::schedule", duty = name, durationMs = took.as_millis() as u64, did:% = report; "duty done");
                report.to_string()
            }
            Err(error) => {
                log::warn!(target: "belayd::schedule", duty = name, durationMs = took.as_millis() as u64, error:% = error; "duty failed");
                error.to_string()
            }
        };
        let (now_us, config) = (self.parts.clock.now_us(), self.parts.config.load_full());
        let (mut failures, mut first) = (0, false);
        self.update(name, |slot| {
            failures = slot.status.failures;
            first = !slot.done;
            slot.done |= result.is_ok();
            slot.status.running = false;
            slot.status.outcome = Some(outcome.clone());
            if result.is_ok() {
                slot.last_us = Some(began_us);
                slot.retry_us = None;
                slot.status.failures = 0;
                slot.status.last_run_at_us = Some(began_us);
                slot.status.next_run_at_us = Some(duty.rhythm(&config).due_us(Some(began_us), now_us));
            } else {
                slot.retry_us = Some(now_us.saturating_add(RETRY_US));
                slot.status.failures = failures.saturating_add(1);
                slot.status.next_run_at_us = slot.retry_us;
            }
        });
        self.tell(name, failures, (result.is_ok(), first), &outcome);
        if let Ok(report) = result
            && !report.conditions.is_empty()
        {
            (self.parts.raise)(report.conditions.clone());
        }
        if result.is_ok() {
            let noted = self.parts.control.call(move |conn| control::record_duty_run(conn, name, began_us, &outcome)).await;
            if let Err(error) = noted {
                // After a restart it runs again, which is harmless.
                log::warn!(target: "belayd::schedule", duty = name, error:% = error; "the run of a duty was not written down");
            }
        }
    }

    /// `first`: it had not been done since the start.
    fn tell(&self, name: &str, failures_before: u32, (done, first): (bool, bool), outcome: &str) {
        let firing = !done && failures_before + 1 == FAILURES_TOLD;
        let over = done && (first || failures_before >= FAILURES_TOLD);
        if !firing && !over {
            return;
        }
        let now_us = self.parts.clock.now_us();
        let text = if firing {
            format!("the periodic duty {name} failed {FAILURES_TOLD} times in a row: {outcome}")
        } else {
            format!("the periodic duty {name} works")
        };
        (self.parts.raise)(vec![Transition::system((DUTY_FAILED, name), Level::Warning, firing, text, now_us)]);
    }

    fn update(&self, name: &'static str, change: impl FnOnce(&mut Slot)) {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(name) {
            change(slot);
            self.parts.board.set(name, slot.status.clone());
        }
    }
}

/// Runs a duty; its panic is a failure like any other.
pub(super) async fn run_caught(duty: &dyn Duty, context: &DutyContext) -> Result<DutyReport, StoreError> {
    match AssertUnwindSafe(duty.run_once(context)).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(StoreError::other("the duty panicked; see the line above")),
    }
}

/// The right to run a duty. Given back however the task ends.
struct Running(Arc<ScheduleDesk>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}
