//! A reading that breaks a rule, on its way to the notification, beside a steady load.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{self, Pusher},
    report::{Aim::AtMost, Figure, Scenario, aimed, plain},
    setup::{self, Bench, Database},
};

pub const ALERT: Scenario = Scenario {
    name: "alert",
    what: "from a breaking reading's first byte to its notification at the webhook, beside 5,000 single readings a second",
    once: false,
    run: alert,
};

/// From one breaking reading to the next: below the rate from which notices of a route are folded into digests (20 within 5 s).
const EVERY: Duration = Duration::from_millis(300);

/// From the first byte of the breaking reading on its way to the notification's first byte at the receiver. Each is of an engine of its own, and a
/// group of its own, so that none waits for company (`group_wait`).
fn alert(bench: &mut Bench) -> Vec<Figure> {
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = receiver.local_addr().expect("bound").port();
    let (heard, arrivals) = mpsc::channel();
    thread::spawn(move || {
        for socket in receiver.incoming().flatten() {
            let heard = heard.clone();
            thread::spawn(move || receive_webhooks(socket, &heard));
        }
    });
    let more = format!(
        "[[webhooks]]\nname = \"bench\"\nurl = \"http://127.0.0.1:{port}/\"\n[[routes]]\nsinks = [\"bench\"]\ngroup_by = \"subject\"\n"
    );
    let daemon = bench.daemon(Database::Sqlite, &more);
    let length = bench.length().max(Duration::from_secs(10));
    let steady = setup::load(&daemon, 16, 1);
    let steady = thread::spawn(move || steady.open(5_000, length));
    let mut latency = load::histogram();
    let until = Instant::now() + length - Duration::from_secs(2);
    let mut engine = 900;
    while Instant::now() < until {
        let mut pusher = Pusher::new(&setup::load(&daemon, 1, 1), engine, None);
        engine += 1;
        pusher.set_temperature("399");
        pusher.advance();
        let sent = Instant::now();
        pusher.send();
        assert_eq!(pusher.receive(), 202, "{}", pusher.last_answer());
        let arrived: Instant = arrivals.recv_timeout(Duration::from_secs(20)).expect("a notification arrives");
        latency.saturating_record(u64::try_from((arrived - sent).as_micros()).unwrap_or(u64::MAX));
        thread::sleep(EVERY.saturating_sub(sent.elapsed()));
    }
    let outcome = steady.join().expect("the generator failed");
    vec![
        plain("breaking readings", latency.len() as f64),
        plain("reading sent to notification received, p50, ms", latency.value_at_quantile(0.5) as f64 / 1e3),
        aimed("the same, p99, ms", latency.value_at_quantile(0.99) as f64 / 1e3, AtMost(50.0)),
        plain("pushes beside it", outcome.requests as f64),
    ]
}

/// Answers every request with 204 and tells when its first byte came.
fn receive_webhooks(mut socket: std::net::TcpStream, heard: &mpsc::Sender<Instant>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    let mut first = None;
    loop {
        let Ok(read) = socket.read(&mut buffer[length..]) else { return };
        if read == 0 {
            return;
        }
        first.get_or_insert_with(Instant::now);
        length += read;
        let text = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        let body =
            text[..head].lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok()).unwrap_or(0);
        if length >= head + 4 + body {
            let at = first.take().unwrap_or_else(Instant::now);
            // A busy machine raises alerts of its own beside those of the rule.
            if (text.contains("overheat") && heard.send(at).is_err())
                || socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err()
            {
                return;
            }
            length = 0;
        }
    }
}
