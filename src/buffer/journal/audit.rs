//! What the journal holds of each lane, compared with the books: a whole frame for every number that waits for the database, up to the last
//! that was durable when the comparison began.
//!
//! In: frames, a step at a time, over files that are opened apart from the drain's and the scrub's. Out: numbers that wait and have no frame:
//! a file that was removed, exchanged or put back from a backup, or damage that nothing has come to yet. Numbers that the log itself says were
//! given up are none, nor are those that the database has: the journal lets them go, segment by segment, also while it is compared. A crash
//! loses the place. It changes nothing; whole frames are not told from the scrub's, which reports what is damaged and where.

use std::{io, sync::Arc};

use super::{
    LaneState,
    disk::{Disk, DiskFile},
    scan::{Found, Scanner},
    segment::FRAMES_AT,
    shared::{SegmentView, Shared},
};
use crate::{
    buffer::audit::{Absent, Audit, Audited},
    domain::receipt::StreamId,
};

/// Bytes of one step: about 0.1 ms of processor where they lie in memory.
const STEP_BYTES: u64 = 256 * 1024;

/// A lane's stream, and the last number of it that the database has.
pub(super) type Settled = Box<dyn Fn(usize) -> (StreamId, u64) + Send>;

/// A segment on its way through.
struct Walk<F> {
    view: SegmentView,
    /// Where it goes on.
    at: u64,
    /// `None` once it has rested: nobody keeps a removed file's room for an hour.
    scanner: Option<Scanner<F>>,
}

/// See the module.
pub(super) struct JournalAudit<D: Disk> {
    shared: Arc<Shared<D>>,
    settled: Settled,
    /// Where the lanes stood at the beginning: what has come since is not waited for.
    until: Vec<LaneState>,
    /// The position that comes next in each lane.
    next: Vec<u64>,
    /// Number of the last segment that was read through.
    done: u64,
    walk: Option<Walk<D::File>>,
    found: Audited,
}

impl<D: Disk> JournalAudit<D> {
    pub(super) fn begin(shared: Arc<Shared<D>>, settled: Settled) -> Self {
        let until = shared.lanes();
        let next = (0..until.len()).map(|lane| until[lane].base + shared.first_retained(lane)).collect();
        let found = Audited { streams: until.len() as u64, ..Audited::default() };
        Self { shared, settled, until, next, done: 0, walk: None, found }
    }

    /// The next segment, with what its header says; `None` behind the last.
    fn turn_over(&mut self) -> Option<Walk<D::File>> {
        let view = self.shared.lock().segments.iter().find(|segment| segment.number > self.done).cloned()?;
        if let Some(start) = &view.start {
            for (lane, state) in start.iter().enumerate() {
                for void in view.voids.iter().filter(|void| usize::from(void.lane) == lane) {
                    self.reach(lane, void.first);
                    self.pass(lane, void.last + 1);
                }
                self.reach(lane, state.next);
            }
        }
        Some(Walk { view, at: FRAMES_AT, scanner: None })
    }

    /// Numbers of `lane` before position `at` are behind: those that were not there are absent.
    fn reach(&mut self, lane: usize, at: u64) {
        let (Some(next), Some(until)) = (self.next.get(lane).copied(), self.until.get(lane).copied()) else { return };
        let (from, to) = (next.max(until.base + 1), at.min(until.next));
        if from < to {
            // A lane whose numbers were begun anew meanwhile has let these go.
            let (stream, settled) = (self.settled)(lane);
            let settled = if stream == until.stream { settled } else { u64::MAX };
            let (first, last) = ((from - until.base).max(settled.saturating_add(1)), to - 1 - until.base);
            if first <= last {
                self.found.add(Absent { stream: until.stream, first, last, waiting: last + 1 - first, whole: false });
            }
        }
        self.pass(lane, at);
    }

    fn pass(&mut self, lane: usize, at: u64) {
        if let Some(next) = self.next.get_mut(lane) {
            *next = at.max(*next);
        }
    }

    /// A step through a segment. Returns whether there is more of it.
    fn read(&mut self, walk: &mut Walk<D::File>) -> Result<bool, String> {
        if walk.scanner.is_none() {
            let shared = &self.shared;
            let file = match shared.disk().open_read(&walk.view.name) {
                Ok(file) => file,
                // Trimmed meanwhile; or somebody removed it, and what waits in it is missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound && (!shared.holds(walk.view.number) || shared.is_there()) => {
                    return Ok(false);
                }
                Err(error) => return Err(format!("the journal cannot be read now: {error}")),
            };
            let end = walk.view.end.min(file.len().unwrap_or(walk.view.end));
            walk.scanner = Some(Scanner::new(file, walk.view.seed, walk.at, end));
        }
        let Some(scanner) = &mut walk.scanner else { return Ok(false) };
        let from = walk.at;
        while walk.at < from + STEP_BYTES {
            let found = scanner.step(None);
            if scanner.unreadable > 0 {
                let said = scanner.said.take().map_or_else(String::new, |error| format!(": {error}"));
                return Err(format!("the disk does not give a part of the journal now{said}"));
            }
            walk.at = scanner.offset();
            match found {
                Some(Found::Frame { frame, .. }) => {
                    let lane = usize::from(frame.lane);
                    self.reach(lane, frame.first);
                    self.pass(lane, frame.last() + 1);
                    self.found.readings += u64::from(frame.rows);
                }
                // Its numbers are missing before whatever comes next.
                Some(Found::Bad(_)) => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether there is more to read.
    fn slice(&mut self) -> Result<bool, String> {
        let Some(mut walk) = self.walk.take().or_else(|| self.turn_over()) else {
            for lane in 0..self.until.len() {
                self.reach(lane, self.until[lane].next);
            }
            return Ok(false);
        };
        if self.read(&mut walk)? {
            self.walk = Some(walk);
        } else {
            self.done = walk.view.number;
        }
        Ok(true)
    }
}

impl<D: Disk> Audit for JournalAudit<D> {
    fn step(&mut self) -> Result<Option<Audited>, String> {
        Ok(if self.slice()? { None } else { Some(std::mem::take(&mut self.found)) })
    }

    fn rest(&mut self) {
        if let Some(walk) = &mut self.walk {
            walk.scanner = None;
        }
    }

    fn readings(&self) -> u64 {
        self.found.readings
    }
}
