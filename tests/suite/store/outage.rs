//! A real PostgreSQL that stops, crashes and hangs in the middle of things.

use std::time::{Duration, Instant};

use belayd::{
    config::model::StoreConfig,
    domain::{reading::ReadingRef, receipt::StreamId},
    store::{
        Conn, Store, StoreErrorKind,
        conn::durability,
        failures::{self, FailureCounts},
        ledger,
        readings::{count, store_frames},
    },
};
use diesel::{RunQueryDsl, connection::SimpleConnection};

use super::{config, frame, new_stream, reading};
use crate::support::postgres::{Postgres, is_installed, shared_url};

/// A server of the test's own; only where PostgreSQL is tested at all.
fn server(settings: &[&str]) -> Option<Postgres> {
    shared_url()?;
    if !is_installed() {
        crate::support::left_out("outages of PostgreSQL, because its binaries are not installed");
        return None;
    }
    Some(Postgres::start(settings))
}

fn open(server: &Postgres) -> Store {
    let store = Store::open(&config(&server.url("postgres"))).expect("a valid URL");
    store.migrate().expect("migrations run");
    store
}

fn rows(count: i64) -> Vec<ReadingRef<'static>> {
    (0..count).map(|time| reading("a", time, 1.0)).collect()
}

#[test]
fn a_server_killed_within_the_transaction_leaves_nothing_and_the_replay_stores_all() {
    let Some(mut server) = server(&[]) else { return };
    let store = open(&server);
    let stream = new_stream(&store);
    let frames = [frame(1, &rows(500))];
    let mut writer = store.writer();
    let cut = writer.with(|conn| {
        conn.write(|conn| {
            // Within one transaction with what store_frames does, so that the kill falls between its work and the commit.
            let Conn::Pg(pg) = conn else { unreachable!("this test opens PostgreSQL") };
            pg.batch_execute("CREATE TABLE half_done (x int)")?;
            server.kill();
            diesel::sql_query("SELECT 1").execute(pg)?;
            Ok(())
        })
    });
    let error = cut.expect_err("the connection broke");
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    assert!(error.is_transient());
    let error = writer.with(|conn| store_frames(conn, stream, &frames, 1)).expect_err("it is down");
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
    server.restart();
    let outcome = writer.with(|conn| store_frames(conn, stream, &frames, 1)).expect("stored");
    assert_eq!(outcome.stored, 500);
    assert_eq!(writer.with(count).expect("a count"), 500);
    assert_eq!(writer.with(failures::counts).expect("counts"), FailureCounts::default(), "an outage fills no dead letters");
}

#[test]
fn crashes_at_random_moments_store_every_reading_once() {
    let Some(mut server) = server(&[]) else { return };
    let store = open(&server);
    let stream = new_stream(&store);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let settled = std::thread::scope(|scope| {
        let drain = scope.spawn(|| {
            let mut writer = store.writer();
            let (mut seq, mut retries) = (1_u64, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let first = seq as i64;
                let readings: Vec<_> = (first..first + 50).map(|time| reading("a", time, 1.0)).collect();
                let frames = [frame(seq, &readings)];
                loop {
                    match writer.with(|conn| store_frames(conn, stream, &frames, 1)) {
                        Ok(outcome) => {
                            assert_eq!((outcome.stored, outcome.duplicate, outcome.dead), (50, 0, 0));
                            break;
                        }
                        // The commit went through and its answer was lost: the position says so.
                        Err(error) if error.kind == StoreErrorKind::Moved => {
                            let position = writer.with(|conn| ledger::register_stream(conn, stream, "memory", "test", 1));
                            let Ok(position) = position else { continue };
                            assert_eq!((position.cursor_seq, position.totals.stored), (seq + 49, seq + 49));
                            break;
                        }
                        Err(error) => {
                            assert!(error.is_transient(), "{error:?}");
                            retries += 1;
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                }
                seq += 50;
            }
            (seq - 1, retries)
        });
        for moment in [30, 75, 110, 160, 45] {
            std::thread::sleep(Duration::from_millis(moment));
            server.crash();
            server.restart();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        drain.join().expect("the drain survives")
    });
    let (settled, retries) = settled;
    assert!(retries > 0, "the crashes were felt");
    // The last crash may have taken a connection that the pool has not missed yet: whoever asks repeats it, as after any outage.
    let counted = (0..5).find_map(|_| store.with(count).map_err(|error| assert!(error.is_transient(), "{error:?}")).ok());
    assert_eq!(counted, Some(settled));
    assert_eq!(store.with(ledger::totals).expect("totals").stored, settled);
}

#[test]
fn a_server_that_hangs_is_given_up_within_the_time_out() {
    let Some(server) = server(&[]) else { return };
    let config = StoreConfig { statement_timeout: Duration::from_millis(300), ..config(&server.url("postgres")) };
    let store = Store::open(&config).expect("a valid URL");
    let begin = Instant::now();
    let slow = store.with(|conn| {
        let Conn::Pg(pg) = conn else { unreachable!("this test opens PostgreSQL") };
        diesel::sql_query("SELECT pg_sleep(20)").execute(pg)?;
        Ok(())
    });
    let error = slow.expect_err("cut off");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(error.code.as_deref(), Some("57014"), "{error}");
    assert!(error.is_transient());
    store.ping().expect("the connection serves on");
}

#[test]
fn connections_that_died_while_they_idled_are_replaced_without_an_error() {
    let Some(mut server) = server(&[]) else { return };
    let store = open(&server);
    store.ping().expect("an answer");
    server.restart();
    std::thread::sleep(Duration::from_millis(1_100)); // Longer than a connection is trusted unasked.
    store.ping().expect("another connection");
}

#[test]
fn settings_that_give_durability_up_are_announced() {
    let Some(server) = server(&["fsync=off", "synchronous_commit=off"]) else { return };
    let store = open(&server);
    let warnings = store.with(durability).expect("an answer");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].words.contains("fsync") && warnings[1].words.contains("synchronous_commit"), "{warnings:?}");
    assert!(warnings.iter().all(|lack| lack.loses_commits), "{warnings:?}");
}

#[test]
fn a_text_that_postgresql_can_never_take_is_dead_with_its_own_code() {
    let Some(store) = super::TestStore::postgres() else { return };
    let stream = new_stream(&store);
    let mut readings = rows(100);
    readings[42].status = Some("a\0b");
    let outcome = store.with(|conn| store_frames(conn, stream, &[frame(1, &readings)], 1)).expect("stored");
    assert_eq!((outcome.stored, outcome.dead), (99, 1));
    let filter = failures::FailureFilter { limit: 10, ..Default::default() };
    let failure = store.with(|conn| failures::list(conn, &filter)).expect("a page").items.remove(0);
    assert!(failure.error_code.as_deref().is_some_and(|code| code.starts_with("22")), "{failure:?}");
    assert_eq!(failure.seq, 43);
}

#[test]
fn a_missing_table_stops_the_drain_and_buries_nothing() {
    let Some(store) = super::TestStore::postgres() else { return };
    let stream: StreamId = new_stream(&store);
    store
        .with(|conn| {
            let Conn::Pg(pg) = conn else { unreachable!("this test opens PostgreSQL") };
            Ok(pg.batch_execute("ALTER TABLE readings RENAME TO elsewhere")?)
        })
        .expect("renamed");
    let error = store.with(|conn| store_frames(conn, stream, &[frame(1, &rows(10))], 1)).expect_err("no table");
    assert_eq!(error.code.as_deref(), Some("42P01"), "{error}");
    assert_eq!(store.with(failures::counts).expect("counts"), FailureCounts::default());
}
