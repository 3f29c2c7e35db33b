//! The tier where the disk hangs or fails below it: forks that come late, numbers that were given up.

use std::{sync::Arc, time::Duration};

use super::{
    disk::ModelDisk,
    tier::{Database, Seen, balanced, push, settings, submit},
};
use crate::{
    buffer::{
        Attached, Buffer, GapKind, Position,
        journal::{
            commit::Order,
            tier::{JournalBuffer, lock},
        },
    },
    domain::ack::AckLevel,
    protocol::Refusal,
};

fn open(disk: &ModelDisk) -> JournalBuffer<ModelDisk> {
    JournalBuffer::open(disk.clone(), settings(8 << 20, 1), Arc::new(Seen::default())).expect("it opens").0
}

/// Five readings that are settled, five that wait; and a database that knows another history of them.
fn with_another_history(disk: &ModelDisk) -> (JournalBuffer<ModelDisk>, Database) {
    let buffer = open(disk);
    let mut database = Database::default();
    database.attach(&buffer);
    push(&buffer, 5, 100);
    database.drain(&buffer);
    push(&buffer, 5, 200);
    let other = Position { cursor_seq: 7, cursor_chain: 77, ..Position::default() };
    (buffer, Database { position: other, ..Database::default() })
}

/// Everything that waited comes out under the new stream, once.
fn goes_on(buffer: &JournalBuffer<ModelDisk>, before: crate::domain::receipt::StreamId, times: &[i64]) {
    assert_ne!(buffer.stream(0), before);
    assert_eq!(buffer.waiting(0), times.len() as u64);
    let mut again = Database::default();
    assert_eq!(again.attach(buffer), Attached::Resumed);
    again.drain(buffer);
    assert_eq!(again.times, times);
    assert!(balanced(buffer));
}

#[test]
fn a_fork_that_was_not_begun_in_time_is_not_carried_out_later() {
    let disk = ModelDisk::new();
    let (mut buffer, other) = with_another_history(&disk);
    let stream = buffer.stream(0);
    let patient = std::mem::replace(&mut buffer.order_wait, Duration::from_millis(20));
    disk.inner().hangs = true;
    let (reply, answer) = tokio::sync::oneshot::channel();
    buffer.submit(super::tier::batch(1, 300), AckLevel::Journal, None, reply);
    // Until the commit thread has taken it, and hangs.
    while !lock(&buffer.core.queue).submitted.is_empty() {
        std::thread::yield_now();
    }
    for _ in 0..3 {
        buffer.attach(0, &other.position).expect_err("the thread hangs");
        assert!(lock(&buffer.core.queue).orders.is_empty(), "withdrawn");
    }
    disk.inner().hangs = false;
    buffer.order_wait = patient;
    assert_eq!(answer.blocking_recv().expect("answered").expect("durable").receipt.last_seq, 11);
    assert_eq!(buffer.stream(0), stream, "nothing is renumbered behind the drain's back");
    assert!(matches!(other.attach(&buffer), Attached::DirectoryRestored { from, .. } if from == stream));
    goes_on(&buffer, stream, &[200, 201, 202, 203, 204, 300]);
}

#[test]
fn a_fork_that_is_under_way_is_waited_for_and_not_ordered_again() {
    let disk = ModelDisk::new();
    let (mut buffer, other) = with_another_history(&disk);
    let stream = buffer.stream(0);
    let patient = std::mem::replace(&mut buffer.order_wait, Duration::from_millis(20));
    disk.inner().hangs = true;
    loop {
        buffer.attach(0, &other.position).expect_err("the thread hangs");
        if lock(&buffer.core.lanes[0]).forking.is_some() {
            break;
        }
    }
    buffer.attach(0, &other.position).expect_err("still");
    disk.inner().hangs = false;
    buffer.order_wait = patient;
    let attached = buffer.attach(0, &other.position).expect("carried out");
    assert!(matches!(attached, Attached::DirectoryRestored { from, .. } if from == stream), "{attached:?}");
    goes_on(&buffer, stream, &[200, 201, 202, 203, 204]);
}

#[test]
fn an_order_for_a_stream_that_has_ended_is_refused() {
    let disk = ModelDisk::new();
    let (buffer, other) = with_another_history(&disk);
    let stream = buffer.stream(0);
    other.attach(&buffer);
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    let late = Order::Fork { lane: 0, from: stream, from_seq: 6, stream: uuid::Uuid::new_v4(), answer };
    lock(&buffer.core.queue).orders.push(late);
    buffer.core.wake.notify_one();
    answered.recv().expect("answered").expect_err("it means the stream before");
    goes_on(&buffer, stream, &[200, 201, 202, 203, 204]);
}

#[test]
fn numbers_that_were_refused_are_not_lost_with_a_database_that_had_passed_over_them() {
    let disk = ModelDisk::new();
    let buffer = open(&disk);
    let mut database = Database::default();
    database.attach(&buffer);
    push(&buffer, 10, 0);
    database.drain(&buffer);
    let mut older = Database { position: database.position, times: Vec::new() };
    disk.inner().faults.sync = 1;
    assert_eq!(submit(&buffer, 7, 50, AckLevel::Journal).map(|_| ()), Err(Refusal::Failed));
    for round in 1..=40 {
        push(&buffer, 2_000, round * 10_000);
        database.drain(&buffer);
    }
    assert_eq!(database.position.totals.sum(), 80_010);
    while buffer.core.shared.first_retained(0) <= 20 {
        std::thread::yield_now();
    }
    drop(buffer);
    disk.kill();
    let buffer = open(&disk);
    assert!(matches!(older.attach(&buffer), Attached::StoreRestored { .. }));
    push(&buffer, 1, 1);
    let gaps = older.drain(&buffer);
    assert_eq!(gaps[0].0, GapKind::Lost);
    assert_eq!(older.position.totals.lost, gaps[0].1 - 7, "nobody had been told that those seven are safe");
    assert!(balanced(&buffer), "{:?}", buffer.stats().account);
}
