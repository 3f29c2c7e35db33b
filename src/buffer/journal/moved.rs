//! A segment whose file somebody removed or moved while it was written.
//!
//! In: what stands in the directory. Out: another segment in its place, so that what is acknowledged from then on is there at the next start.
//! What the file held is missing until it is put back under its name. A crash before that costs what was written since it was gone.

use std::io;

use super::{
    Damage,
    answer::{AppendError, copy_of},
    disk::Disk,
    segment::file_name,
    writer::Log,
};

impl<D: Disk> Log<D> {
    /// Goes on in a new segment where the file of the current one is not under its name any more; says which that was. Nothing may wait for
    /// its sync.
    ///
    /// # Errors
    /// There is no other segment; what is appended goes where nobody will find it, and this is to be tried again.
    pub fn leave_missing(&mut self) -> Result<Option<Damage>, AppendError> {
        let disk = &self.shared.disk;
        let is_gone = |number: u64| {
            let opened = disk.open_read(&file_name(number));
            opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        let Some(segment) = self.current.as_ref().map(|current| current.number).filter(|number| is_gone(*number)) else {
            return Ok(None);
        };
        if self.prepared.as_ref().is_some_and(|prepared| is_gone(prepared.number)) {
            self.prepared = None;
        }
        self.sync().map_err(|failed| AppendError::Failed(failed.cause))?;
        self.make(1)?;
        self.begin(1)?;
        self.sync_current().map_err(|error| {
            self.failed = Some(copy_of(&error));
            AppendError::Failed(error)
        })?;
        let what = "segment that was removed or moved while it was written; what it held is missing until it is put back";
        Ok(Some(Damage { segment, offset: 0, bytes: 0, what, quarantine_file: None, readings: None }))
    }
}
