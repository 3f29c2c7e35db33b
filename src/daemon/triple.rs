//! Tier triple put together, and what its copier sees told to the rest of the daemon: log lines, alerts, a stamp for the overseer.

use std::{sync::Arc, time::Duration};

use super::{journal, redis, redis_leases};
use crate::{
    buffer::{
        Buffer,
        triple::{TripleBuffer, TripleObserver, TripleSettings},
    },
    clock::SharedClock,
    config::{Config, Tier},
    domain::{
        alert::{Level, Transition},
        receipt::StreamId,
    },
    event::Metrics,
    ingest::raiser::Raiser,
    store::Store,
    supervise::{ActorRegistry, LoopStamp},
};

/// Longest silence of the journal's thread. A disk that takes longer for one sync is not made faster by a restart.
const JOURNAL_SILENCE: Duration = Duration::from_secs(60);

/// Longest silence of the keeper of Redis, and of the copier: a few calls, each of which ends within `redis.timeout`.
const REDIS_SILENCE: Duration = Duration::from_secs(60);

/// What every tier may need of the daemon.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Config,
    /// Nothing waited in the journal when belayd was last stopped.
    pub(super) at_rest: bool,
    pub(super) instance: &'a str,
    pub(super) store: &'a Store,
    pub(super) store_is_up: &'a dyn Fn() -> Box<dyn Fn() -> bool + Send + Sync>,
    pub(super) raiser: &'a Raiser,
    pub(super) clock: &'a SharedClock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) registry: &'a Arc<ActorRegistry>,
}

/// Opens the medium that the configuration asks for.
///
/// # Errors
/// The journal's directory cannot be used, a URL is none, or a thread could not be had; with what to do.
pub(super) fn open(parts: &Parts<'_>) -> Result<Arc<dyn Buffer>, String> {
    let Parts { settings, at_rest, instance, store, store_is_up, raiser, clock, metrics, registry } = parts;
    let tier = settings.buffer.tier;
    if tier == Tier::Memory {
        return Ok(journal::open_memory(settings));
    }
    let observer = journal::Observer::new((*raiser).clone(), (*clock).clone(), registry.register_loop("journal", JOURNAL_SILENCE));
    // What tier triple misses the copies in Redis tell.
    let is_missed = tier != Tier::Triple && !at_rest;
    let journal = journal::open_journal(settings, is_missed, observer)?;
    if !tier.uses_redis() {
        return Ok(journal);
    }
    let observer = redis::Observer {
        raiser: (*raiser).clone(),
        clock: (*clock).clone(),
        metrics: (*metrics).clone(),
        stamp: registry.register_loop("redis-keeper", REDIS_SILENCE),
        copies: tier == Tier::Triple,
        stream_bytes: settings.redis.stream_bytes,
    };
    let streams = if tier == Tier::Triple { 0 } else { settings.buffer.streams };
    let redis = redis::open_redis(settings, instance, journal.clone(), observer, streams)?;
    let leases = redis_leases::start(&redis, (*store).clone(), (*clock).clone(), store_is_up(), (*instance).to_owned());
    leases.map_err(|error| error.to_string())?;
    if tier == Tier::Redis {
        return Ok(redis);
    }
    let observer = Observer {
        raiser: (*raiser).clone(),
        clock: (*clock).clone(),
        stamp: registry.register_loop("redis-copier", REDIS_SILENCE),
    };
    let triple = TripleSettings { journal, redis, store_is_up: store_is_up(), observer: Arc::new(observer) };
    Ok(Arc::new(TripleBuffer::start(triple).map_err(|error| error.to_string())?))
}

/// Turns what the copier sees into facts.
struct Observer {
    raiser: Raiser,
    clock: SharedClock,
    stamp: LoopStamp,
}

impl Observer {
    fn raise(&self, name: &str, level: Level, text: String) {
        let now_us = self.clock.now_us();
        // Nobody waits for this commit; the raiser repeats it until it is done.
        drop(self.raiser.raise(vec![Transition::system((name, "redis"), level, true, text, now_us)]));
    }
}

impl TripleObserver for Observer {
    fn alive(&self) {
        self.stamp.beat();
    }

    fn copy_lost(&self, stream: StreamId, readings: u64) {
        log::error!(target: "belayd::buffer", stream:% = stream, readings = readings, errorType = "redis_lost"; "Redis has lost copies, and the journal does not hold them any more");
        let text = format!(
            "Redis has lost its copy of {readings} readings of stream {stream}, and the journal holds them no more: the database has the only \
             one, and none is lost while it is whole; look at the persistence of Redis (docs/TIERS.md), and make a backup"
        );
        self.raise("redis-data-lost", Level::Critical, text);
    }

    fn dropped_uncopied(&self, bytes: u64) {
        log::error!(target: "belayd::buffer", bytes = bytes, errorType = "uncopied"; "buffer.journal_bytes is reached; what the database has was dropped before Redis had it");
        let text = format!(
            "Redis has been away for so long that buffer.journal_bytes is reached: {bytes} bytes of readings were dropped from the journal \
             before Redis had them; the database has the only copy"
        );
        self.raise("redis-copy-missing", Level::Critical, text);
    }

    fn renumbered(&self, from: StreamId, to: StreamId) {
        log::warn!(target: "belayd::buffer", from:% = from, to:% = to; "the copy of a stream in Redis was ended by another instance, or knows numbers that the journal does not; what waits goes on under a new stream, and the rest of the old one is drained from Redis");
    }

    fn filling(&self, stream: StreamId, readings: u64) {
        log::warn!(target: "belayd::buffer", stream:% = stream, readings = readings; "the database lacks readings that the journal does not hold any more; they are looked for in Redis");
    }

    fn missing(&self, stream: StreamId, readings: u64) {
        log::error!(target: "belayd::buffer", stream:% = stream, readings = readings, errorType = "lost"; "neither the journal nor Redis has readings that the database lacks");
    }
}
