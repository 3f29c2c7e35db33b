//! The schema's history: twin migrations for the shared store, one line of its own for the control store, all in the binary.

use diesel::{
    Connection, RunQueryDsl,
    connection::SimpleConnection,
    migration::{MigrationSource, MigrationVersion},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use serde::Serialize;

use super::{Conn, StoreError, StoreResult, watch};
use crate::on_backend;

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const CONTROL: EmbeddedMigrations = embed_migrations!("migrations/control");

/// Key of the advisory lock under which instances migrate one after the other (the letters "belayd" and a 1).
pub(super) const LOCK: i64 = 0x0062_656c_6179_6401;

/// Which line of migrations a store follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrations {
    /// The shared store on SQLite.
    Sqlite,
    /// The shared store on PostgreSQL.
    Postgres,
    /// The control store.
    Control,
}

/// One step of the schema's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationStatus {
    /// Version and title, or the version alone where this build does not know it (a newer one ran it).
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
    /// Whether this build has it.
    pub known: bool,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl Migrations {
    fn source(self) -> EmbeddedMigrations {
        match self {
            Self::Sqlite => SQLITE,
            Self::Postgres => POSTGRES,
            Self::Control => CONTROL,
        }
    }

    pub(super) fn run(self, conn: &mut Conn) -> StoreResult<Vec<String>> {
        locked(conn, |conn| {
            on_backend!(conn, |c| {
                let pending = c.pending_migrations(self.source()).map_err(failed)?;
                let mut done = Vec::new();
                for migration in pending {
                    c.run_migration(&migration).map_err(failed)?;
                    done.push(migration.name().to_string());
                }
                Ok(done)
            })
        })
    }

    /// As [`Migrations::run`], within a transaction of the caller's, which holds the lock.
    pub(super) fn run_nested(self, conn: &mut Conn) -> StoreResult<()> {
        on_backend!(conn, |c| {
            for migration in c.pending_migrations(self.source()).map_err(failed)? {
                c.run_migration(&migration).map_err(failed)?;
            }
            Ok(())
        })
    }

    /// Runs those of these versions that have not run, in order, within a transaction of the caller's.
    pub(super) fn run_only(self, conn: &mut Conn, versions: &[String]) -> StoreResult<()> {
        on_backend!(conn, |c| {
            for migration in c.pending_migrations(self.source()).map_err(failed)? {
                if versions.contains(&migration.name().version().to_string()) {
                    c.run_migration(&migration).map_err(failed)?;
                }
            }
            Ok(())
        })
    }

    /// Forgets that the known migrations have run, after what they made was dropped.
    pub(super) fn forget(self, conn: &mut Conn) -> StoreResult<()> {
        on_backend!(conn, |c| {
            // Asking for them makes the table of migrations where it is missing.
            c.applied_migrations().map_err(failed)?;
            for version in self.known() {
                diesel::sql_query(format!("DELETE FROM __diesel_schema_migrations WHERE version = '{version}'")).execute(c)?;
            }
            Ok(())
        })
    }

    /// Versions that have run, oldest first. Writes nothing.
    pub(super) fn applied(self, conn: &mut Conn) -> StoreResult<Vec<String>> {
        let rows: Vec<Version> = on_backend!(conn, |c| {
            diesel::sql_query("SELECT version FROM __diesel_schema_migrations ORDER BY version").load(c)
        })?;
        Ok(rows.into_iter().map(|row| row.version).collect())
    }

    /// Versions that this build has.
    pub(super) fn known(self) -> Vec<String> {
        let migrations = match self {
            Self::Postgres => MigrationSource::<diesel::pg::Pg>::migrations(&self.source()).map(|all| versions(&all)),
            Self::Sqlite | Self::Control => {
                MigrationSource::<diesel::sqlite::Sqlite>::migrations(&self.source()).map(|all| versions(&all))
            }
        };
        migrations.unwrap_or_default()
    }

    pub(super) fn status(self, conn: &mut Conn) -> StoreResult<Vec<MigrationStatus>> {
        on_backend!(conn, |c| {
            let applied = c.applied_migrations().map_err(failed)?;
            let known = names(c, self.source()).map_err(failed)?;
            Ok(merge(&known, &applied))
        })
    }

    pub(super) fn revert_last(self, conn: &mut Conn) -> StoreResult<Option<String>> {
        locked(conn, |conn| {
            on_backend!(conn, |c| {
                if c.applied_migrations().map_err(failed)?.is_empty() {
                    return Ok(None);
                }
                c.revert_last_migration(self.source()).map(|version| Some(version.to_string())).map_err(failed)
            })
        })
    }
}

fn versions<DB: diesel::backend::Backend>(all: &[Box<dyn diesel::migration::Migration<DB>>]) -> Vec<String> {
    all.iter().map(|migration| migration.name().version().to_string()).collect()
}

#[derive(diesel::QueryableByName)]
struct Version {
    #[diesel(sql_type = diesel::sql_types::Text)]
    version: String,
}

type Named = (String, MigrationVersion<'static>);

/// Names and versions of `source` for the database of this connection.
fn names<C: Connection>(_: &C, source: EmbeddedMigrations) -> Result<Vec<Named>, AnyError> {
    let migrations = MigrationSource::<C::Backend>::migrations(&source)?;
    Ok(migrations.iter().map(|migration| (migration.name().to_string(), migration.name().version().as_owned())).collect())
}

fn merge(known: &[Named], applied: &[MigrationVersion<'static>]) -> Vec<MigrationStatus> {
    let mut all: Vec<MigrationStatus> = known
        .iter()
        .map(|(name, version)| MigrationStatus { name: name.clone(), applied: applied.contains(version), known: true })
        .collect();
    let foreign = applied.iter().filter(|version| !known.iter().any(|(_, known)| known == *version));
    all.extend(foreign.map(|version| MigrationStatus { name: version.to_string(), applied: true, known: false }));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// One instance migrates at a time, the others wait and find the work done. On SQLite all of it is one transaction.
fn locked<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> StoreResult<T> {
    let Conn::Pg(pg) = conn else {
        return conn.write(f);
    };
    // A migration of a large table takes as long as it takes.
    watch::be_patient();
    let timeout: Setting = diesel::sql_query("SELECT current_setting('statement_timeout') AS value").get_result(pg)?;
    pg.batch_execute(&format!("SET statement_timeout = 0; SELECT pg_advisory_lock({LOCK})"))?;
    let result = f(conn);
    if let Conn::Pg(pg) = conn
        && let Err(error) =
            pg.batch_execute(&format!("SELECT pg_advisory_unlock({LOCK}); SET statement_timeout = '{}'", timeout.value))
    {
        // The lock and the setting belong to the session: they end with the broken connection.
        log::debug!(target: "belayd::store", error:%; "the migration lock was not released");
    }
    result
}

#[derive(diesel::QueryableByName)]
struct Setting {
    #[diesel(sql_type = diesel::sql_types::Text)]
    value: String,
}

fn failed(error: AnyError) -> StoreError {
    match error.downcast::<diesel_migrations::MigrationError>() {
        Ok(error) => StoreError::other(format!("the migrations cannot be read: {error}")),
        Err(error) => match error.downcast::<diesel::result::Error>() {
            Ok(error) => StoreError::from(*error),
            Err(error) => StoreError::other(format!("a migration failed: {error}")),
        },
    }
}
