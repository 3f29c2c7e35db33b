//! A receiver of webhooks that honours the idempotency key: it counts by delivery id, and takes each once.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use crate::support::smtp_server::Received;

/// The sink's name.
pub const NAME: &str = "counter";

/// See the module.
#[derive(Clone, Debug)]
pub struct Hook {
    pub url: String,
    heard: Arc<Mutex<HashMap<String, Received>>>,
}

impl Hook {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let hook = Self { url, heard: Arc::default() };
        let ours = hook.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let ours = ours.clone();
                thread::spawn(move || ours.serve(socket));
            }
        });
        hook
    }

    /// What was received, by delivery.
    pub fn heard(&self) -> HashMap<String, Received> {
        self.heard.lock().expect("no panic").clone()
    }

    /// Counts the requests of one connection, each before it is answered.
    fn serve(&self, mut socket: TcpStream) {
        let mut request = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let Ok(read @ 1..) = socket.read(&mut piece) else { return };
            request.extend_from_slice(&piece[..read]);
            while let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
                let field =
                    |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
                let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
                if request.len() < end + 4 + length {
                    break;
                }
                request.drain(..end + 4 + length);
                // The key is what a receiver goes by; it is the delivery's id, the same in each attempt.
                if let Some(id) = field("idempotency-key").filter(|key| field("belayd-delivery-id").as_ref() == Some(key)) {
                    let is_marked = field("belayd-possible-repeat").is_some();
                    self.heard.lock().expect("no panic").entry(id).or_default().again(is_marked);
                }
                if socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                    return;
                }
            }
        }
    }
}
