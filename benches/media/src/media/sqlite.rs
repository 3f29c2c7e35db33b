//! SQLite in WAL mode with `synchronous=FULL`, one row a blob, settled as the daemon's own store is.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, params};

use super::{Failure, Medium, joined};

struct Sqlite {
    conn: Connection,
    room: Vec<u8>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Medium>, Failure> {
    let conn = Connection::open(dir.join("frames.db"))?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -2048; PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE IF NOT EXISTS frames (first_seq INTEGER PRIMARY KEY, rows INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;",
    )?;
    Ok(Box::new(Sqlite { conn, room: Vec::new() }))
}

impl Medium for Sqlite {
    fn next_seq(&mut self) -> u64 {
        let newest =
            self.conn.query_row("SELECT first_seq + rows FROM frames ORDER BY first_seq DESC LIMIT 1", [], |row| row.get(0));
        newest.map_or(1, i64::unsigned_abs)
    }

    fn commit(&mut self, first_seq: u64, rows: u32, pieces: &[Bytes], keep_from: u64) -> Result<(), Failure> {
        let blob = joined(pieces, &mut self.room);
        let transaction = self.conn.transaction()?;
        transaction.prepare_cached("INSERT INTO frames (first_seq, rows, payload) VALUES (?, ?, ?)")?.execute(params![
            first_seq.cast_signed(),
            rows,
            blob
        ])?;
        // Overlapping blobs are few, so that the start of a blob is as good as its end.
        transaction.prepare_cached("DELETE FROM frames WHERE first_seq < ?")?.execute(params![keep_from.cast_signed()])?;
        transaction.commit()?;
        Ok(())
    }
}
