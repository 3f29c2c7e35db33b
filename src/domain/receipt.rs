//! What an acknowledgement hands out, and what can be learnt from it later.

use serde::Serialize;
use uuid::Uuid;

/// A numbered sequence of accepted readings with one writer: one per start (tier memory) or one per directory (journal).
pub type StreamId = Uuid;

/// The numbers that the accepted readings of one push got. The nth accepted item has `first_seq + n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The stream that numbered them.
    pub stream: StreamId,
    /// Number of the first accepted reading; numbers start at 1 and have no holes.
    pub first_seq: u64,
    /// Number of the last accepted reading, inclusive.
    pub last_seq: u64,
}

/// Where a reading stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptState {
    /// Accepted, not yet in the database.
    Buffered,
    /// In `readings`.
    Stored,
    /// The same engine, time and values were there already.
    Duplicate,
    /// The same engine and time were there with other values; kept among the failures.
    Conflict,
    /// The database can never take it; kept among the failures.
    Dead,
    /// A person gave it up.
    Discarded,
    /// Damaged on disk and set aside.
    Quarantined,
    /// Its number was given up after a failed sync; it was never acknowledged.
    Void,
    /// Gone: for example the process ended while it was only in memory.
    Lost,
    /// Its ledger row has been pruned; it was settled before that.
    Settled,
    /// No such stream or number here.
    Unknown,
}
