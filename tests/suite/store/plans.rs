//! No statement of the outbox reads the whole table: the plans over a million deliveries, nearly all of them settled.

use belayd::{
    on_backend,
    store::{Backend, deliveries::plans},
};
use diesel::RunQueryDsl;

use super::{TestStore, on_both};

on_both!(every_statement_of_the_outbox_uses_its_index);

const ROWS: u64 = 1_000_000;

/// Most are settled, some stand in each other state.
fn fill(store: &TestStore) {
    let values = "'d' || n, CASE WHEN n % 3 = 0 THEN 'log' ELSE 'hook' END, 'lane' || (n % 5000), 's', '{}', CASE WHEN n % 1000 = 1 THEN 'ready' \
                  WHEN n % 5000 = 2 THEN 'retry' WHEN n % 5000 = 3 THEN 'sending' WHEN n % 5000 = 4 THEN 'scheduled' \
                  WHEN n % 5000 = 5 THEN 'dead' WHEN n % 5000 = 6 THEN 'uncertain' ELSE 'sent' END, 3, n, 'review', 1, 1, \
                  CASE WHEN n % 1000 > 6 OR n % 1000 = 0 THEN n END";
    let columns = "id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, updated_at_us, \
                   settled_at_us";
    let numbers = match store.backend() {
        Backend::Postgres => format!("generate_series(1, {ROWS}) AS n"),
        Backend::Sqlite => {
            format!("(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)")
        }
    };
    for text in [format!("INSERT INTO deliveries ({columns}) SELECT {values} FROM {numbers}"), "ANALYZE deliveries".to_owned()] {
        store.with(|conn| Ok(on_backend!(conn, |c| diesel::sql_query(text).execute(c))?)).expect("a million rows");
    }
}

/// What SQLite walks through beside the table: the list that a statement brings along, and what it has picked already.
const SMALL: [&str; 6] = ["j", "s", "c", "h", "json_each", "waiting"];

/// Whether this line of a plan says that the whole table is read. SQLite walks through a whole partial index where all of it is wanted, and
/// says which; the indexes of every row have other names.
fn reads_all(line: &str) -> bool {
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["SCAN", walked, ..] if SMALL.contains(walked) => false,
        ["SCAN", _, "USING", how @ ..] => !how.iter().any(|word| word.starts_with("deliveries_")),
        ["SCAN", ..] => true,
        _ => line.contains("Seq Scan on deliveries"),
    }
}

#[test]
fn a_plan_that_reads_the_whole_table_is_known_by_its_line() {
    let all = [
        "SCAN deliveries",
        "SCAN d",
        "  SCAN deliveries",
        "SCAN deliveries USING COVERING INDEX sqlite_autoindex_deliveries_1",
        "  ->  Parallel Seq Scan on deliveries d",
    ];
    assert!(all.iter().all(|line| reads_all(line)));
    let pieces = [
        "SCAN json_each VIRTUAL TABLE INDEX 1:",
        "SCAN deliveries USING INDEX deliveries_ready",
        "SEARCH deliveries USING INTEGER PRIMARY KEY (rowid=?)",
        "Index Scan using deliveries_ready on deliveries d",
    ];
    assert!(!pieces.iter().any(|line| reads_all(line)));
}

fn every_statement_of_the_outbox_uses_its_index(store: &TestStore) {
    fill(store);
    for (name, plan) in store.with(plans).expect("plans") {
        assert_eq!(plan.lines().find(|line| reads_all(line)), None, "{name}:\n{plan}");
        let is_pg = store.backend() == Backend::Postgres;
        let indexes: &[&str] = match name {
            "claim" | "claim behind a lane" | "ready sinks" | "count ready" => &["deliveries_ready"],
            "count held" => &["deliveries_ready", "deliveries_pkey", "INTEGER PRIMARY KEY"],
            "count taken" => &["deliveries_taken"],
            // PostgreSQL may take the index of what is due later as well: both are small, and it knows how small.
            "waiting sinks" | "bring forward" | "bring one forward" if is_pg => &["deliveries_taken", "deliveries_due"],
            "waiting sinks" | "bring forward" | "bring one forward" => &["deliveries_taken"],
            "promote" | "next due" | "count scheduled" => &["deliveries_due"],
            "failures" | "count failed" => &["deliveries_failed"],
            "prune" => &["deliveries_settled"],
            "one" if is_pg => &["deliveries_id_key"],
            "one" => &["sqlite_autoindex_deliveries_1"],
            "settle" | "still held" => &["deliveries_pkey", "INTEGER PRIMARY KEY"],
            unknown => panic!("which index should {unknown} use? It is to be said here:\n{plan}"),
        };
        assert!(indexes.iter().any(|index| plan.contains(index)), "{name} should use one of {indexes:?}:\n{plan}");
        if name.starts_with("claim") {
            assert!(plan.contains("deliveries_taken"), "{name}:\n{plan}");
            // What was found is neither looked up a second time nor written.
            assert!(!is_pg || !plan.contains("Update on deliveries"), "{name}:\n{plan}");
        }
    }
}
