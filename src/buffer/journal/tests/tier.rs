//! The tier over a real directory: answers, restarts, restored directories and databases.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{
    buffer::{
        Attached, Buffer, DrainOutcome, Frame, Position, Totals, Work,
        journal::{
            Damage, Recovered,
            commit::Submitted,
            disk::RealDisk,
            tier::{JournalBuffer, JournalObserver, JournalSettings, Room, lock},
        },
    },
    domain::{
        ack::AckLevel,
        batch::{Batch, BatchBuilder},
        reading::ReadingRef,
        receipt::{Receipt, ReceiptState, StreamId},
    },
    protocol::{Accepted, Refusal},
};

#[derive(Default)]
pub(super) struct Seen {
    rooms: Mutex<Vec<Room>>,
    damaged: AtomicU64,
    cause: Mutex<String>,
    /// Turns of the commit thread that were told, and syncs as of the last.
    turns: AtomicU64,
    syncs: AtomicU64,
}

impl Seen {
    pub(super) fn rooms(&self) -> Vec<Room> {
        self.rooms.lock().expect("no panic").clone()
    }

    pub(super) fn cause(&self) -> String {
        self.cause.lock().expect("no panic").clone()
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Acquire)
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Acquire)
    }
}

impl JournalObserver for Seen {
    fn alive(&self, syncs: u64) {
        self.syncs.store(syncs, Ordering::Release);
        self.turns.fetch_add(1, Ordering::AcqRel);
    }
    fn failing(&self, cause: &io::Error) {
        self.room(Room::Failing);
        *self.cause.lock().expect("no panic") = cause.to_string();
    }
    fn room(&self, room: Room) {
        self.rooms.lock().expect("no panic").push(room);
    }
    fn sync_failed(&self, _: &io::Error, _: u64, _: u64) {}
    fn damaged(&self, damage: &[Damage]) {
        self.damaged.fetch_add(damage.len() as u64, Ordering::Relaxed);
    }
}

pub(super) fn settings(journal_bytes: u64, streams: usize) -> JournalSettings {
    JournalSettings { journal_bytes, queue_bytes: 10_000_000, streams }
}

fn open_with(dir: &Path, settings: JournalSettings) -> (JournalBuffer<RealDisk>, Recovered, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let disk = RealDisk::create(dir).expect("a directory");
    let (buffer, recovered) = JournalBuffer::open(disk, settings, seen.clone()).expect("it opens");
    (buffer, recovered, seen)
}

fn open(dir: &Path) -> JournalBuffer<RealDisk> {
    open_with(dir, settings(64 << 20, 1)).0
}

pub(super) fn batch(rows: u32, from: i64) -> Batch {
    let mut builder = BatchBuilder::default();
    for n in 0..rows {
        builder.push(&ReadingRef {
            engine_id: "e1",
            observed_at_us: from + i64::from(n),
            status: None,
            temperature: Some(1.0),
            rpm: None,
            pressure: None,
            fuel_flow: None,
            extra: None,
        });
    }
    builder.finish(from)
}

pub(super) fn submit(buffer: &dyn Buffer, rows: u32, from: i64, ack: AckLevel) -> Result<Accepted, Refusal> {
    let (reply, answer) = oneshot::channel();
    buffer.submit(batch(rows, from), ack, None, reply);
    answer.blocking_recv().expect("answered")
}

pub(super) fn push(buffer: &dyn Buffer, rows: u32, from: i64) -> Receipt {
    submit(buffer, rows, from, AckLevel::Journal).expect("there is room").receipt
}

/// A database for one lane, as far as the buffer can tell.
#[derive(Clone, Default)]
pub(super) struct Database {
    pub(super) position: Position,
    pub(super) times: Vec<i64>,
}

impl Database {
    pub(super) fn attach(&self, buffer: &dyn Buffer) -> Attached {
        buffer.attach(0, &self.position).expect("the log can be read")
    }

    fn take(&mut self, frames: &[Frame]) -> DrainOutcome {
        let first = &frames[0];
        assert_eq!((first.first_seq - 1, first.chain_before), (self.position.cursor_seq, self.position.cursor_chain));
        let last = frames.last().expect("some");
        let stored = frames.iter().map(|frame| u64::from(frame.batch.len())).sum();
        self.times
            .extend(frames.iter().flat_map(|frame| frame.batch.iter().map(|reading| reading.observed_at_us).collect::<Vec<_>>()));
        let outcome = DrainOutcome { first_seq: first.first_seq, last_seq: last.last_seq(), stored, ..Default::default() };
        self.position.totals.settle(&outcome);
        (self.position.cursor_seq, self.position.cursor_chain) = (last.last_seq(), last.chain);
        outcome
    }

    /// Takes everything; gaps as well, whose kinds and lengths are returned.
    pub(super) fn drain(&mut self, buffer: &dyn Buffer) -> Vec<(crate::buffer::GapKind, u64)> {
        let mut gaps = Vec::new();
        loop {
            let outcome = match buffer.next(0, 1_000).expect("the log can be read") {
                Work::Nothing => return gaps,
                Work::Frames(frames) => self.take(&frames),
                Work::Gap(gap) => {
                    assert_eq!((gap.first_seq - 1, gap.chain_before), (self.position.cursor_seq, self.position.cursor_chain));
                    gaps.push((gap.kind, gap.last_seq + 1 - gap.first_seq));
                    let outcome = DrainOutcome::of_gap(&gap);
                    self.position.totals.settle(&outcome);
                    (self.position.cursor_seq, self.position.cursor_chain) = (gap.last_seq, gap.chain);
                    outcome
                }
            };
            buffer.settle(0, &outcome);
        }
    }
}

pub(super) fn balanced(buffer: &dyn Buffer) -> bool {
    buffer.stats().difference == 0
}

#[test]
fn what_is_acknowledged_is_there_after_a_restart_and_goes_on_with_the_next_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let buffer = open(dir.path());
    let stream = buffer.stream(0);
    assert_eq!(push(&buffer, 3, 100), Receipt { stream, first_seq: 1, last_seq: 3 });
    assert_eq!(push(&buffer, 2, 200), Receipt { stream, first_seq: 4, last_seq: 5 });
    drop(buffer);
    let buffer = open(dir.path());
    assert_eq!((buffer.stream(0), buffer.waiting(0)), (stream, 5));
    assert_eq!(push(&buffer, 1, 300).first_seq, 6);
    let mut database = Database::default();
    assert_eq!(database.attach(&buffer), Attached::Resumed);
    assert_eq!(database.drain(&buffer), []);
    assert_eq!(database.times, [100, 101, 102, 200, 201, 300]);
    assert_eq!((buffer.stats().rows, buffer.stats().account.stored), (0, 6));
    assert!(balanced(&buffer));
    drop(buffer);
    let buffer = open(dir.path());
    assert_eq!(database.attach(&buffer), Attached::Resumed);
    assert_eq!(database.drain(&buffer), []);
    assert_eq!((buffer.waiting(0), database.times.len()), (0, 6));
    assert!(balanced(&buffer));
}

#[test]
fn a_commit_whose_answer_never_came_is_not_drained_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let buffer = open(dir.path());
    let mut database = Database::default();
    database.attach(&buffer);
    let mut waiter = submit(&buffer, 3, 100, AckLevel::Store).expect("room").upgrade.expect("a waiter");
    push(&buffer, 3, 200);
    let Work::Frames(frames) = buffer.next(0, 1).expect("read") else { panic!("there are frames") };
    database.take(&frames);
    assert!(waiter.try_recv().is_err());
    assert_eq!(database.attach(&buffer), Attached::Resumed);
    assert_eq!(waiter.try_recv(), Ok(AckLevel::Store));
    database.drain(&buffer);
    assert_eq!(database.times, [100, 101, 102, 200, 201, 202]);
    assert!(balanced(&buffer));
}

#[test]
fn a_write_that_failed_is_handed_out_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let buffer = open(dir.path());
    let mut database = Database::default();
    database.attach(&buffer);
    push(&buffer, 3, 100);
    push(&buffer, 3, 200);
    assert!(matches!(buffer.next(0, 10), Ok(Work::Frames(_))));
    assert_eq!(database.attach(&buffer), Attached::Resumed, "the database was opened again");
    database.drain(&buffer);
    assert_eq!(database.times.len(), 6);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

#[test]
fn an_older_directory_goes_on_under_a_new_stream_and_loses_nothing() {
    let (dir, backup) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let mut database = Database::default();
    let buffer = open(dir.path());
    let stream = buffer.stream(0);
    push(&buffer, 3, 100);
    drop(buffer);
    copy(dir.path(), backup.path());
    let buffer = open(dir.path());
    database.attach(&buffer);
    push(&buffer, 5, 200);
    database.drain(&buffer);
    drop(buffer);

    // The backup is put in place, and takes readings before it has seen the database.
    let buffer = open(backup.path());
    let receipt = push(&buffer, 5, 300);
    assert_eq!((receipt.stream, receipt.first_seq), (stream, 4));
    let mut waiter = submit(&buffer, 1, 400, AckLevel::Store).expect("room").upgrade.expect("a waiter");
    let Attached::DirectoryRestored { from, to } = database.attach(&buffer) else { panic!("it is noticed") };
    assert_eq!((from, buffer.stream(0)), (stream, to));
    assert_ne!(from, to);
    let mut again = Database::default();
    assert_eq!(again.attach(&buffer), Attached::Resumed);
    assert_eq!(again.drain(&buffer), []);
    assert_eq!(again.times, [100, 101, 102, 300, 301, 302, 303, 304, 400]);
    assert_eq!(waiter.try_recv(), Ok(AckLevel::Store));
    assert_eq!(buffer.locate(stream, 4), (to, 4), "old receipts are understood");
    assert_eq!(push(&buffer, 1, 500), Receipt { stream: to, first_seq: 10, last_seq: 10 });
    again.drain(&buffer);
    assert!(balanced(&buffer));
    drop(buffer);
    let buffer = open(backup.path());
    assert_eq!(again.attach(&buffer), Attached::Resumed);
    assert!(balanced(&buffer));
}

#[test]
fn an_older_database_is_told_of_what_it_lacks() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut database = Database::default();
    // Small segments, so that what is settled is dropped.
    let (buffer, _, _) = open_with(dir.path(), settings(8 << 20, 1));
    push(&buffer, 10, 0);
    database.attach(&buffer);
    database.drain(&buffer);
    let older = database.clone();
    for round in 1..=40 {
        push(&buffer, 2_000, round * 10_000);
        database.drain(&buffer);
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while buffer.core.shared.first_retained(0) <= 11 {
        assert!(std::time::Instant::now() < until, "settled segments are dropped");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let mut database = older;
    let Attached::StoreRestored { missing } = database.attach(&buffer) else { panic!("it is noticed") };
    assert!(missing > 0);
    push(&buffer, 1, 1);
    let gaps = database.drain(&buffer);
    assert_eq!(gaps, [(crate::buffer::GapKind::Lost, missing)]);
    assert_eq!(database.position.totals, Totals { stored: 80_011 - missing, lost: missing, ..Totals::default() });
    assert!(balanced(&buffer));
}

#[test]
fn at_its_bound_it_refuses_and_goes_on_when_the_database_has_caught_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, _, seen) = open_with(dir.path(), settings(8 << 20, 1));
    let mut database = Database::default();
    database.attach(&buffer);
    let mut accepted = 0;
    let refusal = loop {
        match submit(&buffer, 5_000, accepted, AckLevel::Journal) {
            Ok(_) => accepted += 5_000,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::Full);
    assert!(accepted >= 50_000, "most of the bound can be used: {accepted}");
    assert!(buffer.stats().refuses && buffer.stats().bytes <= 8 << 20);
    assert_eq!(buffer.refuses(&batch(1, 0)), Some(Refusal::Full));
    database.drain(&buffer);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while buffer.refuses(&batch(1, 0)).is_some() {
        assert!(std::time::Instant::now() < until, "it recovers by itself");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    push(&buffer, 1, -1);
    database.drain(&buffer);
    assert_eq!(database.times.len() as i64, accepted + 1);
    assert_eq!(*seen.rooms.lock().expect("no panic"), [Room::Full, Room::Free]);
}

#[test]
fn catching_up_spreads_over_the_lanes_and_every_lane_adds_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, _, _) = open_with(dir.path(), settings(64 << 20, 3));
    assert_eq!(buffer.lanes(), 3);
    assert_eq!(push(&buffer, 10, 0).stream, buffer.stream(0), "one lane is enough while little waits");
    for round in 0..30 {
        push(&buffer, 1_000, round * 1_000);
    }
    let waiting: Vec<u64> = (0..3).map(|lane| buffer.waiting(lane)).collect();
    assert!(waiting.iter().all(|rows| *rows >= 5_000), "{waiting:?}");
    assert_eq!(waiting.iter().sum::<u64>(), 30_010);
    drop(buffer);
    let (buffer, _, _) = open_with(dir.path(), settings(64 << 20, 1));
    assert_eq!(buffer.lanes(), 3, "what waits in a lane that is not written any more is drained all the same");
    assert_eq!((0..3).map(|lane| buffer.waiting(lane)).sum::<u64>(), 30_010);
}

#[test]
fn level_memory_is_answered_before_the_sync_and_said_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let buffer = open(dir.path());
    let accepted = submit(&buffer, 2, 0, AckLevel::Memory).expect("room");
    assert_eq!((accepted.level, accepted.receipt.last_seq), (AckLevel::Memory, 2));
    push(&buffer, 1, 10);
    let stream = buffer.stream(0);
    assert_eq!(buffer.state_of(stream, 3), Some(ReceiptState::Buffered));
    assert_eq!(buffer.state_of(stream, 4), Some(ReceiptState::Unknown));
    assert_eq!(buffer.state_of(StreamId::nil(), 1), None);
    buffer.close();
    assert_eq!(submit(&buffer, 1, 0, AckLevel::Journal).map(|_| ()), Err(Refusal::Stopping));
    assert_eq!(buffer.abandon(), 0);
}

#[test]
fn pushes_that_wait_together_are_covered_by_one_sync_each_with_its_own_numbers() {
    const PUSHES: u32 = 100;
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, _, seen) = open_with(dir.path(), settings(64 << 20, 1));
    push(&buffer, 1, 1);
    let told = |seen: &Seen| {
        let turns = seen.turns();
        while seen.turns() < turns + 2 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        seen.syncs()
    };
    let before = told(&seen);
    // As if they had come while a sync was under way: the thread finds all of them at once.
    let (answers, submitted): (Vec<_>, Vec<_>) = (0..PUSHES)
        .map(|n| {
            let (reply, answer) = oneshot::channel();
            let batch = batch(2, 100 + 10 * i64::from(n));
            (answer, Submitted { batch, ack: AckLevel::Journal, alerts: None, reply })
        })
        .unzip();
    lock(&buffer.core.queue).submitted.extend(submitted);
    buffer.core.wake.notify_one();
    let receipts: Vec<_> =
        answers.into_iter().map(|answer| answer.blocking_recv().expect("answered").expect("room").receipt).collect();
    let expected: Vec<_> = (0..u64::from(PUSHES)).map(|n| (2 + 2 * n, 3 + 2 * n)).collect();
    assert_eq!(receipts.iter().map(|receipt| (receipt.first_seq, receipt.last_seq)).collect::<Vec<_>>(), expected);
    assert_eq!(told(&seen), before + 1, "one sync for all of them");
}

#[test]
fn what_is_acknowledged_after_somebody_removed_the_journals_files_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (buffer, _, seen) = open_with(dir.path(), settings(64 << 20, 1));
    let mut database = Database::default();
    database.attach(&buffer);
    push(&buffer, 3, 100);
    for entry in std::fs::read_dir(dir.path()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "seg") {
            std::fs::remove_file(path).expect("removed");
        }
    }
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while seen.damaged.load(Ordering::Relaxed) == 0 {
        assert!(std::time::Instant::now() < until, "it is not noticed");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let receipt = push(&buffer, 2, 200);
    assert_eq!((receipt.first_seq, receipt.last_seq), (4, 5), "numbers go on");
    drop(buffer);
    let buffer = open(dir.path());
    assert_eq!(buffer.stream(0), receipt.stream);
    assert_eq!(database.attach(&buffer), Attached::StoreRestored { missing: 3 });
    assert_eq!(database.drain(&buffer), [(crate::buffer::GapKind::Lost, 3)], "told, and counted");
    assert_eq!(database.times, [200, 201]);
    assert!(balanced(&buffer));
}

#[test]
fn senders_that_gave_up_waiting_for_the_database_are_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let buffer = open(dir.path());
    for n in 0..5_000 {
        drop(submit(&buffer, 1, n, AckLevel::Store).expect("room").upgrade.expect("a waiter"));
    }
    assert!(buffer.stats().waiters <= 2_048, "{}", buffer.stats().waiters);
}
