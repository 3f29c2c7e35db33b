//! A small HTTP client that keeps its connection, for senders in tests. It connects anew after a failure.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::daemon::Answer;

/// One connection to one daemon.
#[derive(Debug)]
pub struct Client {
    address: String,
    token: String,
    socket: RefCell<Option<TcpStream>>,
}

impl Client {
    /// Connects at the first request.
    pub fn new(address: &str, token: &str) -> Self {
        Self { address: address.into(), token: token.into(), socket: RefCell::new(None) }
    }

    /// GET; status 0 where there was no answer.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }

    /// POST of JSON; status 0 where the outcome is unknown.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.try_ask(method, path, body);
        if answer.is_none() {
            self.socket.take();
        }
        answer.unwrap_or(Answer { status: 0, head: String::new(), body: String::new() })
    }

    fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        let mut slot = self.socket.borrow_mut();
        if slot.is_none() {
            let socket = TcpStream::connect(&self.address).ok()?;
            socket.set_nodelay(true).ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
            *slot = Some(socket);
        }
        let socket = slot.as_mut()?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        );
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            let read = socket.read(&mut part).ok().filter(|read| *read > 0)?;
            answer.extend_from_slice(&part[..read]);
            let Some(split) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
            if answer.len() >= split + 4 + length {
                let status = head.get(9..12)?.parse().ok()?;
                if head.contains("connection: close") {
                    slot.take();
                }
                let body = String::from_utf8_lossy(&answer[split + 4..split + 4 + length]).into_owned();
                return Some(Answer { status, head, body });
            }
        }
    }
}
