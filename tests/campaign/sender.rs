//! Senders: threads that push, write down what they do with the oracle, and repeat the same body until it is acknowledged.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::oracle::Oracle;

/// Longest wait for an answer: longer than the daemon's own `ack_timeout` in the campaign.
const ANSWER: Duration = Duration::from_secs(4);
/// Longest pause that a sender takes on being told to come again later. `Retry-After` counts whole seconds; more tries find more faults.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Where to send to, and what counts as acknowledged.
#[derive(Clone, Debug)]
pub struct Target {
    /// `127.0.0.1:port`
    pub address: String,
    /// A token with the role ingest.
    pub token: String,
    /// Other instances, address and token each: where to go when this one does not answer.
    pub others: Vec<(String, String)>,
    /// The lowest level that counts.
    pub level: &'static str,
}

/// What came of one send.
#[derive(Debug)]
pub enum Outcome {
    /// 202.
    Taken { level: String, stream: String, first_seq: u64 },
    /// Not sent at all.
    Unsent,
    /// Refused before anything was done: 429.
    Refused,
    /// Nobody knows; the answer, where there was one.
    Unknown(String),
    /// An answer that should never come.
    Wrong(String),
}

/// A connection that is made anew after each failure.
#[derive(Debug)]
pub struct Connection {
    /// Address and head of a request, for each instance.
    places: Vec<(SocketAddr, String)>,
    at: usize,
    socket: Option<TcpStream>,
}

impl Connection {
    /// Asks for `ack` where it is given. Begins with the `first` of the instances.
    pub fn new(target: &Target, ack: Option<&str>, first: usize) -> Self {
        let query = ack.map(|level| format!("?ack={level}")).unwrap_or_default();
        let place = |address: &String, token: &String| {
            let head = format!(
                "POST /api/readings{query} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n",
            );
            (address.parse().expect("an address"), head)
        };
        let mut places = vec![place(&target.address, &target.token)];
        places.extend(target.others.iter().map(|(address, token)| place(address, token)));
        Self { at: first % places.len(), places, socket: None }
    }

    fn go_elsewhere(&mut self) {
        self.socket = None;
        self.at = (self.at + 1) % self.places.len();
    }

    /// Sends one body and waits for the answer.
    pub fn push(&mut self, body: &str, rows: u64) -> Outcome {
        if self.socket.is_none() {
            let Ok(socket) = TcpStream::connect_timeout(&self.places[self.at].0, Duration::from_secs(1)) else {
                self.go_elsewhere();
                return Outcome::Unsent;
            };
            let _ = socket.set_nodelay(true);
            let _ = socket.set_read_timeout(Some(ANSWER));
            let _ = socket.set_write_timeout(Some(ANSWER));
            self.socket = Some(socket);
        }
        let answer = self.exchange(body);
        let Some((status, body)) = answer else {
            self.go_elsewhere();
            return Outcome::Unknown("no answer".into());
        };
        match status {
            202 => {
                let json: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
                let (stream, first) = (json["receipt"]["stream"].as_str(), json["receipt"]["firstSeq"].as_u64());
                let last = json["receipt"]["lastSeq"].as_u64();
                match (json["ack"].as_str(), stream, first) {
                    (Some(level), Some(stream), Some(first_seq))
                        if json["accepted"] == rows && last == Some(first_seq + rows - 1) =>
                    {
                        Outcome::Taken { level: level.into(), stream: stream.into(), first_seq }
                    }
                    _ => Outcome::Wrong(format!("202 {body}")),
                }
            }
            429 => Outcome::Refused,
            // 408: the body came too slowly through a network that was throttled.
            408 | 503 | 507 => Outcome::Unknown(format!("{status} {body}")),
            // A network that half-closes lets the daemon see a part of the body, and still brings back what it says of that.
            400 if body.contains("\"cut_body\"") => Outcome::Unknown(format!("{status} {body}")),
            status => Outcome::Wrong(format!("{status} {body}")),
        }
    }

    fn exchange(&mut self, body: &str) -> Option<(u16, String)> {
        let socket = self.socket.as_mut()?;
        let request = format!("{}Content-Length: {}\r\n\r\n{body}", self.places[self.at].1, body.len());
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        let until = Instant::now() + ANSWER;
        loop {
            let read = socket.read(&mut part).ok().filter(|read| *read > 0 && Instant::now() < until)?;
            answer.extend_from_slice(&part[..read]);
            let Some(split) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if answer.len() >= split + 4 + length.unwrap_or(0) {
                if head.contains("connection: close") {
                    self.socket = None;
                }
                let body = String::from_utf8_lossy(&answer[split + 4..]).into_owned();
                return Some((head.get(9..12)?.parse().ok()?, body));
            }
        }
    }
}

/// Order of the levels.
fn rank(level: &str) -> usize {
    ["memory", "journal", "redis", "store", "relay"].iter().position(|known| *known == level).unwrap_or(0)
}

/// Sends one push again and again until it is acknowledged.
///
/// # Errors
/// `go_on` said no before; what came of the last send.
pub fn deliver(
    oracle: &Oracle,
    connection: &mut Connection,
    (sender, number, rows): (usize, u64, u64),
    level: &str,
    go_on: &dyn Fn() -> bool,
) -> Result<(), String> {
    let mut last = String::from("never sent");
    let body = oracle.body(sender, number, rows);
    let mut pause = Duration::from_millis(2);
    while go_on() {
        match connection.push(&body, rows) {
            Outcome::Taken { level: reached, stream, first_seq } if rank(&reached) >= rank(level) => {
                oracle.acknowledge(sender, number, &reached, &stream, first_seq);
                return Ok(());
            }
            Outcome::Taken { level: reached, .. } => {
                last = format!("202 at level {reached}");
                oracle.unknown(sender, number);
            }
            Outcome::Unknown(answer) => {
                last = answer;
                oracle.unknown(sender, number);
            }
            Outcome::Unsent | Outcome::Refused => {}
            Outcome::Wrong(answer) => {
                oracle.refused(sender, number, &answer);
                oracle.unknown(sender, number);
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Err(last)
}

/// Senders at work; dropped, they stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts a thread for each sender but the last, which is kept for fresh readings. Each waits `pause` between two pushes.
    pub fn start(oracle: &Arc<Oracle>, target: &Target, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..oracle.senders() - 1).map(|sender| {
            let (oracle, target, stop) = (oracle.clone(), target.clone(), stop.clone());
            thread::spawn(move || {
                // Every third asks for the store's commit, the others for what the daemon gives by itself.
                let ack = if target.level == "store" || sender % 3 == 2 { Some("store") } else { None };
                let mut connection = Connection::new(&target, ack, sender);
                let go_on = || !stop.load(Ordering::Relaxed);
                while go_on() {
                    let (number, rows) = oracle.intend(sender, None);
                    // What is still open at the end stays open.
                    let _ = deliver(&oracle, &mut connection, (sender, number, rows), target.level, &go_on);
                    thread::sleep(pause);
                }
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// Ends the senders; what they have in hand stays unacknowledged.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// Fresh readings pass: 20 of them reach `level` within `limit`. Returns how long that took.
///
/// # Errors
/// They did not.
pub fn fresh(oracle: &Oracle, target: &Target, level: &str, limit: Duration) -> Result<Duration, String> {
    let started = Instant::now();
    let sender = oracle.senders() - 1;
    let mut connection = Connection::new(target, Some(level), 0);
    let (number, rows) = oracle.intend(sender, Some(20));
    let go_on = || started.elapsed() < limit;
    let delivered = deliver(oracle, &mut connection, (sender, number, rows), level, &go_on);
    delivered.map_err(|last| format!("20 fresh readings did not reach {level} within {limit:?}: {last}"))?;
    Ok(started.elapsed())
}
