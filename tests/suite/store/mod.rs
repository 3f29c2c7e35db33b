//! One conformance suite for both databases: every function of the store does the same on each.

mod bulk;
mod channel;
mod claims;
mod deliveries;
mod draining;
mod failures;
mod handle;
mod instances;
mod integrity;
mod issues;
mod lanes;
mod leases;
mod ledger;
mod lists;
mod migrations;
mod outage;
mod partitions;
#[cfg(feature = "fault-injection")]
mod plans;
mod poison;
mod queries;
mod relay;
#[cfg(feature = "postgres-tls")]
mod tls;
mod writers;

use std::time::Duration;

use belayd::{
    buffer::Frame,
    config::model::StoreConfig,
    domain::{batch::BatchBuilder, reading::ReadingRef, receipt::StreamId},
    store::{Store, ledger::register_stream},
};
use diesel::{Connection, PgConnection, RunQueryDsl};
use tempfile::TempDir;

/// Defines each test once for SQLite and once for PostgreSQL.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[test] fn $test() { super::$test(&$crate::store::TestStore::sqlite()); })*
        }
        mod on_postgres {
            $(#[test] fn $test() {
                if let Some(store) = $crate::store::TestStore::postgres() { super::$test(&store); }
            })*
        }
    };
}
use on_both;

/// A migrated store of a test's own; it goes with its handle.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    _place: Place,
}

enum Place {
    Sqlite { _dir: TempDir },
    Postgres { admin_url: String, database: String },
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

pub(crate) fn config(url: &str) -> StoreConfig {
    StoreConfig {
        url: url.to_owned(),
        pool_size: 4,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(30),
        breaker: belayd::domain::breaker::BreakerSettings::STORE,
    }
}

impl TestStore {
    /// The URL of a PostgreSQL store.
    pub(crate) fn url(&self) -> String {
        match &self._place {
            Place::Postgres { admin_url, database } => with_database(admin_url, database),
            Place::Sqlite { .. } => String::new(),
        }
    }

    pub(crate) fn sqlite() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&config(&format!("sqlite://{}", dir.path().join("t.db").display()))).expect("a valid URL");
        store.migrate().expect("migrations run");
        Self { store, _place: Place::Sqlite { _dir: dir } }
    }

    pub(crate) fn postgres() -> Option<Self> {
        let admin_url = crate::support::postgres::shared_url()?;
        let database = format!("belayd_test_{}", uuid::Uuid::new_v4().simple());
        let mut admin = PgConnection::establish(&admin_url).expect("the server of BELAYD_TEST_POSTGRES answers");
        diesel::sql_query(format!("CREATE DATABASE {database}")).execute(&mut admin).expect("a database of its own");
        let store = Store::open(&config(&with_database(&admin_url, &database))).expect("a valid URL");
        store.migrate().expect("migrations run");
        Some(Self { store, _place: Place::Postgres { admin_url, database } })
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if let Place::Postgres { admin_url, database } = &self._place
            && let Ok(mut admin) = PgConnection::establish(admin_url)
        {
            let _ = diesel::sql_query(format!("DROP DATABASE {database} WITH (FORCE)")).execute(&mut admin);
        }
    }
}

/// The same server, another database.
fn with_database(url: &str, database: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("?{query}")));
    let (server, _) = base.rsplit_once('/').expect("a URL with a database");
    format!("{server}/{database}{query}")
}

/// A stream that is registered.
pub(crate) fn new_stream(store: &Store) -> StreamId {
    let stream = StreamId::new_v4();
    store.with(|conn| register_stream(conn, stream, "memory", "test", 1_000)).expect("a new stream");
    stream
}

/// A reading with one metric.
pub(crate) fn reading(engine_id: &str, observed_at_us: i64, temperature: f64) -> ReadingRef<'_> {
    ReadingRef {
        engine_id,
        observed_at_us,
        status: Some("ok"),
        temperature: Some(temperature),
        rpm: Some(100.0),
        pressure: None,
        fuel_flow: None,
        extra: None,
    }
}

/// The chain value after `seq` readings of the history that these tests write.
pub(crate) fn chain(seq: u64) -> u64 {
    seq.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Numbered readings that came together.
pub(crate) fn frame(first_seq: u64, readings: &[ReadingRef<'_>]) -> Frame {
    let mut builder = BatchBuilder::default();
    for reading in readings {
        builder.push(reading);
    }
    let last_seq = first_seq + readings.len() as u64 - 1;
    Frame { first_seq, batch: builder.finish(5_000), chain_before: chain(first_seq - 1), chain: chain(last_seq) }
}
