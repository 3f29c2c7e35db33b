//! PostgreSQL's side: belayd's tables as text of `COPY`, from one REPEATABLE READ transaction, and back in one transaction.

use std::io::BufRead;

use diesel::{
    RunQueryDsl,
    connection::SimpleConnection,
    copy_from, copy_to,
    pg::{CopyTarget, Pg, PgConnection},
    query_builder::AstPass,
    result::{Error as DieselError, QueryResult},
    sql_query,
    sql_types::{BigInt, Nullable, Text},
};

use super::{Counter, Fill, Shape, Table};
use crate::store::{
    Conn, StoreError, StoreResult,
    migrate::{LOCK, Migrations},
    partitions, schema, watch,
};

/// Bytes of `COPY` text handed over at once; one row more may come on top.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// Every table of the shared store on PostgreSQL: a zero-sized name for each, because `COPY` takes no parameters.
macro_rules! tables {
    ($($table:ident = $name:literal,)+) => {
        $(
            /// Its rows: a table in partitions has none of its own that `COPY` would take.
            #[derive(Debug)]
            struct $table;

            impl CopyTarget for $table {
                type Table = schema::readings::table;
                type SqlType = Text;

                fn walk_target(mut pass: AstPass<'_, '_, Pg>) -> QueryResult<()> {
                    pass.push_sql(concat!("(SELECT * FROM ", $name, ")"));
                    Ok(())
                }
            }
        )+

        mod into {
            use super::*;
            $(
            #[derive(Debug)]
            pub(super) struct $table;

            // All columns in their order: a backup records their names, and is put back into a table that the same migrations made.
            impl CopyTarget for $table {
                type Table = schema::readings::table;
                type SqlType = Text;

                fn walk_target(mut pass: AstPass<'_, '_, Pg>) -> QueryResult<()> {
                    pass.push_sql($name);
                    Ok(())
                }
            }
            )+
        }

        /// Their names, in the order in which they are copied.
        pub(super) const TABLES: &[&str] = &[$($name),+];

        fn dump_table(conn: &mut PgConnection, table: &str, sink: Sink<'_>) -> StoreResult<()> {
            match table {
                $($name => drain_lines(&mut copy_to($table).load_raw(conn)?, sink),)+
                other => Err(unknown(other)),
            }
        }

        fn load_part(conn: &mut PgConnection, table: &str, lines: &[u8]) -> StoreResult<()> {
            let write = |out: &mut dyn std::io::Write| -> Result<(), DieselError> {
                out.write_all(lines).map_err(|error| DieselError::SerializationError(Box::new(error)))
            };
            match table {
                $($name => diesel::ExecuteCopyFromDsl::execute(copy_from(schema::readings::table).from_raw_data(into::$table, write), conn)?,)+
                other => return Err(unknown(other)),
            };
            Ok(())
        }
    };
}

tables! {
    Streams = "streams",
    Readings = "readings",
    Batches = "batches",
    ReadingFailures = "reading_failures",
    Deliveries = "deliveries",
    RemovedReadings = "removed_readings",
    Leases = "leases",
    Instances = "instances",
    Duties = "duties",
    Episodes = "episodes",
    DeliveryBodies = "delivery_bodies",
    RelayEngines = "relay_engines",
    Messages = "messages",
    MessageDeliveries = "message_deliveries",
    MessageAttachments = "message_attachments",
    MessageEvents = "message_events",
    IdempotencyKeys = "idempotency_keys",
    Issues = "issues",
    IssueEvents = "issue_events",
    DeliveryAttempts = "delivery_attempts",
    DeliveryClaims = "delivery_claims",
    DeliveryTurns = "delivery_turns",
}

type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> StoreResult<()>;

fn unknown(table: &str) -> StoreError {
    StoreError::invalid(format!("there is no table {table:?} in this build"))
}

/// PostgreSQL at one moment.
pub struct PgSnapshot<'c>(&'c mut PgConnection);

impl std::fmt::Debug for PgSnapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PgSnapshot")
    }
}

impl PgSnapshot<'_> {
    /// Hands a table's content to `sink`, whole lines of `COPY` text, about 4 MB at once.
    ///
    /// # Errors
    /// Those of the database and of `sink`.
    pub fn dump(&mut self, table: &str, sink: &mut dyn FnMut(&[u8]) -> StoreResult<()>) -> StoreResult<()> {
        dump_table(self.0, table, sink)?;
        // The end of COPY says nothing of a failure on the way; a transaction that failed takes no further statement.
        self.0.batch_execute("SELECT 1")?;
        Ok(())
    }

    /// About how many bytes the tables hold, for a bar.
    ///
    /// # Errors
    /// Those of the database.
    pub fn size_estimate(&mut self) -> StoreResult<u64> {
        let names = TABLES.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let sum: Number = sql_query(format!(
            "SELECT coalesce(sum(pg_table_size(t.relid)), 0)::bigint AS n FROM unnest(ARRAY[{names}]) AS name, \
             LATERAL pg_partition_tree(to_regclass(name)) AS t"
        ))
        .get_result(self.0)?;
        Ok(u64::try_from(sum.n).unwrap_or(0))
    }
}

fn drain_lines(from: &mut dyn BufRead, sink: Sink<'_>) -> StoreResult<()> {
    let mut part = Vec::new();
    loop {
        let row = from.fill_buf().map_err(|error| StoreError::unavailable(format!("the copy broke off: {error}")))?;
        if row.is_empty() {
            break;
        }
        part.extend_from_slice(row);
        let len = row.len();
        from.consume(len);
        // libpq hands over whole rows.
        if part.len() >= PART_BYTES {
            sink(&part)?;
            part.clear();
        }
    }
    if part.is_empty() { Ok(()) } else { sink(&part) }
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(diesel::QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(diesel::QueryableByName)]
struct Identity {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Nullable<BigInt>)]
    last: Option<i64>,
}

/// How often the moment is chosen anew because a partition was on its way out.
const MOMENTS: u32 = 10;

pub(super) fn snapshot<T>(conn: &mut Conn, f: impl FnOnce(&Shape, PgSnapshot<'_>) -> StoreResult<T>) -> StoreResult<T> {
    let mut f = Some(f);
    for _ in 0..MOMENTS {
        // Its readings are in no table that is copied and not counted as removed yet.
        partitions::finish_gone(conn)?;
        if let Some(done) = snapshot_now(conn, &mut f)? {
            return Ok(done);
        }
    }
    Err(StoreError::conflict("partitions of old readings are being dropped all the time; try again later"))
}

fn snapshot_now<T, F: FnOnce(&Shape, PgSnapshot<'_>) -> StoreResult<T>>(
    conn: &mut Conn,
    f: &mut Option<F>,
) -> StoreResult<Option<T>> {
    conn.read(|conn| {
        // It lasts as long as it lasts, and waits while other parts of the backup are written.
        let Conn::Pg(pg) = conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
        watch::be_patient();
        pg.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")?;
        // From here on no partition is taken out. Locking fixes no moment yet; the first query does.
        pg.batch_execute("LOCK TABLE ONLY readings IN ACCESS SHARE MODE")?;
        if partitions::is_any_gone(pg)? {
            return Ok(None);
        }
        let migrations = Migrations::Postgres.applied(conn)?;
        let partitions = partitions::list(conn)?.iter().map(|partition| (partition.from_us, partition.to_us)).collect();
        let Conn::Pg(pg) = conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
        let shape = Shape { migrations, tables: tables(pg)?, counters: counters(pg)?, partitions };
        f.take().map(|f| f(&shape, PgSnapshot(pg))).transpose()
    })
}

fn tables(conn: &mut PgConnection) -> StoreResult<Vec<Table>> {
    // A backup of an older build has fewer tables: those that are there are compared.
    let names = present(conn)?;
    let mut columns = |name: &&str| -> StoreResult<Table> {
        let query = format!(
            "SELECT attname::text AS name FROM pg_attribute WHERE attrelid = '{name}'::regclass AND attnum > 0 AND NOT attisdropped \
             ORDER BY attnum"
        );
        let columns: Vec<Name> = sql_query(query).load(conn)?;
        Ok(Table { name: (*name).to_owned(), columns: columns.into_iter().map(|column| column.name).collect() })
    };
    names.iter().map(&mut columns).collect()
}

/// What identity columns there are, and where each stands.
fn counters(conn: &mut PgConnection) -> StoreResult<Vec<Counter>> {
    let names = present(conn)?.iter().map(|name| format!("'{name}'::regclass")).collect::<Vec<_>>().join(", ");
    let query = format!(
        "SELECT attrelid::regclass::text AS table_name, attname::text AS column_name, \
         pg_sequence_last_value(pg_get_serial_sequence(attrelid::regclass::text, attname)::regclass) AS last \
         FROM pg_attribute WHERE attrelid IN ({names}) AND attidentity <> '' AND NOT attisdropped ORDER BY 1, 2"
    );
    let found: Vec<Identity> = sql_query(query).load(conn)?;
    Ok(found.into_iter().map(|one| Counter { table: one.table_name, column: one.column_name, last: one.last }).collect())
}

/// Those of our tables that are there.
fn present(conn: &mut PgConnection) -> StoreResult<Vec<&'static str>> {
    let mut found = Vec::new();
    for name in TABLES.iter().copied() {
        let there: Number = sql_query(format!("SELECT (to_regclass('{name}') IS NOT NULL)::int::bigint AS n")).get_result(conn)?;
        if there.n == 1 {
            found.push(name);
        }
    }
    Ok(found)
}

pub(super) fn is_vacant(conn: &mut Conn) -> StoreResult<bool> {
    let Conn::Pg(pg) = conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
    for name in present(pg)? {
        let rows: Number = sql_query(format!("SELECT count(*) AS n FROM (SELECT 1 FROM {name} LIMIT 1) AS one")).get_result(pg)?;
        if rows.n > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn replace(conn: &mut Conn, shape: &Shape, fill: Fill<'_>) -> StoreResult<()> {
    conn.write(|conn| {
        let Conn::Pg(pg) = conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
        watch::be_patient();
        pg.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")?;
        pg.batch_execute(&format!("SELECT pg_advisory_xact_lock({LOCK})"))?;
        partitions::finish_gone(conn)?;
        let Conn::Pg(pg) = conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
        for name in present(pg)? {
            pg.batch_execute(&format!("DROP TABLE {name}"))?;
        }
        // The tables are made as they were when the backup was made, so that the lines fit; the rest of the history follows.
        Migrations::Postgres.forget(conn)?;
        Migrations::Postgres.run_only(conn, &shape.migrations)?;
        let Conn::Pg(pg) = conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
        if tables(pg)? != shape.tables {
            return Err(StoreError::invalid(
                "the tables of the backup are not those that this build makes; use the belayd that made it",
            ));
        }
        partitions::make_as(pg, &shape.partitions)?;
        fill(&mut |table, lines| load_part(pg, table, lines))?;
        for Counter { table, column, last } in &shape.counters {
            // Names come from the backup: they must be ours.
            if !shape.tables.iter().any(|known| known.name == *table && known.columns.contains(column)) {
                return Err(unknown(table));
            }
            let Some(last) = last else { continue };
            pg.batch_execute(&format!("SELECT setval(pg_get_serial_sequence('{table}', '{column}'), {last})"))?;
        }
        Migrations::Postgres.run_nested(conn)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_that_the_migrations_make_is_copied() {
        let mut made: Vec<String> = Vec::new();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
        for step in std::fs::read_dir(folder).expect("the migrations").flatten() {
            let up = std::fs::read_to_string(step.path().join("up.sql")).expect("a step");
            let tables = up.split("CREATE TABLE ").skip(1).filter(|rest| !rest.contains(" PARTITION OF "));
            let names = tables.filter_map(|rest| rest.split([' ', '(', '\n']).next());
            made.extend(names.map(str::to_owned));
        }
        made.sort();
        // A table may be made anew.
        made.dedup();
        let mut copied = TABLES.to_vec();
        copied.sort_unstable();
        assert_eq!(made, copied);
    }

    #[test]
    fn lines_are_handed_over_whole_in_parts() {
        let mut parts = Vec::new();
        drain_lines(&mut &b"a\t1\nb\t2\n"[..], &mut |part| {
            parts.push(part.to_vec());
            Ok(())
        })
        .expect("drains");
        assert_eq!(parts, [b"a\t1\nb\t2\n"]);
        drain_lines(&mut &b""[..], &mut |_| Err(StoreError::other("nothing comes"))).expect("nothing to drain");
    }
}
