//! Tier redis: accepted readings wait in Redis, and on this host's disk while Redis does not take them.
//!
//! ```text
//!   submit ─► queue ─► commit thread: XADD of all that wait, one answer ─► 202 "redis"         (commit.rs)
//!      │                   │ refused, or no answer in time
//!      └── Redis is away ──┴──► inner journal: append, sync ─► 202 "journal"
//!   streams in Redis ─► a lane's reader ─► drain ─► settle ─► trim once `keep` has passed      (lane.rs, keeper.rs)
//! ```
//! In: batches. Out: frames, oldest first, one reader a lane; the journal's lanes follow those of Redis, and both are drained side by side.
//!
//! **A stream has one writer and one life**, numbered from 1 by itself. It is *written* (by the commit thread of the process that began
//! it), then *ended* (at the first failure, or by the end of that process; `end` is the last number that Redis has acknowledged), then
//! *settled* (the database's cursor has reached the end), then *done* (`keep` has passed, it is removed). No state is ever left backwards:
//! after a failure a new stream begins. Who may change what: the keeper begins streams and removes them, the commit thread writes and ends
//! them, the lane's drain settles them, each under the lock of the books.
//!
//! **An outcome that is unknown is never asked for again.** The batch goes to the journal at once and its receipt is the journal's. If
//! Redis has taken it all the same, it lies behind the stream's end and is not drained while this process lives; drained by a later one, as
//! rows it can only be duplicates. Entries have explicit ids, so that Redis itself refuses a repeat or a straggler, and whoever takes a
//! stream over *seals* it first with an entry of the highest id: after that its end is certain, also against a writer that was paused.
//!
//! What a crash leaves behind, by where it happens:
//! - before XADD is sent: nothing; nobody was told.
//! - after it, before its answer: perhaps an entry. The next start finds the stream in the list, seals it and drains all of it.
//! - between the beginning of a stream and its line in the list: an empty key that nobody looks for.
//! - after the database's commit, before the group is told: an entry shown as pending; the next reader acknowledges it.
//! - between `done` in the list and the removal: the next start removes it.
//!
//! What Redis itself may lose (`appendfsync`, a replica that takes over, eviction, FLUSHALL) is said by [`facts`] before, and by a gap of kind
//! `lost` with its number of readings after.

pub(super) mod again;
pub(super) mod audit;
mod book;
mod books;
mod chunks;
mod commit;
pub(super) mod copies;
pub(super) mod core;
pub mod entry;
pub mod facts;
mod health;
mod keeper;
mod lane;
pub mod link;
mod others;
pub(super) mod send;
pub mod tier;
mod view;

use std::time::Duration;

pub use others::Unlisted;
pub use tier::RedisBuffer;
pub use view::RedisView;

use self::{facts::Facts, link::Server};
use crate::domain::{
    breaker::{BreakerSettings, CircuitState},
    receipt::StreamId,
};

/// What may be set.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is.
    pub server: Server,
    /// What the names of keys begin with.
    pub prefix: String,
    /// This directory's id: whose streams these are.
    pub instance: String,
    /// How long settled entries stay at least.
    pub keep: Duration,
    /// Most bytes of entries in Redis, about; beyond that the oldest settled ones go first, then batches go to the journal.
    pub stream_bytes: u64,
    /// Replicas that must have an entry before it counts.
    pub replicas: u32,
    /// Lanes to write to; 0 where only streams that are there are drained (tier triple).
    pub streams: usize,
    /// Whether stored readings are relayed: then settled entries also stay until that is done.
    pub relays: bool,
    /// Most bytes of batches that wait for the commit thread.
    pub queue_bytes: u64,
    /// When it is left alone, and for how long.
    pub breaker: BreakerSettings,
}

/// What the tier tells as it happens.
pub trait RedisObserver: Send + Sync {
    /// The keeper turns; called at least every second, except within a call, which has an end.
    fn alive(&self);
    /// Redis ceased to take readings, or never did since the start.
    fn went_down(&self, cause: &str);
    /// It takes them, after so long; told at the start too.
    fn came_up(&self, away: Duration, facts: &Facts);
    /// What it says of itself has changed.
    fn changed(&self, facts: &Facts);
    /// The circuit turned.
    fn circuit(&self, state: CircuitState);
    /// `stream_bytes` is reached, or no longer.
    fn full(&self, full: bool);
    /// For want of room, what the relay had not yet has left Redis; no longer, for a minute. The database has it.
    fn unrelayed_gone(&self, gone: bool);
    /// Readings that Redis had acknowledged are not there any more; how many, where it is known.
    fn lost(&self, stream: StreamId, readings: Option<u64>);
    /// A stream of another instance, which does not run, has left the list of streams, and nobody ended it.
    fn unlisted(&self, stream: StreamId, instance: &str);
    /// A stream of an earlier life of this instance (or, by name, of another one) is drained here now.
    fn inherited(&self, stream: StreamId, from: Option<&str>, readings: u64);
}
