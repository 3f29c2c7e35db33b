//! Two daemons on one PostgreSQL and one Kafka: a dead one's readings are relayed by the other, and a paused one does no harm.

use std::time::{Duration, Instant};

use super::{backlog, body, push, relayed, setup};
use crate::{
    support::{kafka::Kafka, reader::Reader},
    takeover::{Database, Stalls, instance},
};

/// A takeover within 15 s, and the 2 s within which what is committed is relayed.
const WITHIN: Duration = Duration::from_secs(17);

#[test]
fn a_dead_or_paused_daemons_stream_is_relayed_by_another_and_each_reading_once() {
    let Some(mut kafka) = Kafka::start() else { return };
    let Some(server) = super::server() else { return };
    let database = server.new_database("shared");
    let setup = setup(&kafka, "timeout = \"1s\"").store(&database);
    let mut first = setup.start();
    let second = setup.start();
    let reader = Reader::start(&kafka.client(), "engine");
    push(&first, &body(0, 500, 11), "?ack=relay");
    push(&second, &body(500, 500, 11), "?ack=relay");

    // Paused with a backlog: the other takes its stream over within 15 s.
    kafka.freeze(true);
    push(&first, &body(1_000, 500, 11), "?ack=store");
    first.wait_for("sending", Duration::from_secs(20), |daemon| daemon.get("/admin/outbox").json()["sending"] != 0);
    first.signal(libc::SIGSTOP);
    kafka.freeze(false);
    let began = Instant::now();
    second.wait_for("taken over", Duration::from_secs(40), |daemon| {
        push(daemon, &body(1_500, 100, 11), "");
        backlog(daemon) == 0 && reader.count() >= 1_600
    });
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
    // It wakes up in the middle of what it did, and goes on as one that has lost its stream, then as its owner again.
    first.signal(libc::SIGCONT);
    push(&first, &body(1_600, 500, 11), "?ack=store");
    relayed(&first);
    reader.wait_for(2_100, Duration::from_secs(30));

    // Dead with a backlog.
    kafka.kill();
    let stream = push(&first, &body(2_100, 500, 11), "?ack=store")["receipt"]["stream"].as_str().expect("a stream").to_owned();
    let (dead, mut look) = (instance(&first), Database::open(&database));
    look.wait_owned(&format!("relay/{stream}"), &dead);
    let stalls = Stalls::watch();
    first.kill();
    let died_us = look.now_us();
    let took = look.taken_over(&format!("relay/{stream}"), &dead, died_us);
    eprintln!("the stream was taken over {took:?} after the death; the machine stood still for {:?}", stalls.so_far());
    assert!(took <= Duration::from_secs(15) + stalls.so_far(), "{took:?}");
    kafka.restart();
    reader.wait_for(2_600, Duration::from_secs(40));
    relayed(&second);
    assert_eq!(reader.count(), 2_600);
    assert!(reader.by_number().values().all(|count| *count == 1));
    reader.check_order();
    // It comes back and has its stream again.
    first.start_again();
    push(&first, &body(2_600, 100, 11), "?ack=relay");
    reader.wait_for(2_700, Duration::from_secs(30));
    assert_eq!(reader.count(), 2_700);

    // Dead with a backlog and a broker that answers: its readings are in Kafka within the time of a takeover and of the relay after it.
    kafka.freeze(true);
    push(&first, &body(2_700, 500, 11), "?ack=store");
    let stalls = Stalls::watch();
    first.kill();
    let died = Instant::now();
    kafka.freeze(false);
    reader.wait_for(3_200, Duration::from_secs(60));
    let took = died.elapsed();
    eprintln!(
        "a dead instance's readings were in Kafka {took:?} after its death; the machine stood still for {:?}",
        stalls.so_far()
    );
    assert!(took <= WITHIN + stalls.so_far(), "{took:?}");
    assert!(reader.count() == 3_200 && reader.by_number().values().all(|count| *count == 1));
}
