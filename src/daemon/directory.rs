//! The data directory: made private, and owned by one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The control socket's name in the directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The lock's name in the directory.
const LOCK: &str = "lock";

/// The directory, locked for as long as this lives. The kernel gives the lock back when the process ends, however it ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory where it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub fn open(path: &Path) -> Result<Self, String> {
        let fault =
            |error: io::Error| format!("{}: {error}; server.data_dir must be a directory that belayd may write", path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fault)?;
        let mode = fs::metadata(path).map_err(fault)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            // Tokens and alerts lie here. systemd's StateDirectory may have been set up by an older unit with another mode.
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(fault)?;
        }
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&lock_path);
        let mut lock = lock.map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let owner = fs::read_to_string(&lock_path).unwrap_or_default();
                return Err(format!(
                    "{} is in use by another belayd (process {}): stop it, or give this one a data_dir of its own",
                    path.display(),
                    owner.trim()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(fault)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
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
        let refused = DataDirectory::open(&path).expect_err("taken");
        assert!(refused.contains("in use by another belayd") && refused.contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DataDirectory::open(&path).expect("free again");
    }
}
