//! Hears of deliveries that other processes commit: a thread that waits for PostgreSQL's notifications, on a connection of its own.
//!
//! In: notifications. Out: wake-ups. A notification that is lost, because the connection is away or a pooler between does not pass them
//! on, costs one poll interval. A crash loses nothing.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    thread,
    time::Duration,
};

use super::state::Outbox;
use crate::store::{Backend, StoreResult, deliveries, listen::Listener};

/// Longest wait for a notification before looking whether anybody still wants to hear.
const LOOK: Duration = Duration::from_secs(2);
/// From one attempt to connect to the next.
const AGAIN: Duration = Duration::from_secs(2);

/// Starts the thread for this side, unless it runs or the store has one process only.
pub(super) fn start(outbox: &Arc<Outbox>, at: usize) {
    let side = &outbox.sides[at];
    if side.store.backend() != Backend::Postgres || side.listens.swap(true, Ordering::AcqRel) {
        return;
    }
    let weak = Arc::downgrade(outbox);
    let started = thread::Builder::new().name("outbox-listen".to_owned()).spawn(move || {
        while let Some(pause) = listen(&weak, at) {
            thread::park_timeout(pause);
        }
    });
    if let Err(error) = started {
        side.listens.store(false, Ordering::Release);
        log::warn!(target: "belayd::outbox", error:% = error; "no thread to hear of new deliveries; the poll finds them");
    }
}

/// Listens until the connection ends; then how long to wait before the next try, or `None` where nobody wants to hear any more.
fn listen(weak: &Weak<Outbox>, at: usize) -> Option<Duration> {
    let connect = || -> Option<StoreResult<Listener>> {
        let outbox = weak.upgrade().filter(|outbox| !outbox.stopping.load(Ordering::Acquire))?;
        let side = &outbox.sides[at];
        (side.is_up)().then(|| side.store.listen(deliveries::CHANNEL))
    };
    weak.upgrade().filter(|outbox| !outbox.stopping.load(Ordering::Acquire))?;
    let Some(connected) = connect() else { return Some(AGAIN) };
    let result = connected.and_then(|mut listener| {
        let mut heard = true; // Whatever came before it listened.
        loop {
            let Some(outbox) = weak.upgrade().filter(|outbox| !outbox.stopping.load(Ordering::Acquire)) else { return Ok(()) };
            if heard {
                outbox.watch.touch();
                outbox.sides[at].wake.notify_one();
            }
            drop(outbox);
            heard = listener.wait(LOOK)?;
        }
    });
    if let Err(error) = result {
        log::debug!(target: "belayd::outbox", error:% = error; "new deliveries of other processes are not heard of; the poll finds them");
    }
    Some(AGAIN)
}
