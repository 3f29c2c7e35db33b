//! Streams of the journal that the database has at work and the journal does not know: its folder was removed, emptied, or is on a file system
//! that is not mounted. The journal itself cannot tell, for it begins anew.
//!
//! In: the database, as it has been opened. Out: the alert `journal-gone`, and then the end of these streams, so that receipts do not say
//! `buffered` for ever. A crash in between loses nothing: the next opening tells again. Where the folder is put back, its streams go on
//! (`register_stream`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    buffer::Buffer,
    clock::SharedClock,
    domain::{
        alert::{AlertKind, Level, Transition},
        receipt::StreamId,
    },
    ingest::raiser::Raiser,
    store::{
        Conn, StoreResult,
        ledger::{self, Closing},
    },
};

/// A person is told of it once; nothing but another start ends it.
pub(super) const JOURNAL_GONE: &str = "journal-gone";
/// How long the alert's commit is waited for. Where it takes longer, the next opening of the database tells again.
const TOLD_WITHIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);
/// Most streams that the text names.
const NAMED: usize = 4;

/// What looks for them, one a lane.
#[derive(Clone)]
pub(super) struct LeftBehind {
    pub(super) buffer: Arc<dyn Buffer>,
    pub(super) instance: String,
    pub(super) raiser: Raiser,
    pub(super) clock: SharedClock,
    /// A journal begins anew at a start only, so that once is enough. Another process on a copy of this directory has streams of its own
    /// under this instance's name.
    pub(super) looked: Arc<AtomicBool>,
}

impl LeftBehind {
    /// Called each time the database has been opened.
    ///
    /// # Errors
    /// Those of the database; the next opening looks again.
    pub(super) fn look(&self, conn: &mut Conn) -> StoreResult<()> {
        // Tier memory does not read the journal.
        if !self.buffer.outlives_process() || self.looked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let is_told = self.find(conn);
        self.looked.store(matches!(is_told, Ok(true)), Ordering::Release);
        is_told.map(|_| ())
    }

    /// Whether there is nothing left to tell.
    fn find(&self, conn: &mut Conn) -> StoreResult<bool> {
        let mut gone = ledger::at_work(conn, &self.instance)?;
        gone.retain(|(stream, _)| !self.buffer.knows(*stream));
        if gone.is_empty() {
            return Ok(true);
        }
        if !self.tell(&gone) {
            return Ok(false);
        }
        let now_us = self.clock.now_us();
        gone.iter().try_for_each(|(stream, _)| ledger::close_stream(conn, *stream, Closing::Cut, now_us))?;
        Ok(true)
    }

    /// Whether the alert is committed.
    fn tell(&self, gone: &[(StreamId, u64)]) -> bool {
        let text = in_words(gone);
        log::error!(target: "belayd::buffer", streams = gone.len() as u64, errorType = "journal_gone"; "{text}");
        let now_us = self.clock.now_us();
        let mut committed = self.raiser.raise(vec![Transition {
            kind: AlertKind::System,
            name: JOURNAL_GONE.into(),
            subject: "journal".into(),
            level: Level::Critical,
            firing: true,
            observed_at_us: now_us,
            arrived_at_us: now_us,
            value: None,
            threshold: None,
            text,
        }]);
        let looks = TOLD_WITHIN.as_millis() / LOOK.as_millis();
        (0..looks).any(|_| {
            let is_committed = committed.try_recv().is_ok();
            if !is_committed {
                thread::sleep(LOOK);
            }
            is_committed
        })
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
