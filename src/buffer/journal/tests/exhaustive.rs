//! Every flipped bit, one other value of each byte (drawn by chance) and every length of a journal of 1 MB: it opens, what is whole comes
//! out with its number, what is not is told, no number that may have been acknowledged is given out again, and it takes 20 fresh readings.
//!
//! `BELAYD_EVERY_BIT=1 nice cargo test --release --lib journal::tests::exhaustive -- --nocapture --test-threads=1` tries all of them,
//! on all cores; plain `cargo test` a sample, whose seed is printed and can be given again as `BELAYD_SAMPLE_SEED`.
//!
//! A case reads the damaged segment, and of each lane 3 frames before and 3 behind it; every 63rd reads all segments and opens the journal
//! once more.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use super::{disk::Random, new_stream, payload};
use crate::buffer::journal::{
    Found, GapKind, Item, LaneReader, LogSettings, Recovered, Shared, flat::FlatDisk, frame, open, segment::FRAMES_AT,
};
use crate::domain::receipt::StreamId;

const LANES: usize = 2;
/// Cases of a sample.
const SAMPLE: u64 = 1_500;
/// So many cases are taken at once by a thread.
const SHARE: u64 = 4_096;
/// One case in so many reads everything.
const THOROUGH: u64 = 63;
/// Frames before and behind the damaged segment that the others read, of each lane.
const BESIDE: usize = 3;
/// What the log is opened with, whatever it was made with: small segments are made quickly.
const OPENED: LogSettings = LogSettings { segment_bytes: 64 * 1024, total_bytes: 64 << 20 };

/// Fresh readings that each lane must take afterwards.
const FRESH: u64 = 10;

fn fresh(lane: usize, n: u64) -> Bytes {
    let word = (lane as u64) << 32 | n | 0xfeed_0000;
    word.to_le_bytes().repeat(7).into()
}

/// A frame as it was acknowledged.
#[derive(Debug)]
struct Known {
    file: usize,
    place: Range<usize>,
    lane: usize,
    first: u64,
    last: u64,
    chain: u64,
    payload: Bytes,
}

/// A journal, and what is known of it.
#[derive(Debug)]
struct Journal {
    files: BTreeMap<String, Vec<u8>>,
    names: Vec<String>,
    known: Vec<Known>,
    /// Indexes into `known` by lane.
    lanes: Vec<Vec<usize>>,
    /// The lanes' streams.
    streams: Vec<StreamId>,
    /// Where the frames of each file end.
    used: Vec<usize>,
    /// Closed in order, so that everything is known to have been durable.
    closed: bool,
}

/// What is done to it.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip { file: usize, at: usize, mask: u8 },
    Cut { file: usize, len: usize },
}

fn built(bytes: usize, segment_bytes: u64, closed: bool) -> Journal {
    let disk = FlatDisk::default();
    let settings = LogSettings { segment_bytes, total_bytes: 64 << 20 };
    let (mut log, _) = open(disk.clone(), settings, &mut new_stream, LANES).expect("opens");
    let (mut known, mut made, mut written) = (Vec::new(), 0, 0);
    // A payload of its own for each frame; some are short, some have runs of zeros.
    let mut random = Random(7);
    while written < bytes {
        let lane = random.below(LANES as u64) as usize;
        let rows = 1 + random.below(4) as u32;
        let len = if random.one_in(6) { random.below(40) } else { 200 + random.below(2_600) } as usize;
        let mut content = payload(lane, made, len).to_vec();
        if random.one_in(8) {
            content[len / 3..].fill(0);
        }
        let content = Bytes::from(content);
        let appended = log.append(lane, 1, rows, std::slice::from_ref(&content)).expect("room");
        written += frame::extent(len) as usize;
        made += 1;
        known.push(Known {
            file: 0,
            place: 0..0,
            lane,
            first: appended.first_seq,
            last: appended.last_seq,
            chain: appended.chain,
            payload: content,
        });
        if random.one_in(3) {
            log.sync().expect("synced");
        }
    }
    log.sync().expect("synced");
    if closed {
        log.close().expect("closed");
    }
    let streams = log.lanes().iter().map(|lane| lane.stream).collect();
    drop(log);
    let files: BTreeMap<_, _> = disk.content().into_iter().filter(|(name, _)| name.ends_with(".seg")).collect();
    let names: Vec<String> = files.keys().cloned().collect();
    // Frames stand in the order in which they were appended; one that does not fit begins the next file.
    let (mut file, mut at) = (0, FRAMES_AT as usize);
    let mut used = vec![FRAMES_AT as usize; names.len()];
    for known in &mut known {
        let extent = frame::extent(known.payload.len()) as usize;
        let content = &files[&names[file]];
        if content.get(at..at + 8).map(|magic| frame::u64_at(magic, 0)) != Some(frame::HEAD) {
            (file, at) = (file + 1, FRAMES_AT as usize);
        }
        (known.file, known.place) = (file, at..at + extent);
        at += extent;
        used[file] = at;
    }
    let of = |lane: usize| known.iter().enumerate().filter(|(_, known)| known.lane == lane).map(|(index, _)| index).collect();
    Journal { lanes: (0..LANES).map(of).collect(), streams, files, names, known, used, closed }
}

impl Journal {
    /// Whether this frame may be gone.
    fn is_hit(&self, known: &Known, harm: Harm) -> bool {
        match harm {
            Harm::Flip { file, at, .. } => known.file == file && known.place.contains(&at),
            // Less than one copy of the header: the file cannot be told to be a segment.
            Harm::Cut { file, len } => known.file == file && (known.place.end > len || len < FRAMES_AT as usize / 2),
        }
    }

    /// One case. What is wrong with it, in words.
    fn try_out(&self, disk: &FlatDisk, harm: Harm, thorough: bool) -> Result<(), String> {
        match harm {
            Harm::Flip { file, at, mask } => disk.flip(file, at, mask),
            Harm::Cut { file, len } => disk.cut(file, len),
        }
        let tried = self.look(disk, harm, thorough, false);
        disk.put_back();
        tried.map_err(|what| format!("{harm:?} ({}): {what}", self.names[harm.file()]))
    }

    fn look(&self, disk: &FlatDisk, harm: Harm, thorough: bool, again: bool) -> Result<(), String> {
        let (mut log, recovered) =
            open(disk.clone(), OPENED, &mut new_stream, LANES).map_err(|error| format!("opening: {error}"))?;
        let file = harm.file();
        if recovered.fresh {
            // Only where the only segment has lost its header is there nothing left to go on from.
            let alone = self.names.len() == 1 && matches!(harm, Harm::Cut { len, .. } if len < FRAMES_AT as usize / 2);
            return if alone && !recovered.damage.is_empty() { Ok(()) } else { Err("all of it is gone".into()) };
        }
        let shared = log.shared();
        let near = if thorough { 0..self.names.len() } else { file..file + 1 };
        let (mut missing, mut gone) = (0, BTreeSet::new());
        for lane in 0..LANES {
            missing += self.read(&shared, lane, &near, harm, &mut gone, again)?;
        }
        let number = file as u64 + 1;
        let scrubbed = shared.scrub(number);
        let told = !recovered.damage.is_empty() || !shared.take_damage().is_empty() || scrubbed.damaged > 0;
        if missing > 0 && !told && !again {
            return Err(format!("{missing} frames are gone and nothing is told"));
        }
        self.must_tell(harm, told, again)?;
        self.numbers(&shared, &recovered, harm, again)?;
        // 20 fresh readings.
        for lane in 0..LANES {
            let before = log.lanes()[lane];
            let mut last = before.next_seq() - 1;
            for n in 0..FRESH {
                let appended = log.append(lane, 1, 1, &[fresh(lane, n)]).map_err(|error| format!("fresh: {error}"))?;
                if appended.first_seq != last + 1 {
                    return Err(format!("fresh reading got {}, not {}", appended.first_seq, last + 1));
                }
                last = appended.last_seq;
            }
            log.sync().map_err(|failed| format!("fresh: {}", failed.cause))?;
            let mut reader = LaneReader::new(shared.clone(), lane);
            let at = reader.seek_after(before.next_seq() - 1, before.chain).map_err(|error| error.to_string())?;
            for n in 0..FRESH {
                match reader.next().map_err(|error| error.to_string())? {
                    Some(Item::Frame { payload: bytes, .. }) if bytes == fresh(lane, n) => {}
                    // At the very beginning there is no past to go on behind.
                    _ if at != Found::At => break,
                    other => return Err(format!("fresh reading {n} of lane {lane} reads as {other:?}")),
                }
            }
        }
        if thorough && !again {
            drop((log, shared));
            return self.look(disk, harm, true, true).map_err(|what| format!("opened again: {what}"));
        }
        Ok(())
    }

    /// Reads a lane from a little before the segments `near` to a little behind them. Returns how many frames are gone.
    fn read(
        &self,
        shared: &std::sync::Arc<Shared<FlatDisk>>,
        lane: usize,
        near: &Range<usize>,
        harm: Harm,
        gone: &mut BTreeSet<usize>,
        again: bool,
    ) -> Result<u64, String> {
        let mut reader = LaneReader::new(shared.clone(), lane);
        let base = shared.lanes()[lane].base;
        let all = &self.lanes[lane];
        let mut from = all.partition_point(|index| self.known[*index].file < near.start).saturating_sub(BESIDE);
        let to = (all.partition_point(|index| self.known[*index].file < near.end) + BESIDE).min(all.len());
        let before = from.checked_sub(1).map_or((0, 0), |index| (self.known[all[index]].last, self.known[all[index]].chain));
        let found = reader.seek_after(before.0 - base.min(before.0), before.1).map_err(|error| error.to_string())?;
        let mut missing = 0;
        let mut skip = |known: &Known, index: usize, missing: &mut u64| {
            if !self.is_hit(known, harm) {
                return Err(format!("readings {} to {} of lane {lane} do not come out", known.first, known.last));
            }
            gone.insert(index);
            *missing += 1;
            Ok(())
        };
        match found {
            Found::At => {}
            Found::Behind { first } => {
                while from < to && self.known[all[from]].first < first {
                    skip(&self.known[all[from]], all[from], &mut missing)?;
                    from += 1;
                }
            }
            Found::Elsewhere => return Err(format!("lane {lane} has another past at {before:?}")),
        }
        while from < to {
            match reader.next().map_err(|error| error.to_string())? {
                Some(Item::Frame { payload, .. }) if again && (0..FRESH).any(|n| payload == fresh(lane, n)) => {
                    // What the opening before took, under the new stream's numbers.
                    while from < to {
                        skip(&self.known[all[from]], all[from], &mut missing)?;
                        from += 1;
                    }
                }
                Some(Item::Frame { first_seq, rows, payload, chain, .. }) => {
                    let known = loop {
                        let Some(index) = all.get(from) else { return Err(format!("{first_seq} was never appended")) };
                        let known = &self.known[*index];
                        from += 1;
                        if known.first >= first_seq + base {
                            break known;
                        }
                        // Where nothing was before, there is no gap to tell of: the first segment is gone.
                        skip(known, *index, &mut missing)?;
                    };
                    let same = known.first == first_seq + base
                        && known.last + 1 - known.first == u64::from(rows)
                        && known.payload == payload
                        && known.chain == chain;
                    if !same {
                        return Err(format!("{first_seq} of lane {lane} reads as another reading"));
                    }
                }
                Some(Item::Gap { first_seq, last_seq, kind, .. }) => {
                    let known = &self.known[all[from]];
                    if kind != GapKind::Quarantined || known.first != first_seq + base {
                        return Err(format!("a gap of kind {kind:?} from {first_seq}, at {}", known.first));
                    }
                    while from < all.len() && self.known[all[from]].first <= last_seq + base {
                        skip(&self.known[all[from]], all[from], &mut missing)?;
                        from += 1;
                    }
                    if self.known[all[from - 1]].last != last_seq + base {
                        return Err(format!("a gap ends at {last_seq}, within a frame"));
                    }
                }
                None => {
                    while from < to {
                        skip(&self.known[all[from]], all[from], &mut missing)?;
                        from += 1;
                    }
                }
            }
        }
        Ok(missing)
    }

    /// What has to be told though no reading is gone.
    fn must_tell(&self, harm: Harm, told: bool, again: bool) -> Result<(), String> {
        let last = harm.file() + 1 == self.names.len();
        let must = match harm {
            Harm::Flip { file, at, .. } => {
                let edge = self.known.iter().any(|known| {
                    known.file == file
                        && known.place.contains(&at)
                        && (at < known.place.start + frame::EDGE || at >= known.place.end - frame::EDGE)
                });
                // What the end of the log has of it is written again when it opens.
                at < FRAMES_AT as usize / 2 || edge && !again
            }
            // The first file of which not even a header is left was set aside; what was in it is missing before the first number.
            Harm::Cut { file: 0, len } if again && len < FRAMES_AT as usize / 2 => false,
            Harm::Cut { file, len } => len < self.used[file] || last,
        };
        if must && !told && !(again && last) { Err("nothing is told".into()) } else { Ok(()) }
    }

    /// Numbers that were acknowledged are not given out again in the same stream.
    fn numbers(&self, shared: &Shared<FlatDisk>, recovered: &Recovered, harm: Harm, again: bool) -> Result<(), String> {
        for (lane, all) in self.lanes.iter().enumerate() {
            let end = all.last().map_or(0, |index| self.known[*index].last);
            let state = recovered.lanes[lane];
            if state.stream == self.streams[lane] {
                if state.next <= end {
                    return Err(format!("lane {lane} goes on with {}, {end} were acknowledged", state.next));
                }
                continue;
            }
            if self.closed && harm.file() + 1 < self.names.len() {
                return Err(format!("lane {lane} was closed in order and has lost its end"));
            }
            match recovered.forked.iter().find(|lost| lost.lane == lane) {
                Some(lost) if lost.stream == self.streams[lane] && lost.last_seq <= end => {}
                // The opening before did it, and remembers.
                None if again && shared.lost_ends().iter().any(|lost| lost.1 == self.streams[lane]) => {}
                other => return Err(format!("lane {lane} has a new stream: {other:?}")),
            }
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.len() as u64).sum()
    }

    /// The file and the place of a byte of all of them.
    fn place(&self, mut at: u64) -> (usize, usize) {
        for (file, name) in self.names.iter().enumerate() {
            let len = self.files[name].len() as u64;
            if at < len {
                return (file, at as usize);
            }
            at -= len;
        }
        unreachable!("behind the last byte")
    }

    /// Case by number: eight flipped bits, another value and a length for each byte.
    fn harm(&self, case: u64) -> Harm {
        let (file, at) = self.place(case / 10);
        match case % 10 {
            bit @ 0..8 => Harm::Flip { file, at, mask: 1 << bit },
            8 => Harm::Flip { file, at, mask: (1 + Random(case).below(255)) as u8 },
            _ => Harm::Cut { file, len: at },
        }
    }

    /// Tries cases of all threads; returns how many, and the first that failed, with how many did.
    fn try_all(&self, pick: &(dyn Fn(u64) -> u64 + Sync), cases: u64, what: &str) -> (u64, Vec<String>) {
        let (next, failed) = (AtomicU64::new(0), std::sync::Mutex::new((0_u64, Vec::new())));
        let begun = Instant::now();
        let told = std::sync::Mutex::new(begun);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let disk = FlatDisk::with(&self.files);
                    loop {
                        let from = next.fetch_add(SHARE, Ordering::Relaxed);
                        if from >= cases {
                            return;
                        }
                        for case in from..(from + SHARE).min(cases) {
                            if let Err(what) = self.try_out(&disk, self.harm(pick(case)), case % THOROUGH == 0) {
                                let mut failed = failed.lock().expect("no panic");
                                failed.0 += 1;
                                if failed.1.len() < 20 {
                                    failed.1.push(what);
                                }
                            }
                        }
                        let mut told = told.lock().expect("no panic");
                        if told.elapsed() > Duration::from_secs(20) {
                            *told = Instant::now();
                            let failures = failed.lock().expect("no panic").0;
                            eprintln!("{what}: {from} of {cases} after {} s, {failures} failures", begun.elapsed().as_secs());
                        }
                    }
                });
            }
        });
        let (count, first) = failed.into_inner().expect("no panic");
        eprintln!("{what}: {cases} cases, {} bytes, {:.0} s, {count} failures", self.bytes(), begun.elapsed().as_secs_f64());
        (count, first)
    }

    /// All cases where the environment asks for it, else a sample.
    fn try_cases(&self, what: &str) {
        let all = self.bytes() * 10;
        let (failures, first) = if std::env::var_os("BELAYD_EVERY_BIT").is_some() {
            self.try_all(&|case| case, all, what)
        } else {
            let given = std::env::var("BELAYD_SAMPLE_SEED").ok().and_then(|seed| seed.parse().ok());
            let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
            let seed = given.unwrap_or_else(now);
            eprintln!("{what}: BELAYD_SAMPLE_SEED={seed}");
            self.try_all(&move |case| Random(seed ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15)).below(all), SAMPLE, what)
        };
        assert_eq!(failures, 0, "{first:#?}");
    }
}

impl Harm {
    fn file(self) -> usize {
        match self {
            Self::Flip { file, .. } | Self::Cut { file, .. } => file,
        }
    }
}

#[test]
fn a_journal_of_many_segments_opens_whatever_happens_to_one_byte_or_its_length() {
    built(960 * 1024, 64 * 1024, false).try_cases("many segments");
}

#[test]
fn a_journal_of_one_segment_opens_whatever_happens_to_one_byte_or_its_length() {
    built(96 * 1024, 128 * 1024, false).try_cases("one segment");
}

#[test]
fn a_journal_that_was_closed_in_order_knows_every_number_whatever_happens_to_it() {
    built(96 * 1024, 64 * 1024, true).try_cases("closed in order");
}
