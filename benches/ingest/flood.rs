//! An open-loop generator that costs little: one thread, prepared bodies, many connections that never block. What is due is sent on
//! whichever connection is free, whatever the daemon does; a slow sender hands its body over in pieces.

use std::{
    io::{ErrorKind, Read, Write},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use crate::load::{Load, Outcome, Pusher};

/// Bytes that one call offers to the kernel: more would keep the other connections waiting.
const PIECE_BYTES: usize = 64 * 1024;

/// Senders that are always at it and hand over their bodies in pieces: what fills `admission_bytes` without filling the processor.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    /// How many.
    pub senders: usize,
    /// Bytes of a piece.
    pub piece_bytes: usize,
    /// From one piece to the next.
    pub pause: Duration,
}

/// What came of a flood.
#[derive(Debug)]
pub struct Flooded {
    /// Answers, over all senders. Latency counts from the moment a push was due; that of a slow sender from its last piece.
    pub outcome: Outcome,
    /// Pushes that were due.
    pub due: u64,
    /// Connections that ended without an answer that could be read.
    pub unanswered: u64,
}

/// One connection.
struct Sender {
    pusher: Pusher,
    state: State,
    slow: bool,
    due: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Idle,
    /// So much is sent; not before then goes more.
    Sending(usize, Instant),
    Waiting,
}

impl Load {
    /// `rate` pushes a second over the connections of this load, and the slow senders beside them, for `length`. Connections are
    /// numbered from `first`. A refused push is not sent again: the next one that is due is.
    pub fn flood(&self, first: usize, rate: f64, slow: Option<Slow>, length: Duration) -> Flooded {
        let slow_senders = slow.map_or(0, |slow| slow.senders);
        let began = Instant::now();
        let sender = |n: usize| {
            let pusher = Pusher::new(self, first + n, None);
            pusher.socket.set_nonblocking(true).expect("a socket");
            Sender { pusher, state: State::Idle, slow: n < slow_senders, due: began }
        };
        let mut senders: Vec<Sender> = (0..slow_senders + self.connections).map(sender).collect();
        let (started, mut flooded) = (Instant::now(), Flooded { outcome: Outcome::new(), due: 0, unanswered: 0 });
        let mut polled: Vec<libc::pollfd> = Vec::new();
        while started.elapsed() < length {
            let now = Instant::now();
            let mut free = slow_senders;
            while started.elapsed().as_secs_f64() * rate > flooded.due as f64 {
                // Where no connection is free, the push goes out late and its latency says so.
                let Some(at) = (free..senders.len()).find(|at| senders[*at].state == State::Idle) else { break };
                let due = started + Duration::from_secs_f64(flooded.due as f64 / rate);
                senders[at].begin(due, now);
                (free, flooded.due) = (at + 1, flooded.due + 1);
            }
            for (n, sender) in senders.iter_mut().take(slow_senders).enumerate() {
                if sender.state == State::Idle {
                    // Not all in step.
                    let lag = slow.map_or(Duration::ZERO, |slow| slow.pause * n as u32 / slow.senders as u32);
                    sender.begin(now, now + lag);
                }
            }
            polled.clear();
            polled.extend(senders.iter().map(|sender| sender.wish(now)));
            // SAFETY: the list is as long as is said, and lives through the call.
            unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 1) };
            for (sender, polled) in senders.iter_mut().zip(&polled) {
                if polled.revents != 0 && sender.step(self.push, slow, &mut flooded.outcome).is_err() {
                    flooded.unanswered += 1;
                    sender.connect_again();
                }
            }
        }
        flooded.outcome.took = started.elapsed();
        // What is on its way is answered, so that what was accepted can be compared with what is stored.
        for sender in senders.iter_mut().filter(|sender| sender.state == State::Waiting) {
            sender.pusher.socket.set_nonblocking(false).expect("a socket");
            let status = sender.pusher.receive();
            let took = sender.due.elapsed();
            flooded.outcome.count(status, self.push, took, || sender.pusher.last_answer());
        }
        flooded
    }
}

impl Sender {
    fn begin(&mut self, due: Instant, not_before: Instant) {
        self.due = due;
        self.pusher.length = 0;
        self.state = State::Sending(0, not_before);
    }

    /// What to be woken for.
    fn wish(&self, now: Instant) -> libc::pollfd {
        let events = match self.state {
            State::Idle => 0,
            // An early answer is read as well.
            State::Sending(_, at) if at > now => libc::POLLIN,
            State::Sending(..) => libc::POLLIN | libc::POLLOUT,
            State::Waiting => libc::POLLIN,
        };
        libc::pollfd { fd: if events == 0 { -1 } else { self.pusher.socket.as_raw_fd() }, events, revents: 0 }
    }

    fn step(&mut self, push: usize, slow: Option<Slow>, outcome: &mut Outcome) -> std::io::Result<()> {
        if let State::Sending(sent, at) = self.state
            && at <= Instant::now()
        {
            let piece = if self.slow { slow.map_or(PIECE_BYTES, |slow| slow.piece_bytes) } else { PIECE_BYTES };
            let rest = &self.pusher.request[sent..];
            match self.pusher.socket.write(&rest[..rest.len().min(piece)]) {
                Ok(written) if written == rest.len() => {
                    self.state = State::Waiting;
                    if self.slow {
                        self.due = Instant::now();
                    }
                }
                Ok(written) => {
                    let pause = if self.slow { slow.map_or(Duration::ZERO, |slow| slow.pause) } else { Duration::ZERO };
                    self.state = State::Sending(sent + written, Instant::now() + pause);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The answer may still be there to be read.
                Err(_) => self.state = State::Waiting,
            }
        }
        loop {
            let pusher = &mut self.pusher;
            match pusher.socket.read(&mut pusher.answer[pusher.length..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => pusher.length += read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let Some(status) = pusher.answered() else { continue };
            let early = matches!(self.state, State::Sending(..));
            if outcome.count(status, push, self.due.elapsed(), || pusher.last_answer()) {
                pusher.advance();
            }
            if early || pusher.is_closed() {
                self.connect_again();
            }
            self.state = State::Idle;
            return Ok(());
        }
    }

    fn connect_again(&mut self) {
        self.pusher.connect_again();
        self.pusher.socket.set_nonblocking(true).expect("a socket");
        self.state = State::Idle;
    }
}
