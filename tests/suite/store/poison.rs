//! A bad row among good ones: what it costs, what is told of it, and what never becomes a dead letter.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use belayd::{
    buffer::DrainOutcome,
    domain::reading::ReadingRef,
    on_backend,
    store::{
        Backend, Conn, StoreErrorKind, StoreResult,
        failures::{self, FailureCounts, FailureFilter, ReadingFailure},
        ledger,
        readings::{self, store_frames},
    },
};
use diesel::connection::{Connection, InstrumentationEvent, SimpleConnection};

use super::{TestStore, frame, new_stream, on_both, reading};

on_both!(
    one_bad_row_in_a_hundred_costs_at_most_eight_statements,
    several_bad_rows_are_set_aside_in_one_go,
    a_bad_row_beside_duplicates_and_conflicts_is_told_apart,
    a_dead_letter_is_stored_once_its_cause_is_gone,
    a_trigger_that_refuses_one_row_in_its_own_words_kills_that_row_alone,
    a_row_that_a_trigger_leaves_out_silently_is_dead_and_names_the_trigger,
    a_rule_that_refuses_everything_because_of_the_database_buries_nothing,
);

/// The database takes no reading with this many revolutions.
const BAD_RPM: f64 = 666.0;

fn run(conn: &mut Conn, sql: &str) -> StoreResult<()> {
    Ok(on_backend!(conn, |c| c.batch_execute(sql))?)
}

/// A rule of somebody's own: a CHECK on PostgreSQL, a trigger with SQLite's own word for it there, which knows no later CHECK.
fn refuse(conn: &mut Conn) -> StoreResult<()> {
    match conn.backend() {
        Backend::Postgres => run(conn, "ALTER TABLE readings ADD CONSTRAINT no_devils CHECK (rpm <> 666)"),
        Backend::Sqlite => run(
            conn,
            "CREATE TABLE devils (rpm REAL CHECK (rpm <> 666)) STRICT;
             CREATE TRIGGER no_devils BEFORE INSERT ON readings BEGIN INSERT INTO devils VALUES (new.rpm); DELETE FROM devils; END",
        ),
    }
}

fn allow(conn: &mut Conn) -> StoreResult<()> {
    match conn.backend() {
        Backend::Postgres => run(conn, "ALTER TABLE readings DROP CONSTRAINT no_devils"),
        Backend::Sqlite => run(conn, "DROP TRIGGER no_devils"),
    }
}

fn hundred(engine: &'static str, bad: &[usize]) -> Vec<ReadingRef<'static>> {
    let mut rows: Vec<_> = (0..100).map(|time| reading(engine, time, 1.0)).collect();
    bad.iter().for_each(|&place| rows[place].rpm = Some(BAD_RPM));
    rows
}

/// Statements that `f` sends.
fn statements<T>(conn: &mut Conn, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> (u64, T) {
    let count = Arc::new(AtomicU64::new(0));
    let seen = count.clone();
    conn.set_instrumentation(move |event: InstrumentationEvent<'_>| {
        if matches!(event, InstrumentationEvent::StartQuery { .. }) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    let result = f(conn).expect("stored");
    conn.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    (count.load(Ordering::Relaxed), result)
}

fn open_failures(store: &TestStore) -> Vec<ReadingFailure> {
    let filter = FailureFilter { limit: 100, ..Default::default() };
    store.with(|conn| failures::list(conn, &filter)).expect("a page").items
}

fn one_bad_row_in_a_hundred_costs_at_most_eight_statements(store: &TestStore) {
    let stream = new_stream(store);
    let mut writer = store.writer();
    writer.with(refuse).expect("a rule");
    let mut seq = 1;
    let mut store_hundred = |bad: &[usize]| {
        let frames = [frame(seq, &hundred(["a", "b", "c", "d", "e", "f", "g", "h"][(seq / 100) as usize], bad))];
        seq += 100;
        writer.with(|conn| Ok(statements(conn, |conn| store_frames(conn, stream, &frames, 1)))).expect("stored")
    };
    let (clean, outcome) = store_hundred(&[]);
    assert_eq!(outcome.stored, 100);
    for place in [0, 15, 16, 42, 64, 98, 99] {
        let (sent, outcome) = store_hundred(&[place]);
        assert_eq!((outcome.stored, outcome.dead), (99, 1), "row {place}");
        assert!(sent <= clean + 8, "row {place}: {sent} statements, {clean} without a bad row");
    }
    let seqs: Vec<u64> = open_failures(store).iter().rev().map(|failure| failure.seq as u64).collect();
    assert_eq!(seqs, [101, 216, 317, 443, 565, 699, 800], "each is the row that was bad");
}

fn several_bad_rows_are_set_aside_in_one_go(store: &TestStore) {
    let stream = new_stream(store);
    store.with(refuse).expect("a rule");
    for (seq, engine, bad) in [(1, "a", vec![0, 1, 2, 50, 98, 99]), (101, "b", (0..100).collect())] {
        let frames = [frame(seq, &hundred(engine, &bad))];
        let outcome = store.with(|conn| store_frames(conn, stream, &frames, 1)).expect("stored");
        assert_eq!((outcome.stored, outcome.dead), (100 - bad.len() as u64, bad.len() as u64));
    }
    assert_eq!(store.with(failures::counts).expect("counts").dead, 106);
}

fn a_bad_row_beside_duplicates_and_conflicts_is_told_apart(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| store_frames(conn, stream, &[frame(1, &hundred("a", &[])[..60])], 1)).expect("stored");
    store.with(refuse).expect("a rule");
    let mut rows = hundred("a", &[70]);
    rows[7].temperature = Some(2.0);
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(61, &rows)], 1)).expect("stored");
    let expected =
        DrainOutcome { first_seq: 61, last_seq: 160, stored: 39, duplicate: 59, conflict: 1, dead: 1, ..Default::default() };
    assert_eq!(outcome, expected);
}

fn a_dead_letter_is_stored_once_its_cause_is_gone(store: &TestStore) {
    let stream = new_stream(store);
    store.with(refuse).expect("a rule");
    store.with(|conn| store_frames(conn, stream, &[frame(1, &hundred("a", &[9]))], 1)).expect("stored");
    let failure = open_failures(store).remove(0);
    let code = if store.backend() == Backend::Sqlite { "SQLITE_CONSTRAINT_CHECK" } else { "23514" };
    assert_eq!(failure.error_code.as_deref(), Some(code), "{failure:?}");
    let retried = store.with(|conn| failures::retry(conn, &failure.id, "too early", "ann", 2)).expect("tried");
    assert!(!retried.settled);
    store.with(allow).expect("mended");
    let retried = store.with(|conn| failures::retry(conn, &failure.id, "mended", "ann", 3)).expect("tried");
    assert!(retried.settled);
    assert_eq!(store.with(readings::count).expect("a count"), 100);
    assert_eq!(store.with(ledger::totals).expect("totals").stored, 100);
}

fn a_trigger_that_refuses_one_row_in_its_own_words_kills_that_row_alone(store: &TestStore) {
    let stream = new_stream(store);
    let trigger = match store.backend() {
        Backend::Sqlite => {
            "CREATE TRIGGER no_devils BEFORE INSERT ON readings WHEN new.rpm = 666 BEGIN SELECT RAISE(ABORT, 'we take no devils'); END"
        }
        Backend::Postgres => {
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.rpm = 666 THEN RAISE EXCEPTION 'we take no devils'; END IF; RETURN new; END $$;
             CREATE TRIGGER no_devils BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION refuse()"
        }
    };
    store.with(|conn| run(conn, trigger)).expect("a trigger");
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(1, &hundred("a", &[33]))], 1)).expect("stored");
    assert_eq!((outcome.stored, outcome.dead), (99, 1));
    let failure = open_failures(store).remove(0);
    assert!(failure.message.contains("we take no devils"), "{failure:?}");
    let code = if store.backend() == Backend::Sqlite { "SQLITE_CONSTRAINT_TRIGGER" } else { "P0001" };
    assert_eq!((failure.error_code.as_deref(), failure.seq), (Some(code), 34));
}

fn a_rule_that_refuses_everything_because_of_the_database_buries_nothing(store: &TestStore) {
    let stream = new_stream(store);
    // Something that the insert needs is gone: no row is at fault, although each is refused.
    store.with(|conn| run(conn, "ALTER TABLE readings RENAME COLUMN rpm TO revolutions")).expect("renamed");
    let error = store.with(|conn| store_frames(conn, stream, &[frame(1, &hundred("a", &[]))], 1)).expect_err("no column");
    assert_ne!(error.kind, StoreErrorKind::Invalid, "{error}");
    assert_eq!(store.with(failures::counts).expect("counts"), FailureCounts::default());
    store.with(|conn| run(conn, "ALTER TABLE readings RENAME COLUMN revolutions TO rpm")).expect("mended");
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(1, &hundred("a", &[]))], 1)).expect("stored");
    assert_eq!(outcome.stored, 100);
}

/// A trigger of somebody's own that drops rows without a word.
fn leave_out(conn: &mut Conn) -> StoreResult<()> {
    match conn.backend() {
        Backend::Postgres => run(
            conn,
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF new.rpm = 666 THEN RETURN NULL; END IF; RETURN new; END';
             CREATE TRIGGER swallower BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION swallow()",
        ),
        Backend::Sqlite => {
            run(conn, "CREATE TRIGGER swallower BEFORE INSERT ON readings WHEN new.rpm = 666 BEGIN SELECT RAISE(IGNORE); END")
        }
    }
}

fn a_row_that_a_trigger_leaves_out_silently_is_dead_and_names_the_trigger(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| store_frames(conn, stream, &[frame(1, &hundred("before", &[]))], 1)).expect("stored");
    store.with(leave_out).expect("a trigger");
    // All new (COPY on PostgreSQL), then beside duplicates, then nothing but what is left out.
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(101, &hundred("new", &[3, 50, 99]))], 2)).expect("goes on");
    assert_eq!((outcome.stored, outcome.dead, outcome.duplicate), (97, 3, 0));
    let mut mixed = hundred("before", &[]);
    mixed.truncate(10);
    mixed.extend(hundred("mixed", &[0, 1]));
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(201, &mixed)], 3)).expect("goes on");
    assert_eq!((outcome.stored, outcome.dead, outcome.duplicate), (98, 2, 10));
    let all: Vec<_> = (0..100).collect();
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(311, &hundred("none", &all))], 4)).expect("goes on");
    assert_eq!((outcome.stored, outcome.dead), (0, 100));

    let failures = open_failures(store);
    assert!(failures.iter().all(|failure| failure.message.contains("trigger") && failure.error_code.is_none()), "{failures:?}");
    assert_eq!(store.with(readings::count).expect("a count"), 100 + 97 + 98);
    let totals = store.with(ledger::totals).expect("totals");
    assert_eq!((totals.stored, totals.dead, totals.duplicate), (295, 105, 10));

    // Tried again while the trigger is there it stays; without the trigger it is stored.
    let id = failures[0].id.clone();
    let again = store.with(|conn| failures::retry(conn, &id, "try", "me", 5)).expect("tried");
    assert!(!again.settled && again.failure.message.contains("trigger"), "{again:?}");
    store
        .with(|conn| match conn.backend() {
            Backend::Postgres => run(conn, "DROP TRIGGER swallower ON readings"),
            Backend::Sqlite => run(conn, "DROP TRIGGER swallower"),
        })
        .expect("dropped");
    assert!(store.with(|conn| failures::retry(conn, &id, "gone", "me", 6)).expect("tried").settled);
}
