//! What must be written down though there is no room for readings: a fork, and that the last readings were let go.
//!
//! In: a lane and its new stream, or how far everything is settled. Out: a segment that says so. Where a whole one cannot be had it is
//! nothing but a header, a mark of 8 KiB, which is not held to the bound: a lane that cannot be forked is not drained, and what is not
//! drained is never dropped. A crash before the mark is durable leaves the log as it was.

use std::io;

use super::{
    answer::{AppendError, copy_of},
    disk::{Disk, DiskFile},
    segment::{BLOCK, FRAMES_AT, file_name},
    writer::Log,
};
use crate::domain::receipt::StreamId;

/// Bytes above the bound that marks may take: 128 of them. They go with the segments before them.
const MARKS_BEYOND: u64 = 128 * FRAMES_AT;
/// Bytes that are given back for a mark on a full file system: the mark, and what its name and extents may take.
const GIVE_BACK: u64 = 8 * FRAMES_AT;

impl<D: Disk> Log<D> {
    /// Gives a lane a new stream that numbers everything from `from_seq` (of the current stream) on with 1, 2, …; what lies before
    /// counts as settled. Durable when this returns.
    ///
    /// # Errors
    /// Nothing has changed, but frames that were not synced may be given up as [`Log::sync`] says. Where no file could be made the
    /// current segment stays.
    pub fn fork(&mut self, lane: usize, from_seq: u64, stream: StreamId) -> io::Result<()> {
        self.sync().map_err(|failed| failed.cause)?;
        let Some(before) = self.lanes.get(lane).copied() else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
        if self.prepare_now().is_err() {
            self.make_mark()?;
        }
        let earlier = self.earlier.clone();
        let left = self.current.as_ref().map(|current| (current.number, current.durable));
        self.renumber(lane, from_seq, stream, false);
        let begun = self.begin(0).map_err(io::Error::from);
        if let Some((number, durable)) = left {
            // The room behind its end is given back, or the bound would stay reached.
            self.leave = Some((file_name(number), durable));
            if let Some(view) = self.shared.lock().segments.last_mut() {
                view.allocated = durable;
            }
        }
        if let Err(error) = begun.and_then(|()| self.sync_current()) {
            // A lane's fork stands in the header of its segment; that one is given up.
            self.lanes[lane] = before;
            self.earlier = earlier;
            self.durable.clone_from(&self.lanes);
            self.abandon(copy_of(&error));
            return Err(error);
        }
        Ok(())
    }

    /// Drops the last segment with frames too, where all of it is settled and nothing waits to be synced: a frame that does not fit
    /// beside it would otherwise be refused for ever. `settled` as in [`Log::trim`]. Returns whether room was made.
    ///
    /// # Errors
    /// Nothing was dropped; after `Failed` [`Log::sync`] must be called.
    pub fn make_way(&mut self, settled: &[u64]) -> Result<bool, AppendError> {
        let synced = self.failed.is_none() && self.current.as_ref().is_none_or(|current| current.durable == current.at);
        let all = self.lanes.iter().enumerate().all(|(lane, state)| {
            let settled = settled.get(lane).copied().unwrap_or(0);
            state.next - 1 <= state.base.saturating_add(settled)
        });
        let holds_some = self.shared.lock().segments.iter().any(|view| view.end > FRAMES_AT);
        if !synced || !all || !holds_some {
            return Ok(false);
        }
        if let Some(unused) = self.prepared.take() {
            // Never begun; what comes needs another size.
            let _ = self.shared.disk.remove(&file_name(unused.number));
        }
        self.make_mark()?;
        self.begin(0)?;
        self.sync_current().map_err(|error| {
            self.failed = Some(copy_of(&error));
            AppendError::Failed(error)
        })?;
        // What cannot be removed now is removed with the next chores.
        Ok(self.drop_settled(settled, false).is_ok_and(|freed| freed > 0))
    }

    /// Whether there is no segment to append to.
    pub(super) fn is_stranded(&self) -> bool {
        self.current.is_none() && self.prepared.is_none()
    }

    /// Makes a segment that holds nothing but its header. Nothing may be prepared.
    pub(super) fn make_mark(&mut self) -> Result<(), AppendError> {
        if self.bytes() + FRAMES_AT > self.settings.total_bytes.saturating_add(MARKS_BEYOND) {
            return Err(AppendError::Full);
        }
        match self.make_next(FRAMES_AT) {
            Err(AppendError::DiskFull) if self.give_back() => self.make_next(FRAMES_AT),
            made => made,
        }
    }

    /// Gives back room that was kept for readings: behind the ends of older segments, of the one that was left, or at the end of the
    /// current one. The length of the last file stays, for it says that nothing was cut. Returns whether there was any.
    fn give_back(&mut self) -> bool {
        let begins = |end: u64| end.next_multiple_of(BLOCK as u64);
        let mut freed = 0;
        if let Some((_, older)) = self.shared.lock().segments.split_last_mut() {
            for view in older.iter_mut().filter(|view| begins(view.end) < view.allocated) {
                if freed < GIVE_BACK && self.shared.disk.open(&view.name).and_then(|file| file.set_len(view.end)).is_ok() {
                    freed += view.allocated - view.end;
                    view.allocated = view.end;
                }
            }
        }
        if freed > 0 {
            return true;
        }
        if let Some((name, end)) = &self.leave {
            let given = self.shared.disk.open(name).and_then(|file| {
                let (from, to) = (begins(*end), file.len()?);
                if from < to { file.give_back(from, to).map(|()| true) } else { Ok(false) }
            });
            return given.unwrap_or(false);
        }
        let Some(current) = &mut self.current else { return false };
        let to = current.allocated;
        let from = begins(to.saturating_sub(GIVE_BACK).max(current.at));
        if current.durable != current.at || from >= to || current.file.give_back(from, to).is_err() {
            return false;
        }
        // Nothing is written there any more.
        current.allocated = from;
        if let Some(view) = self.shared.lock().segments.last_mut() {
            view.allocated = from;
        }
        true
    }
}
