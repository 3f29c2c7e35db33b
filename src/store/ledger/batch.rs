//! One row of the ledger, written in the transaction of the readings, or of the gap, that it counts.

use diesel::prelude::*;

use super::Ranges;
use crate::{
    buffer::{DrainOutcome, GapKind},
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

/// A ledger row about to be written.
pub(in crate::store) struct NewBatch<'a> {
    pub(in crate::store) stream: &'a str,
    pub(in crate::store) outcome: &'a DrainOutcome,
    pub(in crate::store) duplicates: Ranges,
    /// Set where the numbers have no readings.
    pub(in crate::store) gap: Option<GapKind>,
    /// Whether what was stored is relayed.
    pub(in crate::store) relay: bool,
    /// The delivery that carries it to Kafka, written in the same transaction.
    pub(in crate::store) delivery: Option<&'a str>,
    pub(in crate::store) now_us: i64,
}

impl NewBatch<'_> {
    /// Writes the row and adds it to the sums of its stream.
    pub(in crate::store) fn insert(&self, conn: &mut Conn) -> StoreResult<()> {
        let outcome = self.outcome;
        let [stored, duplicate, conflict, dead] =
            [outcome.stored, outcome.duplicate, outcome.conflict, outcome.dead].map(u64::cast_signed);
        let [quarantined, void, lost] = [outcome.quarantined, outcome.void, outcome.lost].map(u64::cast_signed);
        let row = (
            batches::stream.eq(self.stream),
            batches::first_seq.eq(outcome.first_seq.cast_signed()),
            batches::last_seq.eq(outcome.last_seq.cast_signed()),
            batches::stored.eq(stored),
            batches::duplicate.eq(duplicate),
            batches::conflict.eq(conflict),
            batches::dead.eq(dead),
            batches::exceptions.eq(self.duplicates.text()),
            batches::gap.eq(self.gap.map(GapKind::as_str)),
            batches::missing.eq(quarantined + void + lost),
            batches::relay.eq(i32::from(self.relay)),
            batches::created_at_us.eq(self.now_us),
            batches::updated_at_us.eq(self.now_us),
        );
        match self.delivery {
            Some(id) => diesel::insert_into(batches::table).values((row, batches::delivery.eq(id))).execute(conn)?,
            None => diesel::insert_into(batches::table).values(row).execute(conn)?,
        };
        diesel::update(streams::table.filter(streams::stream.eq(self.stream)))
            .set((
                streams::stored.eq(streams::stored + stored),
                streams::duplicate.eq(streams::duplicate + duplicate),
                streams::conflict.eq(streams::conflict + conflict),
                streams::dead.eq(streams::dead + dead),
                streams::quarantined.eq(streams::quarantined + quarantined),
                streams::void.eq(streams::void + void),
                streams::lost.eq(streams::lost + lost),
            ))
            .execute(conn)?;
        Ok(())
    }
}
