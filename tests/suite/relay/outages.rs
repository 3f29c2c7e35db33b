//! Kafka killed, restarted, halted, without its topic; what people see of it, and that it comes back by itself.

use std::time::{Duration, Instant};

use super::{backlog, body, push, relayed, setup};
use crate::support::{kafka::Kafka, reader::Reader};

#[test]
fn a_broker_that_is_killed_restarted_or_halted_costs_time_and_nothing_else() {
    let Some(mut kafka) = Kafka::start() else { return };
    let daemon = setup(&kafka, "timeout = \"1s\"").start();
    let reader = Reader::start(&kafka.client(), "engine");
    push(&daemon, &body(0, 100, 5), "?ack=relay");

    // Killed while readings come: they are taken and stored, the level that is reached is told.
    let mut next = 100;
    let more = |daemon: &_, next: &mut u64| {
        push(daemon, &body(*next, 100, 5), "");
        *next += 100;
    };
    for _ in 0..5 {
        more(&daemon, &mut next);
    }
    kafka.kill();
    for _ in 0..20 {
        more(&daemon, &mut next);
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = push(&daemon, &body(next, 100, 5), "?ack=relay");
    next += 100;
    assert_eq!(answer["ack"], "store", "{answer}");
    daemon.wait_for("told", Duration::from_secs(30), |daemon| daemon.metric("belayd_circuit_state{party=\"kafka\"}") > 0.0);
    assert!(backlog(&daemon) > 0);
    assert!(daemon.metric("belayd_outbox_backlog{sink=\"kafka\"}") > 0.0);
    daemon.wait_for("aged", Duration::from_secs(30), |daemon| {
        daemon.metric("belayd_outbox_oldest_age_seconds{sink=\"kafka\"}") > 1.0
    });
    daemon.wait_for("alarmed", Duration::from_secs(30), |daemon| {
        let alerts = daemon.get("/api/alerts").body;
        alerts.contains("sink-down") && alerts.contains("kafka")
    });
    let receipt = &answer["receipt"];
    let path = format!("/api/receipts/{}/{}", receipt["stream"].as_str().expect("a stream"), receipt["lastSeq"]);
    assert_eq!(daemon.get(&path).json()["relayed"], false);
    kafka.restart();
    let back = Instant::now();
    relayed(&daemon);
    // How soon is a figure of the benchmark; a machine that does much else takes its time to start a JVM.
    assert!(back.elapsed() < Duration::from_secs(180), "{:?}", back.elapsed());
    assert_eq!(daemon.get(&path).json()["relayed"], true);

    // Halted for longer than every time-out, in the middle of it.
    more(&daemon, &mut next);
    kafka.freeze(true);
    for _ in 0..10 {
        more(&daemon, &mut next);
        std::thread::sleep(Duration::from_millis(500));
    }
    kafka.freeze(false);
    for _ in 0..5 {
        more(&daemon, &mut next);
    }
    relayed(&daemon);

    // Restarted in order.
    more(&daemon, &mut next);
    kafka.restart();
    more(&daemon, &mut next);
    relayed(&daemon);
    reader.wait_for(next as usize, Duration::from_secs(30));
    assert_eq!(reader.count() as u64, next);
    assert!(reader.by_number().values().all(|count| *count == 1));
    reader.check_order();
    // Those too of which Kafka had committed the run, and nobody had heard of it.
    daemon.wait_for("counted", Duration::from_secs(60), |daemon| {
        let counted = daemon.metric("belayd_readings_relayed_total");
        assert!(counted <= next as f64, "{counted} of {next}");
        counted == next as f64
    });
    daemon.wait_for("over", Duration::from_secs(20), |daemon| {
        daemon.metric("belayd_circuit_state{party=\"kafka\"}") == 0.0
            && daemon.get("/api/alerts").json()["items"].as_array().is_some_and(|all| {
                all.iter().filter(|alert| alert["name"] == "sink-down").all(|alert| alert["state"] == "resolved")
            })
    });
    assert!(
        daemon.metric("belayd_send_failures_total{sink=\"kafka\",type=\"connect\"}")
            + daemon.metric("belayd_send_failures_total{sink=\"kafka\",type=\"timeout\"}")
            > 0.0
    );
}

#[test]
fn a_topic_that_is_missing_is_told_and_growth_moves_no_engine() {
    let Some(kafka) = Kafka::start() else { return };
    let daemon = setup(&kafka, "create_topic = false").start();
    push(&daemon, &body(0, 100, 40), "?ack=store");
    daemon.wait_for("told", Duration::from_secs(30), |daemon| daemon.get("/api/alerts").body.contains("create_topic"));
    assert!(daemon.metric("belayd_send_failures_total{sink=\"kafka\",type=\"unknown_topic\"}") >= 1.0);
    kafka.create_topic("engine", 2);
    let reader = Reader::start(&kafka.client(), "engine");
    // It is tried again every 30 s.
    reader.wait_for(100, Duration::from_secs(45));
    relayed(&daemon);
    let before: std::collections::HashMap<_, _> =
        reader.records().into_iter().map(|record| (record.key, record.partition)).collect();

    kafka.grow_topic("engine", 12);
    daemon.wait_for("noticed", Duration::from_secs(60), |daemon| {
        // The number is looked at between runs.
        push(daemon, &body(0, 1, 1), "?ack=store");
        daemon.metric("belayd_relay_partitions") == 12.0
    });
    push(&daemon, &body(1_000, 200, 80), "?ack=relay");
    reader.wait_for(300, Duration::from_secs(30));
    reader.check_order();
    let records = reader.records();
    assert!(records.iter().all(|record| before.get(&record.key).is_none_or(|partition| *partition == record.partition)));
    assert!(records.iter().any(|record| record.partition >= 2), "new engines use the new partitions");
    assert!(daemon.log().contains("another number of partitions"));
}

#[test]
fn what_kafka_has_forgotten_is_left_for_a_person() {
    let Some(mut kafka) = Kafka::start() else { return };
    let mut daemon = setup(&kafka, "timeout = \"1s\"").start();
    let stream = push(&daemon, &body(0, 10, 2), "?ack=relay")["receipt"]["stream"].as_str().expect("a stream").to_owned();
    relayed(&daemon);
    // A run is under way when Kafka goes; then belayd goes too, and Kafka forgets the stream.
    kafka.freeze(true);
    push(&daemon, &body(10, 10, 2), "?ack=store");
    daemon.wait_for("sending", Duration::from_secs(20), |daemon| daemon.get("/admin/outbox").json()["sending"] != 0);
    daemon.kill();
    kafka.freeze(false);
    std::thread::sleep(Duration::from_secs(1));
    kafka.restart();
    kafka.forget_group(&format!("belayd-{stream}"));
    daemon.start_again();
    daemon.wait_for("uncertain", Duration::from_secs(30), |daemon| daemon.get("/admin/outbox").json()["uncertain"] == 1);
    daemon.wait_for("told", Duration::from_secs(30), |daemon| daemon.get("/api/alerts").body.contains("delivery-failed"));
    let failure = daemon.get("/admin/failures?kind=delivery").json()["items"][0].clone();
    assert_eq!((&failure["sink"], &failure["errorCode"]), (&"kafka".into(), &"outcome_forgotten".into()), "{failure}");
    assert_eq!((&failure["payload"]["rows"], &failure["payload"]["stream"]), (&10.into(), &stream.clone().into()), "{failure}");
    // It does not hold up what comes later, and goes again when a person says so.
    push(&daemon, &body(20, 10, 2), "?ack=relay");
    let id = failure["id"].as_str().expect("an id");
    let answer = daemon.request(
        "PATCH",
        &format!("/admin/failures/{id}/retry"),
        &[("Content-Type", "application/json")],
        r#"{"reason":"not there"}"#,
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    relayed(&daemon);
    let reader = Reader::start(&kafka.client(), "engine");
    reader.wait_for(30, Duration::from_secs(20));
    assert!(reader.by_number().values().all(|count| *count == 1));
}

#[test]
fn readings_that_wait_for_kafka_wait_in_the_database_and_not_in_memory() {
    let Some(mut kafka) = Kafka::start() else { return };
    let daemon = setup(&kafka, "timeout = \"1s\"").start();
    push(&daemon, &body(0, 1_000, 50), "?ack=relay");
    relayed(&daemon);
    let (before, _) = daemon.memory();
    kafka.kill();
    let mut most = 0;
    for n in 1..=100 {
        push(&daemon, &body(n * 1_000, 1_000, 50), "?ack=store");
        most = most.max(daemon.memory().0);
    }
    // 100,000 readings are 6 MB as they wait, and 25 MB as records.
    assert!(most < before + 12_000_000, "{before} bytes before, {most} at most");
    kafka.restart();
    let reader = Reader::start(&kafka.client(), "engine");
    while reader.count() < 101_000 {
        most = most.max(daemon.memory().0);
        std::thread::sleep(Duration::from_millis(20));
        assert!(daemon.log().len() < 1_000_000);
    }
    relayed(&daemon);
    // Each producer's queue holds 4 MB and 8,192 records.
    assert!(most < before + 32_000_000, "{before} bytes before, {most} at most while it caught up");
    assert!(reader.by_number().values().all(|count| *count == 1));
}

#[test]
fn a_dead_reading_that_a_person_retries_is_relayed() {
    let Some(kafka) = Kafka::start() else { return };
    let Some(server) = super::server() else { return };
    let database = server.new_database("dead");
    let daemon = setup(&kafka, "").store(&database).start();
    push(&daemon, &body(0, 10, 2), "?ack=relay");
    crate::support::rows::execute(&database, "ALTER TABLE readings ADD CONSTRAINT cold CHECK (temperature < 15) NOT VALID");
    let receipt = push(&daemon, &body(10, 10, 2), "?ack=relay")["receipt"].clone();
    let reader = Reader::start(&kafka.client(), "engine");
    reader.wait_for(15, Duration::from_secs(30));
    assert_eq!(reader.count(), 15, "what the database never takes is not relayed");
    let path = format!("/api/receipts/{}/{}", receipt["stream"].as_str().expect("a stream"), receipt["lastSeq"]);
    let dead = daemon.get(&path).json();
    assert_eq!((&dead["state"], &dead["relayed"]), (&"dead".into(), &false.into()));
    crate::support::rows::execute(&database, "ALTER TABLE readings DROP CONSTRAINT cold");
    let answer = daemon.post("/admin/failures/redrive", r#"{"reason":"mended","kind":"reading"}"#);
    assert_eq!(answer.json()["redriven"], 5, "{}", answer.body);
    reader.wait_for(20, Duration::from_secs(30));
    relayed(&daemon);
    assert!(reader.by_number().values().all(|count| *count == 1));
    let stored = daemon.get(&path).json();
    assert_eq!((&stored["state"], &stored["relayed"]), (&"stored".into(), &true.into()));
}

#[test]
fn a_broker_that_stays_away_misses_the_level_of_the_outbox_until_what_waited_is_relayed() {
    let Some(mut kafka) = Kafka::start() else { return };
    let mut setup = setup(&kafka, "timeout = \"1s\"");
    setup.more.push_str("[recovery]\noutbox_within = \"500ms\"\n");
    let daemon = setup.start();
    let reader = Reader::start(&kafka.client(), "engine");
    push(&daemon, &body(0, 100, 5), "?ack=relay");
    let late = |daemon: &crate::support::daemon::Daemon| crate::recovery::is_late(daemon, "outbox");
    assert!(!late(&daemon));
    kafka.kill();
    push(&daemon, &body(100, 100, 5), "?ack=store");
    daemon.wait_for("told that it is late", Duration::from_secs(120), late);
    let waited = daemon.get("/api/state").json()["recovery"]["outboxS"].as_f64();
    assert!(waited.is_some_and(|seconds| seconds > 0.5), "{waited:?}");
    kafka.restart();
    relayed(&daemon);
    daemon.wait_for("over", Duration::from_secs(120), |daemon| !late(daemon));
    reader.wait_for(200, Duration::from_secs(60));
    assert!(reader.by_number().values().all(|count| *count == 1));
}
