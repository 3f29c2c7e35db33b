//! What the journal holds of each lane, compared with the books: a whole frame for every number that waits for the database, up to the last
//! that was durable when the comparison began.
//!
//! In: frames, a step at a time, over files that are opened apart from the drain's and the scrub's. Out: numbers that wait and have no frame:
//! a file that was removed, exchanged or put back from a backup, or damage that nothing has come to yet. Numbers that the log itself says were
//! given up are none, nor are those that the database has: the journal lets them go, segment by segment, also while it is compared. A crash
//! loses the place. It changes nothing, and says nothing of where damage is: that is the scrub's. What is missing counts if a second walk through
//! all of it misses it too.

use std::{io, sync::Arc, time::Duration};

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

/// How often what the disk does not give is asked for, and how long it is left alone before that.
const TRIES: u32 = 5;
const TRY_EVERY: Duration = Duration::from_secs(1);

/// A lane's stream, and the last number of it that the database has; `None` where the database has not been asked since the start.
pub(super) type Settled = Box<dyn Fn(usize) -> Option<(StreamId, u64)> + Send>;

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
    /// How often the disk did not give what it was asked for, in this segment.
    refused: u32,
    /// Something was missing at the first look: it is told if it still is at the second.
    suspicious: bool,
    found: Audited,
}

impl<D: Disk> JournalAudit<D> {
    pub(super) fn begin(shared: Arc<Shared<D>>, settled: Settled) -> Self {
        let until = shared.lanes();
        let next = (0..until.len()).map(|lane| until[lane].base + shared.first_retained(lane)).collect();
        let found = Audited { streams: until.len() as u64, ..Audited::default() };
        Self { shared, settled, until, next, done: 0, walk: None, refused: 0, suspicious: false, found }
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
            // A lane whose numbers were begun anew meanwhile has let these go; of one that was not compared with the database since the start
            // nobody knows what waits.
            let settled = match (self.settled)(lane) {
                Some((stream, settled)) if stream == until.stream => settled,
                _ => u64::MAX,
            };
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
    fn read(&mut self, walk: &mut Walk<D::File>) -> bool {
        if walk.scanner.is_none() {
            let shared = &self.shared;
            let file = match shared.disk().open_read(&walk.view.name) {
                Ok(file) => file,
                // Trimmed meanwhile; or somebody removed it, and what waits in it is missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
                Err(error) => {
                    self.refused(&error);
                    return self.refused < TRIES;
                }
            };
            let end = walk.view.end.min(file.len().unwrap_or(walk.view.end));
            walk.scanner = Some(Scanner::new(file, walk.view.seed, walk.at, end));
        }
        let Some(scanner) = &mut walk.scanner else { return false };
        let from = walk.at;
        while walk.at < from + STEP_BYTES {
            let found = scanner.step(None);
            if scanner.unreadable > 0 && self.refused < TRIES {
                let said = scanner.said.take().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO));
                walk.scanner = None;
                self.refused(&said);
                return true;
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
                None => return false,
            }
        }
        true
    }

    /// The disk did not give something: it may be away for a moment, and is asked again. What it does not give to the last try is missing.
    fn refused(&mut self, said: &io::Error) {
        self.refused += 1;
        if self.refused == 1 {
            log::warn!(target: "belayd::buffer", error:% = said; "the disk does not give a part of the journal; it is asked again before that counts as missing");
        }
        self.shared.disk().wait(TRY_EVERY);
    }

    /// Whether there is more to read.
    fn slice(&mut self) -> bool {
        let Some(mut walk) = self.walk.take().or_else(|| self.turn_over()) else {
            for lane in 0..self.until.len() {
                self.reach(lane, self.until[lane].next);
            }
            let doubtful = !self.found.absent.is_empty() && !self.suspicious;
            if doubtful {
                let again = Self::begin(self.shared.clone(), std::mem::replace(&mut self.settled, Box::new(|_| None)));
                *self = Self { suspicious: true, ..again };
            }
            return doubtful;
        };
        if self.read(&mut walk) {
            self.walk = Some(walk);
        } else {
            (self.done, self.refused) = (walk.view.number, 0);
        }
        true
    }
}

impl<D: Disk> Audit for JournalAudit<D> {
    fn step(&mut self) -> Result<Option<Audited>, String> {
        Ok(if self.slice() { None } else { Some(std::mem::take(&mut self.found)) })
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
