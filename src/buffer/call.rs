//! The call to the database or to the medium that the drain is in, seen from outside: a call that has no end is an outage of the database
//! or of the disk, not a hang of ours, and nobody else could tell, because the drain's own thread is inside it.
//!
//! In: begin and end of each call. Out: word of it when a call takes too long, and signs of life meanwhile. A crash loses nothing
//! here.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A database that has not answered for this long counts as away, a disk as one that does not give what waits. Longer than SQLite's wait
/// for a lock and any healthy batch.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Call(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since: Option<Instant>,
    /// When the last one began, also after its end.
    began: Option<Instant>,
    /// Whether it was told of this call that it takes too long.
    told: bool,
}

impl Call {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` under watch.
    pub(super) fn watched<T>(&self, call: impl FnOnce() -> T) -> T {
        let now = Some(Instant::now());
        *self.lock() = State { since: now, began: now, told: false };
        let result = call();
        self.forget();
        result
    }

    /// No call is under way.
    pub(super) fn forget(&self) {
        let mut state = self.lock();
        (state.since, state.told) = (None, false);
    }

    /// When the call began that is under way or ended last; now where there was none.
    pub(super) fn began(&self) -> Instant {
        self.lock().began.unwrap_or_else(Instant::now)
    }

    /// One look at the call in flight, if there is one: it is a sign of life, and once it has been silent for `silence` that is told, with
    /// its beginning. The lock is held meanwhile, so that what the end of the call tells comes after.
    pub(super) fn look(&self, silence: Duration, alive: impl FnOnce(), silent: impl FnOnce(Instant)) {
        let mut state = self.lock();
        let Some(since) = state.since else { return };
        alive();
        if !state.told && since.elapsed() >= silence {
            state.told = true;
            silent(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_an_end_is_an_outage_told_once_and_no_hang() {
        let (call, mut alive, mut outages) = (Call::default(), 0, 0);
        let mut look = |call: &Call, silence| call.look(silence, || alive += 1, |_| outages += 1);
        look(&call, Duration::ZERO);
        call.watched(|| {
            look(&call, Duration::from_secs(60));
            look(&call, Duration::ZERO);
            look(&call, Duration::ZERO);
        });
        look(&call, Duration::ZERO);
        assert_eq!((alive, outages), (3, 1), "a drain that is in no call speaks for itself");
    }
}
