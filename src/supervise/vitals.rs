//! The signs of life of one actor: written by its keeper and its mailbox, read by the overseer, the registry and the web.
//!
//! All atomics, so that reading costs nobody anything. In: stamps and counts. Out: [`ActorState`], ages, counts.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::*},
    task::Waker,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::sync::Semaphore;

/// What an actor is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ActorState {
    /// Built, not yet polled.
    Starting,
    /// Handling messages.
    Running,
    /// Failed; its fresh state waits for the restart.
    Backoff,
    /// No progress for longer than `supervision.hang_after`.
    Stalled,
    /// Stopped for good.
    Stopped,
}

impl ActorState {
    fn from_code(code: u8) -> Self {
        [Self::Starting, Self::Running, Self::Backoff, Self::Stalled].get(usize::from(code)).copied().unwrap_or(Self::Stopped)
    }
}

/// Why an actor was restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Reason {
    /// A handler, a timer or the factory panicked.
    Panic,
    /// It stopped itself.
    Stop,
    /// It made no progress while its thread turned.
    Hang,
    /// Someone asked for it.
    Requested,
}

impl Reason {
    /// All reasons, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Panic, Self::Stop, Self::Hang, Self::Requested];

    /// The name in metrics and in the log.
    pub fn as_str(self) -> &'static str {
        ["panic", "stop", "hang", "requested"][self as usize]
    }
}

/// No restart is asked for; other values are 1 + the code of a [`Reason`].
const NO_REQUEST: u8 = 0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Vitals {
    name: &'static str,
    bound: usize,
    seats: Semaphore,
    state: AtomicU8,
    generation: AtomicU64,
    restarts: [AtomicU64; 4],
    last_restart_us: AtomicU64,
    progress_ms: AtomicU64,
    turn_ms: AtomicU64,
    heartbeat_out: AtomicBool,
    turn_out: AtomicBool,
    served: AtomicU32,
    handled: AtomicU32,
    retiring: AtomicBool,
    request: AtomicU8,
    waker: AtomicWaker,
}

impl Vitals {
    pub(super) fn new(name: &'static str, bound: usize) -> Self {
        let bound = bound.max(1);
        let now_ms = monotonic_ms();
        Self {
            name,
            bound,
            seats: Semaphore::new(bound),
            state: AtomicU8::new(ActorState::Starting as u8),
            generation: AtomicU64::new(0),
            restarts: Default::default(),
            last_restart_us: AtomicU64::new(0),
            progress_ms: AtomicU64::new(now_ms),
            turn_ms: AtomicU64::new(now_ms),
            heartbeat_out: AtomicBool::new(false),
            turn_out: AtomicBool::new(false),
            served: AtomicU32::new(0),
            handled: AtomicU32::new(0),
            retiring: AtomicBool::new(false),
            request: AtomicU8::new(NO_REQUEST),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    pub(super) fn seats(&self) -> &Semaphore {
        &self.seats
    }

    /// Messages that wait.
    pub(super) fn depth(&self) -> usize {
        self.bound.saturating_sub(self.seats.available_permits())
    }

    pub(super) fn state(&self) -> ActorState {
        ActorState::from_code(self.state.load(Acquire))
    }

    pub(super) fn set_state(&self, state: ActorState) {
        self.state.store(state as u8, Release);
    }

    /// Back from [`ActorState::Stalled`], unless the keeper has said something else meanwhile.
    pub(super) fn leave_stalled(&self) {
        let (from, to) = (ActorState::Stalled as u8, ActorState::Running as u8);
        let _ = self.state.compare_exchange(from, to, AcqRel, Acquire);
    }

    /// Into [`ActorState::Stalled`], unless the keeper has said something else meanwhile.
    pub(super) fn enter_stalled(&self) {
        let (from, to) = (ActorState::Running as u8, ActorState::Stalled as u8);
        let _ = self.state.compare_exchange(from, to, AcqRel, Acquire);
    }

    /// It is being drained: when it stops itself now, that is its end and no failure.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Release);
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retiring.load(Acquire)
    }

    /// Restarts so far.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    pub(super) fn restarts(&self, reason: Reason) -> u64 {
        self.restarts[reason as usize].load(Relaxed)
    }

    /// Counts a failure when it is noticed.
    pub(super) fn count_restart(&self, reason: Reason) {
        self.restarts[reason as usize].fetch_add(1, Relaxed);
    }

    /// Notes that a fresh life has begun, `took` after the failure was noticed.
    pub(super) fn restarted(&self, took: Duration) {
        self.last_restart_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        self.generation.fetch_add(1, AcqRel);
        self.stamp_progress();
    }

    /// From the last failure noticed to the first turn of the fresh life.
    pub(super) fn last_restart(&self) -> Duration {
        Duration::from_micros(self.last_restart_us.load(Relaxed))
    }

    pub(super) fn stamp_progress(&self) {
        self.progress_ms.store(monotonic_ms(), Release);
    }

    /// Stamps a handled message and returns how many this turn has had. Only the actor's thread calls it.
    pub(super) fn stamp_served(&self) -> u32 {
        self.stamp_progress();
        self.handled.store(self.handled.load(Relaxed).wrapping_add(1), Relaxed);
        let served = self.served.load(Relaxed).saturating_add(1);
        self.served.store(served, Relaxed);
        served
    }

    /// Messages handled so far, modulo 2^32.
    pub(super) fn handled(&self) -> u32 {
        self.handled.load(Relaxed)
    }

    /// A new turn of the actor's thread begins.
    pub(super) fn turn_began(&self) {
        self.served.store(0, Relaxed);
    }

    /// When a message was last handled, monotonic milliseconds.
    pub(super) fn progress_ms(&self) -> u64 {
        self.progress_ms.load(Acquire)
    }

    /// When the thread last showed that it turns: by the overseer's question, or by a message handled on it.
    pub(super) fn turn_ms(&self) -> u64 {
        self.turn_ms.load(Acquire).max(self.progress_ms())
    }

    /// Claims the right to send a heartbeat; false while one is on its way.
    pub(super) fn take_heartbeat(&self) -> bool {
        !self.heartbeat_out.swap(true, AcqRel)
    }

    pub(super) fn heartbeat_returned(&self) {
        self.heartbeat_out.store(false, Release);
    }

    /// Claims the right to ask the thread whether it turns; false while that question is open.
    pub(super) fn take_turn_question(&self) -> bool {
        !self.turn_out.swap(true, AcqRel)
    }

    pub(super) fn thread_turned(&self) {
        self.turn_ms.store(monotonic_ms(), Release);
        self.turn_out.store(false, Release);
    }

    /// Asks the keeper for a restart. The first request wins until it is served.
    pub(super) fn request_restart(&self, reason: Reason) {
        let _ = self.request.compare_exchange(NO_REQUEST, 1 + reason as u8, AcqRel, Acquire);
        self.waker.wake();
    }

    /// The restart that is asked for, once.
    pub(super) fn take_request(&self, waker: &Waker) -> Option<Reason> {
        self.waker.register(waker);
        let code = self.request.swap(NO_REQUEST, AcqRel);
        usize::from(code).checked_sub(1).and_then(|index| Reason::ALL.get(index)).copied()
    }
}

/// Monotonic milliseconds. The coarse clock: a tick of at most 4 ms is exact enough for ages of seconds, and it costs a fraction of
/// the exact one on the path of every message.
pub(super) fn monotonic_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that lives over the call; the clock id exists since Linux 2.6.32. A failure leaves zeros.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}
