//! `COPY`: the quickest way into PostgreSQL for readings that are all new, which is what readings are. docs/PERFORMANCE.md has the figures.
//!
//! In: the rows of one transaction. Out: whether all of them are in the table now. `COPY` knows no `ON CONFLICT`: one key that is taken
//! fails the transaction, whose caller repeats it the slower way. So a source that repeats itself would cost each batch twice; after
//! such a failure the next statements of this thread do not try. A crash loses nothing here: it is all within the transaction.

use std::{cell::Cell, io::Write};

use diesel::{pg::CopyFormat, prelude::*, result::Error as DieselError};

use super::Row;
use crate::store::{Conn, StoreResult, schema::readings};

/// Fewer rows than this are quicker as arrays: `COPY` takes three round trips where a prepared statement takes one.
const FEWEST_ROWS: usize = 64;
/// Bytes that are handed to libpq at once. It keeps what it was given until it is sent, so this bounds its memory, too.
const PIECE_BYTES: usize = 32 * 1_024;
/// Most statements that are not tried after a failure.
const SKIP_MAX: u32 = 64;

/// What `COPY` begins with in binary form: signature, no flags, no extension.
const HEAD: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
const END: [u8; 2] = (-1i16).to_be_bytes();

thread_local! {
    static PATIENCE: Cell<Patience> = const { Cell::new(Patience { skip: 0, next: 1 }) };
}

/// How long to leave `COPY` alone after a key was taken: 1 statement, then 2, 4, … up to [`SKIP_MAX`] while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Patience {
    skip: u32,
    next: u32,
}

impl Patience {
    /// Whether to try now, and what is left afterwards.
    fn ask(self) -> (bool, Self) {
        (self.skip == 0, Self { skip: self.skip.saturating_sub(1), ..self })
    }

    fn failed(self) -> Self {
        Self { skip: self.next, next: (self.next * 2).min(SKIP_MAX) }
    }

    fn worked(self) -> Self {
        Self { next: (self.next / 2).max(1), ..self }
    }
}

/// Puts all of `rows`, sorted by key, into the table, or says that another statement has to do it: the database has no `COPY`, there are too few rows
/// to gain by it, or keys were taken lately.
///
/// # Errors
/// Those of the database, a taken key among them (`23505`); the transaction has to be rolled back, nothing of it is stored.
pub(super) fn copy_all(conn: &mut Conn, stream_no: i64, rows: &[Row<'_>]) -> StoreResult<bool> {
    let Conn::Pg(conn) = conn else { return Ok(false) };
    // Rows come sorted by key: a key that two of them share is seen here at once.
    let shared = |pair: &[Row<'_>]| key(&pair[0]) == key(&pair[1]);
    if rows.len() < FEWEST_ROWS || rows.windows(2).any(shared) {
        return Ok(false);
    }
    let (try_it, patience) = PATIENCE.get().ask();
    PATIENCE.set(patience);
    if !try_it {
        return Ok(false);
    }
    let copied = diesel::copy_from(readings::table)
        .from_raw_data(COLUMNS, |out: &mut dyn Write| send(out, stream_no, rows).map_err(cause))
        .with_format(CopyFormat::Binary)
        .execute(conn);
    let all = matches!(copied, Ok(count) if count == rows.len());
    PATIENCE.set(if all { patience.worked() } else { patience.failed() });
    let count = copied?;
    if all {
        return Ok(true);
    }
    // A trigger of somebody's left rows out. The careful way finds out which.
    Err(crate::store::StoreError::other(format!("COPY took {count} of {} rows", rows.len())))
}

fn key<'a>(row: &Row<'a>) -> (i64, &'a str) {
    (row.reading.observed_at_us, row.reading.engine_id)
}

/// What went wrong below the writer: libpq's own error travels inside.
fn cause(error: std::io::Error) -> DieselError {
    match error.downcast::<DieselError>() {
        Ok(error) => error,
        Err(error) => DieselError::SerializationError(Box::new(error)),
    }
}

fn send(out: &mut dyn Write, stream_no: i64, rows: &[Row<'_>]) -> std::io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE_BYTES + 1_024);
    piece.extend_from_slice(HEAD);
    for row in rows {
        encode(&mut piece, stream_no, row);
        if piece.len() >= PIECE_BYTES {
            out.write_all(&piece)?;
            piece.clear();
        }
    }
    piece.extend_from_slice(&END);
    out.write_all(&piece)
}

/// One row: the number of its fields, and each with its length, big endian.
fn encode(out: &mut Vec<u8>, stream_no: i64, Row { reading, seq, created_at_us }: &Row<'_>) {
    const FIELDS: i16 = 11;
    out.extend_from_slice(&FIELDS.to_be_bytes());
    field(out, Some(reading.engine_id.as_bytes()));
    field(out, Some(&reading.observed_at_us.to_be_bytes()));
    field(out, reading.status.map(str::as_bytes));
    for metric in [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow] {
        field(out, metric.map(f64::to_be_bytes).as_ref().map(|bytes| bytes.as_slice()));
    }
    field(out, reading.extra.map(str::as_bytes));
    for number in [&stream_no, seq, created_at_us] {
        field(out, Some(&number.to_be_bytes()));
    }
}

fn field(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    // Texts of a reading are far below 2 GiB; -1 is null.
    let length = bytes.map_or(-1, |bytes| bytes.len() as i32);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// What [`encode`] writes, in its order.
const COLUMNS: Columns = (
    readings::engine_id,
    readings::observed_at_us,
    readings::status,
    readings::temperature,
    readings::rpm,
    readings::pressure,
    readings::fuel_flow,
    readings::extra,
    readings::stream_no,
    readings::seq,
    readings::created_at_us,
);

type Columns = (
    readings::engine_id,
    readings::observed_at_us,
    readings::status,
    readings::temperature,
    readings::rpm,
    readings::pressure,
    readings::fuel_flow,
    readings::extra,
    readings::stream_no,
    readings::seq,
    readings::created_at_us,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_repeats_itself_is_tried_less_and_less_and_forgiven() {
        let mut patience = Patience { skip: 0, next: 1 };
        let mut tries = Vec::new();
        for statement in 0..200 {
            let (try_it, rest) = patience.ask();
            patience = if try_it { rest.failed() } else { rest };
            if try_it {
                tries.push(statement);
            }
        }
        assert_eq!(tries, [0, 2, 5, 10, 19, 36, 69, 134, 199]);
        for _ in 0..6 {
            patience = patience.worked();
        }
        assert_eq!(patience.next, 1);
    }
}
