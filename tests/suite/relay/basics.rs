//! What is relayed, how it looks, and who is told.

use std::{collections::HashSet, time::Duration};

use super::{body, databases, push, relayed, setup};
use crate::support::{kafka::Kafka, reader::Reader, rows};

#[test]
fn every_stored_reading_is_relayed_once_as_the_api_shows_it() {
    let Some(kafka) = Kafka::start() else { return };
    for (nth, (database, _server)) in databases().iter().enumerate() {
        let topic = format!("engine-{nth}");
        let mut setup = setup(&kafka, "").store(database);
        setup.more = setup.more.replace("\"engine\"", &format!("\"{topic}\""));
        let daemon = setup.start();
        let reader = Reader::start(&kafka.client(), &topic);
        // Asked for: told when Kafka has it.
        let answer = push(&daemon, &body(0, 300, 7), "?ack=relay");
        assert_eq!(answer["ack"], "relay", "{answer}");
        // Some are there already, with the same values and with others.
        push(&daemon, &body(100, 300, 7), "");
        push(&daemon, &body(100, 1, 7).replace("\"temperature\":100", "\"temperature\":-1"), "?ack=store");
        relayed(&daemon);
        reader.wait_for(400, Duration::from_secs(20));
        let records = reader.records();
        assert_eq!(records.len(), 400, "duplicates and conflicts are not relayed");
        assert!(reader.by_number().values().all(|count| *count == 1));
        reader.check_order();

        // A record is what the API answers with, under the engine's key, with its number.
        let rows = daemon.get("/api/readings?limit=1000").json()["items"].as_array().expect("items").clone();
        assert_eq!(rows.len(), 400);
        for record in &records {
            let value = record.json();
            assert!(rows.contains(&value), "{value}");
            assert_eq!(value["engineId"], record.key.as_str());
            assert!((0..3).contains(&record.partition));
            let receipt = daemon.get(&format!("/api/receipts/{}/{}", record.stream, record.seq)).json();
            assert_eq!((&receipt["state"], &receipt["relayed"]), (&"stored".into(), &true.into()), "{record:?}");
        }
        // The header names the delivery that it went by.
        if nth == 0 {
            let ids: HashSet<String> = records.iter().map(|record| format!("'{}'", record.delivery)).collect();
            let list = ids.iter().cloned().collect::<Vec<_>>().join(", ");
            let text = format!("SELECT count(*) AS n FROM deliveries WHERE sink = 'kafka' AND state = 'sent' AND id IN ({list})");
            let named = rows::number(&daemon.dir().join("belayd.db"), &text);
            assert!(named > 0 && named as usize == ids.len(), "{named} of {list}");
        }
        let stream = answer["receipt"]["stream"].as_str().expect("a stream");
        let duplicate = daemon.get(&format!("/api/receipts/{stream}/301")).json();
        if duplicate["state"] == "duplicate" {
            assert_eq!(duplicate["relayed"], false);
        }
        assert_eq!(daemon.metric("belayd_readings_relayed_total"), 400.0);
        // It is counted once a second.
        daemon.wait_for("counted", Duration::from_secs(20), |daemon| daemon.metric("belayd_outbox_backlog{sink=\"kafka\"}") == 0.0);
        assert_eq!(daemon.metric("belayd_circuit_state{party=\"kafka\"}"), 0.0);
        assert_eq!(daemon.metric("belayd_relay_partitions"), 3.0);
        assert!(daemon.metric("belayd_relay_latency_seconds_count") >= 1.0);
        let check = daemon.command(&["check", "--connect"]);
        let told = String::from_utf8_lossy(&check.stdout);
        assert!(told.contains(&format!("kafka: OK, topic \"{topic}\" has 3 partitions")), "{told}");
        // All of them duplicates: nothing is left to relay, so the answer need not wait.
        let again = push(&daemon, &body(0, 300, 7), "?ack=relay");
        assert_eq!(again["ack"], "relay", "{again}");
        // The last ones are repeats, and nothing comes behind them.
        let (new, old) = (body(400, 5, 7), body(0, 5, 7));
        let mixed = push(&daemon, &format!("{},{}", new.trim_end_matches(']'), old.trim_start_matches('[')), "?ack=relay");
        assert_eq!(mixed["ack"], "relay", "{mixed}");
    }
}

#[test]
fn without_a_relay_its_level_is_refused_and_nothing_is_kept_for_it() {
    let daemon = crate::support::daemon::Setup::default().start();
    let answer = daemon.post("/api/readings?ack=relay", &body(0, 1, 1));
    assert_eq!((answer.status, answer.code().as_str()), (400, "ack_level_unavailable"), "{}", answer.body);
    assert!(!answer.body.contains("relay\\\"."), "{}", answer.body);
    push(&daemon, &body(0, 10, 1), "?ack=store");
    let shown = daemon.get("/admin/outbox").json();
    assert!(shown["sinks"].as_array().expect("sinks").iter().all(|sink| sink["name"] != "kafka"), "{shown}");
    assert_eq!(shown["ready"], 0);
}
