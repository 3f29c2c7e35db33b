//! A mail server of the tests' own, by RFC 5321, quick enough to be no bound: a thread a connection, no TLS. It counts what it takes by
//! `Belayd-Delivery-Id`, writes down whoever breaks the protocol, and does with each mail what it is told, badly too.
//!
//! A mail is taken when its last line has come, whatever becomes of the answer; one whose last line never came is thrown away.

#![allow(unreachable_pub, dead_code, reason = "not every test binary and benchmark uses all of it")]

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Longest line, with its end (RFC 5321, 4.5.3.1.6).
const LINE_MAX: usize = 1_000;
/// Protocol faults that are kept.
const FAULTS_MAX: usize = 20;

/// What becomes of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Taken, and answered so long after its last line.
    Take(Duration),
    /// Taken, and the connection is hung up instead of an answer.
    TakeAndCut,
    /// Its recipient is refused for now.
    Defer,
    /// The connection is hung up behind its head; the mail is thrown away.
    CutMidway,
}

/// How a delivery was received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// How often it was taken.
    pub times: u64,
    /// How often marked as a possible repeat. The first may be: then an attempt before it came to nothing.
    pub marked: u64,
    /// How often behind the first without that mark: what was repeated came behind its repeat, or a repeat is not marked.
    pub unmarked_repeats: u64,
}

impl Received {
    /// Once more.
    pub fn again(&mut self, is_marked: bool) {
        self.unmarked_repeats += u64::from(self.times > 0 && !is_marked);
        self.times += 1;
        self.marked += u64::from(is_marked);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Where it listens, on loopback.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<HashMap<String, Received>>,
    /// Deliveries whose dialogue the server itself ended without an answer.
    cut: Mutex<HashSet<String>>,
    faults: Mutex<Vec<String>>,
    /// Mails that were begun.
    begun: AtomicU64,
    taken: AtomicU64,
    deferred: AtomicU64,
    /// Mails that the sender left off before their last line.
    unfinished: AtomicU64,
    /// Mails between MAIL and the word on them.
    open: AtomicU64,
}

impl SmtpServer {
    /// Starts one; `act` gets the number of mails that were begun before.
    pub fn start(act: impl Fn(u64) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared::default());
        let (ours, act) = (shared.clone(), Arc::new(act));
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (shared, act) = (ours.clone(), act.clone());
                thread::spawn(move || {
                    let mut dialogue = Dialogue { shared: &shared, greeted: false, envelope: None };
                    // A connection that breaks is the sender's affair; what had come is counted.
                    let _ = dialogue.hold(&socket, &*act);
                });
            }
        });
        Self { port, shared }
    }

    /// What was received, by delivery.
    pub fn received(&self) -> HashMap<String, Received> {
        self.shared.received.lock().expect("no panic").clone()
    }

    /// How many mails were taken.
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }

    /// Deliveries whose dialogue the server itself ended without an answer.
    pub fn cut(&self) -> HashSet<String> {
        self.shared.cut.lock().expect("no panic").clone()
    }

    /// How often the protocol was broken, by the first few.
    pub fn faults(&self) -> Vec<String> {
        self.shared.faults.lock().expect("no panic").clone()
    }

    /// Recipients that were refused for now.
    pub fn deferred(&self) -> u64 {
        self.shared.deferred.load(Ordering::Relaxed)
    }

    /// Mails that the sender left off before their last line.
    pub fn unfinished(&self) -> u64 {
        self.shared.unfinished.load(Ordering::Relaxed)
    }

    /// Mails between MAIL and the word on them.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }
}

/// One mail from MAIL on; counted as open while it is there.
struct Envelope<'a> {
    shared: &'a Shared,
    act: Act,
    to: Vec<String>,
    takes_8bit: bool,
}

impl Drop for Envelope<'_> {
    fn drop(&mut self) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Dialogue<'a> {
    shared: &'a Shared,
    greeted: bool,
    envelope: Option<Envelope<'a>>,
}

impl Dialogue<'_> {
    fn fault(&self, what: String) {
        let mut faults = self.shared.faults.lock().expect("no panic");
        if faults.len() < FAULTS_MAX {
            faults.push(what);
        }
    }

    /// One line without its end; `None` where the sender has hung up.
    fn line(&self, from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<()>> {
        line.clear();
        from.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', line)?;
        if line.last() != Some(&b'\n') {
            if line.len() > LINE_MAX {
                self.fault("a line is longer than 1,000 bytes".into());
            }
            return Ok(None);
        }
        line.pop();
        if line.pop() != Some(b'\r') {
            self.fault(format!("a line ends without CR: {}", String::from_utf8_lossy(line)));
            return Ok(None);
        }
        Ok(Some(()))
    }

    fn hold(&mut self, socket: &TcpStream, act: &dyn Fn(u64) -> Act) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let (mut reader, mut writer) = (BufReader::new(socket), socket);
        writer.write_all(b"220 receiver.test ESMTP\r\n")?;
        let mut line = Vec::new();
        while self.line(&mut reader, &mut line)?.is_some() {
            let text = String::from_utf8_lossy(&line).into_owned();
            let verb = text.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let answer: &[u8] = match verb.as_str() {
                "EHLO" | "HELO" => {
                    (self.greeted, self.envelope) = (true, None);
                    b"250-receiver.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 33554432\r\n"
                }
                "MAIL" => self.mail(&text, act),
                "RCPT" => self.rcpt(&text),
                "DATA" => match self.envelope.take() {
                    Some(envelope) if !envelope.to.is_empty() => {
                        writer.write_all(b"354 end with a point\r\n")?;
                        if !self.data(&mut reader, &mut writer, envelope)? {
                            return Ok(());
                        }
                        continue;
                    }
                    _ => self.out_of_order(&text),
                },
                "RSET" => {
                    self.envelope = None;
                    b"250 2.0.0 reset\r\n"
                }
                "NOOP" => b"250 2.0.0 fine\r\n",
                "QUIT" => {
                    writer.write_all(b"221 2.0.0 bye\r\n")?;
                    return Ok(());
                }
                _ => {
                    self.fault(format!("no command: {text}"));
                    b"500 5.5.2 no command\r\n"
                }
            };
            writer.write_all(answer)?;
        }
        Ok(())
    }

    fn out_of_order(&self, text: &str) -> &'static [u8] {
        self.fault(format!("out of order: {text}"));
        b"503 5.5.1 out of order\r\n"
    }

    fn mail(&mut self, text: &str, act: &dyn Fn(u64) -> Act) -> &'static [u8] {
        if !self.greeted || self.envelope.is_some() {
            return self.out_of_order(text);
        }
        let Some((_, options)) = address(text, "MAIL FROM:") else {
            self.fault(format!("no sender: {text}"));
            return b"501 5.5.4 no sender\r\n";
        };
        let takes_8bit = options.split(' ').any(|option| option.eq_ignore_ascii_case("BODY=8BITMIME"));
        let act = act(self.shared.begun.fetch_add(1, Ordering::Relaxed));
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        self.envelope = Some(Envelope { shared: self.shared, act, to: Vec::new(), takes_8bit });
        b"250 2.1.0 fine\r\n"
    }

    fn rcpt(&mut self, text: &str) -> &'static [u8] {
        let Some(envelope) = &mut self.envelope else { return self.out_of_order(text) };
        if envelope.act == Act::Defer {
            self.shared.deferred.fetch_add(1, Ordering::Relaxed);
            return b"451 4.7.1 come again\r\n";
        }
        match address(text, "RCPT TO:") {
            Some((to, _)) if !to.is_empty() => {
                envelope.to.push(to.to_owned());
                b"250 2.1.5 fine\r\n"
            }
            _ => {
                self.fault(format!("no recipient: {text}"));
                b"501 5.5.4 no recipient\r\n"
            }
        }
    }

    /// The mail itself; whether the connection goes on.
    fn data(&self, reader: &mut impl BufRead, writer: &mut impl Write, envelope: Envelope<'_>) -> io::Result<bool> {
        let (mut line, mut in_head) = (Vec::new(), true);
        let mut head: Vec<(String, String)> = Vec::new();
        loop {
            if !matches!(self.line(reader, &mut line), Ok(Some(()))) {
                self.shared.unfinished.fetch_add(1, Ordering::Relaxed);
                return Ok(false);
            }
            if line == b"." {
                break;
            }
            if !envelope.takes_8bit && !line.is_ascii() {
                self.fault("8 bits that were not announced".into());
            }
            // A point at the beginning was doubled by the sender; nothing in a head begins so.
            if !in_head {
                continue;
            }
            let text = String::from_utf8_lossy(&line).into_owned();
            if text.is_empty() {
                in_head = false;
                if envelope.act == Act::CutMidway {
                    self.shared.cut.lock().expect("no panic").insert(value(&head, "belayd-delivery-id").to_owned());
                    return Ok(false);
                }
            } else if text.starts_with([' ', '\t']) {
                if let Some((_, value)) = head.last_mut() {
                    value.push_str(&text);
                }
            } else if let Some((name, value)) = text.split_once(':') {
                head.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            } else {
                self.fault(format!("no header: {text}"));
            }
        }
        let id = value(&head, "belayd-delivery-id").to_owned();
        if id.is_empty() || !value(&head, "message-id").starts_with(&format!("<{id}@")) {
            self.fault(format!("delivery {id:?} came as Message-ID {:?}", value(&head, "message-id")));
        }
        let is_marked = value(&head, "belayd-possible-repeat") == "true";
        self.shared.received.lock().expect("no panic").entry(id.clone()).or_default().again(is_marked);
        self.shared.taken.fetch_add(1, Ordering::Relaxed);
        match envelope.act {
            Act::TakeAndCut => {
                self.shared.cut.lock().expect("no panic").insert(id);
                return Ok(false);
            }
            Act::Take(after) if !after.is_zero() => thread::sleep(after),
            _ => {}
        }
        drop(envelope);
        writer.write_all(format!("250 2.0.0 taken as {id}\r\n").as_bytes())?;
        Ok(true)
    }
}

fn value<'a>(head: &'a [(String, String)], name: &str) -> &'a str {
    head.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

/// The address between the brackets, and what stands behind them.
fn address<'a>(text: &'a str, before: &str) -> Option<(&'a str, &'a str)> {
    let start = text.get(..before.len()).filter(|start| start.eq_ignore_ascii_case(before))?;
    let (address, rest) = text[start.len()..].strip_prefix('<')?.split_once('>')?;
    Some((address, rest.trim_start()))
}
