//! A network in between that can be made bad: it cuts, refuses, delays, throttles, swallows and half-closes.
//!
//! In: TCP connections. Out: the same bytes in the same order to the other side, as the mood allows. Two threads a connection; a mood
//! holds for the connections that are there and for new ones, until the next. Apart from it those that are there can be made deaf for good.

#![allow(unreachable_pub, dead_code, reason = "not every test binary uses all of it")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// How the network is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// Good.
    #[default]
    Good,
    /// New connections are closed at once; those that were there have been cut.
    Refuse,
    /// Each piece comes this much later.
    Delay(Duration),
    /// Bytes a second.
    Throttle(u64),
    /// Nothing passes, nothing is closed.
    Swallow,
    /// What the dialler sends is ended, answers still come.
    HalfCloseThere,
    /// Answers are ended, what the dialler sends still goes.
    HalfCloseBack,
}

#[derive(Debug, Default)]
struct Shared {
    mood: Mutex<Mood>,
    /// Connections of an earlier age are cut.
    age: AtomicU64,
    /// Connections made so far, and how many of them, from the first on, are deaf.
    made: AtomicU64,
    deaf: AtomicU64,
    end: AtomicBool,
}

impl Shared {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Dropped, it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    /// Where it listens.
    pub address: String,
}

impl Proxy {
    /// Listens on loopback and dials `upstream`, `127.0.0.1:port`.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared::default());
        let (mine, upstream) = (shared.clone(), upstream.to_owned());
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if mine.end.load(Ordering::Relaxed) {
                    return;
                }
                if mine.mood() == Mood::Refuse {
                    continue;
                }
                let Ok(other) = TcpStream::connect(&upstream) else { continue };
                let born = Born { age: mine.age.load(Ordering::Relaxed), number: mine.made.fetch_add(1, Ordering::Relaxed) };
                for (from, to, back) in [(&socket, &other, false), (&other, &socket, true)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let mine = mine.clone();
                    thread::spawn(move || pump(&mine, born, from, to, back));
                }
            }
        });
        Self { shared, address }
    }

    /// Changes the network.
    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        if mood == Mood::Refuse {
            self.cut();
        }
    }

    /// From now on nothing passes over the connections that are there, in either direction, and nobody is told: neither are they closed,
    /// nor does one side hear of the other's end. New ones are as good as the mood.
    pub fn deafen(&self) {
        self.shared.deaf.store(self.shared.made.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Cuts every connection in the middle of whatever it carries; new ones are as good as the mood.
    pub fn cut(&self) {
        self.shared.age.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the listener.
        let _ = TcpStream::connect(&self.address);
    }
}

/// When a connection was made.
#[derive(Clone, Copy, Debug)]
struct Born {
    age: u64,
    number: u64,
}

fn pump(shared: &Shared, born: Born, mut from: TcpStream, mut to: TcpStream, back: bool) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(10)));
    let _ = from.set_nodelay(true);
    // A side that does not read must not hold this thread for ever.
    let _ = to.set_write_timeout(Some(Duration::from_secs(5)));
    let mut piece = vec![0; 16 * 1024];
    while shared.age.load(Ordering::Relaxed) == born.age {
        let deaf = born.number < shared.deaf.load(Ordering::Relaxed);
        let mood = if deaf { Mood::Swallow } else { shared.mood() };
        let most = match mood {
            Mood::Swallow => {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            Mood::HalfCloseThere if !back => return half_close(&from, &to),
            Mood::HalfCloseBack if back => return half_close(&from, &to),
            Mood::Throttle(rate) => usize::try_from(rate / 50).unwrap_or(1).clamp(1, piece.len()),
            _ => piece.len(),
        };
        match from.read(&mut piece[..most]) {
            Ok(0) => return half_close(&from, &to),
            Ok(read) => {
                match mood {
                    Mood::Delay(time) => thread::sleep(time),
                    Mood::Throttle(_) => thread::sleep(Duration::from_millis(20)),
                    _ => {}
                }
                if born.number < shared.deaf.load(Ordering::Relaxed) {
                    continue;
                }
                // A cut while it waited takes the piece along.
                if shared.age.load(Ordering::Relaxed) != born.age || to.write_all(&piece[..read]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    // Cut, or one side is gone or takes nothing: a network in between would tell both.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn half_close(from: &TcpStream, to: &TcpStream) {
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
