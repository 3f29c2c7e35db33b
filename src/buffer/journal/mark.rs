//! The mark that a restore of the directory, with or without the database, leaves for the next opening.
//!
//! In: the journal's directory. Out: the streams, and up to where the database has them. It is removed once every lane has a
//! new stream; a crash before that makes the next opening do it again.

use std::io;

use super::{disk::Disk, scan::read_full, segment::BLOCK};

/// A file of this name says that the directory was put back from a backup: numbers behind the journal's end were acknowledged
/// after it, for other readings than will come now, so all lanes get new streams. A line `STREAM NUMBER` says up to where the database has
/// a stream; without one it may get readings again that it has, which are duplicates. Removed once the new streams are durable.
pub const RESTORED: &str = "restored";

/// First line of that file where the directory alone was put back: what was acknowledged after the backup may be in the database.
pub const DIRECTORY_ONLY: &str = "directory";

/// What it says, where there is one: streams, and up to where the database has them.
///
/// # Errors
/// The directory cannot be listed.
pub(super) fn read<D: Disk>(disk: &D) -> io::Result<Option<Vec<(String, u64)>>> {
    if !disk.list()?.iter().any(|entry| entry.name == RESTORED && entry.plain) {
        return Ok(None);
    }
    let mut bytes = vec![0; BLOCK];
    let read = disk.open_read(RESTORED).and_then(|file| read_full(&file, &mut bytes, 0)).unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..read]);
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(Some(lines.filter_map(|(stream, settled)| Some((stream.to_owned(), settled.parse().ok()?))).collect()))
}
