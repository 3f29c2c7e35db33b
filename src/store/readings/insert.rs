//! The insert itself, once for each database. Both skip keys that are taken and report how many rows went in.

use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Double, Nullable, Text},
    sqlite::Sqlite,
};

use super::Row;
use crate::store::{Conn, StoreResult};

/// Rows that one prepared statement inserts into SQLite while there are as many; the rest goes in one by one. CPU a row in
/// transactions of 10,000: 2.0 us one by one, 1.8 us with 16, 1.7 us with 64 or 256, which leave more to the rest.
const SQLITE_ROWS: usize = 16;

const COLUMNS: &str =
    "engine_id, observed_at_us, status, temperature, rpm, pressure, fuel_flow, extra, stream_no, seq, created_at_us";

/// Inserts `rows`, leaving out those whose key is taken, and returns how many went in.
///
/// # Errors
/// Those of the database; inside a transaction the caller has to roll back.
pub(in crate::store) fn insert_rows(conn: &mut Conn, stream_no: i64, rows: &[Row<'_>]) -> StoreResult<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    match conn {
        Conn::Sqlite(conn) => {
            let mut progress = Progress::default();
            insert_noting(conn, stream_no, rows, &mut progress)?;
            Ok(progress.inserted)
        }
        Conn::Pg(conn) => Ok(Unnest::new(stream_no, rows).execute(conn)? as u64),
    }
}

/// How far an insert into SQLite came. A statement that fails there undoes itself alone: those before it have done their work.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Rows of the statements that went through.
    pub(super) done: usize,
    /// How many of those rows went in.
    pub(super) inserted: u64,
    /// Rows of the statement that was tried last.
    pub(super) tried: usize,
}

/// [`insert_rows`] on SQLite, telling how far it came where it fails.
///
/// # Errors
/// Those of the database.
pub(super) fn insert_noting(
    conn: &mut SqliteConnection,
    stream_no: i64,
    rows: &[Row<'_>],
    progress: &mut Progress,
) -> QueryResult<()> {
    let mut note = |rows: usize, run: &mut dyn FnMut() -> QueryResult<usize>| -> QueryResult<()> {
        progress.tried = rows;
        progress.inserted += run()? as u64;
        progress.done += rows;
        Ok(())
    };
    let mut chunks = rows.chunks_exact(SQLITE_ROWS);
    for rows in &mut chunks {
        note(rows.len(), &mut || Values::<SQLITE_ROWS> { stream_no, rows }.execute(conn))?;
    }
    for row in chunks.remainder() {
        note(1, &mut || Values::<1> { stream_no, rows: std::slice::from_ref(row) }.execute(conn))?;
    }
    Ok(())
}

/// Inserts `rows`, at most as many as one statement of [`insert_noting`] takes, in one statement.
///
/// # Errors
/// Those of the database; then none of them is in.
pub(super) fn insert_at_once(conn: &mut SqliteConnection, stream_no: i64, rows: &[Row<'_>]) -> QueryResult<u64> {
    Ok(AnyValues { stream_no, rows }.execute(conn)? as u64)
}

/// `INSERT … VALUES` of exactly `N` rows: one text for each `N`, so that diesel prepares it once. Building the same from diesel's
/// own insert costs more than the insert.
struct Values<'a, const N: usize> {
    stream_no: i64,
    rows: &'a [Row<'a>],
}

impl<const N: usize> QueryId for Values<'_, N> {
    type QueryId = Values<'static, N>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const N: usize> RunQueryDsl<SqliteConnection> for Values<'_, N> {}

impl<const N: usize> QueryFragment<Sqlite> for Values<'_, N> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        walk_values(out, &self.stream_no, self.rows)
    }

    fn is_safe_to_cache_prepared(&self, _: &Sqlite) -> QueryResult<bool> {
        Ok(true) // The text depends on N alone; the provided method would walk all binds to find that out.
    }
}

fn walk_values<'b>(mut out: AstPass<'_, 'b, Sqlite>, stream_no: &'b i64, rows: &'b [Row<'_>]) -> QueryResult<()> {
    out.push_sql("INSERT INTO readings (");
    out.push_sql(COLUMNS);
    out.push_sql(") VALUES ");
    for (index, Row { reading, seq, created_at_us }) in rows.iter().enumerate() {
        out.push_sql(if index == 0 { "(" } else { ", (" });
        out.push_bind_param::<Text, str>(reading.engine_id)?;
        out.push_sql(",");
        out.push_bind_param::<BigInt, i64>(&reading.observed_at_us)?;
        out.push_sql(",");
        out.push_bind_param::<Nullable<Text>, Option<&str>>(&reading.status)?;
        for metric in [&reading.temperature, &reading.rpm, &reading.pressure, &reading.fuel_flow] {
            out.push_sql(",");
            out.push_bind_param::<Nullable<Double>, Option<f64>>(metric)?;
        }
        out.push_sql(",");
        out.push_bind_param::<Nullable<Text>, Option<&str>>(&reading.extra)?;
        for number in [stream_no, seq, created_at_us] {
            out.push_sql(",");
            out.push_bind_param::<BigInt, i64>(number)?;
        }
        out.push_sql(")");
    }
    out.push_sql(" ON CONFLICT (engine_id, observed_at_us) DO NOTHING");
    Ok(())
}

/// The same of any number of rows, prepared each time: what the search for a bad row sends.
struct AnyValues<'a> {
    stream_no: i64,
    rows: &'a [Row<'a>],
}

impl QueryId for AnyValues<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<SqliteConnection> for AnyValues<'_> {}

impl QueryFragment<Sqlite> for AnyValues<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        walk_values(out, &self.stream_no, self.rows)
    }
}

/// `INSERT … SELECT unnest(…), unnest(…), …`: one array for each column, so one text and one plan whatever the number of rows.
struct Unnest<'a> {
    stream_no: i64,
    engine_id: Vec<&'a str>,
    observed_at_us: Vec<i64>,
    status: Vec<Option<&'a str>>,
    metrics: [Vec<Option<f64>>; 4],
    extra: Vec<Option<&'a str>>,
    seq: Vec<i64>,
    created_at_us: Vec<i64>,
}

impl<'a> Unnest<'a> {
    fn new(stream_no: i64, rows: &[Row<'a>]) -> Self {
        let metric = |get: fn(&Row<'_>) -> Option<f64>| rows.iter().map(get).collect();
        Self {
            stream_no,
            engine_id: rows.iter().map(|row| row.reading.engine_id).collect(),
            observed_at_us: rows.iter().map(|row| row.reading.observed_at_us).collect(),
            status: rows.iter().map(|row| row.reading.status).collect(),
            metrics: [
                metric(|row| row.reading.temperature),
                metric(|row| row.reading.rpm),
                metric(|row| row.reading.pressure),
                metric(|row| row.reading.fuel_flow),
            ],
            extra: rows.iter().map(|row| row.reading.extra).collect(),
            seq: rows.iter().map(|row| row.seq).collect(),
            created_at_us: rows.iter().map(|row| row.created_at_us).collect(),
        }
    }
}

impl QueryId for Unnest<'_> {
    type QueryId = Unnest<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl RunQueryDsl<PgConnection> for Unnest<'_> {}

impl QueryFragment<Pg> for Unnest<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        // Side by side in the list they are unpacked row by row; `FROM unnest(a, b, …)` would first put each into a store of its own.
        out.push_sql("INSERT INTO readings (stream_no, ");
        out.push_sql(COLUMNS_OF_UNNEST);
        out.push_sql(") SELECT ");
        out.push_bind_param::<BigInt, i64>(&self.stream_no)?;
        out.push_sql(", unnest(");
        out.push_bind_param::<Array<Text>, Vec<&str>>(&self.engine_id)?;
        out.push_sql("), unnest(");
        out.push_bind_param::<Array<BigInt>, Vec<i64>>(&self.observed_at_us)?;
        out.push_sql("), unnest(");
        out.push_bind_param::<Array<Nullable<Text>>, Vec<Option<&str>>>(&self.status)?;
        for metric in &self.metrics {
            out.push_sql("), unnest(");
            out.push_bind_param::<Array<Nullable<Double>>, Vec<Option<f64>>>(metric)?;
        }
        out.push_sql("), unnest(");
        out.push_bind_param::<Array<Nullable<Text>>, Vec<Option<&str>>>(&self.extra)?;
        for numbers in [&self.seq, &self.created_at_us] {
            out.push_sql("), unnest(");
            out.push_bind_param::<Array<BigInt>, Vec<i64>>(numbers)?;
        }
        out.push_sql(") ON CONFLICT (engine_id, observed_at_us) DO NOTHING");
        Ok(())
    }
}

const COLUMNS_OF_UNNEST: &str =
    "engine_id, observed_at_us, status, temperature, rpm, pressure, fuel_flow, extra, seq, created_at_us";
