//! Reads one lane's frames in order, from another thread than the writer, only what is durable.
//!
//! In: what [`Shared`] says is durable. Out: frames, and gaps where numbers have no frame any more. Each lane has a reader of its own,
//! which walks over the others' frames without looking into them. It keeps its place in memory only: after a crash the database says
//! where to go on ([`LaneReader::seek_after`]).
//!
//! What the disk does not give is an error at first, and asked for again: a path that is away for a moment is no damage. Only what has
//! been refused for [`READ_PATIENCE`](super::patience::READ_PATIENCE) is given up, and its segment is then kept whole ([`Shared::keep`]).

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{
    disk::{Disk, DiskFile},
    frame::Frame,
    patience::Failing,
    scan::{self, Scanner},
    segment::{FRAMES_AT, Void},
    shared::{SegmentView, Shared, edges},
};

/// Why numbers have no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// The frames were damaged, or their segment is missing.
    Quarantined,
    /// Given up after a sync that failed; nobody was told that they are safe.
    Void,
}

/// What comes next in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Readings.
    Frame {
        /// Number of the first, in the lane's current stream.
        first_seq: u64,
        /// How many.
        rows: u32,
        /// The chain before.
        prev_chain: u64,
        /// The chain after.
        chain: u64,
        /// When they were received, microseconds since the epoch.
        received_at_us: i64,
        /// As appended.
        payload: Bytes,
    },
    /// Numbers without readings.
    Gap {
        /// Number of the first.
        first_seq: u64,
        /// Number of the last, inclusive.
        last_seq: u64,
        /// Why.
        kind: GapKind,
        /// The chain that what follows starts from.
        chain: u64,
    },
}

/// Where a cursor stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The log holds what follows it; the reader stands there.
    At,
    /// The log begins later, with this number; the reader stands there.
    Behind {
        /// The first number that is held.
        first: u64,
    },
    /// Beyond the end, inside a frame, or with another past. The reader stands at the beginning.
    Elsewhere,
}

/// See the module.
#[derive(Debug)]
pub struct LaneReader<D: Disk> {
    shared: Arc<Shared<D>>,
    lane: usize,
    /// Position that comes next; 0 before the first.
    expected: u64,
    at: Option<At<D::File>>,
    /// Number of the last segment that was finished.
    finished: u64,
    /// A frame that waits behind a gap.
    waiting: Option<(u64, Frame)>,
    /// Numbers before a segment's beginning that have no frame.
    owed: Option<Owed>,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Owed {
    next: u64,
    chain: u64,
    voids: Vec<Void>,
}

#[derive(Debug)]
struct At<F> {
    view: SegmentView,
    scanner: Scanner<F>,
    /// Position with which the next segment that has a header goes on. What stands here from there on was given up, and the header that
    /// told where this segment ends is lost. What was given up before that position is not told from what counts.
    until: u64,
    /// Of the scanner's unreadable pieces those that have been taken note of.
    noted: u64,
}

impl<D: Disk> LaneReader<D> {
    /// A reader at the beginning of what is held.
    pub fn new(shared: Arc<Shared<D>>, lane: usize) -> Self {
        Self { shared, lane, expected: 0, at: None, finished: 0, waiting: None, owed: None, failing: None }
    }

    /// Back to the beginning of what is held: the first number of the current stream, or the first that is left of it.
    pub fn rewind(&mut self) {
        (self.expected, self.at, self.finished, self.waiting, self.owed) = (0, None, 0, None, None);
        let state = self.shared.lock();
        let Some(now) = state.lanes.get(self.lane) else { return };
        let first = state.segments.first().and_then(|view| view.start.as_ref()).and_then(|start| start.get(self.lane));
        let first = first.map_or(1, |start| start.next);
        self.expected = first.max(now.base + 1);
        // The last segment that begins before it.
        let until =
            state.segments.iter().rposition(|view| start_of(view, self.lane).is_some_and(|(next, _)| next <= self.expected));
        self.finished = until.and_then(|index| state.segments[..index].last()).map_or(0, |view| view.number);
    }

    /// Goes to what follows `cursor`, the last settled number of the lane's current stream, if `chain` is the chain after it.
    ///
    /// # Errors
    /// As [`LaneReader::next`].
    pub fn seek_after(&mut self, cursor: u64, chain: u64) -> io::Result<Found> {
        self.rewind();
        let (base, end) = {
            let state = self.shared.lock();
            let Some(now) = state.lanes.get(self.lane) else { return Ok(Found::Elsewhere) };
            (now.base, *now)
        };
        let first = self.expected;
        let wanted = base.saturating_add(cursor).saturating_add(1);
        if cursor == 0 && first == base + 1 {
            // Nothing of this stream is settled: there is no past to compare.
            return Ok(Found::At);
        }
        if wanted < first {
            return Ok(Found::Behind { first: first - base });
        }
        if wanted >= end.next {
            if wanted == end.next && chain == end.chain {
                self.expected = wanted;
                self.skip_to_end();
                return Ok(Found::At);
            }
            return Ok(Found::Elsewhere);
        }
        if self.find(wanted, chain)? {
            self.expected = wanted;
            return Ok(Found::At);
        }
        self.rewind();
        Ok(Found::Elsewhere)
    }

    /// The next frame or gap; `None` where everything durable has been read.
    ///
    /// # Errors
    /// A segment, or a part of it, that should be there cannot be read. The same call comes again; after [`READ_PATIENCE`](super::patience::READ_PATIENCE) it is damage.
    #[allow(clippy::should_implement_trait)] // it can fail, and it can have more after it had none
    pub fn next(&mut self) -> io::Result<Option<Item>> {
        if self.expected == 0 {
            self.rewind();
        }
        loop {
            if let Some(owed) = &self.owed {
                if owed.next > self.expected {
                    let void = owed.voids.iter().find(|void| self.concerns(void, owed.next)).copied();
                    let (next, chain) = (owed.next, owed.chain);
                    return Ok(Some(self.gap(next, chain, void)));
                }
                self.owed = None;
            }
            if let Some((offset, frame)) = self.waiting.take() {
                return self.take(offset, frame);
            }
            if self.at.is_none() {
                if self.enter()? {
                    continue;
                }
                return Ok(None);
            }
            let found = self.step(Some(self.lane as u8))?;
            let Some(at) = &mut self.at else { return Ok(None) };
            match found {
                Some(scan::Found::Frame { frame, .. })
                    if usize::from(frame.lane) != self.lane || frame.first < self.expected || frame.last() >= at.until => {}
                Some(scan::Found::Frame { offset, frame, repaired }) => {
                    if repaired {
                        let what = "header or footer of a frame, which is whole otherwise";
                        self.shared.report(&at.view, &mut at.scanner, &edges(offset, &frame), what);
                    }
                    if frame.first > self.expected {
                        self.waiting = Some((offset, frame));
                        return Ok(Some(self.gap(frame.first, frame.prev_chain, None)));
                    }
                    return self.take(offset, frame);
                }
                Some(scan::Found::Bad(bad)) => self.shared.report(&at.view, &mut at.scanner, &bad, "frame"),
                None => match self.refresh() {
                    Refreshed::More => {}
                    Refreshed::End { next, chain } => return Ok(self.end(next, chain)),
                },
            }
        }
    }

    /// Walks to the position in the segment that holds it; `false` where it does not fit what stands there.
    fn find(&mut self, wanted: u64, chain: u64) -> io::Result<bool> {
        let (before, start) = {
            let state = self.shared.lock();
            let place = state.segments.iter().rposition(|view| start_of(view, self.lane).is_some_and(|(next, _)| next <= wanted));
            let before = place.and_then(|place| state.segments[..place].last()).map_or(0, |view| view.number);
            (before, place.and_then(|place| start_of(&state.segments[place], self.lane)))
        };
        self.finished = before;
        if let Some((next, past)) = start
            && next == wanted
            && wanted > 1
        {
            return Ok(past == chain);
        }
        self.enter()?;
        self.owed = None;
        if self.at.is_none() {
            return Ok(false);
        }
        // No lane has this number, so that only headers are looked at.
        while let Some(found) = self.step(Some(u8::MAX))? {
            let scan::Found::Frame { offset, frame, .. } = found else { continue };
            if usize::from(frame.lane) != self.lane || frame.last() + 1 < wanted {
                continue;
            }
            if frame.last() + 1 == wanted {
                return Ok(frame.chain == chain);
            }
            if let Some(at) = &mut self.at {
                at.scanner.seek(offset);
            }
            // Inside a frame it is none of ours; inside a gap there is nothing to compare.
            return Ok(frame.first > wanted || (frame.first == wanted && frame.prev_chain == chain));
        }
        Ok(true)
    }

    /// Goes to the end without reading what lies before.
    fn skip_to_end(&mut self) {
        let state = self.shared.lock();
        let Some((last, before)) = state.segments.split_last() else { return };
        self.finished = before.last().map_or(0, |view| view.number);
        let view = last.clone();
        drop(state);
        // Where it cannot be opened now, the next call says so.
        if let Ok(file) = self.shared.disk.open_read(&view.name) {
            let scanner = Scanner::new(file, view.seed, view.end, view.end);
            self.at = Some(At { view, scanner, until: u64::MAX, noted: 0 });
        }
    }

    /// At the end of what was known of this segment: more of it, or on to the next.
    fn refresh(&mut self) -> Refreshed {
        let Some(at) = &mut self.at else { return Refreshed::More };
        let state = self.shared.lock();
        let place = state.segments.partition_point(|view| view.number < at.view.number);
        let now = state.segments.get(place).filter(|view| view.number == at.view.number);
        if let Some(now) = now
            && now.end > at.view.end
        {
            at.view.end = now.end;
            at.scanner.set_end(now.end);
            return Refreshed::More;
        }
        if state.segments.last().is_some_and(|view| view.number > at.view.number) {
            self.finished = at.view.number;
            drop(state);
            self.at = None;
            return Refreshed::More;
        }
        state
            .lanes
            .get(self.lane)
            .map_or(Refreshed::End { next: 0, chain: 0 }, |lane| Refreshed::End { next: lane.next, chain: lane.chain })
    }

    /// The next thing in the segment. An error where the disk does not give what is needed to tell; the reader stands where it stood.
    fn step(&mut self, only: Option<u8>) -> io::Result<Option<scan::Found>> {
        let Some(at) = &mut self.at else { return Ok(None) };
        let (number, offset, before) = (at.view.number, at.scanner.offset(), at.scanner.unreadable);
        let given_up = self.failing.is_some_and(|failing| failing.given_up && failing.segment == number);
        // A disk that takes long for each refusal is asked for one block a call, so that the patience counts from the first on.
        at.scanner.be_brief(!given_up);
        if before != at.noted && !given_up {
            // What is held may have filler in it that nobody has judged.
            at.scanner.restart(offset);
        }
        at.noted = before;
        let found = at.scanner.step(only);
        if at.scanner.unreadable == before {
            // Read past the place that failed: the next failure is another one. Who looks at headers only has not read it.
            if only != Some(u8::MAX)
                && self
                    .failing
                    .is_some_and(|failing| !failing.given_up && failing.segment == number && failing.offset < at.scanner.offset())
            {
                self.failing = None;
            }
            return Ok(found);
        }
        if matches!(found, Some(scan::Found::Frame { repaired: false, .. })) {
            // Its checksums hold; what failed lies elsewhere in the piece that was read.
            return Ok(found);
        }
        let said = at.scanner.said.take().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO));
        let patience = self.be_patient(number, offset, said);
        let Some(at) = &mut self.at else { return Ok(None) };
        if given_up || patience.is_err() {
            if patience.is_err() {
                at.scanner.restart(offset);
                at.scanner.forget_refusals();
            }
            return patience.map(|()| found);
        }
        // From now on what cannot be read is damage. So far not all that was needed was asked for: now it is.
        self.shared.keep(number);
        at.scanner.be_brief(false);
        at.scanner.restart(offset);
        Ok(at.scanner.step(only))
    }

    fn be_patient(&mut self, segment: u64, offset: u64, error: io::Error) -> io::Result<()> {
        Failing::again(&mut self.failing, self.shared.disk.now(), segment, offset, error)
    }

    /// Opens the next segment. What its header says that is missing before it is owed. `false` where there is none.
    fn enter(&mut self) -> io::Result<bool> {
        loop {
            let (view, until) = {
                let state = self.shared.lock();
                let place = state.segments.partition_point(|view| view.number <= self.finished);
                let Some((view, later)) = state.segments.get(place..).and_then(<[_]>::split_first) else { return Ok(false) };
                let goes_on = |view: &SegmentView| view.start.as_ref()?.get(self.lane).map(|start| start.next);
                let until = later.iter().find_map(goes_on).unwrap_or(u64::MAX);
                (view.clone(), until)
            };
            match self.shared.disk.open_read(&view.name) {
                Ok(file) => {
                    let end = view.end.min(file.len().unwrap_or(view.end));
                    let scanner = Scanner::new(file, view.seed, FRAMES_AT, end);
                    let owed = |(next, chain)| Owed { next, chain, voids: view.voids.clone() };
                    self.owed = start_of(&view, self.lane).map(owed);
                    self.at = Some(At { view, scanner, until, noted: 0 });
                    return Ok(true);
                }
                // Dropped since, because everything in it is settled.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.shared.holds(view.number) => {
                    self.finished = view.number;
                }
                // All of it is away, as when a file system is not mounted: nothing can be said of one segment, however long it lasts.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.shared.is_there() => return Err(error),
                Err(error) => {
                    self.be_patient(view.number, 0, error)?;
                    self.shared.keep(view.number);
                    self.shared.report_unopened(&view);
                    self.finished = view.number;
                }
            }
        }
    }

    /// Nothing more is held; numbers at the very end may have no frame.
    fn end(&mut self, next: u64, chain: u64) -> Option<Item> {
        (next > self.expected).then(|| self.gap(next, chain, None))
    }

    fn concerns(&self, void: &Void, next: u64) -> bool {
        usize::from(void.lane) == self.lane && void.last >= self.expected && void.first < next
    }

    fn base(&self) -> u64 {
        self.shared.lock().lanes.get(self.lane).map_or(0, |lane| lane.base)
    }

    /// Numbers up to `next` have no frame. Where only a part of them was given up, that part, or what lies before it, comes first.
    fn gap(&mut self, next: u64, chain: u64, void: Option<Void>) -> Item {
        let (next, kind) = match void {
            Some(void) if void.first <= self.expected => (next.min(void.last + 1), GapKind::Void),
            Some(void) => (void.first, GapKind::Quarantined),
            None => (next, GapKind::Quarantined),
        };
        let base = self.base();
        let first_seq = self.expected.saturating_sub(base);
        self.expected = next;
        Item::Gap { first_seq, last_seq: (next - 1).saturating_sub(base), kind, chain }
    }

    fn take(&mut self, offset: u64, frame: Frame) -> io::Result<Option<Item>> {
        let base = self.base();
        let Some(at) = self.at.as_mut() else { return Ok(None) };
        let before = at.scanner.unreadable;
        let payload = Bytes::copy_from_slice(at.scanner.payload(offset, &frame));
        if at.scanner.unreadable != before && !frame.holds(&payload) {
            // It was whole a moment ago; what is held now is none of its bytes.
            at.scanner.restart(offset);
            at.scanner.forget_refusals();
            return Err(at.scanner.said.take().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO)));
        }
        self.expected = frame.last() + 1;
        Ok(Some(Item::Frame {
            first_seq: frame.first.saturating_sub(base),
            rows: frame.rows,
            prev_chain: frame.prev_chain,
            chain: frame.chain,
            received_at_us: frame.received_at_us,
            payload,
        }))
    }
}

enum Refreshed {
    More,
    End { next: u64, chain: u64 },
}

/// Where a lane stood when the segment was begun; `None` where its header is lost.
fn start_of(view: &SegmentView, lane: usize) -> Option<(u64, u64)> {
    let start = view.start.as_ref()?;
    // A lane that was added later had nothing then.
    Some(start.get(lane).map_or((1, 0), |start| (start.next, start.chain)))
}
