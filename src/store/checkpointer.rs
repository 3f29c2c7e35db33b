//! Copies SQLite's write-ahead log into the database file beside the one who writes it.
//!
//! SQLite does that by itself, within the commit that makes the log long enough ([`STORE_WAL_PAGES`](super::pool::STORE_WAL_PAGES)). For a writer that never rests it
//! is a tenth of the work for each row and two waits for the disk, and there can be only one writer; whereas a copy by another connection
//! holds nobody up. So whoever writes much says so ([`Checkpointer::due`]), and a thread copies what stands in the log by then. The rest,
//! little, is still the writer's when the log is long: only a writer that finds all of it copied begins it anew, and so it stays short.
//!
//! A crash at any point loses nothing: what is not copied stands in the log, and is copied by whoever opens the file next. Should the
//! thread fail, the writer copies everything, as before.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use super::{Backend, Store, Writer, conn};

/// The thread that copies. Dropped, it ends what it has begun, and ends.
#[derive(Debug)]
pub struct Checkpointer {
    due: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread for a SQLite file; `None` for a server, which does its own.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(store: &Store) -> io::Result<Option<Self>> {
        if store.backend() != Backend::Sqlite {
            return Ok(None);
        }
        let (due, asked) = sync_channel(1);
        let writer = store.copier();
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(move || copy_when_asked(&asked, writer))?;
        Ok(Some(Self { due: Some(due), thread: Some(thread) }))
    }

    /// Much was committed. Waits for nothing: where a copy is under way already, one more follows it.
    pub fn due(&self) {
        if let Some(due) = &self.due {
            // Full: it is asked for already. Gone: the writer does it all.
            let _ = due.try_send(());
        }
    }
}

fn copy_when_asked(asked: &Receiver<()>, mut copier: Writer) {
    while asked.recv().is_ok() {
        if let Err(error) = copier.with(conn::copy_log) {
            log::debug!(target: "belayd::store", error:% = error; "the write-ahead log was not copied beside the writer, who does it then");
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.due = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been logged, and cost nothing but time.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::{Config, StoreConfig};

    fn config(url: String) -> StoreConfig {
        StoreConfig { url, ..Config::default().store }
    }

    #[test]
    fn what_was_committed_is_copied_beside_an_open_writer_and_the_end_waits_for_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("belayd.db");
        let store = Store::open(&config(format!("sqlite://{}", file.display()))).expect("a store");
        let mut writer = store.writer();
        let mut run = |sql: &str| {
            writer
                .with(|conn| {
                    if let crate::store::Conn::Sqlite(conn) = conn {
                        diesel::connection::SimpleConnection::batch_execute(conn, sql)?;
                    }
                    Ok(())
                })
                .expect("it is run");
        };
        run("CREATE TABLE filled (bytes BLOB)");
        let before = std::fs::metadata(&file).expect("the file").len();
        let checkpointer = Checkpointer::start(&store).expect("a thread").expect("SQLite has one");
        run("INSERT INTO filled VALUES (zeroblob(1000000))");
        assert_eq!(std::fs::metadata(&file).expect("the file").len(), before, "the writer copies a longer log only");
        checkpointer.due();
        let until = Instant::now() + Duration::from_secs(60);
        while std::fs::metadata(&file).expect("the file").len() < 1_000_000 {
            assert!(Instant::now() < until, "nothing was copied");
            std::thread::sleep(Duration::from_millis(5));
        }
        run("INSERT INTO filled VALUES (zeroblob(1000000))");
        checkpointer.due();
        drop(checkpointer);
        assert!(std::fs::metadata(&file).expect("the file").len() > 2_000_000, "what was asked for is done first");
    }

    #[test]
    fn a_server_needs_none() {
        let store = Store::open(&config("postgres://belayd@127.0.0.1:1/postgres".into())).expect("a store");
        assert!(Checkpointer::start(&store).expect("no failure").is_none());
    }
}
