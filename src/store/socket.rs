//! The TCP socket beneath a connection to PostgreSQL. libpq keeps it to itself and a blocked call cannot be interrupted from outside,
//! but a socket that is shut down ends the call at once.
//!
//! In: a mark, given to libpq with the connection's parameters: a `TCP_USER_TIMEOUT` that no other socket of this process has, some
//! milliseconds above the one that is wanted. Out: a second descriptor of the socket that carries it, how long nothing has passed over
//! it, and its end. A crash loses nothing here. A Unix socket has no such option and is not found: nothing between two processes of
//! one host swallows what is sent.

use std::{
    collections::BTreeSet,
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Marks in use, milliseconds.
static MARKS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
/// Time-outs that other code sets are round; marks are not.
const ROUND: u32 = 50;

/// A `TCP_USER_TIMEOUT` of one connection's own; free again when dropped.
#[derive(Debug)]
pub(super) struct Mark(u32);

impl Mark {
    /// The lowest that is free above `wanted` milliseconds.
    pub(super) fn take(wanted: u32) -> Self {
        let mut marks = MARKS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mark = wanted.saturating_add(1).min(i32::MAX as u32 / 2);
        while mark.is_multiple_of(ROUND) || !marks.insert(mark) {
            mark += 1;
        }
        Self(mark)
    }

    /// What libpq is to set.
    pub(super) fn as_millis(&self) -> u32 {
        self.0
    }

    /// The socket that carries it, if there is one now.
    pub(super) fn find(&self) -> Option<Socket> {
        let fds = std::fs::read_dir("/proc/self/fd").ok()?;
        let numbers = fds.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
        numbers.into_iter().find_map(|number| {
            // Asked once before the copy, because most descriptors are none of ours, and once of the copy, which nobody else closes.
            (user_timeout(number)? == self.0).then_some(())?;
            // SAFETY: plain system call; a descriptor that was closed meanwhile only gives an error.
            let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
            // SAFETY: the call has made this descriptor for us.
            let copy = (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })?;
            (user_timeout(copy.as_raw_fd())? == self.0).then_some(Socket(copy))
        })
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        MARKS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// A descriptor of our own of libpq's socket.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Whether the peer has said nothing that was not read: an idle connection whose server is gone has its end in there.
    pub(super) fn is_quiet(&self) -> bool {
        let mut look = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
        // SAFETY: one entry, as said; no wait.
        unsafe { libc::poll(&raw mut look, 1, 0) == 0 }
    }

    /// How long nothing has passed in either direction; `None` where something waits to be read, or nothing can be said.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        let info: libc::tcp_info = option(self.0.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let silence = info.tcpi_last_data_recv.min(info.tcpi_last_data_sent);
        self.is_quiet().then(|| Duration::from_millis(silence.into()))
    }

    /// Ends the connection: whoever waits for it, in whatever thread, is told so at once.
    pub(super) fn hang_up(&self) {
        // SAFETY: plain system call on a descriptor that is ours.
        if unsafe { libc::shutdown(self.0.as_raw_fd(), libc::SHUT_RDWR) } != 0 {
            // The peer was quicker; then the call ends of itself.
            log::debug!(target: "belayd::store", error:% = io::Error::last_os_error(); "a silent connection was gone already");
        }
    }
}

fn user_timeout(fd: RawFd) -> Option<u32> {
    option::<libc::c_uint>(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT)
}

/// An option of a socket; `None` for a descriptor that has none.
fn option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int) -> Option<T> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor is not negative and used for this call only; one that is closed gives an error.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let (mut value, mut size) = (MaybeUninit::<T>::zeroed(), size_of::<T>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `size` bytes; what an older one leaves out is zero, which all of these types may be.
    let got = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut size) };
    // SAFETY: as above.
    (got == 0).then(|| unsafe { value.assume_init() })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_marked_socket_is_found_among_all_and_ended_from_outside() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let others = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let mark = Mark::take(30_000);
        let (other, value) = (Mark::take(30_000), mark.as_millis());
        assert!(value > 30_000 && value != other.as_millis() && !value.is_multiple_of(ROUND));
        assert!(mark.find().is_none(), "nobody carries it yet");
        let size = size_of::<u32>() as libc::socklen_t;
        // SAFETY: plain system call, an int of this size.
        let set = unsafe {
            libc::setsockopt(ours.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, (&raw const value).cast(), size)
        };
        assert_eq!(set, 0);
        let found = mark.find().expect("found");
        assert!(found.is_quiet() && found.silent_for().is_some());
        let blocked = std::thread::spawn(move || std::io::Read::read(&mut &ours, &mut [0; 8]));
        found.hang_up();
        assert_eq!(blocked.join().expect("no panic").expect("an end"), 0);
        assert!(!found.is_quiet());
        assert!(others.peer_addr().is_ok() && other.find().is_none());
    }
}
