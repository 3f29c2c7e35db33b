//! Live streams: what they carry, how many there may be, and when they end.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::daemon::{Daemon, Setup};

struct Stream {
    lines: BufReader<TcpStream>,
    status: u16,
}

fn open(daemon: &Daemon, token: &str, path: &str) -> Stream {
    let mut socket = TcpStream::connect(&daemon.address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n").expect("sent");
    let mut lines = BufReader::new(socket);
    let mut first = String::new();
    lines.read_line(&mut first).expect("a status line");
    Stream { status: first[9..12].parse().expect("a status"), lines }
}

impl Stream {
    /// The data of the next event of this name; `None` when the stream has ended.
    fn next(&mut self, name: &str) -> Option<String> {
        let mut wanted = false;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                wanted = event.trim() == name;
            } else if wanted && let Some(data) = line.strip_prefix("data: ") {
                return Some(data.trim().to_owned());
            }
        }
    }
}

#[test]
fn the_state_comes_at_once_and_then_every_second_with_what_happened() {
    let daemon = Setup::default().start();
    let mut stream = open(&daemon, &daemon.token, "/api/stream");
    assert_eq!(stream.status, 200);
    let began = Instant::now();
    let first: serde_json::Value = serde_json::from_str(&stream.next("state").expect("a state")).expect("is JSON");
    assert!(began.elapsed() < Duration::from_secs(10), "at once");
    assert_eq!(first["engines"]["total"], 0);
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e1","temperature":400}"#).status, 202);
    let later = (0..5).find_map(|_| {
        let state: serde_json::Value = serde_json::from_str(&stream.next("state")?).ok()?;
        let alerts = state["alerts"].as_array()?.iter().any(|alert| alert["name"] == "overheat");
        (state["engines"]["total"] == 1 && alerts).then_some(state)
    });
    let later = later.expect("the reading and its alert show");
    assert_eq!(later["engines"]["items"][0]["alarm"], "CRITICAL");
    assert_eq!(later["buffer"]["difference"], 0);
    assert!(later["system"]["memory"]["totalBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{}", later["system"]);
    assert_eq!(later["actors"].as_array().map(Vec::len), Some(6), "{}", later["actors"]);
}

#[test]
fn streams_are_counted_and_end_with_their_token_or_the_daemon() {
    let mut daemon = Setup { server: "max_streams = 2".into(), ..Setup::default() }.start();
    let brief = daemon.create_token("brief", "viewer");
    let mut mine = open(&daemon, &daemon.token, "/admin/logs?level=info");
    let mut theirs = open(&daemon, &brief, "/api/stream");
    assert_eq!((mine.status, theirs.status), (200, 200));
    assert!(mine.next("line").is_some_and(|line| line.contains("belayd::")));
    let third = daemon.get("/api/stream");
    assert_eq!((third.status, third.code()), (503, "too_many_streams".into()));
    assert!(third.head.contains("retry-after: "), "{third:?}");

    assert_eq!(daemon.request("DELETE", "/admin/tokens/brief", &[], "").status, 200);
    let began = Instant::now();
    while theirs.next("state").is_some() {}
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let mut again = open(&daemon, &daemon.token, "/api/stream");
    assert_eq!(again.status, 200, "its place is free");

    let began = Instant::now();
    assert!(daemon.stop().success());
    assert!(began.elapsed() < Duration::from_secs(8), "open streams do not hold up the stop: {:?}", began.elapsed());
    while again.next("state").is_some() {}
    while mine.next("line").is_some() {}
}

#[test]
fn the_tail_carries_what_passes_its_filter_and_the_level_changes_while_it_runs() {
    let daemon = Setup::default().start();
    let mut tail = open(&daemon, &daemon.token, "/admin/logs?level=info&target=belayd::web&limit=0");
    assert_eq!(tail.status, 200);
    assert_eq!(
        daemon.request("PUT", "/admin/log-level", &[("Content-Type", "application/json")], r#"{"level":"debug"}"#).status,
        200
    );
    let line: serde_json::Value = serde_json::from_str(&tail.next("line").expect("a line")).expect("is JSON");
    assert_eq!((&line["target"], &line["fields"]["action"]), (&"belayd::web".into(), &"log.level".into()), "{line}");
}
