//! Who holds a key that was taken, and whether it holds the same values.

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Text},
};

use super::{Row, StoredReading};
use crate::{
    domain::reading::ReadingRef,
    store::{Conn, StoreResult, schema::readings},
};

/// Most keys that one statement asks PostgreSQL for.
const KEYS_AT_ONCE: usize = 1_000;

/// The rows that hold the keys of `rows`, in the same order; `None` where a key is free.
pub(super) fn holders(conn: &mut Conn, rows: &[Row<'_>]) -> StoreResult<Vec<Option<StoredReading>>> {
    match conn {
        Conn::Sqlite(conn) => rows.iter().map(|row| Ok(holder(conn, row)?)).collect(),
        Conn::Pg(conn) => {
            let mut found = Vec::with_capacity(rows.len());
            for rows in rows.chunks(KEYS_AT_ONCE) {
                found.extend(holders_postgres(conn, rows)?);
            }
            Ok(found)
        }
    }
}

fn holder(conn: &mut SqliteConnection, row: &Row<'_>) -> QueryResult<Option<StoredReading>> {
    readings::table
        .find((row.reading.engine_id, row.reading.observed_at_us))
        .select(StoredReading::as_select())
        .first(conn)
        .optional()
}

/// One key of [`holders_postgres`], with the row that holds it.
#[derive(QueryableByName)]
struct Held {
    #[diesel(sql_type = BigInt)]
    place: i64,
    #[diesel(embed)]
    reading: StoredReading,
}

fn holders_postgres(conn: &mut PgConnection, rows: &[Row<'_>]) -> QueryResult<Vec<Option<StoredReading>>> {
    let engines: Vec<&str> = rows.iter().map(|row| row.reading.engine_id).collect();
    let times: Vec<i64> = rows.iter().map(|row| row.reading.observed_at_us).collect();
    let held: Vec<Held> = diesel::sql_query(
        "SELECT k.place, r.* FROM unnest($1, $2) WITH ORDINALITY AS k(engine_id, observed_at_us, place) \
         JOIN readings r ON r.engine_id = k.engine_id AND r.observed_at_us = k.observed_at_us",
    )
    .bind::<Array<Text>, _>(engines)
    .bind::<Array<BigInt>, _>(times)
    .load(conn)?;
    let mut found = vec![None; rows.len()];
    for Held { place, reading } in held {
        // Ordinality counts from 1.
        if let Some(slot) = usize::try_from(place - 1).ok().and_then(|place| found.get_mut(place)) {
            *slot = Some(reading);
        }
    }
    Ok(found)
}

/// Whether two readings of one key say the same. Numbers are compared by value: SQLite does not keep the sign of zero.
pub(super) fn same_values(a: &ReadingRef<'_>, b: &ReadingRef<'_>) -> bool {
    a.status == b.status
        && a.temperature == b.temperature
        && a.rpm == b.rpm
        && a.pressure == b.pressure
        && a.fuel_flow == b.fuel_flow
        && a.extra == b.extra
}
