//! How soon a dead instance's work goes on elsewhere: within 15 s of its death, by the database's own clock. A limit of a test's patience
//! would prove nothing here; what this machine stood still meanwhile is measured, and allowed for.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection, PgConnection, RunQueryDsl, sql_types::BigInt};

use crate::support::{
    daemon::{Daemon, Setup},
    left_out,
    postgres::{self, Postgres},
    redis::{self, Redis},
};

/// What the interface promises.
const WITHIN: Duration = Duration::from_secs(15);

/// By how much the naps of a thread that does nothing else were too long, summed up.
pub(crate) struct Stalls {
    sum_us: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Stalls {
    pub(crate) fn watch() -> Self {
        let (sum_us, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (sum, end) = (sum_us.clone(), stop.clone());
        thread::spawn(move || {
            while !end.load(Ordering::Acquire) {
                let began = Instant::now();
                thread::sleep(Duration::from_millis(20));
                let over = began.elapsed().saturating_sub(Duration::from_millis(22));
                sum.fetch_add(u64::try_from(over.as_micros()).unwrap_or(u64::MAX), Ordering::AcqRel);
            }
        });
        Self { sum_us, stop }
    }

    pub(crate) fn so_far(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Acquire))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// The database, asked past every daemon.
pub(crate) struct Database(PgConnection);

impl Database {
    pub(crate) fn open(url: &str) -> Self {
        Self(PgConnection::establish(url).expect("PostgreSQL answers"))
    }

    /// One number; `None` where there is no row.
    pub(crate) fn number(&mut self, sql: &str) -> Option<i64> {
        use diesel::OptionalExtension;
        diesel::sql_query(sql).get_result::<Number>(&mut self.0).optional().expect("an answer").map(|row| row.n)
    }

    pub(crate) fn now_us(&mut self) -> i64 {
        self.number("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n").expect("a row")
    }

    fn execute(&mut self, sql: &str) -> usize {
        diesel::sql_query(sql).execute(&mut self.0).expect("executed")
    }

    /// Waits until `owner` holds `lease`: only then can another take it over.
    pub(crate) fn wait_owned(&mut self, lease: &str, owner: &str) {
        let began = Instant::now();
        let its = format!("SELECT 1::bigint AS n FROM leases WHERE name = '{lease}' AND owner = '{owner}'");
        while self.number(&its).is_none() {
            assert!(began.elapsed() < Duration::from_secs(60), "{lease} is never held by {owner}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until another than `dead` has the lease; how long after `since_us`, by the database's clock.
    pub(crate) fn taken_over(&mut self, lease: &str, dead: &str, since_us: i64) -> Duration {
        let began = Instant::now();
        let other = format!("SELECT 1::bigint AS n FROM leases WHERE name = '{lease}' AND owner <> '{dead}'");
        while self.number(&other).is_none() {
            assert!(began.elapsed() < Duration::from_secs(300), "{lease} is never taken over");
            thread::sleep(Duration::from_millis(20));
        }
        Duration::from_micros((self.now_us() - since_us).unsigned_abs())
    }
}

/// The id of a daemon's directory.
pub(crate) fn instance(daemon: &Daemon) -> String {
    let list = daemon.get("/admin/instances").json();
    let this = list["items"].as_array().into_iter().flatten().find(|item| item["this"] == true).cloned();
    this.expect("it is on its own list")["instance"].as_str().expect("an id").to_owned()
}

fn server() -> Option<Postgres> {
    if !postgres::is_installed() {
        left_out("take-overs, because PostgreSQL's binaries are not installed (tests/run installs them)");
        return None;
    }
    Some(Postgres::start(&["fsync=off"]))
}

fn start(url: &str) -> Daemon {
    let daemon = Setup::with("[schedule]\nstatistics_interval = \"1s\"\n").store(url).start();
    daemon.wait_for("listed", Duration::from_secs(60), |daemon| daemon.get("/admin/instances").body.contains("\"this\":true"));
    daemon
}

/// When the duty was begun last by another than `dead`.
fn begun_by_another(database: &mut Database, dead: &str) -> Option<i64> {
    database.number(&format!("SELECT last_run_at_us AS n FROM duties WHERE name = 'statistics' AND instance <> '{dead}'"))
}

#[test]
fn duties_of_an_instance_that_is_killed_are_begun_by_another_within_15_s() {
    let Some(server) = server() else { return };
    let url = server.new_database("killed");
    let mut daemons = [start(&url), start(&url)];
    let mut database = Database::open(&url);
    // Whoever does it goes on doing it.
    let names = daemons.each_ref().map(instance);
    let worker = |database: &mut Database| {
        let of = |name| format!("SELECT 1::bigint AS n FROM duties WHERE name = 'statistics' AND instance = '{name}'");
        names.iter().position(|name| database.number(&of(name)).is_some())
    };
    daemons[0].wait_for("done once", Duration::from_secs(60), |_| worker(&mut database).is_some());
    let at = worker(&mut database).expect("one of them");
    let stalls = Stalls::watch();
    daemons[at].kill();
    let died_us = database.now_us();
    let mut begun_us = None;
    daemons[1 - at].wait_for("taken over", Duration::from_secs(120), |_| {
        begun_us = begun_by_another(&mut database, &names[at]);
        begun_us.is_some()
    });
    let took = Duration::from_micros((begun_us.expect("it was") - died_us).unsigned_abs());
    eprintln!("begun by another {took:?} after the death; the machine stood still for {:?}", stalls.so_far());
    assert!(took <= WITHIN + stalls.so_far(), "{took:?}");
}

#[test]
fn a_duty_whose_instance_died_in_the_middle_of_it_is_begun_by_another_within_15_s() {
    let Some(server) = server() else { return };
    let url = server.new_database("midway");
    let daemon = start(&url);
    let mut database = Database::open(&url);
    daemon.wait_for("done once", Duration::from_secs(60), |_| begun_by_another(&mut database, "nobody").is_some());
    // Another instance did it last, has just renewed its lease, and is no more.
    let stalls = Stalls::watch();
    let clock = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let rows = database.execute(&format!(
        "WITH held AS (UPDATE leases SET owner = 'ghost', epoch = epoch + 1, lease_until_us = {clock} + 10000000 WHERE name = 'duty/statistics' \
         RETURNING 1) UPDATE duties SET instance = 'ghost', last_run_at_us = {clock} WHERE name = 'statistics'"
    ));
    assert_eq!(rows, 1);
    let died_us = database.number("SELECT last_run_at_us AS n FROM duties WHERE name = 'statistics'").expect("a row");
    let mut begun_us = None;
    daemon.wait_for("taken over", Duration::from_secs(120), |_| {
        begun_us = begun_by_another(&mut database, "ghost");
        begun_us.is_some()
    });
    let took = Duration::from_micros((begun_us.expect("it was") - died_us).unsigned_abs());
    eprintln!("begun by another {took:?} after the death; the machine stood still for {:?}", stalls.so_far());
    assert!(took >= Duration::from_secs(9), "the lease is kept while it holds: {took:?}");
    assert!(took <= WITHIN + stalls.so_far(), "{took:?}");
}

#[test]
fn readings_that_wait_in_redis_for_an_instance_that_is_killed_are_stored_by_another_within_15_s() {
    if !redis::is_installed() {
        return;
    }
    let Some(server) = server() else { return };
    let (url, shared) = (server.new_database("streams"), Redis::start(&["--appendfsync everysec"]));
    let start = |flush: &str| {
        let redis = shared.url();
        let setup = Setup::with(&format!(
            "[buffer]\ntier = \"redis\"\nflush_interval = \"{flush}\"\n[redis]\nurl = \"{redis}\"\ntimeout = \"2s\"\n"
        ));
        let daemon = setup.store(&url).start();
        let ready = |daemon: &Daemon| daemon.get("/admin/buffer").json()["redis"]["lookedBack"] == true;
        daemon.wait_for("looked back", Duration::from_secs(90), ready);
        daemon
    };
    // What the first acknowledges would stay in Redis for longer than the test lasts.
    let (mut first, second) = (start("1h"), start("100ms"));
    let mut database = Database::open(&url);
    let dead = instance(&first);
    let items: Vec<String> =
        (0..50).map(|n| format!(r#"{{"engineId":"e","timestamp":{},"rpm":1}}"#, 1_700_000_000_000_i64 + n)).collect();
    let answer = first.post("/api/readings", &format!("[{}]", items.join(",")));
    assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("redis")), "{}", answer.body);
    let stored = "SELECT count(*) AS n FROM readings";
    assert_eq!(database.number(stored), Some(0), "it waits");
    let stalls = Stalls::watch();
    first.kill();
    let died_us = database.now_us();
    let lease = database.taken_over(&format!("redis/{dead}"), &dead, died_us);
    second.wait_for("stored by the other", Duration::from_secs(120), |_| database.number(stored) == Some(50));
    let took = Duration::from_micros((database.now_us() - died_us).unsigned_abs());
    eprintln!(
        "lease taken {lease:?} after the death, all stored after {took:?}; the machine stood still for {:?}",
        stalls.so_far()
    );
    assert!(took <= WITHIN + stalls.so_far(), "{took:?}");
}

/// A receiver of webhooks that answers nothing while `deaf`; the ids of what it has answered.
fn receiver() -> (String, Arc<AtomicBool>, Arc<Mutex<BTreeSet<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let (deaf, heard) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<BTreeSet<String>>>::default());
    let (is_deaf, notes) = (deaf.clone(), heard.clone());
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut socket in listener.incoming().flatten() {
            if is_deaf.load(Ordering::Acquire) {
                held.push(socket);
                continue;
            }
            let notes = notes.clone();
            thread::spawn(move || {
                let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
                let (mut request, mut part) = (Vec::new(), [0; 4096]);
                // Alerts of the daemons' own come here too; only what the test has made says so.
                while !String::from_utf8_lossy(&request).contains("\"shared\"") {
                    match socket.read(&mut part) {
                        Ok(read @ 1..) => request.extend_from_slice(&part[..read]),
                        _ => return,
                    }
                }
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let id = text.lines().find_map(|line| line.strip_prefix("belayd-delivery-id: ")).unwrap_or_default();
                notes.lock().expect("no panic").insert(id.trim().to_owned());
                let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            });
        }
    });
    (url, deaf, heard)
}

#[test]
fn what_an_instance_that_is_killed_was_sending_is_sent_by_another_within_15_s() {
    const DELIVERIES: usize = 2;
    let Some(server) = server() else { return };
    let url = server.new_database("claims");
    let (hook, deaf, heard) = receiver();
    let start = || {
        let setup = Setup::with(&format!("[[webhooks]]\nname = \"hook\"\nurl = \"{hook}\"\n"));
        let daemon = setup.store(&url).start();
        let listed = |daemon: &Daemon| daemon.get("/admin/instances").body.contains("\"this\":true");
        daemon.wait_for("listed", Duration::from_secs(60), listed);
        daemon
    };
    let (mut first, second) = (start(), start());
    let mut database = Database::open(&url);
    // All of it is the first one's.
    second.signal(libc::SIGSTOP);
    let made = database.execute(&format!(
        "INSERT INTO deliveries (id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, updated_at_us) \
         SELECT 'd' || n, 'hook', 'lane' || n, 's' || n, '{{\"shared\":true}}', 'ready', 20, 0, 'resend', 0, 0 FROM generate_series(1, {DELIVERIES}) AS n"
    ));
    assert_eq!(made, DELIVERIES);
    let taken = "SELECT COALESCE(SUM(remaining), 0)::bigint AS n FROM delivery_claims WHERE sink = 'hook'";
    first.wait_for("taken by the first", Duration::from_secs(120), |_| database.number(taken) == Some(DELIVERIES as i64));
    let stalls = Stalls::watch();
    first.kill();
    let began = Instant::now();
    deaf.store(false, Ordering::Release);
    second.signal(libc::SIGCONT);
    second.wait_for("sent by the other", Duration::from_secs(120), |_| heard.lock().expect("no panic").len() == DELIVERIES);
    let took = began.elapsed();
    eprintln!("sent by another {took:?} after the death; the machine stood still for {:?}", stalls.so_far());
    assert!(took >= Duration::from_secs(2), "the claims hold while their lease does: {took:?}");
    assert!(took <= WITHIN + stalls.so_far(), "{took:?}");
}
