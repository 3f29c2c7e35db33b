//! One lane as its drain sees it: a reader of the stream at its front, and what was read and is not settled.
//!
//! In: positions of the database. Out: frames behind them in order, and gaps where entries are missing. The group of Redis is told what
//! was read and what was committed, for whoever looks at it from there; the place to read from is always the database's. A crash loses
//! nothing: the next reader begins at the database's cursor and takes over what the group says was being read.
//!
//! What was acknowledged and is not there any more is lost, and only said so once it is certain: the stream is sealed first, so that
//! nothing can come behind, and the same must hold a while later.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use redis::{Cmd, Value, cmd};

use super::{
    entry::{Entry, GROUP, Keys, entries, read_entries, seal, seq_of},
    link::{Link, LinkError, Server, text},
};
use crate::{
    buffer::{Frame, Gap, GapKind, Work, journal::frame::gap_chain},
    domain::receipt::StreamId,
};

/// How long entries must be missing before they count as lost.
const MISSING_FOR: Duration = Duration::from_secs(3);
/// Most bytes that are asked for at once, about.
const READ_BYTES: u64 = 1024 * 1024;
/// Most entries that are asked for at once.
const READ_ENTRIES: u64 = 512;
/// Entries of another consumer that are taken over at once.
const CLAIMED: u32 = 1_000;

/// Where the stream of the lane stands, from the books.
#[derive(Clone, Copy, Debug)]
pub(super) struct Front {
    pub(super) stream: StreamId,
    /// Last number that was acknowledged.
    pub(super) end: u64,
    /// Whether more may come.
    pub(super) writing: bool,
}

/// Why a lane has nothing to hand out.
#[derive(Debug)]
pub(super) enum ReadFailed {
    /// Redis does not answer.
    Away(LinkError),
    /// Entries that were acknowledged are missing; nothing more may be written behind them.
    Missing,
}

impl From<LinkError> for ReadFailed {
    fn from(error: LinkError) -> Self {
        Self::Away(error)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct LaneSide {
    server: Server,
    keys: Keys,
    /// The name of this reader in the group: this instance's.
    consumer: String,
    link: Option<Link>,
    stream: StreamId,
    /// Last number and chain handed out; the next read follows.
    at: (u64, u64),
    /// Last number and chain that were settled, to go back to.
    settled: (u64, u64),
    /// Ends of what was handed out and is not settled: number and chain.
    ends: Vec<(u64, u64)>,
    /// Read and not handed out.
    held: VecDeque<Entry>,
    /// The group does not stand where it should: place it before reading.
    astray: bool,
    /// Since when acknowledged entries are missing.
    missing_since: Option<Instant>,
    /// Bytes and readings of an entry, lately.
    entry_bytes: u64,
    entry_rows: u64,
}

impl LaneSide {
    pub(super) fn new(server: Server, keys: Keys, consumer: &str) -> Self {
        Self {
            server,
            keys,
            consumer: consumer.to_owned(),
            link: None,
            stream: StreamId::nil(),
            at: (0, 0),
            settled: (0, 0),
            ends: Vec::new(),
            held: VecDeque::new(),
            astray: true,
            missing_since: None,
            entry_bytes: 1_024,
            entry_rows: 16,
        }
    }

    /// The database stands there in `stream`. Redis is asked when it is read.
    pub(super) fn attach(&mut self, stream: StreamId, cursor: (u64, u64)) {
        if self.stream != stream {
            // It may lie in another slot.
            self.link = None;
            self.missing_since = None;
        }
        self.stream = stream;
        self.settled = cursor;
        self.astray = true;
    }

    /// The database has taken everything up to `last_seq`: the group is told.
    pub(super) fn settled(&mut self, last_seq: u64) {
        let done = self.ends.partition_point(|(end, _)| *end <= last_seq);
        let ids: Vec<String> = self.ends[..done].iter().map(|(end, _)| format!("{end}-0")).collect();
        let Some(last) = self.ends.drain(..done).next_back() else { return };
        self.settled = last;
        let Some(link) = &mut self.link else { return };
        // An entry that is not acknowledged in the group is only shown as pending until the next reader places it.
        if link.ask(cmd("XACK").arg(self.keys.stream(self.stream)).arg(GROUP).arg(&ids)).is_err() {
            self.link = None;
            self.astray = true;
        }
    }

    /// What comes next, at most about `max_rows` readings.
    pub(super) fn next(&mut self, front: Front, max_rows: u32) -> Result<Work, ReadFailed> {
        if front.stream != self.stream {
            return Ok(Work::Nothing);
        }
        let work = self.read(front, max_rows);
        if work.is_err() {
            // Some of it may have been read already.
            self.link = None;
            self.astray = true;
        }
        work
    }

    fn read(&mut self, front: Front, max_rows: u32) -> Result<Work, ReadFailed> {
        if self.astray {
            self.place()?;
        }
        let mut frames: Vec<Frame> = Vec::new();
        let mut rows = 0;
        while rows < max_rows && self.at.0 < front.end {
            if self.held.is_empty() {
                self.fill(u64::from(max_rows - rows))?;
            }
            match self.held.pop_front() {
                // What lies behind the end was never acknowledged by Redis.
                Some(entry) if entry.last_seq() > front.end => {
                    if front.writing {
                        self.held.push_front(entry);
                    }
                    return self.hand_out(frames, front);
                }
                // Read before, and settled meanwhile.
                Some(entry) if entry.last_seq() <= self.at.0 => {}
                Some(Entry::Whole(frame)) if frame.first_seq == self.at.0 + 1 => {
                    self.missing_since = None;
                    self.entry_bytes = frame.batch.bytes().len() as u64 + 1;
                    self.entry_rows = u64::from(frame.batch.len());
                    let frame = Frame { chain_before: self.at.1, ..frame };
                    rows += frame.batch.len();
                    self.handed_out(frame.last_seq(), frame.chain);
                    frames.push(frame);
                }
                Some(Entry::Void { first_seq, last_seq }) if first_seq <= self.at.0 + 1 && frames.is_empty() => {
                    return Ok(match self.pass_over(last_seq, GapKind::Void) {
                        // Nobody had been told of them.
                        Work::Gap(gap) => Work::Gap(Gap { acknowledged: 0, ..gap }),
                        other => other,
                    });
                }
                Some(entry) => {
                    let gap = match &entry {
                        Entry::Void { first_seq, .. } => (first_seq - 1, GapKind::Lost),
                        Entry::Whole(frame) => (frame.first_seq - 1, GapKind::Lost),
                        // Its first number is not known: up to the last it is not to be had.
                        _ => (entry.last_seq(), GapKind::Quarantined),
                    };
                    if matches!(entry, Entry::Whole(_) | Entry::Void { .. }) || !frames.is_empty() {
                        self.held.push_front(entry);
                    }
                    return if frames.is_empty() { Ok(self.pass_over(gap.0, gap.1)) } else { Ok(Work::Frames(frames)) };
                }
                None => return self.hand_out(frames, front),
            }
        }
        Ok(if frames.is_empty() { Work::Nothing } else { Work::Frames(frames) })
    }

    /// Redis has no more; there ought to be.
    fn hand_out(&mut self, frames: Vec<Frame>, front: Front) -> Result<Work, ReadFailed> {
        if !frames.is_empty() || self.at.0 >= front.end {
            return Ok(if frames.is_empty() { Work::Nothing } else { Work::Frames(frames) });
        }
        let since = *self.missing_since.get_or_insert_with(Instant::now);
        if front.writing {
            return Err(ReadFailed::Missing);
        }
        if since.elapsed() < MISSING_FOR {
            // Looked for again from the place itself: the group may have been put elsewhere.
            self.astray = true;
            return Ok(Work::Nothing);
        }
        // Sealed, so that a straggler cannot come behind; then looked for once more.
        let key = self.keys.stream(self.stream);
        let link = self.link.as_mut().ok_or_else(|| LinkError::ours("io", "no connection"))?;
        match link.ask(&seal(&key)) {
            Ok(_) => {}
            // Sealed before.
            Err(refused) if refused.definite && refused.code == "ERR" => {}
            Err(failed) => return Err(failed.into()),
        }
        let after = format!("({}-0", self.at.0);
        let answer = link.ask(cmd("XRANGE").arg(&key).arg(after).arg("+").arg("COUNT").arg(1))?;
        if entries(answer).first().is_some_and(|entry| entry.last_seq() <= front.end) {
            self.astray = true;
            return Ok(Work::Nothing);
        }
        self.missing_since = None;
        Ok(self.pass_over(front.end, GapKind::Lost))
    }

    fn pass_over(&mut self, last_seq: u64, kind: GapKind) -> Work {
        let (first_seq, chain_before) = (self.at.0 + 1, self.at.1);
        let chain = match self.held.front() {
            // What follows starts from a chain that only it knows.
            Some(Entry::Whole(frame)) if frame.first_seq == last_seq + 1 => frame.chain_before,
            _ => gap_chain(chain_before, first_seq, last_seq),
        };
        self.handed_out(last_seq, chain);
        Work::Gap(Gap { first_seq, last_seq, kind, acknowledged: last_seq + 1 - first_seq, chain_before, chain })
    }

    fn handed_out(&mut self, last_seq: u64, chain: u64) {
        self.at = (last_seq, chain);
        self.ends.push(self.at);
    }

    /// Places the group at what is settled: what an earlier reader had in hand is taken over and, where it is settled, acknowledged.
    fn place(&mut self) -> Result<(), LinkError> {
        self.held.clear();
        self.ends.clear();
        self.at = self.settled;
        let key = self.keys.stream(self.stream);
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.server.connect(&key)?,
        };
        match link.ask(cmd("XGROUP").arg("CREATE").arg(&key).arg(GROUP).arg("0")) {
            Ok(_) => {}
            // It is there; or the stream is not, which reading shows. A Redis without memory left refuses before it looks: it must be
            // drained all the same, or it would stay full for ever.
            Err(refused) if refused.definite && matches!(refused.code.as_str(), "BUSYGROUP" | "ERR" | "OOM") => {}
            Err(failed) => return Err(failed),
        }
        let mut from = "0-0".to_owned();
        loop {
            let mut claim = cmd("XAUTOCLAIM");
            claim.arg(&key).arg(GROUP).arg(&self.consumer).arg(0).arg(&from).arg("COUNT").arg(CLAIMED).arg("JUSTID");
            let (next, ids) = match link.ask(&claim) {
                Ok(answer) => claimed(&answer),
                Err(refused) if refused.definite => break,
                Err(failed) => return Err(failed),
            };
            let settled: Vec<&String> = ids.iter().filter(|id| seq_of(id).is_some_and(|seq| seq <= self.settled.0)).collect();
            if !settled.is_empty() {
                link.ask(cmd("XACK").arg(&key).arg(GROUP).arg(settled))?;
            }
            match next {
                Some(next) if next != "0-0" => from = next,
                _ => break,
            }
        }
        match link.ask(cmd("XGROUP").arg("SETID").arg(&key).arg(GROUP).arg(format!("{}-0", self.settled.0))) {
            Ok(_) => {}
            Err(refused) if refused.definite => {}
            Err(failed) => return Err(failed),
        }
        self.link = Some(link);
        self.astray = false;
        Ok(())
    }

    /// Reads on.
    fn fill(&mut self, rows: u64) -> Result<(), LinkError> {
        let key = self.keys.stream(self.stream);
        let count = (rows / self.entry_rows.max(1) + 1).min(READ_BYTES / self.entry_bytes.max(1) + 1).min(READ_ENTRIES);
        let mut read: Cmd = cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(count).arg("STREAMS").arg(&key).arg(">");
        let link = self.link.as_mut().ok_or_else(|| LinkError::ours("io", "no connection"))?;
        match link.ask(&read) {
            Ok(answer) => {
                self.held.extend(read_entries(answer).into_iter().filter(|entry| !matches!(entry, Entry::Seal)));
                Ok(())
            }
            // The stream is gone, or its group with it: nothing more is to be had.
            Err(refused) if refused.definite && matches!(refused.code.as_str(), "NOGROUP" | "ERR") => Ok(()),
            Err(failed) => Err(failed),
        }
    }
}

/// Where the next look begins, and the ids.
fn claimed(answer: &Value) -> (Option<String>, Vec<String>) {
    let Value::Array(parts) = answer else { return (None, Vec::new()) };
    let next = parts.first().and_then(text).map(str::to_owned);
    let ids = match parts.get(1) {
        Some(Value::Array(ids)) => ids.iter().filter_map(text).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    (next, ids)
}
