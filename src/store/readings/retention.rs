//! How much there is, and the end of what is old.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use crate::{
    on_backend,
    store::{Conn, StoreResult, schema::readings},
};

#[derive(QueryableByName)]
struct Engine {
    #[diesel(sql_type = Text)]
    engine_id: String,
}

#[derive(QueryableByName)]
struct Cut {
    #[diesel(sql_type = BigInt)]
    at_us: i64,
}

/// Removes readings measured before `before_us`, at most `max_rows`, in one transaction, and returns how many. Fewer than asked
/// for means that nothing is left to remove.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, max_rows: u32) -> StoreResult<u64> {
    prune_in(conn, "readings", before_us, max_rows)
}

/// [`prune`] in one table: `readings`, or one of its partitions.
///
/// # Errors
/// Those of the database.
pub fn prune_in(conn: &mut Conn, table: &str, before_us: i64, max_rows: u32) -> StoreResult<u64> {
    // There is no index on the time alone: from engine to engine, each step one look into the key.
    let next = format!("SELECT engine_id FROM {table} WHERE engine_id > $1 ORDER BY engine_id, observed_at_us LIMIT 1");
    // The first row that does not fit any more, where there is one.
    let cut = format!(
        "SELECT observed_at_us AS at_us FROM {table} WHERE engine_id = $1 AND observed_at_us < $2 ORDER BY observed_at_us LIMIT 1 OFFSET $3"
    );
    let delete = format!("DELETE FROM {table} WHERE engine_id = $1 AND observed_at_us < $2");
    conn.write(|conn| {
        let (mut removed, mut engine) = (0, String::new());
        loop {
            let found: Option<Engine> =
                on_backend!(conn, |c| diesel::sql_query(&next).bind::<Text, _>(&engine).get_result(c).optional())?;
            let Some(found) = found else { break };
            engine = found.engine_id;
            let first: Option<Cut> = on_backend!(conn, |c| diesel::sql_query(&cut)
                .bind::<Text, _>(&engine)
                .bind::<BigInt, _>(before_us)
                .bind::<BigInt, _>(i64::from(max_rows) - removed)
                .get_result(c)
                .optional())?;
            let end_us = first.map_or(before_us, |first| first.at_us);
            removed +=
                on_backend!(conn, |c| diesel::sql_query(&delete).bind::<Text, _>(&engine).bind::<BigInt, _>(end_us).execute(c))?
                    as i64;
            if removed >= i64::from(max_rows) {
                break;
            }
        }
        Ok(removed.unsigned_abs())
    })
}

/// How many readings there are. It counts them one by one: ask seldom.
///
/// # Errors
/// Those of the database.
pub fn count(conn: &mut Conn) -> StoreResult<u64> {
    let count: i64 = readings::table.count().get_result(conn)?;
    Ok(count.unsigned_abs())
}

#[derive(QueryableByName)]
struct Size {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// How many bytes the database takes on its disk, without SQLite's write-ahead log.
///
/// # Errors
/// Those of the database.
pub fn size_bytes(conn: &mut Conn) -> StoreResult<u64> {
    let size: Size = match conn {
        Conn::Sqlite(conn) => {
            diesel::sql_query("SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()")
                .get_result(conn)?
        }
        Conn::Pg(conn) => diesel::sql_query("SELECT pg_database_size(current_database()) AS bytes").get_result(conn)?,
    };
    Ok(size.bytes.unsigned_abs())
}
