//! Daemons and databases for the scenarios.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    Options,
    daemon::{Daemon, Setup},
    host,
    load::Load,
    postgres::Postgres,
};
use diesel::{Connection, PgConnection, RunQueryDsl};

/// What the scenarios share.
pub struct Bench {
    /// What was asked for.
    pub options: Options,
    server: Option<Postgres>,
    databases: u32,
}

/// Connections of a load at a fixed rate. A connection has one push on its way at a time, so 16 of them could not offer 10,000 a second to
/// a disk that takes 2 ms for a sync, and the figure would be of the queue before them.
pub const SENDERS: usize = 64;

/// Where a daemon stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file of its own.
    Sqlite,
    /// A database of its own on the server of this benchmark.
    Postgres,
}

impl Bench {
    pub fn new(options: Options) -> Self {
        Self { options, server: None, databases: 0 }
    }

    /// Length of one round of load.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.options.seconds)
    }

    /// PostgreSQL, started when first asked for.
    pub fn server(&mut self) -> &mut Postgres {
        self.server.get_or_insert_with(|| Postgres::start(&["shared_buffers=128MB"]))
    }

    /// A daemon on a new directory and database.
    pub fn daemon(&mut self, database: Database, more: &str) -> Daemon {
        let setup = Setup { log: "warn".into(), ..Setup::with(more) };
        let daemon = match database {
            Database::Sqlite => setup.start(),
            Database::Postgres => setup.store(&self.new_database()).start(),
        };
        // It is ready before the database is: tables are made and connections opened behind its back.
        flush(&daemon);
        daemon
    }

    /// Processor time of this program, of every daemon that has ended, and of PostgreSQL.
    pub fn cpu(&self) -> Duration {
        let server = self.server.as_ref().and_then(Postgres::pid).map_or(Duration::ZERO, host::cpu_of_all);
        host::cpu_of(std::process::id()) + server
    }

    fn new_database(&mut self) -> String {
        self.databases += 1;
        let name = format!("bench_{}", self.databases);
        let server = self.server();
        if server.pid().is_none() {
            server.restart();
        }
        let mut admin = PgConnection::establish(&server.url("postgres")).expect("the server answers");
        if let Some(before) = name.strip_prefix("bench_").and_then(|n| n.parse::<u32>().ok()).and_then(|n| n.checked_sub(1)) {
            let _ = diesel::sql_query(format!("DROP DATABASE IF EXISTS bench_{before} WITH (FORCE)")).execute(&mut admin);
        }
        diesel::sql_query(format!("CREATE DATABASE {name}")).execute(&mut admin).expect("a database");
        // So that no scenario pays for what the one before has left to be written.
        diesel::sql_query("CHECKPOINT").execute(&mut admin).expect("a checkpoint");
        server.url(&name)
    }
}

/// A load on `daemon` over so many connections, in pushes of so many readings.
pub fn load(daemon: &Daemon, connections: usize, push: usize) -> Load {
    Load { address: daemon.address.clone(), token: daemon.token.clone(), connections, push, dated: false }
}

/// Stores what waits now, by one reading whose sender waits for the database: a batch that is not full would wait for its time.
pub fn flush(daemon: &Daemon) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = daemon.post("/api/readings?ack=store", r#"{"engineId":"flush","rpm":1}"#);
        if answer.json()["ack"] == "store" || Instant::now() > until {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Readings that wait for the database.
pub fn buffered(daemon: &Daemon) -> f64 {
    daemon.metric("belayd_readings_buffered")
}

/// Waits until at most `rows` wait, and says how long that took; as long as `limit` where it did not come to that.
pub fn caught_up(daemon: &Daemon, rows: f64, limit: Duration) -> Duration {
    let started = Instant::now();
    while buffered(daemon) > rows && started.elapsed() < limit {
        thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}

/// Everything that was accepted is stored.
pub fn check_all_stored(daemon: &Daemon, accepted: u64, limit: Duration) {
    let until = Instant::now() + limit;
    loop {
        flush(daemon);
        if buffered(daemon) == 0.0 {
            break;
        }
        assert!(Instant::now() < until, "{} still wait after {limit:?}; the log:\n{}", buffered(daemon), daemon.log());
    }
    let (taken, stored) = (daemon.metric("belayd_readings_accepted_total"), daemon.metric("belayd_readings_stored_total"));
    assert_eq!(taken, stored, "accepted and stored must be the same readings");
    assert!(stored as u64 >= accepted, "{accepted} were acknowledged, {stored} are stored");
}

/// Empties the page cache, so that what follows reads from the disk. Only root may.
pub fn drop_caches() {
    // SAFETY: plain system call without arguments.
    unsafe { libc::sync() };
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
}
