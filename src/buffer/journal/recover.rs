//! Opens the log, whatever stands in the directory.
//!
//! In: a directory. Out: a log that can be appended to, and what was found. Headers are read of every segment, frames only of the last
//! one; damage in the others is found when they are read. What cannot be used is moved to `quarantine/`, never deleted. Only the
//! environment can make it fail: no permission, a sync that does not succeed, no room for the very first segment. A crash while it
//! runs changes nothing: it writes nothing that the next run would read differently.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    LaneState, LogSettings, MAX_LANES,
    disk::{Disk, DiskFile, QUARANTINE},
    frame::{EDGE, place, segment_seed},
    quarantine,
    scan::{Scanner, read_full},
    segment::{BLOCK, Block, Earlier, FRAMES_AT, Header, number_of},
    shared::{Damage, SegmentView, Shared},
    tail,
    writer::Log,
};
use crate::domain::receipt::StreamId;

/// What was found at opening.
#[derive(Debug)]
pub struct Recovered {
    /// Where the lanes stand at the end.
    pub lanes: Vec<LaneState>,
    /// Bytes of a write that a crash cut short. That is normal: nobody was told of them.
    pub torn_bytes: u64,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// Lanes that were given a new stream, with the one before: the last segment is damaged in a way that does not tell which numbers
    /// may have been acknowledged last. Everything that is held has the new stream's numbers.
    pub forked: Vec<(usize, StreamId)>,
    /// Whether there was no log before.
    pub fresh: bool,
    /// Segments with frames.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How much of the last segment had to be read.
    pub tail_scanned_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// A file that may be a segment.
struct Candidate<F> {
    name: String,
    named: u64,
    file: F,
    len: u64,
    block: Block,
    /// The first copy of the header is damaged, the second is whole.
    first_copy_bad: bool,
}

/// Opens or creates the log. `lanes` is how many will be appended to, 1 to [`MAX_LANES`]; those that exist besides stay readable.
///
/// # Errors
/// See the module.
pub fn open<D: Disk>(
    disk: D,
    settings: LogSettings,
    new_stream: &mut dyn FnMut() -> StreamId,
    lanes: usize,
) -> io::Result<(Log<D>, Recovered)> {
    let begun = Instant::now();
    let mut damage = Vec::new();
    let mut candidates = candidates(&disk, &mut damage)?;
    let log = choose_log(&candidates);
    let highest = sort_out(&disk, &mut candidates, log, &mut damage);
    let mut views = Vec::new();
    let mut lost_end = false;
    for candidate in &candidates {
        // A later header that follows an earlier segment says that this one was given up before its first sync came back.
        let headers = candidates.iter().filter_map(Candidate::header);
        let skipped = headers
            .map(|header| header.previous..header.number)
            .any(|between| between.start < candidate.number() && between.contains(&candidate.number()));
        lost_end |= view_of(&disk, candidate, log, (highest, skipped), &mut views, &mut damage);
    }
    link(&disk, &mut views, &mut damage);

    let mut open = Open { states: Vec::new(), earlier: Vec::new(), torn_bytes: 0, scanned: 0, end_unknown: [lost_end; MAX_LANES] };
    open.scan_tail(&disk, &mut views, &candidates, &mut damage)?;
    disk.sync_dir()?;

    let fresh = views.is_empty();
    let known = open.states.len();
    while open.states.len() < lanes.clamp(1, MAX_LANES) {
        open.states.push(LaneState::new(new_stream()));
    }
    let next_number =
        candidates.iter().map(|candidate| candidate.named).chain(views.iter().map(|view| view.number)).max().unwrap_or(0) + 1;
    let last = views.last().map_or((0, 0), |view| (view.number, view.end));
    let leave = views.last().map(|view| (view.name.clone(), view.end));
    if let Some(view) = views.last_mut() {
        // The room behind its end is given back as soon as the next segment is durable.
        view.allocated = view.end;
    }
    let shared = Shared::new(disk, views.into_iter().map(|view| view.view()).collect(), open.states.clone(), open.earlier.clone());
    let mut log = Log {
        shared: shared.into(),
        settings,
        log: if fresh { new_stream().as_u128() } else { log.unwrap_or_default() },
        lanes: open.states.clone(),
        durable: open.states,
        current: None,
        prepared: None,
        last,
        next_number,
        voids: Vec::new(),
        earlier: open.earlier,
        stage: Vec::new(),
        failed: None,
        leave,
        dir_dirty: false,
    };
    let mut forked = Vec::new();
    for lane in (0..known).filter(|lane| open.end_unknown[*lane]) {
        forked.push((lane, log.lanes[lane].stream));
        let first = log.shared.first_retained(lane);
        log.renumber(lane, first, new_stream());
    }
    log.shared.lock().lanes.clone_from(&log.lanes);
    if fresh {
        log.begin(0).map_err(io::Error::from)?;
        log.sync_current()?;
    } else if known < log.lanes.len() || !forked.is_empty() {
        // New streams are made durable at once. Where there is no room now, the next append does it, or another opening makes others.
        if log.begin(0).is_ok()
            && let Err(error) = log.sync_current()
        {
            return Err(error);
        }
    }
    let segments = log.shared.lock().segments.len();
    let recovered = Recovered {
        lanes: log.lanes.clone(),
        torn_bytes: open.torn_bytes,
        damage,
        forked,
        fresh,
        segments,
        bytes: log.bytes(),
        tail_scanned_bytes: open.scanned,
        took: begun.elapsed(),
    };
    Ok((log, recovered))
}

/// A segment on its way to being a [`SegmentView`].
struct View {
    number: u64,
    name: String,
    seed: u64,
    header: Option<Header>,
    len: u64,
    end: u64,
    allocated: u64,
}

impl View {
    fn view(self) -> SegmentView {
        let Self { number, name, seed, header, end, allocated, .. } = self;
        let (start, voids) = header.map_or((None, Vec::new()), |header| (Some(header.lanes), header.voids));
        SegmentView { number, name, seed, start, voids, end, allocated }
    }
}

impl<F> Candidate<F> {
    fn header(&self) -> Option<&Header> {
        match &self.block {
            Block::Good(header) => Some(header),
            _ => None,
        }
    }

    fn number(&self) -> u64 {
        self.header().map_or(self.named, |header| header.number)
    }
}

/// Everything that has a segment's name, opened and with its header read.
fn candidates<D: Disk>(disk: &D, damage: &mut Vec<Damage>) -> io::Result<Vec<Candidate<D::File>>> {
    let mut entries = disk.list()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.name;
        if name != QUARANTINE && name.ends_with(".new") && entry.plain && number_of(&name.replace(".new", ".seg")).is_some() {
            // Never finished, so never part of the log. What cannot be removed now is replaced when its number comes.
            let _ = disk.remove(&name);
            continue;
        }
        // Other names are none of ours and stay where they are.
        let Some(named) = number_of(&name) else { continue };
        if !entry.plain {
            damage.push(aside(disk, &name, named, 0, "not a file, but it has a segment's name"));
            continue;
        }
        let file = match disk.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => {
                damage.push(whole(named, 0, "segment that cannot be opened"));
                continue;
            }
        };
        let len = file.len().unwrap_or(0);
        let (block, first_copy_bad) = read_header(&file);
        found.push(Candidate { name, named, file, len, block, first_copy_bad });
    }
    Ok(found)
}

/// The header from whichever copy is whole, or from the sectors of both; and whether the first one is damaged.
pub(super) fn read_header<F: DiskFile>(file: &F) -> (Block, bool) {
    let read = |offset| {
        let mut bytes = vec![0; BLOCK];
        match read_full(file, &mut bytes, offset) {
            Ok(read) => bytes.truncate(read),
            // It is not empty, and nothing that was written: damage.
            Err(_) => bytes.fill(!0),
        }
        bytes
    };
    let first = read(0);
    let one = Header::decode(&first);
    if matches!(one, Block::Good(_) | Block::Newer(_)) {
        return (one, false);
    }
    let second = read(BLOCK as u64);
    match Header::decode(&second) {
        two @ (Block::Good(_) | Block::Newer(_)) => (two, one == Block::Bad),
        Block::Torn if one == Block::Torn => (Block::Torn, false),
        _ => (Header::from_both(&first, &second), true),
    }
}

/// The log that most segments belong to; of two as large, the one that was written last.
fn choose_log<F>(candidates: &[Candidate<F>]) -> Option<u128> {
    let headers = || candidates.iter().filter_map(Candidate::header);
    headers()
        .map(|header| {
            let same = headers().filter(|other| other.log == header.log);
            (same.clone().count(), same.map(|other| other.number).max(), header.log)
        })
        .max()
        .map(|(_, _, log)| log)
}

/// Sets aside what is of another log, of a newer version, or there twice. Returns the highest number with a header.
fn sort_out<D: Disk>(disk: &D, candidates: &mut Vec<Candidate<D::File>>, log: Option<u128>, damage: &mut Vec<Damage>) -> u64 {
    // Of two that are the same segment, the one with the right name stays; a header goes before a name.
    candidates.sort_by_key(|candidate| {
        let header = candidate.header();
        (header.is_none(), header.is_some_and(|header| header.number != candidate.named), candidate.named)
    });
    let mut seen = Vec::new();
    candidates.retain(|candidate| {
        let what = match &candidate.block {
            Block::Newer(_) => "segment of a newer version",
            Block::Good(header) if Some(header.log) != log => "segment of another journal",
            _ if seen.contains(&candidate.number()) => "second file for one segment",
            _ => {
                seen.push(candidate.number());
                return true;
            }
        };
        damage.push(aside(disk, &candidate.name, candidate.number(), candidate.len, what));
        false
    });
    candidates.sort_by_key(Candidate::number);
    candidates.iter().filter(|candidate| candidate.header().is_some()).map(Candidate::number).max().unwrap_or(0)
}

/// Takes a file as a segment, or out of the way. Returns whether acknowledged readings at the log's end may have been in it.
fn view_of<D: Disk>(
    disk: &D,
    candidate: &Candidate<D::File>,
    log: Option<u128>,
    (highest, skipped): (u64, bool),
    views: &mut Vec<View>,
    damage: &mut Vec<Damage>,
) -> bool {
    let (number, name, len) = (candidate.number(), candidate.name.clone(), candidate.len);
    let header = candidate.header().cloned();
    let last = number > highest;
    if header.is_none() {
        let torn = candidate.block == Block::Torn && len >= FRAMES_AT;
        if skipped || (torn && (last || log.is_none())) {
            // Made, and perhaps begun, but its first sync never came back: nothing in it was acknowledged.
            let _ = disk.remove(&name);
            return false;
        }
        if len < FRAMES_AT || log.is_none() {
            damage.push(aside(disk, &name, number, len, "segment without a header"));
            return last;
        }
        damage.push(whole(number, FRAMES_AT, "both copies of a segment's header"));
    }
    let seed = segment_seed(log.unwrap_or_default(), number);
    if candidate.first_copy_bad && header.is_some() {
        damage.push(set_aside(disk, candidate, seed, number));
    }
    let lost = header.is_none() && last;
    let allocated = len;
    views.push(View { number, name, seed, header, len, end: len, allocated });
    lost
}

fn set_aside<D: Disk>(disk: &D, candidate: &Candidate<D::File>, seed: u64, number: u64) -> Damage {
    let bad = super::scan::Bad { offset: 0, bytes: BLOCK as u64, frame: None };
    match disk.open_read(&candidate.name) {
        Ok(file) => {
            let mut scanner = Scanner::new(file, seed, 0, candidate.len);
            quarantine::bytes(disk, number, &mut scanner, &bad, "first copy of a segment's header; the second is whole")
        }
        Err(_) => whole(number, BLOCK as u64, "first copy of a segment's header; the second is whole"),
    }
}

/// Each header says where the segment before ends.
fn link<D: Disk>(disk: &D, views: &mut Vec<View>, damage: &mut Vec<Damage>) {
    let mut previous: Option<(u64, u64)> = None;
    let mut kept = Vec::with_capacity(views.len());
    for mut view in views.drain(..).rev() {
        if let Some((number, end)) = previous {
            if view.number > number {
                // Begun and given up before its first sync came back: the one behind does not follow it. If it stayed, the one that
                // it does follow would seem to be missing when that is dropped.
                let _ = disk.remove(&view.name);
                continue;
            }
            if view.number == number {
                view.end = end.min(view.len);
                if end > view.len {
                    damage.push(Damage { offset: view.len, ..whole(view.number, end - view.len, "end of a segment that was cut") });
                }
            } else {
                damage.push(whole(number, 0, "segment that is missing"));
            }
        }
        previous = view.header.as_ref().map(|header| (header.previous, header.previous_end));
        kept.push(view);
    }
    kept.reverse();
    *views = kept;
}

/// What is gathered while the end of the log is looked for.
struct Open {
    states: Vec<LaneState>,
    earlier: Vec<Earlier>,
    torn_bytes: u64,
    scanned: u64,
    end_unknown: [bool; MAX_LANES],
}

impl Open {
    /// Reads from the last segment with a header to the end.
    fn scan_tail<D: Disk>(
        &mut self,
        disk: &D,
        views: &mut [View],
        candidates: &[Candidate<D::File>],
        damage: &mut Vec<Damage>,
    ) -> io::Result<()> {
        let Some(from) = views.iter().rposition(|view| view.header.is_some()) else { return Ok(()) };
        if let Some(header) = &views[from].header {
            self.states.clone_from(&header.lanes);
            self.earlier.clone_from(&header.earlier);
        }
        let count = views.len();
        for (index, view) in views.iter_mut().enumerate().skip(from) {
            let Some(candidate) = candidates.iter().find(|candidate| candidate.number() == view.number) else { continue };
            let last = index + 1 == count;
            let allocated = view.header.as_ref().map_or(view.len, |header| header.allocated);
            let cut = view.len < allocated;
            let mut scanner = Scanner::new(&candidate.file, view.seed, FRAMES_AT, view.end);
            let tail = tail::scan(&mut scanner, tail::Ending { file: view.end, cut, sealed: !last }, &mut self.states);
            self.scanned += scanner.read_bytes;
            for (bad, what) in &tail.damage {
                damage.push(quarantine::bytes(disk, view.number, &mut scanner, bad, what));
            }
            if !last {
                continue;
            }
            if cut {
                damage.push(Damage {
                    offset: view.len,
                    ..whole(view.number, allocated - view.len, "end of the last segment, which was cut")
                });
            }
            view.end = tail.end;
            self.torn_bytes = tail.torn_bytes;
            for (unknown, tail) in self.end_unknown.iter_mut().zip(tail.end_unknown) {
                *unknown |= tail;
            }
            prove(&candidate.file, view.seed, &tail)?;
        }
        Ok(())
    }
}

/// What was read may be in the kernel's memory only, left by a process that was killed before its sync, or after one that failed: a sync
/// alone would then do nothing. The same bytes are written once more, and synced. A header or a footer that was cut short is written
/// whole, or damage to the rest of its frame would later pass for a write that was cut short.
fn prove<F: DiskFile>(file: &F, seed: u64, tail: &tail::Tail) -> io::Result<()> {
    // Block by block, so that one that cannot be read does not keep others from being proved.
    let mut piece = vec![0; BLOCK];
    let mut at = tail.unproved;
    while at < tail.end {
        let len = (tail.end - at).min(BLOCK as u64 - at % BLOCK as u64) as usize;
        match read_full(file, &mut piece[..len], at) {
            Ok(0) => break,
            Ok(read) => {
                file.write_at(&piece[..read], at)?;
                at += read as u64;
            }
            // What cannot be read is damage, and told as such.
            Err(_) => at += len as u64,
        }
    }
    for (offset, frame) in &tail.last_group {
        let (mut head, mut foot, mut there) = ([0; EDGE], [0; EDGE], [0; EDGE]);
        frame.head(place(seed, *offset), &mut head);
        frame.foot(place(seed, *offset), &mut foot);
        for (edge, at) in [(head, *offset), (foot, offset + frame.extent() - EDGE as u64)] {
            if read_full(file, &mut there, at).is_ok() && there != edge {
                file.write_at(&edge, at)?;
            }
        }
    }
    file.sync_data()
}

fn aside<D: Disk>(disk: &D, name: &str, segment: u64, bytes: u64, what: &'static str) -> Damage {
    Damage { quarantine_file: quarantine::file(disk, name), ..whole(segment, bytes, what) }
}

fn whole(segment: u64, bytes: u64, what: &'static str) -> Damage {
    Damage { segment, offset: 0, bytes, what, quarantine_file: None, readings: None }
}
