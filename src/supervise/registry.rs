//! Who is there and how they are: read by the page, `/admin/actors`, the metrics and the overseer.
//! In: vitals of actors and stamps of loops, registered once at their start. Out: serializable statuses, orders by name.

use std::sync::{
    Arc, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering::*},
};
use std::time::Duration;

use actix::prelude::*;

use super::{
    Service,
    mailbox::{Counted, Courier, Due},
    vitals::{ActorState, Reason, Vitals, monotonic_ms},
};
use crate::protocol::{Drain, Heartbeat, Reconfigure};

/// Restarts by their reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartsByReason {
    /// A handler, a timer or the factory panicked.
    pub panic: u64,
    /// It stopped itself.
    pub stop: u64,
    /// It made no progress while its thread turned.
    pub hang: u64,
    /// Someone asked for it.
    pub requested: u64,
}

/// How one actor is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActorStatus {
    /// For example `IngestActor`.
    pub name: &'static str,
    /// What it is doing.
    pub state: ActorState,
    /// How often it has begun a fresh life.
    pub generation: u64,
    /// Restarts for any reason.
    pub restarts: u64,
    /// The same by reason.
    pub restarts_by_reason: RestartsByReason,
    /// From the last failure noticed to the first turn of the fresh life, milliseconds; 0 where there was none.
    pub last_restart_ms: f64,
    /// Messages that wait.
    pub mailbox_depth: usize,
    /// Most messages that may wait.
    pub mailbox_bound: usize,
    /// Milliseconds since it last handled a message, heartbeats included.
    pub last_progress_ms: u64,
}

/// How one loop that is no actor is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoopStatus {
    /// For example `drain`.
    pub name: String,
    /// Milliseconds since it last turned.
    pub last_progress_ms: u64,
    /// Silence after which it counts as stuck, milliseconds.
    pub limit_ms: u64,
}

/// One actor as the registry holds it: its vitals and the ways into its mailbox that every actor has.
pub(super) struct Entry {
    pub(super) vitals: Arc<Vitals>,
    pub(super) thread: actix::ArbiterHandle,
    heartbeat: Recipient<Counted<Heartbeat>>,
    drain: Recipient<Counted<Drain>>,
    reconfigure: Courier<Reconfigure>,
    #[cfg(feature = "fault-injection")]
    fault: Recipient<crate::protocol::Fault>,
}

impl Entry {
    pub(super) fn new<A: Service>(addr: &Addr<A>, vitals: Arc<Vitals>, thread: actix::ArbiterHandle) -> Self {
        Self {
            heartbeat: addr.clone().recipient(),
            drain: addr.clone().recipient(),
            reconfigure: Courier::to_actor(addr.clone(), vitals.clone()),
            #[cfg(feature = "fault-injection")]
            fault: addr.clone().recipient(),
            vitals,
            thread,
        }
    }

    /// Sends a heartbeat unless one is on its way.
    pub(super) fn send_heartbeat(&self) {
        if self.vitals.take_heartbeat() {
            self.heartbeat.do_send(Counted::unseated(Heartbeat, self.vitals.clone(), Due::Heartbeat));
        }
    }

    /// Asks the thread whether it turns, unless that question is open.
    pub(super) fn ask_thread(&self) {
        if self.vitals.take_turn_question() {
            let vitals = self.vitals.clone();
            self.thread.spawn_fn(move || vitals.thread_turned());
        }
    }

    pub(super) fn send_drain(&self, drain: Drain) {
        self.drain.do_send(Counted::unseated(drain, self.vitals.clone(), Due::Nothing));
    }

    fn status(&self, now_ms: u64) -> ActorStatus {
        let vitals = &self.vitals;
        let by_reason = RestartsByReason {
            panic: vitals.restarts(Reason::Panic),
            stop: vitals.restarts(Reason::Stop),
            hang: vitals.restarts(Reason::Hang),
            requested: vitals.restarts(Reason::Requested),
        };
        ActorStatus {
            name: vitals.name(),
            state: vitals.state(),
            generation: vitals.generation(),
            restarts: by_reason.panic + by_reason.stop + by_reason.hang + by_reason.requested,
            restarts_by_reason: by_reason,
            last_restart_ms: vitals.last_restart().as_secs_f64() * 1e3,
            mailbox_depth: vitals.depth(),
            mailbox_bound: vitals.bound(),
            last_progress_ms: now_ms.saturating_sub(vitals.progress_ms()),
        }
    }
}

/// The stamp of a loop that is no actor.
#[derive(Debug)]
pub(super) struct LoopEntry {
    pub(super) name: String,
    pub(super) limit_ms: u64,
    pub(super) beat_ms: AtomicU64,
}

/// Held by a loop that is no actor (the drain thread, an HTTP worker): it must call [`beat`](Self::beat) more often than its limit.
/// Dropping it says that the loop ended in good order; dropping it in a panic leaves the stamp behind to grow old, so that a loop
/// that died is noticed like one that hangs.
#[derive(Debug)]
pub struct LoopStamp {
    entry: Arc<LoopEntry>,
    registry: Arc<ActorRegistry>,
}

impl LoopStamp {
    /// The loop turned.
    pub fn beat(&self) {
        self.entry.beat_ms.store(monotonic_ms(), Release);
    }
}

impl Drop for LoopStamp {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.registry.forget_loop(&self.entry);
        }
    }
}

/// Everyone who is supervised. Reading takes an uncontended lock and a few atomic loads.
#[derive(Default)]
pub struct ActorRegistry {
    actors: RwLock<Vec<Arc<Entry>>>,
    loops: RwLock<Vec<Arc<LoopEntry>>>,
    draining: AtomicBool,
}

impl std::fmt::Debug for ActorRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.statuses()).finish()
    }
}

impl ActorRegistry {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// All actors, in the order of their start.
    pub fn statuses(&self) -> Vec<ActorStatus> {
        let now_ms = monotonic_ms();
        self.entries().iter().map(|entry| entry.status(now_ms)).collect()
    }

    /// One actor.
    pub fn status(&self, name: &str) -> Option<ActorStatus> {
        self.find(name).map(|entry| entry.status(monotonic_ms()))
    }

    /// All loops.
    pub fn loops(&self) -> Vec<LoopStatus> {
        let now_ms = monotonic_ms();
        let status = |entry: &Arc<LoopEntry>| LoopStatus {
            name: entry.name.clone(),
            last_progress_ms: now_ms.saturating_sub(entry.beat_ms.load(Acquire)),
            limit_ms: entry.limit_ms,
        };
        self.loop_entries().iter().map(status).collect()
    }

    /// Asks for a restart by name, in place: its mailbox stays. False where there is no such actor or it has stopped for good.
    pub fn restart(&self, name: &str) -> bool {
        let Some(entry) = self.find(name).filter(|entry| entry.vitals.state() != ActorState::Stopped) else { return false };
        entry.vitals.request_restart(Reason::Requested);
        true
    }

    /// Hands a new configuration to every actor, and returns the names of those whose mailbox did not take it: send it again.
    pub fn reconfigure(&self, reconfigure: &Reconfigure) -> Vec<&'static str> {
        let entries = self.entries();
        let refused = entries.iter().filter(|entry| entry.reconfigure.try_send(reconfigure.clone()).is_err());
        refused.map(|entry| entry.vitals.name()).collect()
    }

    /// Makes an actor fail. False where there is no such actor.
    #[cfg(feature = "fault-injection")]
    pub fn inject(&self, name: &str, fault: crate::protocol::Fault) -> bool {
        self.find(name).is_some_and(|entry| {
            entry.fault.do_send(fault);
            true
        })
    }

    /// Registers a loop that promises to beat more often than every `limit`, which must exceed the longest call that the loop may
    /// block in (for example a statement's timeout).
    pub fn register_loop(self: &Arc<Self>, name: impl Into<String>, limit: Duration) -> LoopStamp {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let entry = Arc::new(LoopEntry { name: name.into(), limit_ms, beat_ms: AtomicU64::new(monotonic_ms()) });
        self.loops.write().unwrap_or_else(|poisoned| poisoned.into_inner()).push(entry.clone());
        LoopStamp { entry, registry: self.clone() }
    }

    fn forget_loop(&self, gone: &Arc<LoopEntry>) {
        let mut loops = self.loops.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        loops.retain(|entry| !Arc::ptr_eq(entry, gone));
    }

    /// The ordered stop has begun.
    pub(super) fn begin_drain(&self) {
        self.draining.store(true, Release);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Acquire)
    }

    pub(super) fn add(&self, entry: Entry) {
        self.actors.write().unwrap_or_else(|poisoned| poisoned.into_inner()).push(Arc::new(entry));
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.actors.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(super) fn loop_entries(&self) -> Vec<Arc<LoopEntry>> {
        self.loops.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries().into_iter().find(|entry| entry.vitals.name() == name)
    }
}
