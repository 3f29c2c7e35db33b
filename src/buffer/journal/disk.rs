//! The file system below the journal, as little of it as the journal needs, so that a test can model what a power cut leaves.
//!
//! In: names below the journal directory and bytes at offsets. Out: what the kernel answers. A crash loses nothing of its own here:
//! [`RealDisk`] keeps no state but the path; what was not synced is lost by a power cut, which is why every duty to sync is the
//! caller's and visible in [`Disk`].

use std::{
    ffi::CString,
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, FileExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The folder for what was damaged, below the journal directory.
pub const QUARANTINE: &str = "quarantine";
/// Zeros are written in pieces of this size where a file system cannot preallocate.
const ZEROS: usize = 256 * 1024;

/// What stands in the journal directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without the directory. Names that are not UTF-8 are left out: no file of ours has one.
    pub name: String,
    /// Whether it is a plain file.
    pub plain: bool,
}

/// The journal directory. Names are plain, or begin with `quarantine/`. All methods take `&self`; readers use them from other threads.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// An open file.
    type File: DiskFile;

    /// Creates a file that must not exist, mode 0600, open for reading and writing.
    ///
    /// # Errors
    /// What the kernel says; `AlreadyExists` where there is one.
    fn create_new(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// What the kernel says.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file for reading only.
    ///
    /// # Errors
    /// What the kernel says.
    fn open_read(&self, name: &str) -> io::Result<Self::File> {
        self.open(name)
    }
    /// What stands in the directory, in no order; the quarantine's content is not part of it.
    ///
    /// # Errors
    /// What the kernel says.
    fn list(&self) -> io::Result<Vec<Entry>>;
    /// Removes a file. Durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the kernel says.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file, or a directory. Durable only after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// What the kernel says; an existing target is replaced where it is a file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// As [`Disk::rename`], where nothing has the new name.
    ///
    /// # Errors
    /// `AlreadyExists` where something has it; else what the kernel says.
    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match self.open_read(to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.rename(from, to),
            _ => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        }
    }
    /// Makes creations, removals and renames durable, in the directory and its quarantine.
    ///
    /// # Errors
    /// What the kernel says.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that may still be written to the file system.
    ///
    /// # Errors
    /// What the kernel says.
    fn free_bytes(&self) -> io::Result<u64>;
    /// How many files the quarantine holds, and their bytes.
    ///
    /// # Errors
    /// What the kernel says.
    fn quarantined(&self) -> io::Result<(u64, u64)> {
        Ok((0, 0))
    }
    /// The clock by which errors are tried again before they count as damage.
    fn now(&self) -> Instant {
        Instant::now()
    }
    /// Waits before something is tried again.
    fn wait(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// An open file. Reading and writing never move a common position.
#[allow(clippy::len_without_is_empty)] // nobody asks a file whether it is empty
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Makes the file `len` bytes long, with room on the disk for all of them; what was not written reads as zeros.
    ///
    /// # Errors
    /// `StorageFull` where there is no room; the file may be longer than before then.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the kernel says; any part may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads up to `bytes.len()` bytes; 0 only at the end of the file.
    ///
    /// # Errors
    /// What the kernel says.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written, and the length, durable.
    ///
    /// # Errors
    /// What the kernel says. After an error it is unknown what is durable and the file must not be synced again: the kernel may have
    /// dropped the pages and answers the next call with success.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or lengthens the file.
    ///
    /// # Errors
    /// What the kernel says.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Gives the blocks from `from` to `to` back to the file system; the length stays, and zeros are read there.
    ///
    /// # Errors
    /// What the kernel says; a file system that cannot do it says so, and nothing has changed.
    fn give_back(&self, _from: u64, _to: u64) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
    /// The first offset from `offset` on that may hold anything but zeros; the file's length where there is none. A hint that saves
    /// reading what was never written.
    fn next_data(&self, offset: u64) -> u64 {
        offset
    }
}

impl<F: DiskFile> DiskFile for &F {
    fn allocate(&self, len: u64) -> io::Result<()> {
        (**self).allocate(len)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        (**self).sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        (**self).set_len(len)
    }
    fn give_back(&self, from: u64, to: u64) -> io::Result<()> {
        (**self).give_back(from, to)
    }
    fn next_data(&self, offset: u64) -> u64 {
        (**self).next_data(offset)
    }
}

/// A directory of the real file system.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
}

impl RealDisk {
    /// The journal in `dir`; it is created (mode 0700), with its quarantine, where it is missing, and its parent is synced.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create(dir: &Path) -> io::Result<Self> {
        for path in [dir.to_path_buf(), dir.join(QUARANTINE)] {
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    if let Some(parent) = path.parent() {
                        sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
                    }
                }
                // Something else of that name makes quarantine fail later, which is told there and loses nothing.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// The journal in `dir`, to be looked at only: nothing is created.
    pub fn existing(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create_new(&self, name: &str) -> io::Result<RealFile> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.dir.join(name))?;
        Ok(RealFile(file))
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        OpenOptions::new().read(true).write(true).open(self.dir.join(name)).map(RealFile)
    }

    fn open_read(&self, name: &str) -> io::Result<RealFile> {
        File::open(self.dir.join(name)).map(RealFile)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            entries.push(Entry { name, plain: entry.file_type()?.is_file() });
        }
        Ok(entries)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
        let (old, new) = (name(&from)?, name(&to)?);
        // SAFETY: both names end with a zero and live for the whole call.
        let done = unsafe { libc::renameat2(libc::AT_FDCWD, old.as_ptr(), libc::AT_FDCWD, new.as_ptr(), libc::RENAME_NOREPLACE) };
        if done == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
            return Err(error);
        }
        // A file system that cannot say "only where nothing is" can give a file a second name, which never replaces one either.
        fs::hard_link(&from, &to)?;
        fs::remove_file(&from)
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_directory(&self.dir)?;
        match sync_directory(&self.dir.join(QUARANTINE)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let dir = File::open(&self.dir)?;
        // SAFETY: a zeroed statvfs is a valid value of a plain C struct.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open for the whole call and the kernel writes only into `stat`.
        if unsafe { libc::fstatvfs(dir.as_raw_fd(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        #[allow(clippy::useless_conversion)] // the fields' types differ between platforms
        Ok(u64::from(stat.f_bavail).saturating_mul(u64::from(stat.f_frsize)))
    }

    fn quarantined(&self) -> io::Result<(u64, u64)> {
        let mut sum = (0, 0);
        for entry in fs::read_dir(self.dir.join(QUARANTINE))? {
            let bytes = entry?.metadata().map_or(0, |metadata| metadata.len());
            sum = (sum.0 + 1, sum.1 + bytes);
        }
        Ok(sum)
    }
}

/// Makes the names in a directory durable.
fn sync_directory(dir: &Path) -> io::Result<()> {
    let dir = File::open(dir)?;
    #[cfg(feature = "fault-injection")]
    if is_left_out_on_purpose("no-dir-sync") {
        return Ok(());
    }
    dir.sync_all()
}

/// The mutants that power cuts must find: a sync that is left out.
#[cfg(feature = "fault-injection")]
fn is_left_out_on_purpose(fault: &str) -> bool {
    std::env::var_os("BELAYD_FAULT").is_some_and(|asked| asked == fault)
}

/// A file of the real file system.
#[derive(Debug)]
pub struct RealFile(File);

impl DiskFile for RealFile {
    fn allocate(&self, len: u64) -> io::Result<()> {
        let signed = i64::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        loop {
            // SAFETY: plain system call on a descriptor that is open for the whole call.
            if unsafe { libc::fallocate(self.0.as_raw_fd(), 0, 0, signed) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EOPNOTSUPP | libc::ENOSYS) => break,
                _ => return Err(error),
            }
        }
        // A file system without preallocation: zeros keep the room as well.
        let zeros = vec![0; ZEROS];
        let mut offset = self.len()?;
        while offset < len {
            let piece = (len - offset).min(ZEROS as u64) as usize;
            self.0.write_all_at(&zeros[..piece], offset)?;
            offset += piece as u64;
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(feature = "fault-injection")]
        if is_left_out_on_purpose("no-sync") {
            return Ok(());
        }
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn give_back(&self, from: u64, to: u64) -> io::Result<()> {
        let far = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let (at, len) = (i64::try_from(from).map_err(far)?, i64::try_from(to.saturating_sub(from)).map_err(far)?);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain system call on a descriptor that is open for the whole call.
        if unsafe { libc::fallocate(self.0.as_raw_fd(), mode, at, len) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    fn next_data(&self, offset: u64) -> u64 {
        let Ok(signed) = i64::try_from(offset) else { return offset };
        // SAFETY: plain system call on an open descriptor; the common position that it moves is used by nobody.
        let found = unsafe { libc::lseek(self.0.as_raw_fd(), signed, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(found) => found.max(offset),
            // ENXIO: nothing but a hole from here on. Anything else: read it.
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => self.len().unwrap_or(offset).max(offset),
            Err(_) => offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_segment_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        RealDisk::existing(dir.path()).create_new("segment").expect("made");
        let mode = std::fs::metadata(dir.path().join("segment")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
