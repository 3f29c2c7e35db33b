//! A look into the database past the daemon: rows, ledger, streams, on SQLite and PostgreSQL alike.

use std::path::PathBuf;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Double, Nullable, Text},
};

/// Where the daemon stores.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by URL.
    Postgres(String),
}

/// An open look.
pub enum Look {
    /// At a file.
    Sqlite(SqliteConnection),
    /// At a server.
    Postgres(PgConnection),
}

/// One stored reading.
#[derive(Debug, QueryableByName)]
pub struct Row {
    #[diesel(sql_type = BigInt)]
    pub observed_at_us: i64,
    #[diesel(sql_type = Nullable<Text>)]
    pub status: Option<String>,
    #[diesel(sql_type = Nullable<Double>)]
    pub temperature: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub rpm: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub pressure: Option<f64>,
    #[diesel(sql_type = Nullable<Double>)]
    pub fuel_flow: Option<f64>,
    #[diesel(sql_type = Nullable<Text>)]
    pub extra: Option<String>,
    #[diesel(sql_type = BigInt)]
    pub stream_no: i64,
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
}

/// One row of the ledger.
#[derive(Debug, QueryableByName)]
pub struct Batch {
    #[diesel(sql_type = Text)]
    pub stream: String,
    #[diesel(sql_type = BigInt)]
    pub first_seq: i64,
    #[diesel(sql_type = BigInt)]
    pub last_seq: i64,
    #[diesel(sql_type = BigInt)]
    pub stored: i64,
    #[diesel(sql_type = BigInt)]
    pub duplicate: i64,
    #[diesel(sql_type = BigInt)]
    pub refused: i64,
    /// Offsets of the duplicates: `3,7-9`.
    #[diesel(sql_type = Nullable<Text>)]
    pub exceptions: Option<String>,
}

/// One stream.
#[derive(Debug, QueryableByName)]
pub struct Stream {
    #[diesel(sql_type = BigInt)]
    pub no: i64,
    #[diesel(sql_type = Text)]
    pub stream: String,
    #[diesel(sql_type = BigInt)]
    pub cursor_seq: i64,
    /// Rows of this stream in the table.
    #[diesel(sql_type = BigInt)]
    pub held: i64,
}

#[derive(QueryableByName)]
struct Engine {
    #[diesel(sql_type = Text)]
    engine_id: String,
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Text)]
    engine_id: String,
    #[diesel(sql_type = BigInt)]
    at_us: i64,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

macro_rules! load {
    ($look:expr, $query:expr) => {
        match $look {
            Look::Sqlite(conn) => $query.load(conn),
            Look::Postgres(conn) => $query.load(conn),
        }
        .map_err(|error| format!("the comparison cannot read the database: {error}"))
    };
}

impl Database {
    /// Opens it.
    ///
    /// # Errors
    /// It does not answer.
    pub fn look(&self) -> Result<Look, String> {
        let failed = |error: diesel::ConnectionError| format!("the comparison cannot open the database: {error}");
        match self {
            Self::Sqlite(path) => {
                let mut conn = SqliteConnection::establish(&path.to_string_lossy()).map_err(failed)?;
                let set = sql_query("PRAGMA busy_timeout = 10000").execute(&mut conn);
                set.map_err(|error| error.to_string())?;
                Ok(Look::Sqlite(conn))
            }
            Self::Postgres(url) => PgConnection::establish(url).map(Look::Postgres).map_err(failed),
        }
    }
}

impl Look {
    /// Every engine with readings.
    ///
    /// # Errors
    /// It does not answer.
    pub fn engines(&mut self) -> Result<Vec<String>, String> {
        let found: Vec<Engine> = load!(self, sql_query("SELECT DISTINCT engine_id FROM readings ORDER BY 1"))?;
        Ok(found.into_iter().map(|row| row.engine_id).collect())
    }

    /// All readings of one engine.
    ///
    /// # Errors
    /// It does not answer.
    pub fn rows(&mut self, engine: &str) -> Result<Vec<Row>, String> {
        // The names are the campaign's own; what is no plain name was not sent by it and is reported by that.
        let engine = engine.replace('\'', "''");
        let query = format!(
            "SELECT observed_at_us, status, temperature, rpm, pressure, fuel_flow, extra, stream_no, seq FROM readings \
             WHERE engine_id = '{engine}' ORDER BY observed_at_us"
        );
        load!(self, sql_query(&query))
    }

    /// The ledger in order.
    ///
    /// # Errors
    /// It does not answer.
    pub fn batches(&mut self) -> Result<Vec<Batch>, String> {
        load!(
            self,
            sql_query(
                "SELECT stream, first_seq, last_seq, stored, duplicate, conflict + dead + discarded AS refused, exceptions \
                 FROM batches ORDER BY stream, first_seq"
            )
        )
    }

    /// The streams.
    ///
    /// # Errors
    /// It does not answer.
    pub fn streams(&mut self) -> Result<Vec<Stream>, String> {
        load!(
            self,
            sql_query(
                "SELECT no, stream, cursor_seq, coalesce(held, 0) AS held FROM streams \
                 LEFT JOIN (SELECT stream_no, count(*) AS held FROM readings GROUP BY stream_no) AS counted ON stream_no = no ORDER BY no"
            )
        )
    }

    /// Those of `keys`, engine and time, that are not in the table.
    ///
    /// # Errors
    /// It does not answer.
    pub fn missing(&mut self, keys: &[(String, i64)]) -> Result<Vec<(String, i64)>, String> {
        let list: Vec<_> = keys.iter().map(|(engine, at)| format!("('{}', {at})", engine.replace('\'', "''"))).collect();
        let query = format!(
            "WITH wanted (engine_id, at_us) AS (VALUES {}) SELECT engine_id, CAST(at_us AS BIGINT) AS at_us FROM wanted \
             WHERE NOT EXISTS (SELECT 1 FROM readings AS r WHERE r.engine_id = wanted.engine_id AND r.observed_at_us = wanted.at_us)",
            list.join(", ")
        );
        let found: Vec<Key> = load!(self, sql_query(&query))?;
        Ok(found.into_iter().map(|key| (key.engine_id, key.at_us)).collect())
    }

    /// Deliveries to Kafka that are not settled.
    ///
    /// # Errors
    /// It does not answer.
    pub fn unsent(&mut self) -> Result<i64, String> {
        self.number("SELECT count(*) AS n FROM deliveries WHERE sink = 'kafka' AND state <> 'sent'")
    }

    /// One number: `SELECT … AS n`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn number(&mut self, query: &str) -> Result<i64, String> {
        let found: Vec<Number> = load!(self, sql_query(query))?;
        Ok(found.first().map_or(0, |row| row.n))
    }
}
