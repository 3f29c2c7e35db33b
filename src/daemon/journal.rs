//! What the journal sees, told to the rest of the daemon: log lines, alerts, a stamp for the overseer.
//!
//! A failed sync and damage are moments, not states: the alert is over once the disk has behaved for long enough. What they cost stays
//! visible in the counts of what is void, lost and quarantined. A crash loses how long it has been quiet: the wait begins anew, and
//! with it ends what an earlier run left open.

use std::{
    fs, io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use crate::{
    buffer::{
        Buffer,
        journal::{
            DIRECTORY_ONLY, Damage, Forked, RESTORED, Recovered,
            disk::RealDisk,
            tier::{JournalBuffer, JournalObserver, JournalSettings, Room},
        },
        memory::MemoryBuffer,
    },
    clock::SharedClock,
    config::Config,
    domain::alert::{Level, Transition},
    ingest::raiser::Raiser,
    supervise::LoopStamp,
};

use super::{drain::DIRECTORY_RESTORED, left_behind};

/// The folder in the data directory.
const FOLDER: &str = "journal";

/// Microseconds without a failed sync, and with one that worked, after which `journal-sync-failed` is over.
const SYNC_QUIET_US: i64 = 600_000_000;
/// Microseconds without new damage after which `journal-damaged` is over: a day's scrubbing reads everything many times.
const DAMAGE_QUIET_US: i64 = 86_400_000_000;

/// Turns what the journal sees into facts.
pub(super) struct Observer {
    raise: RaiseFn,
    clock: SharedClock,
    stamp: LoopStamp,
    troubles: Mutex<Troubles>,
    /// What the opening said of lost ends. Damage that is found later must not hide it.
    lost_ends: OnceLock<String>,
}

/// Hands transitions on; nobody waits for their commit.
type RaiseFn = Box<dyn Fn(Vec<Transition>) + Send + Sync>;

/// Since when it has been quiet; `None` once that was told.
struct Troubles {
    sync_failed: Option<Quiet>,
    damaged: Option<Quiet>,
    /// Syncs that worked, as last told.
    syncs: u64,
}

#[derive(Clone, Copy)]
struct Quiet {
    since_us: i64,
    /// Syncs that had worked then.
    syncs: u64,
}

impl Observer {
    pub(super) fn new(raiser: Raiser, clock: SharedClock, stamp: LoopStamp) -> Self {
        // The raiser repeats it until it is done.
        Self::raising(Box::new(move |transitions| drop(raiser.raise(transitions))), clock, stamp)
    }

    fn raising(raise: RaiseFn, clock: SharedClock, stamp: LoopStamp) -> Self {
        let quiet = Some(Quiet { since_us: clock.now_us(), syncs: 0 });
        let troubles = Mutex::new(Troubles { sync_failed: quiet, damaged: quiet, syncs: 0 });
        Self { raise, clock, stamp, troubles, lost_ends: OnceLock::new() }
    }

    fn troubles(&self) -> std::sync::MutexGuard<'_, Troubles> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_what_is_over(&self, syncs: u64) {
        let now_us = self.clock.now_us();
        let mut troubles = self.troubles();
        troubles.syncs = syncs;
        let over = |quiet: Quiet, length_us: i64| now_us - quiet.since_us >= length_us;
        let synced = troubles.sync_failed.take_if(|quiet| over(*quiet, SYNC_QUIET_US) && syncs > quiet.syncs).is_some();
        let whole = troubles.damaged.take_if(|quiet| over(*quiet, DAMAGE_QUIET_US)).is_some();
        drop(troubles);
        if synced {
            let text = "the disk has taken every write of the journal for 10 minutes";
            self.transition("journal-sync-failed", Level::Critical, false, text.into());
        }
        if whole {
            let text = "no new damage was found in the journal for a day; what was set aside is still in journal/quarantine";
            self.transition("journal-damaged", Level::Critical, false, text.into());
        }
    }

    fn transition(&self, name: &str, level: Level, firing: bool, text: String) {
        self.transition_of((name, "journal"), level, firing, text);
    }

    fn transition_of(&self, (name, subject): (&str, &str), level: Level, firing: bool, text: String) {
        let now_us = self.clock.now_us();
        (self.raise)(vec![Transition::system((name, subject), level, firing, text, now_us)]);
    }

    /// What an earlier run left open and this one has not seen. Told before the journal is opened, so that nothing newer is undone.
    fn begun(&self) {
        self.over("journal-failed", "belayd was started anew");
        self.over("journal-disk-full", "belayd was started anew");
    }

    fn over(&self, name: &str, text: &str) {
        self.transition(name, Level::Critical, false, text.into());
    }

    /// Streams that end here may have numbers behind the backup; which readings had them, only their senders know.
    fn put_back_alone(&self) {
        let text = "the data directory was put back from a backup, the database was not: what waited goes on under new streams, and what the \
                    database has already is counted as duplicate; readings that were acknowledged after the backup and were not in the \
                    database are lost, and their receipts say so; how many is not known";
        log::error!(target: "belayd::buffer", "{text}");
        self.transition_of((DIRECTORY_RESTORED, "daemon"), Level::Critical, true, text.into());
    }

    fn recovered(&self, recovered: &Recovered) {
        log::info!(
            target: "belayd::buffer",
            segments = recovered.segments as u64, bytes = recovered.bytes, tornBytes = recovered.torn_bytes,
            durationMs = recovered.took.as_millis() as u64;
            "journal opened"
        );
        if !recovered.damage.is_empty() {
            let _ = self.lost_ends.set(recovered.forked.iter().filter(|lost| lost.end_lost).map(in_words).collect());
            self.damaged(&recovered.damage);
        }
        for lost in &recovered.forked {
            if !lost.end_lost {
                log::warn!(target: "belayd::buffer", lane = lost.lane as u64, stream:% = lost.stream; "the directory was put back from a backup: what it holds goes on under a new stream");
                continue;
            }
            log::error!(
                target: "belayd::buffer",
                lane = lost.lane as u64, stream:% = lost.stream, lastSeq = lost.last_seq, bytesAtMost = lost.cut_bytes, errorType = "lost_end";
                "the journal's end is lost: how many readings were acknowledged behind this number is not known; what is left goes on under a new stream"
            );
        }
    }
}

impl JournalObserver for Observer {
    fn alive(&self, syncs: u64) {
        self.stamp.beat();
        self.end_what_is_over(syncs);
    }

    fn room(&self, room: Room) {
        match room {
            Room::DiskFull => {
                log::error!(target: "belayd::buffer", errorType = "disk_full"; "the journal's file system is full; readings are refused with 507");
                let text =
                    "the file system of the journal is full and readings are refused (507): make room; belayd goes on by itself";
                self.transition("journal-disk-full", Level::Critical, true, text.into());
                self.over("journal-failed", "the file system of the journal is full");
            }
            Room::Full => {
                log::warn!(target: "belayd::buffer", "buffer.journal_bytes is reached; readings are refused with 503 until the database has caught up");
                self.over("journal-failed", "the disk would take a segment of the journal; buffer.journal_bytes is reached");
            }
            Room::Free => {
                log::info!(target: "belayd::buffer", "the journal takes readings again");
                self.over("journal-disk-full", "the file system of the journal has room again");
                self.over("journal-failed", "the disk takes segments of the journal again");
            }
            // Told with its cause.
            Room::Failing => {}
        }
    }

    fn failing(&self, cause: &io::Error) {
        log::error!(target: "belayd::buffer", error:% = cause, errorType = "journal"; "the journal's next segment cannot be made; readings are refused with 503");
        let text = format!(
            "no segment of the journal can be made ({cause}) and readings are refused (503): see that journal/ in the data directory \
             is there, belongs to belayd and is not mounted read-only, and look at the disk and the limit of open files; it is tried \
             again ten times a second and goes on by itself"
        );
        self.transition("journal-failed", Level::Critical, true, text);
        self.over("journal-disk-full", "the journal is refused for another reason than room");
    }

    fn sync_failed(&self, error: &io::Error, refused: u64, lost: u64) {
        log::error!(target: "belayd::buffer", error:% = error, errorType = "sync", refused = refused, lost = lost; "the disk did not take the journal; a new segment was begun");
        let text = format!(
            "the disk did not take a write of the journal ({error}): {refused} readings were refused and their senders told, {lost} that \
             had been acknowledged at level memory are lost; look at the disk"
        );
        let mut troubles = self.troubles();
        troubles.sync_failed = Some(Quiet { since_us: self.clock.now_us(), syncs: troubles.syncs });
        drop(troubles);
        self.transition("journal-sync-failed", Level::Critical, true, text);
    }

    fn damaged(&self, damage: &[Damage]) {
        for damage in damage {
            log::error!(
                target: "belayd::buffer",
                segment = damage.segment, offset = damage.offset, bytes = damage.bytes,
                quarantine = damage.quarantine_file.as_deref().unwrap_or("-"), errorType = "damage";
                "journal damaged: {}", damage.what
            );
        }
        let bytes: u64 = damage.iter().map(|damage| damage.bytes).sum();
        let text = format!(
            "{} damaged places in the journal, {bytes} bytes: what could not be read is set aside in journal/quarantine, the rest goes on; \
             look at the disk and at `belayd journal verify`{}",
            damage.len(),
            self.lost_ends.get().map_or("", String::as_str)
        );
        let mut troubles = self.troubles();
        troubles.damaged = Some(Quiet { since_us: self.clock.now_us(), syncs: troubles.syncs });
        drop(troubles);
        self.transition("journal-damaged", Level::Critical, true, text);
    }
}

/// Behind which number an unknown count of readings is gone.
fn in_words(lost: &Forked) -> String {
    let most = if lost.cut_bytes > 0 { format!(", in at most {} bytes", lost.cut_bytes) } else { String::new() };
    format!(
        "; acknowledged readings may be gone behind number {} of stream {}: how many is not known{most}, and no other count has them",
        lost.last_seq, lost.stream
    )
}

/// The folder of the journal.
fn folder(settings: &Config) -> std::path::PathBuf {
    settings.server.data_dir.join(FOLDER)
}

/// The medium of tier memory.
pub(super) fn open_memory(settings: &Config) -> Arc<dyn Buffer> {
    let (dir, buffer) = (folder(settings), &settings.buffer);
    if dir.is_dir() {
        log::warn!(target: "belayd::buffer", "{} is from tier journal and is not read by tier memory: where the database was away when belayd stopped, start it once with buffer.tier = \"journal\" until nothing waits", dir.display());
    }
    Arc::new(MemoryBuffer::new(buffer.memory_rows, buffer.memory_bytes))
}

/// Opens the journal. `is_missed`: something may have waited in it, so that it is told where it is gone.
///
/// # Errors
/// Its directory cannot be used, with what to do.
pub(super) fn open_journal(settings: &Config, is_missed: bool, observer: Observer) -> Result<Arc<JournalBuffer<RealDisk>>, String> {
    let (dir, buffer) = (folder(settings), &settings.buffer);
    let fault =
        |error: io::Error| format!("journal: {}: {error}; it must be writable and have room for one segment", dir.display());
    if is_missed {
        left_behind::note(&settings.server.data_dir, &dir).map_err(fault)?;
    }
    let disk = RealDisk::create(&dir).map_err(fault)?;
    let observer = Arc::new(observer);
    observer.begun();
    // The opening removes it.
    let alone = fs::read_to_string(dir.join(RESTORED)).is_ok_and(|mark| mark.lines().next() == Some(DIRECTORY_ONLY));
    let journal =
        JournalSettings { journal_bytes: buffer.journal_bytes, queue_bytes: buffer.memory_bytes, streams: buffer.streams };
    let (journal, recovered) = JournalBuffer::open(disk, journal, observer.clone()).map_err(fault)?;
    observer.recovered(&recovered);
    if alone && recovered.restored {
        observer.put_back_alone();
    }
    Ok(Arc::new(journal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, supervise::ActorRegistry};

    type Seen = Arc<Mutex<Vec<(String, bool)>>>;

    fn scene() -> (Observer, Arc<ManualClock>, Seen) {
        let (clock, seen) = (ManualClock::at(0), Seen::default());
        let mine = seen.clone();
        let raise = move |transitions: Vec<Transition>| {
            let told = transitions.into_iter().map(|one| (one.name.to_string(), one.firing));
            mine.lock().expect("no panic here").extend(told);
        };
        let stamp = ActorRegistry::new().register_loop("journal", std::time::Duration::from_secs(1));
        (Observer::raising(Box::new(raise), clock.clone(), stamp), clock, seen)
    }

    fn told(seen: &Seen) -> Vec<(String, bool)> {
        std::mem::take(&mut *seen.lock().expect("no panic here"))
    }

    #[test]
    fn a_failed_sync_is_over_once_the_disk_has_worked_for_ten_minutes() {
        let (observer, clock, seen) = scene();
        observer.alive(3);
        observer.sync_failed(&io::Error::other("the disk"), 5, 0);
        assert_eq!(told(&seen), [("journal-sync-failed".into(), true)]);
        clock.advance_us(SYNC_QUIET_US);
        observer.alive(3);
        assert_eq!(told(&seen), [], "nothing was written since: nobody knows");
        observer.sync_failed(&io::Error::other("again"), 5, 0);
        clock.advance_us(SYNC_QUIET_US - 1);
        observer.alive(9);
        assert_eq!(told(&seen), [("journal-sync-failed".into(), true)], "not for long enough");
        clock.advance_us(1);
        observer.alive(9);
        observer.alive(9);
        assert_eq!(told(&seen), [("journal-sync-failed".into(), false)], "once");
    }

    #[test]
    fn where_no_segment_can_be_made_an_alert_says_so_until_one_can() {
        let (observer, _, seen) = scene();
        observer.begun();
        let over = [("journal-failed".to_owned(), false), ("journal-disk-full".to_owned(), false)];
        assert_eq!(told(&seen), over, "what an earlier run left open");
        observer.failing(&io::Error::other("read-only"));
        assert_eq!(told(&seen)[0], ("journal-failed".into(), true));
        observer.room(Room::Free);
        assert!(told(&seen).contains(&over[0]));
    }

    #[test]
    fn damage_is_over_after_a_day_without_more_also_where_an_earlier_run_told_of_it() {
        let (observer, clock, seen) = scene();
        clock.advance_us(DAMAGE_QUIET_US - 1);
        observer.alive(1);
        told(&seen);
        clock.advance_us(1);
        observer.alive(1);
        assert_eq!(told(&seen), [("journal-damaged".into(), false)]);
        observer.damaged(&[]);
        clock.advance_us(DAMAGE_QUIET_US - 1);
        observer.alive(1);
        assert_eq!(told(&seen), [("journal-damaged".into(), true)]);
        clock.advance_us(1);
        observer.alive(1);
        assert_eq!(told(&seen), [("journal-damaged".into(), false)]);
    }
}
