//! Backup and restore: data directory and database together in one archive, while the daemon runs.
//!
//! In: the data directory, the store, a file's name. Out: a gzipped tar that says what it holds and proves that it is whole; or the
//! directory and the database as they were. A crash leaves an archive without its name, or a directory that no daemon starts on
//! until the restore has been run again ([`RESTORING`](crate::daemon::RESTORING)); nothing that was there is deleted.
//!
//! **Why nothing acknowledged before the backup began can be missing from it.** A reading is acknowledged once it is in the journal,
//! and a segment of the journal is dropped only after the database has committed all of its readings. The backup does, in this order:
//!
//! 1. it lists the segments and opens every one (an open file keeps its bytes, even when its name is dropped meanwhile);
//! 2. it fixes the moment of the database (SQLite: a read transaction; PostgreSQL: REPEATABLE READ);
//! 3. it lists the segments again, opens the new ones, and notes up to which frame the newest is written;
//! 4. it fixes the moment of the control store, and copies all of them.
//!
//! A reading that was acknowledged before step 1 is in a segment that step 1 has opened, or that segment was dropped before; then the
//! database had it before step 2. So it is in at least one copy, usually in both: putting it back settles it once, because the
//! database's cursor says how far it got. The cursor as of step 2 points at a frame that was written before step 2, so step 3 has the
//! journal up to it and beyond: after a restore of both the database's cursor stands in the log. The streams change all the same: numbers
//! behind the journal's end were acknowledged after the backup for readings that the restore does not have, and must not be given to others;
//! so they do where the directory alone is put back, since the database's cursor may still stand in the log
//! ([`RESTORED`](crate::buffer::journal::RESTORED)).
//! Were the database copied first, a reading could be drained and its segment dropped in between, and be in neither copy. Numbers of
//! segments rise by one: should one come and go between steps 1 and 3, its number is missing, and the backup begins anew.
//!
//! The control store's moment comes last, so that the alert of a copied reading, which was committed before the reading was acknowledged, is
//! there too. What it was about to send at that moment is sent again after a restore: a repeat, never a silence.

mod archive;
mod create;
mod journal;
mod restore;

use serde::{Deserialize, Serialize};

pub use self::{
    create::{Created, create},
    restore::{Only, Restored, check, restore},
};
use crate::store::snapshot::Shape;

/// The format that is written; a higher one is not read.
const FORMAT: u32 = 1;
/// First member: what the archive is. Its name is how `file` and people recognise it.
const ABOUT: &str = "belayd-backup.json";
/// Last member: every other one with its length and checksum. An archive that was cut has none.
const CONTENTS: &str = "contents.json";
/// The control store.
const CONTROL: &str = "control.db";
/// A SQLite store.
const STORE: &str = "store.db";
/// Parts of PostgreSQL's tables: `store/TABLE/NUMBER`.
const TABLES: &str = "store/";
/// Segments and what was put aside.
const JOURNAL: &str = "journal/";

/// What the archive says of itself first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    /// [`FORMAT`] of the writer.
    format: u32,
    /// Version of the writer.
    version: String,
    /// When it began, RFC 3339.
    created_at: String,
    /// `sqlite` or `postgres`.
    backend: String,
    /// The schema of the store.
    store: Shape,
    /// The schema of the control store.
    control: Shape,
}

/// What happens while it lasts, for whoever waits.
pub trait Progress {
    /// A part begins, of about so many bytes.
    fn part(&mut self, what: &str, bytes: u64);
    /// So many bytes of it are done.
    fn done(&mut self, bytes: u64);
}

/// A sentence that says what failed and what to do.
pub type Outcome<T> = Result<T, String>;
