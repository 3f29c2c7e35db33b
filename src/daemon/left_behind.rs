//! A journal whose folder is gone when belayd starts: removed, emptied, or on a file system that is not mounted. The journal itself cannot
//! tell, for it begins anew; the database knows the streams that it should have gone on with.
//!
//! ```text
//!   start, no segment there, and the last run did not end with nothing waiting: a mark in the data directory
//!   database opened, mark there ─► its streams that the journal does not know ─► alert `journal-gone` ─► committed: streams closed, mark removed
//! ```
//! In: the data directory, and the database as it is opened. Out: the alert, and the end of these streams, so that receipts do not say
//! `buffered` for ever. A crash, or a database that is away, leaves the mark: the next opening, or the next start, looks again. Where the
//! folder is put back, its streams go on (`register_stream`). Tier triple has copies in Redis, which say more (`redis_leases.rs`).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    buffer::Buffer,
    clock::SharedClock,
    domain::{
        alert::{Level, Transition},
        receipt::StreamId,
    },
    ingest::raiser::Raiser,
    store::{
        Conn, Store, StoreResult,
        ledger::{self, Closing},
    },
};

/// A person is told of it once; nothing but another start ends it.
pub(super) const JOURNAL_GONE: &str = "journal-gone";
/// The mark's name in the data directory.
const MARK: &str = "journal-begun-anew";
/// From one try to close what was told of to the next.
const AGAIN: Duration = Duration::from_secs(5);
/// Most streams that the text names.
const NAMED: usize = 4;

/// Called before the journal is opened: notes that it will begin anew, where it will.
///
/// # Errors
/// The directory cannot be read or written.
pub(super) fn note(data_dir: &Path, journal: &Path) -> io::Result<()> {
    let has_segments = match fs::read_dir(journal) {
        Ok(mut files) => files.any(|file| file.is_ok_and(|file| file.path().extension().is_some_and(|end| end == "seg"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if has_segments {
        return Ok(());
    }
    // Durable before the first segment is: from then on nothing else would tell.
    File::create(data_dir.join(MARK))?.sync_all()?;
    File::open(data_dir)?.sync_all()
}

/// What looks for them, for all lanes.
#[derive(Clone)]
pub(super) struct LeftBehind {
    pub(super) buffer: Arc<dyn Buffer>,
    pub(super) store: Store,
    pub(super) instance: String,
    pub(super) raiser: Raiser,
    pub(super) clock: SharedClock,
    pub(super) data_dir: PathBuf,
    /// Somebody has looked in this run, and told where there was something.
    pub(super) looked: Arc<AtomicBool>,
}

impl LeftBehind {
    /// Called each time the database has been opened.
    ///
    /// # Errors
    /// Those of the database; the next opening looks again.
    pub(super) fn look(&self, conn: &mut Conn) -> StoreResult<()> {
        if self.looked.load(Ordering::Acquire) || !self.data_dir.join(MARK).exists() {
            return Ok(());
        }
        let tiers: &[&str] = match self.buffer.tier() {
            "journal" => &["journal", "triple"],
            "redis" => &["journal"],
            // Left by another tier; memory does not read the journal.
            _ => return Ok(()),
        };
        let mut gone = ledger::at_work(conn, &self.instance, tiers)?;
        gone.retain(|(stream, _)| !self.buffer.knows(*stream));
        if self.looked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if gone.is_empty() {
            self.remove_mark();
            return Ok(());
        }
        let committed = self.tell(&gone);
        let this = self.clone();
        let closing = thread::Builder::new().name("left-behind".into()).spawn(move || this.close(committed, &gone));
        if let Err(error) = closing {
            log::warn!(target: "belayd::buffer", error:% = error; "the streams of the journal that is gone could not be closed; the next start tries again");
        }
        Ok(())
    }

    fn tell(&self, gone: &[(StreamId, u64)]) -> oneshot::Receiver<()> {
        let text = in_words(gone);
        log::error!(target: "belayd::buffer", streams = gone.len() as u64, errorType = "journal_gone"; "{text}");
        let now_us = self.clock.now_us();
        self.raiser.raise(vec![Transition::system((JOURNAL_GONE, "journal"), Level::Critical, true, text, now_us)])
    }

    /// Once the alert is committed, and the database takes it. Where the process ends before, the mark stays.
    fn close(&self, committed: oneshot::Receiver<()>, gone: &[(StreamId, u64)]) {
        if committed.blocking_recv().is_err() {
            return;
        }
        let close = |conn: &mut Conn| {
            let now_us = self.clock.now_us();
            gone.iter().try_for_each(|(stream, _)| ledger::close_stream(conn, *stream, Closing::Cut, now_us))
        };
        while let Err(error) = self.store.with(close) {
            log::debug!(target: "belayd::buffer", error:% = error; "the streams of the journal that is gone could not be closed; tried again");
            thread::sleep(AGAIN);
        }
        self.remove_mark();
    }

    fn remove_mark(&self) {
        if let Err(error) = fs::remove_file(self.data_dir.join(MARK)) {
            log::warn!(target: "belayd::buffer", error:% = error; "{MARK} in the data directory could not be removed; the next start looks again for what the journal lacks");
        }
    }
}

fn in_words(gone: &[(StreamId, u64)]) -> String {
    let mut named: Vec<String> = gone.iter().take(NAMED).map(|(stream, cursor)| format!("{stream}:{cursor}")).collect();
    if gone.len() > NAMED {
        named.push(format!("+{}", gone.len() - NAMED));
    }
    format!(
        "the journal was begun anew, and the database knows streams that it should have gone on with (each with the last number that is stored): \
         {}; journal/ in the data directory was removed or emptied, or is not mounted; acknowledged readings that were not stored yet are gone \
         with it, how many is not known; where the folder still exists, put it back (\"A damaged journal\" in the operations manual)",
        named.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_without_a_segment_is_noted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (journal, mark) = (dir.path().join("journal"), dir.path().join(MARK));
        let noted = || {
            note(dir.path(), &journal).expect("noted");
            fs::remove_file(&mark).is_ok()
        };
        assert!(noted(), "there is no folder");
        fs::create_dir(&journal).expect("made");
        fs::write(journal.join("restored"), "").expect("written");
        assert!(noted(), "there is no segment");
        fs::write(journal.join("1.seg"), "").expect("written");
        assert!(!noted(), "whatever the segment holds, the journal tells");
    }
}
