//! What people decide about readings that were not stored.

use belayd::{
    domain::{
        reading::ReadingRef,
        receipt::{ReceiptState, StreamId},
    },
    store::{
        StoreErrorKind,
        failures::{self, Delta, FailureCounts, FailureFilter, FailureKind, FailureState, ReadingFailure},
        ledger::{self, Totals},
        readings::{ListFilter, list, prune, store_frames},
    },
};

use super::{TestStore, frame, new_stream, on_both, reading};

on_both!(
    a_retry_succeeds_once_the_other_reading_is_gone,
    a_retry_that_meets_the_same_values_is_a_duplicate,
    a_retry_that_fails_again_stays_open_and_is_counted,
    a_discard_moves_the_account_and_is_final,
    failures_are_paged_by_kind_and_state,
    only_decided_failures_are_pruned,
    an_unknown_failure_is_not_found,
);

const TRICKY: ReadingRef<'static> = ReadingRef {
    engine_id: "a",
    observed_at_us: 1,
    status: Some("\"läuft\"\\"),
    temperature: Some(0.1 + 0.2),
    rpm: None,
    pressure: Some(1e300),
    fuel_flow: Some(-0.000_123_456_789),
    extra: Some(r#"{"oil":1.5}"#),
};

/// A stream with one stored reading (number 1) and one conflict (number 2).
fn conflict(store: &TestStore) -> (StreamId, ReadingFailure) {
    let stream = new_stream(store);
    let frames = [frame(1, &[reading("a", 1, 1.0), TRICKY])];
    store.with(|conn| store_frames(conn, stream, &frames, 1)).expect("stored");
    (stream, failures(store, FailureFilter::default()).remove(0))
}

fn failures(store: &TestStore, filter: FailureFilter) -> Vec<ReadingFailure> {
    let filter = FailureFilter { limit: 100, ..filter };
    store.with(|conn| failures::list(conn, &filter)).expect("a page").items
}

fn totals(store: &TestStore) -> Totals {
    store.with(ledger::totals).expect("totals")
}

fn a_retry_succeeds_once_the_other_reading_is_gone(store: &TestStore) {
    let (stream, failure) = conflict(store);
    assert_eq!(store.with(|conn| prune(conn, 2, 10)).expect("pruned"), 1);
    let retried = store.with(|conn| failures::retry(conn, &failure.id, "cleaned", "ann", 50)).expect("tried");
    assert!(retried.settled);
    assert_eq!(retried.delta, Delta { stream, stored: 1, duplicate: 0, conflict: -1, dead: 0, discarded: 0 });
    assert_eq!((retried.failure.state, retried.failure.attempts), (FailureState::Retried, 1));
    assert_eq!((retried.failure.reason.as_deref(), retried.failure.actor.as_deref()), (Some("cleaned"), Some("ann")));
    assert_eq!(totals(store), Totals { stored: 2, ..Default::default() });
    let rows = store.with(|conn| list(conn, &ListFilter { limit: 10, ..Default::default() })).expect("a page").items;
    assert_eq!(rows[0].as_ref(), TRICKY, "to the bit");
    assert_eq!(store.with(|conn| ledger::receipt_state(conn, stream, 2)).expect("a state"), ReceiptState::Stored);
    let error = store.with(|conn| failures::retry(conn, &failure.id, "again", "ann", 51)).expect_err("decided");
    assert_eq!(error.kind, StoreErrorKind::Conflict);
}

fn a_retry_that_meets_the_same_values_is_a_duplicate(store: &TestStore) {
    let (stream, failure) = conflict(store);
    store.with(|conn| prune(conn, 2, 10)).expect("pruned");
    store.with(|conn| store_frames(conn, stream, &[frame(3, &[TRICKY])], 2)).expect("stored");
    let retried = store.with(|conn| failures::retry(conn, &failure.id, "", "ann", 50)).expect("tried");
    assert_eq!((retried.settled, retried.delta.duplicate, retried.delta.conflict), (true, 1, -1));
    assert_eq!(totals(store), Totals { stored: 2, duplicate: 1, ..Default::default() });
}

fn a_retry_that_fails_again_stays_open_and_is_counted(store: &TestStore) {
    let (stream, failure) = conflict(store);
    let retried = store.with(|conn| failures::retry(conn, &failure.id, "hope", "ann", 50)).expect("tried");
    assert!(!retried.settled);
    assert_eq!((retried.failure.state, retried.failure.attempts), (FailureState::Open, 1));
    assert_eq!(retried.delta, Delta { stream, stored: 0, duplicate: 0, conflict: 0, dead: 0, discarded: 0 });
    assert_eq!(totals(store), Totals { stored: 1, conflict: 1, ..Default::default() });
}

fn a_discard_moves_the_account_and_is_final(store: &TestStore) {
    let (stream, failure) = conflict(store);
    let (gone, delta) = store.with(|conn| failures::discard(conn, &failure.id, "noise", "bob", 50)).expect("decided");
    assert_eq!(gone.state, FailureState::Discarded);
    assert_eq!(delta, Delta { stream, stored: 0, duplicate: 0, conflict: -1, dead: 0, discarded: 1 });
    assert_eq!(totals(store), Totals { stored: 1, discarded: 1, ..Default::default() });
    assert_eq!(store.with(|conn| ledger::receipt_state(conn, stream, 2)).expect("a state"), ReceiptState::Discarded);
    let error = store.with(|conn| failures::discard(conn, &failure.id, "noise", "bob", 51)).expect_err("decided");
    assert_eq!(error.kind, StoreErrorKind::Conflict);
    assert_eq!(store.with(failures::counts).expect("counts"), FailureCounts::default());
}

fn failures_are_paged_by_kind_and_state(store: &TestStore) {
    let stream = new_stream(store);
    let mut readings = vec![reading("a", 1, 0.0)];
    readings.extend((1..=5).map(|value| reading("a", 1, f64::from(value))));
    store.with(|conn| store_frames(conn, stream, &[frame(1, &readings)], 1)).expect("stored");
    assert_eq!(store.with(failures::counts).expect("counts"), FailureCounts { conflict: 5, dead: 0 });
    let mut filter = FailureFilter { kind: Some(FailureKind::Conflict), limit: 2, ..Default::default() };
    let mut seqs = Vec::new();
    loop {
        let page = store.with(|conn| failures::list(conn, &filter)).expect("a page");
        seqs.extend(page.items.iter().map(|failure| failure.seq));
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            break;
        }
    }
    assert_eq!(seqs, [6, 5, 4, 3, 2], "newest first");
    assert!(failures(store, FailureFilter { kind: Some(FailureKind::Dead), ..Default::default() }).is_empty());
    assert!(failures(store, FailureFilter { state: Some(FailureState::Discarded), ..Default::default() }).is_empty());
}

fn only_decided_failures_are_pruned(store: &TestStore) {
    let stream = new_stream(store);
    let readings = [reading("a", 1, 0.0), reading("a", 1, 1.0), reading("a", 1, 2.0)];
    store.with(|conn| store_frames(conn, stream, &[frame(1, &readings)], 1)).expect("stored");
    let id = failures(store, FailureFilter::default()).remove(0).id;
    store.with(|conn| failures::discard(conn, &id, "", "bob", 50)).expect("decided");
    assert_eq!(store.with(|conn| failures::prune(conn, 50, 10)).expect("pruned"), 0);
    assert_eq!(store.with(|conn| failures::prune(conn, 51, 10)).expect("pruned"), 1);
    assert_eq!(failures(store, FailureFilter::default()).len(), 1);
}

fn an_unknown_failure_is_not_found(store: &TestStore) {
    for error in [
        store.with(|conn| failures::get(conn, "nobody")).expect_err("unknown"),
        store.with(|conn| failures::retry(conn, "nobody", "", "", 0)).expect_err("unknown"),
        store.with(|conn| failures::discard(conn, "nobody", "", "", 0)).expect_err("unknown"),
    ] {
        assert_eq!(error.kind, StoreErrorKind::NotFound);
    }
}
