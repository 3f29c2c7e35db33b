//! Stores again what the ledger says is stored, the table does not have, and the medium before the database still holds.
//!
//! In: the ranges that a pass found incomplete. Out: rows. Ranges of which anything was deleted on purpose are left alone, because nobody knows
//! which readings those were. A crash leaves a transaction undone, and the next pass finds the same.

use std::io;

use diesel::prelude::*;

use super::{Audit, Medium, PART};
use crate::{
    buffer::Frame,
    domain::receipt::StreamId,
    store::{
        Conn, StoreError, StoreResult,
        readings::{Row, insert_rows},
        schema::{reading_failures, streams},
    },
};

/// What lies before the database, as the check asks it.
pub trait Held: Send + Sync {
    /// First and last number of `stream` that it still holds, settled or not; `None` where the stream is none of its own.
    fn span(&self, stream: StreamId) -> Option<(u64, u64)>;

    /// The frames that have a number from `first` to `last`, as far as they can be read.
    ///
    /// # Errors
    /// The medium failed.
    fn frames(&self, stream: StreamId, first: u64, last: u64) -> io::Result<Vec<Frame>>;

    /// Begins a comparison of what `medium` holds with what it should hold; `None` where readings do not wait in it.
    fn audit(&self, medium: Medium) -> Option<Box<dyn Audit>> {
        let _ = medium;
        None
    }
}

/// Numbers of one stream of which readings are missing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hole {
    pub(super) stream: String,
    pub(super) stream_no: i64,
    /// First and last number, inclusive.
    pub(super) numbers: (i64, i64),
}

/// Stores again what `held` has of `hole`. Returns how many rows that were.
///
/// # Errors
/// Those of the database and of the medium.
pub fn refill(conn: &mut Conn, hole: &Hole, held: &dyn Held) -> StoreResult<u64> {
    let stream = crate::store::ledger::parse_stream(&hole.stream)?;
    let Some((first, last)) = held.span(stream) else { return Ok(0) };
    let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
    let (first, last) = (hole.numbers.0.max(number(first)), hole.numbers.1.min(number(last)));
    let mut stored = 0;
    let mut from = first;
    while from <= last {
        let to = last.min((from / PART + 1) * PART - 1);
        let frames = held
            .frames(stream, from.unsigned_abs(), to.unsigned_abs())
            .map_err(|error| StoreError::other(format!("the journal cannot be read: {error}")))?;
        stored += conn.write(|conn| store_again(conn, hole, &frames, (from, to)))?;
        from = to + 1;
    }
    Ok(stored)
}

fn store_again(conn: &mut Conn, hole: &Hole, frames: &[Frame], (from, to): (i64, i64)) -> StoreResult<u64> {
    // What lies behind the cursor is the drain's; what waits for a person is the person's.
    let cursor: i64 = streams::table.find(hole.stream_no).select(streams::cursor_seq).first(conn)?;
    let failed: Vec<i64> = reading_failures::table
        .filter(reading_failures::stream.eq(&hole.stream))
        .filter(reading_failures::seq.between(from, to))
        .select(reading_failures::seq)
        .load(conn)?;
    let mut rows: Vec<Row<'_>> = Vec::new();
    for frame in frames {
        let created_at_us = frame.batch.received_at_us();
        let numbers = i64::try_from(frame.first_seq).unwrap_or(i64::MAX)..;
        let wanted = |seq: i64| (from..=to.min(cursor)).contains(&seq) && !failed.contains(&seq);
        let numbered = numbers.zip(frame.batch.iter()).filter(|(seq, _)| wanted(*seq));
        rows.extend(numbered.map(|(seq, reading)| Row { reading, seq, created_at_us }));
    }
    rows.sort_by(|a, b| (a.reading.engine_id, a.reading.observed_at_us).cmp(&(b.reading.engine_id, b.reading.observed_at_us)));
    // A duplicate's key is taken by the reading that came first.
    let mut stored = 0;
    for rows in rows.chunks(1_000) {
        stored += insert_rows(conn, hole.stream_no, rows)?;
    }
    Ok(stored)
}
