//! What the threads of the tier share, and how they wake each other.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    RedisObserver, RedisSettings,
    books::Books,
    commit::{Order, Queue, Submitted},
    entry::Keys,
    health::Health,
    lane::LaneSide,
    link::LinkError,
    others::Others,
};
use crate::{
    buffer::{Buffer, OnVisible},
    domain::ack::AckLevel,
};

/// What submitters, commit thread, keeper and drains share.
pub(in crate::buffer) struct Core {
    pub(in crate::buffer) settings: RedisSettings,
    pub(in crate::buffer) keys: Keys,
    pub(super) inner: Arc<dyn Buffer>,
    pub(super) observer: Arc<dyn RedisObserver>,
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    /// Redis takes batches.
    pub(super) up: AtomicBool,
    /// Redis can be read: also while it takes none, for want of memory or of replicas.
    pub(super) readable: AtomicBool,
    pub(in crate::buffer) full: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) ended: AtomicBool,
    pub(super) health: Mutex<Health>,
    pub(in crate::buffer) books: Mutex<Books>,
    pub(super) lanes: Vec<Mutex<LaneSide>>,
    /// Streams of earlier lives have been looked for.
    pub(super) found: AtomicBool,
    /// They are to be looked for once more.
    pub(in crate::buffer) look_again: AtomicBool,
    /// Whether this instance drains its own streams: not while another has taken it for dead.
    pub(super) may_drain: AtomicBool,
    /// Streams of other instances, as the keeper saw them last.
    pub(super) others: Mutex<Others>,
    /// Dead ones whose streams are to be taken over.
    pub(super) take_over: Mutex<Vec<String>>,
    pub(super) on_visible: OnceLock<Arc<OnVisible>>,
    pub(super) keeper: (Mutex<bool>, Condvar),
}

pub(in crate::buffer) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing below these locks panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(in crate::buffer) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(in crate::buffer) fn is_readable(&self) -> bool {
        self.readable.load(Ordering::Acquire)
    }

    /// How many lanes are drained from Redis; the journal's follow.
    pub(in crate::buffer) fn own_lanes(&self) -> usize {
        self.lanes.len()
    }

    /// The lane of streams that were begun before this life, or elsewhere.
    pub(super) fn heritage(&self) -> usize {
        self.settings.streams
    }

    /// The journal takes these, and answers.
    pub(super) fn divert(&self, submitted: impl IntoIterator<Item = Submitted>) {
        for Submitted { batch, ack, alerts, reply } in submitted {
            self.inner.submit(batch, journal_level(ack), alerts, reply);
        }
    }

    /// The keeper looks at once.
    pub(in crate::buffer) fn wake_keeper(&self) {
        *lock(&self.keeper.0) = true;
        self.keeper.1.notify_one();
    }

    /// Sleeps until woken, at most so long.
    pub(super) fn keeper_sleeps(&self, limit: Duration) {
        let woken = lock(&self.keeper.0);
        if !*woken {
            drop(self.keeper.1.wait_timeout(woken, limit));
        } else {
            drop(woken);
        }
        *lock(&self.keeper.0) = false;
    }

    /// Redis does not do what it should: the commit thread ends what is written.
    pub(in crate::buffer) fn order_give_up(&self, cause: LinkError) {
        let generation = {
            let health = lock(&self.health);
            if !health.is_up() {
                return;
            }
            health.generation
        };
        let mut queue = lock(&self.queue);
        if queue.orders.is_empty() {
            queue.orders.push(Order::GiveUp { generation, cause });
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Readings in Redis can be read (again).
    pub(super) fn tell_visible(&self) {
        let waiting = lock(&self.books).waiting_total();
        if let Some(hook) = self.on_visible.get() {
            hook(waiting, waiting > 0);
        }
    }
}

/// What the journal is asked for in place of Redis: it must not wait for more than it reaches by itself.
pub(super) fn journal_level(ack: AckLevel) -> AckLevel {
    if ack == AckLevel::Redis { AckLevel::Journal } else { ack }
}
