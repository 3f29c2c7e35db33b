//! Senders that are refused for want of room: each sees its answer, whatever is left of its body, and none of them costs memory.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::daemon::{Daemon, Setup};

/// Bounds a failure, nothing else.
const PATIENCE: Duration = Duration::from_secs(60);

const READING: &str = r#"{"engineId":"e","rpm":1}"#;

/// A head with a body of `length` bytes to follow.
fn head(token: &str, length: usize, more: &str) -> String {
    format!(
        "POST /api/readings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

fn padded(length: usize) -> String {
    format!("{READING}{}", " ".repeat(length - READING.len()))
}

/// Takes the whole budget of 8 MB, for as long as the connection lives; `look` tells how much of it is taken.
fn fill<S: Read + Write>(daemon: &Daemon, mut socket: S, look: impl Fn() -> u64) -> S {
    socket.write_all(head(&daemon.token, 7_999_990, "").as_bytes()).expect("sent");
    socket.write_all(b"[").expect("sent");
    daemon.wait_for("let in", PATIENCE, |_| look() >= 7_999_990);
    socket
}

/// Bytes of bodies that are in the works.
fn in_use(daemon: &Daemon) -> u64 {
    daemon.get("/admin/buffer").json()["admission"]["bytes"].as_u64().unwrap_or(0)
}

fn dial(daemon: &Daemon, patience: Duration) -> TcpStream {
    let socket = TcpStream::connect(&daemon.address).expect("it listens");
    socket.set_read_timeout(Some(patience)).expect("a socket");
    socket
}

/// Reads one answer and leaves the connection as it is.
fn answer(socket: &mut impl Read) -> String {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = socket.read(&mut part).expect("an answer, not a reset");
        assert!(read > 0, "closed within an answer: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if length.is_none_or(|length: usize| body.len() >= length) {
                return text;
            }
        }
    }
}

/// Whoever fills it is not cut off for its silence.
fn small_budget() -> Setup {
    Setup { server: "client_timeout = \"5m\"".into(), ..Setup::with("[buffer]\nadmission_bytes = \"8MB\"\n") }
}

/// A sender of a push of the usual size hands it over whole, is refused, and comes again on the same connection.
fn comes_again(mut sender: impl Read + Write, token: &str, make_room: impl FnOnce()) {
    let push = format!("{}{}", head(token, 130_000, ""), padded(130_000));
    for _ in 0..3 {
        sender.write_all(push.as_bytes()).expect("sent");
        let refused = answer(&mut sender);
        assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("admission_limit"), "{refused}");
        assert!(!refused.to_ascii_lowercase().contains("connection: close"), "{refused}");
    }
    make_room();
    let until = Instant::now() + PATIENCE;
    loop {
        sender.write_all(push.as_bytes()).expect("sent");
        let taken = answer(&mut sender);
        if taken.starts_with("HTTP/1.1 202 ") {
            return;
        }
        assert!(Instant::now() < until, "{taken}");
    }
}

/// A sender of a large body that writes all of it before it reads sees the answer and an orderly end.
fn sees_it_behind_a_large_body(mut sender: impl Read + Write, token: &str) {
    sender.write_all(head(token, 7_000_000, "").as_bytes()).expect("sent");
    sender.write_all(padded(7_000_000).as_bytes()).expect("taken");
    let mut text = String::new();
    // Our side is closed without waiting for the sender's: else this would take as long as the client's time-out.
    sender.read_to_string(&mut text).expect("an end, not a reset");
    assert!(text.starts_with("HTTP/1.1 429 ") && text.contains("admission_limit"), "{text}");
    assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
}

#[test]
fn a_refused_push_of_the_usual_size_leaves_the_connection_as_it_was() {
    let daemon = small_budget().start();
    let full = fill(&daemon, dial(&daemon, PATIENCE), || in_use(&daemon));
    comes_again(dial(&daemon, PATIENCE), &daemon.token, || drop(full));
}

#[test]
fn a_refused_sender_of_a_large_body_sees_its_429_and_not_a_reset() {
    let daemon = small_budget().start();
    let _full = fill(&daemon, dial(&daemon, PATIENCE), || in_use(&daemon));
    sees_it_behind_a_large_body(dial(&daemon, PATIENCE), &daemon.token);
}

#[test]
fn both_hold_over_tls() {
    let cert = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let files = tempfile::tempdir().expect("a temporary directory");
    let (cert_path, key_path) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&cert_path, cert.cert.pem()).expect("written");
    std::fs::write(&key_path, cert.signing_key.serialize_pem()).expect("written");
    let server = format!("client_timeout = \"5m\"\ntls_cert = {cert_path:?}\ntls_key = {key_path:?}");
    let daemon = Setup { server, ..small_budget() }.start_unready();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.cert.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let secured = |patience| {
        let client = rustls::ClientConnection::new(config.clone(), "localhost".try_into().expect("a name"));
        rustls::StreamOwned::new(client.expect("a client"), dial(&daemon, patience))
    };
    daemon.wait_for("listening", PATIENCE, |daemon| TcpStream::connect(&daemon.address).is_ok());
    let look = || {
        let mut asking = secured(PATIENCE);
        let request = format!("GET /admin/buffer HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", daemon.token);
        asking.write_all(request.as_bytes()).expect("sent");
        let text = answer(&mut asking);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        json["admission"]["bytes"].as_u64().unwrap_or(0)
    };
    let full = fill(&daemon, secured(PATIENCE), look);
    sees_it_behind_a_large_body(secured(PATIENCE), &daemon.token);
    comes_again(secured(PATIENCE), &daemon.token, || drop(full));
}

#[test]
fn whoever_asks_before_sending_is_refused_without_being_told_to_go_on() {
    let daemon = small_budget().start();
    let ask = |length| {
        let mut sender = dial(&daemon, Duration::from_secs(20));
        sender.write_all(head(&daemon.token, length, "Expect: 100-continue\r\n").as_bytes()).expect("sent");
        sender
    };
    let mut sender = ask(130_000);
    let mut told = [0; 25];
    sender.read_exact(&mut told).expect("an answer");
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    sender.write_all(padded(130_000).as_bytes()).expect("sent");
    assert!(answer(&mut sender).starts_with("HTTP/1.1 202 "));

    let _full = fill(&daemon, dial(&daemon, PATIENCE), || in_use(&daemon));
    let mut refused = String::new();
    ask(130_000).read_to_string(&mut refused).expect("an end");
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.contains("admission_limit"), "{refused}");
}

#[test]
fn a_refused_body_without_an_announced_end_does_not_hold_the_connection_for_ever() {
    let daemon = Setup { server: "client_timeout = \"1s\"".into(), ..Setup::default() }.start();
    let mut sender = dial(&daemon, Duration::from_secs(20));
    let head = "POST /api/readings HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n";
    sender.write_all(format!("{head}Authorization: Bearer {}\r\n\r\n", daemon.token).as_bytes()).expect("sent");
    sender.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
    let (began, chunk) = (Instant::now(), [b"8000\r\n".as_slice(), &[b' '; 0x8000], b"\r\n"].concat());
    // An end of our side is all the sender must see; whether as an error of its next write is the kernel's affair.
    while sender.write_all(&chunk).is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is read for ever");
    }
}

#[test]
fn hundreds_of_refused_pushes_at_once_cost_little_memory() {
    const SENDERS: usize = 300;
    let daemon = small_budget().start();
    let _full = fill(&daemon, dial(&daemon, PATIENCE), || in_use(&daemon));
    let push = format!("{}{}", head(&daemon.token, 130_000, ""), padded(130_000));
    let before = daemon.memory().0;
    let mut senders: Vec<_> = (0..SENDERS).map(|_| dial(&daemon, Duration::from_secs(20))).collect();
    let mut most = 0;
    for round in 0..4 {
        // Half of each body first, so that all of them are held at once.
        senders.iter_mut().for_each(|sender| sender.write_all(&push.as_bytes()[..65_000]).expect("sent"));
        most = most.max(daemon.memory().0);
        senders.iter_mut().for_each(|sender| sender.write_all(&push.as_bytes()[65_000..]).expect("sent"));
        most = most.max(daemon.memory().0);
        for sender in &mut senders {
            let refused = answer(sender);
            assert!(refused.starts_with("HTTP/1.1 429 "), "round {round}: {refused}");
        }
        most = most.max(daemon.memory().0);
    }
    let took = most.saturating_sub(before);
    assert!(took < (SENDERS * 60_000) as u64, "{SENDERS} refused connections took {took} bytes of memory");
}

#[test]
fn beyond_the_rate_pushes_get_429_until_the_time_that_retry_after_says() {
    let daemon = Setup::with("[buffer]\nreadings_per_s = 50\n").start();
    let body = format!("[{}]", vec![r#"{"engineId":"e","rpm":1}"#; 100].join(","));
    let push = || daemon.post("/api/readings", &body);
    assert_eq!(push().status, 202, "a second's worth is there at the start");
    let refused = push();
    assert_eq!((refused.status, refused.code()), (429, "rate_limit".into()), "{refused:?}");
    let told = refused.head.lines().find_map(|line| line.strip_prefix("retry-after: ")?.parse::<u64>().ok()).expect("a time");
    assert!((1..=2).contains(&told), "50 are owed at 50 a second: {refused:?}");
    // A machine that stands still may be late; else it is not much later than was told.
    daemon.wait_for("let in again", Duration::from_secs(told + 5), |_| push().status == 202);
    assert!(daemon.metric("belayd_pushes_refused_total{code=\"rate_limit\"}") >= 1.0);
    let admission = daemon.get("/admin/buffer").json()["admission"].clone();
    assert_eq!((&admission["readingsPerS"], &admission["bytesBound"]), (&50.into(), &16_000_000.into()), "{admission}");
    assert!(admission["readingsRoom"].as_i64().is_some_and(|room| room < 0), "{admission}");
}

/// Sends a large body to a route, all of it before it reads. The answer, after an orderly end.
fn large_body(daemon: &Daemon, method_and_path: &str, token: &str) -> String {
    const LENGTH: usize = 6_000_000;
    let mut sender = dial(daemon, Duration::from_secs(60));
    let bearer = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let head = format!(
        "{method_and_path} HTTP/1.1\r\nHost: localhost\r\n{bearer}Content-Type: application/json\r\nContent-Length: {LENGTH}\r\n\r\n"
    );
    sender.write_all(head.as_bytes()).expect("sent");
    sender.write_all(" ".repeat(LENGTH).as_bytes()).expect("taken to its end");
    let mut text = String::new();
    sender.read_to_string(&mut text).expect("an end, not a reset");
    assert!(text.to_ascii_lowercase().contains("connection: close"), "{text}");
    text
}

#[test]
fn a_large_body_is_refused_visibly_on_every_route() {
    let daemon = Setup::default().start();
    let token = daemon.token.as_str();
    for (route, token, status, code) in [
        ("POST /admin/tokens", token, 413, "body_too_large"),
        ("POST /login", "", 403, "cross_site"),
        ("POST /admin/tokens", "belayd_nobody", 401, "unauthenticated"),
        ("POST /api/readings", "belayd_nobody", 401, "unauthenticated"),
        ("POST /nowhere", token, 404, "not_found"),
        ("PUT /api/readings", token, 405, "method_not_allowed"),
    ] {
        let text = large_body(&daemon, route, token);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(code), "{route}: {text}");
    }
}

#[test]
fn a_small_refused_body_leaves_the_connection_as_it_was_on_other_routes_too() {
    let daemon = Setup::default().start();
    let mut sender = dial(&daemon, Duration::from_secs(20));
    let body = "{\"name\": 7, \"padding\": \"".to_owned() + &"x".repeat(30_000) + "\"}";
    let head = format!(
        "POST /admin/tokens HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        daemon.token,
        body.len()
    );
    for _ in 0..3 {
        sender.write_all(head.as_bytes()).expect("sent");
        sender.write_all(body.as_bytes()).expect("sent");
        let refused = answer(&mut sender);
        assert!(refused.starts_with("HTTP/1.1 400 ") && !refused.to_ascii_lowercase().contains("connection: close"), "{refused}");
    }
}
