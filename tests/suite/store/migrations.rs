//! The schema's history: the same names, tables and columns on both databases.

use std::collections::BTreeMap;

use belayd::{
    clock::{Clock, SystemClock},
    store::{Backend, Conn, Store, readings::store_frames},
};
use diesel::{RunQueryDsl, sql_types::Text};

use super::{TestStore, frame, new_stream, on_both, reading};

on_both!(
    migrations_run_once_and_revert_one_by_one,
    a_migration_of_a_newer_build_is_shown_as_unknown,
    two_instances_may_migrate_at_once,
    readings_of_before_are_kept_there_and_back,
);

/// The version that puts PostgreSQL's readings into partitions.
const PARTITIONED: &str = "20261121000008";

fn readings_of_before_are_kept_there_and_back(store: &TestStore) {
    while store.revert_last_migration().expect("reverted").as_deref() != Some(PARTITIONED) {}
    let stream = new_stream(store);
    // One of a clock that is years ahead: it lies beyond what the old table becomes the partition of.
    let far = SystemClock.now_us() + 1_000 * 86_400_000_000;
    let times: Vec<i64> = (1..1_000).chain([far]).collect();
    let readings: Vec<_> = times.iter().map(|time| reading("a", *time, 1.0)).collect();
    let store_them = |first_seq| {
        let outcome = store.with(|conn| store_frames(conn, stream, &[frame(first_seq, &readings)], 1)).expect("stored");
        (outcome.stored, outcome.duplicate)
    };
    assert_eq!(store_them(1), (1_000, 0));
    let file = |table: &str| number(store, &format!("SELECT relfilenode::bigint AS n FROM pg_class WHERE relname = '{table}'"));
    let is_postgres = store.backend() == Backend::Postgres;
    let before = is_postgres.then(|| file("readings"));
    assert!(!store.migrate().expect("migrated").is_empty());
    if let Some(before) = before {
        assert_eq!(file("readings_before"), before, "the old table is attached and not written anew");
        assert_eq!(number(store, "SELECT count(*) AS n FROM readings_before"), 999);
        assert_eq!(number(store, "SELECT count(*) AS n FROM readings_default"), 1);
    }
    assert_eq!(number(store, "SELECT count(*) AS n FROM removed_readings"), 0);
    assert_eq!(store_them(1_001), (0, 1_000), "each is known again");
    while store.revert_last_migration().expect("reverted").as_deref() != Some(PARTITIONED) {}
    assert_eq!(number(store, "SELECT count(*) AS n FROM readings"), 1_000);
    assert_eq!(store_them(2_001), (0, 1_000));
    assert!(!store.migrate().expect("migrated").is_empty());
    assert_eq!(number(store, "SELECT count(*) AS n FROM readings"), 1_000);
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn number(store: &Store, query: &str) -> i64 {
    store.with(|conn| Ok(belayd::on_backend!(conn, |c| diesel::sql_query(query).get_result::<Number>(c))?)).expect("a number").n
}

fn migrations_run_once_and_revert_one_by_one(store: &TestStore) {
    assert!(store.migrate().expect("nothing to do").is_empty());
    let status = store.migration_status().expect("a list");
    assert!(!status.is_empty() && status.iter().all(|step| step.applied && step.known));
    for _ in &status {
        assert!(store.revert_last_migration().expect("reverted").is_some());
    }
    assert_eq!(store.revert_last_migration().expect("nothing left"), None);
    assert!(store.migration_status().expect("a list").iter().all(|step| !step.applied));
    assert_eq!(columns(store).keys().filter(|table| !table.starts_with("__")).count(), 0, "nothing is left behind");
    assert_eq!(store.migrate().expect("again").len(), status.len());
}

fn a_migration_of_a_newer_build_is_shown_as_unknown(store: &TestStore) {
    store
        .with(|conn| {
            let sql = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
            belayd::on_backend!(conn, |c| diesel::sql_query(sql).execute(c))?;
            Ok(())
        })
        .expect("as if a newer build had run");
    let status = store.migration_status().expect("a list");
    let last = status.last().expect("it is listed");
    assert_eq!((last.applied, last.known), (true, false));
    assert!(store.migrate().expect("nothing to do").is_empty());
}

fn two_instances_may_migrate_at_once(store: &TestStore) {
    while store.revert_last_migration().expect("reverted").is_some() {}
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| store.migrate())).collect();
        let done: usize = runs.into_iter().map(|run| run.join().expect("no panic").expect("migrated").len()).sum();
        assert_eq!(done, store.migration_status().expect("a list").len(), "each ran once");
    });
}

#[derive(diesel::QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
}

/// Columns by table.
fn columns(store: &Store) -> BTreeMap<String, Vec<String>> {
    let columns: Vec<Column> = store
        .with(|conn| {
            Ok(match conn {
                Conn::Sqlite(conn) => diesel::sql_query(
                    "SELECT t.name AS table_name, c.name AS column_name FROM sqlite_schema t JOIN pragma_table_info(t.name) c \
                     WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY 1, c.cid",
                )
                .load(conn)?,
                Conn::Pg(conn) => diesel::sql_query(
                    // A partition is no table of its own.
                    "SELECT table_name::text, column_name::text FROM information_schema.columns \
                     JOIN pg_class ON oid = to_regclass(table_name) AND NOT relispartition \
                     WHERE table_schema = 'public' ORDER BY 1, ordinal_position",
                )
                .load(conn)?,
            })
        })
        .expect("the catalogue");
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for column in columns {
        tables.entry(column.table_name).or_default().push(column.column_name);
    }
    tables
}

#[test]
fn the_twins_have_the_same_names() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).expect("the folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let sqlite = names("sqlite");
    assert_eq!(sqlite, names("postgres"));
    for name in sqlite {
        for folder in ["sqlite", "postgres"] {
            for file in ["up.sql", "down.sql"] {
                assert!(root.join(folder).join(&name).join(file).exists(), "{folder}: {} in {name:?}", file);
            }
        }
    }
}

#[test]
fn the_twins_make_the_same_tables_and_columns() {
    let Some(postgres) = TestStore::postgres() else { return };
    assert_eq!(columns(&TestStore::sqlite()), columns(&postgres));
}

#[test]
fn every_table_and_column_is_documented() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/DATABASE.md");
    let text = std::fs::read_to_string(path).expect("the document");
    for (table, columns) in columns(&TestStore::sqlite()).iter().filter(|(table, _)| !table.starts_with("__")) {
        let (_, section) = text.split_once(&format!("## `{table}`")).unwrap_or_else(|| panic!("no section for {table}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        for column in columns {
            assert!(section.contains(&format!("`{column}`")), "{table}.{column} is not described");
        }
    }
}
