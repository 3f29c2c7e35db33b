//! Tier triple: each acknowledged reading is in at least two of three media while all are up: this host's journal, the database with its
//! deliveries, and a copy in Redis. Any one of them may be destroyed, at any moment, and nothing that was acknowledged is lost.
//!
//! ```text
//!   submit ─► journal: append, sync ─► drain ─► database: rows, cursor, deliveries ─► 202 "store"
//!                        │                        │ known to be away, or catching up after that
//!                        ▼ behind the sync        ▼
//!                     copier ─► Redis ─────────► 202 "journal"                                          (copier.rs)
//!   a gap of the journal ◄── frames with the same numbers ── Redis                                       (fill.rs)
//!   streams of earlier lives in Redis ─► heritage lane ─► drain                                          (buffer/redis)
//! ```
//! In: batches. Out: frames, oldest first. The journal numbers and drains as in tier journal; lane 0 is the heritage lane of tier redis, which
//! drains what Redis has of streams that this journal does not write (any more): those of a journal that was destroyed, and of dead instances.
//!
//! **A copy** is a stream in Redis with the name, the numbers and the frames of a journal's stream. Its place is Redis' own last id; nothing is
//! remembered elsewhere. Its states, for the copier, which alone writes it:
//! - *unplaced* (start, any failure): Redis is asked. No key: it is made, and everything that the journal holds is copied. A last id within
//!   the journal, with the same chain: copied on behind it.
//! - *placed*: frames are added as they are synced. An id that Redis refuses, or a key that is gone: unplaced.
//! - *astray* (sealed by another instance, or Redis knows numbers that the journal does not): the lane is renumbered by its drain under a new
//!   stream, whose copy begins; the old one is drained from Redis like a dead instance's.
//!
//! A segment of the journal goes when the database *and* the copy are past it. At `journal_bytes`, with Redis away, what is stored and not
//! copied goes first, and is told; what is not stored never goes.
//!
//! What a crash leaves behind, by where it happens:
//! - before the sync: nothing; nobody was told.
//! - between sync and copy: frames that Redis lacks; the next start copies them. Nobody was told, but where Redis was away.
//! - between copy and commit: frames in journal and Redis; drained from the journal, by their numbers once.
//! - between commit and answer: stored; the sender repeats it, a duplicate.
//! - between the removal of a copy with holes and its end: frames that Redis lacks; the next start copies them.
//! - while a gap is being filled: the cursor stands in it; the rest is filled from there.
//!
//! Who waits for the database is answered by its commit, or by the copier while the database is away (`journal`): when the copy is made; when
//! Redis is away too, at once; when it is slow, within `redis.timeout`.

mod copier;
mod fill;
mod origin;
pub mod tier;

pub use tier::{TripleBuffer, TripleSettings};

use crate::domain::receipt::StreamId;

/// What the tier tells as it happens.
pub trait TripleObserver: Send + Sync {
    /// The copier turns; called at least every second, except within a call, which has an end.
    fn alive(&self);
    /// Redis has lost so many readings of a copy, and the journal does not hold them any more: the database has the only one.
    fn copy_lost(&self, stream: StreamId, readings: u64);
    /// The journal has dropped so many bytes for want of room before Redis had them: the database has the only copy.
    fn dropped_uncopied(&self, bytes: u64);
    /// A lane goes on under a new stream, because the copy of the one before cannot be gone on with.
    fn renumbered(&self, from: StreamId, to: StreamId);
    /// The journal lacks readings that the database has not, and they are looked for in Redis.
    fn filling(&self, stream: StreamId, readings: u64);
    /// Neither has them.
    fn missing(&self, stream: StreamId, readings: u64);
}
