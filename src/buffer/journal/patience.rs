//! An error of the disk is tried again before anything is concluded from it: a path that is away for a moment must not cost what lies
//! behind it.
//!
//! In: calls to the disk, or their errors. Out: their answers, or the last error: at opening once [`PATIENCE`] is over, all calls
//! together; for a reader, who is asked again by the drain, once a segment has been refused for [`READ_PATIENCE`]. A crash loses nothing.

use std::{
    io,
    time::{Duration, Instant},
};

use super::disk::{Disk, DiskFile};

/// How long opening tries again, all in all. Nobody is served meanwhile, and systemd waits 90 s for a start.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader's segment that cannot be read in parts, or not be opened, is asked for before the readings in there are given up.
pub(super) const READ_PATIENCE: Duration = Duration::from_secs(30);
/// From one try to the next no more than this counts: a lane that did not ask, because the database was away, has not been refused.
/// Longer than what a disk takes for one sector that it cannot read.
const READ_STEP_MAX: Duration = Duration::from_secs(15);
/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(super) struct Patience<'d, D> {
    disk: &'d D,
    until: Instant,
}

impl<'d, D: Disk> Patience<'d, D> {
    pub(super) fn new(disk: &'d D) -> Self {
        Self { disk, until: disk.now() + PATIENCE }
    }

    /// Calls until it succeeds, or fails in a way that waiting does not change.
    pub(super) fn ask<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match call() {
                Err(error) if is_of_the_medium(&error) && self.disk.now() < self.until => self.disk.wait(PAUSE),
                other => return other,
            }
        }
    }
}

/// A reader's segment that the disk does not give whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    pub(super) segment: u64,
    /// Where the step began that failed last.
    pub(super) offset: u64,
    /// When it was refused last.
    last: Instant,
    /// How long it has been refused.
    refused: Duration,
    /// It has been asked for long enough.
    pub(super) given_up: bool,
}

impl Failing {
    /// Gives the error back for as long as it may pass.
    pub(super) fn again(failing: &mut Option<Self>, now: Instant, segment: u64, offset: u64, error: io::Error) -> io::Result<()> {
        let failing = match failing {
            Some(failing) if failing.segment == segment => failing,
            other => other.insert(Self { segment, offset, last: now, refused: Duration::ZERO, given_up: false }),
        };
        failing.offset = offset;
        failing.refused += now.saturating_duration_since(failing.last).min(READ_STEP_MAX);
        failing.last = now;
        failing.given_up |= failing.refused >= READ_PATIENCE;
        if failing.given_up { Ok(()) } else { Err(error) }
    }
}

/// Whether an error says something about the file, and not about this process or what it may do.
pub(super) fn is_of_the_medium(error: &io::Error) -> bool {
    let of_the_process = [libc::EACCES, libc::EPERM, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EROFS, libc::ENOENT];
    !error.raw_os_error().is_some_and(|code| of_the_process.contains(&code))
        && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// A file whose reads are tried again.
#[derive(Debug)]
pub(super) struct PatientFile<'p, 'd, D: Disk> {
    pub(super) file: D::File,
    pub(super) patience: &'p Patience<'d, D>,
}

impl<D: Disk> DiskFile for PatientFile<'_, '_, D> {
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.patience.ask(|| self.file.read_at(bytes, offset))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.patience.ask(|| self.file.len())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn give_back(&self, from: u64, to: u64) -> io::Result<()> {
        self.file.give_back(from, to)
    }
    fn next_data(&self, offset: u64) -> u64 {
        self.file.next_data(offset)
    }
}
