//! What the journal sees, told to the rest of the daemon: log lines, alerts, a stamp for the overseer.

use std::{io, sync::Arc};

use crate::{
    buffer::{
        Buffer,
        journal::{
            Damage, Recovered,
            disk::RealDisk,
            tier::{JournalBuffer, JournalObserver, JournalSettings, Room},
        },
        memory::MemoryBuffer,
    },
    clock::SharedClock,
    config::{Config, Tier},
    domain::alert::{AlertKind, Level, Transition},
    ingest::raiser::Raiser,
    supervise::LoopStamp,
};

/// The folder in the data directory.
const FOLDER: &str = "journal";

/// Turns what the journal sees into facts.
pub(super) struct Observer {
    pub(super) raiser: Raiser,
    pub(super) clock: SharedClock,
    pub(super) stamp: LoopStamp,
}

impl Observer {
    fn transition(&self, name: &str, level: Level, firing: bool, text: String) {
        let now_us = self.clock.now_us();
        // Nobody waits for this commit; the raiser repeats it until it is done.
        drop(self.raiser.raise(vec![Transition {
            kind: AlertKind::System,
            name: name.into(),
            subject: "journal".into(),
            level,
            firing,
            observed_at_us: now_us,
            arrived_at_us: now_us,
            value: None,
            threshold: None,
            text,
        }]));
    }

    fn recovered(&self, recovered: &Recovered) {
        log::info!(
            target: "belayd::buffer",
            segments = recovered.segments as u64, bytes = recovered.bytes, tornBytes = recovered.torn_bytes,
            durationMs = recovered.took.as_millis() as u64;
            "journal opened"
        );
        if !recovered.damage.is_empty() {
            self.damaged(&recovered.damage);
        }
        for (lane, before) in &recovered.forked {
            log::warn!(target: "belayd::buffer", lane = *lane as u64, stream:% = before; "the journal's end is damaged: what it holds goes on under a new stream");
        }
    }
}

impl JournalObserver for Observer {
    fn alive(&self) {
        self.stamp.beat();
    }

    fn room(&self, room: Room) {
        match room {
            Room::DiskFull => {
                log::error!(target: "belayd::buffer", errorType = "disk_full"; "the journal's file system is full; readings are refused with 507");
                let text =
                    "the file system of the journal is full and readings are refused (507): make room; belayd goes on by itself";
                self.transition("journal-disk-full", Level::Critical, true, text.into());
            }
            Room::Full => {
                log::warn!(target: "belayd::buffer", "buffer.journal_bytes is reached; readings are refused with 503 until the database has caught up")
            }
            Room::Free => {
                log::info!(target: "belayd::buffer", "the journal has room again");
                self.transition(
                    "journal-disk-full",
                    Level::Critical,
                    false,
                    "the file system of the journal has room again".into(),
                );
            }
        }
    }

    fn sync_failed(&self, error: &io::Error, refused: u64, lost: u64) {
        log::error!(target: "belayd::buffer", error:% = error, errorType = "sync", refused = refused, lost = lost; "the disk did not take the journal; a new segment was begun");
        let text = format!(
            "the disk did not take a write of the journal ({error}): {refused} readings were refused and their senders told, {lost} that \
             had been acknowledged at level memory are lost; look at the disk"
        );
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
             look at the disk and at `belayd journal verify`",
            damage.len()
        );
        self.transition("journal-damaged", Level::Critical, true, text);
    }
}

/// Opens the medium that the configuration asks for.
///
/// # Errors
/// The journal's directory cannot be used, with what to do.
pub(super) fn open_buffer(settings: &Config, observer: Observer) -> Result<Arc<dyn Buffer>, String> {
    let buffer = &settings.buffer;
    let dir = settings.server.data_dir.join(FOLDER);
    if buffer.tier == Tier::Memory {
        if dir.is_dir() {
            log::warn!(target: "belayd::buffer", "{} is from tier journal and is not read by tier memory: where the database was away when belayd stopped, start it once with buffer.tier = \"journal\" until nothing waits", dir.display());
        }
        return Ok(Arc::new(MemoryBuffer::new(buffer.memory_rows, buffer.memory_bytes)));
    }
    let fault = |error: io::Error| format!("{}: {error}; it must be writable and have room for one segment", dir.display());
    let disk = RealDisk::create(&dir).map_err(fault)?;
    let observer = Arc::new(observer);
    let journal =
        JournalSettings { journal_bytes: buffer.journal_bytes, queue_bytes: buffer.memory_bytes, streams: buffer.streams };
    let (journal, recovered) = JournalBuffer::open(disk, journal, observer.clone()).map_err(fault)?;
    observer.recovered(&recovered);
    Ok(Arc::new(journal))
}
