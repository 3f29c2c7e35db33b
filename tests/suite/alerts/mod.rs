//! Alerts through the real daemon, as a receiver of webhooks hears them.

mod anomaly;
mod away;
mod crashes;
mod deadman;
mod people;
mod storms;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::daemon::Daemon;

/// Longest wait for anything: a bound on failures, no promise of speed.
const LIMIT: Duration = Duration::from_secs(60);

/// One request that a receiver heard.
#[derive(Clone, Debug)]
struct Request {
    delivery_id: String,
    possible_repeat: bool,
    body: Value,
    at: Instant,
}

/// A receiver of webhooks that says what it is told to say.
#[derive(Clone, Debug)]
struct Receiver {
    url: String,
    heard: Arc<Mutex<Vec<Request>>>,
    /// The status of its answers; 0: it takes connections and never answers.
    status: Arc<AtomicU16>,
}

impl Receiver {
    fn start(status: u16) -> Self {
        Self::on("127.0.0.1:0", status)
    }

    fn on(address: &str, status: u16) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let receiver = Self { url, heard: Arc::default(), status: Arc::new(AtomicU16::new(status)) };
        let us = receiver.clone();
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let us = us.clone();
                thread::spawn(move || us.serve(&mut socket));
            }
        });
        receiver
    }

    fn serve(&self, socket: &mut std::net::TcpStream) {
        let _ = socket.set_read_timeout(Some(Duration::from_secs(20)));
        let (mut request, mut part) = (Vec::new(), [0; 16 * 1024]);
        while let Ok(read @ 1..) = socket.read(&mut part) {
            request.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let field = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
            };
            let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() < length {
                continue;
            }
            let status = self.status.load(Ordering::SeqCst);
            let request = Request {
                delivery_id: field("belayd-delivery-id").unwrap_or_default(),
                possible_repeat: field("belayd-possible-repeat").is_some(),
                body: serde_json::from_str(body).unwrap_or_default(),
                at: Instant::now(),
            };
            self.heard.lock().expect("no panic").push(request);
            if status == 0 {
                // Until the other side gives up.
                while let Ok(1..) = socket.read(&mut part) {}
                return;
            }
            let _ =
                socket.write_all(format!("HTTP/1.1 {status} As told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
            return;
        }
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn all(&self) -> Vec<Request> {
        self.heard.lock().expect("no panic").clone()
    }

    /// `event subject` of everything that was heard.
    fn words(&self) -> Vec<String> {
        let word = |body: &Value, name: &str| body[name].as_str().unwrap_or_default().to_owned();
        self.all().iter().map(|one| format!("{} {}", word(&one.body, "event"), word(&one.body, "subject"))).collect()
    }

    /// How often this was heard.
    fn count(&self, words: &str) -> usize {
        self.words().iter().filter(|heard| *heard == words).count()
    }
}

/// `[[webhooks]]` and a route to it, with these lines more in the route.
fn to_hook(receiver: &Receiver, route: &str) -> String {
    format!(
        "[[webhooks]]\nname = \"hook\"\nurl = \"{}\"\n[[routes]]\nsinks = [\"hook\"]\nkinds = [\"rule\"]\n{route}\n",
        receiver.url
    )
}

fn push(daemon: &Daemon, engine: &str, metric: &str, value: f64) {
    let answer = daemon.post("/api/readings", &format!(r#"{{"engineId":"{engine}","{metric}":{value}}}"#));
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// The newest alert of this rule and engine.
fn alert(daemon: &Daemon, name: &str, subject: &str) -> Value {
    let listed = daemon.get(&format!("/api/alerts?name={name}&subject={subject}&limit=1")).json();
    let id = listed["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned();
    daemon.get(&format!("/api/alerts/{id}")).json()
}

/// `event reason` of each of its notifications.
fn reasons(alert: &Value) -> Vec<String> {
    let word = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let notices = alert["notifications"].as_array().cloned().unwrap_or_default();
    notices.iter().map(|one| format!("{} {}", word(one, "event"), word(one, "reason"))).collect()
}
