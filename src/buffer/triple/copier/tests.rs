//! What is read of the journal for its copy, and who is answered by it.

use std::io;

use tokio::sync::oneshot;

use super::*;
use crate::{
    buffer::journal::{
        Damage,
        tier::{JournalObserver, JournalSettings, Room},
    },
    domain::{batch::BatchBuilder, reading::ReadingRef},
};

struct Silent;

impl JournalObserver for Silent {
    fn alive(&self, _: u64) {}
    fn room(&self, _: Room) {}
    fn sync_failed(&self, _: &io::Error, _: u64, _: u64) {}
    fn damaged(&self, _: &[Damage]) {}
}

fn journal() -> (tempfile::TempDir, JournalBuffer<RealDisk>) {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = JournalSettings { journal_bytes: 8_000_000, queue_bytes: 1_000_000, streams: 1 };
    let disk = RealDisk::create(dir.path()).expect("a disk");
    let (journal, _) = JournalBuffer::open(disk, settings, Arc::new(Silent)).expect("a journal");
    (dir, journal)
}

fn push(journal: &JournalBuffer<RealDisk>, rows: u32, ack: AckLevel) -> Option<oneshot::Receiver<AckLevel>> {
    let mut builder = BatchBuilder::default();
    for n in 0..rows {
        builder.push(&ReadingRef {
            engine_id: "e",
            observed_at_us: i64::from(n),
            status: None,
            temperature: Some(1.0),
            rpm: None,
            pressure: None,
            fuel_flow: None,
            extra: None,
        });
    }
    let (reply, answer) = oneshot::channel();
    journal.submit(builder.finish(7), ack, None, reply);
    answer.blocking_recv().expect("answered").expect("taken").upgrade
}

/// The ids that the commands give, as Redis would read them.
fn ids(group: &Group) -> Vec<String> {
    let words = |add: &Cmd| String::from_utf8_lossy(&add.get_packed_command()).into_owned();
    let id = |add: &Cmd| words(add).lines().find(|line| line.ends_with("-0")).map(str::to_owned);
    group.adds.iter().filter_map(id).collect()
}

#[test]
fn frames_are_copied_behind_the_sync_one_entry_each_and_gone_on_with() {
    let (_dir, journal) = journal();
    push(&journal, 3, AckLevel::Journal);
    push(&journal, 2, AckLevel::Journal);
    let mut lane = LaneCopy::new(0, journal.copy_reader(0), Instant::now());
    let group = lane.gather("key", 0).ok().expect("readable");
    assert_eq!((ids(&group), group.newest, group.end), (vec!["3-0".to_owned(), "5-0".to_owned()], 5, 5));
    (lane.at, lane.newest) = (group.end, group.newest);
    assert!(lane.gather("key", 0).is_ok_and(|group| group.adds.is_empty() && group.end == 5), "nothing new");
    push(&journal, 4, AckLevel::Journal);
    assert!(lane.gather("key", 0).is_ok_and(|group| ids(&group) == ["9-0"]));

    // From its own place, whatever it has read before.
    let mut again = LaneCopy::new(0, journal.copy_reader(0), Instant::now());
    (again.at, again.newest) = (3, 3);
    assert!(again.gather("key", 0).is_ok_and(|group| ids(&group) == ["5-0", "9-0"]));
    let mut astray = LaneCopy::new(0, journal.copy_reader(0), Instant::now());
    astray.at = 4;
    assert!(matches!(astray.gather("key", 0), Err(Failed::Astray)), "no entry of ours ends inside a frame");
}

#[test]
fn who_waits_for_the_database_is_released_up_to_the_copy() {
    let (_dir, journal) = journal();
    let mut first = push(&journal, 3, AckLevel::Store).expect("waits");
    let mut second = push(&journal, 2, AckLevel::Store).expect("waits");
    journal.release(0, 4, AckLevel::Journal);
    assert_eq!(first.try_recv(), Ok(AckLevel::Journal));
    assert!(second.try_recv().is_err() && journal.has_waiters());
    journal.release(0, journal.end(0), AckLevel::Journal);
    assert_eq!(second.try_recv(), Ok(AckLevel::Journal));
    assert!(!journal.has_waiters());
}

#[test]
fn a_renumbered_lane_has_a_new_stream_in_which_nothing_is_copied() {
    let (_dir, journal) = journal();
    push(&journal, 3, AckLevel::Journal);
    let before = journal.stream(0);
    journal.copied(0, before, 3);
    let renumbered = journal.renumber(0).expect("the disk takes it");
    let crate::buffer::Attached::DirectoryRestored { from, to } = renumbered else { panic!("a new stream") };
    assert_eq!((from, to), (before, journal.stream(0)));
    assert_ne!(from, to);
    let mut lane = LaneCopy::new(0, journal.copy_reader(0), Instant::now());
    assert!(lane.gather("key", 0).is_ok_and(|group| ids(&group) == ["3-0"]), "numbered anew from 1");
}
