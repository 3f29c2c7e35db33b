//! What a person decides about a failure: the one place that moves its state and the ledger with it.

use diesel::prelude::*;
use serde::Serialize;

use super::{FailureKind, FailureRow, FailureState, ReadingFailure, unknown};
use crate::{
    domain::receipt::StreamId,
    on_backend,
    store::{
        Conn, StoreError, StoreErrorKind, StoreResult, ledger,
        readings::{Fate, Payload, Relaying, insert_one},
        relay,
        schema::{batches, reading_failures, streams},
    },
};

/// By how much a decision moved the account of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// The stream.
    pub stream: StreamId,
    /// Change of what is stored.
    pub stored: i64,
    /// Change of the duplicates.
    pub duplicate: i64,
    /// Change of the conflicts.
    pub conflict: i64,
    /// Change of the dead.
    pub dead: i64,
    /// Change of the discarded.
    pub discarded: i64,
}

impl Delta {
    /// No change.
    pub fn none(stream: StreamId) -> Self {
        Self { stream, stored: 0, duplicate: 0, conflict: 0, dead: 0, discarded: 0 }
    }

    /// Takes one away from where it stood.
    fn take(mut self, kind: FailureKind) -> Self {
        match kind {
            FailureKind::Conflict => self.conflict -= 1,
            FailureKind::Dead => self.dead -= 1,
        }
        self
    }
}

/// What became of a retry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retried {
    /// Whether the reading is settled now; `false`: it failed again and stays open.
    pub settled: bool,
    /// The failure as it stands now.
    pub failure: ReadingFailure,
    /// What moved.
    pub delta: Delta,
}

/// Tries to store the reading again: after the one that held its key was removed, or after the table was mended. It is settled as
/// stored, or as a duplicate where the same values are there by now.
///
/// # Errors
/// [`StoreErrorKind::NotFound`]; [`StoreErrorKind::Conflict`] where it has been decided before; those of the database.
pub fn retry(conn: &mut Conn, id: &str, reason: &str, actor: &str, now_us: i64) -> StoreResult<Retried> {
    retry_for(conn, id, (reason, actor), now_us, Relaying::Off)
}

/// [`retry`], and where `relaying` is on a delivery of what was stored, in the same transaction.
///
/// # Errors
/// As [`retry`].
pub fn retry_for(
    conn: &mut Conn,
    id: &str,
    (reason, actor): (&str, &str),
    now_us: i64,
    relaying: Relaying,
) -> StoreResult<Retried> {
    conn.write(|conn| {
        let row = lock_open(conn, id)?;
        let kind = ReadingFailure::try_from(row.clone())?.kind;
        let payload: Payload = serde_json::from_str(&row.payload)
            .map_err(|_| StoreError::new(StoreErrorKind::Corrupt, format!("the payload of reading failure {id} is damaged")))?;
        let stream_no: i64 = streams::table.filter(streams::stream.eq(&row.stream)).select(streams::no).first(conn)?;
        let fate = match conn.savepoint(|conn| insert_one(conn, stream_no, &payload.row(row.seq))) {
            Ok(fate) => fate,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => Fate::Refused(error),
        };
        let stream = ledger::parse_stream(&row.stream)?;
        let mut delta = Delta::none(stream);
        match &fate {
            Fate::Stored => delta = Delta { stored: 1, ..delta.take(kind) },
            Fate::Duplicate => delta = Delta { duplicate: 1, ..delta.take(kind) },
            Fate::Conflict | Fate::Refused(_) => {}
        }
        let settled = matches!(fate, Fate::Stored | Fate::Duplicate);
        if settled {
            move_account(conn, &row, &delta, now_us)?;
        }
        if matches!(fate, Fate::Stored) && relaying == Relaying::On {
            relay::enqueue_retried(conn, &row.stream, &relay::Body::of_row(&payload.row(row.seq)), now_us)?;
        }
        let message = match fate {
            Fate::Refused(error) => error.to_string(),
            _ => row.message,
        };
        let state = if settled { FailureState::Retried } else { FailureState::Open };
        diesel::update(reading_failures::table.find(id))
            .set((
                reading_failures::state.eq(state.as_str()),
                reading_failures::attempts.eq(reading_failures::attempts + 1),
                reading_failures::message.eq(message),
                reading_failures::reason.eq(reason),
                reading_failures::actor.eq(actor),
                reading_failures::updated_at_us.eq(now_us),
            ))
            .execute(conn)?;
        Ok(Retried { settled, failure: super::get(conn, id)?, delta })
    })
}

/// Gives the reading up. Its row stays until retention removes it.
///
/// # Errors
/// [`StoreErrorKind::NotFound`]; [`StoreErrorKind::Conflict`] where it has been decided before; those of the database.
pub fn discard(conn: &mut Conn, id: &str, reason: &str, actor: &str, now_us: i64) -> StoreResult<(ReadingFailure, Delta)> {
    conn.write(|conn| {
        let row = lock_open(conn, id)?;
        let kind = ReadingFailure::try_from(row.clone())?.kind;
        let delta = Delta { discarded: 1, ..Delta::none(ledger::parse_stream(&row.stream)?).take(kind) };
        move_account(conn, &row, &delta, now_us)?;
        diesel::update(reading_failures::table.find(id))
            .set((
                reading_failures::state.eq(FailureState::Discarded.as_str()),
                reading_failures::reason.eq(reason),
                reading_failures::actor.eq(actor),
                reading_failures::updated_at_us.eq(now_us),
            ))
            .execute(conn)?;
        Ok((super::get(conn, id)?, delta))
    })
}

/// Reads the row under a lock, so that two people cannot decide at once.
fn lock_open(conn: &mut Conn, id: &str) -> StoreResult<FailureRow> {
    let by_id = reading_failures::table.find(id);
    let row: Option<FailureRow> = match conn {
        // SQLite's transaction holds the only write lock.
        Conn::Sqlite(conn) => by_id.select(FailureRow::as_select()).first(conn).optional()?,
        Conn::Pg(conn) => by_id.for_update().select(FailureRow::as_select()).first(conn).optional()?,
    };
    let row = row.ok_or_else(|| unknown(id))?;
    if row.state == FailureState::Open.as_str() {
        return Ok(row);
    }
    Err(StoreError::conflict(format!("the reading failure {id} is {} already", row.state)))
}

/// Moves the sums of the stream, and the ledger row while there is one.
fn move_account(conn: &mut Conn, row: &FailureRow, delta: &Delta, now_us: i64) -> StoreResult<()> {
    diesel::update(streams::table.filter(streams::stream.eq(&row.stream)))
        .set((
            streams::stored.eq(streams::stored + delta.stored),
            streams::duplicate.eq(streams::duplicate + delta.duplicate),
            streams::conflict.eq(streams::conflict + delta.conflict),
            streams::dead.eq(streams::dead + delta.dead),
            streams::discarded.eq(streams::discarded + delta.discarded),
        ))
        .execute(conn)?;
    let batch = batches::table
        .filter(batches::stream.eq(&row.stream))
        .filter(batches::first_seq.le(row.seq))
        .filter(batches::last_seq.ge(row.seq));
    let change = (
        batches::stored.eq(batches::stored + delta.stored),
        batches::duplicate.eq(batches::duplicate + delta.duplicate),
        batches::conflict.eq(batches::conflict + delta.conflict),
        batches::dead.eq(batches::dead + delta.dead),
        batches::discarded.eq(batches::discarded + delta.discarded),
        batches::updated_at_us.eq(now_us),
    );
    on_backend!(conn, |c| diesel::update(batch).set(change).execute(c))?;
    Ok(())
}
