//! SQLite's own online backup, reading from one fixed moment.
//!
//! A backup whose source is written meanwhile would begin anew each time; one whose source connection holds a read transaction sees
//! that moment to the end. The write-ahead log cannot start anew until then and grows by what is written.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
};

use libsqlite3_sys as ffi;

use crate::store::{StoreError, StoreResult};

/// Pages copied between two reports.
const PAGES: i32 = 2_048;
/// Longest wait for a lock, milliseconds.
const WAIT_MS: i32 = 10_000;

/// A SQLite file at one moment.
#[derive(Debug)]
pub struct SqliteSnapshot(Handle);

impl SqliteSnapshot {
    /// Opens the file and fixes the moment.
    pub(super) fn open(path: &Path) -> StoreResult<Self> {
        let source = Handle::open(path, ffi::SQLITE_OPEN_READWRITE)?;
        // BEGIN alone reads nothing; the first read fixes the moment.
        source.execute(c"BEGIN")?;
        source.execute(c"SELECT count(*) FROM sqlite_master")?;
        Ok(Self(source))
    }

    /// Writes it to a new file; `report` is told how many bytes are copied, of how many.
    ///
    /// # Errors
    /// What SQLite says, for example that the disk is full.
    pub fn copy_to(&self, path: &Path, report: &mut dyn FnMut(u64, u64)) -> StoreResult<()> {
        let target = Handle::open(path, ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE)?;
        // The copy is thrown away if anything fails: nothing of it needs syncing before it is whole.
        target.execute(c"PRAGMA synchronous = OFF")?;
        // SAFETY: both handles are open and outlive the backup, which is finished below on every path.
        let backup = unsafe { ffi::sqlite3_backup_init(target.0, c"main".as_ptr(), self.0.0, c"main".as_ptr()) };
        if backup.is_null() {
            return Err(target.error("the copy cannot begin"));
        }
        let page = 4096;
        let outcome = loop {
            // SAFETY: the backup is not finished yet.
            let (code, left, all) = unsafe {
                let code = ffi::sqlite3_backup_step(backup, PAGES);
                (code, ffi::sqlite3_backup_remaining(backup), ffi::sqlite3_backup_pagecount(backup))
            };
            report(page * u64::try_from(all - left).unwrap_or(0), page * u64::try_from(all).unwrap_or(0));
            match code {
                ffi::SQLITE_OK => {}
                ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => std::thread::sleep(std::time::Duration::from_millis(20)),
                code => break code,
            }
        };
        // SAFETY: finished once; it frees the backup.
        unsafe { ffi::sqlite3_backup_finish(backup) };
        if outcome == ffi::SQLITE_DONE { Ok(()) } else { Err(target.error("the copy failed")) }
    }
}

/// A connection of this file's own.
#[derive(Debug)]
struct Handle(*mut ffi::sqlite3);

impl Handle {
    fn open(path: &Path, flags: i32) -> StoreResult<Self> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| StoreError::invalid("a path holds a zero byte"))?;
        let mut handle = ptr::null_mut();
        // SAFETY: the name ends in a zero byte and the pointer is valid; the handle is closed by drop, also after a failure.
        let code = unsafe { ffi::sqlite3_open_v2(name.as_ptr(), &raw mut handle, flags | ffi::SQLITE_OPEN_NOMUTEX, ptr::null()) };
        let handle = Self(handle);
        if code != ffi::SQLITE_OK {
            return Err(handle.error(&format!("cannot open {}", path.display())));
        }
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_busy_timeout(handle.0, WAIT_MS) };
        Ok(handle)
    }

    fn execute(&self, statement: &CStr) -> StoreResult<()> {
        // SAFETY: the handle is open and the statement ends in a zero byte; rows are not asked for.
        let code = unsafe { ffi::sqlite3_exec(self.0, statement.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.error("SQLite")) }
    }

    fn error(&self, doing: &str) -> StoreError {
        // SAFETY: errmsg takes a null handle too, and its text is valid until the next call on it.
        let text = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(self.0)) }.to_string_lossy().into_owned();
        StoreError::other(format!("{doing}: {text}"))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: closed once, with no statement or backup left; null is allowed.
        unsafe { ffi::sqlite3_close(self.0) };
    }
}
