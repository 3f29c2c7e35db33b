//! A receiver over HTTP that answers as it is told, badly too, and remembers what came.

#![allow(unreachable_pub, dead_code, reason = "not every test binary and benchmark uses all of it")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// With its query.
    pub path: String,
    /// Name in lower case, value.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: String,
}

impl Request {
    /// A header's value; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What is done with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status line, further header lines, body.
    Say(&'static str, &'static str, &'static str),
    /// Hangs up without a word.
    Cut,
    /// Says nothing and keeps the connection.
    Hang,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// `http://127.0.0.1:port`
    pub url: String,
    came: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// Starts one; `reply` gets the number of requests that came to this path before, and the path.
    pub fn start(reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", reply)
    }

    /// Starts one at an address that is free.
    pub fn start_at(address: &str, reply: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (came, reply) = (Arc::new(Mutex::new(Vec::new())), Arc::new(reply));
        let seen = came.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (seen, reply) = (seen.clone(), reply.clone());
                thread::spawn(move || serve(socket, &seen, &*reply));
            }
        });
        Self { url, came }
    }

    /// What came to paths that begin so, oldest first.
    pub fn came(&self, path: &str) -> Vec<Request> {
        self.came.lock().expect("no panic").iter().filter(|request| request.path.starts_with(path)).cloned().collect()
    }

    /// Waits until so many have come there, and returns them.
    pub fn wait_for(&self, path: &str, count: usize) -> Vec<Request> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.came(path).len() < count {
            assert!(Instant::now() < until, "never {count} at {path}: {:#?}", self.came(""));
            thread::sleep(Duration::from_millis(20));
        }
        self.came(path)
    }
}

/// One request a connection.
fn serve(mut socket: TcpStream, seen: &Mutex<Vec<Request>>, reply: &dyn Fn(usize, &str) -> Reply) {
    let _ = socket.set_read_timeout(Some(Duration::from_secs(30)));
    let Some(request) = read(&mut socket) else { return };
    let path = request.path.clone();
    let before = {
        let mut seen = seen.lock().expect("no panic");
        let before = seen.iter().filter(|other| other.path == path).count();
        seen.push(request);
        before
    };
    match reply(before, &path) {
        Reply::Say(status, headers, body) => {
            let length = body.len();
            let _ = write!(socket, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        }
        Reply::Cut => {}
        // The other side hangs up before that.
        Reply::Hang => drop(socket.read(&mut [0; 1])),
    }
}

fn read(socket: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        let count = socket.read(&mut part).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let headers: Vec<(String, String)> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse::<usize>().ok());
        if bytes.len() < end + 4 + length.unwrap_or(0) {
            continue;
        }
        let path = head.split(' ').nth(1)?.to_owned();
        return Some(Request { path, headers, body: String::from_utf8_lossy(&bytes[end + 4..]).into_owned() });
    }
}
