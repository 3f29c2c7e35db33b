//! Tier redis against real servers: what is acknowledged is stored once, whatever becomes of Redis, the database and belayd meanwhile.

pub(crate) mod compared;
mod loss;
mod measured;
mod others;
mod replicas;
pub(crate) mod room;
mod secured;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ::redis as library;
use serde_json::Value;

use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
    redis::{self, Redis},
};

fn setup(redis: &str) -> Setup {
    Setup::with(&format!(
        "[buffer]\ntier = \"redis\"\nflush_interval = \"200ms\"\n[redis]\n{redis}timeout = \"500ms\"\n[supervision]\nhang_after = \"30s\"\n"
    ))
}

fn on(server: &Redis) -> Setup {
    setup(&format!("url = \"{}\"\n", server.url()))
}

pub(crate) fn state(daemon: &Daemon) -> String {
    daemon.get("/admin/buffer").json()["redis"]["state"].as_str().unwrap_or_default().to_owned()
}

fn wait_up(daemon: &Daemon) {
    daemon.wait_for("up", Duration::from_secs(30), |daemon| state(daemon) == "up");
    if daemon.get("/readyz").json()["checks"]["store"] == "ok" {
        daemon.wait_for("looked back", Duration::from_secs(15), |daemon| account(daemon)["redis"]["lookedBack"] == true);
    }
}

/// What senders were told: by acknowledgement level, how many readings.
#[derive(Default)]
pub(crate) struct Told {
    next: Mutex<i64>,
    acks: Mutex<BTreeMap<String, u64>>,
    /// Numbers of acknowledged readings: each is one engine and time.
    acknowledged: Mutex<Vec<i64>>,
    /// Longest time between two acknowledgements of one sender.
    slowest: Mutex<Duration>,
}

impl Told {
    /// Sends pushes of ten until told to stop; a push without an answer is sent again as it was, until it is acknowledged.
    pub(crate) fn send_while(self: &Arc<Self>, address: &str, token: &str, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
        let (told, stop) = (self.clone(), stop.clone());
        let client = Client::new(address, token);
        thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                told.push(&client, 10);
            }
        })
    }

    pub(crate) fn push(&self, client: &Client, rows: i64) {
        let from = {
            let mut next = self.next.lock().expect("no panic");
            *next += rows;
            *next - rows
        };
        let items: Vec<_> = (from..from + rows).map(reading).collect();
        let body = format!("[{}]", items.join(","));
        let began = std::time::Instant::now();
        loop {
            let answer = client.post("/api/readings", &body);
            if answer.status == 202 {
                let answer = answer.json();
                assert_eq!(answer["accepted"], rows);
                let ack = answer["ack"].as_str().expect("a level").to_owned();
                *self.acks.lock().expect("no panic").entry(ack).or_default() += rows as u64;
                self.acknowledged.lock().expect("no panic").extend(from..from + rows);
                let mut slowest = self.slowest.lock().expect("no panic");
                *slowest = began.elapsed().max(*slowest);
                return;
            }
            assert!(matches!(answer.status, 0 | 503), "{answer:?}");
            assert!(began.elapsed() < Duration::from_secs(60), "no acknowledgement: {answer:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.acks.lock().expect("no panic").values().sum()
    }

    pub(crate) fn at(&self, level: &str) -> u64 {
        self.acks.lock().expect("no panic").get(level).copied().unwrap_or(0)
    }
}

pub(crate) fn reading(n: i64) -> String {
    format!(r#"{{"engineId":"e{}","timestamp":{},"temperature":300}}"#, n % 50, 1_700_000_000_000_i64 + n)
}

/// Every acknowledged reading is stored once: the table has one row for each.
pub(crate) fn stored(daemon: &Daemon) -> Vec<i64> {
    let mut all = Vec::new();
    for engine in 0..50 {
        let mut cursor = String::new();
        loop {
            let answer = daemon.get(&format!("/api/readings?engineId=e{engine}&limit=1000{cursor}"));
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.json();
            for item in page["items"].as_array().expect("a list") {
                let at = item["timestamp"].as_str().expect("a time");
                all.push(at.to_owned());
            }
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    all.iter().map(|at| millis(at) - 1_700_000_000_000).collect()
}

fn millis(at: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(at).expect("RFC 3339").timestamp_millis()
}

pub(crate) fn account(daemon: &Daemon) -> Value {
    daemon.get("/admin/buffer").json()
}

/// Everything acknowledged is stored, once, and the account adds up.
pub(crate) fn assert_whole(daemon: &Daemon, told: &Told) {
    daemon.drained();
    let mut acknowledged = told.acknowledged.lock().expect("no panic").clone();
    acknowledged.sort_unstable();
    acknowledged.dedup();
    let mut there = stored(daemon);
    there.sort_unstable();
    let rows = there.len();
    there.dedup();
    assert_eq!(rows, there.len(), "stored once");
    let missing: Vec<_> = acknowledged.iter().filter(|n| there.binary_search(n).is_err()).collect();
    assert!(
        missing.is_empty(),
        "{} acknowledged readings are missing, for example {:?}",
        missing.len(),
        &missing[..missing.len().min(5)]
    );
    let look = account(daemon);
    assert_eq!(look["difference"], 0, "{look:#}");
    assert_eq!(look["total"]["lost"], 0, "{look:#}");
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
}

pub(crate) fn run_for(daemon: &Daemon, told: &Arc<Told>, senders: usize, during: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..senders).map(|_| told.send_while(&daemon.address, &daemon.token, &stop)).collect();
    during();
    stop.store(true, Ordering::Release);
    threads.into_iter().for_each(|thread| thread.join().expect("the sender ends well"));
}

fn lost(daemon: &Daemon) -> u64 {
    account(daemon)["total"]["lost"].as_u64().unwrap_or(0)
}

#[test]
fn what_redis_acknowledges_is_stored_once_and_stays_there_for_a_while() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync always"]);
    let daemon = on(&server).start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    let answer = client.post("/api/readings", &format!("[{},{}]", reading(1), reading(2)));
    assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("redis")), "{answer:?}");
    let receipt = answer.json()["receipt"].clone();
    let stream = receipt["stream"].as_str().expect("a stream").to_owned();
    assert_eq!((receipt["firstSeq"].as_u64(), receipt["lastSeq"].as_u64()), (Some(1), Some(2)));
    let journal = client.post("/api/readings?ack=journal", &reading(3));
    assert_eq!(journal.json()["ack"], "journal", "who asks for this host's disk gets it");
    let store = client.post("/api/readings?ack=store", &reading(4));
    assert_eq!(store.json()["ack"], "store");
    assert_eq!(store.json()["receipt"]["stream"], stream.as_str());
    assert_eq!(daemon.drained(), 4);
    assert_eq!(daemon.get(&format!("/api/receipts/{stream}/2")).json()["state"], "stored");
    assert_eq!(daemon.get(&format!("/api/receipts/{stream}/9")).json()["state"], "unknown");

    // Kept, and acknowledged in the group.
    let key = format!("belayd:{{{stream}}}");
    assert_eq!(server.ask::<u64>(&["XLEN", &key]), 2);
    let pending: Vec<library::Value> = server.ask(&["XPENDING", &key, "belayd"]);
    assert_eq!(pending[0], library::Value::Int(0), "{pending:?}");
    let look = account(&daemon);
    assert!(look["mayLose"].as_str().expect("words").contains("nothing that was acknowledged"), "{look:#}");
    assert_eq!((look["tier"].as_str(), look["ack"].as_str()), (Some("redis"), Some("redis")));
    assert_eq!(look["redis"]["facts"]["appendFsync"], "always");
    assert_eq!(look["difference"], 0);
    assert_eq!(daemon.get("/readyz").json()["checks"]["redis"], "ok");
    assert_eq!(daemon.metric("belayd_circuit_state{party=\"redis\"}"), 0.0);
    let status = daemon.command(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("redis     127.0.0.1:") && said.contains(" is up, "), "{said}");
}

#[test]
fn a_redis_that_keeps_nothing_is_acknowledged_as_memory() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendonly no"]);
    let daemon = on(&server).start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings", &reading(1)).json()["ack"], "memory");
    let look = account(&daemon);
    assert!(look["mayLose"].as_str().expect("words").contains("appendonly is off"), "{look:#}");
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| daemon.get("/api/alerts").body.contains("redis-forgets"));
    let check = daemon.command(&["check", "--connect"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("redis: OK, connected to 127.0.0.1:") && said.contains("appendonly is off"), "{said}");
}

#[test]
fn a_killed_redis_costs_nothing_and_is_used_again_when_it_is_back() {
    if !redis::is_installed() {
        return;
    }
    let mut server = Redis::start(&["--appendfsync everysec"]);
    let daemon = on(&server).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 4, || {
        thread::sleep(Duration::from_millis(700));
        server.kill();
        daemon.wait_for("down", Duration::from_secs(5), |daemon| state(daemon) == "down");
        assert_eq!(daemon.get("/readyz").json()["checks"]["redis"], "away");
        thread::sleep(Duration::from_millis(700));
        server.restart();
        wait_up(&daemon);
        thread::sleep(Duration::from_millis(700));
    });
    assert!(told.at("redis") > 0 && told.at("journal") > 0, "{:?}", told.acks.lock());
    assert_whole(&daemon, &told);
    let look = account(&daemon);
    assert_eq!(look["total"]["accepted"].as_u64(), Some(told.total()), "each is counted once, where its receipt is from");
    assert_eq!(daemon.metric("belayd_readings_accepted_total") as u64, told.total());
}

#[test]
fn a_paused_redis_is_left_alone_within_the_time_out() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let daemon = on(&server).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 4, || {
        thread::sleep(Duration::from_millis(500));
        server.freeze(true);
        thread::sleep(Duration::from_secs(3));
        server.freeze(false);
        wait_up(&daemon);
        thread::sleep(Duration::from_millis(500));
    });
    assert!(told.at("redis") > 0 && told.at("journal") > 0, "{:?}", told.acks.lock());
    assert!(*told.slowest.lock().expect("no panic") < Duration::from_secs(15), "{:?}", told.slowest.lock());
    assert_whole(&daemon, &told);
    assert_eq!(account(&daemon)["total"]["accepted"].as_u64(), Some(told.total()));
}

#[test]
fn what_waits_in_redis_when_belayd_is_killed_is_drained_by_the_next_run() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&["fsync=off"]);
    let mut daemon = on(&server).store(&database.url("postgres")).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    for round in 0..3 {
        database.crash();
        run_for(&daemon, &told, 2, || thread::sleep(Duration::from_millis(400)));
        // In the middle of traffic, whose outcome is unknown then and which is sent again.
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..2).map(|_| told.send_while(&daemon.address, &daemon.token, &stop)).collect();
        thread::sleep(Duration::from_millis(200));
        daemon.kill();
        if round == 1 {
            database.restart();
        }
        daemon.start_again();
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Release);
        senders.into_iter().for_each(|sender| sender.join().expect("the sender ends well"));
        if round != 1 {
            database.restart();
        }
        wait_up(&daemon);
    }
    assert!(told.at("redis") > 100, "{:?}", told.acks.lock());
    daemon.wait_for("ready", Duration::from_secs(30), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    wait_up(&daemon);
    assert_whole(&daemon, &told);
}
