//! Retention through the whole daemon: senders do not wait for it, a kill in the middle loses no count, and a backup of an older schema is
//! brought up to date when it is put back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use belayd::{
    clock::{Clock, SystemClock},
    config::model::StoreConfig,
    domain::breaker::BreakerSettings,
    on_backend,
    store::{Backend, Store, partitions},
};
use diesel::{RunQueryDsl, connection::SimpleConnection, sql_types::BigInt};

use crate::{
    backup::{Side, done, on_both, path},
    support::{
        client::Client,
        daemon::{Daemon, Setup},
        left_out,
        postgres::{self, Postgres},
    },
};

const DAY: i64 = 86_400_000_000;
/// Rows that are too old.
const OLD: i64 = 200_000;
const LIMIT: Duration = Duration::from_secs(300);

fn open(url: &str) -> Store {
    Store::open(&StoreConfig {
        url: url.to_owned(),
        pool_size: 2,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(120),
        breaker: BreakerSettings::STORE,
    })
    .expect("a valid URL")
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(store: &Store, query: &str) -> i64 {
    store.with(|conn| Ok(on_backend!(conn, |c| diesel::sql_query(query).get_result::<Number>(c))?)).expect("a number").n
}

fn run(store: &Store, sql: &str) {
    store.with(|conn| Ok(on_backend!(conn, |c| c.batch_execute(sql))?)).expect("the statement runs");
}

/// Puts old readings of a stream that no ledger knows into the store, over forty partitions where there are any.
fn fill(store: &Store, engine: &str) {
    let begin = SystemClock.now_us() / DAY * DAY - 60 * DAY;
    let step = 10 * DAY / OLD;
    if store.backend() == Backend::Postgres {
        let width = partitions::width_us(Duration::from_secs(30 * 86_400));
        store.with(|conn| partitions::make(conn, begin, begin + 10 * DAY - 1, width)).expect("made");
        assert_eq!(
            store.with(partitions::list).expect("partitions").iter().filter(|one| one.to_us <= begin + 10 * DAY).count(),
            40
        );
    }
    run(
        store,
        &format!(
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {OLD} - 1)
             INSERT INTO readings (engine_id, observed_at_us, temperature, stream_no, seq, created_at_us)
             SELECT '{engine}', {begin} + CAST(n AS bigint) * {step}, 1.5, 0, n, 0 FROM s"
        ),
    );
}

/// Two senders at `ack=store`; returns the longest answer.
struct Senders {
    stop: Arc<AtomicBool>,
    longest_us: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<u64>>,
}

impl Senders {
    fn start(daemon: &Daemon) -> Self {
        let (stop, longest_us) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..2)
            .map(|sender| {
                let (client, stop, longest_us) = (Client::new(&daemon.address, &daemon.token), stop.clone(), longest_us.clone());
                thread::spawn(move || {
                    let mut sent = 0;
                    while !stop.load(SeqCst) {
                        let items: Vec<String> =
                            (0..100).map(|n| format!(r#"{{"engineId":"s{sender}-{n}","temperature":300}}"#)).collect();
                        let began = Instant::now();
                        let answer = client.post("/api/readings?ack=store", &format!("[{}]", items.join(",")));
                        assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("store")), "{answer:?}");
                        longest_us.fetch_max(began.elapsed().as_micros() as u64, SeqCst);
                        sent += 100;
                    }
                    sent
                })
            })
            .collect();
        Self { stop, longest_us, threads }
    }

    /// The longest answer since the last time this was asked.
    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, SeqCst))
    }

    fn stop(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("every answer was as it should be")).sum()
    }
}

fn setup(url: &str) -> Setup {
    // Longer than the run of the test: only what is asked for runs.
    Setup::with(
        "[buffer]\nflush_interval = \"20ms\"\nack_timeout = \"60s\"\n[retention]\nreadings = \"30d\"\n[schedule]\nretention_interval = \"7d\"\n",
    )
    .store(url)
}

fn ask(daemon: &Daemon) {
    let answer = daemon.post("/admin/duties/retention/run", r#"{"reason":"drill"}"#);
    assert!(answer.status < 300, "{answer:?}");
}

fn old_rows(store: &Store) -> i64 {
    number(store, "SELECT count(*) AS n FROM readings WHERE stream_no = 0")
}

#[test]
fn senders_do_not_wait_while_partitions_are_dropped_and_a_kill_in_the_middle_loses_no_count() {
    if !postgres::is_installed() {
        left_out("dropping partitions under load, because PostgreSQL's binaries are not installed (tests/run installs them)");
        return;
    }
    let server = Postgres::start(&[]);
    let url = server.new_database("belayd");
    let mut daemon = setup(&url).start();
    let store = open(&url);
    daemon.wait_for("its first pass", LIMIT, |daemon| daemon.get("/admin/duties").body.contains("partitions="));
    fill(&store, "old");
    let senders = Senders::start(&daemon);
    thread::sleep(Duration::from_secs(2)); // What they wait for anyway.
    let quiet = senders.longest();
    ask(&daemon);
    daemon.wait_for("the drops", LIMIT, |_| old_rows(&store) == 0);
    let dropping = senders.longest();
    let sent = senders.stop();
    eprintln!("longest ack=store: {quiet:?} before, {dropping:?} while 40 partitions with {OLD} rows were dropped; {sent} sent");
    assert!(dropping < Duration::from_secs(20) && dropping < quiet * 20 + Duration::from_secs(5), "{dropping:?} against {quiet:?}");
    let removed = "SELECT coalesce(sum(gone), 0)::bigint AS n FROM removed_readings";
    daemon.wait_for("the count", LIMIT, |_| number(&store, removed) == OLD);

    fill(&store, "again");
    ask(&daemon);
    daemon.wait_for("under way", LIMIT, |_| old_rows(&store) < OLD);
    daemon.kill();
    daemon.start_again();
    daemon.wait_for("the rest", LIMIT, |daemon| {
        ask(daemon);
        old_rows(&store) == 0
    });
    let left = "SELECT count(*) AS n FROM pg_class WHERE starts_with(relname::text, 'readings_gone_')";
    daemon.wait_for("nothing half done", LIMIT, |_| number(&store, left) == 0);
    assert_eq!(number(&store, removed), 2 * OLD, "each is counted once, whenever it was killed");
    assert_eq!(number(&store, "SELECT count(*) AS n FROM readings"), i64::try_from(sent).expect("few"));
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
}

#[test]
fn senders_do_not_wait_while_sqlite_deletes_in_slices() {
    let daemon = setup("sqlite://belayd.db").start();
    let store = open(&format!("sqlite://{}", daemon.dir().join("belayd.db").display()));
    daemon.wait_for("its first pass", LIMIT, |daemon| daemon.get("/admin/duties").body.contains("partitions="));
    fill(&store, "old");
    let senders = Senders::start(&daemon);
    thread::sleep(Duration::from_secs(2)); // What they wait for anyway.
    let quiet = senders.longest();
    ask(&daemon);
    daemon.wait_for("the slices", LIMIT, |_| old_rows(&store) == 0);
    let slices = senders.longest();
    let sent = senders.stop();
    fill(&store, "old");
    let began = Instant::now();
    run(&store, "DELETE FROM readings WHERE stream_no = 0");
    let at_once = began.elapsed();
    eprintln!(
        "longest ack=store: {quiet:?} before, {slices:?} while {OLD} rows were deleted in slices; one DELETE takes {at_once:?}; {sent} sent"
    );
    assert!(slices < Duration::from_secs(20) && slices < quiet * 20 + at_once * 2 + Duration::from_secs(2), "{slices:?}");
    assert_eq!(number(&store, "SELECT sum(gone) AS n FROM removed_readings"), 2 * OLD);
}

/// Old deliveries that were sent, as many as there are old readings elsewhere.
fn settle_many(store: &Store) {
    let long_ago = SystemClock.now_us() - 800 * DAY;
    run(
        store,
        &format!(
            "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {OLD} - 1)
             INSERT INTO deliveries (id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, \
                 updated_at_us, settled_at_us)
             SELECT 'old-' || n, 'kafka', 'lane-' || (n % 4), 's', '{{}}', 'sent', 1, 0, 'resend', {long_ago}, {long_ago}, {long_ago} + n FROM s"
        ),
    );
}

#[test]
fn senders_do_not_wait_while_settled_deliveries_go_in_slices() {
    let ask_of = |side: &str, daemon: &Daemon, store: &Store| {
        daemon.wait_for("its first pass", LIMIT, |daemon| daemon.get("/admin/duties").body.contains("partitions="));
        settle_many(store);
        let senders = Senders::start(daemon);
        thread::sleep(Duration::from_secs(2)); // What they wait for anyway.
        let quiet = senders.longest();
        ask(daemon);
        let old = "SELECT count(*) AS n FROM deliveries WHERE id LIKE 'old-%'";
        let began = Instant::now();
        daemon.wait_for("the slices", LIMIT, |_| number(store, old) == 0);
        let (took, slices) = (began.elapsed(), senders.longest());
        let sent = senders.stop();
        eprintln!(
            "{side}: longest ack=store: {quiet:?} before, {slices:?} in the {took:?} in which {OLD} deliveries went; {sent} sent"
        );
        assert!(slices < Duration::from_secs(10) && slices < quiet * 20 + Duration::from_secs(2), "{slices:?} against {quiet:?}");
        assert_eq!(number(store, "SELECT count(*) AS n FROM readings"), i64::try_from(sent).expect("few"));
    };
    let daemon = setup("sqlite://belayd.db").start();
    ask_of("SQLite", &daemon, &open(&format!("sqlite://{}", daemon.dir().join("belayd.db").display())));
    if !postgres::is_installed() {
        left_out("deleting deliveries under load on PostgreSQL, because its binaries are not installed (tests/run installs them)");
        return;
    }
    let server = Postgres::start(&[]);
    let url = server.new_database("belayd");
    ask_of("PostgreSQL", &setup(&url).start(), &open(&url));
}

#[test]
fn a_run_that_fails_half_way_has_told_the_integrity_check_what_it_may_have_dropped() {
    let daemon = setup("sqlite://belayd.db").start();
    let store = open(&format!("sqlite://{}", daemon.dir().join("belayd.db").display()));
    daemon.wait_for("its first pass", LIMIT, |daemon| daemon.get("/admin/duties").body.contains("partitions="));
    let (old, older) = (SystemClock.now_us() - 800 * DAY, SystemClock.now_us() - 801 * DAY);
    // As a belayd of before that rule left it; and the second delivery cannot be dropped.
    run(
        &store,
        &format!(
            "UPDATE duties SET result = NULL WHERE name = 'retention';
             INSERT INTO deliveries (id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, \
                 updated_at_us, settled_at_us) \
             VALUES ('a', 'log', 'a', 's', '{{}}', 'sent', 1, 0, 'resend', 0, 0, {older}), \
                    ('b', 'log', 'b', 's', '{{}}', 'sent', 1, 0, 'resend', 0, 0, {old});
             CREATE TRIGGER drill BEFORE DELETE ON deliveries WHEN old.id = 'b' BEGIN SELECT RAISE(ABORT, 'drill'); END"
        ),
    );
    let recorded = "SELECT last_run_at_us AS n FROM duties WHERE name = 'retention'";
    let ended = number(&store, recorded);
    let answer = daemon.post("/admin/duties/retention/run", r#"{"reason":"drill"}"#);
    daemon.wait_for("the failure", LIMIT, |daemon| daemon.get("/admin/duties").body.contains("drill"));
    assert_eq!(number(&store, recorded), ended, "a run that failed has not ended: {answer:?}");
    let mark = "SELECT coalesce(json_extract(result, '$.deliveriesBeforeUs'), 0) AS n FROM duties WHERE name = 'retention'";
    assert!(number(&store, mark) > old, "{}", number(&store, mark));
}

#[test]
fn a_backup_of_an_older_schema_is_brought_up_to_date_and_a_newer_one_keeps_its_partitions() {
    on_both(|from, to| {
        let url = |side: &Side, daemon: &Daemon| match side {
            Side::Sqlite => format!("sqlite://{}", daemon.dir().join("belayd.db").display()),
            Side::Postgres(url) => url.clone(),
        };
        let old = from.setup().lay_out();
        let store = open(&url(&from, &old));
        store.migrate().expect("migrated");
        while store.revert_last_migration().expect("reverted").as_deref() != Some("20261121000008") {}
        let now_us = SystemClock.now_us();
        run(
            &store,
            &format!(
                "INSERT INTO readings (engine_id, observed_at_us, temperature, stream_no, seq, created_at_us)
                 VALUES ('a', {}, 1, 0, 1, 0), ('a', {now_us}, 2, 0, 2, 0)",
                now_us - 100 * DAY
            ),
        );
        let file = old.dir().join("older.tar.gz");
        done(&old, &["backup", path(&file)]);
        let mut new = to.setup().bare();
        done(&new, &["restore", path(&file)]);
        new.token.clone_from(&old.token);
        new.start_again();
        let restored = open(&url(&to, &new));
        assert!(restored.migration_status().expect("a list").iter().all(|step| step.applied && step.known));
        assert_eq!(number(&restored, "SELECT count(*) AS n FROM readings"), 2);
        // What was there is known by its key, and new readings find their place.
        let item = |at_us: i64, value: i64| format!(r#"{{"engineId":"a","timestamp":{},"temperature":{value}}}"#, at_us / 1_000);
        let answer = new.post("/api/readings?ack=store", &format!("[{}]", item(now_us + 3_600_000_000, 3)));
        assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("store")), "{answer:?}");
        assert_eq!(number(&restored, "SELECT count(*) AS n FROM readings"), 3);
        // And back the other way with the schema of today: the partitions come along.
        let parts = restored.with(partitions::list).expect("partitions");
        let file = new.dir().join("newer.tar.gz");
        new.stop();
        done(&new, &["backup", path(&file)]);
        drop(store);
        done(&old, &["restore", path(&file), "--replace"]);
        let back = open(&url(&from, &old));
        assert_eq!(number(&back, "SELECT count(*) AS n FROM readings"), 3);
        assert_eq!(back.with(partitions::list).expect("partitions"), parts);
    });
}
