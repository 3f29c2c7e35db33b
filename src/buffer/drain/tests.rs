//! The drain against a scripted database.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
    mpsc,
};
use std::time::Instant;

use tokio::sync::oneshot;

use super::*;
use crate::{
    buffer::{BufferStats, Work, memory::MemoryBuffer},
    domain::{
        ack::AckLevel,
        batch::{Batch, BatchBuilder},
        reading::ReadingRef,
        receipt::ReceiptState,
    },
    protocol::{Refusal, Reply},
};

#[derive(Default)]
struct Script {
    failures: u32,
    panics: u32,
    batches: Vec<u64>,
    /// As an `open` reports it.
    position: Position,
}

struct Scripted(Arc<Mutex<Script>>);

impl Writer for Scripted {
    fn open(&mut self, _: StreamId) -> Result<Position, WriteFailed> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).position)
    }

    fn pass_over(&mut self, _: StreamId, gap: &Gap) -> Result<DrainOutcome, WriteFailed> {
        Ok(DrainOutcome::of_gap(gap))
    }

    fn write(&mut self, _: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed> {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if script.panics > 0 {
            script.panics -= 1;
            panic!("planned");
        }
        if script.failures > 0 {
            script.failures -= 1;
            return Err(WriteFailed { verdict: Verdict::Outage, code: None, message: "planned".into() });
        }
        let rows = frames.iter().map(|frame| u64::from(frame.batch.len())).sum();
        script.batches.push(rows);
        let last_seq = frames.last().expect("never empty").last_seq();
        script.position.cursor_seq = last_seq;
        script.position.totals.stored += rows;
        Ok(DrainOutcome { first_seq: frames[0].first_seq, last_seq, stored: rows, ..Default::default() })
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<bool>>);

impl Observer for Seen {
    fn alive(&self, _: usize) {}
    fn attached(&self, _: usize, _: StreamId, _: &Attached) {}
    fn medium_failed(&self, _: usize, _: u32, _: Duration, _: &std::io::Error) {}
    fn medium_silent(&self, _: usize, _: Duration) {}
    fn medium_works(&self, _: usize) {}
    fn circuit(&self, _: CircuitState, _: &str) {}
    fn settled(&self, _: &DrainOutcome, _: Duration) {}
    fn health(&self, change: &HealthChange) {
        self.0.lock().expect("no panic here").push(matches!(change, HealthChange::Up { .. }));
    }
}

fn submit(buffer: &dyn Buffer, rows: u32) -> oneshot::Receiver<AckLevel> {
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
    let (reply, mut answer) = oneshot::channel();
    buffer.submit(builder.finish(0), AckLevel::Store, None, reply);
    answer.try_recv().expect("answered at once").expect("there is room").upgrade.expect("a waiter")
}

fn run(script: Script) -> (Arc<Mutex<Script>>, Arc<Seen>, Arc<MemoryBuffer>) {
    let script = Arc::new(Mutex::new(script));
    let seen = Arc::new(Seen::default());
    let buffer = Arc::new(MemoryBuffer::new(100_000, 10_000_000));
    let waiters: Vec<_> = (0..5).map(|_| submit(buffer.as_ref(), 700)).collect();
    let settings = DrainSettings { batch_rows: 100, breaker: crate::domain::breaker::BreakerSettings::STORE };
    let (handle, thread) =
        DrainHandle::start(buffer.clone(), |_| Box::new(Scripted(script.clone())), seen.clone(), settings).expect("a thread");
    handle.flush();
    for waiter in waiters {
        assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
    }
    handle.stop();
    thread.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
    (script, seen, buffer)
}

#[test]
fn everything_that_waits_is_written_in_few_large_batches() {
    let (script, seen, buffer) = run(Script::default());
    assert_eq!(script.lock().expect("no panic").batches.iter().sum::<u64>(), 3_500);
    assert!(script.lock().expect("no panic").batches.len() <= 2);
    assert_eq!(*seen.0.lock().expect("no panic"), [true]);
    assert_eq!(buffer.stats().difference, 0);
}

#[test]
fn once_a_backlog_is_drained_in_large_batches_small_ones_follow_again_by_themselves() {
    let script = Arc::new(Mutex::new(Script::default()));
    let buffer = Arc::new(MemoryBuffer::new(100_000, 10_000_000));
    let backlog: Vec<_> = (0..50).map(|_| submit(buffer.as_ref(), 700)).collect();
    let settings = DrainSettings { batch_rows: 100, breaker: crate::domain::breaker::BreakerSettings::STORE };
    let observer = Arc::new(Seen::default());
    let (handle, thread) =
        DrainHandle::start(buffer.clone(), |_| Box::new(Scripted(script.clone())), observer, settings).expect("a thread");
    for waiter in backlog {
        assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
    }
    let large = script.lock().expect("no panic").batches.clone();
    assert_eq!(large.iter().sum::<u64>(), 35_000);
    assert!(large.iter().any(|rows| *rows >= 5_000), "catching up: {large:?}");
    // As the buffer's actor does it: who waits is an order. Nobody says that the catching up is over.
    for _ in 0..3 {
        let waiter = submit(buffer.as_ref(), 100);
        handle.flush();
        assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
    }
    handle.stop();
    thread.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
    assert_eq!(script.lock().expect("no panic").batches[large.len()..], [100, 100, 100], "each as it came");
}

#[test]
fn full_batches_that_come_fast_share_transactions_and_whoever_waits_is_not_held_back() {
    let script = Arc::new(Mutex::new(Script::default()));
    let buffer = Arc::new(MemoryBuffer::new(100_000, 10_000_000));
    let settings = DrainSettings { batch_rows: 100, breaker: crate::domain::breaker::BreakerSettings::STORE };
    let observer = Arc::new(Seen::default());
    let (handle, thread) =
        DrainHandle::start(buffer.clone(), |_| Box::new(Scripted(script.clone())), observer, settings).expect("a thread");
    let began = Instant::now();
    let mut last = None;
    for _ in 0..60 {
        last = Some(submit(buffer.as_ref(), 100));
        handle.full();
        std::thread::sleep(Duration::from_millis(3));
    }
    assert_eq!(last.map(oneshot::Receiver::blocking_recv), Some(Ok(AckLevel::Store)), "the pace alone writes it");
    let most = began.elapsed().as_millis() / 50 + 2;
    let batches = script.lock().expect("no panic").batches.clone();
    assert_eq!(batches.iter().sum::<u64>(), 6_000);
    assert!(batches.len() as u128 <= most, "at most {most}: {batches:?}");

    // Five of each, because a busy machine holds up any one of them: the shortest and the longest.
    let five = |rows: u32, order: &dyn Fn()| {
        let took = (0..5).map(|_| {
            // A light one, after which a full batch would wait for the pace.
            let light = submit(buffer.as_ref(), 100);
            handle.flush();
            assert_eq!(light.blocking_recv(), Ok(AckLevel::Store));
            let waiter = submit(buffer.as_ref(), rows);
            let ordered = Instant::now();
            order();
            assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
            ordered.elapsed()
        });
        took.fold((Duration::MAX, Duration::ZERO), |(least, most), took| (least.min(took), most.max(took)))
    };
    let (now, paced, many) = (five(100, &|| handle.flush()).0, five(100, &|| handle.full()).1, five(2_500, &|| handle.full()).0);
    assert!(now < Duration::from_millis(25), "somebody waits: {now:?}");
    assert!(paced > Duration::from_millis(25), "nobody does: {paced:?}");
    assert!(many < Duration::from_millis(25), "so many need no company: {many:?}");
    handle.stop();
    thread.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
}

#[test]
fn a_failing_database_is_tried_again_and_told_of_once() {
    let (_, seen, buffer) = run(Script { failures: 1, ..Script::default() });
    assert_eq!(*seen.0.lock().expect("no panic"), [false, true]);
    assert_eq!(buffer.stats().account.stored, 3_500);
}

#[test]
fn a_database_that_opens_and_refuses_to_write_is_down_until_it_writes() {
    let (_, seen, buffer) = run(Script { failures: 4, ..Script::default() });
    assert_eq!(*seen.0.lock().expect("no panic"), [false, true], "told once, not at each try");
    assert_eq!(buffer.stats().account.stored, 3_500);
}

#[test]
fn a_panic_in_a_driver_loses_nothing() {
    let (_, _, buffer) = run(Script { panics: 2, ..Script::default() });
    assert_eq!(buffer.stats().account.stored, 3_500);
    assert_eq!(buffer.stats().rows, 0);
}

/// Two lanes: the first is on a disk that cannot be read, or that answers what and when the test says; the second is whole.
#[derive(Debug)]
struct HalfBroken(MemoryBuffer, Option<Mutex<mpsc::Receiver<std::io::Result<()>>>>);

impl HalfBroken {
    fn ask(&self, lane: usize) -> std::io::Result<()> {
        match &self.1 {
            _ if lane > 0 => Ok(()),
            None => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            // The test has said enough: it is whole from now on.
            Some(answers) => answers.lock().expect("no panic here").recv().unwrap_or(Ok(())),
        }
    }
}

impl Buffer for HalfBroken {
    fn tier(&self) -> &'static str {
        self.0.tier()
    }
    fn level(&self) -> AckLevel {
        self.0.level()
    }
    fn lanes(&self) -> usize {
        2
    }
    fn stream(&self, _: usize) -> StreamId {
        self.0.stream(0)
    }
    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64 {
        self.0.submit(batch, ack, alerts, reply)
    }
    fn refuses(&self, batch: &Batch) -> Option<Refusal> {
        self.0.refuses(batch)
    }
    fn waiting(&self, lane: usize) -> u64 {
        if lane == 0 && self.1.is_none() { 1 } else { self.0.waiting(0) }
    }
    fn attach(&self, lane: usize, position: &Position) -> std::io::Result<Attached> {
        self.ask(lane)?;
        self.0.attach(0, position)
    }
    fn next(&self, lane: usize, max_rows: u32) -> std::io::Result<Work> {
        self.ask(lane)?;
        self.0.next(0, max_rows)
    }
    fn settle(&self, _: usize, outcome: &DrainOutcome) {
        self.0.settle(0, outcome);
    }
    fn close(&self) {
        self.0.close();
    }
    fn abandon(&self) -> u64 {
        self.0.abandon()
    }
    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        self.0.state_of(stream, seq)
    }
    fn stats(&self) -> BufferStats {
        self.0.stats()
    }
}

#[test]
fn a_lane_that_cannot_be_read_does_not_keep_the_others_from_the_database() {
    let script = Arc::new(Mutex::new(Script { failures: 4, ..Script::default() }));
    let buffer = Arc::new(HalfBroken(MemoryBuffer::new(100_000, 10_000_000), None));
    let waiter = submit(buffer.as_ref(), 700);
    let (handle, threads) = DrainHandle::start(
        buffer.clone(),
        |_| Box::new(Scripted(script.clone())),
        Arc::new(Seen::default()),
        DrainSettings { batch_rows: 100, breaker: crate::domain::breaker::BreakerSettings::STORE },
    )
    .expect("threads");
    handle.flush();
    assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
    handle.stop();
    threads.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
}

/// What is told of the medium, and how often the lane was said to be alive.
#[derive(Default)]
struct Medium(Mutex<Vec<&'static str>>, AtomicU32);

impl Medium {
    fn tell(&self, what: &'static str) {
        self.0.lock().expect("no panic here").push(what);
    }
    fn told(&self) -> Vec<&'static str> {
        self.0.lock().expect("no panic here").clone()
    }
}

impl Observer for Medium {
    fn alive(&self, _: usize) {
        self.1.fetch_add(1, Ordering::AcqRel);
    }
    fn attached(&self, _: usize, _: StreamId, _: &Attached) {
        self.tell("attached");
    }
    fn medium_failed(&self, _: usize, _: u32, _: Duration, _: &std::io::Error) {
        self.tell("failed");
    }
    fn medium_silent(&self, _: usize, _: Duration) {
        self.tell("silent");
    }
    fn medium_works(&self, _: usize) {
        self.tell("works");
    }
    fn circuit(&self, _: CircuitState, _: &str) {}
    fn settled(&self, _: &DrainOutcome, _: Duration) {}
    fn health(&self, _: &HealthChange) {}
}

#[test]
fn a_disk_that_answers_late_is_told_of_while_it_is_asked_and_does_not_make_the_lane_look_hung() {
    let (answer, answers) = mpsc::channel();
    let buffer = Arc::new(HalfBroken(MemoryBuffer::new(100_000, 10_000_000), Some(Mutex::new(answers))));
    let (script, seen) = (Arc::new(Mutex::new(Script::default())), Arc::new(Medium::default()));
    let waiter = submit(buffer.as_ref(), 700);
    let breaker = crate::domain::breaker::BreakerSettings::STORE;
    let settings = DrainSettings { batch_rows: 100, breaker };
    let lane = Arc::new(Lane::new((0, MAX_BATCH_ROWS), buffer, seen.clone(), settings, Arc::new(Circuit::new(breaker))));
    let mine = lane.clone();
    let thread = thread::spawn(move || mine.run(&mut Scripted(script)));
    // First it is asked where the database stands, then for what waits.
    for (times, reply) in [(1, Ok(())), (2, Err(std::io::Error::from_raw_os_error(libc::EIO)))] {
        let began = Instant::now();
        while seen.told().iter().filter(|what| **what == "silent").count() < times {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", seen.told());
            lane.look_at_call(Duration::ZERO);
            thread::sleep(Duration::from_millis(1));
        }
        let before = seen.1.load(Ordering::Acquire);
        lane.look_at_call(Duration::ZERO);
        assert_eq!(seen.1.load(Ordering::Acquire), before + 1, "a sign of life while it waits");
        answer.send(reply).expect("it waits for it");
    }
    drop(answer);
    assert_eq!(waiter.blocking_recv(), Ok(AckLevel::Store));
    lane.stop();
    thread.join().expect("the thread ends");
    assert_eq!(seen.told()[..5], ["silent", "attached", "silent", "failed", "works"]);
}
