//! Opens the log, whatever stands in the directory.
//!
//! In: a directory. Out: a log that can be appended to, and what was found. Headers are read of every segment, frames only of the last
//! one; damage in the others is found when they are read. What cannot be used is moved to `quarantine/`, never deleted. Only the
//! environment can make it fail: no permission, no descriptors, no room for the very first segment. Where the disk does not take the
//! proof of the last group, that is carried over ([`super::carry`]), and where it takes nothing the log opens to be drained. A crash
//! while it runs changes nothing: it writes nothing that the next run would read differently.
//!
//! A file that the disk does not give is asked for again ([`patience`]). Then the log goes on without it, because a recorder that stays
//! down loses more: the file keeps its name and its number, an older one is tried again by whoever reads it, and where it was the last
//! one the lanes get new streams. Once it can be opened it is set aside.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    LaneState, LogSettings, MAX_LANES,
    candidate::{Candidate, aside, candidates, choose_log, holds_only, sort_out, whole},
    carry::Carry,
    disk::{Disk, DiskFile},
    frame::{EDGE, place, segment_seed},
    mark,
    patience::{Patience, PatientFile},
    quarantine,
    scan::{Scanner, read_full},
    segment::{BLOCK, Block, Earlier, FRAMES_AT, Header, Void},
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
    /// Lanes that were given a new stream: which numbers may have been acknowledged last is not known, because the
    /// last segment is damaged or the directory was put back from a backup. Everything that is held has the new stream's numbers.
    pub forked: Vec<Forked>,
    /// Whether the directory was put back from a backup ([`super::RESTORED`]) and is opened for the first time since.
    pub restored: bool,
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

/// A lane that goes on with another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forked {
    /// The lane.
    pub lane: usize,
    /// The stream before.
    pub stream: StreamId,
    /// The last number that is known to have been given out in it.
    pub last_seq: u64,
    /// Behind it acknowledged readings may be gone, nobody knows how many.
    pub end_lost: bool,
    /// Bytes that the last segment's file lacks: no more than these held readings. 0 where its whole header is lost.
    pub cut_bytes: u64,
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
    let patience = Patience::new(&disk);
    let (mut candidates, highest_name) = candidates(&disk, &patience, &mut damage)?;
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
        let mut headers = candidates.iter().filter_map(Candidate::header);
        let followed = headers.any(|header| header.previous == candidate.number());
        lost_end |= view_of(&disk, candidate, log, (highest, skipped, followed), &mut views, &mut damage);
    }
    link(&disk, &mut views, &mut damage);

    let restored = mark::read(&disk)?;
    let mut open = Open {
        states: Vec::new(),
        earlier: Vec::new(),
        torn_bytes: 0,
        scanned: 0,
        cut_bytes: 0,
        end_unknown: [lost_end; MAX_LANES],
        carry: None,
    };
    open.scan_tail(&disk, &patience, &mut views, &mut damage)?;
    // Where it fails the next file's name is durable only after a sync that has worked, as is the next removal.
    let dir_dirty = disk.sync_dir().is_err();

    let fresh = views.is_empty();
    let known = open.states.len();
    while open.states.len() < lanes.clamp(1, MAX_LANES) {
        open.states.push(LaneState::new(new_stream()));
    }
    // Over every name that stands there, whatever became of it: a number that was used once is not used again.
    let next_number = views.iter().map(|view| view.number).max().unwrap_or(0).max(highest_name) + 1;
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
        dir_dirty,
    };
    damage.extend(open.carry.as_ref().map(|carry| log.carry(carry)));
    let mut forked = Vec::new();
    for lane in (0..known).filter(|lane| open.end_unknown[*lane] || restored.is_some()) {
        let (state, end_lost) = (log.lanes[lane], open.end_unknown[lane]);
        forked.push(Forked { lane, stream: state.stream, last_seq: state.next_seq() - 1, end_lost, cut_bytes: open.cut_bytes });
        let stream = state.stream.to_string();
        let settled = restored.iter().flatten().find(|(known, _)| *known == stream).map_or(0, |(_, settled)| *settled);
        let first = log.shared.first_retained(lane).max(settled.saturating_add(1));
        log.renumber(lane, first, new_stream(), end_lost);
    }
    {
        let mut state = log.shared.lock();
        state.lanes.clone_from(&log.lanes);
        state.earlier.clone_from(&log.earlier);
    }
    if fresh {
        log.begin(0).map_err(io::Error::from)?;
        log.sync_current()?;
    } else if known < log.lanes.len() || !forked.is_empty() {
        // New streams are made durable at once. Where there is no room now, the next append does it, or another opening makes others.
        if log.begin(0).is_ok()
            && let Err(error) = log.sync_current()
        {
            log.abandon(error);
        }
    }
    if restored.is_some() && log.current.is_some() {
        // The new streams are durable.
        // Where it stays, another opening makes others.
        let gone = log.shared.disk.remove(mark::RESTORED).and_then(|()| log.shared.disk.sync_dir());
        log.dir_dirty |= gone.is_err();
    }
    let segments = log.shared.lock().segments.len();
    let recovered = Recovered {
        lanes: log.lanes.clone(),
        torn_bytes: open.torn_bytes,
        damage,
        forked,
        restored: restored.is_some(),
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

/// Takes a file as a segment, or out of the way. Returns whether acknowledged readings at the log's end may have been in it.
fn view_of<D: Disk>(
    disk: &D,
    candidate: &Candidate,
    log: Option<u128>,
    (highest, skipped, followed): (u64, bool, bool),
    views: &mut Vec<View>,
    damage: &mut Vec<Damage>,
) -> bool {
    let (number, name, len) = (candidate.number(), candidate.name.clone(), candidate.len);
    let header = candidate.header().cloned();
    let last = number > highest;
    let seed = segment_seed(log.unwrap_or_default(), number);
    if !candidate.opens {
        damage.push(whole(number, 0, "segment that the disk does not open; it stays where it is"));
        if !last && !skipped {
            // The next header says where it ends; whoever reads it tries to open it again.
            views.push(View { number, name, seed, header, len, end: len, allocated: 0 });
        }
        return last && log.is_some();
    }
    if header.is_none() {
        let torn = candidate.block == Block::Torn && len >= FRAMES_AT;
        // Nothing follows it, and those that came between are settled and dropped.
        let orphan = || torn && !followed && holds_only(disk, &name, segment_seed(log.unwrap_or_default(), number), len, &[]);
        if (torn && (skipped || last || log.is_none())) || orphan() {
            // Made, and perhaps begun, but its first sync never came back: nothing in it was acknowledged.
            let _ = disk.remove(&name);
            return false;
        }
        if len < FRAMES_AT || log.is_none() || skipped {
            damage.push(aside(disk, &name, number, len, "segment without a header"));
            return last;
        }
        damage.push(whole(number, FRAMES_AT, "both copies of a segment's header"));
    }
    if candidate.first_copy_bad && header.is_some() {
        damage.push(set_aside(disk, candidate, seed, number));
    }
    let lost = header.is_none() && last;
    let allocated = len;
    views.push(View { number, name, seed, header, len, end: len, allocated });
    lost
}

fn set_aside<D: Disk>(disk: &D, candidate: &Candidate, seed: u64, number: u64) -> Damage {
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
    let mut voids: Vec<Void> = Vec::new();
    let mut kept = Vec::with_capacity(views.len());
    for mut view in views.drain(..).rev() {
        if let Some((number, end)) = previous {
            if view.number > number {
                // The one behind does not follow it. If it stayed, the one that it does follow would seem to be missing when that is
                // dropped.
                if holds_only(disk, &view.name, view.seed, view.len, &voids) {
                    // Begun and given up before its first sync came back.
                    let _ = disk.remove(&view.name);
                } else {
                    damage.push(aside(disk, &view.name, view.number, view.len, "segment that the log had to go on without"));
                }
                continue;
            }
            if view.number == number {
                view.end = end.min(view.len);
                if view.len == u64::MAX {
                    view.allocated = end;
                }
                if end > view.len {
                    damage.push(Damage { offset: view.len, ..whole(view.number, end - view.len, "end of a segment that was cut") });
                }
            } else {
                damage.push(whole(number, 0, "segment that is missing"));
            }
        }
        previous = view.header.as_ref().map(|header| (header.previous, header.previous_end));
        voids = view.header.as_ref().map_or_else(Vec::new, |header| header.voids.clone());
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
    /// What the last segment's file lacks.
    cut_bytes: u64,
    end_unknown: [bool; MAX_LANES],
    /// The last group, where the disk did not take its proof.
    carry: Option<Carry>,
}

impl Open {
    /// Reads from the last segment with a header to the end.
    fn scan_tail<D: Disk>(
        &mut self,
        disk: &D,
        patience: &Patience<'_, D>,
        views: &mut [View],
        damage: &mut Vec<Damage>,
    ) -> io::Result<()> {
        let Some(from) = views.iter().rposition(|view| view.header.is_some()) else { return Ok(()) };
        if let Some(header) = &views[from].header {
            self.states.clone_from(&header.lanes);
            self.earlier.clone_from(&header.earlier);
        }
        let count = views.len();
        for (index, view) in views.iter_mut().enumerate().skip(from) {
            // One that may only be read is read.
            let file = patience.ask(|| disk.open(&view.name)).or_else(|error| disk.open_read(&view.name).map_err(|_| error))?;
            let file = PatientFile { file, patience };
            let last = index + 1 == count;
            let allocated = view.header.as_ref().map_or(view.len, |header| header.allocated);
            let cut = view.len < allocated;
            let mut scanner = Scanner::new(&file, view.seed, FRAMES_AT, view.end);
            // A closing mark holds no frames: cutting it takes none away.
            let ending = tail::Ending { file: view.end, cut: cut && allocated > FRAMES_AT, sealed: !last };
            let tail = tail::scan(&mut scanner, ending, &mut self.states);
            self.scanned += scanner.read_bytes;
            for (bad, what) in &tail.damage {
                damage.push(quarantine::bytes(disk, view.number, &mut scanner, bad, what));
            }
            if !last {
                continue;
            }
            if cut {
                self.cut_bytes = allocated - view.len;
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
            if prove(&file, view.seed, &tail).is_err() {
                self.carry = Some(Carry::read(&file, view.number, &tail, view.header.as_ref()));
            }
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
