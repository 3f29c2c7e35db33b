//! The last group of a log that is opened, where the disk does not take its proof: it is written once more, into a new segment.
//!
//! In: the frames behind the last end that is proved. Out: the same frames under the same numbers, durable in another file; or the log
//! as it was read, to be drained, where no other file can be had. What cannot be read of it is passed over and counted as lost when its
//! turn comes. A crash meanwhile changes nothing: the old segment is cut only once the new one is durable.

use bytes::Bytes;

use super::{
    LaneState,
    answer::AppendError,
    candidate::whole,
    disk::{Disk, DiskFile},
    frame::{self, Frame},
    quarantine,
    scan::read_full,
    segment::{FRAMES_AT, Header, file_name},
    shared::{Damage, SegmentView},
    tail::Tail,
    writer::Log,
};

/// A group that is not proved.
pub(super) struct Carry {
    number: u64,
    /// Where it begins and ends in its segment.
    begin: u64,
    end: u64,
    /// Where the lanes stood before it.
    lanes: Vec<LaneState>,
    frames: Vec<(Frame, Bytes)>,
    /// That is all of the group.
    whole: bool,
    /// Its segment's header, where that is not proved either: the new segment takes its place.
    header: Option<Header>,
}

impl Carry {
    /// Reads it, as far as that goes.
    pub(super) fn read(file: &impl DiskFile, number: u64, tail: &Tail, header: Option<&Header>) -> Self {
        let read = |(offset, frame): &(u64, Frame)| {
            let mut payload = vec![0; frame.payload as usize];
            read_full(file, &mut payload, offset + frame.payload_at() as u64).ok()?;
            let end = [&frame.first.to_le_bytes()[..], &frame.rows.to_le_bytes()[..]].concat();
            let chain = frame::chain_of_parts(frame.prev_chain, [&payload[..], &end[..]]);
            (chain == frame.chain).then(|| (*frame, Bytes::from(payload)))
        };
        let frames: Vec<_> = tail.last_group.iter().filter_map(read).collect();
        Self {
            number,
            begin: tail.unproved.max(FRAMES_AT),
            end: tail.end,
            lanes: tail.before.clone(),
            whole: frames.len() == tail.last_group.len() && tail.damage.is_empty(),
            frames,
            header: header.filter(|_| tail.unproved < FRAMES_AT).cloned(),
        }
    }
}

impl<D: Disk> Log<D> {
    /// Carries it over, and says so. The log has just been opened and nothing was appended.
    pub(super) fn carry(&mut self, carry: &Carry) -> Damage {
        let after = self.lanes.clone();
        let replaced = self.replace_last(carry);
        for (lane, before) in self.lanes.iter_mut().zip(&carry.lanes) {
            *lane = *before;
        }
        self.durable.clone_from(&self.lanes);
        // One segment above the bound, rather than readings that the next power cut takes.
        let bound = std::mem::replace(&mut self.settings.total_bytes, u64::MAX);
        let carried = self.write_again(&carry.frames);
        self.settings.total_bytes = bound;
        let what = if carried.is_ok() {
            if replaced.is_some() {
                self.drop_replaced(carry);
            }
            // Numbers at the end that could not be carried are not given out again: the header of another segment says so.
            let behind = self.lanes.iter().zip(&after).any(|(now, after)| now.next < after.next);
            for (now, after) in self.lanes.iter_mut().zip(&after) {
                pass_over(now, after.next, after.chain);
            }
            if behind && self.begin(0).is_ok() && self.sync_current().is_err() {
                self.failed = Some(std::io::Error::other("the segment behind what was carried over"));
            }
            "last group, which the disk does not take again; what can be read of it stands in a new segment"
        } else {
            self.stage.clear();
            self.failed = None;
            if let Some(begun) = self.current.take() {
                // Not durable, so that it is no part of the log.
                let _ = self.shared.disk.remove(&file_name(begun.number));
            }
            if let Some(replaced) = replaced {
                self.voids.clear();
                self.shared.lock().segments.push(replaced);
            }
            self.end_last_at(carry.number, carry.end);
            self.lanes = after;
            self.durable.clone_from(&self.lanes);
            "last group, which the disk does not take again and no new segment could take either; it is drained from where it is"
        };
        Damage { offset: carry.begin, ..whole(carry.number, carry.end.saturating_sub(carry.begin), what) }
    }

    /// The next segment follows what is proved. Where that is not even its header, the last one is taken out and given back.
    fn replace_last(&mut self, carry: &Carry) -> Option<SegmentView> {
        let Some(header) = &carry.header else {
            self.end_last_at(carry.number, carry.begin);
            return None;
        };
        self.last = (header.previous, header.previous_end);
        self.leave = (header.previous > 0).then(|| (file_name(header.previous), header.previous_end));
        self.voids.clone_from(&header.voids);
        self.shared.lock().segments.pop()
    }

    /// Takes the file away whose place the new segment has taken; one that holds more than was carried over is set aside.
    fn drop_replaced(&mut self, carry: &Carry) {
        let (disk, name) = (&self.shared.disk, file_name(carry.number));
        if carry.whole {
            let _ = disk.remove(&name);
        } else {
            let _ = quarantine::file(disk, &name);
        }
        self.dir_dirty |= disk.sync_dir().is_err();
    }

    fn end_last_at(&mut self, number: u64, end: u64) {
        self.last = (number, end);
        self.leave = Some((file_name(number), end));
        if let Some(view) = self.shared.lock().segments.last_mut() {
            (view.end, view.allocated) = (end, end);
        }
    }

    /// All in one segment, with one sync: it is there, or not.
    fn write_again(&mut self, frames: &[(Frame, Bytes)]) -> Result<(), AppendError> {
        let extent = frames.iter().map(|(frame, _)| frame.extent()).sum();
        self.begin(extent)?;
        for (frame, payload) in frames {
            let lane = usize::from(frame.lane);
            let Some(state) = self.lanes.get_mut(lane).filter(|state| frame.first >= state.next) else { continue };
            pass_over(state, frame.first, frame.prev_chain);
            self.append(lane, frame.received_at_us, frame.rows, std::slice::from_ref(payload))?;
        }
        Ok(self.sync_current()?)
    }
}

/// Readings up to `next` are not carried over; they count as accepted, and as lost when their turn comes.
fn pass_over(state: &mut LaneState, next: u64, chain: u64) {
    if next > state.next {
        state.accepted += next - state.next;
        (state.next, state.chain) = (next, chain);
    }
}
