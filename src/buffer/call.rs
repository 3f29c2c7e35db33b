//! The call to the database that the drain is in, seen from outside: a call that has no end is an outage of the database, not a
//! hang of ours, and nobody else could tell, because the drain's own thread is inside it.
//!
//! In: begin and end of each call. Out: [`HealthChange::Down`] when a call takes too long, and signs of life meanwhile. A crash
//! loses nothing here.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::drain::{HealthChange, Observer, WriteFailed};

/// A database that has not answered for this long counts as away. Longer than SQLite's wait for a lock and any healthy batch.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Call(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    /// When this call was told of as an outage.
    told: Option<Instant>,
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` under watch. The moment is given at which it was told of as an outage, where it was.
    pub(super) fn watched<T>(&self, call: impl FnOnce() -> T) -> (T, Option<Instant>) {
        *self.lock() = State { since: Some(Instant::now()), told: None };
        let result = call();
        (result, std::mem::take(&mut *self.lock()).told)
    }

    /// Forgets a call that ended in a panic; the moment is given at which it was told of as an outage, where it was.
    pub(super) fn forget(&self) -> Option<Instant> {
        std::mem::take(&mut *self.lock()).told
    }

    /// One look at the call in flight, if there is one. The lock is held while it is told of, so that the end of the call comes after.
    pub(super) fn look(&self, observer: &dyn Observer, silence: Duration, waiting: impl FnOnce() -> u64) {
        let mut state = self.lock();
        let Some(since) = state.since else { return };
        observer.alive();
        if state.told.is_none() && since.elapsed() >= silence {
            state.told = Some(since);
            let message = format!("no answer for {} s; it may be stopped or stuck", silence.as_secs());
            let cause = WriteFailed { transient: true, code: None, message };
            observer.health(&HealthChange::Down { cause, waiting: waiting() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::DrainOutcome;

    #[derive(Default)]
    struct Seen {
        alive: Mutex<u32>,
        down: Mutex<Vec<u64>>,
    }

    impl Observer for Seen {
        fn alive(&self) {
            *self.alive.lock().expect("no panic") += 1;
        }
        fn settled(&self, _: &DrainOutcome, _: Duration) {}
        fn health(&self, change: &HealthChange) {
            if let HealthChange::Down { waiting, .. } = change {
                self.down.lock().expect("no panic").push(*waiting);
            }
        }
    }

    #[test]
    fn a_call_without_an_end_is_an_outage_told_once_and_no_hang() {
        let (call, seen) = (Call::default(), Seen::default());
        call.look(&seen, Duration::ZERO, || 7);
        assert_eq!(*seen.alive.lock().expect("no panic"), 0, "a drain that is in no call speaks for itself");
        let ((), told) = call.watched(|| {
            call.look(&seen, Duration::from_secs(60), || 7);
            assert!(seen.down.lock().expect("no panic").is_empty(), "not yet");
            call.look(&seen, Duration::ZERO, || 7);
            call.look(&seen, Duration::ZERO, || 8);
        });
        assert_eq!((*seen.alive.lock().expect("no panic"), told.is_some()), (3, true));
        assert_eq!(*seen.down.lock().expect("no panic"), [7]);
        assert!(call.watched(|| ()).1.is_none(), "the next call begins anew");
    }
}
