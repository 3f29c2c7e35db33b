//! Copies SQLite's write-ahead log into the database file beside the one who writes it.
//!
//! SQLite does that by itself, within the commit that makes the log long enough ([`STORE_WAL_PAGES`](super::pool::STORE_WAL_PAGES)). For a
//! writer that never rests it is a tenth of the work for each row and two waits for the disk, and there can be only one writer. So whoever
//! writes much says so ([`Checkpointer::due`]), and a thread copies what stands in the log by then.
//!
//! Only a writer that finds all of it copied begins the log anew, and beside one that never rests that is the writer alone, in a commit: it
//! copies the rest, unless the thread is copying just then. So nothing is asked of the thread while it copies, and between the end of a copy
//! and the beginning of the next lies a commit. The log grows by what is written meanwhile, and not for ever on a disk that is slower than
//! the writer, who then waits for it as before.
//!
//! A crash at any point loses nothing: what is not copied stands in the log, and is copied by whoever opens the file next. Should the
//! thread fail, the writer copies everything.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, JoinHandle},
};

use super::{Backend, Store, Writer, conn};

/// The thread that copies. Dropped, it ends when the copy that it has begun is done.
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
        let (due, asked) = sync_channel(0);
        let writer = store.copier();
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(move || copy_when_asked(&asked, writer))?;
        Ok(Some(Self { due: Some(due), thread: Some(thread) }))
    }

    /// Much was committed. Waits for nothing; while a copy is under way it asks for nothing either.
    pub fn due(&self) {
        if let Some(due) = &self.due {
            // Nobody takes it: a copy is under way, or the thread is gone and the writer does it all.
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
    fn what_was_committed_is_copied_beside_an_open_writer() {
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
        let length = || std::fs::metadata(&file).expect("the file").len();
        run("CREATE TABLE filled (bytes BLOB)");
        let before = length();
        let checkpointer = Checkpointer::start(&store).expect("a thread").expect("SQLite has one");
        run("INSERT INTO filled VALUES (zeroblob(1000000))");
        assert_eq!(length(), before, "the writer copies a longer log only");
        let until = Instant::now() + Duration::from_secs(60);
        while length() < 1_000_000 {
            assert!(Instant::now() < until, "nothing was copied");
            // It may not be waiting yet.
            checkpointer.due();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn beside_a_writer_that_never_rests_the_log_stays_short() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("belayd.db");
        let store = Store::open(&config(format!("sqlite://{}", file.display()))).expect("a store");
        let mut writer = store.writer();
        let checkpointer = Checkpointer::start(&store).expect("a thread").expect("SQLite has one");
        // 200 MB in all, 4 MB at a time.
        for n in 0..50 {
            writer
                .with(|conn| {
                    if let crate::store::Conn::Sqlite(conn) = conn {
                        let fill = "CREATE TABLE IF NOT EXISTS filled (bytes BLOB); INSERT INTO filled VALUES (zeroblob(4000000));";
                        diesel::connection::SimpleConnection::batch_execute(conn, fill)?;
                    }
                    Ok(())
                })
                .unwrap_or_else(|error| panic!("{n}: {error}"));
            checkpointer.due();
        }
        let log = std::fs::metadata(dir.path().join("belayd.db-wal")).expect("the log").len();
        assert!(log < 100_000_000, "{log} bytes of log for 200,000,000 written");
    }

    #[test]
    fn a_server_needs_none() {
        let store = Store::open(&config("postgres://belayd@127.0.0.1:1/postgres".into())).expect("a store");
        assert!(Checkpointer::start(&store).expect("no failure").is_none());
    }
}
