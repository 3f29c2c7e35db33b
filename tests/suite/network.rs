//! The network between the daemon and a real PostgreSQL turns bad under load: it swallows what is sent while it acknowledges it, delays,
//! cuts and half-closes. What was acknowledged is stored once, and nobody has to do anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection, PgConnection, RunQueryDsl, sql_types::BigInt};

use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
    proxy::{Mood, Proxy},
};

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

fn number(server: &Postgres, query: &str) -> i64 {
    let mut conn = PgConnection::establish(&server.url("postgres")).expect("the server answers");
    diesel::sql_query(query).get_result::<Number>(&mut conn).expect("the query is right").n
}

struct Scene {
    server: Postgres,
    proxy: Proxy,
    daemon: Daemon,
}

impl Scene {
    /// A daemon that reaches its database through a proxy; `None` without PostgreSQL.
    fn set(statement_timeout: &str) -> Option<Self> {
        if !postgres::is_installed() {
            crate::support::left_out("a bad network, because PostgreSQL's binaries are not installed (tests/run installs them)");
            return None;
        }
        let server = Postgres::start(&["fsync=off"]);
        let place = format!("127.0.0.1:{}", server.port());
        let proxy = Proxy::start(&place);
        let url = server.url("postgres").replace(&place, &proxy.address);
        let more = format!("{url}\"\nstatement_timeout = \"{statement_timeout}\"\nconnect_timeout = \"1s");
        let daemon = Setup::with("[buffer]\nflush_interval = \"100ms\"\n").store(&more).start();
        Some(Self { server, proxy, daemon })
    }

    fn outages(&self) -> Vec<serde_json::Value> {
        let alerts = self.daemon.get("/api/alerts").json();
        let all = alerts["items"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|alert| alert["name"] == "database-down").collect()
    }

    fn state(&self) -> String {
        self.daemon.get("/readyz").json()["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether all that was acknowledged is stored once, with nothing left over.
    fn is_whole(&self, acknowledged: i64) {
        assert_eq!(self.daemon.drained() as i64, acknowledged);
        assert_eq!(number(&self.server, "SELECT count(*) AS n FROM readings"), acknowledged);
        assert_eq!(number(&self.server, "SELECT count(*) AS n FROM reading_failures"), 0);
        assert_eq!(self.daemon.metric("belayd_conservation_violation"), 0.0);
    }
}

/// Pushes of 50 readings, one after the other, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicI64>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    fn start(daemon: &Daemon) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let (mine, count) = (stop.clone(), acknowledged.clone());
        let client = Client::new(&daemon.address, &daemon.token);
        let thread = thread::spawn(move || {
            let mut at = 1_700_000_000_000_i64;
            while !mine.load(Ordering::Relaxed) {
                let items: Vec<_> =
                    (at..at + 50).map(|t| format!(r#"{{"engineId":"e{}","timestamp":{t},"rpm":1}}"#, t % 7)).collect();
                let answer = client.post("/api/readings", &format!("[{}]", items.join(",")));
                assert_eq!(answer.status, 202, "the journal takes what comes: {answer:?}");
                count.fetch_add(50, Ordering::Relaxed);
                at += 50;
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { stop, acknowledged, thread: Some(thread) }
    }

    fn so_far(&self) -> i64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn end(mut self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("not ended yet").join().expect("every push was taken");
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_whose_packets_are_swallowed_is_given_up_and_drained_over_a_new_one() {
    let Some(scene) = Scene::set("6s") else { return };
    let daemon = &scene.daemon;
    let load = Load::start(daemon);
    daemon.wait_for("under load", Duration::from_secs(20), |daemon| daemon.metric("belayd_readings_stored_total") > 5_000.0);
    assert_eq!(daemon.get("/admin/failures").status, 200, "the pool has a connection, too");
    scene.proxy.deafen();
    let (since, before) = (Instant::now(), load.so_far());

    // A question over a connection that hangs ends with a clear error, or is asked over another one, in a bounded time.
    let asked = daemon.get("/admin/failures");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert!(matches!(asked.status, 200 | 503), "{asked:?}");
    daemon.wait_for("alarmed", Duration::from_secs(20), |_| !scene.outages().is_empty());
    daemon.wait_for("ready again without a person", Duration::from_secs(40), |_| scene.state() == "ready");
    assert!(load.so_far() > before, "ingest went on into the journal");
    let all = load.end();
    scene.is_whole(all);
    daemon.wait_for("resolved", Duration::from_secs(10), |_| scene.outages().iter().all(|alert| alert["state"] == "resolved"));
    assert_eq!(scene.outages().len(), 1, "{:?}", scene.outages());
    assert!(daemon.log().contains("is given up"), "and the reason was said");
    // What the hung connections left on the server holds nothing any more.
    let left = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'belayd' AND state <> 'idle' AND wait_event_type = 'Client'";
    assert_eq!(number(&scene.server, left), 0);
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("its threads");
    let drains = threads.flatten().filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("drain-") && !name.contains("watch"))
    });
    assert!(drains.count() <= 4, "no thread is left behind");
}

#[test]
fn a_session_that_a_hung_connection_left_with_its_locks_is_sent_away() {
    use belayd::{
        config::model::StoreConfig,
        store::{Conn, Store, StoreErrorKind},
    };
    use diesel::connection::SimpleConnection;
    if !postgres::is_installed() {
        return;
    }
    let server = Postgres::start(&["fsync=off"]);
    let place = format!("127.0.0.1:{}", server.port());
    let proxy = Proxy::start(&place);
    let config = StoreConfig {
        url: server.url("postgres").replace(&place, &proxy.address),
        pool_size: 2,
        connect_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_secs(1),
        breaker: belayd::domain::breaker::BreakerSettings::STORE,
    };
    let store = Store::open(&config).expect("a valid URL");
    let run = |conn: &mut Conn, sql: &str| {
        let Conn::Pg(pg) = conn else { unreachable!("this test opens PostgreSQL") };
        pg.batch_execute(sql)
    };
    store.with(|conn| Ok(run(conn, "CREATE TABLE locked (n int); INSERT INTO locked VALUES (1)")?)).expect("a table");
    let begun = Instant::now();
    let hung = store.with(|conn| {
        // In the middle of a COPY the server knows no such time-out.
        run(conn, "SET idle_in_transaction_session_timeout = 0; BEGIN; UPDATE locked SET n = 2")?;
        proxy.deafen();
        Ok(run(conn, "SELECT 1")?)
    });
    let error = hung.expect_err("no answer can come");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((error.kind, error.code.as_deref()), (StoreErrorKind::Unavailable, Some("08006")), "{error}");
    assert!(error.message.contains("said nothing for 6 s") && error.is_transient(), "{error}");
    assert_eq!(number(&server, "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'idle in transaction'"), 1);
    store.with(|conn| Ok(run(conn, "UPDATE locked SET n = 3")?)).expect("the lock is free");
    assert_eq!(number(&server, "SELECT n::bigint AS n FROM locked"), 3);
    assert_eq!(number(&server, "SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'idle in transaction'"), 0);
}

#[test]
fn a_network_that_delays_cuts_and_half_closes_costs_time_and_nothing_else() {
    let Some(scene) = Scene::set("1s") else { return };
    let load = Load::start(&scene.daemon);
    let moods = [Mood::Delay(Duration::from_millis(60)), Mood::HalfCloseThere, Mood::HalfCloseBack, Mood::Refuse, Mood::Swallow];
    for round in 0..2 {
        for mood in moods {
            let stored = scene.daemon.metric("belayd_readings_stored_total");
            scene.proxy.set(mood);
            thread::sleep(Duration::from_millis(400 + 300 * round));
            scene.proxy.set(Mood::Good);
            let limit = Duration::from_secs(40);
            scene.daemon.wait_for("stored again", limit, |daemon| daemon.metric("belayd_readings_stored_total") > stored + 1_000.0);
            scene.proxy.cut();
        }
    }
    let all = load.end();
    assert!(all > 5_000, "{all}");
    scene.is_whole(all);
    scene
        .daemon
        .wait_for("resolved", Duration::from_secs(20), |_| scene.outages().iter().all(|alert| alert["state"] == "resolved"));
}

#[test]
fn the_first_question_after_a_restart_of_the_database_is_answered() {
    let Some(mut scene) = Scene::set("1s") else { return };
    scene.daemon.wait_for("migrated", Duration::from_secs(20), |_| scene.state() == "ready");
    for _ in 0..3 {
        // Several connections of the pool are used just before.
        let ask = || (0..8).map(|_| scene.daemon.get("/admin/failures").status).collect::<Vec<_>>();
        thread::scope(|threads| {
            let all: Vec<_> = (0..4).map(|_| threads.spawn(ask)).collect();
            all.into_iter().for_each(|one| assert!(one.join().expect("asked").iter().all(|status| *status == 200)));
        });
        scene.server.restart();
        // The end of the old connections comes through the proxy in its own time.
        thread::sleep(Duration::from_millis(500));
        for _ in 0..8 {
            let answer = scene.daemon.get("/admin/failures");
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}
