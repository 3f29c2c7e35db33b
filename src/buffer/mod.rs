//! The buffer: where accepted readings wait for the database.
//!
//! In: batches from `BatchBufferActor`. Out: frames to the drain thread, which writes them in one transaction with their ledger
//! row and cursor. A crash loses what the medium loses: everything in tier memory. The buffer lives outside the actor, so that an
//! actor's panic loses nothing.

pub mod actor;
mod call;
pub mod drain;
pub mod health;
pub mod memory;

use std::fmt;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    domain::{
        ack::AckLevel,
        batch::Batch,
        receipt::{ReceiptState, StreamId},
    },
    protocol::{Refusal, Reply},
};

/// Numbered readings that came together.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Number of the first reading; the others follow without holes.
    pub first_seq: u64,
    /// The readings.
    pub batch: Batch,
}

impl Frame {
    /// Number of the last reading, inclusive.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.batch.len()) - 1
    }
}

/// What the database reported for consecutive frames, as written to the ledger in the same transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainOutcome {
    /// First number that was drained.
    pub first_seq: u64,
    /// Last number that was drained, inclusive.
    pub last_seq: u64,
    /// Rows that the database says it inserted.
    pub stored: u64,
    /// Rows that were there with the same values.
    pub duplicate: u64,
    /// Rows that were there with other values.
    pub conflict: u64,
    /// Rows that the database can never take.
    pub dead: u64,
}

/// The account of one stream. `accepted` is counted where the answer is made, `stored`, `duplicate`, `conflict` and `dead` are
/// what the database reported, `buffered` is what the medium holds: the identity in [`Account::difference`] can fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Acknowledged with a number.
    pub accepted: u64,
    /// Inserted.
    pub stored: u64,
    /// Suppressed repeats.
    pub duplicate: u64,
    /// Same engine and time, other values.
    pub conflict: u64,
    /// Can never be stored.
    pub dead: u64,
    /// Given up by a person.
    pub discarded: u64,
    /// Damaged and set aside.
    pub quarantined: u64,
    /// Numbers given up after a failed sync.
    pub void: u64,
    /// Gone.
    pub lost: u64,
    /// Waiting for the database.
    pub buffered: u64,
}

impl Account {
    /// `accepted` minus everything that it must equal; 0 unless a reading vanished or was made up.
    pub fn difference(&self) -> i128 {
        let rest = [
            self.stored,
            self.duplicate,
            self.conflict,
            self.dead,
            self.discarded,
            self.quarantined,
            self.void,
            self.lost,
            self.buffered,
        ];
        i128::from(self.accepted) - rest.into_iter().map(i128::from).sum::<i128>()
    }
}

/// What the buffer looks like now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BufferStats {
    /// The medium.
    pub tier: &'static str,
    /// The level that the medium itself reaches.
    pub ack: AckLevel,
    /// What a crash may lose, in words.
    pub may_lose: &'static str,
    /// The stream being written.
    pub stream: StreamId,
    /// Readings waiting.
    pub rows: u64,
    /// Most readings that may wait.
    pub rows_bound: u64,
    /// Bytes waiting.
    pub bytes: u64,
    /// Most bytes that may wait.
    pub bytes_bound: u64,
    /// Age of the oldest waiting reading, milliseconds.
    pub oldest_age_ms: u64,
    /// Senders that wait for `store`.
    pub waiters: usize,
    /// The account of the stream.
    pub account: Account,
    /// See [`Account::difference`].
    pub difference: i64,
}

/// A medium in which readings wait. Implemented by each tier; calls never block on the database.
pub trait Buffer: Send + Sync + fmt::Debug {
    /// The level that [`Buffer::submit`] reaches by itself.
    fn level(&self) -> AckLevel;

    /// The stream that numbers what comes now.
    fn stream(&self) -> StreamId;

    /// Whether `level` can be asked of this tier.
    fn reaches(&self, level: AckLevel) -> bool {
        level == self.level() || level == AckLevel::Memory || level == AckLevel::Store
    }

    /// Numbers a batch and keeps it, or refuses it whole. `reply` is told when the tier's own level is reached; where `ack` is
    /// higher, [`Accepted::upgrade`](crate::protocol::Accepted) resolves later. Returns how many readings wait now.
    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64;

    /// Why this batch would be refused now; `None` where there is room. Asked before the rules see its readings, so that a reading
    /// which the sender must send again does not raise an alert, or count, twice. What arrives in between may still change the answer.
    fn refuses(&self, batch: &Batch) -> Option<Refusal>;

    /// The oldest frames that are not settled, at most about `max_rows` readings (at least one frame where there is any).
    fn pending(&self, max_rows: u32) -> Vec<Frame>;

    /// The database has committed these numbers: room is given back, waiters are told, the account is moved.
    fn settle(&self, outcome: &DrainOutcome);

    /// No further batch is taken; those that come are refused with [`Refusal::Stopping`](crate::protocol::Refusal).
    fn close(&self);

    /// The process ends with readings that only this medium holds. Returns how many are lost with it: 0 where it is durable.
    fn abandon(&self) -> u64;

    /// Where a number stands as far as the medium knows; `None` where the ledger must be asked.
    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState>;

    /// What it looks like now, taken in one consistent look.
    fn stats(&self) -> BufferStats;
}
