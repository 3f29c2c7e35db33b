//! Tier triple with others: a second instance takes over what a host that is gone had acknowledged, and the integrity check fills the
//! database from Redis. With a relay, so that each reading is counted in Kafka too.

use super::*;
use crate::{
    integrity::{alter, check},
    support::{kafka::Kafka, reader::Reader},
};

fn relayed_by(kafka: &Kafka, server: &Redis) -> Setup {
    let mut setup = on(server);
    setup.more.push_str(&format!("[kafka]\nbrokers = \"{}\"\npartitions = 2\nreplication = 1\n", kafka.brokers()));
    setup
}

/// Waits until so many readings are in Kafka, and says that each is there once.
fn once_in_kafka(daemon: &Daemon, reader: &Reader, readings: u64) {
    daemon.wait_for("relayed", LONG, |_| reader.count() as u64 >= readings);
    let mut keys: Vec<_> = reader
        .records()
        .into_iter()
        .map(|record| {
            let reading = record.json();
            (record.key, reading["timestamp"].to_string())
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((reader.count() as u64, keys.len() as u64), (readings, readings), "each reading once");
}

#[test]
fn a_second_instance_stores_and_relays_what_a_host_that_is_gone_for_good_had_acknowledged() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let Some(kafka) = Kafka::start() else { return };
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&[]);
    let setup = relayed_by(&kafka, &server).store(&database.url("postgres"));
    let (mut first, second) = (setup.start(), setup.start());
    let reader = Reader::start(&kafka.client(), "engine");
    wait_whole(&first);
    wait_whole(&second);
    let told = Arc::new(Told::default());
    run_for(&first, &told, 2, || wait_told(&first, &told, 100));
    database.crash();
    run_for(&first, &told, 2, || {
        first.wait_for("answered by the journal", LONG, |_| told.at("journal") >= 300);
    });
    wait_copied(&first);
    // The other takes readings all the while.
    let stop = sending(&second, &told);
    let before = told.total();
    wait_told(&second, &told, before + 100);
    // The host is gone, with its disk.
    first.kill();
    fs::remove_dir_all(first.dir().join("data")).expect("the directory can be deleted");
    database.restart();
    second
        .wait_for("taken over", LONG, |second| second.log().contains("an instance is dead; its streams in Redis are drained here"));
    let before = told.total();
    wait_told(&second, &told, before + 100);
    stop();
    second.wait_for("stored", LONG, |second| crate::redis::stored(second).len() as u64 >= told.total());
    assert_whole(&second, &told);
    once_in_kafka(&second, &reader, told.total());
}

#[test]
fn the_integrity_check_fills_the_database_from_redis_where_the_journal_is_gone() {
    if !redis::is_installed() {
        return;
    }
    let Some(kafka) = Kafka::start() else { return };
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut daemon = relayed_by(&kafka, &server).start();
    let reader = Reader::start(&kafka.client(), "engine");
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    let client = Client::new(&daemon.address, &daemon.token);
    for _ in 0..10 {
        told.push(&client, 10);
    }
    daemon.drained();
    wait_copied(&daemon);
    once_in_kafka(&daemon, &reader, 100);
    let key = server.streams().pop().expect("a copy");
    assert!(daemon.stop().success());
    fs::remove_dir_all(daemon.dir().join("data/journal")).expect("the journal can be deleted");
    daemon.start_again();
    wait_whole(&daemon);
    // Without its trigger nobody counts the deletion: it is damage, not a person's will.
    alter(&daemon, "DROP TRIGGER readings_removed; DELETE FROM readings WHERE observed_at_us % 10000 < 3000");
    let found = check(&daemon);
    assert_eq!((&found["restored"], &found["missing"]), (&30.into(), &0.into()), "{found}");
    assert_whole(&daemon, &told);

    // An entry is gone from the middle of the copy: what neither has is told, and the rest is filled.
    let entries: Vec<(String, ::redis::Value)> = server.ask(&["XRANGE", &key, "-", "+"]);
    assert_eq!(server.ask::<u64>(&["XDEL", &key, &entries[4].0]), 1);
    alter(&daemon, "DELETE FROM readings");
    let found = check(&daemon);
    assert_eq!((&found["restored"], &found["missing"]), (&90.into(), &10.into()), "{found}");
    daemon.wait_for("alarmed", LONG, |daemon| {
        let alerts = daemon.get("/api/alerts?name=integrity").json();
        alerts["items"].as_array().is_some_and(|all| all.iter().any(|alert| alert["state"] == "firing"))
    });
    // What was relayed is not relayed again.
    let client = Client::new(&daemon.address, &daemon.token);
    told.push(&client, 10);
    once_in_kafka(&daemon, &reader, 110);
}
