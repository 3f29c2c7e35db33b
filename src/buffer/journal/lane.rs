//! One lane as its drain sees it: a reader over the log, and what was read and is not settled.
//!
//! In: positions of the database. Out: frames behind them, in order, and gaps where frames are missing. A crash loses nothing: the
//! next attach starts from the database's cursor again.

use std::{
    io,
    sync::{Arc, mpsc},
};

use super::{Found, Item, LaneReader, Shared, disk::Disk};
use crate::{
    buffer::{Attached, Frame, Gap, GapKind, Position, Work},
    domain::{batch::Batch, receipt::StreamId},
};

/// Bytes of readings that one transaction of the database is given, about: three times what 20,000 ordinary ones take. Wide ones are fewer at once.
const MOST_BYTES: usize = 4 * 1024 * 1024;

pub(super) struct LaneSide<D: Disk> {
    shared: Arc<Shared<D>>,
    lane: usize,
    reader: LaneReader<D>,
    /// Read, and not handed out: it did not fit to what came before.
    held: Option<Item>,
    /// Last number and chain handed out; the reader stands behind them.
    at: (u64, u64),
    /// Last number and chain that were settled, to go back to.
    settled: (u64, u64),
    /// Ends of what was handed out and is not settled: number and chain.
    ends: Vec<(u64, u64)>,
    /// The reader does not stand where it should: seek before reading.
    astray: bool,
    /// A gap before the first frame that is left, to hand out first.
    missing: Option<Gap>,
    /// A fork that the commit thread has begun and not answered.
    pub(super) forking: Option<Forking>,
}

/// A fork under way.
pub(super) struct Forking {
    pub(super) from: StreamId,
    pub(super) to: StreamId,
    pub(super) answer: mpsc::Receiver<io::Result<()>>,
}

impl<D: Disk> LaneSide<D> {
    pub(super) fn new(shared: &Arc<Shared<D>>, lane: usize) -> Self {
        Self {
            shared: shared.clone(),
            lane,
            reader: LaneReader::new(shared.clone(), lane),
            held: None,
            at: (0, 0),
            settled: (0, 0),
            ends: Vec::new(),
            astray: true,
            missing: None,
            forking: None,
        }
    }

    /// Looks for the database's position. `None`: it is nowhere in this log.
    pub(super) fn attach(&mut self, position: &Position) -> io::Result<Option<Attached>> {
        self.held = None;
        self.missing = None;
        self.ends.clear();
        self.settled = (position.cursor_seq, position.cursor_chain);
        self.at = self.settled;
        self.astray = true;
        let found = self.reader.seek_after(position.cursor_seq, position.cursor_chain)?;
        self.astray = false;
        Ok(match found {
            Found::At => Some(Attached::Resumed),
            Found::Behind { first } => {
                let missing = first - 1 - position.cursor_seq;
                // What follows starts from a chain that only it knows; where nothing does, from the log's own.
                self.held = self.reader.next()?;
                let chain = match &self.held {
                    Some(Item::Frame { prev_chain, .. }) => *prev_chain,
                    Some(Item::Gap { .. }) => position.cursor_chain,
                    None => self.shared.lanes().get(self.lane).map_or(0, |state| state.chain),
                };
                self.missing = Some(Gap {
                    first_seq: position.cursor_seq + 1,
                    last_seq: first - 1,
                    kind: GapKind::Lost,
                    acknowledged: missing,
                    chain_before: position.cursor_chain,
                    chain,
                });
                Some(Attached::StoreRestored { missing })
            }
            Found::Elsewhere => None,
        })
    }

    /// Numbers begin anew; the database will say where it stands in the new stream.
    pub(super) fn forked(&mut self) {
        self.settled = (0, 0);
        self.at = (0, 0);
        self.held = None;
        self.ends.clear();
        self.astray = true;
    }

    /// The database has taken everything up to `last_seq`.
    pub(super) fn settled(&mut self, last_seq: u64) {
        let done = self.ends.partition_point(|(end, _)| *end <= last_seq);
        if let Some(last) = self.ends.drain(..done).next_back() {
            self.settled = last;
        }
    }

    pub(super) fn next(&mut self, max_rows: u32) -> io::Result<Work> {
        if self.astray {
            self.held = None;
            self.ends.clear();
            self.at = self.settled;
            if !matches!(self.reader.seek_after(self.at.0, self.at.1)?, Found::At) {
                return Err(io::Error::other("the journal does not hold what it held before"));
            }
            self.astray = false;
        }
        if let Some(gap) = self.missing.take() {
            self.handed_out(gap.last_seq, gap.chain);
            return Ok(Work::Gap(gap));
        }
        let work = self.read(max_rows);
        if work.is_err() {
            // Some of it may have been read already.
            self.astray = true;
        }
        work
    }

    fn handed_out(&mut self, last_seq: u64, chain: u64) {
        self.at = (last_seq, chain);
        self.ends.push(self.at);
    }

    fn read(&mut self, max_rows: u32) -> io::Result<Work> {
        let mut frames = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while rows < max_rows && bytes < MOST_BYTES {
            let item = match self.held.take() {
                Some(item) => Some(item),
                None => self.reader.next()?,
            };
            match item {
                None => break,
                Some(Item::Gap { first_seq, last_seq, kind, chain }) => {
                    if !frames.is_empty() {
                        self.held = Some(Item::Gap { first_seq, last_seq, kind, chain });
                        break;
                    }
                    let kind = match kind {
                        super::GapKind::Quarantined => GapKind::Quarantined,
                        super::GapKind::Void => GapKind::Void,
                    };
                    let gap =
                        Gap { first_seq, last_seq, kind, acknowledged: last_seq + 1 - first_seq, chain_before: self.at.1, chain };
                    self.handed_out(last_seq, chain);
                    return Ok(Work::Gap(gap));
                }
                Some(Item::Frame { first_seq, rows: count, chain, prev_chain, received_at_us, payload }) => {
                    // Checksums passed, so only another version of belayd can have written what is no batch; it is kept and tried again.
                    let batch = Batch::from_bytes(received_at_us, count, payload).map_err(io::Error::other)?;
                    rows += count;
                    bytes += batch.bytes().len();
                    // A stream begins at 0 for the database, also where its log went on from another one.
                    let chain_before = if first_seq == 1 { 0 } else { prev_chain };
                    let frame = Frame { first_seq, batch, chain_before, chain };
                    self.handed_out(frame.last_seq(), chain);
                    frames.push(frame);
                }
            }
        }
        Ok(if frames.is_empty() { Work::Nothing } else { Work::Frames(frames) })
    }
}

/// The lane's frames with a number from `first` to `last`, in order, by a reader of their own: where the drain stands is not touched.
///
/// # Errors
/// What the disk says.
pub(super) fn frames_of<D: Disk>(shared: &Arc<Shared<D>>, lane: usize, first: u64, last: u64) -> io::Result<Vec<Frame>> {
    let mut reader = LaneReader::new(shared.clone(), lane);
    reader.rewind();
    let mut frames = Vec::new();
    while let Some(item) = reader.next()? {
        let Item::Frame { first_seq, rows, chain, prev_chain, received_at_us, payload } = item else { continue };
        if first_seq > last {
            break;
        }
        if first_seq + u64::from(rows) > first {
            let batch = Batch::from_bytes(received_at_us, rows, payload).map_err(io::Error::other)?;
            frames.push(Frame { first_seq, batch, chain_before: prev_chain, chain });
        }
    }
    Ok(frames)
}
