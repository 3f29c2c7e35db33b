//! The buffer: where accepted readings wait for the database.
//!
//! In: batches from `BatchBufferActor`. Out: frames to the drain thread, which writes them in one transaction with their ledger
//! row and cursor. A crash loses what the medium loses: everything in tier memory. The buffer lives outside the actor, so that an
//! actor's panic loses nothing.

pub mod actor;
mod call;
pub mod drain;
pub mod health;
pub mod journal;
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
    /// As [`Frame::chain_before`].
    pub chain_before: u64,
    /// As [`Frame::chain`].
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
        self.stored += more.stored;
        self.duplicate += more.duplicate;
        self.conflict += more.conflict;
        self.dead += more.dead;
        self.discarded += more.discarded;
        self.quarantined += more.quarantined;
        self.void += more.void;
        self.lost += more.lost;
    }

    /// The database has reported `outcome`.
    pub fn settle(&mut self, outcome: &DrainOutcome) {
        self.stored += outcome.stored;
        self.duplicate += outcome.duplicate;
        self.conflict += outcome.conflict;
        self.dead += outcome.dead;
        self.quarantined += outcome.quarantined;
        self.void += outcome.void;
        self.lost += outcome.lost;
    }

    /// All of them together.
    pub fn sum(&self) -> u64 {
        self.stored + self.duplicate + self.conflict + self.dead + self.discarded + self.quarantined + self.void + self.lost
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

    /// The database has reported `outcome` for readings that were waiting.
    pub fn settle(&mut self, outcome: &DrainOutcome) {
        self.stored += outcome.stored;
        self.duplicate += outcome.duplicate;
        self.conflict += outcome.conflict;
        self.dead += outcome.dead;
        self.quarantined += outcome.quarantined;
        self.void += outcome.void;
        self.lost += outcome.lost;
    }

    /// Both accounts together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            stored: self.stored + other.stored,
            duplicate: self.duplicate + other.duplicate,
            conflict: self.conflict + other.conflict,
            dead: self.dead + other.dead,
            discarded: self.discarded + other.discarded,
            quarantined: self.quarantined + other.quarantined,
            void: self.void + other.void,
            lost: self.lost + other.lost,
            buffered: self.buffered + other.buffered,
        }
    }

    /// Everything that the database reports of a stream replaces what was known of it.
    pub fn set_totals(&mut self, totals: &Totals) {
        let Totals { stored, duplicate, conflict, dead, discarded, quarantined, void, lost } = *totals;
        *self = Self { stored, duplicate, conflict, dead, discarded, quarantined, void, lost, ..*self };
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
    /// The streams being written, one a lane.
    pub streams: Vec<StreamId>,
    /// Readings waiting.
    pub rows: u64,
    /// Most readings that may wait; `None` where only bytes count.
    pub rows_bound: Option<u64>,
    /// Bytes waiting.
    pub bytes: u64,
    /// Most bytes that may wait.
    pub bytes_bound: u64,
    /// Age of the oldest waiting reading, milliseconds.
    pub oldest_age_ms: u64,
    /// Senders that wait for `store`.
    pub waiters: usize,
    /// Whether the next batch would be refused for want of room.
    pub refuses: bool,
    /// The account of these streams.
    pub account: Account,
    /// See [`Account::difference`].
    pub difference: i64,
}

/// See [`Buffer::on_visible`].
pub type OnVisible = Box<dyn Fn(u64, bool) + Send + Sync>;

/// A medium in which readings wait. Implemented by each tier; calls never block on the database.
///
/// Readings wait in one or more **lanes**: each is a stream of its own with its own numbers and cursor, drained by its own connection,
/// so that several transactions can be under way where that is faster. Tier memory has one.
pub trait Buffer: Send + Sync + fmt::Debug {
    /// The word of `buffer.tier`, kept with the streams in the database.
    fn tier(&self) -> &'static str;

    /// The level that [`Buffer::submit`] reaches by itself.
    fn level(&self) -> AckLevel;

    /// Whether what waits is still there after the process has ended.
    fn outlives_process(&self) -> bool {
        self.level() > AckLevel::Memory
    }

    /// How many lanes there are; fixed for the life of the process.
    fn lanes(&self) -> usize;

    /// The stream that numbers what comes now in `lane`.
    fn stream(&self, lane: usize) -> StreamId;

    /// Whether `stream` numbers what comes now in some lane.
    fn writes(&self, stream: StreamId) -> bool {
        (0..self.lanes()).any(|lane| self.stream(lane) == stream)
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

    /// Readings that wait in `lane` for the database.
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

    /// Where a number stands as far as the medium knows; `None` where the ledger must be asked.
    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState>;

    /// What it looks like now, taken in one consistent look.
    fn stats(&self) -> BufferStats;
}
