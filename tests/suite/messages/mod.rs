//! Messages through the real daemon: handed in, listed, called off, sent, limited; what is wrong is refused; nothing acknowledged is lost.

mod bad;
mod crash;
mod decisions;
mod flow;
mod fuzz;
mod keys;
mod limits;
mod wake;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    daemon::{Answer, Daemon, Setup},
    left_out,
    postgres::{self, Postgres},
};

/// The databases that can be had here. The server ends with its handle.
fn databases() -> Vec<(String, Option<Postgres>)> {
    let mut found = vec![("sqlite://belayd.db".to_owned(), None)];
    if postgres::is_installed() {
        let server = Postgres::start(&["fsync=off"]);
        found.push((server.new_database("messages"), Some(server)));
    } else {
        left_out("messages on PostgreSQL, because it is not installed (tests/run installs it)");
    }
    found
}

/// What arrived at a receiver: delivery id, body, when.
type Heard = Arc<Mutex<Vec<(String, Value, Instant)>>>;

/// A receiver of webhooks that remembers what it took and answers as it is told.
struct Receiver {
    url: String,
    heard: Heard,
    status: Arc<AtomicU16>,
}

impl Receiver {
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let (heard, status) = (Heard::default(), Arc::new(AtomicU16::new(status)));
        let (notes, word) = (heard.clone(), status.clone());
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (notes, word) = (notes.clone(), word.clone());
                thread::spawn(move || take(socket, &notes, &word));
            }
        });
        Self { url, heard, status }
    }

    /// As one of `[[webhooks]]`.
    fn section(&self, name: &str) -> String {
        format!("[[webhooks]]\nname = \"{name}\"\nurl = \"{}\"\n", self.url)
    }

    /// What it took of messages, oldest first.
    fn messages(&self) -> Vec<(String, Value, Instant)> {
        self.heard.lock().expect("no panic").iter().filter(|(_, body, _)| body["message"].is_object()).cloned().collect()
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Relaxed);
    }
}

fn take(mut socket: TcpStream, heard: &Heard, status: &AtomicU16) {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
    let (mut request, mut part) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(read @ 1..) = socket.read(&mut part) {
        request.extend_from_slice(&part[..read]);
        let Some(split) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..split]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        if request.len() < split + 4 + length {
            continue;
        }
        let body = serde_json::from_slice(&request[split + 4..split + 4 + length]).unwrap_or_default();
        let status = status.load(Relaxed);
        if status == 200 {
            heard.lock().expect("no panic").push((field("belayd-delivery-id").unwrap_or_default(), body, Instant::now()));
        }
        let _ = write!(socket, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
}

/// A message to a sink that is the receiver itself.
fn plain(via: &str, subject: &str) -> Value {
    json!({"via": via, "subject": subject, "body": format!("text of {subject}")})
}

/// Hands a message in.
fn send(daemon: &Daemon, message: &Value) -> Answer {
    daemon.post("/api/messages", &message.to_string())
}

/// Hands a message in that is taken, and returns its id.
fn sent(daemon: &Daemon, message: &Value) -> String {
    let answer = send(daemon, message);
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn show(daemon: &Daemon, id: &str) -> Value {
    let answer = daemon.get(&format!("/api/messages/{id}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Waits until a message stands so.
fn stands(daemon: &Daemon, id: &str, status: &str) {
    daemon.wait_for(&format!("{id} {status}"), Duration::from_secs(30), |daemon| show(daemon, id)["status"] == status);
}

/// Starts a daemon that has reached its database.
fn ready(setup: &Setup) -> Daemon {
    let daemon = setup.start();
    daemon.wait_for("ready", Duration::from_secs(30), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    daemon
}

/// The fields that an answer finds fault with.
fn fields(answer: &Answer) -> Vec<String> {
    let details = answer.json()["error"]["details"].clone();
    details.as_array().into_iter().flatten().filter_map(|detail| detail["field"].as_str().map(str::to_owned)).collect()
}
