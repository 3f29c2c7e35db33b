//! The daemon's own segment log, as its journal uses it: one lane, one append and one sync a commit.

use std::path::Path;

use belayd::buffer::journal::{Log, LogSettings, disk::RealDisk, open as open_log};
use bytes::Bytes;
use uuid::Uuid;

use super::{Failure, Medium};

/// Most bytes of the log. Never reached here.
const BOUND_BYTES: u64 = 16 << 30;

struct Segments(Log<RealDisk>);

pub(super) fn open(dir: &Path) -> Result<Box<dyn Medium>, Failure> {
    let disk = RealDisk::create(&dir.join("journal"))?;
    let (log, _) = open_log(disk, LogSettings::for_bound(BOUND_BYTES), &mut Uuid::new_v4, 1)?;
    Ok(Box::new(Segments(log)))
}

impl Medium for Segments {
    fn next_seq(&mut self) -> u64 {
        self.0.lanes()[0].next_seq()
    }

    fn commit(&mut self, _: u64, rows: u32, pieces: &[Bytes], keep_from: u64) -> Result<(), Failure> {
        self.0.append(0, 0, rows, pieces).map_err(|error| error.to_string())?;
        self.0.sync().map_err(|failed| failed.cause)?;
        self.0.trim(&[keep_from.saturating_sub(1)])?;
        self.0.prepare().map_err(|error| error.to_string())?;
        Ok(())
    }
}
