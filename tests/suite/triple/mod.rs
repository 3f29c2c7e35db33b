//! Tier triple against real servers: any one of journal, database and Redis is destroyed, and nothing that was acknowledged is missing.

mod compared;
mod destroyed;
mod room;
mod shared;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    redis::{Told, account, assert_whole, reading, run_for, state},
    support::{
        client::Client,
        daemon::{Daemon, Setup},
        postgres::{self, Postgres},
        redis::{self, Redis},
    },
};

/// Patience of a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(90);

fn on(server: &Redis) -> Setup {
    with(server, "")
}

fn with(server: &Redis, buffer: &str) -> Setup {
    Setup::with(&format!(
        "[buffer]\ntier = \"triple\"\nflush_interval = \"200ms\"\n{buffer}[redis]\nurl = \"{}\"\ntimeout = \"1s\"\n[supervision]\nhang_after = \"60s\"\n",
        server.url()
    ))
}

/// Both other media take what comes.
fn wait_whole(daemon: &Daemon) {
    daemon.wait_for("ready", LONG, |daemon| daemon.get("/readyz").json()["state"] == "ready");
    daemon.wait_for("up", LONG, |daemon| state(daemon) == "up");
    daemon.wait_for("looked back", LONG, |daemon| account(daemon)["redis"]["lookedBack"] == true);
}

fn wait_copied(daemon: &Daemon) {
    daemon.wait_for("copied", LONG, |daemon| account(daemon)["redis"]["uncopied"] == 0);
}

/// Waits for a number of acknowledgements.
fn wait_told(daemon: &Daemon, told: &Told, least: u64) {
    daemon.wait_for("acknowledged", LONG, |_| told.total() >= least);
}

fn sending(daemon: &Daemon, told: &Arc<Told>) -> impl FnOnce() + use<> {
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3).map(|_| told.send_while(&daemon.address, &daemon.token, &stop)).collect();
    move || {
        stop.store(true, Ordering::Release);
        senders.into_iter().for_each(|sender| sender.join().expect("the sender ends well"));
    }
}

#[test]
fn a_push_is_answered_by_the_database_and_has_its_copy_in_redis() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync always"]);
    let daemon = on(&server).start();
    wait_whole(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    let answer = client.post("/api/readings", &format!("[{},{}]", reading(1), reading(2)));
    assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("store")), "{answer:?}");
    let stream = answer.json()["receipt"]["stream"].as_str().expect("a stream").to_owned();
    for (level, n) in [("journal", 3), ("memory", 4), ("store", 5)] {
        assert_eq!(client.post(&format!("/api/readings?ack={level}"), &reading(n)).json()["ack"], level);
    }
    assert_eq!(client.post("/api/readings?ack=redis", &reading(6)).status, 400, "no level of this tier");
    assert_eq!(daemon.drained(), 5);
    wait_copied(&daemon);
    let key = format!("belayd:{{{stream}}}");
    assert!(server.ask::<u64>(&["XLEN", &key]) > 0);
    let look = account(&daemon);
    assert_eq!(
        (look["tier"].as_str(), look["ack"].as_str(), look["mayLoseCode"].as_str()),
        (Some("triple"), Some("store"), Some("triple"))
    );
    assert_eq!((look["difference"].as_i64(), look["total"]["accepted"].as_u64()), (Some(0), Some(5)), "{look:#}");
    assert_eq!(daemon.get(&format!("/api/receipts/{stream}/2")).json()["state"], "stored");
    let check = daemon.command(&["check", "--connect"]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("redis: OK, connected to 127.0.0.1:"), "{check:?}");
    assert!(daemon.metric("belayd_redis_bytes") > 0.0);
    assert_eq!(daemon.metric("belayd_redis_uncopied_readings"), 0.0);
}

#[test]
fn while_the_database_is_away_the_journal_answers_at_once_and_everything_is_stored_once_later() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let mut server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&[]);
    // Whoever waited for it would wait for longer than the test lasts.
    let daemon = with(&server, "ack_timeout = \"5m\"\n").store(&database.url("postgres")).start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 3, || wait_told(&daemon, &told, 100));
    assert_eq!(told.at("journal"), 0, "{}", daemon.log());
    database.crash();
    run_for(&daemon, &told, 3, || {
        daemon.wait_for("answered by the journal", LONG, |_| told.at("journal") >= 300);
    });
    assert_eq!(account(&daemon)["mayLoseCode"], "triple-no-store");
    // And without Redis too.
    server.kill();
    let before = told.at("journal");
    run_for(&daemon, &told, 3, || {
        daemon.wait_for("answered by the journal alone", LONG, |_| told.at("journal") >= before + 100);
        daemon.wait_for("said", LONG, |daemon| account(daemon)["mayLoseCode"] == "triple-journal");
    });
    server.restart();
    database.restart();
    wait_whole(&daemon);
    assert_whole(&daemon, &told);
    wait_copied(&daemon);
    assert_eq!(account(&daemon)["total"]["accepted"].as_u64(), Some(told.total()));
}

#[test]
fn a_redis_that_is_away_or_emptied_gets_its_copies_again() {
    if !redis::is_installed() {
        return;
    }
    let mut server = Redis::start(&["--appendfsync everysec"]);
    let daemon = on(&server).start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 3, || {
        wait_told(&daemon, &told, 100);
        server.kill();
        daemon.wait_for("down", LONG, |daemon| state(daemon) == "down");
        let before = told.total();
        wait_told(&daemon, &told, before + 100);
        server.restart();
        daemon.wait_for("up", LONG, |daemon| state(daemon) == "up");
        let before = told.total();
        wait_told(&daemon, &told, before + 100);
    });
    assert_eq!(told.at("store"), told.total(), "the database answers all the while");
    wait_copied(&daemon);
    let key = server.streams().pop().expect("a copy");
    let entries: u64 = server.ask(&["XLEN", &key]);
    server.ask::<()>(&["FLUSHALL"]);
    daemon.wait_for("copied again", LONG, |_| server.streams().contains(&key) && server.ask::<u64>(&["XLEN", &key]) == entries);
    assert!(!daemon.get("/api/alerts").body.contains("redis-data-lost"), "the journal held all of it");
    let client = Client::new(&daemon.address, &daemon.token);
    told.push(&client, 10);
    assert_whole(&daemon, &told);
}
