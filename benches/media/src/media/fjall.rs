//! fjall: a log-structured merge tree with a journal, each batch synced (`PersistMode::SyncData`).

use std::path::Path;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Failure, Medium, joined};

/// The default is 32 MiB.
const CACHE_BYTES: u64 = 4 << 20;

struct Fjall {
    database: Database,
    frames: Keyspace,
    /// Where the oldest blob begins that has not been removed.
    oldest: Vec<u64>,
    removed: usize,
    room: Vec<u8>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Medium>, Failure> {
    let database = Database::builder(dir.join("fjall")).cache_size(CACHE_BYTES).open()?;
    let frames = database.keyspace("frames", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, frames, oldest: Vec::new(), removed: 0, room: Vec::new() }))
}

impl Medium for Fjall {
    fn next_seq(&mut self) -> u64 {
        let Some(last) = self.frames.last_key_value() else { return 1 };
        let (key, value) = last.into_inner().expect("the newest blob can be read");
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        number(&key) + number(&value[..4])
    }

    fn commit(&mut self, first_seq: u64, rows: u32, pieces: &[Bytes], keep_from: u64) -> Result<(), Failure> {
        let mut value = rows.to_be_bytes().to_vec();
        value.extend_from_slice(joined(pieces, &mut self.room));
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.frames, first_seq.to_be_bytes(), value);
        self.oldest.push(first_seq);
        while self.oldest[self.removed] < keep_from {
            batch.remove(&self.frames, self.oldest[self.removed].to_be_bytes());
            self.removed += 1;
        }
        batch.commit()?;
        Ok(())
    }
}
