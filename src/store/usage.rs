//! What the store takes on its disk, by kind.
//!
//! In: the database's own figures. Out: bytes. SQLite knows them only by looking at each of its pages, so a large file is not asked; nor is a
//! large table asked for its oldest row where no index answers. A crash loses nothing.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable},
};

use super::{Conn, StoreResult, partitions, readings};
use crate::on_backend;

/// Above this size of the database what has to be counted or looked for row by row is left out: it would cost more than it is worth.
pub const COUNT_UP_TO_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes by kind, and what else concerns retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, QueryableByName)]
pub struct Kinds {
    /// Readings, without their index on PostgreSQL; on SQLite a table and its key are one.
    #[diesel(sql_type = BigInt)]
    pub readings: i64,
    /// Deliveries and their bodies, messages and what goes with them.
    #[diesel(sql_type = BigInt)]
    pub deliveries: i64,
    /// The ledger: batches, streams, what was removed, what failed.
    #[diesel(sql_type = BigInt)]
    pub ledger: i64,
    /// Indexes of all of them.
    #[diesel(sql_type = BigInt)]
    pub indexes: i64,
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of it, without SQLite's write-ahead log.
    pub size_bytes: u64,
    /// By kind; `None` where SQLite's file is too large to look through.
    pub kinds: Option<Kinds>,
    /// Bytes within SQLite's file that hold nothing; new rows go there first.
    pub free_bytes: Option<u64>,
    /// Readings; `None` where there are too many to count.
    pub readings: Option<u64>,
    /// Partitions of readings, the default one not counted.
    pub partitions: u64,
    /// When the oldest reading was observed, microseconds since the epoch; where that is not to be looked for, when its partition begins.
    pub oldest_us: Option<i64>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Nullable<BigInt>)]
    number: Option<i64>,
}

fn number(conn: &mut Conn, text: &str) -> StoreResult<Option<i64>> {
    Ok(on_backend!(conn, |c| diesel::sql_query(text).get_result::<Number>(c))?.number)
}

/// Looks.
///
/// # Errors
/// Those of the database.
pub fn usage(conn: &mut Conn) -> StoreResult<Usage> {
    let size_bytes = readings::size_bytes(conn)?;
    let small = size_bytes <= COUNT_UP_TO_BYTES;
    let parts = partitions::list(conn)?;
    let is_sqlite = matches!(conn, Conn::Sqlite(_));
    let kinds = if !is_sqlite || small { Some(kinds(conn)?) } else { None };
    let free_bytes = if is_sqlite {
        number(conn, "SELECT freelist_count * page_size AS number FROM pragma_freelist_count(), pragma_page_size()")?
            .map(i64::unsigned_abs)
    } else {
        None
    };
    let oldest_us = if small {
        number(conn, "SELECT min(observed_at_us) AS number FROM readings")?
    } else {
        parts.first().and_then(|part| part.from_us)
    };
    let readings = if small { Some(readings::count(conn)?) } else { None };
    Ok(Usage { size_bytes, kinds, free_bytes, readings, partitions: parts.len() as u64, oldest_us })
}

fn kinds(conn: &mut Conn) -> StoreResult<Kinds> {
    // Names as the migrations give them; on PostgreSQL each with its partitions.
    let groups = [
        ("readings", &["readings"][..]),
        (
            "deliveries",
            &[
                "deliveries",
                "delivery_bodies",
                "delivery_attempts",
                "delivery_claims",
                "delivery_turns",
                "messages",
                "message_deliveries",
                "message_attachments",
                "message_events",
                "idempotency_keys",
            ],
        ),
        ("ledger", &["batches", "streams", "removed_readings", "reading_failures"]),
    ];
    let text = match conn {
        Conn::Sqlite(_) => {
            let all = "SELECT sum(s.pgsize) FROM dbstat('main', 1) AS s JOIN sqlite_schema AS o ON o.name = s.name";
            let of =
                |names: &[&str]| format!("coalesce(({all} WHERE o.type = 'table' AND s.name IN ('{}')), 0)", names.join("', '"));
            let columns: Vec<_> = groups.iter().map(|(kind, names)| format!("{} AS {kind}", of(names))).collect();
            format!("SELECT {}, coalesce(({all} WHERE o.type = 'index'), 0) AS indexes", columns.join(", "))
        }
        Conn::Pg(_) => {
            let sum = |size: &str, names: &[&str]| {
                format!(
                    "(SELECT coalesce(sum({size}(t.relid)), 0)::bigint FROM unnest(ARRAY['{}']) AS name, \
                     LATERAL pg_partition_tree(to_regclass(name)) AS t)",
                    names.join("', '")
                )
            };
            let columns: Vec<_> = groups.iter().map(|(kind, names)| format!("{} AS {kind}", sum("pg_table_size", names))).collect();
            let every: Vec<&str> = groups.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            format!("SELECT {}, {} AS indexes", columns.join(", "), sum("pg_indexes_size", &every))
        }
    };
    Ok(on_backend!(conn, |c| diesel::sql_query(text).get_result(c))?)
}
