//! The candidates, each behind the same three calls.

mod bare;
mod fjall;
mod redb;
mod segments;
mod sqlite;

use std::{error::Error, path::Path};

use bytes::Bytes;

/// Whatever a medium fails with.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A medium under test.
pub(crate) trait Medium: Send {
    /// The number after the newest reading that it keeps; 1 where it keeps none.
    fn next_seq(&mut self) -> u64;

    /// Keeps `rows` readings from `first_seq` on, given in pieces, as one blob or frame; they survive a power cut when it returns. Blobs that
    /// lie wholly below `keep_from` are with the database and may go.
    fn commit(&mut self, first_seq: u64, rows: u32, pieces: &[Bytes], keep_from: u64) -> Result<(), Failure>;
}

/// Opens a medium in an empty directory, or in the one that it left behind.
pub(crate) type Open = fn(&Path) -> Result<Box<dyn Medium>, Failure>;

/// All of them, in the order of the tables. `none` is what the harness itself reaches, `bare` what the disk allows.
pub(crate) const MEDIA: &[(&str, Open)] = &[
    ("none", bare::open_none),
    ("bare", bare::open),
    ("segment log", segments::open),
    ("sqlite", sqlite::open),
    ("redb", redb::open),
    ("redb, quick repair", redb::open_quick),
    ("fjall", fjall::open),
];

/// The pieces as one blob, for libraries that take only that.
pub(crate) fn joined<'a>(pieces: &'a [Bytes], room: &'a mut Vec<u8>) -> &'a [u8] {
    if let [one] = pieces {
        return one;
    }
    room.clear();
    pieces.iter().for_each(|piece| room.extend_from_slice(piece));
    room
}
