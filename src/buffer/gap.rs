//! Numbers without readings, and why. Plain values.

use serde::Serialize;

/// Numbers of a stream that no frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of them.
    pub first_seq: u64,
    /// The last of them, inclusive.
    pub last_seq: u64,
    /// Why.
    pub kind: GapKind,
    /// How many of them had been acknowledged: all, but for void ones that were refused.
    pub acknowledged: u64,
    /// As [`Frame::chain_before`](super::Frame::chain_before).
    pub chain_before: u64,
    /// As [`Frame::chain`](super::Frame::chain).
    pub chain: u64,
}

/// Why numbers have no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapKind {
    /// Damaged on disk and set aside.
    Quarantined,
    /// Given up after a failed sync.
    Void,
    /// The database that had stored them was replaced by an older one.
    Lost,
}

impl GapKind {
    /// The word in the ledger, in metrics and in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Void => "void",
            Self::Lost => "lost",
        }
    }
}
