//! The tier by itself, without a database.

use super::*;
use crate::{buffer::Totals, domain::reading::ReadingRef};

fn batch(rows: u32, received_at_us: i64) -> Batch {
    let mut builder = BatchBuilder::default();
    for n in 0..rows {
        builder.push(&ReadingRef {
            engine_id: "e1",
            observed_at_us: received_at_us + i64::from(n),
            status: None,
            temperature: Some(1.0),
            rpm: None,
            pressure: None,
            fuel_flow: None,
            extra: None,
        });
    }
    builder.finish(received_at_us)
}

fn submit(buffer: &MemoryBuffer, rows: u32, at: i64, ack: AckLevel) -> Result<Accepted, Refusal> {
    let (reply, mut answer) = oneshot::channel();
    buffer.submit(batch(rows, at), ack, None, reply);
    answer.try_recv().expect("the memory tier answers at once")
}

fn pending(buffer: &MemoryBuffer, max_rows: u32) -> Vec<Frame> {
    match buffer.next(0, max_rows).expect("memory does not fail") {
        Work::Frames(frames) => frames,
        _ => Vec::new(),
    }
}

fn drained(frames: &[Frame]) -> DrainOutcome {
    let rows = frames.iter().map(|frame| u64::from(frame.batch.len())).sum();
    DrainOutcome {
        first_seq: frames[0].first_seq,
        last_seq: frames[frames.len() - 1].last_seq(),
        stored: rows,
        ..Default::default()
    }
}

#[test]
fn numbers_are_dense_and_frames_come_out_in_order() {
    let buffer = MemoryBuffer::new(100_000, 10_000_000);
    let mut next = 1;
    for (rows, at) in [(1, 0), (1, 5_000), (3, 9_999), (1, 10_000), (900, 10_001), (2, 10_002)] {
        let accepted = submit(&buffer, rows, at, AckLevel::Memory).expect("there is room");
        assert_eq!((accepted.receipt.first_seq, accepted.receipt.last_seq), (next, next + u64::from(rows) - 1));
        next += u64::from(rows);
    }
    let frames = pending(&buffer, u32::MAX);
    assert_eq!(frames[0].batch.len(), 5, "pushes within the window share a frame");
    let mut seq = 1;
    for frame in &frames {
        assert_eq!(frame.first_seq, seq);
        seq += u64::from(frame.batch.len());
    }
    assert_eq!(seq, next);
    buffer.settle(0, &drained(&frames));
    assert_eq!(buffer.stats().rows, 0);
    assert_eq!(buffer.stats().bytes, 0);
    assert_eq!(buffer.stats().difference, 0);
}

#[test]
fn the_first_bound_that_is_hit_refuses_the_whole_batch() {
    let rows = MemoryBuffer::new(10, 10_000_000);
    assert!(submit(&rows, 8, 0, AckLevel::Memory).is_ok());
    assert_eq!(submit(&rows, 3, 0, AckLevel::Memory).map(|_| ()), Err(Refusal::Full));
    assert!(submit(&rows, 2, 0, AckLevel::Memory).is_ok());
    let bytes = MemoryBuffer::new(100_000, 400);
    assert!(submit(&bytes, 1, 0, AckLevel::Memory).is_ok());
    assert_eq!(submit(&bytes, 20, 0, AckLevel::Memory).map(|_| ()), Err(Refusal::Full));
    assert_eq!(bytes.stats().account.accepted, 1);
}

#[test]
fn a_waiter_for_store_is_told_when_its_last_number_is_settled() {
    let buffer = MemoryBuffer::new(100, 1_000_000);
    let mut first = submit(&buffer, 2, 0, AckLevel::Store).expect("there is room").upgrade.expect("a waiter");
    let mut second = submit(&buffer, 1, 50_000, AckLevel::Store).expect("there is room").upgrade.expect("a waiter");
    let frames = pending(&buffer, 1);
    buffer.settle(0, &drained(&frames));
    assert_eq!(first.try_recv(), Ok(AckLevel::Store));
    assert!(second.try_recv().is_err());
    buffer.settle(0, &drained(&pending(&buffer, 10)));
    assert_eq!(second.try_recv(), Ok(AckLevel::Store));
}

#[test]
fn a_receipt_is_buffered_until_it_is_settled() {
    let buffer = MemoryBuffer::new(100, 1_000_000);
    let stream = buffer.stream(0);
    assert_eq!(buffer.state_of(stream, 1), Some(ReceiptState::Unknown));
    submit(&buffer, 2, 0, AckLevel::Memory).expect("there is room");
    assert_eq!(buffer.state_of(stream, 2), Some(ReceiptState::Buffered));
    assert_eq!(buffer.state_of(stream, 3), Some(ReceiptState::Unknown));
    buffer.settle(0, &drained(&pending(&buffer, 10)));
    assert_eq!(buffer.state_of(stream, 2), None);
    assert_eq!(buffer.state_of(Uuid::nil(), 2), None);
}

#[test]
fn a_commit_whose_answer_never_came_is_settled_when_the_database_is_opened_again() {
    let buffer = MemoryBuffer::new(100, 1_000_000);
    let mut first = submit(&buffer, 2, 0, AckLevel::Store).expect("there is room").upgrade.expect("a waiter");
    submit(&buffer, 3, 50_000, AckLevel::Memory).expect("there is room");
    assert_eq!(pending(&buffer, 1).len(), 1);
    let totals = Totals { stored: 1, duplicate: 1, ..Default::default() };
    let position = Position { cursor_seq: 2, cursor_chain: 0, totals };
    assert_eq!(buffer.attach(0, &position).expect("attached"), Attached::Resumed);
    assert_eq!(first.try_recv(), Ok(AckLevel::Store));
    assert_eq!((buffer.waiting(0), buffer.stats().difference), (3, 0));
    assert_eq!(pending(&buffer, 10)[0].first_seq, 3);
}

#[test]
fn a_database_that_stands_behind_gets_a_gap_and_what_waits() {
    let buffer = MemoryBuffer::new(100, 1_000_000);
    submit(&buffer, 4, 0, AckLevel::Memory).expect("there is room");
    buffer.settle(0, &drained(&pending(&buffer, 10)));
    submit(&buffer, 3, 50_000, AckLevel::Memory).expect("there is room");
    let older = Position { cursor_seq: 1, cursor_chain: 0, totals: Totals { stored: 1, ..Default::default() } };
    for _ in 0..2 {
        assert_eq!(buffer.attach(0, &older).expect("attached"), Attached::StoreRestored { missing: 3 });
        assert_eq!((buffer.stats().difference, buffer.waiting(0)), (0, 6));
    }
    let Ok(Work::Gap(gap)) = buffer.next(0, 10) else { panic!("a gap comes first") };
    assert_eq!((gap.first_seq, gap.last_seq, gap.kind, gap.acknowledged), (2, 4, GapKind::Lost, 3));
    buffer.settle(0, &DrainOutcome::of_gap(&gap));
    assert_eq!((buffer.stats().difference, buffer.stats().account.lost, buffer.waiting(0)), (0, 3, 3));
    buffer.settle(0, &drained(&pending(&buffer, 10)));
    assert_eq!((buffer.stats().difference, buffer.stats().account.stored, buffer.waiting(0)), (0, 4, 0));
}

#[test]
fn a_push_above_the_bound_is_taken_alone() {
    let buffer = MemoryBuffer::new(100, 1_000);
    submit(&buffer, 500, 0, AckLevel::Memory).expect("nothing else waits");
    assert_eq!(submit(&buffer, 1, 0, AckLevel::Memory).map(|_| ()), Err(Refusal::Full));
    buffer.settle(0, &drained(&pending(&buffer, 1_000)));
    submit(&buffer, 1, 0, AckLevel::Memory).expect("there is room again");
}

#[test]
fn a_row_that_the_database_never_saw_shows_as_a_difference() {
    let buffer = MemoryBuffer::new(100, 1_000_000);
    submit(&buffer, 5, 0, AckLevel::Memory).expect("there is room");
    let mut outcome = drained(&pending(&buffer, 10));
    outcome.stored -= 1;
    buffer.settle(0, &outcome);
    assert_eq!(buffer.stats().difference, 1);
}

#[test]
fn what_is_abandoned_is_lost_and_said_so() {
    let buffer = MemoryBuffer::new(100, 1_000_000);
    submit(&buffer, 5, 0, AckLevel::Memory).expect("there is room");
    assert_eq!(buffer.abandon(), 5);
    assert_eq!(submit(&buffer, 1, 0, AckLevel::Memory).map(|_| ()), Err(Refusal::Stopping));
    let stats = buffer.stats();
    assert_eq!((stats.account.lost, stats.difference), (5, 0));
}
