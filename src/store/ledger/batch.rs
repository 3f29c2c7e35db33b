//! One row of the ledger: written with the readings it counts, read again when they are replayed.

use diesel::prelude::*;

use super::Ranges;
use crate::{
    buffer::{DrainOutcome, Frame},
    store::{
        Conn, StoreError, StoreResult,
        schema::{batches, streams},
    },
};

/// The cursor of a stream.
pub(in crate::store) fn cursor(conn: &mut Conn, stream: &str) -> StoreResult<i64> {
    let cursor = streams::table.filter(streams::stream.eq(stream)).select(streams::cursor_seq).first(conn).optional()?;
    cursor.ok_or_else(|| StoreError::not_found(format!("stream {stream} is not registered in this database")))
}

/// A checksum over the encoded readings of `frames`: tells a replay from another writer's readings under the same numbers.
pub(in crate::store) fn checksum(frames: &[Frame]) -> i64 {
    let mut crc = flate2::Crc::new();
    for frame in frames {
        crc.update(frame.batch.bytes());
    }
    i64::from(crc.sum())
}

/// A ledger row about to be written.
pub(in crate::store) struct NewBatch<'a> {
    pub(in crate::store) stream: &'a str,
    pub(in crate::store) outcome: &'a DrainOutcome,
    pub(in crate::store) duplicates: Ranges,
    pub(in crate::store) checksum: i64,
    pub(in crate::store) now_us: i64,
}

impl NewBatch<'_> {
    /// Writes the row and adds it to the sums of its stream.
    pub(in crate::store) fn insert(&self, conn: &mut Conn) -> StoreResult<()> {
        let outcome = self.outcome;
        let [stored, duplicate, conflict, dead] =
            [outcome.stored, outcome.duplicate, outcome.conflict, outcome.dead].map(u64::cast_signed);
        diesel::insert_into(batches::table)
            .values((
                batches::stream.eq(self.stream),
                batches::first_seq.eq(outcome.first_seq.cast_signed()),
                batches::last_seq.eq(outcome.last_seq.cast_signed()),
                batches::stored.eq(stored),
                batches::duplicate.eq(duplicate),
                batches::conflict.eq(conflict),
                batches::dead.eq(dead),
                batches::exceptions.eq(self.duplicates.text()),
                batches::checksum.eq(self.checksum),
                batches::created_at_us.eq(self.now_us),
                batches::updated_at_us.eq(self.now_us),
            ))
            .execute(conn)?;
        diesel::update(streams::table.filter(streams::stream.eq(self.stream)))
            .set((
                streams::stored.eq(streams::stored + stored),
                streams::duplicate.eq(streams::duplicate + duplicate),
                streams::conflict.eq(streams::conflict + conflict),
                streams::dead.eq(streams::dead + dead),
            ))
            .execute(conn)?;
        Ok(())
    }
}

/// What the ledger says of frames that were settled before.
pub(in crate::store) fn replayed(conn: &mut Conn, stream: &str, frames: &[Frame], cursor: i64) -> StoreResult<DrainOutcome> {
    type Columns = (i64, i64, i64, i64, i64, i64, i64, i64);
    let first = frames[0].first_seq.cast_signed();
    let last = frames[frames.len() - 1].last_seq().cast_signed();
    let rows: Vec<Columns> = batches::table
        .filter(batches::stream.eq(stream))
        .filter(batches::first_seq.ge(first))
        .filter(batches::last_seq.le(last))
        .order(batches::first_seq)
        .select((
            batches::first_seq,
            batches::last_seq,
            batches::stored,
            batches::duplicate,
            batches::conflict,
            batches::dead,
            batches::discarded,
            batches::checksum,
        ))
        .load(conn)?;
    let other_writer = || {
        StoreError::conflict(format!(
            "stream {stream} stands at {cursor} and its ledger does not hold the readings {first} to {last}: another writer settled others"
        ))
    };
    let mut outcome = DrainOutcome { first_seq: frames[0].first_seq, last_seq: frames[0].first_seq - 1, ..Default::default() };
    let mut rest = frames;
    for (row_first, row_last, stored, duplicate, conflict, dead, discarded, row_checksum) in rows {
        let (covered, after) = rest.split_at(rest.partition_point(|frame| frame.last_seq().cast_signed() <= row_last));
        let fits = row_first == outcome.last_seq.cast_signed() + 1
            && covered.last().is_some_and(|frame| frame.last_seq().cast_signed() == row_last)
            && checksum(covered) == row_checksum;
        if !fits {
            return Err(other_writer());
        }
        outcome.last_seq = row_last.unsigned_abs();
        outcome.stored += stored.unsigned_abs();
        outcome.duplicate += duplicate.unsigned_abs();
        // A discarded one was a conflict or dead when it was drained; the account learns of the discard apart.
        outcome.conflict += conflict.unsigned_abs() + discarded.unsigned_abs();
        outcome.dead += dead.unsigned_abs();
        rest = after;
    }
    if rest.is_empty() { Ok(outcome) } else { Err(other_writer()) }
}
