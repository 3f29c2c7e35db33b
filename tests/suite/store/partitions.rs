//! Partitions of PostgreSQL's readings: a place for every time, each key once, and an end that nobody waits for.

use std::time::Duration;

use belayd::{
    clock::{Clock, SystemClock},
    domain::receipt::StreamId,
    on_backend,
    store::{
        Conn, StoreResult,
        integrity::{Findings, Pass},
        partitions::{DEFAULT, clock_us, detach, finish_gone, list, make, make_ahead, width_us},
        readings::{prune_in, store_frames},
    },
};
use diesel::{Connection, PgConnection, RunQueryDsl, connection::SimpleConnection, sql_types::BigInt};

use super::{TestStore, frame, new_stream, reading};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
/// Five in the morning of some day.
const NOW: i64 = 20_000 * DAY + 5 * HOUR;

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(store: &TestStore, query: &str) -> i64 {
    store.with(|conn| Ok(on_backend!(conn, |c| diesel::sql_query(query).get_result::<Number>(c))?)).expect("a number").n
}

fn run(conn: &mut Conn, sql: &str) -> StoreResult<()> {
    Ok(on_backend!(conn, |c| c.batch_execute(sql))?)
}

fn in_default(store: &TestStore) -> i64 {
    number(store, &format!("SELECT count(*) AS n FROM {DEFAULT}"))
}

fn check(store: &TestStore) -> Findings {
    store
        .with(|conn| {
            let mut pass = Pass::begin(conn, NOW)?;
            loop {
                if let Some(found) = pass.step(conn)? {
                    return Ok(found);
                }
            }
        })
        .expect("a whole pass")
}

/// Stores one reading a time in one transaction; returns how many went in, and how many were there.
fn store_at(store: &TestStore, stream: StreamId, first_seq: u64, times: &[i64]) -> (u64, u64) {
    let readings: Vec<_> = times.iter().map(|time| reading("a", *time, 1.0)).collect();
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(first_seq, &readings)], NOW)).expect("stored");
    (outcome.stored, outcome.duplicate)
}

#[test]
fn every_time_has_a_place_and_no_key_is_stored_twice() {
    let Some(store) = TestStore::postgres() else { return };
    assert_eq!(store.with(|conn| make_ahead(conn, NOW, DAY)).expect("made"), 3, "today and two days");
    assert_eq!(store.with(|conn| make_ahead(conn, NOW, DAY)).expect("made"), 0);
    let stream = new_stream(&store);
    // Now, ten years late, a day ahead, ten days late, and from a clock that no partition follows.
    let times = [NOW, NOW - 3_650 * DAY, NOW + DAY, NOW - 10 * DAY, -5];
    assert_eq!(store_at(&store, stream, 1, &times), (5, 0));
    assert_eq!(store.with(list).expect("partitions").len(), 5, "two were made for what came late");
    assert_eq!(in_default(&store), 1);
    assert_eq!(store_at(&store, stream, 6, &times), (0, 5), "known wherever they lie");
    // More of them than the fast path's smallest: the same through COPY.
    let many: Vec<i64> = (0..200).map(|n| NOW - n * HOUR).collect();
    assert_eq!(store_at(&store, stream, 11, &many), (199, 1), "one was there");
    assert_eq!(store_at(&store, stream, 211, &many), (0, 200));
    let found = check(&store);
    assert!(!found.is_fault() && found.rows == 204, "{found:?}");
}

#[test]
fn what_lay_in_the_default_partition_moves_into_its_own_and_is_still_known() {
    let Some(store) = TestStore::postgres() else { return };
    let stream = new_stream(&store);
    let times: Vec<i64> = (0..300).map(|n| NOW + n).collect();
    assert_eq!(store_at(&store, stream, 1, &times), (300, 0));
    assert_eq!(in_default(&store), 300, "nobody has made a partition yet");
    assert_eq!(store.with(|conn| make(conn, NOW, NOW, DAY)).expect("made"), 1);
    assert_eq!(in_default(&store), 0);
    assert_eq!(number(&store, "SELECT count(*) AS n FROM removed_readings"), 0, "moving is not removing");
    assert_eq!(store_at(&store, stream, 301, &times), (0, 300));
    // What a person deletes is counted, whichever table the statement names.
    let part = &store.with(list).expect("one")[0].name;
    store.with(|conn| run(conn, &format!("DELETE FROM {part} WHERE observed_at_us = {NOW}"))).expect("deleted");
    store.with(|conn| run(conn, &format!("DELETE FROM readings WHERE observed_at_us = {}", NOW + 1))).expect("deleted");
    assert_eq!(number(&store, "SELECT coalesce(sum(gone), 0)::bigint AS n FROM removed_readings"), 2);
    store.with(|conn| run(conn, "TRUNCATE readings")).expect("emptied");
    assert_eq!(number(&store, "SELECT sum(gone)::bigint AS n FROM removed_readings"), 300, "each counted once");
    let found = check(&store);
    assert!(!found.is_fault(), "{found:?}");
}

#[test]
fn too_many_rows_of_the_default_partition_stay_there_and_go_in_slices() {
    let Some(store) = TestStore::postgres() else { return };
    let fill = format!(
        "INSERT INTO readings (engine_id, observed_at_us, stream_no, seq, created_at_us)
         SELECT 'e' || n % 3, {NOW} + n, 0, n, 0 FROM generate_series(1, 60000) AS n"
    );
    store.with(|conn| run(conn, &fill)).expect("filled");
    assert_eq!(store.with(|conn| make(conn, NOW, NOW, DAY)).expect("not now"), 0);
    assert_eq!(in_default(&store), 60_000, "nothing was half done");
    let mut removed = 0;
    loop {
        let slice = store.with(|conn| prune_in(conn, DEFAULT, NOW + 50_001, 2_000)).expect("a slice");
        assert!(slice <= 2_000);
        removed += slice;
        if slice < 2_000 {
            break;
        }
    }
    assert_eq!((removed, in_default(&store)), (50_000, 10_000));
    assert_eq!(store.with(|conn| make(conn, NOW, NOW, DAY)).expect("made"), 1, "now they are few enough");
    assert_eq!(in_default(&store), 0);
}

#[test]
fn a_partition_that_somebody_reads_is_left_and_ingest_goes_on_meanwhile() {
    let Some(store) = TestStore::postgres() else { return };
    store.with(|conn| make_ahead(conn, NOW, DAY)).expect("made");
    let stream = new_stream(&store);
    let times: Vec<i64> = (0..500).map(|n| NOW - 5 * DAY + n).collect();
    assert_eq!(store_at(&store, stream, 1, &times), (500, 0));
    let old = store.with(list).expect("partitions")[0].clone();
    let mut person = PgConnection::establish(&store.url()).expect("connects");
    person.batch_execute("BEGIN; SELECT count(*) FROM readings").expect("a long look");
    assert!(!store.with(|conn| detach(conn, &old)).expect("no failure"), "it is in use");
    assert_eq!(store_at(&store, stream, 501, &[NOW]), (1, 0), "nobody waits behind the attempt");
    person.batch_execute("COMMIT").expect("the look ends");
    assert!(store.with(|conn| detach(conn, &old)).expect("no failure"));
    assert_eq!(number(&store, "SELECT count(*) AS n FROM readings"), 1);
    // Here a process may end. Whoever checks next finishes it, and knows a removal from a loss.
    assert_eq!(number(&store, "SELECT count(*) AS n FROM removed_readings"), 0);
    let found = check(&store);
    assert!(!found.is_fault() && found.rows == 1, "{found:?}");
    assert_eq!(number(&store, "SELECT sum(gone)::bigint AS n FROM removed_readings"), 500);
    assert_eq!(store.with(finish_gone).expect("nothing is left"), 0);
}

#[test]
fn a_partition_taken_out_while_the_check_reads_is_no_loss() {
    let Some(store) = TestStore::postgres() else { return };
    store.with(|conn| make_ahead(conn, NOW, DAY)).expect("made");
    let stream = new_stream(&store);
    assert_eq!(store_at(&store, stream, 1, &[NOW - 5 * DAY, NOW]), (2, 0));
    let old = store.with(list).expect("partitions")[0].clone();
    let found = store
        .with(|conn| {
            let mut pass = Pass::begin(conn, NOW)?;
            assert!(detach(conn, &old)?);
            loop {
                if let Some(found) = pass.step(conn)? {
                    return Ok(found);
                }
            }
        })
        .expect("a whole pass");
    assert!(!found.is_fault() && found.unsettled == 1, "{found:?}");
    assert!(!check(&store).is_fault());
}

#[test]
fn the_servers_clock_is_asked_too() {
    let Some(store) = TestStore::postgres() else { return };
    let (before, server, after) = (SystemClock.now_us(), store.with(clock_us).expect("now"), SystemClock.now_us());
    assert!((before - DAY..after + DAY).contains(&server), "microseconds since the epoch");
}

#[test]
fn several_instances_may_do_all_of_it_at_once() {
    let Some(store) = TestStore::postgres() else { return };
    let keep = Duration::from_secs(100 * 86_400);
    let width = width_us(keep);
    assert_eq!(width, DAY);
    store.with(|conn| make(conn, NOW - 120 * DAY, NOW - 101 * DAY, width)).expect("made");
    let fill = format!(
        "INSERT INTO readings (engine_id, observed_at_us, stream_no, seq, created_at_us)
         SELECT 'e', {} + n * {HOUR}, 0, n, 0 FROM generate_series(0, 479) AS n",
        NOW / DAY * DAY - 120 * DAY
    );
    store.with(|conn| run(conn, &fill)).expect("filled");
    let before = NOW - 100 * DAY;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                store.with(|conn| make_ahead(conn, NOW, width)).expect("no failure");
                while let Some(old) = store.with(list).expect("partitions").into_iter().find(|one| one.to_us <= before) {
                    store.with(|conn| detach(conn, &old)).expect("no failure");
                    store.with(finish_gone).expect("no failure");
                }
            });
        }
    });
    store.with(|conn| make_ahead(conn, NOW, width)).expect("made");
    assert_eq!(store.with(list).expect("partitions").len(), 3);
    assert_eq!(number(&store, "SELECT sum(gone)::bigint AS n FROM removed_readings"), 480, "each counted once");
    assert_eq!(number(&store, "SELECT count(*) AS n FROM pg_class WHERE starts_with(relname::text, 'readings_gone_')"), 0);
}
