//! Reading the readings, and the plans behind it.

use belayd::{
    domain::reading::ReadingRef,
    store::{
        Conn, StoreErrorKind,
        readings::{self, Bucket, BucketMetric, ListFilter, buckets, latest_per_engine, list, prune, store_frames},
    },
};
use diesel::{RunQueryDsl, connection::SimpleConnection, sql_types::Text};

use super::{TestStore, frame, new_stream, on_both, reading};

on_both!(
    pages_follow_each_other_without_gap_or_repeat,
    a_list_can_be_narrowed_to_an_engine_and_a_time,
    a_cursor_that_is_none_is_refused,
    buckets_hold_minimum_mean_maximum_and_count,
    the_latest_reading_of_each_engine_is_found,
    retention_removes_the_oldest_in_slices,
    the_size_is_told,
    no_query_of_readings_walks_the_whole_table,
);

fn fill(store: &TestStore, engines: &[&str], times: i64) {
    let stream = new_stream(store);
    let rows: Vec<ReadingRef<'_>> =
        engines.iter().flat_map(|engine| (0..times).map(|time| reading(engine, time * 1_000_000, time as f64))).collect();
    store.with(|conn| store_frames(conn, stream, &[frame(1, &rows)], 1)).expect("stored");
}

fn pages_follow_each_other_without_gap_or_repeat(store: &TestStore) {
    fill(store, &["a", "B", "c-1", "c.1"], 7);
    for limit in [1, 2, 7, 27, 28, 29] {
        let mut filter = ListFilter { limit, ..Default::default() };
        let mut keys = Vec::new();
        loop {
            let page = store.with(|conn| list(conn, &filter)).expect("a page");
            assert!(page.items.len() <= limit as usize);
            keys.extend(page.items.iter().map(|row| (row.engine_id.clone(), row.observed_at_us)));
            filter.cursor = page.next_cursor;
            if filter.cursor.is_none() {
                break;
            }
        }
        let mut sorted = keys.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(keys.len(), 28, "limit {limit}");
        assert_eq!(keys, sorted, "limit {limit}: in the order of bytes on both databases");
    }
}

fn a_list_can_be_narrowed_to_an_engine_and_a_time(store: &TestStore) {
    fill(store, &["a", "b"], 5);
    let times = |engine_id: Option<&str>, from_us, to_us, cursor: Option<&str>| {
        let filter =
            ListFilter { engine_id: engine_id.map(str::to_owned), from_us, to_us, cursor: cursor.map(str::to_owned), limit: 100 };
        let page = store.with(|conn| list(conn, &filter)).expect("a page");
        page.items.iter().map(|row| format!("{}{}", row.engine_id, row.observed_at_us / 1_000_000)).collect::<Vec<_>>()
    };
    assert_eq!(times(Some("b"), None, None, None), ["b0", "b1", "b2", "b3", "b4"]);
    assert_eq!(times(None, Some(1_000_000), Some(3_000_000), None), ["a1", "a2", "b1", "b2"]);
    assert_eq!(times(Some("a"), Some(1_000_000), None, Some("2000000@a")), ["a3", "a4"]);
    assert_eq!(times(Some("c"), None, None, None), [""; 0]);
}

fn a_cursor_that_is_none_is_refused(store: &TestStore) {
    for (cursor, engine) in [("x", None), ("x@a", None), ("1@a", Some("b"))] {
        let filter =
            ListFilter { cursor: Some(cursor.to_owned()), engine_id: engine.map(str::to_owned), limit: 1, ..Default::default() };
        let error = store.with(|conn| list(conn, &filter)).expect_err("no cursor");
        assert_eq!(error.kind, StoreErrorKind::Invalid);
    }
}

fn buckets_hold_minimum_mean_maximum_and_count(store: &TestStore) {
    fill(store, &["a", "b"], 10);
    let found = store.with(|conn| buckets(conn, "a", 1_000_000, 8_000_000, 5_000_000)).expect("buckets");
    let metric = |min, mean, max, count| Some(BucketMetric { min, mean, max, count });
    let bucket = |start_us, count, temperature| Bucket {
        start_us,
        count,
        temperature,
        rpm: metric(100.0, 100.0, 100.0, count),
        pressure: None,
        fuel_flow: None,
    };
    assert_eq!(found, [bucket(0, 4, metric(1.0, 2.5, 4.0, 4)), bucket(5_000_000, 3, metric(5.0, 6.0, 7.0, 3))]);
    let error = store.with(|conn| buckets(conn, "a", 0, 1, 999)).expect_err("too short");
    assert_eq!(error.kind, StoreErrorKind::Invalid);
}

fn the_latest_reading_of_each_engine_is_found(store: &TestStore) {
    assert!(store.with(|conn| latest_per_engine(conn, 10)).expect("an empty table").is_empty());
    fill(store, &["a", "b", "c"], 5);
    let latest = store.with(|conn| latest_per_engine(conn, 10)).expect("readings");
    let found: Vec<_> = latest.iter().map(|row| (row.engine_id.as_str(), row.observed_at_us)).collect();
    assert_eq!(found, [("a", 4_000_000), ("b", 4_000_000), ("c", 4_000_000)]);
    assert_eq!(store.with(|conn| latest_per_engine(conn, 2)).expect("readings").len(), 2);
}

fn retention_removes_the_oldest_in_slices(store: &TestStore) {
    fill(store, &["a", "b"], 5);
    let removed = |max| store.with(|conn| prune(conn, 3_000_000, max)).expect("pruned");
    assert_eq!((removed(2), removed(2), removed(3), removed(3)), (2, 2, 2, 0));
    let left = store.with(|conn| list(conn, &ListFilter { limit: 10, ..Default::default() })).expect("a page").items;
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|row| row.observed_at_us >= 3_000_000));
    assert_eq!(store.with(readings::count).expect("a count"), 4);
}

fn the_size_is_told(store: &TestStore) {
    assert!(store.with(readings::size_bytes).expect("a size") > 10_000);
}

#[derive(diesel::QueryableByName)]
struct Plan {
    #[diesel(sql_type = Text)]
    detail: String,
}

/// The plan of a query in the database's own words, one step a line.
fn plan(conn: &mut Conn, sql: &str) -> String {
    let steps: Vec<String> = match conn {
        Conn::Sqlite(conn) => {
            let rows: Vec<Plan> = diesel::sql_query(format!("EXPLAIN QUERY PLAN {sql}")).load(conn).expect("a plan");
            rows.into_iter().map(|row| row.detail).collect()
        }
        Conn::Pg(conn) => {
            // PostgreSQL names the column "QUERY PLAN"; a function of ours gives it another name.
            conn.batch_execute(
                "CREATE OR REPLACE FUNCTION pg_temp.plan(q text) RETURNS SETOF text AS \
                 $$ BEGIN RETURN QUERY EXECUTE 'EXPLAIN ' || q; END $$ LANGUAGE plpgsql",
            )
            .expect("a function");
            let rows: Vec<Plan> =
                diesel::sql_query("SELECT detail FROM pg_temp.plan($1) AS detail").bind::<Text, _>(sql).load(conn).expect("a plan");
            rows.into_iter().map(|row| row.detail).collect()
        }
    };
    steps.join("\n")
}

fn no_query_of_readings_walks_the_whole_table(store: &TestStore) {
    fill(store, &["a", "b", "c", "d", "e", "f", "g", "h"], 500);
    let queries = [
        "SELECT * FROM readings WHERE engine_id = 'a' AND observed_at_us >= 1 AND observed_at_us < 2000000 \
         ORDER BY observed_at_us LIMIT 10",
        "SELECT engine_id FROM readings WHERE engine_id > 'a' ORDER BY engine_id, observed_at_us LIMIT 1",
        "SELECT max(observed_at_us) FROM readings WHERE engine_id = 'a'",
        "SELECT * FROM batches WHERE stream = 'x' AND first_seq <= 7 ORDER BY first_seq DESC LIMIT 1",
        "SELECT stream, last_seq FROM batches WHERE created_at_us < 1 ORDER BY created_at_us LIMIT 10",
        "SELECT * FROM reading_failures WHERE state = 'open' AND id < 'x' ORDER BY id DESC LIMIT 10",
        "SELECT * FROM reading_failures WHERE stream = 'x' AND seq = 1",
    ];
    store
        .with(|conn| {
            if let Conn::Pg(pg) = conn {
                // The tables are small here, where a walk is right; the question is whether an index serves at all.
                pg.batch_execute("ANALYZE; SET enable_seqscan = off")?;
            }
            for sql in queries {
                let plan = plan(conn, sql);
                assert!(!plan.contains("Seq Scan") && !plan.contains("SCAN "), "{sql}\n{plan}");
                assert!(plan.contains("ndex") || plan.contains("INDEX") || plan.contains("PRIMARY KEY"), "{sql}\n{plan}");
                assert!(!plan.contains("TEMP B-TREE") && !plan.contains("Sort"), "{sql}\n{plan}");
            }
            Ok(())
        })
        .expect("plans");
}
