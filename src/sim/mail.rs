//! The demo's mail server: takes every mail on a loopback port and hands it over. No toy of a protocol more than belayd's own mails need.
//!
//! In: SMTP in the clear, one thread a connection, at most [`CONNECTIONS_MAX`]. Out: subject, text and delivery id of each mail. A crash
//! loses what was on its way, which its sender then still has.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};

const CONNECTIONS_MAX: usize = 8;
/// Longest line of a command or a mail, bytes.
const LINE_MAX_BYTES: u64 = 8 * 1024;
/// Largest mail, bytes.
const MAIL_MAX_BYTES: usize = 1024 * 1024;
/// Longest silence of a client.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mail that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Decoded.
    pub subject: String,
    /// Its plain text, decoded.
    pub text: String,
    /// `Belayd-Delivery-Id`.
    pub delivery_id: Option<String>,
}

/// What is done with a mail.
pub type OnMail = Arc<dyn Fn(Mail) + Send + Sync>;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct MailHost {
    addr: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MailHost {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// Where no port can be bound or no thread can be started.
    pub fn start(on_mail: OnMail) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (addr, ending) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let told = ending.clone();
        let thread = std::thread::Builder::new().name("mail-catcher".into()).spawn(move || listen(&listener, &told, &on_mail))?;
        Ok(Self { addr, ending, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for MailHost {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Wakes the listener; where even that fails it is left to the process's end.
        if TcpStream::connect(self.addr).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(target: "belayd::sim", "the mail catcher panicked");
        }
    }
}

fn listen(listener: &TcpListener, ending: &AtomicBool, on_mail: &OnMail) {
    let open = Arc::new(AtomicUsize::new(0));
    for socket in listener.incoming() {
        if ending.load(Ordering::Acquire) {
            return;
        }
        let Ok(socket) = socket else { continue };
        // Beyond the bound a client is hung up, and comes again.
        if open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let (still_open, on_mail) = (open.clone(), on_mail.clone());
        let serve = move || {
            // A client that hangs up in the middle is its own affair.
            let _ = converse(&socket, &on_mail);
            still_open.fetch_sub(1, Ordering::AcqRel);
        };
        if std::thread::Builder::new().name("mail-catcher".into()).spawn(serve).is_err() {
            open.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn converse(socket: &TcpStream, on_mail: &OnMail) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(socket), socket);
    writer.write_all(b"220 belayd demo\r\n")?;
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line)? {
        let command = String::from_utf8_lossy(&line).trim().to_ascii_uppercase();
        let answer: &[u8] = match command.split_whitespace().next().unwrap_or_default() {
            "EHLO" => b"250-belayd demo\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            "HELO" | "MAIL" | "RCPT" | "RSET" | "NOOP" => b"250 fine\r\n",
            "QUIT" => {
                writer.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n")?;
                match read_mail(&mut reader)? {
                    Some(raw) => {
                        on_mail(parse(&raw));
                        b"250 it is in the inbox of the page\r\n"
                    }
                    None => b"552 too large for a demo\r\n",
                }
            }
            _ => b"502 not in a demo\r\n",
        };
        writer.write_all(answer)?;
    }
    Ok(())
}

/// One line; `false` at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    reader.take(LINE_MAX_BYTES).read_until(b'\n', line)?;
    Ok(line.ends_with(b"\n"))
}

/// Up to the point that ends it; `None` where it is too large, read to its end all the same.
fn read_mail(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut raw, mut line, mut fits) = (Vec::new(), Vec::new(), true);
    while read_line(reader, &mut line)? {
        if line == b".\r\n" {
            return Ok(fits.then_some(raw));
        }
        fits &= raw.len() + line.len() <= MAIL_MAX_BYTES;
        if fits {
            raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Subject, id and the first plain text of a mail.
fn parse(raw: &[u8]) -> Mail {
    let raw = String::from_utf8_lossy(raw).replace("\r\n", "\n");
    let (head, body) = raw.split_once("\n\n").unwrap_or((&raw, ""));
    let (part_head, part) = match raw.split_once("Content-Type: text/plain") {
        Some((_, rest)) => rest.split_once("\n\n").unwrap_or(("", rest)),
        None => (head, body),
    };
    let part = part.split("\n--").next().unwrap_or_default();
    let text = match header(part_head, "Content-Transfer-Encoding").unwrap_or_default().trim() {
        "base64" => base64(part),
        "quoted-printable" => quoted_printable(part),
        _ => part.to_owned(),
    };
    Mail {
        subject: header(head, "Subject").map(|subject| words(&subject)).unwrap_or_default(),
        text: text.trim().to_owned(),
        delivery_id: header(head, "Belayd-Delivery-Id"),
    }
}

/// A header's value, its folded lines put together.
fn header(head: &str, name: &str) -> Option<String> {
    let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
    let found = unfolded.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()));
    found.filter(|value| !value.is_empty())
}

/// Encoded words (RFC 2047) as what they mean; the space between two of them means nothing.
fn words(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some((before, word)) = rest.split_once("=?") {
        let mut parts = word.splitn(4, '?');
        let (Some(_), Some(kind), Some(coded), Some(after)) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            break;
        };
        if decoded.is_empty() || !before.trim().is_empty() {
            decoded.push_str(before);
        }
        decoded.push_str(&if kind.eq_ignore_ascii_case("b") { base64(coded) } else { quoted_printable(&coded.replace('_', " ")) });
        rest = after.strip_prefix('=').unwrap_or(after);
    }
    decoded + rest
}

fn base64(text: &str) -> String {
    let letters: String = text.split_whitespace().collect();
    BASE64_STANDARD.decode(letters).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn quoted_printable(text: &str) -> String {
    let text = text.replace("=\n", "");
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'=')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_mail_over_the_socket_arrives_decoded() {
        let inbox = Arc::new(Mutex::new(Vec::new()));
        let seen = inbox.clone();
        let host = MailHost::start(Arc::new(move |mail| seen.lock().expect("no panic").push(mail))).expect("it listens");
        let mut socket = TcpStream::connect(host.addr()).expect("a connection");
        let mail = "Subject: =?utf-8?b?6rK967O0?=\r\n =?utf-8?b?IOuwnOyDnQ==?= now\r\nBelayd-Delivery-Id: d1\r\nContent-Type: multipart/alternative; boundary=x\r\n\r\n\
                    --x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na =EA=B0=80=\r\n b\r\n..c\r\n--x--\r\n";
        let said = format!("EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{mail}.\r\nQUIT\r\n");
        socket.write_all(said.as_bytes()).expect("writes");
        let mut answers = String::new();
        socket.read_to_string(&mut answers).expect("reads");
        assert!(answers.ends_with("250 it is in the inbox of the page\r\n221 bye\r\n"), "{answers}");
        let expected = Mail { subject: "경보 발생 now".into(), text: "a 가 b\n.c".into(), delivery_id: Some("d1".into()) };
        assert_eq!(*inbox.lock().expect("no panic"), [expected]);
    }

    #[test]
    fn what_is_cut_off_is_no_mail_and_what_is_too_large_is_refused() {
        assert!(read_mail(&mut &b"Subject: a\r\n\r\nb\r\n"[..]).is_err());
        let large = [b"x".repeat(1000).as_slice(), b"\r\n"].concat().repeat(MAIL_MAX_BYTES / 1000 + 1);
        assert_eq!(read_mail(&mut &[large.as_slice(), b".\r\n"].concat()[..]).expect("read to its end"), None);
        for odd in [&b""[..], b"\n\n", b"Subject: =?utf-8?b?\n\nx", b"=?=", b"Subject: =?x?q?=zz?=\n\n"] {
            parse(odd);
        }
    }
}
