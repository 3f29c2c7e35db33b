//! Where the log ends, and whether it was cut short or damaged there.
//!
//! In: a scanner over the segment that was written last. Out: where the lanes stand, where the good part ends, what is damaged. Each frame
//! says where its group began: what lies before that was durable when it was written, so a hole there is damage. In the last group
//! nothing proves that its sync ever came back. A hole with pieces missing is a write that the crash cut short: nobody was told of it,
//! the log ends there and the numbers are given out again. A hole with every piece in its place was written whole and damaged since:
//! its numbers are kept from being used again.

use super::{
    LaneState, MAX_LANES,
    disk::DiskFile,
    frame::{EDGE, Frame, SECTOR, empty_pieces, gap_chain, looks_empty},
    scan::{Bad, Found, Scanner},
    segment::FRAMES_AT,
};

/// What the last segment holds.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Behind the last frame, or the last hole that was written whole.
    pub(super) end: u64,
    /// From here on it is not proved that what stands there is on the disk and not only in the kernel's memory.
    pub(super) unproved: u64,
    /// Where the lanes stood there.
    pub(super) before: Vec<LaneState>,
    /// Bytes of a write that was cut short.
    pub(super) torn_bytes: u64,
    /// Damaged stretches, and what is damaged about them.
    pub(super) damage: Vec<(Bad, &'static str)>,
    /// The frames of the last group, whose headers and footers may be missing in part.
    pub(super) last_group: Vec<(u64, Frame)>,
    /// Readings may have been acknowledged of which nothing is left to tell the numbers.
    pub(super) end_unknown: [bool; MAX_LANES],
}

/// How a segment's file ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Where.
    pub(super) file: u64,
    /// It is shorter than it was made.
    pub(super) cut: bool,
    /// A later segment exists, so that all of this one was durable.
    pub(super) sealed: bool,
}

/// Applies the frames to the lanes.
pub(super) fn scan<F: DiskFile>(scanner: &mut Scanner<F>, ending: Ending, lanes: &mut [LaneState]) -> Tail {
    let mut tail = Tail { end: FRAMES_AT, ..Tail::default() };
    // What may belong to the last group.
    let mut group = Vec::new();
    while let Some(found) = scanner.step(None) {
        if let Found::Frame { frame, .. } = &found {
            let proved = u64::from(frame.group);
            if group.first().is_some_and(|first| offset_of(first) < proved) {
                let rest = group.split_off(group.partition_point(|found| offset_of(found) < proved));
                group.iter().for_each(|found| tail.settle(found, lanes));
                group = rest;
            }
            tail.unproved = proved;
        }
        group.push(found);
    }
    if tail.unproved <= FRAMES_AT {
        // Its first group: the header may not be proved either.
        tail.unproved = 0;
    }
    tail.before = lanes.to_vec();
    for (index, found) in group.iter().enumerate() {
        if !ending.sealed
            && let Found::Bad(bad) = found
            && was_cut_short(scanner, bad, ending)
        {
            tail.torn_bytes = group[index..].iter().map(|found| written(scanner, found)).sum();
            return tail;
        }
        if let Found::Frame { offset, frame, .. } = found {
            tail.last_group.push((*offset, *frame));
        }
        tail.settle(found, lanes);
        if ending.cut && end_of(found) >= ending.file {
            // More may have stood behind.
            tail.end_unknown = [true; MAX_LANES];
        }
    }
    if group.is_empty() && ending.cut && ending.file <= FRAMES_AT {
        tail.end_unknown = [true; MAX_LANES];
    }
    tail
}

impl Tail {
    fn settle(&mut self, found: &Found, lanes: &mut [LaneState]) {
        match found {
            Found::Frame { offset, frame, repaired } => {
                self.end = offset + frame.extent();
                if *repaired {
                    self.damage
                        .push((super::shared::edges(*offset, frame), "header or footer of a frame, which is whole otherwise"));
                }
                self.end_unknown[usize::from(frame.lane)] = false;
                if let Some(lane) = lanes.get_mut(usize::from(frame.lane))
                    && frame.first >= lane.next
                {
                    lane.accepted += frame.last() + 1 - lane.next;
                    (lane.next, lane.chain) = (frame.last() + 1, frame.chain);
                }
            }
            Found::Bad(bad) => {
                self.end = bad.offset + bad.bytes;
                self.damage.push((bad.clone(), "frame"));
                let Some(frame) = &bad.frame else {
                    self.end_unknown = [true; MAX_LANES];
                    return;
                };
                if let Some(lane) = lanes.get_mut(usize::from(frame.lane))
                    && frame.first >= lane.next
                {
                    lane.accepted += frame.last() + 1 - lane.next;
                    lane.chain = gap_chain(lane.chain, lane.next, frame.last());
                    lane.next = frame.last() + 1;
                }
            }
        }
    }
}

fn offset_of(found: &Found) -> u64 {
    match found {
        Found::Frame { offset, .. } => *offset,
        Found::Bad(bad) => bad.offset,
    }
}

fn end_of(found: &Found) -> u64 {
    match found {
        Found::Frame { offset, frame, .. } => offset + frame.extent(),
        Found::Bad(bad) => bad.offset + bad.bytes,
    }
}

/// Whether pieces of it were never written.
fn was_cut_short<F: DiskFile>(scanner: &mut Scanner<F>, bad: &Bad, ending: Ending) -> bool {
    // Of a file that was cut, the last piece is not whole and tells nothing.
    let end = if ending.cut { ending.file / SECTOR * SECTOR } else { ending.file };
    let there = |len: u64| len.min(bad.bytes).min(end.saturating_sub(bad.offset)) as usize;
    if let Some(frame) = &bad.frame {
        return empty_pieces(scanner.bytes(bad.offset, there(bad.bytes)), bad.offset) > u64::from(frame.empty);
    }
    let head = EDGE.min(bad.bytes as usize);
    looks_empty(scanner.bytes(bad.offset, head)) || empty_pieces(scanner.bytes(bad.offset, there(head as u64)), bad.offset) > 0
}

/// How many bytes of it are not the zeros of what was never written.
fn written<F: DiskFile>(scanner: &mut Scanner<F>, found: &Found) -> u64 {
    let (offset, bytes) = match found {
        Found::Frame { frame, .. } => return frame.extent(),
        Found::Bad(bad) => (bad.offset, bad.bytes),
    };
    let (mut at, mut last) = (0, 0);
    while at < bytes {
        let piece = scanner.bytes(offset + at, (bytes - at).min(64 * 1024) as usize);
        if piece.is_empty() {
            break;
        }
        last = piece.iter().rposition(|byte| *byte != 0).map_or(last, |index| at + index as u64 + 1);
        at += piece.len() as u64;
    }
    last
}
