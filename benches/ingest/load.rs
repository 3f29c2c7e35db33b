//! The generator: few threads, each with several connections in lockstep, so that it takes little of the cores it shares.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

/// Microseconds up to a minute; what takes longer counts as a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("three digits up to a minute are allowed")
}

/// Engines of one connection: 16 connections are a fleet of 160.
const ENGINES: usize = 10;
/// Digits at the end of each timestamp that tell the items of one engine in one push apart.
const ITEM_DIGITS: usize = 2;
/// Where the timestamps begin, microseconds since the epoch: half an hour ago, so that none lies ahead.
fn first_us() -> i64 {
    chrono::Utc::now().timestamp_micros() / 10_000_000 * 10_000_000 - 1_800_000_000
}

/// What a run of the generator came to.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Readings that the daemon accepted.
    pub accepted: u64,
    /// Requests answered 202.
    pub requests: u64,
    /// Requests answered 429 or 503; they are sent again.
    pub refused: u64,
}

/// Pushes as fast as the daemon answers.
pub fn closed_loop(address: &str, token: &str, connections: usize, push: usize, length: Duration, ack: &str) -> (Totals, Duration) {
    let threads = connections.min(2);
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let handles: Vec<_> = (0..threads)
        .map(|n| {
            let (address, token, ack, stop) = (address.to_owned(), token.to_owned(), ack.to_owned(), stop.clone());
            let mine = connections / threads + usize::from(n < connections % threads);
            thread::spawn(move || {
                let mut group: Vec<_> = (0..mine).map(|c| Pusher::new(&address, &token, c * threads + n, push, &ack)).collect();
                let mut totals = Totals::default();
                while !stop.load(Ordering::Relaxed) {
                    group.iter_mut().for_each(Pusher::send);
                    let mut refused = false;
                    for pusher in &mut group {
                        match pusher.receive() {
                            202 => {
                                totals.accepted += push as u64;
                                totals.requests += 1;
                                pusher.advance();
                            }
                            429 | 503 => {
                                totals.refused += 1;
                                refused = true;
                            }
                            status => panic!("the daemon answered {status}: {}", pusher.last_answer()),
                        }
                    }
                    if refused {
                        // The generator knows that the buffer empties in milliseconds; Retry-After counts in seconds.
                        thread::sleep(Duration::from_millis(5));
                    }
                }
                totals
            })
        })
        .collect();
    thread::sleep(length);
    stop.store(true, Ordering::Relaxed);
    let mut sum = Totals::default();
    for handle in handles {
        let totals = handle.join().expect("a generator thread failed");
        sum.accepted += totals.accepted;
        sum.requests += totals.requests;
        sum.refused += totals.refused;
    }
    (sum, started.elapsed())
}

/// Pushes single readings at a fixed rate, whatever the daemon does, over `connections`. Latency counts from the moment a push was
/// due, so that a stall is not hidden by the pushes that it delays.
pub fn open_loop(address: &str, token: &str, connections: usize, rate: u64, length: Duration) -> (Totals, Histogram<u64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let handles: Vec<_> = (0..connections)
        .map(|c| {
            let (address, token, sent) = (address.to_owned(), token.to_owned(), sent.clone());
            thread::spawn(move || {
                let mut pusher = Pusher::new(&address, &token, c, 1, "memory");
                let mut totals = Totals::default();
                let mut latency = histogram();
                loop {
                    let due = started + Duration::from_secs_f64(sent.fetch_add(1, Ordering::Relaxed) as f64 / rate as f64);
                    if due > started + length {
                        return (totals, latency);
                    }
                    if let Some(wait) = due.checked_duration_since(Instant::now()) {
                        thread::sleep(wait);
                    }
                    pusher.send();
                    if pusher.receive() == 202 {
                        totals.accepted += 1;
                        totals.requests += 1;
                        pusher.advance();
                    } else {
                        totals.refused += 1;
                    }
                    latency.saturating_record(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
            })
        })
        .collect();
    let mut sum = Totals::default();
    let mut latency = histogram();
    for handle in handles {
        let (totals, mine) = handle.join().expect("a generator thread failed");
        sum.accepted += totals.accepted;
        sum.requests += totals.requests;
        sum.refused += totals.refused;
        latency.add(mine).expect("same digits");
    }
    (sum, latency)
}

/// One connection with a request whose timestamps are patched in place.
pub struct Pusher {
    socket: TcpStream,
    request: Vec<u8>,
    /// Where the timestamps stand; the last digits of each are fixed.
    stamps: Vec<usize>,
    next_us: i64,
    answer: Vec<u8>,
    length: usize,
}

impl Pusher {
    /// Connects. Connection `number` writes engines of its own.
    pub fn new(address: &str, token: &str, number: usize, push: usize, ack: &str) -> Self {
        let mut body = String::new();
        let mut at = Vec::new();
        for item in 0..push {
            body.push(if item == 0 { '[' } else { ',' });
            let engine = number * ENGINES + item % ENGINES;
            body.push_str(&format!(r#"{{"engineId":"engine-{engine:05}","timestamp":""#));
            at.push(body.len());
            let nth = item / ENGINES;
            let (temperature, rpm) = (250.0 + (item % 50) as f64 / 10.0, 5000 + item % 100);
            body.push_str(&format!(
                r#"2026-01-01T00:00:00.0000{nth:02}Z","status":"ok","temperature":{temperature},"rpm":{rpm},"pressure":31.5,"fuelFlow":2.25}}"#
            ));
        }
        body.push(']');
        let head = format!(
            "POST /api/readings?ack={ack} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stamps = at.iter().map(|at| at + head.len()).collect();
        let socket = TcpStream::connect(address).expect("the daemon listens");
        socket.set_nodelay(true).expect("a TCP socket takes no-delay");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out can be set");
        let mut pusher = Self {
            socket,
            request: [head, body].concat().into_bytes(),
            stamps,
            next_us: first_us(),
            answer: vec![0; 64 * 1024],
            length: 0,
        };
        pusher.patch();
        pusher
    }

    /// Writes the request.
    pub fn send(&mut self) {
        self.socket.write_all(&self.request).expect("the daemon reads");
    }

    /// Reads one answer and returns its status.
    pub fn receive(&mut self) -> u16 {
        self.length = 0;
        loop {
            let read = self.socket.read(&mut self.answer[self.length..]).expect("the daemon answers within 30 s");
            assert!(read > 0, "the daemon closed the connection");
            self.length += read;
            let answer = &self.answer[..self.length];
            let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&answer[..head]).expect("a head is text");
            let body: usize = text
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(|length| length.trim().to_owned()))
                .and_then(|length| length.parse().ok())
                .unwrap_or(0);
            if self.length >= head + 4 + body {
                return text[9..12].parse().expect("a status");
            }
        }
    }

    /// The text of the last answer.
    pub fn last_answer(&self) -> String {
        String::from_utf8_lossy(&self.answer[..self.length]).into_owned()
    }

    /// Takes the next timestamps: 100 microseconds on, since the last two digits tell items of one engine apart.
    pub fn advance(&mut self) {
        self.next_us += 100;
        self.patch();
    }

    fn patch(&mut self) {
        let time = chrono::DateTime::from_timestamp_micros(self.next_us).expect("a time of this century");
        let text = time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
        let digits = &text.as_bytes()[..text.len() - ITEM_DIGITS];
        for at in &self.stamps {
            self.request[*at..at + digits.len()].copy_from_slice(digits);
        }
    }

    /// Sets one number in the body of a single-reading push, right-aligned in the room of the old one.
    pub fn set_temperature(&mut self, value: &str) {
        let text = String::from_utf8(self.request.clone()).expect("the request is text");
        let at = text.find("\"temperature\":").expect("there is a temperature") + "\"temperature\":".len();
        let end = at + text[at..].find(',').expect("another metric follows");
        let padded = format!("{value:>width$}", width = end - at);
        assert_eq!(padded.len(), end - at, "the value must fit the room of the old one");
        self.request[at..end].copy_from_slice(padded.as_bytes());
    }
}
