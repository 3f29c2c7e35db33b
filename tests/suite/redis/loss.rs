//! What Redis loses, refuses or has kept: told, counted, made good where a second copy is left.

use std::{sync::Arc, thread, time::Duration};

use super::*;

#[test]
fn what_redis_loses_is_told_and_counted() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let mut server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&["fsync=off"]);
    let daemon = on(&server).store(&database.url("postgres")).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 2, || thread::sleep(Duration::from_millis(300)));
    daemon.drained();
    let safe = told.total();
    database.crash();
    run_for(&daemon, &told, 2, || thread::sleep(Duration::from_millis(300)));
    let unsettled = told.total() - safe;
    assert_eq!(told.at("redis"), told.total());
    server.ask::<()>(&["FLUSHALL"]);
    // The next push finds that its stream is gone, and goes to the journal.
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings", &reading(900_001)).json()["ack"], "journal");
    wait_up(&daemon);
    assert_eq!(client.post("/api/readings", &reading(900_002)).json()["ack"], "redis");
    database.restart();
    daemon.wait_for("told", Duration::from_secs(30), |daemon| lost(daemon) == unsettled);
    daemon.drained();
    let look = account(&daemon);
    assert_eq!((look["difference"].as_i64(), look["total"]["stored"].as_u64()), (Some(0), Some(safe + 2)), "{look:#}");
    assert_eq!(daemon.get("/readyz").json()["checks"]["loss"], "lost");
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| daemon.get("/api/alerts").body.contains("redis-data-lost"));
    assert_eq!(daemon.metric("belayd_readings_lost_total{reason=\"restored\"}") as u64, unsettled);

    // The same where its data is gone with it.
    server.kill();
    server.delete_data();
    server.restart();
    daemon.wait_for("used again", Duration::from_secs(20), |_| {
        client.post("/api/readings", &reading(900_003)).json()["ack"] == "redis"
    });
    daemon.drained();
    assert_eq!((account(&daemon)["difference"].as_i64(), lost(&daemon)), (Some(0), unsettled), "what was settled is not lost");
}

#[test]
fn what_was_flushed_while_belayd_was_down_is_told_at_the_next_start() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&[]);
    let mut database = Postgres::start(&[]);
    let mut daemon = on(&server).store(&database.url("postgres")).start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings?ack=store", &reading(1)).json()["ack"], "store");
    assert_eq!(daemon.stop().code(), Some(0));
    daemon.start_again();
    wait_up(&daemon);
    thread::sleep(Duration::from_secs(2));
    assert!(!daemon.log().contains("Redis has lost"), "an orderly restart loses nothing");
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings?ack=store", &reading(2)).json()["ack"], "store");
    database.crash();
    assert_eq!(client.post("/api/readings", &reading(3)).json()["ack"], "redis");
    daemon.kill();
    server.ask::<()>(&["FLUSHALL"]);
    database.restart();
    daemon.start_again();
    daemon.wait_for("told", Duration::from_secs(20), |daemon| daemon.get("/api/alerts").body.contains("redis-data-lost"));
    assert!(daemon.log().contains("Redis has lost readings"), "{}", daemon.log());
    assert_eq!(account(&daemon)["difference"], 0);
}

#[test]
fn a_redis_without_memory_left_is_drained_by_the_next_start() {
    let Some((server, mut database, mut daemon, told)) = full_redis() else { return };
    daemon.kill();
    // Not a byte of room: nothing can be sealed, and no group begun.
    let used = used_memory(&server);
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", &(used - 100_000).to_string()]);
    database.restart();
    daemon.start_again();
    wait_up(&daemon);
    assert_whole(&daemon, &told);
    let client = Client::new(&daemon.address, &daemon.token);
    told.push(&client, 10);
    daemon.wait_for("taken again", Duration::from_secs(10), |daemon| account(daemon)["redis"]["state"] == "up");
}

/// A Redis that is full of what a database which is away has not taken, and what senders were told.
fn full_redis() -> Option<(Redis, Postgres, Daemon, Arc<Told>)> {
    if !redis::is_installed() || !postgres::is_installed() {
        return None;
    }
    let server = Redis::start(&["--maxmemory 3mb", "--maxmemory-policy noeviction"]);
    let mut database = Postgres::start(&["fsync=off"]);
    let mut setup = on(&server).store(&database.url("postgres"));
    setup.more = setup.more.replace("timeout", "keep = \"0\"\ntimeout");
    let daemon = setup.start();
    wait_up(&daemon);
    database.crash();
    let told = Arc::new(Told::default());
    let client = Client::new(&daemon.address, &daemon.token);
    for _ in 0..200 {
        told.push(&client, 1_000);
        if told.at("journal") > 3_000 {
            break;
        }
    }
    assert!(told.at("redis") > 10_000 && told.at("journal") > 3_000, "{:?}", told.acks.lock());
    Some((server, database, daemon, told))
}

/// Bytes that Redis says it uses.
fn used_memory(server: &Redis) -> u64 {
    let info = server.ask::<String>(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    used.and_then(|used| used.trim().parse().ok()).expect("Redis tells its memory")
}

#[test]
fn a_redis_without_memory_left_hands_over_to_the_journal_and_takes_over_again() {
    let Some((server, mut database, daemon, told)) = full_redis() else { return };
    let client = Client::new(&daemon.address, &daemon.token);
    let cause = account(&daemon)["redis"]["cause"].as_str().unwrap_or_default().to_owned();
    assert!(cause.contains("OOM"), "{cause}");
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| daemon.get("/api/alerts").body.contains("redis-down"));
    // Beyond its bound by a lot: not even an empty group finds room.
    let used = used_memory(&server);
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", &(used - 100_000).to_string()]);
    database.restart();
    wait_up(&daemon);
    assert_whole(&daemon, &told);
    told.push(&client, 10);
    assert_eq!(account(&daemon)["redis"]["state"], "up");
    daemon.wait_for("room again", Duration::from_secs(20), |_| used_memory(&server) < 2_500_000);
}

#[test]
fn what_has_been_kept_long_enough_leaves_redis_and_a_database_put_back_is_filled_from_it() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&[]);
    let mut setup = on(&server);
    setup.more = setup.more.replace("timeout", "keep = \"1s\"\ntimeout");
    let daemon = setup.start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    let answer = client.post("/api/readings?ack=store", &reading(1)).json();
    let key = format!("belayd:{{{}}}", answer["receipt"]["stream"].as_str().expect("a stream"));
    assert!(daemon.metric("belayd_redis_bytes") > 0.0);
    daemon.wait_for("trimmed", Duration::from_secs(20), |_| server.ask::<u64>(&["XLEN", &key]) == 0);
    assert_eq!(daemon.metric("belayd_redis_bytes"), 0.0);
    drop(daemon);

    // Kept for a day: the database is put back to where it was, and Redis has what it lacks.
    let mut daemon = on(&server).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    let client = Client::new(&daemon.address, &daemon.token);
    told.push(&client, 10);
    daemon.drained();
    assert_eq!(daemon.stop().code(), Some(0));
    for file in ["belayd.db", "belayd.db-wal", "belayd.db-shm"] {
        let (from, to) = (daemon.dir().join(file), daemon.dir().join(format!("{file}.before")));
        if from.exists() {
            std::fs::copy(from, to).expect("a copy");
        }
    }
    daemon.start_again();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    for _ in 0..20 {
        told.push(&client, 10);
    }
    assert_eq!(told.at("redis"), 210);
    daemon.drained();
    assert_eq!(daemon.stop().code(), Some(0));
    for file in ["belayd.db", "belayd.db-wal", "belayd.db-shm"] {
        let (from, to) = (daemon.dir().join(format!("{file}.before")), daemon.dir().join(file));
        let _ = std::fs::remove_file(&to);
        if from.exists() {
            std::fs::copy(from, to).expect("a copy");
        }
    }
    daemon.start_again();
    wait_up(&daemon);
    daemon.wait_for("filled", Duration::from_secs(30), |daemon| stored(daemon).len() == 210);
    assert_whole(&daemon, &told);
}
