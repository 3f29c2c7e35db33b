//! One plain thread that looks at everyone a few times a second, depends on no runtime, and alone feeds the watchdog.
//!
//! In: vitals and loop stamps of the registry. Out: heartbeats; a restart in place for an actor that makes no progress while its
//! thread turns; `WATCHDOG=1` while everyone progresses; silence, and without systemd the end of the process, when a thread or loop
//! is stuck, because synchronous code cannot be interrupted from outside. A crash of this thread ends the process: nobody would see
//! the next hang.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::*},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    registry::ActorRegistry,
    vitals::{ActorState, Reason, Vitals, monotonic_ms},
};
use crate::systemd::Notifier;

/// Longest time between two looks.
const LOOK_MS: u64 = 250;

/// Ends the process; replaced in tests.
type Exit = Box<dyn Fn(&[String]) + Send>;

/// The running overseer; dropping it ends the thread.
#[derive(Debug)]
pub struct Overseer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Overseer {
    /// Starts the thread. `hang_after` is `supervision.hang_after`.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(registry: Arc<ActorRegistry>, hang_after: Duration, notifier: Notifier) -> std::io::Result<Self> {
        let exit = |stuck: &[String]| {
            log::error!(target: "belayd::supervise", stuck = stuck.join(","); "stuck and cannot be restarted: the process ends");
            log::logger().flush();
            std::process::exit(1);
        };
        Self::start_with(registry, hang_after, notifier, Box::new(exit))
    }

    pub(super) fn start_with(
        registry: Arc<ActorRegistry>,
        hang_after: Duration,
        notifier: Notifier,
        exit: Exit,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut watch = Watch::new(registry, millis(hang_after), notifier, exit);
        let stopped = stop.clone();
        let look = move || {
            while !stopped.load(Acquire) {
                if catch_unwind(AssertUnwindSafe(|| watch.look(monotonic_ms()))).is_err() {
                    return (watch.exit)(&["overseer".to_owned()]);
                }
                thread::park_timeout(Duration::from_millis(watch.look_ms));
            }
        };
        let thread = thread::Builder::new().name("overseer".into()).spawn(look)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Overseer {
    fn drop(&mut self) {
        self.stop.store(true, Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// What one look says about one actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It progresses, or has a reason not to.
    Fine,
    /// Its thread turns and it does not.
    Stalled,
    /// Its thread does not turn.
    Stuck,
}

/// Pure: ages in milliseconds against the limit.
pub(super) fn judge(state: ActorState, progress_age_ms: u64, turn_age_ms: u64, limit_ms: u64) -> Verdict {
    match state {
        ActorState::Stopped => Verdict::Fine,
        _ if turn_age_ms > limit_ms => Verdict::Stuck,
        ActorState::Running | ActorState::Stalled if progress_age_ms > limit_ms => Verdict::Stalled,
        _ => Verdict::Fine,
    }
}

/// The state of the thread.
struct Watch {
    registry: Arc<ActorRegistry>,
    hang_ms: u64,
    look_ms: u64,
    notifier: Notifier,
    exit: Exit,
    last_look_ms: u64,
    /// Stamps older than this are no evidence: the whole process was asleep until then.
    awake_ms: u64,
    last_ping_ms: Option<u64>,
    stuck_since_ms: Option<u64>,
}

impl Watch {
    fn new(registry: Arc<ActorRegistry>, hang_ms: u64, notifier: Notifier, exit: Exit) -> Self {
        let now_ms = monotonic_ms();
        let watchdog_ms = notifier.watchdog().map_or(u64::MAX, millis);
        let look_ms = LOOK_MS.min(hang_ms / 4).min(watchdog_ms / 8).max(1);
        Self {
            registry,
            hang_ms,
            look_ms,
            notifier,
            exit,
            last_look_ms: now_ms,
            awake_ms: now_ms,
            last_ping_ms: None,
            stuck_since_ms: None,
        }
    }

    fn look(&mut self, now_ms: u64) {
        // A process that was stopped (SIGSTOP, a paused machine) wakes with every stamp old: nobody hung, all slept.
        if now_ms.saturating_sub(self.last_look_ms) > 4 * self.look_ms + 1_000 {
            self.awake_ms = now_ms;
        }
        self.last_look_ms = now_ms;
        let draining = self.registry.is_draining();
        let mut stuck = Vec::new();
        let mut progressing = true;
        for entry in self.registry.entries() {
            match self.judge_actor(&entry.vitals, now_ms) {
                Verdict::Fine => entry.vitals.leave_stalled(),
                Verdict::Stalled if draining => {}
                Verdict::Stalled => {
                    progressing = false;
                    self.restart_stalled(&entry.vitals, now_ms);
                }
                Verdict::Stuck => {
                    entry.vitals.enter_stalled();
                    stuck.push(entry.vitals.name().to_owned());
                }
            }
            entry.ask_thread();
            entry.send_heartbeat();
        }
        for entry in self.registry.loop_entries() {
            if self.age(entry.beat_ms.load(Acquire), now_ms) > entry.limit_ms {
                stuck.push(entry.name.clone());
            }
        }
        if progressing && (stuck.is_empty() || draining) {
            self.ping(now_ms);
        }
        self.count_stuck(&stuck, draining, now_ms);
    }

    /// Milliseconds since `stamp_ms`, at most since the process was last seen awake.
    fn age(&self, stamp_ms: u64, now_ms: u64) -> u64 {
        now_ms.saturating_sub(stamp_ms.max(self.awake_ms))
    }

    fn judge_actor(&self, vitals: &Vitals, now_ms: u64) -> Verdict {
        let (progress, turn) = (self.age(vitals.progress_ms(), now_ms), self.age(vitals.turn_ms(), now_ms));
        judge(vitals.state(), progress, turn, self.hang_ms)
    }

    fn restart_stalled(&self, vitals: &Vitals, now_ms: u64) {
        if vitals.state() != ActorState::Stalled {
            let silent_ms = self.age(vitals.progress_ms(), now_ms);
            log::error!(target: "belayd::supervise", actor = vitals.name(), silentMs = silent_ms; "actor makes no progress while its thread turns");
        }
        vitals.enter_stalled();
        vitals.request_restart(Reason::Hang);
    }

    fn ping(&mut self, now_ms: u64) {
        let Some(watchdog) = self.notifier.watchdog() else { return };
        // A quarter of the limit: one ping may come a look late and another get lost.
        let due_ms = millis(watchdog) / 4;
        if self.last_ping_ms.is_none_or(|last| now_ms.saturating_sub(last) + self.look_ms > due_ms) {
            self.notifier.watchdog_ping();
            self.last_ping_ms = Some(now_ms);
        }
    }

    fn count_stuck(&mut self, stuck: &[String], draining: bool, now_ms: u64) {
        if stuck.is_empty() || draining {
            self.stuck_since_ms = None;
            return;
        }
        if self.stuck_since_ms.is_none() {
            log::error!(target: "belayd::supervise", stuck = stuck.join(","), watchdog = self.notifier.watchdog().is_some();
                "a thread does not turn: no sign of life is given until it does");
        }
        let since_ms = *self.stuck_since_ms.get_or_insert(now_ms);
        // With a watchdog systemd ends the process, and keeps a core dump of where it is stuck.
        if self.notifier.watchdog().is_none() && now_ms.saturating_sub(since_ms) > self.hang_ms {
            (self.exit)(stuck);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_backs_off_need_not_progress_but_its_thread_must_turn() {
        use ActorState::*;
        assert_eq!(judge(Running, 100, 100, 100), Verdict::Fine);
        assert_eq!(judge(Running, 101, 100, 100), Verdict::Stalled);
        assert_eq!(judge(Stalled, 101, 0, 100), Verdict::Stalled);
        assert_eq!(judge(Backoff, 999, 0, 100), Verdict::Fine);
        assert_eq!(judge(Backoff, 999, 101, 100), Verdict::Stuck);
        assert_eq!(judge(Running, 999, 101, 100), Verdict::Stuck);
        assert_eq!(judge(Stopped, 999, 999, 100), Verdict::Fine);
    }

    #[test]
    fn a_process_that_was_stopped_for_an_hour_wakes_without_a_verdict() {
        let registry = ActorRegistry::new();
        let _stamp = registry.register_loop("drain", Duration::from_secs(10));
        let exit = |stuck: &[String]| panic!("{stuck:?}");
        let mut watch = Watch::new(registry, 1_000, Notifier::default(), Box::new(exit));
        let began = watch.last_look_ms;
        watch.look(began + 250);
        watch.look(began + 3_600_000);
        assert!(watch.stuck_since_ms.is_none());
        // From here on it counts that it still does not turn.
        for look in 1..=40 {
            watch.look(began + 3_600_000 + look * 250);
        }
        assert!(watch.stuck_since_ms.is_none());
        watch.look(began + 3_600_000 + 10_250);
        assert!(watch.stuck_since_ms.is_some());
    }
}
