//! A look into the database past the daemon: what is really there.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{collections::HashSet, path::Path};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Text)]
    engine_id: String,
    #[diesel(sql_type = BigInt)]
    observed_at_us: i64,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Engine and time of every stored reading of a SQLite store.
pub fn keys(path: &Path) -> HashSet<(String, i64)> {
    let mut conn = open(path);
    let rows: Vec<Key> = sql_query("SELECT engine_id, observed_at_us FROM readings").load(&mut conn).expect("the table is there");
    rows.into_iter().map(|row| (row.engine_id, row.observed_at_us)).collect()
}

/// One number from a SQLite store: `SELECT … AS n`.
pub fn number(path: &Path, query: &str) -> i64 {
    sql_query(query).get_result::<Number>(&mut open(path)).expect("the query is right").n
}

fn open(path: &Path) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(path.to_str().expect("a plain path")).expect("the database opens");
    sql_query("PRAGMA busy_timeout = 10000").execute(&mut conn).expect("a pragma");
    conn
}

#[derive(QueryableByName)]
struct Numbered {
    #[diesel(sql_type = Text)]
    stream: String,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    engine_id: String,
}

/// Stream, number and engine of every stored reading, of either database by its URL.
pub fn numbered(url: &str) -> Vec<(String, u64, String)> {
    let query = sql_query("SELECT s.stream, r.seq, r.engine_id FROM readings AS r JOIN streams AS s ON s.no = r.stream_no");
    let rows: Vec<Numbered> = match url.strip_prefix("sqlite://") {
        Some(path) => query.load(&mut open(Path::new(path))).expect("the tables are there"),
        None => query.load(&mut PgConnection::establish(url).expect("the server answers")).expect("the tables are there"),
    };
    rows.into_iter().map(|row| (row.stream, row.seq.unsigned_abs(), row.engine_id)).collect()
}

/// Runs one statement on a PostgreSQL.
pub fn execute(url: &str, statement: &str) {
    let mut conn = PgConnection::establish(url).expect("the server answers");
    sql_query(statement).execute(&mut conn).expect("the statement is right");
}
