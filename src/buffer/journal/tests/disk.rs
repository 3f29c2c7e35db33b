//! A disk in memory that separates what was written from what is durable.
//!
//! A power cut keeps any subset of the 512-byte sectors that no sync covered, each old or new, and loses or keeps every directory entry
//! (creation, removal, rename) that no directory sync covered. Reading, writing and syncing can be made to fail; room can run out.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::{Duration, Instant},
};

pub(super) use super::random::Random;
use crate::buffer::journal::disk::{Disk, DiskFile, Entry, QUARANTINE};

const SECTOR: usize = 512;

/// A file's content.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    durable: Vec<u8>,
    /// Ranges of sectors that were written since the last sync.
    dirty: Vec<(usize, usize)>,
    /// Bytes whose blocks were given back.
    given_back: u64,
    /// Pages whose write-back failed: the kernel believes that they are clean.
    unreadable: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Change {
    Put(String, u64),
    Gone(String),
    /// Both names change, or none: so does every file system with a journal.
    Moved(String, String, u64),
}

/// What is wrong with it now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// The next so many syncs of files fail.
    pub(super) sync: u32,
    /// The next so many writes fail.
    pub(super) write: u32,
    /// The next so many directory syncs fail.
    pub(super) sync_dir: u32,
    /// After so many changes the process is dead: nothing that it does has an effect any more.
    pub(super) dies_after: Option<u32>,
    /// How long it takes to refuse a read.
    pub(super) refusal_takes: Duration,
    /// Syncs of files do nothing and say that all is well (a mutant).
    pub(super) sync_is_a_lie: bool,
    /// Syncs of the directory do nothing and say that all is well (a mutant).
    pub(super) sync_dir_is_a_lie: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) files: BTreeMap<u64, Content>,
    pub(super) names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    changes: Vec<Change>,
    next_file: u64,
    pub(super) faults: Faults,
    /// Most bytes in all files.
    pub(super) room: u64,
    /// Counts up at a power cut: what was open before is dead.
    life: u64,
    /// Names that cannot be opened, and how many times more.
    pub(super) shut: BTreeMap<String, u32>,
    /// Reads of this name fail so many times more.
    pub(super) silent: BTreeMap<String, u32>,
    /// Syncs of files do not come back while this is set.
    pub(super) hangs: bool,
    /// Files cannot be created: what a read-only file system says.
    pub(super) read_only: bool,
    /// How far its clock has been moved by those who waited.
    pub(super) waited: Duration,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct ModelDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(super) struct ModelFile {
    disk: ModelDisk,
    file: u64,
    life: u64,
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl Inner {
    pub(super) fn used(&self) -> u64 {
        let named = |file: &u64| self.names.values().any(|named| named == file);
        let held = self.files.iter().filter(|(file, _)| named(file));
        held.map(|(_, content)| (content.now.len() as u64).saturating_sub(content.given_back)).sum()
    }

    /// Before each change: whether the process still lives.
    fn alive(&mut self) -> io::Result<()> {
        match &mut self.faults.dies_after {
            Some(0) => Err(eio()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl ModelDisk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner { room: u64::MAX, ..Inner::default() })))
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic below the lock")
    }

    /// The process dies; the kernel lives.
    pub(super) fn kill(&self) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.faults.dies_after = None;
    }

    /// The power is cut.
    pub(super) fn power_cut(&self, random: &mut Random) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.faults.dies_after = None;
        // Every change of a name that was not synced is there or not, each on its own.
        let changes = std::mem::take(&mut inner.changes);
        let mut names = std::mem::take(&mut inner.durable_names);
        for change in changes {
            if random.one_in(2) {
                match change {
                    Change::Put(name, file) => drop(names.insert(name, file)),
                    Change::Gone(name) => drop(names.remove(&name)),
                    Change::Moved(from, to, file) => {
                        names.remove(&from);
                        names.insert(to, file);
                    }
                }
            }
        }
        let keep_all = random.below(4);
        for content in inner.files.values_mut() {
            content.cut(random, keep_all);
        }
        inner.files.retain(|file, _| names.values().any(|named| named == file));
        inner.durable_names.clone_from(&names);
        inner.names = names;
    }

    /// Flips one bit of a file that is there.
    pub(super) fn flip(&self, name: &str, at: usize, bit: u8) {
        let mut inner = self.inner();
        let Some(file) = inner.names.get(name).copied() else { return };
        let Some(content) = inner.files.get_mut(&file) else { return };
        for bytes in [&mut content.now, &mut content.durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
    }

    /// Reads of this block fail from now on.
    pub(super) fn spoil(&self, name: &str, block: u64) {
        let mut inner = self.inner();
        let Some(file) = inner.names.get(name).copied() else { return };
        if let Some(content) = inner.files.get_mut(&file) {
            content.unreadable.push(block);
        }
    }

    /// Cuts a file.
    pub(super) fn truncate(&self, name: &str, len: usize) {
        let mut inner = self.inner();
        let Some(file) = inner.names.get(name).copied() else { return };
        if let Some(content) = inner.files.get_mut(&file) {
            content.now.truncate(len);
            content.durable.truncate(len);
            content.dirty.retain(|(_, end)| end * SECTOR <= len);
        }
    }

    /// Names of the segments' files.
    pub(super) fn segments(&self) -> Vec<String> {
        self.inner().names.keys().filter(|name| name.ends_with(".seg") && !name.contains('/')).cloned().collect()
    }

    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.names.get(name).and_then(|file| inner.files.get(file)).map(|content| content.now.clone()).unwrap_or_default()
    }

    /// Puts a file there, durable at once.
    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.inner();
        inner.next_file += 1;
        let file = inner.next_file;
        inner.files.insert(file, Content { now: bytes.clone(), durable: bytes, ..Content::default() });
        inner.names.insert(name.to_owned(), file);
        inner.durable_names.insert(name.to_owned(), file);
    }
}

impl Content {
    fn cut(&mut self, random: &mut Random, keep_all: u64) {
        let dirty = std::mem::take(&mut self.dirty);
        if keep_all == 0 {
            // All of it got through.
            self.durable.clone_from(&self.now);
            return;
        }
        if self.durable.len() < self.now.len() && !dirty.is_empty() && random.one_in(2) {
            self.durable.resize(self.now.len(), 0);
        }
        let most = random.below(8) + 1;
        for (from, to) in dirty {
            for sector in from..to {
                let (begin, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.now.len()).min(self.durable.len()));
                if begin < end && random.below(9) < most {
                    self.durable[begin..end].copy_from_slice(&self.now[begin..end]);
                }
            }
        }
        self.now.clone_from(&self.durable);
    }

    fn sync(&mut self) {
        if self.durable.len() != self.now.len() {
            self.durable.resize(self.now.len(), 0);
        }
        for (from, to) in std::mem::take(&mut self.dirty) {
            let (begin, end) = (from * SECTOR, (to * SECTOR).min(self.now.len()));
            if begin < end {
                self.durable[begin..end].copy_from_slice(&self.now[begin..end]);
            }
        }
    }
}

impl Disk for ModelDisk {
    type File = ModelFile;

    fn create_new(&self, name: &str) -> io::Result<ModelFile> {
        let mut inner = self.inner();
        inner.alive()?;
        if inner.read_only {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        if inner.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        inner.next_file += 1;
        let file = inner.next_file;
        inner.files.insert(file, Content::default());
        inner.names.insert(name.to_owned(), file);
        inner.changes.push(Change::Put(name.to_owned(), file));
        Ok(ModelFile { disk: self.clone(), file, life: inner.life })
    }

    fn open(&self, name: &str) -> io::Result<ModelFile> {
        let mut inner = self.inner();
        if let Some(left) = inner.shut.get_mut(name).filter(|left| **left > 0) {
            *left -= 1;
            return Err(eio());
        }
        let file = *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(ModelFile { disk: self.clone(), file, life: inner.life })
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let entry = |name: &String| Entry { name: name.clone(), plain: true };
        Ok(self.inner().names.keys().filter(|name| !name.starts_with(QUARANTINE)).map(entry).collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        inner.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.changes.push(Change::Gone(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        let file = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), file);
        inner.changes.push(Change::Moved(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.alive()?;
        if inner.faults.sync_dir > 0 {
            inner.faults.sync_dir -= 1;
            return Err(eio());
        }
        if !inner.faults.sync_dir_is_a_lie {
            inner.changes.clear();
            inner.durable_names = inner.names.clone();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.inner();
        Ok(inner.room.saturating_sub(inner.used()))
    }

    fn now(&self) -> Instant {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        *BEGAN.get_or_init(Instant::now) + self.inner().waited
    }

    fn wait(&self, pause: Duration) {
        self.inner().waited += pause;
    }
}

impl ModelFile {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner();
        assert_eq!(self.life, inner.life, "a file of a process that is dead");
        work(&mut inner)
    }

    fn content<T>(&self, work: impl FnOnce(&mut Content) -> io::Result<T>) -> io::Result<T> {
        self.with(|inner| work(inner.files.get_mut(&self.file).ok_or_else(eio)?))
    }
}

impl DiskFile for ModelFile {
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|inner| {
            inner.alive()?;
            let used = inner.used();
            let content = inner.files.get_mut(&self.file).ok_or_else(eio)?;
            if used + len - content.now.len() as u64 > inner.room {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            content.now.resize(len as usize, 0);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|inner| {
            inner.alive()?;
            let fails = inner.faults.write > 0;
            inner.faults.write = inner.faults.write.saturating_sub(1);
            // Of a write that fails, some part was written: whole pages.
            let half = (offset as usize + bytes.len() / 2) / SECTOR * SECTOR;
            let bytes = if fails { &bytes[..half.saturating_sub(offset as usize)] } else { bytes };
            let content = inner.files.get_mut(&self.file).ok_or_else(eio)?;
            let (from, to) = (offset as usize, offset as usize + bytes.len());
            if to > content.now.len() {
                content.now.resize(to, 0);
            }
            content.now[from..to].copy_from_slice(bytes);
            content.dirty.push((from / SECTOR, to.div_ceil(SECTOR)));
            if fails { Err(eio()) } else { Ok(()) }
        })
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|inner| {
            let name = inner.names.iter().find(|(_, file)| **file == self.file).map(|(name, _)| name.clone());
            match name.and_then(|name| inner.silent.get_mut(&name)) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    Err(eio())
                }
                _ => Ok(()),
            }
        })?;
        let given = self.content(|content| {
            let from = (offset as usize).min(content.now.len());
            let len = bytes.len().min(content.now.len() - from);
            let blocks = offset / 4096..(offset + len as u64).div_ceil(4096);
            // As the kernel: what lies before the first that it does not get, or an error where that is first.
            let bad = content.unreadable.iter().filter(|block| blocks.contains(block)).min();
            let before = |bad: &u64| (bad * 4096).checked_sub(offset).filter(|len| *len > 0).ok_or_else(eio);
            let len = bad.map_or(Ok(len as u64), before)? as usize;
            bytes[..len].copy_from_slice(&content.now[from..from + len]);
            Ok(len)
        });
        let takes = self.disk.inner().faults.refusal_takes;
        given.inspect_err(|_| self.disk.wait(takes))
    }

    fn sync_data(&self) -> io::Result<()> {
        while self.disk.inner().hangs {
            std::thread::yield_now();
        }
        self.with(|inner| {
            inner.alive()?;
            let faults = &mut inner.faults;
            let (fails, lie) = (faults.sync > 0, faults.sync_is_a_lie);
            faults.sync = faults.sync.saturating_sub(1);
            let content = inner.files.get_mut(&self.file).ok_or_else(eio)?;
            if fails {
                // The pages are clean now, and not on the disk: the next sync of the same bytes would succeed and do nothing.
                content.dirty.clear();
                return Err(eio());
            }
            if !lie {
                content.sync();
            }
            Ok(())
        })
    }

    fn give_back(&self, from: u64, to: u64) -> io::Result<()> {
        self.with(|inner| {
            inner.alive()?;
            let content = inner.files.get_mut(&self.file).ok_or_else(eio)?;
            content.now[from as usize..to as usize].fill(0);
            content.dirty.push((from as usize / SECTOR, (to as usize).div_ceil(SECTOR)));
            content.given_back += to - from;
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.content(|content| Ok(content.now.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|inner| {
            inner.alive()?;
            let content = inner.files.get_mut(&self.file).ok_or_else(eio)?;
            content.now.resize(len as usize, 0);
            content.given_back = 0;
            content.dirty.retain(|(_, end)| end * SECTOR <= len as usize);
            Ok(())
        })
    }
}
