//! redb: a copy-on-write B-tree in one file, each commit synced (`Durability::Immediate`, its default).

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Failure, Medium, joined};

/// First number to row count and blob.
const FRAMES: TableDefinition<'_, u64, (u32, &[u8])> = TableDefinition::new("frames");
/// As much as SQLite is given beside its own; the default would be 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

struct Redb {
    database: Database,
    /// Whether each commit also writes what spares the next opening a walk over the whole tree.
    quick_repair: bool,
    room: Vec<u8>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Medium>, Failure> {
    open_with(dir, false)
}

pub(super) fn open_quick(dir: &Path) -> Result<Box<dyn Medium>, Failure> {
    open_with(dir, true)
}

fn open_with(dir: &Path, quick_repair: bool) -> Result<Box<dyn Medium>, Failure> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("frames.redb"))?;
    let transaction = database.begin_write()?;
    transaction.open_table(FRAMES)?;
    transaction.commit()?;
    Ok(Box::new(Redb { database, quick_repair, room: Vec::new() }))
}

impl Medium for Redb {
    fn next_seq(&mut self) -> u64 {
        let last = || -> Result<u64, redb::Error> {
            let table = self.database.begin_read()?.open_table(FRAMES)?;
            let last = table.last()?;
            Ok(last.map_or(1, |(first_seq, value)| first_seq.value() + u64::from(value.value().0)))
        };
        last().expect("the newest blob can be read")
    }

    fn commit(&mut self, first_seq: u64, rows: u32, pieces: &[Bytes], keep_from: u64) -> Result<(), Failure> {
        let blob = joined(pieces, &mut self.room);
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(self.quick_repair);
        {
            let mut table = transaction.open_table(FRAMES)?;
            table.insert(first_seq, (rows, blob))?;
            while table.first()?.is_some_and(|(first_seq, _)| first_seq.value() < keep_from) {
                table.pop_first()?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
