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
/// Stands there after a daemon that ended in order while nothing waited in its journal.
const AT_REST: &str = "at-rest";

/// The directory, locked for as long as this lives. The lock's text names the process, and says after its end whether that was in
/// order: a daemon that ends otherwise leaves its [`RUNNING`] behind. The kernel gives the lock back when the process ends, however it ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    lock: File,
    left_open: bool,
    left_at_rest: bool,
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

/// What shows that a directory is belayd's: whole, or the part of one that was brought here.
const OWN: [&str; 4] = [LOCK, "control.db", "journal", RESTORING];

/// Whether belayd has used this directory before.
pub(super) fn is_own(path: &Path) -> bool {
    OWN.iter().any(|name| path.join(name).exists())
}

/// Something in a directory that belayd has never used; the root of a file system of its own has `lost+found`. A `private` one may have
/// been made for belayd, with its configuration and secrets in it; folders and hidden files are somebody's home or project.
fn foreign(path: &Path, private: bool) -> io::Result<Option<OsString>> {
    if is_own(path) {
        return Ok(None);
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let (name, is_file) = (entry.file_name(), !entry.file_type()?.is_dir());
        let is_plain = is_file && !name.as_encoded_bytes().starts_with(b".");
        if name != "lost+found" && !(private && is_plain) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl DataDirectory {
    /// Makes the directory where it is missing (mode 0700) and locks it. One that is somebody's home or project is refused: it must neither
    /// be shut for those who use it nor be mixed with what lies here. One that others may look into is made private, since tokens and
    /// alerts lie here.
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
        let private = mode & 0o077 == 0;
        if let Some(found) = foreign(path, private).map_err(fault)? {
            let also = if private { "" } else { ", and others may look into it" };
            return Err(Denied::Fault(format!(
                "{} is not belayd's own: it holds {found:?}{also}; give server.data_dir a directory that is empty or that belayd may make",
                path.display()
            )));
        }
        if !private {
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
        let text = fs::read_to_string(&lock_path).unwrap_or_default();
        let (left_open, left_at_rest) = (text.contains(RUNNING), text.contains(AT_REST));
        let directory = Self { path: path.to_owned(), lock, left_open, left_at_rest };
        // A command that only looks in leaves the last daemon's word where it is.
        let word = [(left_open, RUNNING), (left_at_rest, AT_REST)].iter().find_map(|(is, word)| is.then_some(*word));
        directory.write(word.unwrap_or_default()).map_err(fault)?;
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

    /// Whether the run before ended in order while nothing waited in the journal: whoever finds that gone knows that nothing went with it.
    pub(super) fn left_at_rest(&self) -> bool {
        self.left_at_rest
    }

    /// The run has ended in order; `at_rest`: nothing waits in the journal.
    pub(super) fn end_run(&self, at_rest: bool) {
        self.note(if at_rest { AT_REST } else { "" });
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
        assert!(reason.contains("thesis.txt") && reason.contains("is not belayd's own"), "{reason}");
        assert_eq!(mode(), 0o755);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("ours");
        for (name, make) in [(".profile", None), ("projects", Some(()))] {
            let path = dir.path().join(name);
            if make.is_some() { fs::create_dir(&path) } else { fs::write(&path, "x") }.expect("made");
            let Err(Denied::Fault(reason)) = DataDirectory::open(dir.path()) else { panic!("{name}: it was taken") };
            assert!(reason.contains(name) && !dir.path().join(LOCK).exists(), "{reason}");
            if make.is_some() { fs::remove_dir(&path) } else { fs::remove_file(&path) }.expect("gone");
        }
        drop(DataDirectory::open(dir.path()).expect("private, and made for belayd"));
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
        assert!(second.begin_run() && !second.left_at_rest(), "a command that looked in between has not hidden it");
        second.end_run(false);
        drop(second);
        let third = open();
        assert!(!third.begin_run() && !third.left_at_rest());
        third.end_run(true);
        drop(third);
        drop(open());
        let fourth = open();
        assert!(fourth.left_at_rest() && !fourth.begin_run(), "nor that nothing waited");
        drop(fourth);
        assert!(!open().left_at_rest(), "it has run since");
    }
}
