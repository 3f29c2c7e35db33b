//! The integrity check over the relay's deliveries, through the whole daemon: silent while all is well, loud when a row is gone.

use std::time::Duration;

use super::{body, push, relayed, setup};
use crate::{
    integrity::{alter, check},
    support::{kafka::Kafka, reader::Reader},
};

#[test]
fn a_delivery_that_vanishes_is_told_and_a_relay_that_is_whole_is_not() {
    let Some(kafka) = Kafka::start() else { return };
    let daemon = setup(&kafka, "timeout = \"1s\"").start();
    let reader = Reader::start(&kafka.client(), "engine");
    push(&daemon, &body(0, 100, 5), "?ack=relay");
    // Duplicates and a batch of nothing but them.
    push(&daemon, &body(50, 100, 5), "?ack=relay");
    push(&daemon, &body(0, 10, 5), "?ack=store");
    relayed(&daemon);
    reader.wait_for(150, Duration::from_secs(60));
    let found = check(&daemon);
    assert_eq!((&found["deliveryFaults"], &found["missing"], &found["ledgerFaults"]), (&0.into(), &0.into(), &0.into()), "{found}");
    assert_eq!(found["deliveries"], 2, "{found}");

    // While Kafka is away one that waits is gone, and nobody would ever send its readings.
    kafka.freeze(true);
    push(&daemon, &body(1_000, 10, 5), "?ack=store");
    push(&daemon, &body(2_000, 10, 5), "?ack=store");
    let clean = check(&daemon);
    assert_eq!((&clean["deliveryFaults"], &clean["deliveries"]), (&0.into(), &4.into()), "what waits is no fault: {clean}");
    let last = "(SELECT max(seq) FROM deliveries WHERE sink = 'kafka' AND state <> 'sent')";
    alter(
        &daemon,
        &format!(
            "DELETE FROM delivery_bodies WHERE delivery_id = (SELECT id FROM deliveries WHERE seq = {last}); DELETE FROM deliveries WHERE seq = {last}"
        ),
    );
    let found = check(&daemon);
    assert_eq!(found["deliveryFaults"], 1, "{found}");
    assert!(found["faults"][0].as_str().is_some_and(|words| words.contains("the delivery to Kafka of stream")), "{found}");
    assert_eq!(daemon.metric("belayd_integrity_delivery_faults"), 1.0);
    daemon.wait_for("alarmed", Duration::from_secs(60), |daemon| {
        let alerts = daemon.get("/api/alerts?name=integrity").json();
        alerts["items"].as_array().is_some_and(|all| all.iter().any(|alert| alert["state"] == "firing"))
    });
    kafka.freeze(false);
    reader.wait_for(160, Duration::from_secs(120));
}
