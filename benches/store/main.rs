//! Rows a second into the database: rows, ledger and cursor in one synced transaction, and nothing else of the daemon.
//!
//! `cargo bench --bench store` measures SQLite through `store_frames` and, on a PostgreSQL of its own with that server's default
//! settings, `store_frames` beside the other statements that could carry the rows, on 1 to 3 connections, each with a stream of its
//! own. Rounds are interleaved and medians are quoted. `-- --help` tells how to run a part.

#![allow(unreachable_pub, reason = "a benchmark has no readers")]
#![allow(clippy::print_stdout, reason = "printing figures is what it is for")]

mod bulk;
#[path = "../ingest/host.rs"]
mod host;
#[path = "../../tests/support/needs.rs"]
mod needs;
#[path = "../../tests/support/ports.rs"]
mod ports;
#[path = "../../tests/support/postgres.rs"]
mod postgres;

use std::{
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use belayd::{
    buffer::Frame,
    config::model::StoreConfig,
    domain::{batch::BatchBuilder, reading::ReadingRef, receipt::StreamId},
    store::{
        Conn, Store, StoreError,
        ledger::register_stream,
        readings::{count, store_frames},
    },
};
use bulk::Way;
use diesel::{Connection, PgConnection, RunQueryDsl, connection::SimpleConnection};

/// Readings are of so many engines, one each in turn.
const ENGINES: u64 = 100;
/// Readings of one frame: a push.
const FRAME_ROWS: u64 = 100;

const HELP: &str = "cargo bench --bench store -- [--rounds N] [--rows N] [--only WORD] [--store URL]

  --rounds N    rounds of each measurement, interleaved; the median is quoted (default 5)
  --rows N      rows that one measurement stores (default 300000)
  --only WORD   only what has this word in its line: sqlite, postgres, daemon, unnest, unnest-list, copy, copy-text, copy-temporary
  --store URL   a PostgreSQL server to use instead of one of its own; a database is made there and dropped again";

#[derive(Clone, Debug)]
struct Options {
    rounds: usize,
    rows: u64,
    only: Option<String>,
    server: Option<String>,
}

/// What one measurement came to.
#[derive(Clone, Copy, Debug)]
struct Figure {
    rows_per_s: f64,
    /// Microseconds of processor time a row, here and in the server.
    client_us: f64,
    server_us: f64,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
struct Case {
    database: &'static str,
    way: Way,
    connections: u64,
    batch: u64,
}

fn main() {
    let mut options = Options { rounds: 5, rows: 300_000, only: None, server: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_else(|| usage(&format!("{arg} takes a number")));
        match arg.as_str() {
            "--rounds" => options.rounds = number().max(1) as usize,
            "--rows" => options.rows = number().max(20_000),
            "--only" => options.only = args.next(),
            "--store" => options.server = args.next(),
            // `cargo bench` passes this to every bench.
            "--bench" => {}
            "--help" | "-h" => usage(""),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    run(&options);
}

fn usage(problem: &str) -> ! {
    println!("{problem}\n{HELP}");
    std::process::exit(i32::from(!problem.is_empty()) * 2);
}

/// What the shared helper for PostgreSQL asks of its parent.
fn left_out(what: &str) {
    println!("left out: {what}");
}

fn run(options: &Options) {
    println!("machine: {} cores, {}", thread::available_parallelism().map_or(1, usize::from), host::cpu_model());
    let (p50, p99) = host::fdatasync(Duration::from_secs(2));
    println!("disk: fdatasync of 4 KiB p50 {p50:?}, p99 {p99:?}\n");
    let batches = [100, 1_000, 5_000, 10_000, 20_000];
    let mut cases: Vec<Case> =
        batches.iter().map(|batch| Case { database: "sqlite", way: Way::Daemon, connections: 1, batch: *batch }).collect();
    for way in Way::ALL {
        for connections in 1..=3 {
            cases.extend(batches.iter().map(|batch| Case { database: "postgres", way, connections, batch: *batch }));
        }
    }
    let wanted = |case: &Case| options.only.as_deref().is_none_or(|only| only == case.database || only == case.way.name());
    cases.retain(wanted);
    let dir = tempfile::tempdir_in(".").expect("a temporary directory");
    let own = (options.server.is_none() && cases.iter().any(|case| case.database == "postgres"))
        .then(|| postgres::is_installed().then(|| postgres::Postgres::start(&["shared_buffers=128MB"])))
        .flatten();
    let server = options.server.clone().or_else(|| own.as_ref().map(|own| own.url("postgres")));
    if server.is_none() {
        left_out("PostgreSQL, because it is not installed and no --store was given");
        cases.retain(|case| case.database == "sqlite");
    }
    let mut figures: Vec<Vec<Figure>> = vec![Vec::new(); cases.len()];
    for _ in 0..options.rounds {
        for (case, figures) in cases.iter().zip(&mut figures) {
            figures.push(match &server {
                Some(server) if case.database == "postgres" => {
                    on_postgres(server, own.as_ref().and_then(postgres::Postgres::pid), case, options.rows)
                }
                _ => on_sqlite(dir.path(), case, options.rows),
            });
        }
    }
    println!(
        "| database | statement | connections | rows a transaction | rows/s | lowest to highest | CPU a row, client + server |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (case, figures) in cases.iter().zip(&mut figures) {
        figures.sort_by(|a, b| a.rows_per_s.total_cmp(&b.rows_per_s));
        let (low, middle, high) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
        println!(
            "| {} | {} | {} | {} | {:.0} | {:.0} to {:.0} | {:.2} + {:.2} us |",
            case.database,
            case.way.name(),
            case.connections,
            case.batch,
            middle.rows_per_s,
            low.rows_per_s,
            high.rows_per_s,
            middle.client_us,
            middle.server_us,
        );
    }
}

fn on_sqlite(dir: &std::path::Path, case: &Case, rows: u64) -> Figure {
    let path = dir.join("bench.db");
    let figure = measure(&format!("sqlite://{}", path.display()), None, case, rows);
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.join(format!("bench.db{end}")));
    }
    figure
}

fn on_postgres(server: &str, pid: Option<u32>, case: &Case, rows: u64) -> Figure {
    let database = format!("belayd_bench_{}", std::process::id());
    let mut admin = PgConnection::establish(server).expect("the server answers");
    let (place, _) = server.rsplit_once('/').expect("a URL with a database");
    diesel::sql_query(format!("CREATE DATABASE {database}")).execute(&mut admin).expect("a database");
    // So that no measurement pays for what the one before has left to be written.
    admin.batch_execute("CHECKPOINT").expect("a checkpoint");
    let figure = measure(&format!("{place}/{database}"), pid, case, rows);
    diesel::sql_query(format!("DROP DATABASE {database} WITH (FORCE)")).execute(&mut admin).expect("it goes");
    figure
}

/// The transactions of one connection: frames of `batch` readings each. Pushes go to the connections in turn, so that all of them
/// write newer readings of the same engines, as the lanes of one daemon do.
fn transactions(place: u64, case: &Case, rows: u64, engines: &[String]) -> Vec<Vec<Frame>> {
    let frame_of = |nth: u64| {
        let mut builder = BatchBuilder::with_capacity(64 * FRAME_ROWS as usize);
        let first = (nth * case.connections + place) * FRAME_ROWS;
        for number in first..first + FRAME_ROWS {
            let value = (number % 1_000) as f64 / 7.0;
            builder.push(&ReadingRef {
                engine_id: &engines[(number % ENGINES) as usize],
                observed_at_us: 1_700_000_000_000_000 + (number / ENGINES) as i64 * 1_000_000,
                status: Some("ok"),
                temperature: Some(250.0 + value),
                rpm: Some(5_000.0 + value),
                pressure: Some(40.0 + value),
                fuel_flow: Some(2.0 + value),
                extra: None,
            });
        }
        Frame { first_seq: nth * FRAME_ROWS + 1, batch: builder.finish(1_700_000_000_000_000), chain_before: 0, chain: 0 }
    };
    let frames: Vec<Frame> = (0..rows / case.connections / FRAME_ROWS).map(frame_of).collect();
    frames.chunks((case.batch / FRAME_ROWS) as usize).map(<[Frame]>::to_vec).collect()
}

/// Stores `rows` readings. `server` is the process that the database runs in, where it is one of ours.
fn measure(url: &str, server: Option<u32>, case: &Case, rows: u64) -> Figure {
    let config = StoreConfig {
        url: url.to_owned(),
        pool_size: 2,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(60),
        breaker: belayd::domain::breaker::BreakerSettings::STORE,
    };
    let store = Store::open(&config).expect("a valid URL");
    store.migrate().expect("migrations run");
    let engines: Vec<String> = (0..ENGINES).map(|engine| format!("engine-{engine:04}")).collect();
    let barrier = Arc::new(Barrier::new(case.connections as usize + 1));
    let threads: Vec<_> = (0..case.connections)
        .map(|place| {
            let stream = StreamId::new_v4();
            store.with(|conn| register_stream(conn, stream, "memory", &format!("bench-{place}"), 0)).expect("a stream");
            let work = transactions(place, case, rows, &engines);
            let (mut writer, barrier, case) = (store.writer(), barrier.clone(), *case);
            thread::spawn(move || {
                let ready = writer.with(|conn| match conn {
                    Conn::Pg(conn) => bulk::prepare(conn, case.way).map_err(StoreError::from),
                    Conn::Sqlite(_) => Ok(()),
                });
                ready.expect("the connection is ready");
                barrier.wait();
                let name = stream.to_string();
                let mut stored = 0;
                for frames in &work {
                    let outcome = writer.with(|conn| match (conn, case.way) {
                        (Conn::Pg(conn), way) if way != Way::Daemon => bulk::store(conn, way, &name, place as i64 + 1, frames),
                        (conn, _) => Ok(store_frames(conn, stream, frames, 0)?.stored),
                    });
                    stored += outcome.expect("stored");
                }
                stored
            })
        })
        .collect();
    barrier.wait();
    let (started, client, served) =
        (Instant::now(), host::cpu_of(std::process::id()), server.map_or(Duration::ZERO, host::cpu_of_all));
    let stored: u64 = threads.into_iter().map(|thread| thread.join().expect("a writer failed")).sum();
    let took = started.elapsed();
    let client = host::cpu_of(std::process::id()) - client;
    let served = server.map_or(Duration::ZERO, host::cpu_of_all) - served;
    assert_eq!(store.with(count).expect("a count"), stored, "the table holds what was reported");
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / stored as f64;
    Figure { rows_per_s: stored as f64 / took.as_secs_f64(), client_us: each(client), server_us: each(served) }
}
