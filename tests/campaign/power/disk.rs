//! The disk as a power cut leaves it, played from the log of the shim.
//!
//! In: the directory before the run, and every change in order. Out: one of the states that the disk may have after a cut. Contents count
//! as durable once a sync of the file has returned that was begun after the write; names once a sync of their directory has. Of the rest
//! chance decides: each 512-byte sector of each write is there or not, names of one directory are there up to some change of it.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::super::dice::Dice;

/// How a complaint about the layer itself begins: it is blind to something, and what it says of the daemon is worth nothing.
pub const BLIND: &str = "the shim misses changes of";

/// What disks write as one.
const SECTOR: usize = 512;

/// Bytes of a file; what lies between them and the length is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    length: usize,
}

impl Content {
    fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(data);
        self.length = self.length.max(end);
    }

    fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.length = length;
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write(at, data) => self.write(*at, data),
            Change::Truncate(length) => self.truncate(*length),
            Change::Allocate(end) => self.length = self.length.max(*end),
        }
    }

    /// Some of the change.
    fn apply_some(&mut self, change: &Change, dice: &mut Dice) {
        let Change::Write(at, data) = change else {
            if dice.one_in(2) {
                self.apply(change);
            }
            return;
        };
        // Whole, lost, cut off somewhere, or any of its sectors.
        let kind = dice.below(4);
        let kept = dice.below(data.len() as u64 / SECTOR as u64 + 2) as usize;
        let mut from = 0;
        let mut nth = 0;
        while from < data.len() {
            let to = ((at + from) / SECTOR * SECTOR + SECTOR - at).min(data.len());
            if kind == 0 || kind == 2 && nth < kept || kind == 3 && dice.one_in(2) {
                self.write(at + from, &data[from..to]);
            }
            (from, nth) = (to, nth + 1);
        }
    }

    fn equals(&self, bytes: &[u8]) -> bool {
        let common = self.bytes.len().min(bytes.len());
        self.length == bytes.len() && self.bytes[..common] == bytes[..common] && bytes[common..].iter().all(|byte| *byte == 0)
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
    Allocate(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Content,
    pending: Vec<(usize, Change)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File(usize),
}

#[derive(Clone, Debug)]
enum Naming {
    Make(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    numbers: HashMap<u64, usize>,
    directories: HashMap<u64, PathBuf>,
    /// Names as the process sees them, and as the disk has them.
    now: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Changes of names in order: when, in which directory, what.
    pending: Vec<(usize, PathBuf, Naming)>,
    begun: HashMap<u64, usize>,
    step: usize,
}

/// One record of the shim.
struct Record<'r> {
    kind: u32,
    flags: u32,
    inode: u64,
    a: u64,
    b: u64,
    first: &'r [u8],
    second: &'r [u8],
}

const HEAD: usize = 40;

fn record(log: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let head = log.get(..HEAD)?;
    let small = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).unwrap_or(0);
    let large = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).unwrap_or(0);
    let (first, second) = (small(32) as usize, small(36) as usize);
    let rest = log.get(HEAD..)?;
    let record = Record {
        kind: small(0),
        flags: small(4),
        inode: large(8),
        a: large(16),
        b: large(24),
        first: rest.get(..first)?,
        second: rest.get(first..first + second)?,
    };
    Some((record, &rest[first + second..]))
}

impl Disk {
    /// The directory as it is, all of it durable.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut disk = Self {
            root: root.canonicalize()?,
            inodes: Vec::new(),
            numbers: HashMap::new(),
            directories: HashMap::new(),
            now: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            begun: HashMap::new(),
            step: 0,
        };
        let mut open = vec![disk.root.clone()];
        while let Some(path) = open.pop() {
            for entry in fs::read_dir(&path)? {
                let path = entry?.path();
                let meta = fs::symlink_metadata(&path)?;
                if meta.is_dir() {
                    disk.now.insert(path.clone(), Entry::Directory);
                    open.push(path);
                } else if meta.is_file() {
                    let bytes = fs::read(&path)?;
                    let length = bytes.len();
                    let id = disk.add(meta.ino(), Content { bytes, length });
                    disk.now.insert(path, Entry::File(id));
                }
            }
        }
        disk.durable = disk.now.clone();
        Ok(disk)
    }

    fn add(&mut self, number: u64, durable: Content) -> usize {
        self.inodes.push(Inode { durable, pending: Vec::new() });
        self.numbers.insert(number, self.inodes.len() - 1);
        self.inodes.len() - 1
    }

    /// Plays a log. Returns how many records it has.
    ///
    /// # Errors
    /// It speaks of a file that it never made.
    pub fn play(&mut self, mut log: &[u8]) -> Result<usize, String> {
        // A record that was cut off belongs to a change that was never made.
        while let Some((record, rest)) = record(log) {
            log = rest;
            self.step += 1;
            self.take(&record)?;
        }
        Ok(self.step)
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), String> {
        let path = |bytes: &[u8]| PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
        let (step, a, b) = (self.step, record.a as usize, record.b as usize);
        match record.kind {
            1 => {
                let id = self.add(record.inode, Content::default());
                self.name(Naming::Make(path(record.first), Entry::File(id)));
            }
            2 => {
                self.change(record.inode, Change::Write(a, record.first.to_vec()))?;
                // Written through: durable at once.
                if record.flags != 0 {
                    self.settle(record.inode, step)?;
                }
            }
            3 => self.change(record.inode, Change::Truncate(a))?,
            // KEEP_SIZE changes nothing that can be seen; other modes are not in use.
            4 if record.flags == 0 => self.change(record.inode, Change::Allocate(a + b))?,
            4 if record.flags == 1 => {}
            5 => {
                self.begun.insert(record.a, step);
            }
            6 => {
                let begun = self.begun.remove(&record.a).ok_or("a sync ends that was never begun")?;
                if record.flags == 0 {
                    self.settle(record.inode, begun)?;
                } else if let Some(directory) = self.directories.get(&record.inode).cloned() {
                    let (synced, rest) =
                        std::mem::take(&mut self.pending).into_iter().partition(|(when, at, _)| *when < begun && *at == directory);
                    self.pending = rest;
                    let synced: Vec<_> = synced;
                    synced.iter().for_each(|(_, _, naming)| rename(&mut self.durable, naming));
                }
            }
            7 | 11 => self.name(Naming::Remove(path(record.first))),
            8 => self.name(Naming::Rename(path(record.first), path(record.second))),
            10 => self.name(Naming::Make(path(record.first), Entry::Directory)),
            12 if record.flags != 0 => {
                self.directories.insert(record.inode, path(record.first));
            }
            12 => {}
            kind => return Err(format!("a record of kind {kind} (flags {}), which cannot be played", record.flags)),
        }
        Ok(())
    }

    fn inode(&mut self, number: u64) -> Result<&mut Inode, String> {
        let id = self.numbers.get(&number).ok_or_else(|| format!("inode {number} was never made"))?;
        Ok(&mut self.inodes[*id])
    }

    fn change(&mut self, number: u64, change: Change) -> Result<(), String> {
        let step = self.step;
        self.inode(number)?.pending.push((step, change));
        Ok(())
    }

    /// Everything before `begun` is durable.
    fn settle(&mut self, number: u64, begun: usize) -> Result<(), String> {
        let inode = self.inode(number)?;
        let count = inode.pending.partition_point(|(when, _)| *when <= begun);
        for (_, change) in inode.pending.drain(..count) {
            inode.durable.apply(&change);
        }
        Ok(())
    }

    fn name(&mut self, naming: Naming) {
        rename(&mut self.now, &naming);
        let (Naming::Make(path, _) | Naming::Remove(path) | Naming::Rename(_, path)) = &naming;
        let directory = path.parent().unwrap_or(path).to_owned();
        self.pending.push((self.step, directory, naming));
    }

    /// Whether the directory holds what the log says. Only true of a process that ended between two changes.
    ///
    /// # Errors
    /// What differs: the shim has missed something.
    pub fn check(&self) -> Result<(), String> {
        let differs = self.differs().map_err(|error| error.to_string())?;
        let names: Vec<_> = differs.iter().map(|path| path.display().to_string()).collect();
        if names.is_empty() { Ok(()) } else { Err(format!("{BLIND} {}", names.join(", "))) }
    }

    /// A process was killed and another goes on: the one change that it had made and not yet written down is added.
    ///
    /// # Errors
    /// The directory cannot be read, or more than one change is missing (a rename concerns two names).
    pub fn catch_up(&mut self) -> Result<(), String> {
        let differs = self.differs().map_err(|error| error.to_string())?;
        if differs.len() > 2 {
            return Err(format!("{BLIND} {differs:?}"));
        }
        self.step += 1;
        self.begun.clear();
        for path in differs {
            let Ok(meta) = fs::metadata(&path) else {
                self.name(Naming::Remove(path));
                continue;
            };
            if meta.is_dir() {
                self.name(Naming::Make(path, Entry::Directory));
                continue;
            }
            if !self.now.contains_key(&path) {
                let id = self.add(meta.ino(), Content::default());
                self.name(Naming::Make(path.clone(), Entry::File(id)));
            }
            let bytes = fs::read(&path).map_err(|error| error.to_string())?;
            self.change(meta.ino(), Change::Truncate(bytes.len()))?;
            self.change(meta.ino(), Change::Write(0, bytes))?;
        }
        Ok(())
    }

    /// Where the directory is not what the log says. SQLite's -shm files are written through memory and need not last.
    fn differs(&self) -> io::Result<Vec<PathBuf>> {
        let there = Self::read(&self.root)?;
        let content = |disk: &Self, entry: Option<&Entry>| match entry {
            Some(Entry::File(id)) => {
                let mut content = disk.inodes[*id].durable.clone();
                disk.inodes[*id].pending.iter().for_each(|(_, change)| content.apply(change));
                Some(content)
            }
            _ => None,
        };
        let mut paths: Vec<&PathBuf> = self.now.keys().chain(there.now.keys()).collect();
        paths.sort();
        paths.dedup();
        paths.retain(|path| !path.to_string_lossy().ends_with("-shm"));
        let same = |path: &PathBuf| match (self.now.get(path), there.now.get(path)) {
            (Some(Entry::Directory), Some(Entry::Directory)) => true,
            (mine @ Some(Entry::File(_)), theirs @ Some(Entry::File(_))) => {
                content(self, mine).zip(content(&there, theirs)).is_some_and(|(mine, theirs)| mine.equals(&theirs.bytes))
            }
            _ => false,
        };
        Ok(paths.into_iter().filter(|path| !same(path)).cloned().collect())
    }

    /// The power is cut: the directory becomes what the disk may have. Returns how many changes of contents and names were not yet
    /// durable.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn cut(mut self, dice: &mut Dice) -> io::Result<(usize, usize)> {
        let unsynced = self.inodes.iter().map(|inode| inode.pending.len()).sum();
        let unnamed = self.pending.len();
        // Names: those of one directory come in order, up to some change.
        let mut until: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (when, directory, naming) in &self.pending {
            let last = *until.entry(directory.clone()).or_insert_with(|| match dice.below(4) {
                0 => usize::MAX,
                1 => dice.below(self.step as u64 + 1) as usize,
                _ => 0,
            });
            if *when <= last {
                rename(&mut self.durable, naming);
            }
        }
        for inode in &mut self.inodes {
            let (kind, mut content) = (dice.below(4), std::mem::take(&mut inode.durable));
            for (_, change) in inode.pending.drain(..) {
                match kind {
                    0 => {}
                    1 => content.apply(&change),
                    _ => content.apply_some(&change, dice),
                }
            }
            inode.durable = content;
        }
        self.write()?;
        Ok((unsynced, unnamed))
    }

    fn write(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        // In order, so that a directory comes before what lies in it; what lies in a lost directory is lost with it.
        for (path, entry) in &self.durable {
            if !path.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match entry {
                Entry::Directory => fs::DirBuilder::new().mode(0o700).create(path)?,
                Entry::File(id) => {
                    let content = &self.inodes[*id].durable;
                    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                    io::Write::write_all(&mut file, &content.bytes)?;
                    file.set_len(content.length as u64)?;
                }
            }
        }
        Ok(())
    }
}

fn rename(names: &mut BTreeMap<PathBuf, Entry>, naming: &Naming) {
    match naming {
        Naming::Make(path, entry) => {
            names.insert(path.clone(), *entry);
        }
        Naming::Remove(path) => {
            names.remove(path);
        }
        Naming::Rename(from, to) => {
            if let Some(entry) = names.remove(from) {
                names.insert(to.clone(), entry);
            }
        }
    }
}
