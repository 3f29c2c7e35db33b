//! The comparison of the journal with what waits in it, over files that somebody removes, exchanges and damages.

use std::path::{Path, PathBuf};

use super::tier::{Database, Seen, push, settings};
use crate::buffer::{
    Buffer,
    audit::{Audited, Medium},
    journal::{disk::RealDisk, tier::JournalBuffer},
};

/// Readings of a push: eight of these are more than a segment.
const ROWS: u32 = 400;

fn open(dir: &Path) -> JournalBuffer<RealDisk> {
    let disk = RealDisk::create(dir).expect("a directory");
    JournalBuffer::open(disk, settings(512 * 1024, 1), std::sync::Arc::new(Seen::default())).expect("it opens").0
}

fn compared(buffer: &dyn Buffer) -> Audited {
    let mut audit = buffer.audit(Medium::Journal).expect("readings wait here");
    loop {
        let found = audit.step().expect("readable");
        // As between two runs of the duty.
        audit.rest();
        if let Some(found) = found {
            return found;
        }
    }
}

/// First and last numbers that are told as missing.
fn absent(found: &Audited) -> Vec<(u64, u64)> {
    assert!(found.absent.iter().all(|absent| absent.waiting == absent.last + 1 - absent.first), "{found:?}");
    found.absent.iter().map(|absent| (absent.first, absent.last)).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    files.sort();
    files
}

/// A journal of several segments, none of which the database has seen.
fn filled(dir: &Path) -> (JournalBuffer<RealDisk>, u64) {
    let buffer = open(dir);
    Database::default().attach(&buffer);
    let mut readings = 0;
    while segments(dir).len() < 5 {
        readings = push(&buffer, ROWS, 1_000 + readings as i64).last_seq;
    }
    (buffer, readings)
}

#[test]
fn a_file_that_was_removed_is_missed_until_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, readings) = filled(dir.path());
    let whole = compared(&buffer);
    assert_eq!((whole.readings, whole.streams, absent(&whole)), (readings, 1, vec![]));

    let file = segments(dir.path()).swap_remove(1);
    let aside = dir.path().join("aside");
    std::fs::rename(&file, &aside).expect("moved");
    let found = compared(&buffer);
    let gone = absent(&found);
    let &[(first, last)] = &gone[..] else { panic!("one stretch: {gone:?}") };
    assert!(first > 1 && last < readings && found.readings + (last + 1 - first) == readings, "{found:?}");
    // What the database has need not be there.
    let mut database = Database::default();
    std::fs::rename(&aside, &file).expect("moved back");
    assert_eq!(absent(&compared(&buffer)), vec![], "put back");
    database.drain(&buffer);
    // Unless it was trimmed already.
    let _ = std::fs::rename(&file, &aside);
    assert_eq!(absent(&compared(&buffer)), vec![], "stored");
}

#[test]
fn a_journal_without_any_of_its_files_lacks_all_that_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, readings) = filled(dir.path());
    let (files, aside) = (segments(dir.path()), tempfile::tempdir().expect("a directory"));
    let there = |file: &PathBuf| aside.path().join(file.file_name().expect("a name"));
    files.iter().for_each(|file| std::fs::rename(file, there(file)).expect("moved"));
    assert_eq!(absent(&compared(&buffer)), [(1, readings)]);
    files.iter().for_each(|file| std::fs::rename(there(file), file).expect("moved back"));
    let found = compared(&buffer);
    assert_eq!((found.readings, absent(&found)), (readings, vec![]));
}

#[test]
fn what_was_away_for_a_moment_and_what_nobody_knows_to_wait_is_not_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, readings) = filled(dir.path());
    let (file, aside) = (segments(dir.path()).swap_remove(1), dir.path().join("aside"));
    std::fs::rename(&file, &aside).expect("moved");
    let mut audit = buffer.audit(Medium::Journal).expect("readings wait here");
    while audit.readings() < readings / 2 {
        assert_eq!(audit.step(), Ok(None));
    }
    std::fs::rename(&aside, &file).expect("moved back");
    let found = std::iter::from_fn(|| audit.step().ok()).flatten().next().expect("an end");
    assert_eq!((found.readings, absent(&found)), (readings, vec![]), "the second look found it");

    // A start without the database: whether it has what is not there nobody can say.
    std::fs::rename(&file, &aside).expect("moved");
    drop(buffer);
    let buffer = open(dir.path());
    let found = compared(&buffer);
    assert!(absent(&found).is_empty() && found.readings < readings, "{found:?}");
    Database::default().attach(&buffer);
    assert_eq!(absent(&compared(&buffer)).len(), 1, "it has not");
}

#[test]
fn a_frame_that_is_damaged_is_missing_and_its_neighbours_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, readings) = filled(dir.path());
    let file = segments(dir.path()).swap_remove(1);
    let mut bytes = std::fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let found = compared(&buffer);
    let gone = absent(&found);
    let &[(first, last)] = &gone[..] else { panic!("one frame: {gone:?}") };
    assert_eq!((first % u64::from(ROWS), last + 1 - first), (1, u64::from(ROWS)), "one push, in a frame of its own");
    assert_eq!(found.readings, readings - u64::from(ROWS));
}

#[test]
fn what_comes_meanwhile_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, readings) = filled(dir.path());
    let mut audit = buffer.audit(Medium::Journal).expect("readings wait here");
    assert_eq!(audit.step(), Ok(None));
    push(&buffer, ROWS, 9_000_000);
    let found = std::iter::from_fn(|| audit.step().ok()).flatten().next().expect("an end");
    assert!(absent(&found).is_empty() && found.readings >= readings, "{found:?}");
    assert!(buffer.audit(Medium::Redis).is_none(), "no Redis here");
}
