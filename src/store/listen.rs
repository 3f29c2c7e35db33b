//! Waiting for PostgreSQL's notifications: diesel can only ask for those that have arrived, so libpq itself is asked, and its socket waited for.
//!
//! In: a channel. Out: whether anything was said on it. A crash loses nothing: whoever listens looks first and waits then.

use std::{
    ffi::{CStr, CString},
    fmt,
    os::fd::RawFd,
    ptr::NonNull,
    time::Duration,
};

use pq_sys::{ConnStatusType, ExecStatusType, PGconn};

use super::{StoreError, StoreResult};

/// A connection that listens to one channel. It is closed when dropped.
pub struct Listener(NonNull<PGconn>);

// SAFETY: libpq allows a connection to be used from any thread, one at a time; `&mut self` sees to that.
unsafe impl Send for Listener {}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    /// Connects and begins to listen. `channel` is a plain lower-case name.
    pub(super) fn open(url: &str, channel: &str) -> StoreResult<Self> {
        let text = |text: String| CString::new(text).map_err(|_| StoreError::invalid("a URL or channel with a zero byte in it"));
        let url = text(url.to_owned())?;
        // SAFETY: a C string that lives as long as the call.
        let conn = unsafe { pq_sys::PQconnectdb(url.as_ptr()) };
        let conn = NonNull::new(conn).ok_or_else(|| StoreError::unavailable("no memory for a connection"))?;
        let listener = Self(conn);
        // SAFETY: the connection is open until `listener` is dropped, as in everything below.
        if unsafe { pq_sys::PQstatus(conn.as_ptr()) } != ConnStatusType::CONNECTION_OK {
            return Err(listener.error());
        }
        let listen = text(format!("LISTEN {channel}"))?;
        // SAFETY: as above; the result is freed once.
        let done = unsafe {
            let result = pq_sys::PQexec(conn.as_ptr(), listen.as_ptr());
            let done = pq_sys::PQresultStatus(result) == ExecStatusType::PGRES_COMMAND_OK;
            pq_sys::PQclear(result);
            done
        };
        if done { Ok(listener) } else { Err(listener.error()) }
    }

    /// Waits until something was said, for at most `longest`; returns whether there was anything.
    ///
    /// # Errors
    /// `Unavailable` once the connection is gone; then open another.
    pub fn wait(&mut self, longest: Duration) -> StoreResult<bool> {
        if self.drain() {
            return Ok(true);
        }
        // SAFETY: as above.
        let fd: RawFd = unsafe { pq_sys::PQsocket(self.0.as_ptr()) };
        if fd < 0 {
            return Err(self.error());
        }
        let mut wait = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let longest_ms = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one entry, as said.
        let ready = unsafe { libc::poll(&raw mut wait, 1, longest_ms) };
        if ready <= 0 {
            return Ok(false); // The time is over, or a signal came: whoever waits looks and waits again.
        }
        // SAFETY: as above.
        if unsafe { pq_sys::PQconsumeInput(self.0.as_ptr()) } == 0 {
            return Err(self.error());
        }
        Ok(self.drain())
    }

    /// Takes everything that has arrived.
    fn drain(&mut self) -> bool {
        let mut any = false;
        // SAFETY: libpq hands out notifications that are freed once each.
        unsafe {
            loop {
                let said = pq_sys::PQnotifies(self.0.as_ptr());
                if said.is_null() {
                    return any;
                }
                pq_sys::PQfreemem(said.cast());
                any = true;
            }
        }
    }

    fn error(&self) -> StoreError {
        // SAFETY: libpq keeps the text until the next call on this connection.
        let text = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.0.as_ptr())) };
        StoreError::unavailable(text.to_string_lossy().trim().to_owned())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: nobody uses it any more.
        unsafe { pq_sys::PQfinish(self.0.as_ptr()) };
    }
}
