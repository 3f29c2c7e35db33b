//! Batches large enough for the quick statements: the same rows, the same counts, the same safety as one by one.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use belayd::{
    domain::reading::ReadingRef,
    store::{
        Store,
        failures::{self, FailureCounts},
        readings::{self, ListFilter, store_frames},
    },
};

use super::{TestStore, config, frame, new_stream, on_both, reading};
use crate::support::postgres::{Postgres, is_installed, shared_url};

on_both!(
    a_large_batch_comes_back_as_it_went_in,
    a_source_that_sends_everything_twice_stores_it_once,
    a_batch_after_one_that_met_taken_keys_is_stored_whole,
);

/// Every combination of what may be missing, texts that are no ASCII, and numbers at the ends of their range.
fn a_large_batch_comes_back_as_it_went_in(store: &TestStore) {
    let stream = new_stream(store);
    let rows: Vec<ReadingRef<'_>> = (0..512_usize)
        .map(|n| {
            let some = |bit: usize, value: f64| (n >> bit & 1 == 1).then_some(value);
            ReadingRef {
                engine_id: if n % 2 == 0 { "CFM56-7B:left.1_a" } else { "b" },
                observed_at_us: n as i64 - 5,
                status: (n >> 4 & 1 == 1).then_some("läuft\t\\N \"'\n"),
                temperature: some(0, -40.25),
                rpm: some(1, f64::MAX),
                pressure: some(2, 5e-324),
                fuel_flow: some(3, 0.1 + 0.2),
                extra: (n >> 5 & 1 == 1).then_some(r#"{"oil":1.5}"#),
            }
        })
        .collect();
    let got = store.with(|conn| store_frames(conn, stream, &[frame(1, &rows)], 9_000)).expect("stored");
    assert_eq!(got.stored, 512);
    let filter = ListFilter { limit: 1_000, ..Default::default() };
    let mut page = store.with(|conn| readings::list(conn, &filter)).expect("a page").items;
    page.sort_by_key(|row| row.seq);
    assert_eq!(page.iter().map(|row| row.as_ref()).collect::<Vec<_>>(), rows);
    assert!(page.iter().enumerate().all(|(n, row)| (row.seq, row.created_at_us) == (n as i64 + 1, 5_000)));
}

fn a_source_that_sends_everything_twice_stores_it_once(store: &TestStore) {
    let stream = new_stream(store);
    let mut seq = 1;
    for round in 0..6 {
        let rows: Vec<_> = (0..200).map(|time| reading("a", round * 200 + time, 1.0)).collect();
        for expected in [(200, 0), (0, 200)] {
            let got = store.with(|conn| store_frames(conn, stream, &[frame(seq, &rows)], 1)).expect("stored");
            assert_eq!((got.stored, got.duplicate, got.conflict, got.dead), (expected.0, expected.1, 0, 0));
            seq += 200;
        }
    }
    assert_eq!(store.with(readings::count).expect("a count"), 1_200);
}

fn a_batch_after_one_that_met_taken_keys_is_stored_whole(store: &TestStore) {
    let stream = new_stream(store);
    let rows: Vec<_> = (0..300).map(|time| reading("a", time, 1.0)).collect();
    let mut seq = 1;
    // Half of each batch was in the one before.
    for begin in [0, 50, 100, 150] {
        let got = store.with(|conn| store_frames(conn, stream, &[frame(seq, &rows[begin..begin + 100])], 1)).expect("stored");
        let new = if begin == 0 { 100 } else { 50 };
        assert_eq!((got.stored, got.duplicate), (new, 100 - new));
        seq += 100;
    }
    let got = store.with(|conn| store_frames(conn, stream, &[frame(seq, &rows[250..])], 1)).expect("stored");
    assert_eq!((got.stored, got.duplicate), (50, 0));
}

#[test]
fn crashes_amid_large_batches_store_every_reading_once() {
    if shared_url().is_none() {
        return;
    }
    if !is_installed() {
        return crate::support::left_out("crashes of PostgreSQL amid large batches, because its binaries are not installed");
    }
    let mut server = Postgres::start(&[]);
    let store = Store::open(&config(&server.url("postgres"))).expect("a valid URL");
    store.migrate().expect("migrations run");
    let stream = new_stream(&store);
    let stop = AtomicBool::new(false);
    let (settled, retries) = std::thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let mut writer = store.writer();
            let (mut seq, mut retries) = (1_u64, 0);
            while !stop.load(Ordering::Relaxed) {
                let rows: Vec<_> = (seq..seq + 5_000).map(|time| reading("a", time as i64, 1.0)).collect();
                let frames = [frame(seq, &rows)];
                loop {
                    match writer.with(|conn| store_frames(conn, stream, &frames, 1)) {
                        Ok(outcome) => {
                            assert_eq!((outcome.stored, outcome.duplicate, outcome.dead), (5_000, 0, 0));
                            break;
                        }
                        // It was committed and the answer was lost: the next batch follows.
                        Err(error) if error.kind == belayd::store::StoreErrorKind::Moved => break,
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            retries += 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                }
                seq += 5_000;
            }
            (seq - 1, retries)
        });
        for moment in [60, 95, 130, 170, 75] {
            std::thread::sleep(Duration::from_millis(moment));
            server.crash();
            server.restart();
        }
        stop.store(true, Ordering::Relaxed);
        drain.join().expect("the drain survives")
    });
    assert!(retries > 0, "the crashes were felt");
    assert_eq!(store.with(readings::count).expect("a count"), settled);
    assert_eq!(store.with(failures::counts).expect("counts"), FailureCounts::default(), "an outage fills no dead letters");
}
