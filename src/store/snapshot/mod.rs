//! One consistent look at a whole database, for a backup, and the way back.
//!
//! In: a store. Out: all of it as it was at one moment, streamed in bounded memory while others go on writing: a SQLite file through
//! SQLite's own online backup, PostgreSQL's tables as text of `COPY`. The moment is fixed before the caller gets the [`Snapshot`], so
//! that the caller can do something that must come after it. A crash loses the look, nothing else; a load into PostgreSQL is one
//! transaction.

mod postgres;
mod sqlite;

use serde::{Deserialize, Serialize};

pub use self::{postgres::PgSnapshot, sqlite::SqliteSnapshot};
use super::{Backend, Conn, Store, StoreError, StoreErrorKind, StoreResult, migrate::Migrations};

/// What a database must look like before content can be put back into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shape {
    /// The migrations that have run, by version.
    pub migrations: Vec<String>,
    /// PostgreSQL's tables in the order in which they are copied; empty for SQLite, which is copied as a file.
    pub tables: Vec<Table>,
    /// PostgreSQL's counters of numbers that it gives out itself.
    pub counters: Vec<Counter>,
    /// From where to where the partitions of PostgreSQL's readings go, microseconds since the epoch; none in backups from before there
    /// were any.
    #[serde(default)]
    pub partitions: Vec<(Option<i64>, i64)>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its columns in their order.
    pub columns: Vec<String>,
}

/// Where a column that numbers its rows by itself stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// The last number given out; `None` where there was none.
    pub last: Option<i64>,
}

/// A database at one moment.
#[derive(Debug)]
pub enum Snapshot<'c> {
    /// SQLite.
    Sqlite(SqliteSnapshot),
    /// PostgreSQL.
    Postgres(PgSnapshot<'c>),
}

/// Takes the name of a table and whole lines of its content.
pub type Load<'a> = &'a mut dyn FnMut(&str, &[u8]) -> StoreResult<()>;
/// Gives a database its content.
pub type Fill<'a> = &'a mut dyn FnMut(Load<'_>) -> StoreResult<()>;

impl Store {
    /// Fixes the moment, then calls `f` with the database as it was then.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] for a SQLite file that is not there; those of the database and of `f`.
    pub fn snapshot<T>(&self, f: impl FnOnce(&Shape, Snapshot<'_>) -> StoreResult<T>) -> StoreResult<T> {
        let Some(file) = self.file() else {
            return self.with(|conn| postgres::snapshot(conn, |shape, snapshot| f(shape, Snapshot::Postgres(snapshot))));
        };
        if !file.exists() {
            return Err(StoreError::not_found(format!("there is no {}", file.display())));
        }
        let snapshot = SqliteSnapshot::open(file)?;
        // The schema is only ever changed by a daemon that starts: read apart, it is the same.
        let shape = Shape { migrations: self.with(|conn| applied(conn, self.line()))?, ..Shape::default() };
        f(&shape, Snapshot::Sqlite(snapshot))
    }

    /// Whether this database could hold content of that shape: [`StoreErrorKind::Invalid`] where a newer belayd made it.
    ///
    /// # Errors
    /// As said.
    pub fn knows(&self, shape: &Shape) -> StoreResult<()> {
        let known = self.line().known();
        match shape.migrations.iter().find(|version| !known.contains(version)) {
            None => Ok(()),
            Some(version) => Err(StoreError::invalid(format!(
                "the backup was made by a newer belayd (schema {version}); restore it with that one or a newer one"
            ))),
        }
    }

    /// Whether it holds nothing of belayd's yet: no file, or no row.
    ///
    /// # Errors
    /// Those of the database.
    pub fn is_vacant(&self) -> StoreResult<bool> {
        match self.file() {
            Some(file) => Ok(std::fs::metadata(file).is_ok_and(|file| file.len() == 0) || !file.exists()),
            None => self.with(postgres::is_vacant),
        }
    }

    /// Replaces belayd's tables in PostgreSQL by others of that shape, in one transaction. `fill` is called once, with a function
    /// that takes the name of a table and whole lines of its `COPY` text.
    ///
    /// # Errors
    /// Those of the database and of `fill`; the database is then as before.
    pub fn replace(&self, shape: &Shape, fill: Fill<'_>) -> StoreResult<()> {
        if self.backend() != Backend::Postgres {
            return Err(StoreError::new(StoreErrorKind::Other, "a SQLite store is put back as a file"));
        }
        self.with(|conn| postgres::replace(conn, shape, fill))
    }
}

/// The versions of the migrations that have run.
fn applied(conn: &mut Conn, line: Migrations) -> StoreResult<Vec<String>> {
    line.applied(conn)
}
