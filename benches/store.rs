//! Rows a second through `store_frames`: rows, ledger and cursor in one synced transaction, on one connection.
//!
//! `cargo bench --bench store [-- SECONDS]` measures SQLite; with `BELAYD_TEST_POSTGRES=postgres://…` in the environment also that
//! server, in a database of its own which is dropped at the end. `BELAYD_BENCH_DIR` says where the SQLite file lies.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use belayd::{
    buffer::Frame,
    config::model::StoreConfig,
    domain::{batch::BatchBuilder, reading::ReadingRef, receipt::StreamId},
    store::{
        Store,
        ledger::register_stream,
        readings::{count, store_frames},
    },
};
use diesel::{Connection, PgConnection, RunQueryDsl};

/// Readings are of so many engines, one each in turn.
const ENGINES: u64 = 100;
/// Readings of one frame: a push.
const FRAME_ROWS: u64 = 100;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5.0);
    let length = Duration::from_secs_f64(seconds);
    sqlite(length);
    match std::env::var("BELAYD_TEST_POSTGRES") {
        Ok(url) => postgres(&url, length),
        Err(_) => say("left out: PostgreSQL, because BELAYD_TEST_POSTGRES is not set"),
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn sqlite(length: Duration) {
    let dir = match std::env::var_os("BELAYD_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .expect("a temporary directory");
    for rows in [100, 1_000, 10_000] {
        let path = dir.path().join(format!("{rows}.db"));
        measure(&format!("sqlite://{}", path.display()), "SQLite", rows, length);
        let _ = std::fs::remove_file(path);
    }
}

fn postgres(url: &str, length: Duration) {
    let database = format!("belayd_bench_{}", std::process::id());
    let mut admin = PgConnection::establish(url).expect("the server answers");
    let (server, _) = url.rsplit_once('/').expect("a URL with a database");
    for rows in [100, 1_000, 10_000] {
        diesel::sql_query(format!("CREATE DATABASE {database}")).execute(&mut admin).expect("a database");
        measure(&format!("{server}/{database}"), "PostgreSQL", rows, length);
        diesel::sql_query(format!("DROP DATABASE {database} WITH (FORCE)")).execute(&mut admin).expect("it goes");
    }
}

/// Frames of `rows` readings in all, as a simulator at 1 Hz for each engine would give them.
fn frames(next_seq: u64, rows: u64, engines: &[String]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut first_seq = next_seq;
    while first_seq < next_seq + rows {
        let mut builder = BatchBuilder::with_capacity(64 * FRAME_ROWS as usize);
        for seq in first_seq..first_seq + FRAME_ROWS {
            let value = (seq % 1_000) as f64 / 7.0;
            builder.push(&ReadingRef {
                engine_id: &engines[(seq % ENGINES) as usize],
                observed_at_us: 1_700_000_000_000_000 + (seq / ENGINES) as i64 * 1_000_000,
                status: Some("ok"),
                temperature: Some(250.0 + value),
                rpm: Some(5_000.0 + value),
                pressure: Some(40.0 + value),
                fuel_flow: Some(2.0 + value),
                extra: None,
            });
        }
        frames.push(Frame { first_seq, batch: builder.finish(1_700_000_000_000_000), chain_before: 0, chain: 0 });
        first_seq += FRAME_ROWS;
    }
    frames
}

fn measure(url: &str, name: &str, rows: u64, length: Duration) {
    let config = StoreConfig {
        url: url.to_owned(),
        pool_size: 2,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(60),
    };
    let store = Store::open(&config).expect("a valid URL");
    store.migrate().expect("migrations run");
    let stream = StreamId::new_v4();
    store.with(|conn| register_stream(conn, stream, "memory", "bench", 0)).expect("a stream");
    let engines: Vec<String> = (0..ENGINES).map(|engine| format!("engine-{engine:04}")).collect();
    let mut writer = store.writer();
    let (mut next_seq, mut busy, mut cpu) = (1, Duration::ZERO, Duration::ZERO);
    while busy < length {
        let frames = frames(next_seq, rows, &engines);
        let (begin, cpu_begin) = (Instant::now(), thread_cpu());
        let outcome = writer.with(|conn| store_frames(conn, stream, &frames, 0)).expect("stored");
        busy += begin.elapsed();
        cpu += thread_cpu() - cpu_begin;
        assert_eq!(outcome.stored, rows);
        next_seq += rows;
    }
    let done = next_seq - 1;
    assert_eq!(store.with(count).expect("a count"), done, "the table holds what was reported");
    say(&format!(
        "{name:<10}  {rows:>6} rows a transaction  {:>9.0} rows/s  {:>5.2} us CPU a row (this process)  {done} rows",
        done as f64 / busy.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / done as f64,
    ));
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes into `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}
