//! What tier redis sees, told to the rest of the daemon: log lines, alerts, its circuit, a stamp for the overseer.

use std::{sync::Arc, time::Duration};

use crate::{
    buffer::{
        Buffer,
        redis::{RedisBuffer, RedisObserver, RedisSettings, facts::Facts, link::Server},
    },
    clock::SharedClock,
    config::{Config, RedisConfig},
    domain::{
        ack::AckLevel,
        alert::{Level, Transition},
        breaker::CircuitState,
        receipt::StreamId,
    },
    event::{Metrics, circuits::CircuitIs},
    ingest::raiser::Raiser,
    supervise::LoopStamp,
};

/// Turns what the tier sees into facts.
pub(super) struct Observer {
    pub(super) raiser: Raiser,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stamp: LoopStamp,
    /// Redis holds copies only (tier triple).
    pub(super) copies: bool,
    /// `redis.stream_bytes`.
    pub(super) stream_bytes: u64,
}

impl Observer {
    fn transition(&self, name: &str, level: Level, firing: bool, text: String) {
        let now_us = self.clock.now_us();
        // Nobody waits for this commit; the raiser repeats it until it is done.
        drop(self.raiser.raise(vec![Transition::system((name, "redis"), level, firing, text, now_us)]));
    }

    fn tell_facts(&self, facts: &Facts) {
        let unsafe_now = facts.level() == AckLevel::Memory;
        let text = if unsafe_now {
            format!(
                "Redis does not keep what it acknowledges, so readings are acknowledged as \"memory\": it may lose {}",
                facts.may_lose()
            )
        } else {
            "Redis keeps what it acknowledges".to_owned()
        };
        if unsafe_now {
            log::warn!(target: "belayd::buffer", "{text}");
        }
        self.transition("redis-forgets", Level::Warning, unsafe_now, text);
        self.tell_room(facts);
    }
}

impl Observer {
    /// Whether Redis has room for what the configuration says it may take.
    fn tell_room(&self, facts: &Facts) {
        let (small, bound) = (facts.is_smaller_than(self.stream_bytes), self.stream_bytes);
        let text = if small {
            format!(
                "the maxmemory of Redis, {} bytes, is less than redis.stream_bytes, {bound}: it is full before belayd makes room; raise the one \
                 well above the other, or lower redis.stream_bytes",
                facts.max_memory
            )
        } else {
            "Redis has room for redis.stream_bytes".to_owned()
        };
        if small {
            log::warn!(target: "belayd::buffer", maxMemory = facts.max_memory, streamBytes = bound; "{text}");
        }
        self.transition("redis-small", Level::Warning, small, text);
    }
}

impl RedisObserver for Observer {
    fn alive(&self) {
        self.stamp.beat();
    }

    fn went_down(&self, cause: &str) {
        log::error!(target: "belayd::buffer", error = cause, errorType = "redis"; "Redis takes no readings");
        let meanwhile = if self.copies {
            "they are in the journal of this host and in the database until it does, without a third copy"
        } else {
            "they go to the journal of this host until it does, and none is lost"
        };
        let text = format!("Redis takes no readings: {cause}; {meanwhile}");
        self.transition("redis-down", Level::Warning, true, text);
    }

    fn came_up(&self, away: Duration, facts: &Facts) {
        log::info!(
            target: "belayd::buffer",
            version = facts.version.as_str(), mayLose = facts.may_lose(), awayMs = away.as_millis() as u64;
            "Redis takes readings"
        );
        let text = format!("Redis takes readings again after {:.1} s", away.as_secs_f64());
        self.transition("redis-down", Level::Warning, false, text);
        self.tell_facts(facts);
    }

    fn changed(&self, facts: &Facts) {
        log::warn!(target: "belayd::buffer", mayLose = facts.may_lose(); "Redis was set otherwise");
        self.tell_facts(facts);
    }

    fn circuit(&self, state: CircuitState) {
        CircuitIs { party: "redis", state, cause: "", now_us: self.clock.now_us() }.emit(&self.metrics);
    }

    fn full(&self, full: bool) {
        let text = if full {
            "redis.stream_bytes is reached by readings that the database has not yet; further ones stay in the journal"
        } else {
            "there is room for readings in Redis again"
        };
        log::warn!(target: "belayd::buffer", "{text}");
        self.transition("redis-full", Level::Warning, full, text.into());
    }

    fn unrelayed_gone(&self, gone: bool) {
        let text = if gone {
            "Redis removes copies before their readings are relayed, because redis.stream_bytes or its memory is reached: the database has them and the relay \
             goes on from there, but they are in one place only; raise redis.stream_bytes, or see why the relay is behind"
        } else {
            "what Redis would remove next is relayed, and nothing before its relay was removed for a minute"
        };
        log::warn!(target: "belayd::buffer", "{text}");
        self.transition("redis-unrelayed-removed", Level::Warning, gone, text.into());
    }

    fn lost(&self, stream: StreamId, readings: Option<u64>) {
        let how_many = readings.map_or_else(|| "an unknown number of".to_owned(), |readings| readings.to_string());
        log::error!(target: "belayd::buffer", stream:% = stream, readings = readings, errorType = "redis_lost"; "Redis has lost readings that it had acknowledged");
        let text = format!(
            "Redis has lost {how_many} readings of stream {stream} that it had acknowledged and the database had not: its data was flushed, \
             evicted, not synced, or a replica took over that lacked them; look at its persistence (docs/TIERS.md)"
        );
        self.transition("redis-data-lost", Level::Critical, true, text);
    }

    fn unlisted(&self, stream: StreamId, instance: &str) {
        log::error!(target: "belayd::buffer", stream:% = stream, instance = instance, errorType = "redis_lost"; "Redis has lost a stream of an instance that does not run");
        let text = format!(
            "Redis has lost the stream {stream} of the instance {instance}, which does not run: what that had acknowledged and the database \
             had not is in its journal (tier triple) or nowhere, and how much that was only its next start may tell; look at the persistence \
             of Redis (docs/TIERS.md)"
        );
        self.transition("redis-data-lost", Level::Critical, true, text);
    }

    fn inherited(&self, stream: StreamId, from: Option<&str>, readings: u64) {
        log::info!(target: "belayd::buffer", stream:% = stream, from = from.unwrap_or("an earlier run"), readings = readings; "a stream in Redis is taken over");
    }
}

/// Where the configuration says that Redis is.
///
/// # Errors
/// A URL is none; it is not repeated.
fn server(config: &RedisConfig) -> Result<Server, String> {
    let (urls, cluster) = config.urls();
    Server::new(&urls, cluster, config.timeout)
}

/// Puts Redis in front of the journal, or (`streams` = 0) beside it.
///
/// # Errors
/// No thread could be had, or a URL is none.
pub(super) fn open_redis(
    settings: &Config,
    instance: &str,
    inner: Arc<dyn Buffer>,
    observer: Observer,
    streams: usize,
) -> Result<Arc<RedisBuffer>, String> {
    let config = &settings.redis;
    let redis = RedisSettings {
        server: server(config)?,
        prefix: config.prefix.clone(),
        instance: instance.to_owned(),
        keep: config.keep,
        stream_bytes: config.stream_bytes,
        replicas: config.replicas,
        breaker: config.breaker,
        streams,
        relays: settings.kafka.is_some(),
        queue_bytes: settings.buffer.memory_bytes,
    };
    let buffer = RedisBuffer::start(redis, inner, Arc::new(observer)).map_err(|error| error.to_string())?;
    Ok(Arc::new(buffer))
}
