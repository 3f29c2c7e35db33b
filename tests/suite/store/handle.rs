//! The handle: lazy, bounded, honest about what is wrong.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use belayd::{
    config::model::StoreConfig,
    store::{
        Backend, Store, StoreError, StoreErrorKind,
        conn::durability,
        failures::{self, FailureCounts},
        readings,
    },
};
use diesel::{RunQueryDsl, connection::SimpleConnection, sql_types::BigInt};

use super::{TestStore, config, frame, new_stream, on_both, reading};

on_both!(
    a_ping_is_answered,
    a_failed_transaction_leaves_nothing_and_the_connection_serves_on,
    a_panic_within_a_transaction_costs_only_its_connection,
    calls_beyond_the_pool_wait_their_turn,
    a_read_transaction_refuses_nothing_it_should_serve,
    an_ordinary_database_needs_no_warning,
);

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn number(conn: &mut belayd::store::Conn, sql: &str) -> i64 {
    let row: Number = belayd::on_backend!(conn, |c| diesel::sql_query(sql).get_result(c)).expect("a number");
    row.number
}

fn add_stream(conn: &mut belayd::store::Conn) {
    let sql = "INSERT INTO streams (stream, tier, instance, opened_at_us) VALUES ('x', 'memory', 'i', 0)";
    belayd::on_backend!(conn, |c| diesel::sql_query(sql).execute(c)).expect("inserted");
}

const COUNT: &str = "SELECT count(*) AS number FROM streams";

fn a_ping_is_answered(store: &TestStore) {
    store.ping().expect("an answer");
}

fn a_failed_transaction_leaves_nothing_and_the_connection_serves_on(store: &TestStore) {
    let failed = store.with(|conn| {
        let failed: Result<(), StoreError> = conn.write(|conn| {
            add_stream(conn);
            Err(StoreError::invalid("on purpose"))
        });
        assert_eq!(number(conn, COUNT), 0);
        failed
    });
    assert_eq!(failed.expect_err("the failure of the closure").message, "on purpose");
    let kept = store.with(|conn| {
        conn.write(|conn| {
            let inner: Result<(), StoreError> = conn.savepoint(|conn| {
                add_stream(conn);
                Err(StoreError::invalid("only the savepoint"))
            });
            assert!(inner.is_err());
            add_stream(conn);
            Ok(number(conn, COUNT))
        })
    });
    assert_eq!(kept.expect("committed"), 1);
}

fn a_panic_within_a_transaction_costs_only_its_connection(store: &TestStore) {
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.with(|conn| {
            conn.write(|conn| -> Result<(), StoreError> {
                add_stream(conn);
                panic!("on purpose")
            })
        })
    }));
    assert!(panicked.is_err());
    let count = store.with(|conn| {
        add_stream(conn);
        Ok(number(conn, COUNT))
    });
    assert_eq!(count.expect("another connection"), 1, "the write lock is free and nothing was left behind");
}

fn calls_beyond_the_pool_wait_their_turn(store: &TestStore) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let store = store.store.clone();
    runtime.block_on(async move {
        let calls = (0..20).map(|_| store.call(|conn| Ok(number(conn, "SELECT CAST(1 AS bigint) AS number"))));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.expect("an answer"), 1);
        }
    });
}

fn a_read_transaction_refuses_nothing_it_should_serve(store: &TestStore) {
    let both = store.with(|conn| conn.read(|conn| Ok((number(conn, COUNT), number(conn, COUNT)))));
    assert_eq!(both.expect("two looks at one state"), (0, 0));
}

fn an_ordinary_database_needs_no_warning(store: &TestStore) {
    let warnings = store.with(durability).expect("an answer");
    assert!(warnings.iter().all(|warning| warning.words.contains(" = off: ")), "{warnings:?}");
    if store.backend() == Backend::Sqlite {
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}

#[test]
fn opening_makes_no_file_and_the_first_use_makes_one_for_its_owner_only() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("deeper").join("t.db");
    let store = Store::open(&config(&format!("sqlite://{}", path.display()))).expect("a valid URL");
    assert!(!path.exists());
    store.migrate().expect("tables");
    let mode = |path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(path.clone()), 0o600);
    assert_eq!(mode(path.with_extension("db-wal")), 0o600);
}

#[test]
fn sqlite_commits_are_synced_and_readers_do_not_wait_for_the_writer() {
    let store = TestStore::sqlite();
    let setting = |name: &str| {
        let sql = format!("SELECT {name} AS number FROM pragma_{name}()");
        store.with(|conn| Ok(number(conn, &sql))).expect("a setting")
    };
    assert_eq!(setting("synchronous"), 2, "FULL");
    let (inside, looked) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    std::thread::scope(|scope| {
        let (other, other_inside, other_looked) = (store.store.clone(), inside.clone(), looked.clone());
        let writer = scope.spawn(move || {
            other.with(|conn| {
                conn.write(|conn| {
                    add_stream(conn);
                    other_inside.wait();
                    other_looked.wait();
                    Ok(())
                })
            })
        });
        inside.wait();
        assert_eq!(store.with(|conn| Ok(number(conn, COUNT))).expect("a look"), 0);
        looked.wait();
        writer.join().expect("no panic").expect("committed");
    });
    assert_eq!(store.with(|conn| Ok(number(conn, COUNT))).expect("a look"), 1);
}

#[test]
fn two_writers_of_sqlite_take_turns_and_none_fails() {
    let store = TestStore::sqlite();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let store = store.store.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    store
                        .with(|conn| {
                            conn.write(|conn| {
                                let before = number(conn, COUNT);
                                let sql = format!(
                                    "INSERT INTO streams (stream, tier, instance, opened_at_us) VALUES ('{before}', 'm', 'i', 0)"
                                );
                                belayd::on_backend!(conn, |c| diesel::sql_query(sql).execute(c))?;
                                Ok(())
                            })
                        })
                        .expect("its turn came");
                }
            });
        }
    });
    assert_eq!(store.with(|conn| Ok(number(conn, COUNT))).expect("a look"), 200);
}

#[test]
fn an_unreachable_database_says_why_at_once_and_without_its_password() {
    let port = crate::support::ports::free();
    let url = format!("postgres://me:s3cret@127.0.0.1:{port}/x");
    let store = Store::open(&config(&url)).expect("opening connects to nothing");
    let begin = Instant::now();
    let error = store.ping().expect_err("nobody listens");
    assert!(begin.elapsed() < Duration::from_secs(2), "refused at once, told after {:?}", begin.elapsed());
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(error.is_transient());
    assert!(error.message.contains("Connection refused"), "{error}");
    assert!(!error.to_string().contains("s3cret") && !format!("{store:?}").contains("s3cret"));
}

#[test]
fn a_file_that_is_no_database_and_a_folder_that_cannot_be_made_are_told_apart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("t.db");
    std::fs::write(&path, "this is a letter, not a database, and it is longer than a header of one hundred bytes. Really it is.")
        .expect("written");
    let store = Store::open(&config(&format!("sqlite://{}", path.display()))).expect("a valid URL");
    let error = store.ping().expect_err("not a database");
    assert_eq!((error.kind, error.code.as_deref()), (StoreErrorKind::Corrupt, Some("SQLITE_NOTADB")), "{error}");
    let store = Store::open(&config(&format!("sqlite://{}/t.db/x.db", dir.path().display()))).expect("a valid URL");
    let error = store.ping().expect_err("a file is no folder");
    assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
}

#[test]
fn a_write_lock_held_elsewhere_is_an_outage_not_a_fault() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite://{}", dir.path().join("t.db").display());
    let holder = Store::open(&config(&url)).expect("a valid URL");
    holder.migrate().expect("tables");
    let waiter = Store::open(&StoreConfig { connect_timeout: Duration::from_millis(100), ..config(&url) }).expect("a valid URL");
    let error = holder
        .with(|conn| conn.write(|_| Ok(waiter.with(|conn| conn.write(|_| Ok(()))).expect_err("the lock is held"))))
        .expect("the holder commits");
    assert_eq!((error.kind, error.code.as_deref()), (StoreErrorKind::Unavailable, Some("SQLITE_BUSY")), "{error}");
    waiter.with(|conn| conn.write(|_| Ok(()))).expect("the lock is free");
}

#[test]
fn a_full_disk_stores_nothing_buries_nothing_and_heals() {
    let store = TestStore::sqlite();
    let stream = new_stream(&store);
    let rows: Vec<_> = (0..5_000).map(|time| reading("a", time, 1.0)).collect();
    let frames = [frame(1, &rows)];
    let mut writer = store.writer();
    let limit = |conn: &mut belayd::store::Conn, pages: i64| {
        belayd::on_backend!(conn, |c| c.batch_execute(&format!("PRAGMA max_page_count = {pages}"))).expect("a limit");
    };
    let error = writer
        .with(|conn| {
            limit(conn, 20);
            readings::store_frames(conn, stream, &frames, 1)
        })
        .expect_err("no room");
    assert_eq!((error.kind, error.code.as_deref()), (StoreErrorKind::Unavailable, Some("SQLITE_FULL")), "{error}");
    assert_eq!(store.with(failures::counts).expect("counts"), FailureCounts::default());
    let outcome = writer.with(|conn| {
        limit(conn, 1_000_000);
        readings::store_frames(conn, stream, &frames, 1)
    });
    assert_eq!(outcome.expect("stored").stored, 5_000);
}
