//! Tier journal: where acknowledged readings are on disk. [`tier`] is the buffer that the daemon holds, `commit` the thread that answers
//! pushes, `lane` what a drain reads from, `books` the account; the rest is the segment log below.
//!
//! In: payloads of consecutive readings of a lane, from one thread, which then asks for a sync and may acknowledge. Out: the same, in
//! order, to one reader a lane; after a crash too. What no sync covered may be lost by a crash, and then its numbers are given out
//! again, because nobody was told of them. Damage never keeps the log from opening: it is skipped, set aside and reported.
//!
//! [`disk`] is the file system, [`frame`] and [`segment`] the format, [`scan`] walks over damage, [`recover`] opens what [`candidate`] finds, [`patience`] tries again what the
//! disk does not give at once, [`writer`] writes, [`moved`] goes on elsewhere where its file is gone,
//! [`reader`] reads, [`fork`] writes down what must be where there is no room, [`shared`] lies between the two, [`quarantine`] keeps what was damaged, [`scrub`] looks again in time, [`audit`] compares with the books, [`verify`] only looks, [`dense`] for numbers without a frame.

pub mod answer;
mod audit;
mod books;
mod candidate;
mod carry;
mod close;
mod commit;
pub mod copy;
mod dense;
pub mod disk;
#[cfg(any(test, feature = "fault-injection"))]
pub mod flat;
mod fork;
pub mod frame;
mod lane;
mod mark;
mod moved;
mod patience;
mod quarantine;
mod rate;
pub mod reader;
pub mod recover;
pub mod scan;
mod scrub;
pub mod segment;
pub mod shared;
mod staging;
mod tail;
pub mod tier;
pub mod verify;
pub mod writer;

use crate::domain::receipt::StreamId;

pub use answer::{AppendError, Appended, LogSettings, SyncFailed};
pub use mark::{DIRECTORY_ONLY, RESTORED};
pub use reader::{Found, GapKind, Item, LaneReader};
pub use recover::{Forked, Recovered, open};
pub use shared::{Damage, Shared};
pub use writer::Log;

/// Most lanes that one log holds.
pub const MAX_LANES: usize = 8;

/// Where a lane stands.
///
/// A *position* counts a lane's readings from the log's beginning and never starts again; a *number* is what a stream calls it:
/// position minus `base`. A fork changes the stream and the base, and nothing on disk is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// The stream that numbers its readings now.
    pub stream: StreamId,
    /// Position minus number.
    pub base: u64,
    /// Position of the next reading.
    pub next: u64,
    /// Stands for everything before `next`.
    pub chain: u64,
    /// Readings with numbers of the current stream that a sync has covered: what may have been acknowledged.
    pub accepted: u64,
    /// Numbers of the current stream that were given up.
    pub voided: u64,
}

impl LaneState {
    fn new(stream: StreamId) -> Self {
        Self { stream, base: 0, next: 1, chain: 0, accepted: 0, voided: 0 }
    }

    /// The number that the next reading gets.
    pub fn next_seq(&self) -> u64 {
        self.next - self.base
    }
}

/// Faults in the code that the model must notice, switched on by its tests only.
#[cfg(test)]
pub(crate) mod mutant {
    use std::cell::Cell;

    thread_local! {
        /// Checksums do not depend on log, segment and offset.
        pub(crate) static SEED_IGNORED: Cell<bool> = const { Cell::new(false) };
        /// Numbers given up after a failed sync are given out again.
        pub(crate) static VOIDS_FORGOTTEN: Cell<bool> = const { Cell::new(false) };
    }
}

#[cfg(test)]
mod tests;
