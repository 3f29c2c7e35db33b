//! One connection to either database: how it is opened, and how a writing transaction begins.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, sync::Once, time::Duration};

use diesel::{
    Connection, PgConnection, RunQueryDsl, SqliteConnection,
    connection::{AnsiTransactionManager, SimpleConnection, TransactionManager},
    result::Error as DieselError,
    sql_types::Text,
};

use super::{
    Backend, StoreError, StoreResult,
    socket::Mark,
    turn,
    url::{Target, user_timeout_ms, with_timeouts},
};

use crate::folders;

pub use either::Conn;

mod either {
    #![allow(missing_docs, reason = "the derive writes items without documentation")]

    use diesel::{PgConnection, SqliteConnection};

    /// A connection to either database.
    #[derive(diesel::MultiConnection)]
    pub enum Conn {
        /// SQLite.
        Sqlite(SqliteConnection),
        /// PostgreSQL.
        Pg(PgConnection),
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.backend())
    }
}

/// How a connection is to be opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Longest wait for the server to answer, or for SQLite's write lock.
    pub(super) connect_timeout: Duration,
    /// Longest run of one statement (PostgreSQL).
    pub(super) statement_timeout: Duration,
    /// Most memory for SQLite's page cache, KiB. It is a bound: pages are only taken when they are needed.
    pub(super) cache_kib: u32,
    /// Pages of 4 KiB in SQLite's write-ahead log before it is copied into the file.
    pub(super) wal_pages: u32,
    /// Whether what SQLite keeps to undo a single statement stays in memory, however much it is. Beyond 64 KiB it would be a file, written with
    /// two calls a page; a batch of 100 readings of as many engines gets there.
    pub(super) undo_in_memory: bool,
    /// Whether PostgreSQL plans each statement for its own values and for the table as it is. A plan for all values is kept until statistics are
    /// taken again: one that was made while a table was empty would read all of it long after it has filled.
    pub(super) fresh_plans: bool,
}

impl Conn {
    /// Opens the variant that `target` means, so that the true cause of a failure is seen: the derived `establish` tries each in
    /// turn and hides it. A socket to PostgreSQL carries `mark`.
    pub(super) fn open(target: &Target, settings: Settings, mark: Option<&Mark>) -> StoreResult<Self> {
        match target {
            Target::Sqlite(path) => open_sqlite(path, settings).map(Self::Sqlite),
            Target::Postgres(url) => open_postgres(url, settings, mark).map(Self::Pg),
        }
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Pg(_) => Backend::Postgres,
        }
    }

    /// Runs `f` in one transaction that will write. On SQLite it begins with `BEGIN IMMEDIATE`, in turn with other writers: a deferred
    /// transaction that turns into a writer halfway fails at once with `SQLITE_BUSY`, whatever the time-out. Within a transaction of the caller's it is a
    /// savepoint of that one: what writes under a lease puts other store functions into its own transaction.
    ///
    /// # Errors
    /// Those of `f`, after a rollback; or of the commit, whose outcome is then unknown if the connection broke.
    pub fn write<T>(&mut self, f: impl FnOnce(&mut Self) -> StoreResult<T>) -> StoreResult<T> {
        if self.is_in_transaction() {
            return self.savepoint(f);
        }
        if let Self::Pg(conn) = self {
            AnsiTransactionManager::begin_transaction(conn)?;
            return self.finish(f);
        }
        turn::in_turn(|| {
            if let Self::Sqlite(conn) = self {
                AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")?;
            }
            self.finish(f)
        })
    }

    /// Runs `f` in the transaction that is open, or in a writing one of its own. Unlike [`Self::write`] it makes no savepoint, for which SQLite
    /// would keep every page that `f` changes: where `f` fails the caller has to give the whole transaction up.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_within<T>(&mut self, f: impl FnOnce(&mut Self) -> StoreResult<T>) -> StoreResult<T> {
        if self.is_in_transaction() { f(self) } else { self.write(f) }
    }

    pub(super) fn is_in_transaction(&mut self) -> bool {
        match self {
            Self::Sqlite(conn) => AnsiTransactionManager::transaction_manager_status_mut(conn).transaction_depth(),
            Self::Pg(conn) => AnsiTransactionManager::transaction_manager_status_mut(conn).transaction_depth(),
        }
        .is_ok_and(|depth| depth.is_some())
    }

    /// Runs `f` in one transaction that only reads, so that several queries see the same state.
    ///
    /// # Errors
    /// Those of `f` or of the transaction.
    pub fn read<T>(&mut self, f: impl FnOnce(&mut Self) -> StoreResult<T>) -> StoreResult<T> {
        match self {
            Self::Sqlite(conn) => AnsiTransactionManager::begin_transaction(conn)?,
            Self::Pg(conn) => {
                AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?
            }
        }
        self.finish(f)
    }

    /// Runs `f` in a savepoint of the transaction that is open: its failure undoes only its own writes.
    ///
    /// # Errors
    /// Those of `f`, after rolling back to the savepoint.
    pub fn savepoint<T>(&mut self, f: impl FnOnce(&mut Self) -> StoreResult<T>) -> StoreResult<T> {
        <Self as Connection>::TransactionManager::begin_transaction(self)?;
        self.finish(f)
    }

    fn finish<T>(&mut self, f: impl FnOnce(&mut Self) -> StoreResult<T>) -> StoreResult<T> {
        match f(self) {
            Ok(value) => {
                <Self as Connection>::TransactionManager::commit_transaction(self)?;
                Ok(value)
            }
            Err(error) => {
                match <Self as Connection>::TransactionManager::rollback_transaction(self) {
                    // The server has rolled back already; the first error is the one that tells.
                    Ok(()) | Err(DieselError::BrokenTransactionManager) => {}
                    Err(rollback) => log::debug!(target: "belayd::store", error:% = rollback; "rollback failed"),
                }
                Err(error)
            }
        }
    }
}

/// Has SQLite take no lock for each call on a connection, nor one for each piece of memory to count it: no connection is used by two threads at
/// once here (it is not `Sync`), and nobody asks for the count. Before the first connection, as SQLite demands; later it changes nothing.
fn leave_out_locks() {
    static ONCE: Once = Once::new();
    // SAFETY: plain configuration with the arguments that SQLite documents for these two; `Once` keeps threads apart.
    ONCE.call_once(|| unsafe {
        let codes = [
            libsqlite3_sys::sqlite3_config(libsqlite3_sys::SQLITE_CONFIG_MULTITHREAD),
            libsqlite3_sys::sqlite3_config(libsqlite3_sys::SQLITE_CONFIG_MEMSTATUS, 0),
        ];
        if codes != [libsqlite3_sys::SQLITE_OK; 2] {
            log::debug!(target: "belayd::store", codes:? = codes; "SQLite was in use already; its locks stay as they are");
        }
    });
}

fn open_sqlite(path: &Path, settings: Settings) -> StoreResult<SqliteConnection> {
    prepare_file(path)?;
    leave_out_locks();
    let Some(name) = path.to_str() else {
        return Err(StoreError::invalid("the path of the SQLite file is not UTF-8"));
    };
    let mut conn =
        SqliteConnection::establish(name).map_err(|error| StoreError::from(error).context(&format!("cannot open {name}")))?;
    // The wait for locks comes first: switching to WAL needs one. FULL syncs the log at every commit: what is committed survives
    // a power cut, and the buffer may forget it.
    conn.batch_execute(&format!("PRAGMA busy_timeout = {};", settings.connect_timeout.as_millis().clamp(100, 60_000)))?;
    conn.batch_execute(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -{}; \
         PRAGMA journal_size_limit = {}; PRAGMA wal_autocheckpoint = {};",
        settings.cache_kib,
        u64::from(settings.wal_pages) * 4 * 4096,
        settings.wal_pages
    ))?;
    if settings.undo_in_memory {
        conn.batch_execute("PRAGMA temp_store = MEMORY;")?;
    }
    Ok(conn)
}

/// Makes the file readable by its owner only; SQLite gives its companions (`-wal`, `-shm`) the same mode.
fn prepare_file(path: &Path) -> StoreResult<()> {
    if path.exists() {
        return Ok(());
    }
    let cannot = |error: std::io::Error| {
        let mut failure = StoreError::from_code("SQLITE_CANTOPEN", format!("cannot create {}: {error}", path.display()));
        failure.kind = super::StoreErrorKind::Unavailable;
        failure
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        folders::create(parent).map_err(cannot)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(cannot)?;
    folders::sync(folders::parent_of(path)).map_err(cannot)?;
    Ok(())
}

fn open_postgres(url: &str, settings: Settings, mark: Option<&Mark>) -> StoreResult<PgConnection> {
    let user_timeout_ms = mark.map_or_else(|| user_timeout_ms(url, settings.statement_timeout), Mark::as_millis);
    let url = with_timeouts(url, settings.connect_timeout, user_timeout_ms);
    let mut conn = PgConnection::establish(&url)?;
    let timeout_ms = settings.statement_timeout.as_millis().clamp(1, i32::MAX as u128);
    conn.batch_execute(&format!(
        "SET statement_timeout = {timeout_ms}; SET idle_in_transaction_session_timeout = {}; SET timezone = 'UTC';",
        timeout_ms.saturating_mul(4).min(i32::MAX as u128)
    ))?;
    if settings.fresh_plans {
        conn.batch_execute("SET plan_cache_mode = force_custom_plan;")?;
    }
    Ok(conn)
}

/// One row of `SHOW …` or `PRAGMA …`.
#[derive(diesel::QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

/// Something that this database does not do for the safety of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// One sentence for a person.
    pub words: String,
    /// Whether a crash may take back what was reported as committed.
    pub loses_commits: bool,
}

/// What this database does not do for the safety of a commit; empty when a commit is as durable as its disk.
///
/// # Errors
/// Where the database cannot be asked.
pub fn durability(conn: &mut Conn) -> StoreResult<Vec<Lack>> {
    let Conn::Pg(pg) = conn else {
        return Ok(Vec::new()); // SQLite's settings are our own: WAL and synchronous=FULL.
    };
    let mut lacks = Vec::new();
    for (name, meaning, loses_commits) in [
        ("fsync", "a crash of its host may lose or damage the whole database", true),
        ("synchronous_commit", "a crash of the server may lose the last commits although they were acknowledged", true),
        ("full_page_writes", "a power cut may leave torn pages", false),
    ] {
        let setting: Setting = diesel::sql_query(format!("SELECT current_setting('{name}') AS value")).get_result(pg)?;
        if setting.value == "off" {
            lacks.push(Lack { words: format!("PostgreSQL runs with {name} = off: {meaning}"), loses_commits });
        }
    }
    Ok(lacks)
}

/// Gives a connection to SQLite the page cache of one that writes much, until it is closed; with a small one, pages that a large
/// transaction touches are written more than once. PostgreSQL has its own.
///
/// # Errors
/// Those of the database.
pub fn enlarge_cache(conn: &mut Conn) -> StoreResult<()> {
    if let Conn::Sqlite(sqlite) = conn {
        sqlite.batch_execute(&format!("PRAGMA cache_size = -{};", super::pool::WRITER_CACHE_KIB))?;
    }
    Ok(())
}

/// Refreshes SQLite's planner statistics where they are stale, gives free pages back where the file was made for it, and lets the
/// write-ahead log start anew. PostgreSQL does its own (autovacuum).
///
/// # Errors
/// Those of the database.
pub fn tidy(conn: &mut Conn) -> StoreResult<()> {
    if let Conn::Sqlite(sqlite) = conn {
        sqlite.batch_execute("PRAGMA optimize; PRAGMA incremental_vacuum(1000); PRAGMA wal_checkpoint(PASSIVE);")?;
    }
    Ok(())
}

/// Copies what stands in SQLite's write-ahead log into the file, as far as it can without holding up anybody; the log stays as long as it is.
/// PostgreSQL does its own.
///
/// # Errors
/// Those of the database.
pub(super) fn copy_log(conn: &mut Conn) -> StoreResult<()> {
    if let Conn::Sqlite(sqlite) = conn {
        sqlite.batch_execute("PRAGMA wal_checkpoint(PASSIVE);")?;
    }
    Ok(())
}

/// Takes what stands in SQLite's write-ahead log over into the file, and empties the log. Waits for readers as long as for any lock.
/// PostgreSQL does its own.
///
/// # Errors
/// Those of the database.
pub fn checkpoint(conn: &mut Conn) -> StoreResult<()> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Integer)]
        busy: i32,
    }
    if let Conn::Sqlite(sqlite) = conn {
        let row: Row = diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result(sqlite)?;
        // That is no error to SQLite.
        if row.busy != 0 {
            return Err(StoreError::unavailable("somebody else is using the file"));
        }
    }
    Ok(())
}
