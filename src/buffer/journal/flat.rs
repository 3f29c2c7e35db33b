//! A disk in memory that is put back in no time: every change to it is undone, so that one journal can be damaged millions of times.
//!
//! In: files. Out: what the log does to them. It models no power cut; the tests' own model does. Files are as long as they say, and hold memory
//! only up to the last byte that was written. Test builds only; a crash loses it.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::disk::{Disk, DiskFile, Entry, QUARANTINE};

#[derive(Debug, Default)]
struct Flat {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    /// What [`FlatDisk::put_back`] goes back to: how many files, and their names.
    kept: usize,
    kept_names: BTreeMap<String, usize>,
    renamed: bool,
    /// Bytes of kept files that were overwritten: file, offset, what stood there.
    undo: Vec<(usize, usize, Vec<u8>)>,
    /// Lengths of kept files that were changed.
    lengths: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    len: usize,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct FlatDisk(Arc<Mutex<Flat>>);

/// A file on it.
#[derive(Debug)]
pub struct FlatFile {
    disk: FlatDisk,
    file: usize,
}

impl FlatDisk {
    /// A disk with these files, to which it is put back.
    pub fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::default();
        {
            let mut flat = disk.flat();
            for (name, bytes) in files {
                let file = flat.files.len();
                flat.names.insert(name.clone(), file);
                flat.files.push(File { bytes: bytes.clone(), len: bytes.len() });
            }
            flat.kept = flat.files.len();
            flat.kept_names = flat.names.clone();
        }
        disk
    }

    fn flat(&self) -> MutexGuard<'_, Flat> {
        self.0.lock().expect("no panic below the lock")
    }

    /// Everything that was changed since is undone.
    pub fn put_back(&self) {
        let mut flat = self.flat();
        let flat = &mut *flat;
        flat.files.truncate(flat.kept);
        while let Some((file, at, bytes)) = flat.undo.pop() {
            flat.files[file].bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        while let Some((file, len)) = flat.lengths.pop() {
            flat.files[file].len = len;
        }
        if std::mem::take(&mut flat.renamed) {
            flat.names.clone_from(&flat.kept_names);
        }
    }

    /// Damages one byte of a kept file.
    pub fn flip(&self, file: usize, at: usize, mask: u8) {
        let mut flat = self.flat();
        let byte = flat.files[file].bytes[at];
        flat.undo.push((file, at, vec![byte]));
        flat.files[file].bytes[at] = byte ^ mask;
    }

    /// Cuts a kept file.
    pub fn cut(&self, file: usize, len: usize) {
        self.flat().resize(file, len);
    }

    /// Everything that is on it now.
    pub fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let flat = self.flat();
        let whole = |file: &File| {
            let mut bytes = file.bytes.clone();
            bytes.resize(file.len, 0);
            bytes
        };
        flat.names.iter().map(|(name, file)| (name.clone(), whole(&flat.files[*file]))).collect()
    }
}

impl Flat {
    fn resize(&mut self, file: usize, len: usize) {
        let old = self.files[file].len;
        if file < self.kept {
            self.lengths.push((file, old));
        }
        // What lies behind a cut must read as zeros if the file grows again; kept files are only ever cut.
        assert!(file >= self.kept || len <= old, "a kept file grows");
        if file >= self.kept {
            self.files[file].bytes.truncate(len);
        }
        self.files[file].len = len;
    }
}

impl Disk for FlatDisk {
    type File = FlatFile;

    fn create_new(&self, name: &str) -> io::Result<FlatFile> {
        let mut flat = self.flat();
        if flat.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        flat.files.push(File::default());
        let file = flat.files.len() - 1;
        flat.names.insert(name.to_owned(), file);
        flat.renamed = true;
        Ok(FlatFile { disk: self.clone(), file })
    }

    fn open(&self, name: &str) -> io::Result<FlatFile> {
        let file = *self.flat().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FlatFile { disk: self.clone(), file })
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let entry = |name: &String| Entry { name: name.clone(), plain: true };
        Ok(self.flat().names.keys().filter(|name| !name.starts_with(QUARANTINE)).map(entry).collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut flat = self.flat();
        flat.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        flat.renamed = true;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut flat = self.flat();
        let file = flat.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        flat.names.insert(to.to_owned(), file);
        flat.renamed = true;
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for FlatFile {
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.flat().resize(self.file, len as usize);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut flat = self.disk.flat();
        let flat = &mut *flat;
        let kept = self.file < flat.kept;
        let file = &mut flat.files[self.file];
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        if kept {
            assert!(to <= file.len, "a kept file grows");
            if file.bytes[from..to] == *bytes {
                return Ok(());
            }
            flat.undo.push((self.file, from, file.bytes[from..to].to_vec()));
        } else if file.bytes.len() < to {
            file.bytes.resize(to, 0);
            file.len = file.len.max(to);
        }
        file.bytes[from..to].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let flat = self.disk.flat();
        let file = &flat.files[self.file];
        let from = (offset as usize).min(file.len);
        let len = bytes.len().min(file.len - from);
        let held = file.bytes.len().saturating_sub(from).min(len);
        if held > 0 {
            bytes[..held].copy_from_slice(&file.bytes[from..from + held]);
        }
        bytes[held..len].fill(0);
        Ok(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.flat().files[self.file].len as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.flat().resize(self.file, len as usize);
        Ok(())
    }
}
