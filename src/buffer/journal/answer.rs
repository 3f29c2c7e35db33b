//! What the writer is told and what it answers: plain values, nothing that a crash could lose.

use std::{fmt, io};

use super::segment::BLOCK;
use crate::domain::receipt::StreamId;

/// Sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Length of a segment's file, bytes. A larger frame gets a segment of its own size.
    pub segment_bytes: u64,
    /// Most bytes on disk. It is a bound on what is allocated; when it is reached, appending is refused until a segment is dropped.
    pub total_bytes: u64,
}

impl LogSettings {
    /// Segments of 32 MiB, or an eighth of the bound where that is less: small enough that the tail is scanned within 100 ms.
    pub fn for_bound(total_bytes: u64) -> Self {
        let segment_bytes = (total_bytes / 8).clamp(64 * 1024, 32 * 1024 * 1024) / BLOCK as u64 * BLOCK as u64;
        Self { segment_bytes, total_bytes }
    }
}

/// Numbers that an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The stream.
    pub stream: StreamId,
    /// Number of the first reading.
    pub first_seq: u64,
    /// Number of the last, inclusive.
    pub last_seq: u64,
    /// The chain after it.
    pub chain: u64,
}

/// Why nothing was appended.
#[derive(Debug)]
pub enum AppendError {
    /// The bound on bytes is reached; a dropped segment makes room.
    Full,
    /// The file system has no room for another segment; the next append tries again.
    DiskFull,
    /// No further segment could be made, for another reason than room; nothing has changed, and the next append tries again.
    NoSegment(io::Error),
    /// Writing failed. [`Log::sync`] must be called: it tells which numbers are given up and begins a new segment.
    Failed(io::Error),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the journal has reached journal_bytes"),
            Self::DiskFull => f.write_str("no space left for the journal; make room on its file system"),
            Self::NoSegment(error) => write!(f, "no further segment of the journal can be made: {error}"),
            Self::Failed(error) => write!(f, "the journal cannot be written: {error}"),
        }
    }
}

impl std::error::Error for AppendError {}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::NoSegment(error),
        }
    }
}

/// A sync that did not reach the disk. Everything appended since the last good one is not durable, except what is not in `voids`.
#[derive(Debug)]
pub struct SyncFailed {
    /// What the kernel said.
    pub cause: io::Error,
    /// Lane, first and last number of what was given up. Who waits for these must be told no; a frame whose numbers are not among
    /// them is durable.
    pub voids: Vec<(usize, u64, u64)>,
    /// Whether a new segment says so durably. Otherwise the next one will.
    pub recorded: bool,
}

impl From<AppendError> for io::Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Failed(error) | AppendError::NoSegment(error) => error,
            other => Self::new(io::ErrorKind::StorageFull, other.to_string()),
        }
    }
}

/// An error can be told twice: to whoever appended, and at the sync.
pub(super) fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}
