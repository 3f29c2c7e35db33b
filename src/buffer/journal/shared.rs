//! What the writer has made durable, for readers on other threads.
//!
//! In: from the writer, after each sync: segments, where they end, where the lanes stand. Out: to readers, the same in one consistent
//! look; from readers, damage that they found. A crash loses nothing: [`super::recover`] builds it anew from the files.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    LaneState,
    disk::{Disk, DiskFile},
    quarantine,
    scan::{Bad, Found, Scanner},
    segment::{Earlier, FRAMES_AT, Void},
};
use crate::domain::receipt::StreamId;

/// Most reports of damage that wait to be taken; more are counted only.
const MAX_DAMAGE: usize = 256;

/// Most places of damage that are remembered, so that each is told once.
const MAX_SEEN: usize = 16 * MAX_DAMAGE;

/// A stretch of a segment that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number; 0 where it is not known.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
    /// Length; 0 where it is not there at all.
    pub bytes: u64,
    /// For a person: what is wrong.
    pub what: &'static str,
    /// Where the damaged bytes were put, below the journal directory; `None` where that was not possible.
    pub quarantine_file: Option<String>,
    /// Lane, first and last position of the readings in it, where a whole header or footer tells.
    pub readings: Option<(u8, u64, u64)>,
}

/// A segment as readers see it.
#[derive(Clone, Debug)]
pub(super) struct SegmentView {
    pub(super) number: u64,
    pub(super) name: String,
    /// What every checksum in it is seeded with.
    pub(super) seed: u64,
    /// Where every lane stood when it was begun; `None` where its header is lost.
    pub(super) start: Option<Vec<LaneState>>,
    /// Numbers given up before it.
    pub(super) voids: Vec<Void>,
    /// Where its durable frames end.
    pub(super) end: u64,
    /// Bytes on the disk.
    pub(super) allocated: u64,
}

#[derive(Debug)]
pub(super) struct State {
    /// Rising by number.
    pub(super) segments: Vec<SegmentView>,
    /// Where the lanes stand, as far as durable; numbers given up are behind.
    pub(super) lanes: Vec<LaneState>,
    pub(super) earlier: Vec<Earlier>,
    damage: Vec<Damage>,
    /// Places that were reported already, by whichever lane's reader came first.
    seen: BTreeSet<(u64, u64)>,
    /// Segments that could not be read whole: they are set aside, not removed, when their turn comes.
    kept: BTreeSet<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct Shared<D: Disk> {
    pub(super) disk: D,
    state: Mutex<State>,
}

/// What a look at one segment found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Whole frames.
    pub frames: u64,
    /// Readings in them.
    pub readings: u64,
    /// Stretches that are not whole.
    pub damaged: u64,
    /// Bytes read.
    pub bytes: u64,
    /// The disk did not give a part of it, and the rest was left for another time.
    pub left: bool,
}

impl<D: Disk> Shared<D> {
    pub(super) fn new(disk: D, segments: Vec<SegmentView>, lanes: Vec<LaneState>, earlier: Vec<Earlier>) -> Self {
        let state = State { segments, lanes, earlier, damage: Vec::new(), seen: BTreeSet::new(), kept: BTreeSet::new() };
        Self { disk, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below the lock is complete at each point where it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the lanes stand, as far as durable.
    pub fn lanes(&self) -> Vec<LaneState> {
        self.lock().lanes.clone()
    }

    /// The disk below, for its free bytes.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Damage that readers and scrubs have found since the last call.
    pub fn take_damage(&self) -> Vec<Damage> {
        std::mem::take(&mut self.lock().damage)
    }

    /// Numbers of the segments, rising. The last is the one being written.
    pub fn segments(&self) -> Vec<u64> {
        self.lock().segments.iter().map(|segment| segment.number).collect()
    }

    /// What an earlier stream's number is called now: lane and number in the lane's current stream. `None` where the stream is not
    /// remembered, or the reading was settled before the fork.
    pub fn renumbered(&self, stream: StreamId, seq: u64) -> Option<(u8, u64)> {
        let state = self.lock();
        let earlier = state.earlier.iter().rev().find(|earlier| earlier.stream == stream)?;
        let position = earlier.base.checked_add(seq).filter(|position| *position < earlier.until)?;
        let base = state.lanes.get(usize::from(earlier.lane))?.base;
        position.checked_sub(base).filter(|seq| *seq > 0).map(|seq| (earlier.lane, seq))
    }

    /// The streams of the lane that `stream` numbers now, before it.
    pub fn earlier(&self, stream: StreamId) -> Vec<StreamId> {
        let state = self.lock();
        let Some(lane) = state.lanes.iter().position(|lane| lane.stream == stream) else { return Vec::new() };
        state.earlier.iter().filter(|earlier| usize::from(earlier.lane) == lane).map(|earlier| earlier.stream).collect()
    }

    /// Whether a lane is numbered by `stream`, or went on from it.
    pub fn knows(&self, stream: StreamId) -> bool {
        let state = self.lock();
        state.lanes.iter().any(|lane| lane.stream == stream) || state.earlier.iter().any(|earlier| earlier.stream == stream)
    }

    /// Streams behind whose last known number readings may be gone, nobody knows how many: lane, stream and that number. The last
    /// [`super::segment::MAX_EARLIER`] streams are remembered.
    pub fn lost_ends(&self) -> Vec<(usize, StreamId, u64)> {
        let state = self.lock();
        let lost = state.earlier.iter().filter(|earlier| earlier.end_unknown);
        lost.map(|earlier| (usize::from(earlier.lane), earlier.stream, (earlier.until - 1).saturating_sub(earlier.base))).collect()
    }

    /// First number of a lane that is still held (or would be the next one), in its current stream.
    pub fn first_retained(&self, lane: usize) -> u64 {
        let state = self.lock();
        let Some(now) = state.lanes.get(lane) else { return 1 };
        let first = state.segments.first().and_then(|segment| segment.start.as_ref()?.get(lane)).map_or(1, |start| start.next);
        first.saturating_sub(now.base).max(1)
    }

    /// First and last numbers, in a lane's current stream, that the segments' headers say were given up.
    pub(super) fn voids(&self, lane: usize) -> Vec<(u64, u64)> {
        let state = self.lock();
        let base = state.lanes.get(lane).map_or(0, |now| now.base);
        let voids = state.segments.iter().flat_map(|segment| &segment.voids).filter(|void| usize::from(void.lane) == lane);
        voids.filter(|void| void.last > base).map(|void| (void.first.saturating_sub(base).max(1), void.last - base)).collect()
    }

    /// Reads one segment from its beginning to its durable end and reports what is damaged. Segments that are gone are clean.
    pub fn scrub(&self, number: u64) -> Scrubbed {
        self.scrub_with(number, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Shared::scrub`], with a look at each thing that is found, which may end it there.
    pub(super) fn scrub_with(&self, number: u64, look: &mut dyn FnMut(&Found) -> ControlFlow<()>) -> Scrubbed {
        self.look_through(number, false, look)
    }

    /// As [`Shared::scrub_with`]. Where it is `patient`, what the disk does not give is not told as damage: the segment is left there.
    pub(super) fn look_through(&self, number: u64, patient: bool, look: &mut dyn FnMut(&Found) -> ControlFlow<()>) -> Scrubbed {
        let mut result = Scrubbed::default();
        let view = self.lock().segments.iter().find(|segment| segment.number == number).cloned();
        let Some(view) = view else { return result };
        let Ok(file) = self.disk.open_read(&view.name) else { return result };
        let end = view.end.min(file.len().unwrap_or(view.end));
        let mut scanner = Scanner::new(file, view.seed, FRAMES_AT, end);
        while let Some(found) = scanner.step(None) {
            if patient && scanner.unreadable > 0 {
                // From here on filler stands in for what was not given.
                result.left = true;
                break;
            }
            let further = look(&found);
            match found {
                Found::Frame { frame, offset, repaired } => {
                    result.frames += 1;
                    result.readings += u64::from(frame.rows);
                    if repaired {
                        result.damaged += 1;
                        self.report(
                            &view,
                            &mut scanner,
                            &edges(offset, &frame),
                            "header or footer of a frame, which is whole otherwise",
                        );
                    }
                }
                Found::Bad(bad) => {
                    result.damaged += 1;
                    self.report(&view, &mut scanner, &bad, "frame");
                }
            }
            if further.is_break() {
                break;
            }
        }
        result.bytes = scanner.read_bytes;
        result
    }

    /// This segment could not be read whole: it is set aside, not removed, for a second look.
    pub(super) fn keep(&self, number: u64) {
        let mut state = self.lock();
        if state.segments.iter().any(|segment| segment.number == number) {
            state.kept.insert(number);
        }
    }

    /// Whether this segment is among those that are held.
    pub(super) fn holds(&self, number: u64) -> bool {
        self.lock().segments.iter().any(|view| view.number == number)
    }

    /// Whether the newest segment's file is where the log is.
    pub(super) fn is_there(&self) -> bool {
        let Some(newest) = self.lock().segments.last().map(|view| view.name.clone()) else { return true };
        self.disk.list().is_ok_and(|entries| entries.iter().any(|entry| entry.name == newest))
    }

    /// Tells of a segment that the disk has not opened for so long that its readings are given up.
    pub(super) fn report_unopened(&self, view: &SegmentView) {
        let mut state = self.lock();
        if state.seen.insert((view.number, 0)) {
            let what = "segment that the disk does not open; its readings are passed over";
            state.tell(Damage {
                segment: view.number,
                offset: 0,
                bytes: view.allocated,
                what,
                quarantine_file: None,
                readings: None,
            });
        }
    }

    /// Sets a damaged stretch aside and keeps it to be told, once.
    pub(super) fn report(
        &self,
        view: &SegmentView,
        scanner: &mut Scanner<impl super::disk::DiskFile>,
        bad: &Bad,
        what: &'static str,
    ) {
        {
            let mut state = self.lock();
            if !state.seen.insert((view.number, bad.offset)) {
                return;
            }
            if state.seen.len() > MAX_SEEN {
                // Places in segments that are gone are forgotten; that so many are left says enough, once.
                state.seen.remove(&(view.number, bad.offset));
                if state.seen.insert((u64::MAX, 0)) {
                    let what = "more places than are told one by one";
                    let readings = bad.frame.map(|frame| (frame.lane, frame.first, frame.last()));
                    let (segment, offset, bytes) = (view.number, bad.offset, bad.bytes);
                    state.tell(Damage { segment, offset, bytes, what, quarantine_file: None, readings });
                }
                return;
            }
        }
        let damage = quarantine::bytes(&self.disk, view.number, scanner, bad, what);
        self.lock().tell(damage);
    }
}

impl State {
    /// Whether a segment is kept as evidence when its readings are settled.
    pub(super) fn keeps(&self, number: u64) -> bool {
        self.kept.contains(&number)
    }

    /// Segments up to this one are gone: so is what was noted of them.
    pub(super) fn forget(&mut self, number: u64) {
        self.seen = self.seen.split_off(&(number + 1, 0));
        if self.seen.len() <= MAX_SEEN / 2 {
            self.seen.remove(&(u64::MAX, 0));
        }
        self.kept = self.kept.split_off(&(number + 1));
    }

    pub(super) fn tell(&mut self, damage: Damage) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(damage);
        }
    }
}

/// A repaired frame as a stretch to set aside.
pub(super) fn edges(offset: u64, frame: &super::frame::Frame) -> Bad {
    Bad { offset, bytes: frame.extent(), frame: Some(*frame) }
}
