//! The two bounds: no medium at all, and a preallocated file that is written and synced with nothing else.

use std::{
    fs::{File, OpenOptions},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};

use bytes::Bytes;

use super::{Failure, Medium};

/// The file is written from its start again when it is full.
const FILE_BYTES: u64 = 64 << 20;

struct None;

pub(super) fn open_none(_: &Path) -> Result<Box<dyn Medium>, Failure> {
    Ok(Box::new(None))
}

impl Medium for None {
    fn next_seq(&mut self) -> u64 {
        1
    }

    fn commit(&mut self, _: u64, _: u32, _: &[Bytes], _: u64) -> Result<(), Failure> {
        Ok(())
    }
}

struct Bare {
    file: File,
    offset: u64,
    room: Vec<u8>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Medium>, Failure> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("bare"))?;
    // SAFETY: plain system call on a descriptor that is open.
    let failed = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, FILE_BYTES as libc::off_t) };
    if failed != 0 {
        return Err(std::io::Error::from_raw_os_error(failed).into());
    }
    file.sync_all()?;
    Ok(Box::new(Bare { file, offset: 0, room: Vec::new() }))
}

impl Medium for Bare {
    fn next_seq(&mut self) -> u64 {
        1
    }

    fn commit(&mut self, _: u64, _: u32, pieces: &[Bytes], _: u64) -> Result<(), Failure> {
        let blob = super::joined(pieces, &mut self.room);
        if self.offset + blob.len() as u64 > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(blob, self.offset)?;
        self.file.sync_data()?;
        self.offset += blob.len() as u64;
        Ok(())
    }
}
