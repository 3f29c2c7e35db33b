//! The orderly end of the log.
//!
//! In: the wish to stop. Out: a last segment that is nothing but a header, the mark. A crash meanwhile leaves the log as any crash does.

use super::{
    answer::{AppendError, copy_of},
    disk::Disk,
    segment::{FRAMES_AT, file_name},
    writer::Log,
};

impl<D: Disk> Log<D> {
    /// Ends the log in order: behind the last segment comes one that is nothing but a header. It says where the one before ends and where
    /// every lane stands, so that whatever is wrong there at the next opening is damage, with its numbers, and no write that was cut
    /// short. The room behind the end is given back. Appending goes on in another segment. Nothing is done where nothing was written.
    ///
    /// # Errors
    /// There is no such header, and the next opening judges as after a crash. `Full` and `DiskFull` where there is no room for its 8 KiB.
    pub fn close(&mut self) -> Result<(), AppendError> {
        self.sync().map_err(|failed| AppendError::Failed(failed.cause))?;
        let marked = self.shared.lock().segments.last().is_some_and(|view| view.start.is_some() && view.end <= FRAMES_AT);
        if marked && self.voids.is_empty() {
            return Ok(());
        }
        if let Some(unused) = self.prepared.take() {
            // Never begun. What cannot be removed now is removed at the next opening.
            let _ = self.shared.disk.remove(&file_name(unused.number));
        }
        let left = self.current.as_ref().map(|current| (current.number, current.durable));
        let room = self.current.as_ref().map_or(0, |current| current.allocated - current.durable);
        if self.bytes() - room + FRAMES_AT > self.settings.total_bytes {
            return Err(AppendError::Full);
        }
        self.make_next(FRAMES_AT)?;
        self.begin(0)?;
        if let Some((number, durable)) = left {
            self.leave = Some((file_name(number), durable));
            if let Some(view) = self.shared.lock().segments.last_mut() {
                view.allocated = durable;
            }
        }
        self.sync_current().map_err(|error| {
            self.failed = Some(copy_of(&error));
            AppendError::Failed(error)
        })
    }
}
