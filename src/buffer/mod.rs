//! The buffer: where accepted readings wait for the database.
//!
//! In: batches from `BatchBufferActor`. Out: frames to the drain thread, which writes them in one transaction with their ledger
//! row and cursor. A crash loses what the medium loses: everything in tier memory. The buffer lives outside the actor, so that an
//! actor's panic loses nothing.

pub mod actor;
pub mod audit;
mod call;
pub mod drain;
mod gap;
pub mod health;
pub mod journal;
pub mod memory;
pub mod redis;
mod stats;
mod success;
pub mod triple;

use std::fmt;

pub use gap::{Gap, GapKind};
use serde::Serialize;
pub use stats::{BufferStats, Differences, OnVisible};
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
    /// What stands for everything before this frame, see [`Position::cursor_chain`].
    pub chain_before: u64,
    /// What stands for everything up to this frame's end.
    pub chain: u64,
}

impl Frame {
    /// Number of the last reading, inclusive.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.batch.len()) - 1
    }
}

/// What a lane has for the database next.
#[derive(Clone, Debug)]
pub enum Work {
    /// Consecutive frames.
    Frames(Vec<Frame>),
    /// Numbers to pass over.
    Gap(Gap),
    /// Nothing waits.
    Nothing,
}

/// Where the database stands in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Number of the last settled reading; 0 where none is.
    pub cursor_seq: u64,
    /// A hash over every reading up to the cursor, made by the medium and kept with the cursor: the same number with another hash is
    /// another history. 0 at the start, and always in a medium that ends with its process.
    pub cursor_chain: u64,
    /// What became of the readings up to the cursor.
    pub totals: Totals,
}

/// What a medium made of the database's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Its frames go on where the database stands.
    Resumed,
    /// The database stands before the first frame that is left: an older one was put in its place. A gap follows.
    StoreRestored {
        /// Readings that had been stored and are not there any more.
        missing: u64,
    },
    /// The database knows another history of this stream: an older directory was put in the place of this one, or a copy of it runs
    /// elsewhere. What waits has been renumbered under a new stream; ask the database for that one's position.
    DirectoryRestored {
        /// The stream before.
        from: StreamId,
        /// The stream now.
        to: StreamId,
    },
}

/// The one list of what can become of a reading: `$what!(args…; fields…)`. The database reports all of it but `discarded`, which people
/// decide; that is the last, and left out where `reported` is said.
macro_rules! each_fate {
    (reported $what:ident($($arg:expr),*)) => {
        $what!($($arg),*; stored duplicate conflict dead quarantined void lost)
    };
    ($what:ident($($arg:expr),*)) => {
        $what!($($arg),*; stored duplicate conflict dead quarantined void lost discarded)
    };
}

macro_rules! add {
    ($to:expr, $from:expr; $($fate:ident)*) => {{ $($to.$fate += $from.$fate;)* }};
}

macro_rules! set {
    ($to:expr, $from:expr; $($fate:ident)*) => {{ $($to.$fate = $from.$fate;)* }};
}

macro_rules! sum {
    ($of:expr; $($fate:ident)*) => { 0 $(+ $of.$fate)* };
}

/// Sums over what was settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Inserted.
    pub stored: u64,
    /// Were there with the same values.
    pub duplicate: u64,
    /// Were there with other values, and wait for a person.
    pub conflict: u64,
    /// The database can never take them; they wait for a person.
    pub dead: u64,
    /// Given up by a person.
    pub discarded: u64,
    /// Damaged on disk and set aside.
    pub quarantined: u64,
    /// Given up after a failed sync.
    pub void: u64,
    /// Gone with a database that was replaced by an older one.
    pub lost: u64,
}

impl Totals {
    /// Adds other sums to these.
    pub fn add(&mut self, more: &Self) {
        each_fate!(add(self, more));
    }

    /// The database has reported `outcome`.
    pub fn settle(&mut self, outcome: &DrainOutcome) {
        each_fate!(reported add(self, outcome));
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        each_fate!(sum(self))
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
    /// Acknowledged readings that were damaged on disk.
    pub quarantined: u64,
    /// Acknowledged readings whose numbers were given up.
    pub void: u64,
    /// Readings that a replaced database had stored.
    pub lost: u64,
    /// Last number of them that goes to Kafka, 0 where none does.
    pub relay_seq: u64,
}

impl DrainOutcome {
    /// A gap that was passed over.
    pub fn of_gap(gap: &Gap) -> Self {
        let mut outcome = Self { first_seq: gap.first_seq, last_seq: gap.last_seq, ..Self::default() };
        match gap.kind {
            GapKind::Quarantined => outcome.quarantined = gap.acknowledged,
            GapKind::Void => outcome.void = gap.acknowledged,
            GapKind::Lost => outcome.lost = gap.acknowledged,
        }
        outcome
    }
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
        let rest = each_fate!(sum(self)) + self.buffered;
        i128::from(self.accepted) - i128::from(rest)
    }

    /// The database has reported `outcome` for readings that were waiting.
    pub fn settle(&mut self, outcome: &DrainOutcome) {
        each_fate!(reported add(self, outcome));
    }

    /// Both accounts together.
    pub fn plus(&self, other: &Self) -> Self {
        let mut both = *self;
        each_fate!(add(both, other));
        both.accepted += other.accepted;
        both.buffered += other.buffered;
        both
    }

    /// Everything that the database reports of a stream replaces what was known of it.
    pub fn set_totals(&mut self, totals: &Totals) {
        each_fate!(set(self, totals));
    }
}

/// A medium in which readings wait. Implemented by each tier; calls never block on the database.
///
/// Readings wait in one or more **lanes**: each is a stream of its own with its own numbers and cursor, drained by its own connection,
/// so that several transactions can be under way where that is faster. Tier memory has one.
pub trait Buffer: Send + Sync + fmt::Debug {
    /// The word of `buffer.tier`, kept with the streams in the database.
    fn tier(&self) -> &'static str;

    /// The same for one lane: a tier may keep some of them in another medium.
    fn lane_tier(&self, lane: usize) -> &'static str {
        let _ = lane;
        self.tier()
    }

    /// The level that a push without `?ack=` asks for: mostly what [`Buffer::submit`] reaches by itself.
    fn level(&self) -> AckLevel;

    /// The level of the medium alone: what an answer is worth where a commit is worth less than it says.
    fn medium_level(&self) -> AckLevel {
        self.level()
    }

    /// Whether what waits is still there after the process has ended.
    fn outlives_process(&self) -> bool {
        self.level() > AckLevel::Memory
    }

    /// How many lanes there are; fixed for the life of the process.
    fn lanes(&self) -> usize;

    /// The stream that is drained in `lane`: mostly the one that numbers what comes now. It may change whenever it is settled to its end;
    /// nil where the lane has none for now.
    fn stream(&self, lane: usize) -> StreamId;

    /// Whether `stream` numbers what comes now in some lane.
    fn writes(&self, stream: StreamId) -> bool {
        (0..self.lanes()).any(|lane| self.stream(lane) == stream)
    }

    /// Whether its bound is near, so that what waits must be written at once.
    fn is_filling(&self) -> bool {
        false
    }

    /// Whether `stream` is, or was, one of this medium's, as far as it remembers.
    fn knows(&self, stream: StreamId) -> bool {
        self.writes(stream)
    }

    /// Whether `level` can be asked of this tier.
    fn reaches(&self, level: AckLevel) -> bool {
        level == self.level() || level == AckLevel::Memory || level == AckLevel::Store
    }

    /// Numbers a batch and keeps it, or refuses it whole. `reply` is told when the tier's own level is reached; where `ack` is
    /// higher, [`Accepted::upgrade`](crate::protocol::Accepted) resolves later. Returns how many readings wait now.
    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64;

    /// Calls `hook` whenever readings have become visible to [`Buffer::next`] after [`Buffer::submit`] has returned, with how many wait
    /// and whether a sender waits for the database. A medium where they are visible at once never calls it. The first hook stays.
    fn on_visible(&self, hook: OnVisible) {
        drop(hook);
    }

    /// Why this batch would be refused now; `None` where there is room. Asked before the rules see its readings, so that a reading
    /// which the sender must send again does not raise an alert, or count, twice. What arrives in between may still change the answer.
    fn refuses(&self, batch: &Batch) -> Option<Refusal>;

    /// The drain of `lane` is between two transactions: the lane may go on with its next stream.
    fn turn(&self, lane: usize) {
        let _ = lane;
    }

    /// Readings that wait in `lane` for the database, as far as they can be read now.
    fn waiting(&self, lane: usize) -> u64;

    /// The database has been (re)opened and stands at `position` in the lane's stream: what is settled there is settled here, also
    /// where the answer to the last commit never came.
    ///
    /// # Errors
    /// The medium failed; the same call comes again.
    fn attach(&self, lane: usize, position: &Position) -> std::io::Result<Attached>;

    /// What `lane` has next that is not settled, at most about `max_rows` readings (at least one frame where there is any).
    ///
    /// # Errors
    /// The medium failed; the same call comes again.
    fn next(&self, lane: usize, max_rows: u32) -> std::io::Result<Work>;

    /// The database has committed these numbers: room is given back, waiters are told, the account is moved.
    fn settle(&self, lane: usize, outcome: &DrainOutcome);

    /// No further batch is taken; those that come are refused with [`Refusal::Stopping`](crate::protocol::Refusal).
    fn close(&self);

    /// The process ends with readings that only this medium holds. Returns how many are lost with it: 0 where it is durable.
    fn abandon(&self) -> u64;

    /// What a number that was handed out is called now: the medium may have renumbered it under a new stream.
    fn locate(&self, stream: StreamId, seq: u64) -> (StreamId, u64) {
        (stream, seq)
    }

    /// The streams whose readings go on under `stream`, as far as the medium remembers: they get no numbers any more.
    fn earlier(&self, stream: StreamId) -> Vec<StreamId> {
        let _ = stream;
        Vec::new()
    }

    /// First and last number of `stream` that the medium still holds, settled or not; `None` where it holds none of it.
    fn held(&self, stream: StreamId) -> Option<(u64, u64)> {
        let _ = stream;
        None
    }

    /// Begins a comparison of what `medium` holds with its books; `None` where readings do not wait in it.
    fn audit(&self, medium: audit::Medium) -> Option<Box<dyn audit::Audit>> {
        let _ = medium;
        None
    }

    /// The frames of `stream` with a number from `first` to `last`, read apart from what [`Buffer::next`] does, as far as they are whole.
    ///
    /// # Errors
    /// The medium failed.
    fn read_again(&self, stream: StreamId, first: u64, last: u64) -> std::io::Result<Vec<Frame>> {
        let _ = (stream, first, last);
        Ok(Vec::new())
    }

    /// Where a number stands as far as the medium knows; `None` where the ledger must be asked.
    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState>;

    /// What it looks like now, taken in one consistent look.
    fn stats(&self) -> BufferStats;

    /// Redis, where this tier has one.
    fn redis(&self) -> Option<redis::RedisView> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: &impl Serialize) -> Vec<u64> {
        let json = serde_json::to_value(value).expect("plain figures");
        json.as_object().expect("an object").values().map(|figure| figure.as_u64().expect("a figure")).collect()
    }

    #[test]
    fn no_fate_is_left_out_of_any_sum() {
        let totals = Totals { stored: 1, duplicate: 2, conflict: 4, dead: 8, discarded: 16, quarantined: 32, void: 64, lost: 128 };
        assert_eq!((totals.sum(), figures(&totals).iter().sum::<u64>()), (255, 255));
        let mut twice = totals;
        twice.add(&totals);
        assert_eq!(figures(&twice), figures(&totals).iter().map(|figure| figure * 2).collect::<Vec<_>>());
        let mut account = Account { accepted: 1_000, buffered: 745, ..Account::default() };
        account.set_totals(&totals);
        assert_eq!(account.difference(), 0);
        assert_eq!(figures(&account.plus(&account)), figures(&account).iter().map(|figure| figure * 2).collect::<Vec<_>>());
        let outcome = DrainOutcome {
            stored: 1,
            duplicate: 2,
            conflict: 4,
            dead: 8,
            quarantined: 32,
            void: 64,
            lost: 128,
            ..DrainOutcome::default()
        };
        let (mut settled, mut other) = (Totals::default(), Account { accepted: 239, ..Account::default() });
        settled.settle(&outcome);
        other.settle(&outcome);
        assert_eq!((settled.sum(), other.difference()), (239, 0));
    }
}
