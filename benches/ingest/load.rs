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

/// Where to push, over how many connections, how many readings at a time.
#[derive(Clone, Debug)]
pub struct Load {
    /// `127.0.0.1:port`
    pub address: String,
    /// A token that may push.
    pub token: String,
    /// Connections, each with one push on its way at a time.
    pub connections: usize,
    /// Readings of a push.
    pub push: usize,
    /// With a fixed rate: whether each push bears the moment when it was due, so that whoever reads it later can tell how long it took.
    pub dated: bool,
}

/// What a run of the generator came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Readings that the daemon accepted.
    pub accepted: u64,
    /// Requests answered 202.
    pub requests: u64,
    /// Requests answered 429, 503 or 507; they are sent again.
    pub refused: u64,
    /// How long it went on.
    pub took: Duration,
    /// Microseconds to a 202.
    pub latency: Histogram<u64>,
    /// Microseconds to a refusal.
    pub refusals: Histogram<u64>,
}

impl Outcome {
    /// Nothing yet.
    pub fn new() -> Self {
        let took = Duration::ZERO;
        Self { accepted: 0, requests: 0, refused: 0, took, latency: histogram(), refusals: histogram() }
    }

    /// Counts the answers of another load too; the time stays.
    pub fn add(&mut self, more: &Self) {
        self.accepted += more.accepted;
        self.requests += more.requests;
        self.refused += more.refused;
        self.latency.add(&more.latency).expect("same digits");
        self.refusals.add(&more.refusals).expect("same digits");
    }

    /// Readings accepted a second.
    pub fn readings_per_s(&self) -> f64 {
        self.accepted as f64 / self.took.as_secs_f64()
    }

    /// Requests accepted a second.
    pub fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }

    /// A quantile of the time to a 202, milliseconds.
    pub fn ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Counts an answer that took so long; says whether it was a 202.
    pub fn count(&mut self, status: u16, push: usize, took: Duration, answer: impl FnOnce() -> String) -> bool {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match status {
            202 => {
                self.accepted += push as u64;
                self.requests += 1;
                self.latency.saturating_record(micros);
                true
            }
            429 | 503 | 507 => {
                self.refused += 1;
                self.refusals.saturating_record(micros);
                false
            }
            status => panic!("the daemon answered {status}: {}", answer()),
        }
    }
}

/// Tells a load that runs to pause, or to end.
#[derive(Debug, Default)]
pub struct Reins {
    /// It pauses while this is set.
    pub pause: AtomicBool,
    /// It ends.
    pub stop: AtomicBool,
}

/// What a load does when it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Waits a little and comes again.
    Waits,
    /// Ends.
    Ends,
}

impl Load {
    /// Pushes as fast as the daemon answers.
    pub fn closed(&self, length: Duration) -> Outcome {
        self.closed_under(length, &Arc::default(), Refused::Waits)
    }

    /// The same, held by `reins`.
    pub fn closed_under(&self, length: Duration, reins: &Arc<Reins>, refused: Refused) -> Outcome {
        let threads = self.connections.min(2);
        let started = Instant::now();
        let handles: Vec<_> = (0..threads)
            .map(|n| {
                let (load, reins) = (self.clone(), reins.clone());
                thread::spawn(move || load.group(n, threads, &reins, refused, started + length))
            })
            .collect();
        join(handles, started)
    }

    /// One thread of a closed loop: all of its connections send, then all are answered.
    fn group(&self, n: usize, threads: usize, reins: &Reins, refused: Refused, until: Instant) -> Outcome {
        let mine = self.connections / threads + usize::from(n < self.connections % threads);
        let mut group: Vec<_> = (0..mine).map(|c| Pusher::new(self, c * threads + n, None)).collect();
        let mut outcome = Outcome::new();
        while Instant::now() < until && !reins.stop.load(Ordering::Relaxed) {
            if reins.pause.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            group.iter_mut().for_each(Pusher::send);
            let mut all = true;
            for pusher in &mut group {
                let status = pusher.receive();
                let took = pusher.sent.elapsed();
                if outcome.count(status, self.push, took, || pusher.last_answer()) {
                    pusher.advance();
                } else {
                    all = false;
                    pusher.connect_again_if_closed();
                }
            }
            match refused {
                _ if all => {}
                // The generator knows that the buffer empties in milliseconds; Retry-After counts in seconds.
                Refused::Waits => thread::sleep(Duration::from_millis(5)),
                Refused::Ends => reins.stop.store(true, Ordering::Relaxed),
            }
        }
        outcome
    }

    /// Pushes at a fixed rate (pushes a second), whatever the daemon does. Latency counts from the moment a push was due, so that a
    /// stall is not hidden by the pushes that it delays. Refused pushes are not sent again.
    pub fn open(&self, rate: u64, length: Duration) -> Outcome {
        self.open_under(rate, length, &Arc::default())
    }

    /// The same, ended by `reins`.
    pub fn open_under(&self, rate: u64, length: Duration, reins: &Arc<Reins>) -> Outcome {
        let sent = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let handles: Vec<_> = (0..self.connections)
            .map(|c| {
                let (load, sent, reins) = (self.clone(), sent.clone(), reins.clone());
                thread::spawn(move || {
                    wake_on_time();
                    let mut pusher = Pusher::new(&load, c, None);
                    let mut outcome = Outcome::new();
                    loop {
                        let due = started + Duration::from_secs_f64(sent.fetch_add(1, Ordering::Relaxed) as f64 / rate as f64);
                        if due > started + length || reins.stop.load(Ordering::Relaxed) {
                            return outcome;
                        }
                        if let Some(wait) = due.checked_duration_since(Instant::now()) {
                            thread::sleep(wait);
                        }
                        if load.dated {
                            pusher.date(due.elapsed());
                        }
                        pusher.send();
                        let status = pusher.receive();
                        if outcome.count(status, load.push, due.elapsed(), || pusher.last_answer()) {
                            pusher.advance();
                        } else {
                            pusher.connect_again_if_closed();
                        }
                    }
                })
            })
            .collect();
        join(handles, started)
    }
}

/// The sum of what threads came to since `started`.
pub fn join(handles: Vec<thread::JoinHandle<Outcome>>, started: Instant) -> Outcome {
    let mut sum = Outcome::new();
    for handle in handles {
        sum.add(&handle.join().expect("a generator thread failed"));
    }
    sum.took = started.elapsed();
    sum
}

/// The kernel wakes a sleeper up to 50 us late to save power; that would be in every latency.
fn wake_on_time() {
    // SAFETY: plain system call on this thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// One connection with a request whose timestamps are patched in place.
pub struct Pusher {
    address: String,
    pub(crate) socket: TcpStream,
    /// When the last request was sent.
    pub sent: Instant,
    pub(crate) request: Vec<u8>,
    /// Where the timestamps stand; the last digits of each are fixed.
    stamps: Vec<usize>,
    next_us: i64,
    pub(crate) answer: Vec<u8>,
    /// Bytes of it that have come.
    pub(crate) length: usize,
}

impl Pusher {
    /// Connects. Connection `number` writes engines of its own. `ack` is the level to ask for; the tier's own where there is none.
    pub fn new(load: &Load, number: usize, ack: Option<&str>) -> Self {
        let Load { address, token, push, .. } = load;
        let mut body = String::new();
        let mut at = Vec::new();
        for item in 0..*push {
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
        let query = ack.map_or(String::new(), |ack| format!("?ack={ack}"));
        let head = format!(
            "POST /api/readings{query} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stamps = at.iter().map(|at| at + head.len()).collect();
        let socket = connect(address).expect("the daemon listens");
        let mut pusher = Self {
            address: address.clone(),
            socket,
            sent: Instant::now(),
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
        self.sent = Instant::now();
        self.socket.write_all(&self.request).expect("the daemon reads");
    }

    /// A refusal may close the connection instead of reading the body.
    pub fn connect_again_if_closed(&mut self) {
        if self.is_closed() {
            self.connect_again();
        }
    }

    /// Whether the last answer says that the connection ends.
    pub fn is_closed(&self) -> bool {
        String::from_utf8_lossy(&self.answer[..self.length]).to_ascii_lowercase().contains("connection: close")
    }

    /// Takes another connection.
    pub fn connect_again(&mut self) {
        self.socket = connect(&self.address).expect("the daemon listens");
    }

    /// The status of what has come, where it is a whole answer.
    pub fn answered(&self) -> Option<u16> {
        let answer = &self.answer[..self.length];
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let whole = self.length >= head + 4 + content_length(&answer[..head]);
        whole.then(|| answer[9..12].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
    }

    /// Reads one answer and returns its status.
    pub fn receive(&mut self) -> u16 {
        self.length = 0;
        loop {
            let read = self.socket.read(&mut self.answer[self.length..]).expect("the daemon answers within 30 s");
            assert!(read > 0, "the daemon closed the connection");
            self.length += read;
            if let Some(status) = self.answered() {
                return status;
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

    /// Takes the time that was `ago`, to 100 microseconds.
    fn date(&mut self, ago: Duration) {
        let us = chrono::Utc::now().timestamp_micros() - i64::try_from(ago.as_micros()).expect("not that long");
        self.next_us = us.max(self.next_us);
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

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(socket)
}

/// The body's length; 0 where the head does not say. Looked for as bytes: this is done for every answer, on the cores of the daemon.
fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length: ";
    let Some(at) = head.windows(NAME.len()).position(|bytes| bytes.eq_ignore_ascii_case(NAME)) else { return 0 };
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}
