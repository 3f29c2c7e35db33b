//! What tier redis and the database have to agree on: which streams have ended, which are gone, and who drains an instance's streams: the
//! instance itself, or, once it is dead, another one on the same database.
//!
//! In: the lease `redis/INSTANCE` of every instance with streams in Redis, held by the instance itself while it lives. Out: to the tier, that
//! it may drain its own, and which streams of a dead instance it takes over. A crash loses nothing: leases run out, and whoever takes one
//! seals the streams first. On SQLite there is one instance, and nobody to ask.
//!
//! The lease keeps two from draining the same, which would cost time and nothing else: the cursor moves by compare-and-set. A writer that
//! was paused finds its streams sealed by Redis itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use crate::{
    buffer::redis::{RedisBuffer, Unlisted},
    clock::SharedClock,
    store::{
        Backend, Store, StoreResult,
        leases::{self, Lease, RENEW_EVERY, TAKEN_OVER_WITHIN, TTL},
        ledger::{self, Closing},
        relay,
    },
};

/// How often the leases of other instances are asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long another instance's lease must be free, as seen by this one: after an outage of the database every lease has run out, and
/// each instance renews its own first.
const FREE_FOR: Duration = Duration::from_secs(2);

/// The thread's nap between turns.
const NAP: Duration = Duration::from_millis(250);
/// A dead instance's streams are taken over in time: a look that finds its lease free, and, [`FREE_FOR`] later, one more.
const _: () = {
    let look = LOOK_EVERY.as_millis() + NAP.as_millis();
    assert!(TTL.as_millis() + look + FREE_FOR.as_millis() + look <= TAKEN_OVER_WITHIN.as_millis());
};

/// Starts the thread; it ends with the buffer.
///
/// # Errors
/// The operating system refused it.
pub(super) fn start(
    buffer: &Arc<RedisBuffer>,
    store: Store,
    clock: SharedClock,
    is_up: Box<dyn Fn() -> bool + Send + Sync>,
    instance: String,
) -> std::io::Result<()> {
    let alone = store.backend() == Backend::Sqlite;
    if alone {
        buffer.may_drain(true);
    }
    let mut clerk = Clerk {
        buffer: Arc::downgrade(buffer),
        store,
        instance,
        own: None,
        clock,
        alone,
        looked_back: false,
        renew_at: Instant::now(),
        others: BTreeMap::new(),
        free_since: BTreeMap::new(),
    };
    thread::Builder::new().name("redis-leases".into()).spawn(move || {
        loop {
            if is_up()
                && let Err(error) = clerk.turn()
            {
                log::debug!(target: "belayd::buffer", error:% = error; "leases of streams in Redis could not be looked after");
            }
            if clerk.buffer.strong_count() == 0 {
                return;
            }
            thread::sleep(NAP);
        }
    })?;
    Ok(())
}

struct Clerk {
    buffer: Weak<RedisBuffer>,
    store: Store,
    instance: String,
    own: Option<Lease>,
    clock: SharedClock,
    /// There can be no other instance.
    alone: bool,
    /// Streams that the database knows and Redis does not have been looked for.
    looked_back: bool,
    renew_at: Instant,
    /// Leases of dead instances whose streams are drained here.
    others: BTreeMap<String, Lease>,
    /// Since when another instance's lease has been seen free.
    free_since: BTreeMap<String, Instant>,
}

fn name(instance: &str) -> String {
    format!("redis/{instance}")
}

impl Clerk {
    fn turn(&mut self) -> StoreResult<()> {
        let Some(buffer) = self.buffer.upgrade() else { return Ok(()) };
        if Instant::now() < self.renew_at {
            return Ok(());
        }
        self.close_finished(&buffer)?;
        self.see_relayed(&buffer)?;
        if self.alone {
            self.renew_at = Instant::now() + LOOK_EVERY;
            return Ok(());
        }
        self.hold_own(&buffer)?;
        self.hold_others(&buffer)?;
        self.renew_at = Instant::now() + if self.own.is_some() { LOOK_EVERY.min(RENEW_EVERY) } else { Duration::from_millis(500) };
        Ok(())
    }

    /// The database learns which streams have ended; and, once, which are gone without that.
    fn close_finished(&mut self, buffer: &RedisBuffer) -> StoreResult<()> {
        let now_us = self.clock.now_us();
        if !self.looked_back {
            let mut open = Vec::new();
            for tier in ["redis", "triple"] {
                open.extend(self.store.with(|conn| ledger::open_streams(conn, &self.instance, tier))?);
            }
            if let Some(vanished) = buffer.vanished(&open) {
                self.looked_back = true;
                for stream in vanished {
                    self.store.with(|conn| ledger::close_stream(conn, stream, Closing::Cut, now_us))?;
                }
            }
        }
        for stream in buffer.take_finished() {
            self.store.with(|conn| ledger::close_stream(conn, stream, Closing::Drained, now_us))?;
        }
        Ok(())
    }

    /// What is relayed need not be kept for the relay any more.
    fn see_relayed(&self, buffer: &RedisBuffer) -> StoreResult<()> {
        for (stream, settled) in buffer.unrelayed() {
            let first = self.store.with(|conn| relay::first_waiting(conn, stream))?;
            buffer.relayed(stream, first.map_or(settled, |first| settled.min(first.saturating_sub(1))));
        }
        Ok(())
    }

    fn hold_own(&mut self, buffer: &RedisBuffer) -> StoreResult<()> {
        if let Some(lease) = &self.own
            && !self.store.with(|conn| leases::renew(conn, lease, TTL))?
        {
            log::warn!(target: "belayd::buffer", "another instance took this one for dead and drains its streams in Redis; new ones begin here");
            self.own = None;
            buffer.may_drain(false);
        }
        if self.own.is_none() {
            let name = name(&self.instance);
            self.own = self.store.with(|conn| leases::take(conn, &name, &self.instance, TTL))?;
            if self.own.is_some() {
                buffer.may_drain(true);
            }
        }
        Ok(())
    }

    fn hold_others(&mut self, buffer: &RedisBuffer) -> StoreResult<()> {
        let foreign = buffer.foreign();
        // What was taken over is given back once it is drained, so that its owner finds its lease free.
        let done: Vec<String> = self.others.keys().filter(|instance| !buffer.drains_for(instance)).cloned().collect();
        for instance in done {
            if let Some(lease) = self.others.remove(&instance) {
                self.store.with(|conn| leases::release(conn, &lease))?;
            }
        }
        for lease in self.others.values() {
            self.store.with(|conn| leases::renew(conn, lease, TTL))?;
        }
        let unlisted = buffer.unlisted();
        self.free_since.retain(|of, _| foreign.contains(of) || unlisted.iter().any(|gone| gone.instance == *of));
        for gone in unlisted {
            self.explain(buffer, &gone)?;
        }
        for instance in foreign {
            if self.others.contains_key(&instance) || !self.is_of_this_database(&instance)? {
                continue;
            }
            if !self.is_dead(&instance)? {
                continue;
            }
            let name = name(&instance);
            if let Some(lease) = self.store.with(|conn| leases::take(conn, &name, &self.instance, TTL))? {
                log::warn!(target: "belayd::buffer", instance = instance.as_str(); "an instance is dead; its streams in Redis are drained here");
                buffer.take_over(&instance);
                self.others.insert(instance.clone(), lease);
            }
            self.free_since.remove(&instance);
        }
        Ok(())
    }

    /// What became of another instance's stream that has left the list: it was ended, is a matter of that instance, which lives, or is lost.
    fn explain(&mut self, buffer: &RedisBuffer, gone: &Unlisted) -> StoreResult<()> {
        let mut open = Vec::new();
        for tier in ["redis", "triple"] {
            open.extend(self.store.with(|conn| ledger::open_streams(conn, &gone.instance, tier))?);
        }
        if !open.contains(&gone.stream) {
            buffer.explained(gone, false);
        } else if self.others.contains_key(&gone.instance) || self.is_dead(&gone.instance)? {
            buffer.explained(gone, true);
        } else if gone.since > TAKEN_OVER_WITHIN && !self.free_since.contains_key(&gone.instance) {
            // Its lease was renewed since: it lives, and looks after its own.
            buffer.explained(gone, false);
        }
        Ok(())
    }

    /// Whether another instance's lease has been seen free for long enough.
    fn is_dead(&mut self, instance: &str) -> StoreResult<bool> {
        if self.is_held(instance)? {
            self.free_since.remove(instance);
            return Ok(false);
        }
        Ok(self.free_since.entry(instance.to_owned()).or_insert_with(Instant::now).elapsed() >= FREE_FOR)
    }

    fn is_held(&self, instance: &str) -> StoreResult<bool> {
        let name = name(instance);
        Ok(self.store.with(|conn| leases::list(conn, 10_000))?.iter().any(|row| row.name == name && row.live))
    }

    /// Others may use the same Redis for another database.
    fn is_of_this_database(&self, instance: &str) -> StoreResult<bool> {
        self.store.with(|conn| ledger::knows_instance(conn, instance))
    }
}
