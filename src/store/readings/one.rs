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

pub(in crate::store) fn insert_one(conn: &mut Conn, stream_no: i64, row: &Row<'_>) -> StoreResult<Fate> {
    let rows = std::slice::from_ref(row);
    if insert_rows(conn, stream_no, rows)? == 1 {
        return Ok(Fate::Stored);
    }
    match holders(conn, rows)?.pop().flatten() {
        Some(holder) if same_values(&row.reading, &holder.as_ref()) => Ok(Fate::Duplicate),
        Some(_) => Ok(Fate::Conflict),
        None => Err(StoreError::from_code("40001", "a reading vanished while it was compared")),
    }
}
