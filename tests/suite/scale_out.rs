//! `examples/scale-out/run` as a person starts it: three instances on one PostgreSQL, Redis and Kafka, of which one is killed and comes back,
//! and nothing is left behind.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::ClientConfig;

use crate::support::{client::Client, reader::Reader, scaled};

/// Patience of a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(180);

fn wait(scaled: &scaled::Scaled, what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < until, "not {what}:\n{}", scaled.log());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_script_starts_all_of_it_starts_again_what_dies_and_leaves_nothing() {
    if !scaled::is_possible() {
        return;
    }
    let mut scaled = scaled::Scaled::start("redis").unwrap_or_else(|error| panic!("{error}"));
    let mut broker = ClientConfig::new();
    broker.set("bootstrap.servers", scaled.text("/kafka/brokers"));
    let reader = Reader::start(&broker, "engine");
    let mut next = 0_i64;
    let mut push = |scaled: &scaled::Scaled, number: usize, query: &str| {
        let (address, token) = scaled.instance(number, "ingest");
        let one = |n: i64| format!(r#"{{"engineId":"e{}","timestamp":{},"temperature":300}}"#, n % 7, 1_700_000_000_000 + n);
        let body = format!("[{}]", (next..next + 10).map(one).collect::<Vec<_>>().join(","));
        let client = Client::new(&address, &token);
        // An instance that is being started again is not there for a moment.
        wait(scaled, "acknowledged", || client.post(&format!("/api/readings{query}"), &body).status == 202);
        next += 10;
    };
    for number in 0..3 {
        push(&scaled, number, "?ack=relay");
    }
    let before = scaled.pid("/instances/1/pid").expect("a process");
    scaled.signal("/instances/1/pid", libc::SIGKILL).expect("it lives");
    wait(&scaled, "started again", || scaled.pid("/instances/1/pid").is_ok_and(|pid| pid != before));
    for number in 0..3 {
        push(&scaled, number, "");
    }
    wait(&scaled, "relayed", || reader.count() >= 60);
    let mut keys: Vec<_> = reader.records().into_iter().map(|record| record.json()["timestamp"].to_string()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((reader.count(), keys.len()), (60, 60), "each reading once");

    let pids: Vec<i32> = ["/postgres/pid", "/redis/pid", "/kafka/pid", "/instances/0/pid", "/instances/1/pid", "/instances/2/pid"]
        .map(|path| scaled.pid(path).expect("a process"))
        .to_vec();
    let status = scaled.stop().expect("it ends");
    assert!(status.success(), "{status}:\n{}", scaled.log());
    for pid in pids {
        // SAFETY: signal 0 only asks.
        assert_ne!(unsafe { libc::kill(pid, 0) }, 0, "process {pid} is left");
    }
    assert!(scaled.dir().join("work").read_dir().is_err(), "the folder is left");
}
