//! Frames become rows, once.

use belayd::{
    buffer::{DrainOutcome, Gap, GapKind, Position},
    domain::{
        reading::ReadingRef,
        receipt::{ReceiptState, StreamId},
    },
    store::{
        Conn, StoreErrorKind,
        failures::{self, FailureFilter},
        ledger::{self, Totals},
        readings::{self, ListFilter},
    },
};
use diesel::connection::SimpleConnection;

use super::{TestStore, chain, frame, new_stream, on_both, reading};

on_both!(
    a_reading_comes_back_as_it_went_in,
    frames_are_stored_and_the_ledger_says_so,
    frames_that_are_settled_are_refused_and_the_position_tells_why,
    another_history_under_the_next_numbers_is_refused,
    numbers_without_readings_are_passed_over_and_remembered,
    numbers_that_skip_some_are_refused,
    an_unknown_stream_is_refused,
    the_same_values_are_a_duplicate_and_others_a_conflict,
    duplicates_and_conflicts_within_one_batch_are_told_apart,
    a_large_batch_with_some_rows_taken_counts_each,
    one_row_that_the_database_refuses_leaves_its_neighbours_alone,
);

fn outcome(first_seq: u64, last_seq: u64, stored: u64, duplicate: u64, conflict: u64, dead: u64) -> DrainOutcome {
    DrainOutcome { first_seq, last_seq, stored, duplicate, conflict, dead, ..Default::default() }
}

fn all_rows(store: &TestStore) -> Vec<readings::StoredReading> {
    let filter = ListFilter { limit: 1_000, ..Default::default() };
    store.with(|conn| readings::list(conn, &filter)).expect("a page").items
}

fn a_reading_comes_back_as_it_went_in(store: &TestStore) {
    let stream = new_stream(store);
    let full = ReadingRef {
        engine_id: "CFM56-7B:left.1_a",
        observed_at_us: 1_700_000_000_000_001,
        status: Some("läuft"),
        temperature: Some(-40.25),
        rpm: Some(f64::MAX),
        pressure: Some(5e-324),
        fuel_flow: Some(0.1 + 0.2),
        extra: Some(r#"{"oil":1.5}"#),
    };
    let bare = ReadingRef {
        engine_id: "b",
        observed_at_us: -5,
        status: None,
        rpm: None,
        pressure: None,
        fuel_flow: None,
        extra: None,
        ..full
    };
    store.with(|conn| readings::store_frames(conn, stream, &[frame(1, &[full, bare])], 9_000)).expect("stored");
    let rows = all_rows(store);
    assert_eq!(rows[0].as_ref(), full);
    assert_eq!(rows[1].as_ref(), bare);
    assert_eq!((rows[0].created_at_us, rows[0].updated_at_us, rows[0].seq), (5_000, None, 1));
}

fn frames_are_stored_and_the_ledger_says_so(store: &TestStore) {
    let stream = new_stream(store);
    let frames = [frame(1, &[reading("a", 1, 1.0), reading("b", 1, 1.0)]), frame(3, &[reading("a", 2, 1.0)])];
    let got = store.with(|conn| readings::store_frames(conn, stream, &frames, 9_000)).expect("stored");
    assert_eq!(got, outcome(1, 3, 3, 0, 0, 0));
    assert_eq!(store.with(ledger::totals).expect("totals"), Totals { stored: 3, ..Default::default() });
    let state = |seq| store.with(|conn| ledger::receipt_state(conn, stream, seq)).expect("a state");
    assert_eq!(
        [0, 1, 3, 4].map(state),
        [ReceiptState::Unknown, ReceiptState::Stored, ReceiptState::Stored, ReceiptState::Buffered]
    );
}

fn position(store: &TestStore, stream: StreamId) -> Position {
    store.with(|conn| ledger::register_stream(conn, stream, "memory", "test", 2)).expect("a position")
}

fn frames_that_are_settled_are_refused_and_the_position_tells_why(store: &TestStore) {
    let stream = new_stream(store);
    assert_eq!(position(store, stream), Position::default());
    let frames = [frame(1, &[reading("a", 1, 1.0), reading("a", 1, 1.0)]), frame(3, &[reading("a", 2, 1.0)])];
    store.with(|conn| readings::store_frames(conn, stream, &frames, 1)).expect("stored");
    for again in [&frames[..], &frames[..1], &frames[1..]] {
        let error = store.with(|conn| readings::store_frames(conn, stream, again, 2)).expect_err("settled before");
        assert_eq!(error.kind, StoreErrorKind::Moved);
    }
    assert_eq!(all_rows(store).len(), 2);
    let totals = Totals { stored: 2, duplicate: 1, ..Default::default() };
    assert_eq!(position(store, stream), Position { cursor_seq: 3, cursor_chain: chain(3), totals });
}

fn another_history_under_the_next_numbers_is_refused(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| readings::store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 1)).expect("stored");
    let mut twin = frame(2, &[reading("b", 1, 1.0)]);
    twin.chain_before += 1;
    let error = store.with(|conn| readings::store_frames(conn, stream, &[twin], 1)).expect_err("another writer");
    assert_eq!(error.kind, StoreErrorKind::Moved);
    assert!(!error.is_transient());
    assert_eq!(all_rows(store).len(), 1);
}

fn numbers_without_readings_are_passed_over_and_remembered(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| readings::store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 1)).expect("stored");
    let mut seq = 1;
    for (kind, count, acknowledged) in [(GapKind::Quarantined, 4, 4), (GapKind::Void, 3, 1), (GapKind::Lost, 2, 2)] {
        let (first_seq, last_seq) = (seq + 1, seq + count);
        let gap = Gap { first_seq, last_seq, kind, acknowledged, chain_before: chain(seq), chain: chain(last_seq) };
        let got = store.with(|conn| readings::pass_over(conn, stream, &gap, 2)).expect("passed over");
        assert_eq!(got, DrainOutcome::of_gap(&gap));
        let error = store.with(|conn| readings::pass_over(conn, stream, &gap, 2)).expect_err("once");
        assert_eq!(error.kind, StoreErrorKind::Moved);
        seq = last_seq;
    }
    let after = frame(11, &[reading("a", 2, 1.0)]);
    store.with(|conn| readings::store_frames(conn, stream, &[after], 1)).expect("it goes on behind them");
    let state = |seq| store.with(|conn| ledger::receipt_state(conn, stream, seq)).expect("a state");
    use ReceiptState::{Lost, Quarantined, Stored, Void};
    assert_eq!([1, 2, 5, 6, 8, 9, 10, 11].map(state), [Stored, Quarantined, Quarantined, Void, Void, Lost, Lost, Stored]);
    let totals = Totals { stored: 2, quarantined: 4, void: 1, lost: 2, ..Default::default() };
    assert_eq!(position(store, stream).totals, totals);
    let none = Gap { first_seq: 12, last_seq: 11, kind: GapKind::Void, acknowledged: 0, chain_before: chain(11), chain: 0 };
    let error = store.with(|conn| readings::pass_over(conn, stream, &none, 2)).expect_err("no numbers");
    assert_eq!(error.kind, StoreErrorKind::Invalid);
}

fn numbers_that_skip_some_are_refused(store: &TestStore) {
    let stream = new_stream(store);
    let gap = frame(5, &[reading("a", 1, 1.0)]);
    let error = store.with(|conn| readings::store_frames(conn, stream, &[gap], 1)).expect_err("a gap before it");
    assert_eq!(error.kind, StoreErrorKind::Moved);
    let holes = [frame(1, &[reading("a", 1, 1.0)]), frame(3, &[reading("a", 2, 1.0)])];
    let error = store.with(|conn| readings::store_frames(conn, stream, &holes, 1)).expect_err("a hole within");
    assert_eq!(error.kind, StoreErrorKind::Invalid);
    assert!(all_rows(store).is_empty());
}

fn an_unknown_stream_is_refused(store: &TestStore) {
    let stream = StreamId::new_v4();
    let error = store.with(|conn| readings::store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 1));
    assert_eq!(error.expect_err("not registered").kind, StoreErrorKind::NotFound);
}

fn the_same_values_are_a_duplicate_and_others_a_conflict(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| readings::store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 1)).expect("stored");
    let more = [frame(2, &[reading("a", 1, 1.0), reading("a", 1, 2.0), reading("a", 2, 1.0)])];
    let got = store.with(|conn| readings::store_frames(conn, stream, &more, 2)).expect("stored");
    assert_eq!(got, outcome(2, 4, 1, 1, 1, 0));
    let state = |seq| store.with(|conn| ledger::receipt_state(conn, stream, seq)).expect("a state");
    assert_eq!(
        [1, 2, 3, 4].map(state),
        [ReceiptState::Stored, ReceiptState::Duplicate, ReceiptState::Conflict, ReceiptState::Stored]
    );
    let filter = FailureFilter { limit: 10, ..Default::default() };
    let page = store.with(|conn| failures::list(conn, &filter)).expect("a page");
    assert_eq!(page.items.len(), 1);
    assert!(page.items[0].payload.get().contains("\"temperature\":2.0"), "{}", page.items[0].payload);
    assert!(page.items[0].existing.as_ref().is_some_and(|text| text.get().contains("\"temperature\":1.0")));
}

fn duplicates_and_conflicts_within_one_batch_are_told_apart(store: &TestStore) {
    let stream = new_stream(store);
    let frames = [
        frame(1, &[reading("a", 1, 1.0), reading("b", 1, 7.0), reading("a", 1, 1.0)]),
        frame(4, &[reading("a", 1, 3.0), reading("b", 1, 7.0)]),
    ];
    let got = store.with(|conn| readings::store_frames(conn, stream, &frames, 1)).expect("stored");
    assert_eq!(got, outcome(1, 5, 2, 2, 1, 0));
    let rows = all_rows(store);
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2], "the first number wins");
}

fn a_large_batch_with_some_rows_taken_counts_each(store: &TestStore) {
    let stream = new_stream(store);
    let engines: Vec<String> = (0..7).map(|engine| format!("engine-{engine}")).collect();
    let rows = |temperature: f64| -> Vec<ReadingRef<'_>> {
        (0..5_000).map(|n| reading(&engines[n % 7], (n / 7) as i64, temperature)).collect()
    };
    let first: Vec<_> = rows(1.0).into_iter().step_by(10).collect();
    store.with(|conn| readings::store_frames(conn, stream, &[frame(1, &first)], 1)).expect("stored");
    let mut second = rows(1.0);
    second[0].temperature = Some(99.0);
    let got = store.with(|conn| readings::store_frames(conn, stream, &[frame(501, &second)], 1)).expect("stored");
    assert_eq!(got, outcome(501, 5_500, 4_500, 499, 1, 0));
    assert_eq!(store.with(readings::count).expect("a count"), 5_000);
}

/// Makes the database refuse one reading by a rule of its own: a second unique index. On PostgreSQL every partition gets one, because the
/// table itself takes none without the time in it.
fn refuse_rpm_666(store: &TestStore, conn: &mut Conn) {
    let sql = match store.backend() {
        belayd::store::Backend::Sqlite => "CREATE UNIQUE INDEX refuse ON readings ((rpm * 0)) WHERE rpm = 666",
        belayd::store::Backend::Postgres => {
            "DO $$ DECLARE part regclass; BEGIN
             FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'readings'::regclass LOOP
                 EXECUTE format('CREATE UNIQUE INDEX ON %s ((rpm * 0)) WHERE rpm = 666', part);
             END LOOP; END $$"
        }
    };
    belayd::on_backend!(conn, |c| c.batch_execute(sql)).expect("an index");
}

fn one_row_that_the_database_refuses_leaves_its_neighbours_alone(store: &TestStore) {
    let stream = new_stream(store);
    let devil = |time| ReadingRef { rpm: Some(666.0), ..reading("a", time, 1.0) };
    store
        .with(|conn| {
            refuse_rpm_666(store, conn);
            readings::store_frames(conn, stream, &[frame(1, &[devil(1)])], 1)
        })
        .expect("the first one is taken");
    let mut rows: Vec<ReadingRef<'_>> = (0..3_000).map(|time| reading("b", time, 1.0)).collect();
    rows[1_500] = devil(2);
    rows[2_999] = devil(3);
    let got = store.with(|conn| readings::store_frames(conn, stream, &[frame(2, &rows)], 2)).expect("stored");
    assert_eq!(got, outcome(2, 3_001, 2_998, 0, 0, 2));
    let filter = FailureFilter { limit: 10, ..Default::default() };
    let page = store.with(|conn| failures::list(conn, &filter)).expect("a page");
    let codes: Vec<_> = page.items.iter().map(|failure| failure.error_code.as_deref()).collect();
    let code = if store.backend() == belayd::store::Backend::Sqlite { "SQLITE_CONSTRAINT_UNIQUE" } else { "23505" };
    assert_eq!(codes, [Some(code), Some(code)]);
    let state = store.with(|conn| ledger::receipt_state(conn, stream, 1_502)).expect("a state");
    assert_eq!(state, ReceiptState::Dead);
}
