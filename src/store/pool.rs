//! The handle that everybody holds: a bounded number of connections, opened when they are first needed.
//!
//! r2d2 only counts and keeps the places; each borrower opens the connection in its own place, in its own thread. So an
//! unreachable database is seen at once and with its true cause, nothing retries behind the back of the caller, and a daemon
//! that idles holds no connection it does not use.

use std::{
    convert::Infallible,
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use diesel::r2d2::{ManageConnection, Pool, R2D2Connection};
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;

use super::{
    Backend, Conn, StoreError, StoreResult,
    conn::Settings,
    listen::Listener,
    migrate::{MigrationStatus, Migrations},
    place::{Database, Place},
    url::{Target, sqlite_url, user_timeout_ms, with_timeouts},
    watch,
};
use crate::config::model::StoreConfig;

/// Page cache of a connection for queries, KiB: few pages are looked at twice.
const READER_CACHE_KIB: u32 = 512;
/// Page cache of a connection that writes much, KiB: the b-tree's inner pages and the leaves being filled.
pub(super) const WRITER_CACHE_KIB: u32 = 2_048;
/// Pages of 4 KiB in the store's write-ahead log before whoever commits copies them into the file: 16 MB, because each copy costs a sync.
pub(super) const STORE_WAL_PAGES: u32 = 4_000;
/// The same for the control store, which is small and must not fill a small disk beside the journal: 1 MB.
const CONTROL_WAL_PAGES: u32 = 250;
/// Idle longer than this, a connection is closed.
const KEEP_FOR: Duration = Duration::from_secs(60);

/// A database, by URL. Cheap to clone; making one opens nothing.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    database: Database,
    settings: Settings,
    migrations: Migrations,
    pool: Pool<Places>,
    permits: Semaphore,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.redacted_url())
    }
}

impl Store {
    /// The shared store. Opens no connection, so it succeeds while the database is away.
    ///
    /// # Errors
    /// [`StoreErrorKind::Invalid`] for a URL that means nothing or demands TLS that this build lacks.
    pub fn open(config: &StoreConfig) -> StoreResult<Self> {
        let target = Target::parse(&config.url)?;
        let migrations = match target.backend() {
            Backend::Sqlite => Migrations::Sqlite,
            Backend::Postgres => Migrations::Postgres,
        };
        Self::build(target, migrations, config.pool_size, config.connect_timeout, config.statement_timeout)
    }

    /// The control store at `path` (`<data_dir>/control.db`), always SQLite. Opens no connection.
    ///
    /// # Errors
    /// [`StoreErrorKind::Invalid`] for a path that is not UTF-8.
    pub fn open_control(path: &Path) -> StoreResult<Self> {
        let target = Target::parse(&sqlite_url(path))?;
        Self::build(target, Migrations::Control, 3, Duration::from_secs(5), Duration::from_secs(30))
    }

    fn build(
        target: Target,
        migrations: Migrations,
        pool_size: u32,
        connect_timeout: Duration,
        statement_timeout: Duration,
    ) -> StoreResult<Self> {
        let size = pool_size.max(1);
        let wal_pages = if migrations == Migrations::Control { CONTROL_WAL_PAGES } else { STORE_WAL_PAGES };
        let settings = Settings {
            connect_timeout,
            statement_timeout,
            cache_kib: READER_CACHE_KIB,
            wal_pages,
            undo_in_memory: false,
            fresh_plans: true,
        };
        let pool = Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .idle_timeout(Some(KEEP_FOR))
            .max_lifetime(None)
            .connection_timeout(connect_timeout.max(Duration::from_millis(100)))
            .thread_pool(chores())
            .build_unchecked(Places);
        if target.backend() == Backend::Postgres {
            watch::start(&chores());
        }
        let database = Database::new(target);
        Ok(Self(Arc::new(Inner { database, settings, migrations, pool, permits: Semaphore::new(size as usize) })))
    }

    /// Which database it is.
    pub fn backend(&self) -> Backend {
        self.0.database.target().backend()
    }

    /// The file of a SQLite database; `None` for a server.
    pub fn file(&self) -> Option<&Path> {
        match self.0.database.target() {
            Target::Sqlite(path) => Some(path),
            Target::Postgres(_) => None,
        }
    }

    /// The line of migrations that it follows.
    pub(super) fn line(&self) -> Migrations {
        self.0.migrations
    }

    /// The URL without secrets, for logs and answers.
    pub fn redacted_url(&self) -> String {
        self.0.database.target().redacted()
    }

    /// Lends a connection to `f`. Blocks: never call it on an arbiter or HTTP worker, use [`Store::call`] there.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] where no connection can be had in `connect_timeout`, or where the server says nothing for 5 s longer
    /// than `statement_timeout`; else those of `f`.
    pub fn with<T>(&self, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> StoreResult<T> {
        let mut place = self
            .0
            .pool
            .get()
            .map_err(|_| StoreError::unavailable("all connections to the database are in use; raise store.pool_size"))?;
        place.with(&self.0.database, self.0.settings, f)
    }

    /// Lends a connection to `f` on a thread for blocking work. Waits for a free connection before it takes a thread, so that
    /// waiting callers cost no threads.
    ///
    /// # Errors
    /// As [`Store::with`].
    pub async fn call<T, F>(&self, f: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> StoreResult<T> + Send + 'static,
    {
        let _permit = tokio::time::timeout(self.0.settings.connect_timeout, self.0.permits.acquire())
            .await
            .map_err(|_| StoreError::unavailable("all connections to the database are in use; raise store.pool_size"))?
            .map_err(|_| StoreError::unavailable("the store is closed"))?;
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.with(f))
            .await
            .map_err(|error| StoreError::other(format!("a store function failed: {error}")))?
    }

    /// A connection of its own outside the pool, for a thread that writes all the time.
    pub fn writer(&self) -> Writer {
        let settings = Settings { cache_kib: WRITER_CACHE_KIB, undo_in_memory: true, fresh_plans: false, ..self.0.settings };
        Writer { store: self.clone(), settings, place: Place::default() }
    }

    /// A connection of its own for the thread that copies SQLite's write-ahead log.
    pub(super) fn copier(&self) -> Writer {
        Writer { store: self.clone(), settings: self.0.settings, place: Place::default() }
    }

    /// A connection of its own that hears what is said on a channel; blocks while it connects.
    ///
    /// # Errors
    /// `Unavailable` where the server cannot be reached, `Invalid` on SQLite, which nobody else writes to.
    pub fn listen(&self, channel: &str) -> StoreResult<Listener> {
        let Target::Postgres(url) = self.0.database.target() else {
            return Err(StoreError::invalid("SQLite has no notifications"));
        };
        let settings = self.0.settings;
        let user_timeout_ms = user_timeout_ms(url, settings.statement_timeout);
        Listener::open(&with_timeouts(url, settings.connect_timeout, user_timeout_ms), channel)
    }

    /// Runs the migrations that are pending and returns their names. Running it twice, also at once from two instances, is safe.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] where the database is away; anything else is a fault of a migration.
    pub fn migrate(&self) -> StoreResult<Vec<String>> {
        self.with(|conn| self.0.migrations.run(conn))
    }

    /// Every migration known to this build or to the database, oldest first.
    ///
    /// # Errors
    /// As [`Store::migrate`].
    pub fn migration_status(&self) -> StoreResult<Vec<MigrationStatus>> {
        self.with(|conn| self.0.migrations.status(conn))
    }

    /// Reverts the newest migration and returns its name; `None` where none is left.
    ///
    /// # Errors
    /// As [`Store::migrate`].
    pub fn revert_last_migration(&self) -> StoreResult<Option<String>> {
        self.with(|conn| self.0.migrations.revert_last(conn))
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] where there is none.
    pub fn ping(&self) -> StoreResult<()> {
        self.with(|conn| Ok(R2D2Connection::ping(conn)?))
    }
}

/// A connection kept by one owner. It opens when first used and again after it broke.
pub struct Writer {
    store: Store,
    settings: Settings,
    place: Place,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({})", self.store.redacted_url())
    }
}

impl Writer {
    /// As [`Store::with`], on this writer's own connection.
    ///
    /// # Errors
    /// As [`Store::with`].
    pub fn with<T>(&mut self, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> StoreResult<T> {
        self.place.with(&self.store.0.database, self.settings, f)
    }
}

/// Makes empty places; see the head of this file.
#[derive(Debug)]
struct Places;

impl ManageConnection for Places {
    type Connection = Place;
    type Error = Infallible;

    fn connect(&self) -> Result<Place, Infallible> {
        Ok(Place::default())
    }

    fn is_valid(&self, _: &mut Place) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, place: &mut Place) -> bool {
        place.has_broken()
    }
}

/// One thread for the chores of all pools; without it each pool would start three.
fn chores() -> Arc<ScheduledThreadPool> {
    static CHORES: OnceLock<Arc<ScheduledThreadPool>> = OnceLock::new();
    CHORES
        .get_or_init(|| Arc::new(ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("store-pool-{}").build()))
        .clone()
}
