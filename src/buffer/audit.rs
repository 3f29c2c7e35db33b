//! A comparison of what a medium holds with what its books say that it holds, in slices, beside everything else that the medium does.
//!
//! In: entries, in their order. Out: which numbers are not where they should be. What can be made good from another medium is ordered on
//! the way; nothing else is changed. A crash loses the place: the next comparison begins anew.

use crate::domain::receipt::StreamId;

/// What may be compared with its books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The journal on this host's disk.
    Journal,
    /// Redis.
    Redis,
}

/// Stretches of numbers that are told one by one; further ones are only counted.
pub const ABSENT_MAX: usize = 64;

/// Consecutive numbers that a stream should have and has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The stream.
    pub stream: StreamId,
    /// The first of them.
    pub first: u64,
    /// The last of them, inclusive.
    pub last: u64,
    /// How many of them wait here for the database and are nowhere else, as far as is known.
    pub waiting: u64,
    /// Not even an entry before or behind them is there. What has been kept long enough may be gone as it should: another instance that had
    /// taken the stream over removes it too, and how long a copy had been there that was gone at the start nobody knows.
    pub whole: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Streams that were compared.
    pub streams: u64,
    /// Readings that were compared.
    pub readings: u64,
    /// What is not there, at most [`ABSENT_MAX`] stretches.
    pub absent: Vec<Absent>,
    /// Numbers in further stretches.
    pub further: u64,
    /// Readings that the medium has beyond what it may have: of numbers that their origin never gave, or twice.
    pub astray: u64,
    /// Readings whose copy is made anew, because some of it was not there and its origin still has all of it.
    pub copied_again: u64,
}

impl Audited {
    /// Notes what is not there; what follows right on what was noted last is one stretch with it.
    pub fn add(&mut self, absent: Absent) {
        if let Some(last) = self.absent.last_mut()
            && (last.stream, last.last + 1, last.whole) == (absent.stream, absent.first, absent.whole)
        {
            (last.last, last.waiting) = (absent.last, last.waiting + absent.waiting);
        } else if self.absent.len() < ABSENT_MAX {
            self.absent.push(absent);
        } else {
            self.further += absent.last + 1 - absent.first;
        }
    }
}

/// A comparison under way.
pub trait Audit: Send {
    /// One slice more; what was found once there is nothing left. Blocks for as long as one call to the medium takes.
    ///
    /// # Errors
    /// The medium does not answer, in words; the comparison is not to be gone on with.
    fn step(&mut self) -> Result<Option<Audited>, String>;

    /// It goes on later: whatever others may close meanwhile is let go.
    fn rest(&mut self);

    /// Readings that were compared so far.
    fn readings(&self) -> u64;
}
