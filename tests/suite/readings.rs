//! Readings from the sender's side: what is taken, what the answer says, what is in the database afterwards.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use crate::support::{daemon::Setup, rows};

fn quick() -> Setup {
    Setup::with("[buffer]\nflush_interval = \"100ms\"\n")
}

#[test]
fn a_thousand_readings_without_a_timestamp_are_a_thousand_rows() {
    let daemon = quick().start();
    let body = format!("[{}]", vec![r#"{"engineId":"e1","rpm":1}"#; 1_000].join(","));
    let answer = daemon.post("/api/readings?ack=store", &body);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!((&answer.json()["accepted"], &answer.json()["ack"]), (&1_000.into(), &"store".into()));
    assert_eq!(rows::number(&daemon.dir().join("belayd.db"), "SELECT count(*) AS n FROM readings"), 1_000);
}

#[test]
fn the_same_push_again_is_duplicates_and_another_value_is_a_conflict_that_a_person_finds() {
    let daemon = quick().start();
    let at = |value: i64| {
        let items: Vec<_> =
            (0..1_000).map(|n| format!(r#"{{"engineId":"e1","timestamp":{},"rpm":{value}}}"#, 1_700_000_000_000_i64 + n)).collect();
        format!("[{}]", items.join(","))
    };
    let first = daemon.post("/api/readings?ack=store", &at(1)).json();
    let second = daemon.post("/api/readings?ack=store", &at(1)).json();
    assert_eq!(second["ack"], "store", "{second}");
    assert_eq!(daemon.metric("belayd_readings_stored_total"), 1_000.0);
    assert_eq!(daemon.metric("belayd_readings_duplicate_total"), 1_000.0);
    let state = |receipt: &serde_json::Value, n: u64| {
        let (stream, seq) = (
            receipt["receipt"]["stream"].as_str().expect("a stream"),
            receipt["receipt"]["firstSeq"].as_u64().expect("a number") + n,
        );
        daemon.get(&format!("/api/receipts/{stream}/{seq}")).json()["state"].clone()
    };
    assert_eq!(state(&first, 0), "stored");
    assert_eq!(state(&first, 999), "stored");
    assert_eq!(state(&second, 500), "duplicate");

    let conflict = daemon.post("/api/readings?ack=store", r#"{"engineId":"e1","timestamp":1700000000007,"rpm":2}"#).json();
    assert_eq!(daemon.metric("belayd_readings_conflict_total"), 1.0);
    assert_eq!(state(&conflict, 0), "conflict");
    let failures = daemon.get("/admin/failures?kind=reading").json();
    assert_eq!(failures["items"].as_array().map(Vec::len), Some(1), "{failures}");
    assert_eq!(failures["items"][0]["engineId"], "e1", "{failures}");
    let listed = daemon.command(&["failures", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("e1"), "{listed:?}");
    assert_eq!(
        rows::number(&daemon.dir().join("belayd.db"), "SELECT count(*) AS n FROM readings WHERE rpm = 1"),
        1_000,
        "the first value stays"
    );
}

#[test]
fn a_receipt_tells_buffered_until_it_is_stored() {
    let daemon = Setup::with("[buffer]\nflush_interval = \"1h\"\n").start();
    // What comes before the database has been opened is stored as soon as it has.
    daemon.wait_for("ready", Duration::from_secs(10), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    let answer = daemon
        .post("/api/readings", r#"[{"engineId":"e1","rpm":1},{"engineId":"e2","rpm":"fast"},{"engineId":"e3","rpm":3}]"#)
        .json();
    assert_eq!(
        (&answer["accepted"], &answer["rejected"][0]["index"], &answer["ack"]),
        (&2.into(), &1.into(), &"journal".into()),
        "{answer}"
    );
    let stream = answer["receipt"]["stream"].as_str().expect("a stream");
    let seq = answer["receipt"]["firstSeq"].as_u64().expect("a number");
    let state = |seq: u64| daemon.get(&format!("/api/receipts/{stream}/{seq}")).json()["state"].clone();
    assert_eq!((state(seq), state(seq + 1), state(seq + 2)), ("buffered".into(), "buffered".into(), "unknown".into()));
    // Whoever waits for the database takes along what waits.
    assert_eq!(daemon.post("/api/readings?ack=store", r#"{"engineId":"e4","rpm":4}"#).json()["ack"], "store");
    assert_eq!((state(seq), state(seq + 1)), ("stored".into(), "stored".into()));
}

#[test]
fn a_stop_stores_what_was_acknowledged_and_counters_survive_the_restart() {
    let mut daemon = Setup::with("[buffer]\nflush_interval = \"60s\"\n").start();
    for n in 0..50 {
        assert_eq!(daemon.post("/api/readings", &format!(r#"{{"engineId":"e{n}","rpm":1}}"#)).status, 202);
    }
    assert_eq!(daemon.stop().code(), Some(0), "{}", daemon.log());
    assert_eq!(rows::number(&daemon.dir().join("belayd.db"), "SELECT count(*) AS n FROM readings"), 50);
    daemon.start_again();
    daemon.wait_for("the ledger read", Duration::from_secs(10), |daemon| daemon.metric("belayd_readings_stored_total") == 50.0);
    assert_eq!(daemon.get("/api/engines").json()["items"].as_array().map(Vec::len), Some(50), "newest readings are remembered");
}

#[test]
fn a_slow_source_delays_no_other() {
    let quick_source =
        serve(|n| (Duration::ZERO, format!(r#"{{"engineId":"quick","timestamp":{},"rpm":1}}"#, 1_700_000_000_000_i64 + n)));
    let slow_source = serve(|_| (Duration::from_secs(30), r#"{"engineId":"slow","rpm":1}"#.into()));
    let source = |name: &str, address: &str| {
        format!("[[sources]]\nname = \"{name}\"\nurl = \"http://{address}/\"\ninterval = \"200ms\"\ntimeout = \"40s\"\n")
    };
    let more = ["[buffer]\nflush_interval = \"100ms\"\n", &source("slow", &slow_source), &source("quick", &quick_source)].concat();
    let began = Instant::now();
    let daemon = Setup::with(&more).start();
    let taken = || rows::number(&daemon.dir().join("belayd.db"), "SELECT count(*) AS n FROM readings WHERE engine_id = 'quick'");
    daemon.wait_for("polled", Duration::from_secs(20), |_| taken() >= 15);
    assert!(began.elapsed() < Duration::from_secs(30), "within the first answer of the slow one");
    let (taken, most) = (taken(), began.elapsed().as_millis() as i64 / 200 + 2);
    assert!(taken <= most, "polls every 200 ms gave {taken} readings, at most {most} were due");
}

/// A source on a thread of its own: the nth answer comes after its delay.
fn serve(answer: impl Fn(i64) -> (Duration, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let answer = std::sync::Arc::new(answer);
    let count = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let (answer, count) = (answer.clone(), count.clone());
            thread::spawn(move || {
                let mut request = [0; 4096];
                while socket.read(&mut request).is_ok_and(|read| read > 0) {
                    let (delay, body) = answer(count.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
                    thread::sleep(delay);
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
                    if socket.write_all((head + &body).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn an_alert_leaves_soon_after_the_breach_and_is_told_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (heard, notices) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let heard = heard.clone();
            thread::spawn(move || {
                let mut request = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = socket.read(&mut request) {
                    let text = String::from_utf8_lossy(&request[..read]).into_owned();
                    if socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() || heard.send((Instant::now(), text)).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    let daemon = Setup::with(&format!("[[webhooks]]\nname = \"hook\"\nurl = \"http://127.0.0.1:{port}/\"\n")).start();
    let sent = Instant::now();
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e1","temperature":351}"#).status, 202);
    let (at, text) = notices.recv_timeout(Duration::from_secs(30)).expect("a notice");
    assert!(at - sent < Duration::from_secs(5), "{:?}", at - sent);
    assert!(text.contains("overheat") && text.contains("e1"), "{text}");
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e1","temperature":352}"#).status, 202);
    assert!(notices.recv_timeout(Duration::from_millis(700)).is_err(), "an open alert is not told again");
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e1","temperature":300}"#).status, 202);
    let (_, text) = notices.recv_timeout(Duration::from_secs(30)).expect("the end is told");
    assert!(text.contains("resolved"), "{text}");
    let alerts = daemon.get("/api/alerts?kind=rule").json();
    assert_eq!(alerts["items"][0]["state"], "resolved", "{alerts}");
}
