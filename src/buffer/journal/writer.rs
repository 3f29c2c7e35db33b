//! The writer of the log, owned by one thread.
//!
//! In: payloads, then the wish to sync. Out: their numbers, and after the sync the right to acknowledge them. Segments are preallocated
//! and written once, from front to back, never reused: so what was not written reads as zeros, and a frame that power cut short is told
//! from one that was damaged. A crash loses what no sync covered. After a sync that failed the segment is left for good at its last
//! durable end and the numbers behind it are given up.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    LaneState,
    answer::{AppendError, Appended, LogSettings, SyncFailed, copy_of},
    disk::{Disk, DiskFile},
    frame::{self, Frame, MAX_PAYLOAD},
    quarantine,
    segment::{BLOCK, Earlier, FRAMES_AT, Header, MAX_EARLIER, Void, file_name, new_name},
    shared::{Damage, SegmentView, Shared},
    staging::{STAGE, flush, stage, write_large},
};
use crate::domain::receipt::StreamId;

/// Names in a row that may turn out to be taken when a segment is made.
const TAKEN_MAX: u32 = 16;

/// The log. See the module.
#[derive(Debug)]
pub struct Log<D: Disk> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) settings: LogSettings,
    pub(super) log: u128,
    /// As appended.
    pub(super) lanes: Vec<LaneState>,
    /// As synced, or given up.
    pub(super) durable: Vec<LaneState>,
    pub(super) current: Option<Current<D::File>>,
    /// A segment that is made and not begun.
    pub(super) prepared: Option<Prepared<D::File>>,
    /// Number and end of the last segment with frames.
    pub(super) last: (u64, u64),
    pub(super) next_number: u64,
    /// Given up and not in a durable header.
    pub(super) voids: Vec<Void>,
    pub(super) earlier: Vec<Earlier>,
    /// Bytes of the current segment that are not written yet.
    pub(super) stage: Vec<u8>,
    pub(super) failed: Option<io::Error>,
    /// Left half-written; cut to its end once the segment behind it is durable.
    pub(super) leave: Option<(String, u64)>,
    /// A removal may not be durable yet.
    pub(super) dir_dirty: bool,
}

#[derive(Debug)]
pub(super) struct Current<F> {
    pub(super) number: u64,
    pub(super) file: F,
    pub(super) allocated: u64,
    /// Where the next frame goes; `stage` holds the bytes before it.
    pub(super) at: u64,
    /// Up to where it is durable; 0 while not even the header is.
    pub(super) durable: u64,
    start: Vec<LaneState>,
}

#[derive(Debug)]
pub(super) struct Prepared<F> {
    pub(super) number: u64,
    file: F,
    allocated: u64,
}

impl<D: Disk> Log<D> {
    /// Numbers a payload and stages it. `parts` are written one behind the other. It is not durable before [`Log::sync`].
    ///
    /// # Errors
    /// Nothing was appended. A lane that does not exist, no rows, or a payload above [`MAX_PAYLOAD`] is `InvalidInput`.
    pub fn append(&mut self, lane: usize, received_at_us: i64, rows: u32, parts: &[Bytes]) -> Result<Appended, AppendError> {
        let payload: usize = parts.iter().map(Bytes::len).sum();
        if lane >= self.lanes.len() || rows == 0 || payload > MAX_PAYLOAD {
            return Err(AppendError::Failed(io::Error::new(io::ErrorKind::InvalidInput, "no such lane, no rows, or too long")));
        }
        if self.failed.is_some() {
            return Err(AppendError::Failed(io::Error::other("the log waits for a sync after a failure")));
        }
        let extent = frame::extent(payload);
        if self.current.as_ref().is_none_or(|current| current.at + extent > current.allocated) {
            self.roll(extent)?;
        }
        let state = self.lanes[lane];
        let Some(current) = &mut self.current else { return Err(AppendError::DiskFull) };
        let offset = current.at;
        let group = if current.durable == 0 { FRAMES_AT } else { current.durable };
        let seed = frame::place(frame::segment_seed(self.log, current.number), offset);
        let mut frame = Frame {
            lane: lane as u8,
            rows,
            payload: payload as u32,
            first: state.next,
            prev_chain: state.chain,
            chain: 0,
            received_at_us,
            group: group as u32,
            empty: 0,
        };
        let written = if self.stage.len() + extent as usize > STAGE { flush(current, &mut self.stage) } else { Ok(()) };
        let written = written.and_then(|()| {
            if extent as usize > STAGE {
                write_large(current, &mut self.stage, &mut frame, seed, parts)
            } else {
                stage(&mut self.stage, offset, &mut frame, seed, parts);
                current.at += extent;
                Ok(())
            }
        });
        if let Err(error) = written {
            self.failed = Some(copy_of(&error));
            return Err(AppendError::Failed(error));
        }
        let state = &mut self.lanes[lane];
        let first_seq = state.next_seq();
        state.next += u64::from(rows);
        state.accepted += u64::from(rows);
        state.chain = frame.chain;
        Ok(Appended { stream: state.stream, first_seq, last_seq: first_seq + u64::from(rows) - 1, chain: frame.chain })
    }

    /// Makes everything appended durable, with one sync of one file. Cheap where nothing was appended.
    ///
    /// # Errors
    /// See [`SyncFailed`]; the log goes on in a new segment.
    pub fn sync(&mut self) -> Result<(), SyncFailed> {
        let synced = match self.failed.take() {
            Some(error) => Err(error),
            None => self.sync_current(),
        };
        synced.map_err(|cause| self.abandon(cause))
    }

    /// Makes the next segment ahead of time, when the current one is half full. To be called when nobody waits; appending does it
    /// itself where it was not.
    ///
    /// # Errors
    /// No segment could be made; nothing else has changed.
    pub fn prepare(&mut self) -> Result<(), AppendError> {
        let due = self.current.as_ref().is_none_or(|current| current.at > current.allocated / 2);
        if due { self.prepare_now() } else { Ok(()) }
    }

    /// As [`Log::prepare`], however much room the current one has.
    pub(super) fn prepare_now(&mut self) -> Result<(), AppendError> {
        if self.prepared.is_none() { self.make(0) } else { Ok(()) }
    }

    pub(super) fn renumber(&mut self, lane: usize, from_seq: u64, stream: StreamId, end_unknown: bool) {
        let state = &mut self.lanes[lane];
        let from = state.base.saturating_add(from_seq.max(1)).min(state.next);
        self.earlier.push(Earlier { lane: lane as u8, stream: state.stream, base: state.base, until: state.next, end_unknown });
        let forgotten = self.earlier.len().saturating_sub(MAX_EARLIER);
        self.earlier.drain(..forgotten);
        let held = self.shared.lock();
        let voids = held.segments.iter().flat_map(|segment| &segment.voids).chain(&self.voids);
        let voided = voids
            .filter(|void| usize::from(void.lane) == lane && void.last >= from)
            .map(|void| void.last + 1 - void.first.max(from))
            .fold(0, u64::saturating_add);
        *state =
            LaneState { stream, base: from - 1, accepted: state.next - from - voided.min(state.next - from), voided, ..*state };
        drop(held);
        self.durable[lane] = self.lanes[lane];
    }

    /// Drops the oldest segments in which every lane's readings are settled; never the last with frames. `settled` is the last settled number of
    /// each lane, in its current stream. A mark ([`Log::close`]) does not count. Returns the bytes that were given back.
    ///
    /// # Errors
    /// What the disk says; what was dropped before is dropped.
    pub fn trim(&mut self, settled: &[u64]) -> io::Result<u64> {
        self.drop_settled(settled, true)
    }

    pub(super) fn drop_settled(&mut self, settled: &[u64], keeps_one: bool) -> io::Result<u64> {
        let mut freed = 0;
        loop {
            if self.dir_dirty {
                // In order: a later removal must not become durable before an earlier one, or segments would seem to be missing.
                self.shared.disk.sync_dir()?;
                self.dir_dirty = false;
            }
            let (name, number, bytes, keep) = {
                let state = self.shared.lock();
                let Some((first, rest)) = state.segments.split_first() else { return Ok(freed) };
                // The last one with frames stays, for a database that is put back a little. A mark holds none.
                if keeps_one && rest.iter().all(|view| view.allocated <= FRAMES_AT && view.end <= FRAMES_AT) {
                    return Ok(freed);
                }
                let Some(end) = rest.iter().find_map(|next| next.start.as_ref()) else { return Ok(freed) };
                let done = end.iter().enumerate().all(|(lane, end)| {
                    let (Some(now), Some(settled)) = (self.durable.get(lane), settled.get(lane)) else { return end.next <= 1 };
                    end.next - 1 <= now.base.saturating_add(*settled)
                });
                if !done {
                    return Ok(freed);
                }
                (first.name.clone(), first.number, first.allocated, state.keeps(first.number))
            };
            // What could not be read may be readable for whoever looks at it later.
            let keep = keep && quarantine::has_room(&self.shared.disk, bytes);
            let moved = keep.then(|| quarantine::file(&self.shared.disk, &name)).flatten();
            if let Some(to) = moved {
                let what = "segment that could not be read whole; all of it is kept";
                self.shared.lock().tell(Damage {
                    segment: number,
                    offset: 0,
                    bytes: 0,
                    what,
                    quarantine_file: Some(to),
                    readings: None,
                });
                self.dir_dirty = true;
            } else {
                match self.shared.disk.remove(&name) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => self.dir_dirty = true,
                }
            }
            self.shared.lock().forget(number);
            freed += self.shared.lock().segments.remove(0).allocated;
        }
    }

    /// Where the lanes stand, with what was appended and not yet synced.
    pub fn lanes(&self) -> &[LaneState] {
        &self.lanes
    }

    /// Bytes that the segments take on the disk.
    pub fn bytes(&self) -> u64 {
        let begun = self.current.as_ref().filter(|current| current.durable == 0).map_or(0, |current| current.allocated);
        let prepared = self.prepared.as_ref().map_or(0, |prepared| prepared.allocated);
        self.shared.lock().segments.iter().map(|segment| segment.allocated).sum::<u64>() + begun + prepared
    }

    /// For readers.
    pub fn shared(&self) -> Arc<Shared<D>> {
        Arc::clone(&self.shared)
    }

    /// Goes on in a new segment that has room for `extent` bytes.
    fn roll(&mut self, extent: u64) -> Result<(), AppendError> {
        // First the new file: without one, the current segment stays and smaller frames still fit.
        self.make(extent)?;
        if let Err(error) = self.sync_current() {
            self.failed = Some(copy_of(&error));
            return Err(AppendError::Failed(error));
        }
        self.begin(extent)
    }

    /// Makes sure that a prepared segment has room for a frame of `extent` bytes.
    pub(super) fn make(&mut self, extent: u64) -> Result<(), AppendError> {
        let allocated = self.settings.segment_bytes.max((FRAMES_AT + extent).next_multiple_of(BLOCK as u64));
        if allocated > u64::from(u32::MAX) {
            return Err(AppendError::Failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        if self.prepared.as_ref().is_some_and(|prepared| prepared.allocated >= allocated) {
            return Ok(());
        }
        if let Some(small) = self.prepared.take() {
            // Never begun. Its number stays unused: a name is never given to a second file.
            let _ = self.shared.disk.remove(&file_name(small.number));
        }
        if self.bytes() + allocated > self.settings.total_bytes {
            return Err(AppendError::Full);
        }
        self.make_next(allocated)
    }

    /// Makes a segment of that length under the next number that is free.
    pub(super) fn make_next(&mut self, allocated: u64) -> Result<(), AppendError> {
        let mut made = self.make_file(allocated);
        for _ in 0..TAKEN_MAX {
            if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
                break;
            }
            // Whatever has that name, it may be somebody's only copy.
            self.next_number += 1;
            made = self.make_file(allocated);
        }
        let file = made?;
        self.prepared = Some(Prepared { number: self.next_number, file, allocated });
        self.next_number += 1;
        Ok(())
    }

    /// Makes the file of the next number; nothing that has its name is replaced.
    fn make_file(&self, allocated: u64) -> io::Result<D::File> {
        let (new, name) = (new_name(self.next_number), file_name(self.next_number));
        let disk = &self.shared.disk;
        let made = disk.create_new(&new).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => disk.remove(&new).and_then(|()| disk.create_new(&new)),
            _ => Err(error),
        });
        let made = made.and_then(|file| {
            file.allocate(allocated)?;
            // Its length is durable before its name is: a shorter file under the final name was cut.
            file.sync_data()?;
            disk.rename_new(&new, &name)?;
            // Without a durable name it is none; the next one gets another number.
            disk.sync_dir().inspect_err(|_| drop(disk.remove(&name)))?;
            Ok(file)
        });
        if made.is_err() {
            // What is left of it is removed by the next try, or at the next opening.
            let _ = disk.remove(&new);
        }
        made
    }

    /// Begins the prepared segment. Everything before must be durable. Its header is durable with the next sync. Where no room for
    /// frames is asked for, a header alone will do.
    pub(super) fn begin(&mut self, extent: u64) -> Result<(), AppendError> {
        if extent > 0 {
            self.make(extent)?;
        } else if self.prepare_now().is_err() {
            self.make_mark()?;
        }
        let Some(prepared) = self.prepared.take() else { return Err(AppendError::DiskFull) };
        if let Some(current) = self.current.take() {
            self.last = (current.number, current.durable);
        }
        let mut header = Header {
            number: prepared.number,
            log: self.log,
            allocated: prepared.allocated,
            previous: self.last.0,
            previous_end: self.last.1,
            lanes: self.lanes.clone(),
            voids: self.voids.clone(),
            earlier: self.earlier.clone(),
        };
        #[cfg(test)]
        if super::mutant::VOIDS_FORGOTTEN.get() {
            header.voids.clear();
        }
        self.stage.clear();
        self.current = Some(Current {
            number: prepared.number,
            file: prepared.file,
            allocated: prepared.allocated,
            at: FRAMES_AT,
            durable: 0,
            start: std::mem::take(&mut header.lanes),
        });
        let Some(current) = &self.current else { return Err(AppendError::DiskFull) };
        header.lanes.clone_from(&current.start);
        current.file.write_at(&header.encode(), 0).map_err(|error| {
            self.failed = Some(copy_of(&error));
            AppendError::Failed(error)
        })
    }

    pub(super) fn sync_current(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.durable == current.at {
            return Ok(());
        }
        flush(current, &mut self.stage)?;
        current.file.sync_data()?;
        let first = current.durable == 0;
        current.durable = current.at;
        self.durable.clone_from(&self.lanes);
        let mut state = self.shared.lock();
        if first {
            state.segments.push(SegmentView {
                number: current.number,
                name: file_name(current.number),
                seed: frame::segment_seed(self.log, current.number),
                start: Some(current.start.clone()),
                voids: std::mem::take(&mut self.voids),
                end: current.at,
                allocated: current.allocated,
            });
            state.earlier.clone_from(&self.earlier);
        } else if let Some(view) = state.segments.last_mut() {
            view.end = current.at;
        }
        state.lanes.clone_from(&self.lanes);
        drop(state);
        if first && let Some((name, end)) = self.leave.take() {
            // The new header says where it ends; the room behind is given back. Where that fails nothing but room is lost.
            let _ = self.shared.disk.open(&name).and_then(|file| if file.len()? > end { file.set_len(end) } else { Ok(()) });
        }
        Ok(())
    }

    /// The current segment cannot be trusted beyond its last sync. What it holds beyond is given up, and a new one says so.
    pub(super) fn abandon(&mut self, cause: io::Error) -> SyncFailed {
        self.failed = None;
        self.stage.clear();
        if let Some(current) = self.current.take() {
            if current.durable == 0 {
                // It was never part of the log.
                let _ = self.shared.disk.remove(&file_name(current.number));
            } else {
                self.last = (current.number, current.durable);
                self.leave = Some((file_name(current.number), current.durable));
                if let Some(view) = self.shared.lock().segments.last_mut() {
                    view.allocated = current.durable;
                }
            }
        }
        let mut voids = Vec::new();
        for (lane, (now, durable)) in self.lanes.iter_mut().zip(&mut self.durable).enumerate() {
            if now.next > durable.next {
                let (first, last) = (durable.next, now.next - 1);
                voids.push((lane, first - now.base, last - now.base));
                durable.chain = frame::gap_chain(durable.chain, first, last);
                durable.voided += last + 1 - first;
                durable.next = now.next;
                match self.voids.iter_mut().find(|void| usize::from(void.lane) == lane && void.last + 1 == first) {
                    Some(void) => void.last = last,
                    None => self.voids.push(Void { lane: lane as u8, first, last }),
                }
            }
            *now = *durable;
        }
        let recorded = self.begin(0).is_ok() && self.sync_current().is_ok();
        if !recorded && let Some(current) = self.current.take() {
            // The next append tries again, with another file.
            let _ = self.shared.disk.remove(&file_name(current.number));
            self.failed = None;
        }
        SyncFailed { cause, voids, recorded }
    }
}
