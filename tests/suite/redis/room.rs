//! The bound of what Redis holds: what happens when what waits reaches it, and when what is only kept does.

use super::*;
use crate::support::{kafka::Kafka, reader::Reader};

/// Patience of a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(90);

/// `count` readings of 2.3 kB each from number `from` on: 4,400 of them are more than the least that `redis.stream_bytes` may be.
fn bulky(from: i64, count: i64) -> String {
    let extra: Vec<_> = (0..32).map(|n| format!(r#""{:_>60}":{n}.5"#, format!("sensor{n:02}"))).collect();
    let extra = extra.join(",");
    let item = |n: i64| format!("{},{extra}}}", reading(n).trim_end_matches('}'));
    format!("[{}]", (from..from + count).map(item).collect::<Vec<_>>().join(","))
}

/// Pushes up to number `to`, a hundred at a time; how many were acknowledged at each level.
pub(crate) fn push_bulky(daemon: &Daemon, from: i64, to: i64) -> BTreeMap<String, u64> {
    let client = Client::new(&daemon.address, &daemon.token);
    let mut acks = BTreeMap::new();
    for first in (from..to).step_by(100) {
        let answer = client.post("/api/readings", &bulky(first, 100));
        assert_eq!(answer.status, 202, "{answer:?}");
        *acks.entry(answer.json()["ack"].as_str().expect("a level").to_owned()).or_default() += 100;
    }
    acks
}

pub(crate) fn alert(daemon: &Daemon, name: &str) -> String {
    let alerts = daemon.get(&format!("/api/alerts?name={name}")).json();
    alerts["items"][0]["state"].as_str().unwrap_or("none").to_owned()
}

fn bounded(server: &Redis, more: &str) -> Setup {
    let mut setup = setup(&format!("url = \"{}\"\nstream_bytes = \"10MB\"\n", server.url()));
    setup.more.push_str(more);
    setup
}

fn removed_early(daemon: &Daemon, before: &str) -> f64 {
    daemon.metric(&format!("belayd_redis_removed_early_bytes{{before=\"{before}\"}}"))
}

#[test]
fn what_waits_beyond_the_bound_goes_to_the_journal_and_redis_takes_again_once_there_is_room() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&[]);
    let mut database = Postgres::start(&["fsync=off"]);
    let daemon = bounded(&server, "").store(&database.url("postgres")).start();
    wait_up(&daemon);
    database.crash();
    let mut pushed = 0;
    daemon.wait_for("full", LONG, |daemon| {
        pushed += 500;
        push_bulky(daemon, pushed - 500, pushed);
        state(daemon) == "full"
    });
    let look = account(&daemon);
    assert!(look["redis"]["bytes"].as_u64() > Some(10_000_000), "{look:#}");
    assert!(look["redis"]["bytes"].as_u64() < Some(16_000_000), "{look:#}");
    daemon.wait_for("alarmed", LONG, |daemon| alert(daemon, "redis-full") == "firing");
    assert_eq!(push_bulky(&daemon, pushed, pushed + 500), BTreeMap::from([("journal".to_owned(), 500)]));
    pushed += 500;
    assert_eq!(removed_early(&daemon, "keep"), 0.0, "what the database has not is never removed");

    database.restart();
    daemon.wait_for("room", LONG, |daemon| state(daemon) == "up");
    daemon.wait_for("over", LONG, |daemon| alert(daemon, "redis-full") == "resolved");
    assert_eq!(push_bulky(&daemon, pushed, pushed + 100), BTreeMap::from([("redis".to_owned(), 100)]));
    pushed += 100;
    daemon.drained();
    let mut there = stored(&daemon);
    there.sort_unstable();
    assert!(there == (0..pushed).collect::<Vec<_>>(), "{} of {pushed}", there.len());
    assert!(removed_early(&daemon, "keep") > 0.0, "room was made with what was to be kept");
    assert_eq!(removed_early(&daemon, "relay"), 0.0, "there is no relay");
    assert_eq!(account(&daemon)["difference"], 0);
}

#[test]
fn copies_that_must_go_before_they_are_relayed_are_counted_and_told_and_relayed_all_the_same() {
    if !redis::is_installed() {
        return;
    }
    let Some(mut kafka) = Kafka::start() else { return };
    let server = Redis::start(&[]);
    let relay = format!("[kafka]\nbrokers = \"{}\"\npartitions = 2\nreplication = 1\n", kafka.brokers());
    let daemon = bounded(&server, &relay).start();
    wait_up(&daemon);
    let reader = Reader::start(&kafka.client(), "engine");
    push_bulky(&daemon, 0, 100);
    daemon.wait_for("relayed", LONG, |_| reader.count() == 100);
    kafka.kill();
    let mut pushed = 100;
    daemon.wait_for("removed", LONG, |daemon| {
        pushed += 500;
        push_bulky(daemon, pushed - 500, pushed);
        removed_early(daemon, "relay") > 0.0
    });
    assert!(removed_early(&daemon, "keep") >= removed_early(&daemon, "relay"));
    let look = account(&daemon);
    assert_eq!(look["redis"]["removedUnrelayedBytes"].as_f64(), Some(removed_early(&daemon, "relay")), "{look:#}");
    daemon.wait_for("alarmed", LONG, |daemon| alert(daemon, "redis-unrelayed-removed") == "firing");
    kafka.restart();
    daemon.drained();
    daemon.wait_for("relayed", LONG, |_| reader.count() as i64 >= pushed);
    let numbers = reader.by_number();
    assert_eq!((numbers.len() as i64, reader.count() as i64), (pushed, pushed), "each reading once");
    daemon.wait_for("over", LONG, |daemon| alert(daemon, "redis-unrelayed-removed") == "resolved");
}
