//! Bad requests: each gets a code, a message and a hint, none is a 500, none is half taken.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::support::daemon::{Answer, Daemon, Setup};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Method, path, headers, body, and the status of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16);

/// Asserts that a failure has the form of the interface.
fn is_told(answer: &Answer, what: &str) {
    let error = &answer.json()["error"];
    for field in ["code", "message", "hint", "requestId"] {
        assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{what}: no {field}: {answer:?}");
    }
    assert!(error["details"].is_array(), "{what}: {answer:?}");
    assert!(answer.head.contains("x-request-id: "), "{what}: {answer:?}");
    assert!(answer.head.contains("x-content-type-options: nosniff"), "{what}: {answer:?}");
}

#[test]
fn a_bad_request_gets_its_code_message_and_hint_and_never_a_500() {
    let daemon = Setup::default().start();
    let long_path = format!("/{}", "x".repeat(9_000));
    let long_header = "y".repeat(40_000);
    let large = vec![b' '; 8_000_001];
    let many = format!("[{}]", vec!["1"; 10_001].join(","));
    let deep = "[".repeat(100_000);
    let cases: &[Case<'_>] = &[
        ("GET", "/nothing", &[], b"", 404),
        ("GET", "/api/nothing?x=1", &[], b"", 404),
        ("GET", "/assets/x/../../etc/passwd", &[], b"", 404),
        ("GET", "/%00", &[], b"", 404),
        ("GET", "/api/alerts/%ff", &[], b"", 404),
        ("DELETE", "/api/readings", &[], b"", 405),
        ("POST", "/healthz", &[], b"", 405),
        ("TRACE", "/", &[], b"", 405),
        ("GET", &long_path, &[], b"", 414),
        (
            "GET",
            "/api/engines",
            &[("X-Long", &long_header), ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1"), ("f", "1")],
            b"",
            431,
        ),
        ("GET", "/api/readings?limit=0", &[], b"", 400),
        ("GET", "/api/readings?limit=1001", &[], b"", 400),
        ("GET", "/api/readings?limit=x", &[], b"", 400),
        ("GET", "/api/readings?unknown=1", &[], b"", 400),
        ("GET", "/api/readings?from=yesterday", &[], b"", 400),
        ("GET", "/api/readings?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", &[], b"", 400),
        ("GET", "/api/readings?engineId=a%20b", &[], b"", 400),
        ("GET", "/api/readings?bucket=1m", &[], b"", 400),
        ("GET", "/api/readings?engineId=e&bucket=-1m", &[], b"", 400),
        ("GET", "/api/readings?engineId=e&bucket=1us", &[], b"", 400),
        ("GET", "/api/readings?cursor=nonsense", &[], b"", 400),
        ("GET", "/api/readings?limit=1&limit=2", &[], b"", 400),
        ("GET", "/api/alerts?state=angry", &[], b"", 400),
        ("GET", "/api/alerts?cursor=x", &[], b"", 400),
        ("GET", "/api/alerts/nothing", &[], b"", 404),
        ("POST", "/api/alerts/nothing/ack", &[JSON], b"{}", 404),
        ("POST", "/api/alerts/nothing/ack", &[JSON], br#"{"reason":"#, 400),
        ("POST", "/api/alerts/nothing/ack", &[JSON], br#"{"why":"x"}"#, 400),
        ("POST", "/api/alerts/nothing/ack", &[], b"{}", 415),
        ("GET", "/api/receipts/x/1", &[], b"", 400),
        ("GET", "/api/receipts/00000000-0000-0000-0000-000000000000/-1", &[], b"", 400),
        ("GET", "/admin/audit?cursor=x", &[], b"", 400),
        ("GET", "/admin/logs?level=loud", &[], b"", 400),
        ("GET", "/admin/logs?limit=1000000", &[], b"", 400),
        ("PUT", "/admin/log-level", &[JSON], br#"{"level":"loud"}"#, 400),
        ("PUT", "/admin/log-level", &[JSON], b"", 400),
        ("POST", "/admin/tokens", &[JSON], br#"{"name":"a b","role":"viewer"}"#, 400),
        ("POST", "/admin/tokens", &[JSON], br#"{"name":"a","role":"king"}"#, 400),
        ("POST", "/admin/tokens", &[JSON], br#"{"name":"a","role":"viewer","expires":"soon"}"#, 400),
        ("POST", "/admin/tokens", &[JSON], br#"{"name":"test","role":"viewer"}"#, 409),
        ("POST", "/admin/actors/Nobody/restart", &[JSON], b"{}", 404),
        ("GET", "/admin/failures?kind=odd", &[], b"", 400),
        ("GET", "/admin/failures?cursor=x", &[], b"", 400),
        ("GET", "/admin/failures/nothing", &[], b"", 404),
        ("PATCH", "/admin/failures/nothing/retry", &[JSON], br#"{"reason":"x"}"#, 404),
        ("PATCH", "/admin/failures/nothing/retry", &[JSON], b"{}", 400),
        ("POST", "/admin/failures/redrive", &[JSON], br#"{"reason":"  "}"#, 400),
        ("POST", "/api/readings", &[JSON], b"", 400),
        ("POST", "/api/readings", &[JSON], b"[]", 400),
        ("POST", "/api/readings", &[JSON], b"{", 400),
        ("POST", "/api/readings", &[JSON], b"\xff\xfe", 400),
        ("POST", "/api/readings", &[JSON], deep.as_bytes(), 400),
        ("POST", "/api/readings", &[JSON], many.as_bytes(), 413),
        ("POST", "/api/readings", &[JSON], &large, 413),
        ("POST", "/api/readings", &[], br#"{"engineId":"e","rpm":1}"#, 415),
        ("POST", "/api/readings", &[JSON, ("Content-Encoding", "br")], b"x", 415),
        ("POST", "/api/readings", &[JSON, ("Content-Encoding", "gzip")], b"no gzip", 400),
        ("POST", "/api/readings?ack=maybe", &[JSON], br#"{"engineId":"e","rpm":1}"#, 400),
        ("POST", "/api/readings?ack=redis", &[JSON], br#"{"engineId":"e","rpm":1}"#, 400),
        ("POST", "/api/readings?ack=store&ack=store", &[JSON], br#"{"engineId":"e","rpm":1}"#, 400),
        ("POST", "/api/readings?sync=1", &[JSON], br#"{"engineId":"e","rpm":1}"#, 400),
    ];
    for (method, path, headers, body, status) in cases {
        let bearer = format!("Bearer {}", daemon.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let answer = daemon.raw(method, path, &all, body);
        let what = format!("{method} {} {}", &path[..path.len().min(80)], String::from_utf8_lossy(&body[..body.len().min(40)]));
        assert_eq!(answer.status, *status, "{what}: {answer:?}");
        if *method != "TRACE" {
            is_told(&answer, &what);
        }
        if answer.status == 405 {
            assert!(answer.head.contains("allow: "), "{what}: {answer:?}");
        }
    }
    assert_eq!(daemon.metric("belayd_readings_accepted_total"), 0.0, "nothing was half taken");
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn only_names_of_the_configuration_are_answered() {
    let daemon = Setup::default().start();
    let code = |host: &str| {
        let answer = daemon.raw("GET", "/healthz", &[("Host", host)], b"");
        (answer.status, answer.code())
    };
    assert_eq!(code("localhost:1").0, 200);
    assert_eq!(code("evil.example"), (421, "wrong_host".into()));
    assert_eq!(code("a b"), (400, "bad_host".into()));
    assert_eq!(code(""), (400, "bad_host".into()));
}

#[test]
fn a_request_id_is_taken_over_where_it_is_sane() {
    let daemon = Setup::default().start();
    let answer = daemon.raw("GET", "/nothing", &[("X-Request-Id", "trace-7.1")], b"");
    assert!(answer.head.contains("x-request-id: trace-7.1"), "{answer:?}");
    assert_eq!(answer.json()["error"]["requestId"], "trace-7.1");
    let answer = daemon.raw("GET", "/nothing", &[("X-Request-Id", "<script>")], b"");
    assert!(!answer.head.contains("script") && !answer.body.contains("script"), "{answer:?}");
}

fn open(daemon: &Daemon) -> TcpStream {
    let socket = TcpStream::connect(&daemon.address).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    socket
}

#[test]
fn a_client_that_is_too_slow_is_cut_off_in_its_head_and_in_its_body() {
    let daemon = Setup { server: "client_timeout = \"1s\"".into(), ..Setup::default() }.start();
    let bearer = &daemon.token;
    let head = format!(
        "POST /api/readings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    );
    for (sent, what) in [("POST /api/rea", "head"), (head.as_str(), "body"), (&format!("{head}[{{"), "rest of the body")] {
        let mut socket = open(&daemon);
        socket.write_all(sent.as_bytes()).expect("sent");
        let began = Instant::now();
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(began.elapsed() < Duration::from_secs(6), "{what}: {:?}", began.elapsed());
        assert!(answer.starts_with("HTTP/1.1 408"), "{what}: {answer}");
        is_told(&last_answer(&answer), what);
        assert_eq!(last_answer(&answer).code(), "request_timeout", "{what}");
    }
    assert_eq!(daemon.get("/healthz").status, 200);
}

/// The last of the answers in what a connection brought.
fn last_answer(text: &str) -> Answer {
    let at = text.rfind("HTTP/1.1 ").expect("an answer");
    let (head, body) = text[at..].split_once("\r\n\r\n").expect("head and body");
    Answer { status: head[9..12].parse().expect("a status"), head: head.to_ascii_lowercase(), body: body.to_owned() }
}

#[test]
fn what_is_no_request_at_all_gets_its_reason_in_the_same_form() {
    let daemon = Setup { server: "client_timeout = \"1s\"".into(), ..Setup::default() }.start();
    let good = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", (0..120).map(|n| format!("x-{n}: 1\r\n")).collect::<String>());
    let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    for (sent, status, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n".to_owned(), 400, "bad_request"),
        (many, 431, "head_too_large"),
        (large, 431, "head_too_large"),
        ("GET / HTT".to_owned(), 408, "request_timeout"),
        (format!("{good}nonsense\r\n\r\n"), 400, "bad_request"),
        (format!("{good}{good}GET /healthz HTTP/9.9\r\n\r\n"), 400, "bad_request"),
    ] {
        let mut socket = open(&daemon);
        // The answer to a head that is too large may come before all of it is sent.
        let _ = socket.write_all(sent.as_bytes());
        let mut answers = Vec::new();
        let _ = socket.read_to_end(&mut answers);
        let answers = String::from_utf8(answers).expect("is text");
        let what = &sent[..sent.len().min(60)];
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1 + sent.matches("/healthz HTTP/1.1").count(), "{what}: {answers}");
        let last = last_answer(&answers);
        assert_eq!((last.status, last.code().as_str()), (status, code), "{what}: {last:?}");
        is_told(&last, what);
        assert!(last.head.contains("connection: close"), "{what}: {last:?}");
        assert!(last.head.contains(&format!("content-length: {}", last.body.len())), "{what}: {last:?}");
    }
}

#[test]
fn a_body_that_only_trickles_is_cut_off_and_gives_its_room_back() {
    let daemon = Setup { server: "client_timeout = \"1s\"".into(), ..Setup::with("[buffer]\nadmission_bytes = \"8MB\"\n") }.start();
    let bearer = &daemon.token;
    let mut trickle = open(&daemon);
    let head = format!(
        "POST /api/readings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n["
    );
    trickle.write_all(head.as_bytes()).expect("sent");
    trickle.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
    let (began, mut answer) = (Instant::now(), [0; 12]);
    while trickle.read_exact(&mut answer).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "a byte now and then holds 8 MB of the budget");
        trickle.write_all(b" ").expect("still open");
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    daemon.wait_for("room", Duration::from_secs(2), |daemon| {
        daemon.post("/api/readings", r#"{"engineId":"e","rpm":1}"#).status == 202
    });
}

#[test]
fn an_acknowledgement_is_written_to_the_audit_once() {
    let daemon = Setup::default().start();
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e","temperature":400}"#).status, 202);
    let firing = || daemon.get("/api/alerts?kind=rule").json()["items"][0]["id"].as_str().map(str::to_owned);
    daemon.wait_for("the alert", Duration::from_secs(5), |_| firing().is_some());
    let id = firing().expect("seen");
    assert_eq!(daemon.post(&format!("/api/alerts/{id}/ack"), r#"{"reason":"known"}"#).status, 200);
    let rows = daemon.get("/admin/audit").json()["items"].clone();
    let rows: Vec<_> = rows.as_array().expect("a list").iter().filter(|row| row["action"] == "alert.acknowledge").collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["subject"], &rows[0]["reason"], &rows[0]["outcome"]), (&id.into(), &"known".into(), &"ok".into()));
}

#[test]
fn a_redrive_of_one_sink_finds_its_deliveries_behind_those_of_another() {
    let hook = |name: &str| format!("[[webhooks]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:1/\"\n");
    let daemon = Setup::with(&format!("{}{}[outbox]\nmax_attempts = 1\n", hook("one"), hook("two"))).start();
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e","temperature":400}"#).status, 202);
    let dead = |daemon: &Daemon, sink: &str| {
        let items = daemon.get("/admin/failures?kind=delivery").json()["items"].clone();
        items.as_array().is_some_and(|items| items.iter().any(|item| item["sink"] == sink))
    };
    daemon.wait_for("both are dead", Duration::from_secs(10), |daemon| dead(daemon, "one") && dead(daemon, "two"));
    for sink in ["one", "two"] {
        let answer = daemon.post("/admin/failures/redrive", &format!(r#"{{"reason":"back","sink":"{sink}","limit":1}}"#));
        assert_eq!((answer.status, &answer.json()["redriven"]), (200, &1.into()), "{sink}: {answer:?}");
        daemon.wait_for("dead again", Duration::from_secs(10), |daemon| dead(daemon, "one") && dead(daemon, "two"));
    }
}

#[test]
fn beyond_the_bytes_in_the_works_pushes_get_429_and_are_let_in_again() {
    let setup = Setup::with("[buffer]\nadmission_bytes = \"8MB\"\n");
    let daemon = Setup { server: "client_timeout = \"5m\"".into(), ..setup }.start();
    let bearer = &daemon.token;
    let mut slow = open(&daemon);
    let head = format!(
        "POST /api/readings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Type: application/json\r\nContent-Length: 7999990\r\n\r\n["
    );
    slow.write_all(head.as_bytes()).expect("sent");
    daemon.wait_for("let in", Duration::from_secs(10), |daemon| {
        daemon.get("/admin/buffer").json()["admission"]["bytes"].as_u64().is_some_and(|bytes| bytes >= 7_999_990)
    });
    let body = format!("{}{}", r#"{"engineId":"e","rpm":1}"#, " ".repeat(500_000));
    let push = || daemon.post("/api/readings", &body);
    let refused = push();
    assert_eq!((refused.status, refused.code()), (429, "admission_limit".into()));
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    drop(slow);
    daemon.wait_for("let in again", Duration::from_secs(3), |_| push().status == 202);
    assert!(daemon.metric("belayd_pushes_refused_total{code=\"admission_limit\"}") >= 1.0);
}

#[test]
fn gzipped_readings_are_taken_and_what_inflates_too_far_is_not() {
    use flate2::{Compression, write::GzEncoder};
    let daemon = Setup::default().start();
    let bearer = format!("Bearer {}", daemon.token);
    let pack = |plain: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let push = |body: &[u8]| {
        let headers = [("Authorization", bearer.as_str()), JSON, ("Content-Encoding", "gzip")];
        daemon.raw("POST", "/api/readings", &headers, body)
    };
    let good = push(&pack(br#"[{"engineId":"e","rpm":1}]"#));
    assert_eq!((good.status, &good.json()["accepted"]), (202, &1.into()), "{good:?}");
    let bomb = push(&pack(&vec![b' '; 50_000_000]));
    assert_eq!(bomb.status, 413, "{bomb:?}");
    is_told(&bomb, "bomb");
}
