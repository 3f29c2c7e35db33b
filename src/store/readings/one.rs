//! One reading alone: what a retry does.

use super::{
    Row,
    compare::{holders, same_values},
    insert_rows,
};
use crate::store::{Conn, StoreError, StoreResult};

/// What became of it.
#[derive(Debug)]
pub(in crate::store) enum Fate {
    /// It is in the table now.
    Stored,
    /// The same values are there.
    Duplicate,
    /// Other values are there.
    Conflict,
    /// The database does not take it.
    Refused(StoreError),
}

/// The database reported no fault and did not keep the reading, although its key is free.
pub(super) fn left_out() -> StoreError {
    StoreError::invalid(
        "the database left the reading out without an error: a trigger or rule on the table readings drops it (RETURN NULL on \
         PostgreSQL, RAISE(IGNORE) on SQLite)",
    )
}

pub(in crate::store) fn insert_one(conn: &mut Conn, stream_no: i64, row: &Row<'_>) -> StoreResult<Fate> {
    let rows = std::slice::from_ref(row);
    if insert_rows(conn, stream_no, rows)? == 1 {
        return Ok(Fate::Stored);
    }
    match holders(conn, rows)?.pop().flatten() {
        Some(holder) if same_values(&row.reading, &holder.as_ref()) => Ok(Fate::Duplicate),
        Some(_) => Ok(Fate::Conflict),
        None => Ok(Fate::Refused(left_out())),
    }
}
