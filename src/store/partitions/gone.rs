//! The end of a partition: out of `readings` within milliseconds, then counted among what was removed, then dropped.
//!
//! Counting reads all of it. So it is done when nobody can see or write it any more, and not under the lock that ends it. In between the
//! integrity check would miss its readings: it finishes what was begun before it compares, whoever began it.

use std::time::Duration;

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    sql_types::{BigInt, Text},
};

use super::{DEFAULT, Partition, be_brief, or_later};
use crate::store::{Conn, StoreResult, watch};

/// What the names of tables begin with that were partitions.
const GONE: &str = "readings_gone_";
/// Longest statement of taking one out: nothing is looked through.
const LONGEST: Duration = Duration::from_secs(1);

/// Takes a partition out of `readings`; [`finish_gone`] does the rest. `false`: somebody uses it, try again later.
///
/// # Errors
/// Those of the database.
pub fn detach(conn: &mut Conn, partition: &Partition) -> StoreResult<bool> {
    let name = &partition.name;
    let rest = name.strip_prefix("readings_").unwrap_or(name);
    let done = conn.write(|conn| {
        let Conn::Pg(pg) = conn else { return Ok(false) };
        be_brief(pg, LONGEST)?;
        // The whole table last: whoever comes then waits for the rest of this transaction, which waits for nobody. Where somebody has the
        // whole and wants one of these two, this transaction gives up before the server would call it a deadlock.
        pg.batch_execute(&format!(
            "LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE; LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE;
             ALTER TABLE readings DETACH PARTITION {name}; ALTER TABLE {name} RENAME TO {GONE}{rest};"
        ))?;
        Ok(true)
    });
    or_later(done, "taking out", name)
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Sum {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn gone(pg: &mut PgConnection) -> StoreResult<Vec<String>> {
    let found: Vec<Name> = diesel::sql_query(format!(
        "SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_class AS r ON r.relnamespace = c.relnamespace \
         WHERE r.oid = to_regclass('readings') AND c.relkind = 'r' AND starts_with(c.relname::text, '{GONE}') ORDER BY 1"
    ))
    .load(pg)?;
    Ok(found.into_iter().map(|found| found.name).collect())
}

/// Whether there is anything for [`finish_gone`].
pub(in crate::store) fn is_any_gone(pg: &mut PgConnection) -> StoreResult<bool> {
    Ok(!gone(pg)?.is_empty())
}

/// Counts and drops the tables that were partitions. Returns how many readings those had. Several may do it at once.
///
/// # Errors
/// Those of the database.
pub fn finish_gone(conn: &mut Conn) -> StoreResult<u64> {
    let Conn::Pg(pg) = conn else { return Ok(0) };
    let names = gone(pg)?;
    if names.is_empty() {
        return Ok(0);
    }
    // It is read as long as that takes; nobody waits for it.
    watch::be_patient();
    let mut removed = 0;
    for name in names {
        removed += conn.write(|conn| finish(conn, &name))?;
    }
    Ok(removed)
}

fn finish(conn: &mut Conn, name: &str) -> StoreResult<u64> {
    let Conn::Pg(pg) = conn else { return Ok(0) };
    pg.batch_execute("SET LOCAL statement_timeout = 0")?;
    // Another may be at it: wait for that one, then look whether anything is left.
    pg.batch_execute(&format!("SELECT pg_advisory_xact_lock(hashtextextended('{name}', 0))"))?;
    if !gone(pg)?.iter().any(|left| left == name) {
        return Ok(0);
    }
    let counted: Sum = diesel::sql_query(format!(
        "WITH counted AS (INSERT INTO removed_readings (stream_no, part, gone) \
         SELECT stream_no, seq / 65536, count(*) FROM {name} GROUP BY 1, 2 RETURNING gone) SELECT coalesce(sum(gone), 0)::bigint AS number FROM counted"
    ))
    .get_result(pg)?;
    pg.batch_execute(&format!("DROP TABLE {name}"))?;
    Ok(counted.number.unsigned_abs())
}
