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
