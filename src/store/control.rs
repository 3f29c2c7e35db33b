//! The control store: a small SQLite in the data directory that works while the store is away. It holds the identity of the
//! directory, tokens, sessions, audit, rule state, alerts and their deliveries, and when periodic duties ran.
//!
//! In: decisions of people and actors. Out: the same after a restart. A crash loses what was not committed; synchronous=FULL.

use std::{collections::BTreeMap, path::Path};

use diesel::prelude::*;
use uuid::Uuid;

use super::{
    Conn, Store, StoreError, StoreErrorKind, StoreResult,
    control_schema::{duty_notes, duty_runs, identity},
};
use crate::on_backend;

/// The file in the data directory.
pub const FILE: &str = "control.db";

/// Who this data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Made with the directory; a copied directory has the same.
    pub directory_id: Uuid,
    /// When it was made, microseconds since the epoch.
    pub created_at_us: i64,
}

/// Opens the control store of a data directory, brings it up to date and reads its identity, which is made at the first time.
/// Blocks; called once, at start, before anything else.
///
/// # Errors
/// Where the file cannot be made, opened or migrated: without it belayd does not start.
pub fn open(data_dir: &Path, now_us: i64) -> StoreResult<(Store, Identity)> {
    let store = Store::open_control(&data_dir.join(FILE))?;
    store.migrate()?;
    let identity = store.with(|conn| identify(conn, now_us))?;
    Ok((store, identity))
}

/// A column holds what this build never writes there.
pub(super) fn corrupt(column: &str, value: &str) -> StoreError {
    let value: String = value.chars().take(64).collect();
    StoreError::new(StoreErrorKind::Corrupt, format!("{column} holds {value:?}, which this build cannot read"))
}

fn identify(conn: &mut Conn, now_us: i64) -> StoreResult<Identity> {
    conn.write(|conn| {
        let found: Option<(String, i64)> =
            identity::table.select((identity::directory_id, identity::created_at_us)).first(conn).optional()?;
        if let Some((id, created_at_us)) = found {
            let directory_id = id.parse().map_err(|_| corrupt("identity.directory_id", &id))?;
            return Ok(Identity { directory_id, created_at_us });
        }
        let made = Identity { directory_id: Uuid::new_v4(), created_at_us: now_us };
        let row =
            (identity::id.eq(1_i64), identity::directory_id.eq(made.directory_id.to_string()), identity::created_at_us.eq(now_us));
        diesel::insert_into(identity::table).values(row).execute(conn)?;
        Ok(made)
    })
}

/// When each duty ran last, microseconds since the epoch, by name.
///
/// # Errors
/// Those of the control store.
pub fn last_duty_runs(conn: &mut Conn) -> StoreResult<BTreeMap<String, i64>> {
    let rows: Vec<(String, i64)> = duty_runs::table.select((duty_runs::name, duty_runs::last_run_at_us)).load(conn)?;
    Ok(rows.into_iter().collect())
}

/// Notes that a duty ran at `at_us` and how it went.
///
/// # Errors
/// Those of the control store.
pub fn record_duty_run(conn: &mut Conn, name: &str, at_us: i64, outcome: &str) -> StoreResult<()> {
    let row = (duty_runs::name.eq(name), duty_runs::last_run_at_us.eq(at_us), duty_runs::outcome.eq(outcome));
    let update = (duty_runs::last_run_at_us.eq(at_us), duty_runs::outcome.eq(outcome));
    on_backend!(conn, |c| diesel::insert_into(duty_runs::table)
        .values(row)
        .on_conflict(duty_runs::name)
        .do_update()
        .set(update)
        .execute(c))?;
    Ok(())
}

/// What a duty has kept under this name.
///
/// # Errors
/// Those of the control store.
pub fn duty_note(conn: &mut Conn, name: &str) -> StoreResult<Option<String>> {
    Ok(duty_notes::table.find(name).select(duty_notes::note).first(conn).optional()?)
}

/// Keeps `note` for a duty, or nothing any more.
///
/// # Errors
/// Those of the control store.
pub fn keep_duty_note(conn: &mut Conn, name: &str, note: Option<&str>, now_us: i64) -> StoreResult<()> {
    let Some(note) = note else {
        diesel::delete(duty_notes::table.find(name)).execute(conn)?;
        return Ok(());
    };
    let row = (duty_notes::name.eq(name), duty_notes::note.eq(note), duty_notes::updated_at_us.eq(now_us));
    let update = (duty_notes::note.eq(note), duty_notes::updated_at_us.eq(now_us));
    on_backend!(conn, |c| diesel::insert_into(duty_notes::table)
        .values(row)
        .on_conflict(duty_notes::name)
        .do_update()
        .set(update)
        .execute(c))?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A fresh control store in a directory that goes when the guard does.
    pub(crate) fn scratch() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (store, _) = open(dir.path(), 1).expect("a fresh control store opens");
        (dir, store)
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (_, first) = open(dir.path(), 7).expect("opens");
        let (_, again) = open(dir.path(), 8).expect("opens again");
        assert_eq!(first, again);
        assert_eq!(first.created_at_us, 7);
    }

    #[test]
    fn the_last_run_of_a_duty_is_kept() {
        let (_dir, store) = scratch();
        let runs = store
            .with(|conn| {
                record_duty_run(conn, "retention", 5, "ok")?;
                record_duty_run(conn, "retention", 9, "failed")?;
                last_duty_runs(conn)
            })
            .expect("works");
        assert_eq!(runs, BTreeMap::from([("retention".to_owned(), 9)]));
    }
}
