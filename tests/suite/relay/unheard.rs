//! Answers that nobody hears: of the database to a claim, of Kafka to a commit, and those that a restart takes along. What was to be
//! relayed is relayed once, and nobody is told more than is known.

use std::time::Duration;

use diesel::{Connection, PgConnection, RunQueryDsl, sql_types::BigInt};

use super::{body, push, relayed, setup};
use crate::support::{kafka::Kafka, proxy::Proxy, reader::Reader, rows};

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// The end of a run that is being sent and the beginning of the next are one transaction. It waits in its commit for a lock that this test
/// holds; then the connection is cut, and the lock let go. So the database commits, and belayd is told that the connection broke.
#[test]
fn a_claim_that_the_database_commits_unheard_is_found_and_its_run_is_relayed_once() {
    let Some(kafka) = Kafka::start() else { return };
    let Some(server) = super::server() else { return };
    let database = server.new_database("unheard");
    let mut direct = PgConnection::establish(&database).expect("the server answers");
    let mut ask = |query: &str| diesel::sql_query(query).get_result::<Number>(&mut direct).expect("the query is right").n;
    let place = format!("127.0.0.1:{}", server.port());
    let proxy = Proxy::start(&place);
    let mut setup = setup(&kafka, "timeout = \"30s\"").store(&database.replace(&place, &proxy.address));
    setup.more.push_str("streams = 1\n");
    let daemon = setup.start();
    let reader = Reader::start(&kafka.client(), "engine");
    push(&daemon, &body(0, 10, 2), "?ack=relay");
    relayed(&daemon);
    rows::execute(
        &database,
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$",
    );
    rows::execute(
        &database,
        "CREATE CONSTRAINT TRIGGER hold AFTER UPDATE ON deliveries DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
         WHEN (NEW.state = 'sending') EXECUTE FUNCTION hold()",
    );
    // One run is on its way, and another waits behind it.
    kafka.freeze(true);
    push(&daemon, &body(10, 10, 2), "?ack=store");
    daemon.wait_for("sending", Duration::from_secs(20), |_| {
        ask("SELECT count(*) AS n FROM deliveries WHERE sink = 'kafka' AND state = 'sending'") == 1
    });
    push(&daemon, &body(20, 10, 2), "?ack=store");
    ask("SELECT 1::bigint AS n FROM pg_advisory_lock(7)");
    kafka.freeze(false);
    daemon.wait_for("committing", Duration::from_secs(60), |_| {
        ask("SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
    });
    proxy.cut();
    ask("SELECT pg_advisory_unlock(7)::int::bigint AS n");
    relayed(&daemon);
    reader.wait_for(30, Duration::from_secs(60));
    assert!(reader.by_number().values().all(|count| *count == 1));
    daemon.wait_for("counted", Duration::from_secs(60), |daemon| daemon.metric("belayd_readings_relayed_total") == 30.0);
    let last = ask("SELECT attempt::bigint AS n FROM deliveries WHERE sink = 'kafka' ORDER BY seq DESC LIMIT 1");
    assert!(last >= 2, "the claim was committed, and another came after it: {last}");
}

/// Every commit of Kafka goes unheard: only the mark tells of it.
#[cfg(feature = "fault-injection")]
#[test]
fn a_run_that_kafka_commits_unheard_is_counted_and_told_when_that_is_found_out() {
    let Some(kafka) = Kafka::start() else { return };
    let mut setup = setup(&kafka, "").env("BELAYD_FAULT", "relay-unheard");
    setup.more.push_str("ack_timeout = \"35s\"\n");
    let daemon = setup.start();
    let reader = Reader::start(&kafka.client(), "engine");
    // Nothing comes behind it that would tell of it.
    let answer = push(&daemon, &body(0, 100, 5), "?ack=relay");
    assert_eq!(answer["ack"], "relay", "{answer}");
    daemon.wait_for("counted", Duration::from_secs(60), |daemon| daemon.metric("belayd_readings_relayed_total") == 100.0);
    reader.wait_for(100, Duration::from_secs(60));
    assert!(reader.by_number().values().all(|count| *count == 1));
}

#[test]
fn a_repeat_of_what_an_earlier_life_left_waiting_for_kafka_is_not_told_to_be_there() {
    let Some(kafka) = Kafka::start() else { return };
    let mut daemon = setup(&kafka, "timeout = \"1s\"").start();
    let reader = Reader::start(&kafka.client(), "engine");
    push(&daemon, &body(0, 10, 2), "?ack=relay");
    kafka.freeze(true);
    push(&daemon, &body(10, 100, 5), "?ack=store");
    daemon.kill();
    daemon.start_again();
    // The same twice, and beside it what Kafka has long had.
    for (from, count) in [(10, 100), (10, 100), (0, 10)] {
        let answer = push(&daemon, &body(from, count, 5), "?ack=relay");
        assert_eq!(answer["ack"], "store", "{answer}");
    }
    kafka.freeze(false);
    reader.wait_for(110, Duration::from_secs(120));
    let path = daemon.dir().join("belayd.db");
    daemon.wait_for("settled", Duration::from_secs(60), |_| rows::number(&path, "SELECT count(*) AS n FROM delivery_bodies") == 0);
    let answer = push(&daemon, &body(10, 100, 5), "?ack=relay");
    assert_eq!(answer["ack"], "relay", "{answer}");
    assert!(reader.by_number().values().all(|count| *count == 1));
}
