//! How much there is, and the end of what is old.

use diesel::{prelude::*, sql_types::BigInt};

use super::query::next_engine;
use crate::store::{Conn, StoreResult, schema::readings};

/// Removes readings measured before `before_us`, at most `max_rows`, in one transaction, and returns how many. Fewer than asked
/// for means that nothing is left to remove.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, max_rows: u32) -> StoreResult<u64> {
    conn.write(|conn| {
        let mut removed = 0;
        let mut engine = next_engine(conn, "")?;
        while let Some(current) = engine {
            let room = i64::from(max_rows) - removed;
            // The first row that does not fit any more, where there is one.
            let cut: Option<i64> = readings::table
                .filter(readings::engine_id.eq(&current))
                .filter(readings::observed_at_us.lt(before_us))
                .order(readings::observed_at_us)
                .offset(room)
                .limit(1)
                .select(readings::observed_at_us)
                .first(conn)
                .optional()?;
            let gone = readings::table
                .filter(readings::engine_id.eq(&current))
                .filter(readings::observed_at_us.lt(cut.unwrap_or(before_us)));
            removed += diesel::delete(gone).execute(conn)? as i64;
            if removed >= i64::from(max_rows) {
                break;
            }
            engine = next_engine(conn, &current)?;
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
