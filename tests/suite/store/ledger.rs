//! Streams, sums and receipts.

use belayd::{
    domain::receipt::{ReceiptState, StreamId},
    store::{
        ledger::{self, Closing, Totals},
        readings::store_frames,
    },
};

use super::{TestStore, frame, new_stream, on_both, reading};

on_both!(
    registering_twice_changes_nothing,
    a_new_start_closes_what_the_last_one_of_the_same_instance_left_open,
    numbers_beyond_the_cursor_are_lost_once_the_stream_was_cut,
    totals_outlive_the_ledger_rows,
    streams_are_listed_newest_first,
);

fn state(store: &TestStore, stream: StreamId, seq: u64) -> ReceiptState {
    store.with(|conn| ledger::receipt_state(conn, stream, seq)).expect("a state")
}

fn registering_twice_changes_nothing(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 1)).expect("stored");
    let again = store.with(|conn| ledger::register_stream(conn, stream, "memory", "test", 2)).expect("known");
    assert_eq!(again.cursor_seq, 1);
    assert_eq!(store.with(|conn| ledger::stream_totals(conn, 10)).expect("streams").len(), 1);
}

fn a_new_start_closes_what_the_last_one_of_the_same_instance_left_open(store: &TestStore) {
    let register = |instance: &str| {
        let stream = StreamId::new_v4();
        store.with(|conn| ledger::register_stream(conn, stream, "memory", instance, 7)).expect("registered");
        stream
    };
    let (first, other, second) = (register("a"), register("b"), register("a"));
    assert_eq!(state(store, first, 1), ReceiptState::Lost);
    assert_eq!(state(store, other, 1), ReceiptState::Buffered);
    assert_eq!(state(store, second, 1), ReceiptState::Buffered);
}

fn numbers_beyond_the_cursor_are_lost_once_the_stream_was_cut(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 1)).expect("stored");
    assert_eq!(state(store, stream, 2), ReceiptState::Buffered);
    store.with(|conn| ledger::close_stream(conn, stream, Closing::Cut, 3)).expect("closed");
    assert_eq!(state(store, stream, 1), ReceiptState::Stored);
    assert_eq!(state(store, stream, 2), ReceiptState::Lost);
    let drained = new_stream(store);
    store.with(|conn| ledger::close_stream(conn, drained, Closing::Drained, 3)).expect("closed");
    store.with(|conn| ledger::close_stream(conn, drained, Closing::Cut, 4)).expect("it stays drained");
    assert_eq!(state(store, drained, 1), ReceiptState::Unknown);
    assert_eq!(state(store, StreamId::new_v4(), 1), ReceiptState::Unknown);
}

fn totals_outlive_the_ledger_rows(store: &TestStore) {
    let stream = new_stream(store);
    for seq in 1..=10_u64 {
        let at = seq as i64;
        let frames = [frame(seq * 2 - 1, &[reading("a", at, 1.0), reading("a", at, 2.0)])];
        store.with(|conn| store_frames(conn, stream, &frames, at * 100)).expect("stored");
    }
    let totals = Totals { stored: 10, conflict: 10, ..Default::default() };
    assert_eq!(store.with(ledger::totals).expect("totals"), totals);
    assert_eq!(store.with(|conn| ledger::prune(conn, 501, 3)).expect("pruned"), 3);
    assert_eq!(store.with(|conn| ledger::prune(conn, 501, 100)).expect("pruned"), 2);
    assert_eq!(store.with(|conn| ledger::prune(conn, 501, 100)).expect("pruned"), 0);
    assert_eq!(store.with(ledger::totals).expect("totals"), totals);
    assert_eq!(state(store, stream, 9), ReceiptState::Settled);
    assert_eq!(state(store, stream, 10), ReceiptState::Conflict, "a failure is remembered beyond its ledger row");
    assert_eq!(state(store, stream, 11), ReceiptState::Stored);
}

fn streams_are_listed_newest_first(store: &TestStore) {
    let streams: Vec<_> = (0..3).map(|_| new_stream(store)).collect();
    let listed = store.with(|conn| ledger::stream_totals(conn, 2)).expect("streams");
    assert_eq!(listed.iter().map(|stream| stream.stream).collect::<Vec<_>>(), [streams[2], streams[1]]);
}
