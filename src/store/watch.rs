//! Calls to PostgreSQL, seen from outside: one whose packets are swallowed while the network acknowledges them has no end of its own,
//! and neither keep-alives nor `TCP_USER_TIMEOUT` notice. The server answers every statement within `statement_timeout`; a connection
//! over which nothing has passed for longer than that is ended, so that its call fails like any other.
//!
//! In: begin and end of each call. Out: hang-ups. A crash loses nothing here: what a call was to write is repeated, and what it had
//! written was one transaction.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use scheduled_thread_pool::ScheduledThreadPool;

use super::socket::Mark;

/// How often calls are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What an answer may take on its way, beyond what the server takes to make it.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Silence of a call that is known to take long: a migration or a backup of a large table.
const PATIENCE: Duration = Duration::from_secs(3_600);

static CALLS: Mutex<BTreeMap<u64, Call>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The call that this thread is in.
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

#[derive(Debug)]
struct Call {
    mark: Arc<Mark>,
    since: Instant,
    silence: Duration,
    given_up: bool,
}

fn calls() -> MutexGuard<'static, BTreeMap<u64, Call>> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to look after calls, once a process.
pub(super) fn start(chores: &ScheduledThreadPool) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| drop(chores.execute_with_fixed_delay(LOOK, LOOK, look)));
}

/// Ends the watch of a call, also where it panics.
struct Watched {
    id: u64,
    /// The call of another connection within which this one was made.
    around: Option<u64>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        CURRENT.set(self.around);
        calls().remove(&self.id);
    }
}

/// Runs `call`, which uses the connection with `mark`, and ends that connection once nothing has passed over it for `silence`. Also says
/// whether that was done.
pub(super) fn watched<T>(mark: &Arc<Mark>, silence: Duration, call: impl FnOnce() -> T) -> (T, bool) {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    calls().insert(id, Call { mark: mark.clone(), since: Instant::now(), silence, given_up: false });
    let watch = Watched { id, around: CURRENT.replace(Some(id)) };
    let result = call();
    let given_up = calls().get(&id).is_some_and(|call| call.given_up);
    drop(watch);
    (result, given_up)
}

/// The call that this thread is in may be silent for an hour: it runs statements without a time-out.
pub(super) fn be_patient() {
    if let Some(id) = CURRENT.get()
        && let Some(call) = calls().get_mut(&id)
    {
        call.silence = PATIENCE;
    }
}

fn look() {
    // Held throughout, so that no call ends, and its socket with it, between the look and what follows from it.
    for call in calls().values_mut() {
        if call.given_up || call.since.elapsed() < call.silence {
            continue;
        }
        let Some(socket) = call.mark.find() else { continue };
        if socket.silent_for().is_some_and(|silent| silent >= call.silence) {
            log::warn!(
                target: "belayd::store",
                silentMs = call.silence.as_millis() as u64, errorType = "hung";
                "a connection to the database stands and says nothing; it is given up"
            );
            socket.hang_up();
            call.given_up = true;
        }
    }
}
