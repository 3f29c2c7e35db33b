//! What a buffer looks like: a plain value for page, metrics and readiness.

use serde::Serialize;

use super::Account;
use crate::domain::{ack::AckLevel, receipt::StreamId};

/// See [`Buffer::on_visible`](super::Buffer::on_visible).
pub type OnVisible = Box<dyn Fn(u64, bool) + Send + Sync>;

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
    /// The same as a word, for translations.
    pub may_lose_code: &'static str,
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
    /// Whether it is refused because the medium does not take it, room or not.
    pub failing: bool,
    /// Streams behind whose last known number readings may be gone, nobody knows how many: the medium's end was cut off.
    pub lost_ends: u64,
    /// The account of these streams.
    pub account: Account,
    /// Of the account's lost readings, those that went with the process ([`Buffer::abandon`]).
    #[serde(skip)]
    pub abandoned: u64,
    /// See [`Account::difference`] and [`Differences`](super::Differences).
    pub difference: i64,
}

/// Differences of several streams as one figure: 0 only where each of them is, so that what one stream has too many does not hide what another
/// lacks. Its size is all of theirs together, its sign that of their sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Differences {
    sum: i128,
    size: i128,
}

impl Differences {
    /// One stream's, or the figure of several.
    pub fn add(&mut self, difference: i128) {
        self.sum += difference;
        self.size += difference.abs();
    }

    /// The figure.
    pub fn total(self) -> i64 {
        let signed = if self.sum < 0 { -self.size } else { self.size };
        i64::try_from(signed).unwrap_or(if signed > 0 { i64::MAX } else { i64::MIN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_stream_has_too_many_does_not_hide_what_another_lacks() {
        let total = |of: &[i128]| {
            let mut differences = Differences::default();
            of.iter().for_each(|difference| differences.add(*difference));
            differences.total()
        };
        assert_eq!([total(&[]), total(&[0, 0]), total(&[1, 2]), total(&[-1, -2])], [0, 0, 3, -3]);
        assert_eq!([total(&[1, -1]), total(&[1, -2]), total(&[2, -1])], [2, -3, 3]);
        assert_eq!(total(&[i128::from(i64::MAX), 1]), i64::MAX);
    }
}
