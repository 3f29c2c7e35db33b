//! Openings at which the disk may not take the proof of the last group.

use std::io;

use super::{
    disk::{ModelDisk, Random},
    new_history_settings, uuid,
};
use crate::buffer::journal::{Log, Recovered, open};

/// Opens, in some histories with a first sync that fails. Gives back whether it did.
pub(super) fn reopen(disk: &ModelDisk, random: &mut Random, lanes: usize) -> (bool, io::Result<(Log<ModelDisk>, Recovered)>) {
    let shaky = !disk.segments().is_empty() && random.one_in(6);
    disk.inner().faults.sync = u32::from(shaky);
    let mut opened = open(disk.clone(), new_history_settings(), &mut || uuid(random), lanes);
    disk.inner().faults.sync = 0;
    if shaky && opened.is_err() {
        // Only the first segment of all must be had.
        disk.kill();
        opened = open(disk.clone(), new_history_settings(), &mut || uuid(random), lanes).and_then(|(log, now)| {
            if now.fresh { Ok((log, now)) } else { Err(io::Error::other("a failed sync kept it from opening")) }
        });
    }
    (shaky, opened)
}

/// Whether nothing is set to fail.
pub(super) fn is_healthy(disk: &ModelDisk) -> bool {
    let inner = disk.inner();
    let faults = inner.faults;
    inner.room == u64::MAX && (faults.sync, faults.write, faults.sync_dir) == (0, 0, 0) && faults.dies_after.is_none()
}
