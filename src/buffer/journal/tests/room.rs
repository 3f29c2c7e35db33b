//! The tier where there is no room, or no further segment for another reason: what must go on all the same, and how it is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    disk::ModelDisk,
    tier::{Database, Seen, balanced, push, settings, submit},
};
use crate::{
    buffer::{
        Attached, Buffer, Position,
        journal::tier::{JournalBuffer, Room},
    },
    domain::ack::AckLevel,
    protocol::Refusal,
};

const BOUND: u64 = 8 << 20;

fn open(disk: &ModelDisk) -> (JournalBuffer<ModelDisk>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    (JournalBuffer::open(disk.clone(), settings(BOUND, 1), seen.clone()).expect("it opens").0, seen)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pushes until one is refused.
fn fill(buffer: &dyn Buffer, rows: u32, want: Refusal) -> u64 {
    let mut accepted = 0;
    loop {
        match submit(buffer, rows, accepted as i64, AckLevel::Journal) {
            Ok(_) => accepted += u64::from(rows),
            Err(refusal) => {
                assert_eq!(refusal, want);
                return accepted;
            }
        }
    }
}

/// A database that knows another history makes the lane fork; then everything is drained, and readings are taken again.
fn forks_and_goes_on(buffer: &dyn Buffer, accepted: u64) {
    let other = Database { position: Position { cursor_seq: 7, cursor_chain: 77, ..Position::default() }, ..Database::default() };
    assert!(matches!(other.attach(buffer), Attached::DirectoryRestored { .. }));
    let mut again = Database::default();
    assert_eq!(again.attach(buffer), Attached::Resumed);
    assert_eq!(again.drain(buffer), []);
    assert_eq!(again.times.len() as u64, accepted);
    until("it takes readings again", || submit(buffer, 1, -1, AckLevel::Journal).is_ok());
    again.drain(buffer);
    assert!(balanced(buffer), "{:?}", buffer.stats().account);
}

#[test]
fn a_full_journal_forks_and_is_drained() {
    for restarted in [false, true] {
        let disk = ModelDisk::new();
        let (buffer, _) = open(&disk);
        let accepted = fill(&buffer, 5_000, Refusal::Full);
        if restarted {
            drop(buffer);
            disk.kill();
            let (buffer, _) = open(&disk);
            forks_and_goes_on(&buffer, accepted);
        } else {
            forks_and_goes_on(&buffer, accepted);
        }
    }
}

#[test]
fn on_a_full_file_system_the_room_behind_the_end_is_enough_for_a_fork() {
    for restarted in [false, true] {
        let disk = ModelDisk::new();
        let (buffer, _) = open(&disk);
        disk.inner().room = 3 << 20;
        let accepted = fill(&buffer, 5_000, Refusal::DiskFull);
        let (buffer, _) = if restarted {
            // Without an orderly end.
            disk.inner().faults.dies_after = Some(0);
            drop(buffer);
            disk.kill();
            open(&disk)
        } else {
            (buffer, Arc::default())
        };
        // Not one block is left.
        let used = disk.inner().used();
        disk.inner().room = used;
        forks_and_goes_on(&buffer, accepted);
    }
}

#[test]
fn a_fork_without_a_file_leaves_the_segment_that_is_written() {
    let disk = ModelDisk::new();
    let (buffer, _) = open(&disk);
    push(&buffer, 5, 100);
    let (stream, segments) = (buffer.stream(0), buffer.core.shared.segments());
    disk.inner().read_only = true;
    let other = Position { cursor_seq: 7, cursor_chain: 77, ..Position::default() };
    buffer.attach(0, &other).expect_err("no file can be made");
    push(&buffer, 5, 200);
    assert_eq!((buffer.stream(0), buffer.core.shared.segments()), (stream, segments), "the room that is left is used");
    disk.inner().read_only = false;
    forks_and_goes_on(&buffer, 10);
}

#[test]
fn a_push_that_fits_once_fits_again_when_the_database_has_the_first() {
    let disk = ModelDisk::new();
    let (buffer, _) = open(&disk);
    let mut database = Database::default();
    database.attach(&buffer);
    let mut taken = 0;
    for round in 0..4 {
        // More than half of the bound, in a segment of its own.
        let rows = (BOUND * 6 / 10 * 1_000 / super::tier::batch(1_000, 0).bytes().len() as u64) as u32;
        until("it is taken", || submit(&buffer, rows, round * 100_000, AckLevel::Journal).is_ok());
        assert_eq!(submit(&buffer, rows, 0, AckLevel::Journal).map(|_| ()), Err(Refusal::Full), "the first is not settled");
        database.drain(&buffer);
        taken += rows as usize;
        assert_eq!(database.times.len(), taken);
    }
    assert!(balanced(&buffer));
}

#[test]
fn what_the_database_has_goes_without_a_copy_before_anything_is_refused_and_is_counted() {
    let disk = ModelDisk::new();
    let (buffer, _) = open(&disk);
    let mut database = Database::default();
    database.attach(&buffer);
    // A second medium that is away.
    buffer.copied(0, buffer.stream(0), 0);
    let bytes = super::tier::batch(5_000, 0).bytes().len() as u64;
    let push = |round: u64, rows| submit(&buffer, rows, round as i64 * 100_000, AckLevel::Journal).map(|_| ());
    let mut taken = 0;
    for round in 0..3 * BOUND / bytes {
        assert_eq!(push(round, 5_000), Ok(()), "{round}");
        taken += 5_000;
        database.drain(&buffer);
        // What is made beforehand takes room, too.
        let full = (round + 1) * bytes > BOUND / 2;
        assert!(full || buffer.dropped_uncopied() == 0, "{round}: there was room");
    }
    let dropped = buffer.dropped_uncopied();
    assert!(dropped >= BOUND, "{dropped}");
    // Also where the last segment must give way.
    let rows = (BOUND * 6 / 10 * 5_000 / bytes) as u32;
    for round in 1_000..1_004 {
        assert_eq!(push(round, rows), Ok(()), "{round}");
        taken += rows as usize;
        database.drain(&buffer);
    }
    assert!(buffer.dropped_uncopied() > dropped + BOUND);
    // What the database has not never goes.
    taken += fill(&buffer, 5_000, Refusal::Full) as usize;
    database.drain(&buffer);
    assert_eq!(database.times.len(), taken);
    assert!(balanced(&buffer), "{:?}", buffer.stats().account);
}

#[test]
fn where_no_segment_can_be_made_it_says_so_and_counts_no_sync() {
    let disk = ModelDisk::new();
    let (buffer, seen) = open(&disk);
    disk.inner().read_only = true;
    fill(&buffer, 5_000, Refusal::Failed);
    let stats = buffer.stats();
    assert!(stats.refuses && stats.failing, "{stats:?}");
    assert_eq!(seen.rooms(), [Room::Failing]);
    assert!(seen.cause().contains("Read-only"), "{}", seen.cause());
    let counted = |seen: &Seen| {
        let turns = seen.turns();
        until("the commit thread goes on", || seen.turns() > turns + 1);
        seen.syncs()
    };
    let syncs = counted(&seen);
    for _ in 0..20 {
        assert_eq!(submit(&buffer, 1, 0, AckLevel::Journal).map(|_| ()), Err(Refusal::Failed));
    }
    assert_eq!((counted(&seen), seen.rooms()), (syncs, vec![Room::Failing]), "nothing was written, and nothing has changed");
    disk.inner().read_only = false;
    until("it goes on by itself", || submit(&buffer, 1, 0, AckLevel::Journal).is_ok());
    assert_eq!(seen.rooms(), [Room::Failing, Room::Free]);
    assert!(!buffer.stats().failing && balanced(&buffer));
}

#[test]
fn a_failed_sync_without_a_segment_to_go_on_in_is_told_without_a_push() {
    let disk = ModelDisk::new();
    let (buffer, seen) = open(&disk);
    push(&buffer, 1, 0);
    // The one that is made ahead of time must not be there.
    disk.inner().read_only = true;
    disk.inner().faults.sync = 1;
    assert_eq!(submit(&buffer, 1, 1, AckLevel::Journal).map(|_| ()), Err(Refusal::Failed));
    until("it is told", || buffer.stats().failing);
    disk.inner().read_only = false;
    until("it goes on by itself", || !buffer.stats().refuses);
    push(&buffer, 1, 2);
    assert_eq!(seen.rooms(), [Room::Failing, Room::Free]);
}
