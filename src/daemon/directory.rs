//! The data directory: made private, and owned by one process at a time.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::folders;

/// The control socket's name in the directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// A folder that is in the directory from the first change of a restore to its last.
pub const RESTORING: &str = "restoring";
/// The lock's name in the directory.
const LOCK: &str = "lock";
/// Stands in the lock's text while a daemon runs.
const RUNNING: &str = "running";

/// The directory, locked for as long as this lives. The lock's text names the process, and says after its end whether that was in
/// order: a daemon that ends otherwise leaves its [`RUNNING`] behind. The kernel gives the lock back when the process ends, however it ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    lock: File,
    left_open: bool,
}

/// Why a directory cannot be had, with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Another process has it.
    InUse(String),
    /// It cannot be used at all.
    Fault(String),
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::InUse(text) | Self::Fault(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Denied {}

/// Something in a directory that belayd has never used; the root of a file system of its own has `lost+found`.
fn foreign(path: &Path) -> io::Result<Option<OsString>> {
    if path.join(LOCK).exists() {
        return Ok(None);
    }
    let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()?;
    Ok(names.into_iter().find(|name| name != "lost+found"))
}

impl DataDirectory {
    /// Makes the directory where it is missing (mode 0700) and locks it. One that others may look into is made private, since tokens and
    /// alerts lie here, but only where it is empty or already belayd's: a home or a project must not be shut for those who use it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn open(path: &Path) -> Result<Self, Denied> {
        let directory = Self::open_to_restore(path)?;
        if path.join(RESTORING).exists() {
            // Half of one state and half of another: whatever ran on it would make it worse.
            return Err(Denied::Fault(format!(
                "a restore of {} has not come to its end; run it again: belayd restore FILE --replace",
                path.display()
            )));
        }
        Ok(directory)
    }

    /// As [`DataDirectory::open`], also where a restore has not come to its end.
    ///
    /// # Errors
    /// As there.
    pub fn open_to_restore(path: &Path) -> Result<Self, Denied> {
        let fault = |error: io::Error| {
            Denied::Fault(format!("{}: {error}; server.data_dir must be a directory that belayd may write", path.display()))
        };
        folders::create(path).map_err(fault)?;
        let mode = fs::metadata(path).map_err(fault)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            if let Some(found) = foreign(path).map_err(fault)? {
                return Err(Denied::Fault(format!(
                    "{} is not belayd's own: it holds {found:?} and others may look into it; give server.data_dir a directory of its \
                     own, or make this one private (chmod 700) if nobody else needs it",
                    path.display()
                )));
            }
            // systemd's StateDirectory may have been set up by an older unit with another mode.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(fault)?;
        }
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = fs::read_to_string(&lock_path).unwrap_or_default();
                return Err(Denied::InUse(format!(
                    "{} is in use by another belayd (process {}): stop it, or give this one a data_dir of its own",
                    path.display(),
                    owner.split_whitespace().next().unwrap_or("unknown")
                )));
            }
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
        let left_open = fs::read_to_string(&lock_path).is_ok_and(|text| text.contains(RUNNING));
        let directory = Self { path: path.to_owned(), lock, left_open };
        // A command that only looks in leaves the word of a daemon that ended out of order where it is.
        directory.write(if left_open { RUNNING } else { "" }).map_err(fault)?;
        Ok(directory)
    }

    fn write(&self, word: &str) -> io::Result<()> {
        let mut lock = &self.lock;
        lock.set_len(0)?;
        lock.seek(SeekFrom::Start(0))?;
        writeln!(lock, "{} {word}", std::process::id())
    }

    /// A daemon's run begins. Returns whether the run before never ended in order.
    pub(super) fn begin_run(&self) -> bool {
        self.note(RUNNING);
        self.left_open
    }

    /// The run has ended in order.
    pub(super) fn end_run(&self) {
        self.note("");
    }

    fn note(&self, word: &str) {
        if let Err(error) = self.write(word) {
            log::warn!(target: "belayd", error:% = error; "the lock of the data directory cannot be written");
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket lies.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_private_and_has_one_owner() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/b");
        let first = DataDirectory::open(&path).expect("nobody else");
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o700);
        let refused = DataDirectory::open(&path).expect_err("taken").to_string();
        assert!(refused.contains("in use by another belayd") && refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DataDirectory::open(&path).expect("free again");
    }

    #[test]
    fn a_directory_that_others_use_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open_to_all = || fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let mode = || fs::metadata(dir.path()).expect("there").permissions().mode() & 0o777;
        open_to_all();
        fs::write(dir.path().join("thesis.txt"), "x").expect("written");
        let Err(Denied::Fault(reason)) = DataDirectory::open(dir.path()) else { panic!("it was taken") };
        assert!(reason.contains("thesis.txt") && reason.contains("chmod 700"), "{reason}");
        assert_eq!(mode(), 0o755);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("ours");
        drop(DataDirectory::open(dir.path()).expect("private by its owner's wish"));
        open_to_all();
        drop(DataDirectory::open(dir.path()).expect("belayd's own by now"));
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn an_empty_directory_is_made_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("lost+found")).expect("made");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        drop(DataDirectory::open(dir.path()).expect("empty"));
        assert_eq!(fs::metadata(dir.path()).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_run_that_did_not_end_in_order_is_known_at_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || DataDirectory::open(dir.path()).expect("nobody else");
        let first = open();
        assert!(!first.begin_run());
        drop(first);
        drop(open());
        let second = open();
        assert!(second.begin_run(), "a command that looked in between has not hidden it");
        second.end_run();
        drop(second);
        assert!(!open().begin_run());
    }
}
