//! A look at a journal directory that changes nothing: what the daemon would find at its next start, and whether every frame is whole.
//!
//! In: the directory, also while a daemon writes there. Out: segments, lanes, damage. It goes the daemon's own way of opening, over a
//! disk whose writes go nowhere, so that both judge alike. A crash loses nothing.

use std::{collections::BTreeSet, fs::File, io, ops::ControlFlow, os::unix::fs::FileExt, path::Path, time::Duration};

use uuid::Uuid;

use super::{
    Damage, LaneState, LogSettings,
    candidate::read_header,
    dense::Dense,
    disk::{Disk, DiskFile, Entry, QUARANTINE, RealDisk, RealFile},
    frame::segment_seed,
    open,
    scan::{Found, Scanner},
    segment::{Block, FRAMES_AT},
};
use crate::domain::receipt::StreamId;

/// How often damage in the segment being written is looked at again: a daemon may be in the middle of writing there.
const LOOKS: u32 = 3;
/// From one of these looks to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// What a directory holds.
#[derive(Clone, Debug)]
pub struct Report {
    /// Segments, oldest first.
    pub segments: Vec<Segment>,
    /// Where the lanes stand.
    pub lanes: Vec<LaneState>,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// Bytes of a write that a crash cut short: normal, nobody was told of them.
    pub torn_bytes: u64,
    /// Lane, stream and last known number of streams behind which readings may be gone, nobody knows how many.
    pub lost_ends: Vec<(usize, StreamId, u64)>,
    /// Files that were set aside, and their bytes.
    pub quarantine: (usize, u64),
}

/// One segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Whole frames; 0 where frames were not looked at.
    pub frames: u64,
    /// Readings in them.
    pub readings: u64,
    /// Stretches that are not whole.
    pub damaged: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Looks at every segment's header and the end of the last one; at every frame of all of them where `frames`.
///
/// # Errors
/// `NotFound` where there is no journal; else what keeps it from being read.
pub fn look(dir: &Path, frames: bool) -> io::Result<Report> {
    for turn in 1.. {
        let report = look_once(dir, frames)?;
        let last = report.segments.last().map_or(0, |segment| segment.number);
        if turn == LOOKS || report.damage.iter().all(|damage| damage.segment < last) {
            return Ok(report);
        }
        std::thread::sleep(PAUSE);
    }
    unreachable!("the last turn returns")
}

fn look_once(dir: &Path, frames: bool) -> io::Result<Report> {
    std::fs::read_dir(dir)?;
    let disk = DryDisk(RealDisk::existing(dir));
    // Nothing is written, so the bound does not matter.
    let settings = LogSettings::for_bound(u64::MAX / 2);
    let (log, recovered) = open(disk, settings, &mut Uuid::nil, 1)?;
    let shared = log.shared();
    let numbers = if recovered.fresh { Vec::new() } else { shared.segments() };
    let mut segments: Vec<Segment> = numbers.iter().map(|number| Segment { number: *number, ..Segment::default() }).collect();
    let mut dense = Dense::default();
    if frames {
        for segment in &mut segments {
            let number = segment.number;
            if let Some(view) = shared.lock().segments.iter().find(|view| view.number == number) {
                dense.begin(view);
            }
            let found = shared.scrub_with(number, &mut |found| {
                dense.take(number, found);
                ControlFlow::Continue(())
            });
            (segment.frames, segment.readings) = (found.frames, found.readings);
            (segment.damaged, segment.bytes) = (found.damaged, found.bytes);
        }
    }
    // The last segment is looked into twice.
    let (mut damage, mut seen) = (recovered.damage, BTreeSet::new());
    damage.extend(shared.take_damage());
    damage.retain(|damage| seen.insert((damage.segment, damage.offset)));
    damage.extend(dense.missing);
    let set_aside = |damage: Damage| {
        let there = damage.quarantine_file.filter(|name| dir.join(name).exists());
        Damage { quarantine_file: there, ..damage }
    };
    Ok(Report {
        segments,
        lanes: if recovered.fresh { Vec::new() } else { recovered.lanes },
        damage: damage.into_iter().map(set_aside).collect(),
        torn_bytes: recovered.torn_bytes,
        lost_ends: shared.lost_ends(),
        quarantine: quarantined(dir),
    })
}

fn quarantined(dir: &Path) -> (usize, u64) {
    let files = std::fs::read_dir(dir.join(QUARANTINE)).into_iter().flatten().flatten();
    let sizes = files.filter(|file| file.path().extension().is_none_or(|end| end != "txt")).filter_map(|file| file.metadata().ok());
    sizes.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.len()))
}

/// Up to where an open segment holds whole frames: what stands behind may be half written. 0 where it is not begun, or its header is not
/// all there yet: nobody has been told of anything in it. All of it where that cannot be told.
///
/// # Errors
/// What keeps it from being read.
pub fn whole_end(file: &File) -> io::Result<u64> {
    let file = Plain(file);
    let len = file.len()?;
    let header = match read_header(&file) {
        (Block::Good(header), _) => header,
        (Block::Torn, _) => return Ok(0),
        _ => return Ok(len),
    };
    let mut scanner = Scanner::new(file, segment_seed(header.log, header.number), FRAMES_AT, len);
    let mut end = FRAMES_AT;
    while let Some(found) = scanner.step(None) {
        // What is damaged and has a whole frame behind it is kept as it is, for whoever looks at it later.
        if let Found::Frame { offset, frame, .. } = found {
            end = offset + frame.extent();
        }
    }
    Ok(end.min(len))
}

fn read_only<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this only looks"))
}

/// An open file that is only read.
#[derive(Debug)]
struct Plain<'f>(&'f File);

impl DiskFile for Plain<'_> {
    fn allocate(&self, _: u64) -> io::Result<()> {
        read_only()
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        read_only()
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        read_only()
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        read_only()
    }
}

/// The real directory, read; whatever is written goes nowhere.
#[derive(Debug)]
struct DryDisk(RealDisk);

/// A file of it: a real one, or one that was made and forgotten.
#[derive(Debug)]
enum DryFile {
    Real(RealFile),
    Forgotten,
}

impl Disk for DryDisk {
    type File = DryFile;

    fn create_new(&self, _: &str) -> io::Result<DryFile> {
        Ok(DryFile::Forgotten)
    }
    fn open(&self, name: &str) -> io::Result<DryFile> {
        self.0.open_read(name).map(DryFile::Real)
    }
    fn list(&self) -> io::Result<Vec<Entry>> {
        self.0.list()
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl DiskFile for DryFile {
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.read_at(bytes, offset),
            Self::Forgotten => Ok(0),
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => file.len(),
            Self::Forgotten => Ok(0),
        }
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn next_data(&self, offset: u64) -> u64 {
        match self {
            Self::Real(file) => file.next_data(offset),
            Self::Forgotten => offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use bytes::Bytes;

    use super::*;

    /// A journal of several small segments with readings in two lanes.
    fn filled(dir: &Path) {
        let disk = RealDisk::create(dir).expect("a directory");
        let settings = LogSettings { segment_bytes: 64 * 1024, total_bytes: 16 * 1024 * 1024 };
        let (mut log, _) = open(disk, settings, &mut Uuid::new_v4, 2).expect("opens");
        for n in 0..60_u8 {
            let payload = Bytes::from(vec![n; 5_000]);
            log.append(usize::from(n % 2), 1, 10, &[payload]).expect("fits");
            log.sync().expect("synced");
        }
    }

    fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(dir).expect("a directory").flatten().filter(|entry| entry.path().is_file());
        files.map(|file| (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).expect("a file"))).collect()
    }

    #[test]
    fn a_whole_journal_is_counted_and_not_touched() {
        let dir = tempfile::tempdir().expect("a directory");
        filled(dir.path());
        let before = content(dir.path());
        let report = look(dir.path(), true).expect("readable");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!(report.segments.iter().map(|segment| segment.readings).sum::<u64>(), 600);
        assert_eq!(report.lanes.iter().map(|lane| lane.accepted).collect::<Vec<_>>(), [300, 300]);
        assert_eq!(look(dir.path(), false).expect("readable").segments.len(), report.segments.len());
        assert_eq!(content(dir.path()), before);
    }

    #[test]
    fn damage_is_told_with_its_place_and_nothing_is_moved() {
        let dir = tempfile::tempdir().expect("a directory");
        filled(dir.path());
        let name = dir.path().join("0000000002.seg");
        let mut bytes = fs::read(&name).expect("a segment");
        bytes[FRAMES_AT as usize + 1_000] ^= 1;
        fs::write(&name, bytes).expect("written");
        let before = content(dir.path());
        let report = look(dir.path(), true).expect("readable");
        assert_eq!(report.damage.iter().map(|damage| (damage.segment, damage.offset)).collect::<Vec<_>>(), [(2, FRAMES_AT)]);
        assert_eq!(report.damage[0].quarantine_file, None, "nothing was set aside");
        assert_eq!(report.segments.iter().map(|segment| segment.readings).sum::<u64>(), 590);
        assert_eq!(content(dir.path()), before);
        assert_eq!(report.quarantine, (0, 0));
    }

    #[test]
    fn numbers_that_are_missing_are_told_where_every_frame_is_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        filled(dir.path());
        let name = dir.path().join("0000000002.seg");
        let mut bytes = fs::read(&name).expect("a segment");
        // As a copy leaves it that was cut earlier than the header behind it says: nothing but zeros.
        let end = whole_end(&File::open(&name).expect("a segment")).expect("readable") as usize;
        bytes[end - 12_000..].fill(0);
        fs::write(&name, bytes).expect("written");
        let report = look(dir.path(), true).expect("readable");
        let missing =
            report.damage.iter().filter_map(|damage| damage.readings).map(|(_, first, last)| last + 1 - first).sum::<u64>();
        assert!(missing >= 20, "{:?}", report.damage);
        assert_eq!(report.segments.iter().map(|segment| segment.readings).sum::<u64>() + missing, 600);
    }

    #[test]
    fn the_end_of_a_segment_that_is_being_written_is_its_last_whole_frame() {
        let dir = tempfile::tempdir().expect("a directory");
        filled(dir.path());
        let name = dir.path().join("0000000001.seg");
        let end = whole_end(&File::open(&name).expect("a segment")).expect("readable");
        let whole = fs::read(&name).expect("a segment");
        let mut torn = whole.clone();
        torn.resize((end + 6_000) as usize, 0);
        torn.copy_within(FRAMES_AT as usize..FRAMES_AT as usize + 3_000, end as usize);
        fs::write(&name, torn).expect("written");
        assert_eq!(whole_end(&File::open(&name).expect("a segment")).expect("readable"), end);
        let junk = dir.path().join("junk");
        fs::write(&junk, "junk").expect("written");
        assert_eq!(whole_end(&File::open(junk).expect("a file")).expect("readable"), 4);
    }

    #[test]
    fn without_a_journal_there_is_nothing_to_look_at() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(look(&dir.path().join("absent"), true).expect_err("nothing").kind(), io::ErrorKind::NotFound);
        assert!(look(dir.path(), true).expect("empty").segments.is_empty());
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing was made");
    }
}
