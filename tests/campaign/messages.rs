//! Deliveries of messages by three instances on one PostgreSQL, of which one is killed, or halted beyond its lease, over and over, and now
//! and then the database crashes. A receiver counts by delivery id.
//!
//! At the end nothing is lost: each was received and is `sent`, or is `uncertain` where its route leaves that to a person. What a route
//! wants reviewed was received at most once; what it wants sent again was received more than once only with its mark.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use belayd::{
    config::{Config, OnUnknown},
    store::{
        Store,
        deliveries::{NewDelivery, enqueue},
    },
};
use diesel::{Connection, PgConnection, RunQueryDsl, sql_types::Text};

use super::{
    dice::Dice,
    part::{Campaign, Part},
};
use crate::support::{
    daemon::{Daemon, Setup},
    postgres::{Postgres, is_installed},
};

const INSTANCES: usize = 3;
/// Fewest messages of a short and of a long campaign.
const MESSAGES: (u64, u64) = (4_000, 100_000);
/// Lanes of them.
const LANES: u64 = 500;
/// Longest wait until everything has come to an end after the last fault.
const AGAIN: Duration = Duration::from_secs(180);
/// Attempts at a transaction while the database is being restarted.
const TRIES: u32 = 600;

/// How often each delivery was received.
type Heard = Arc<Mutex<HashMap<String, u64>>>;

fn receiver() -> Result<(String, Heard), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let url = format!("http://{}/", listener.local_addr().map_err(|error| error.to_string())?);
    let heard = Heard::default();
    let notes = heard.clone();
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let notes = notes.clone();
            thread::spawn(move || receive(socket, &notes));
        }
    });
    Ok((url, heard))
}

/// Counts the requests of one connection, each before it is answered.
fn receive(mut socket: TcpStream, heard: &Heard) {
    let mut request = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = socket.read(&mut piece) else { return };
        request.extend_from_slice(&piece[..read]);
        while let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned));
            let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if request.len() < end + 4 + length {
                break;
            }
            request.drain(..end + 4 + length);
            if let (Some(id), Ok(mut heard)) = (field("belayd-delivery-id"), heard.lock()) {
                *heard.entry(id).or_default() += 1;
            }
            if socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

/// Until the part is over.
pub fn run(campaign: &Campaign, part: &mut Part) {
    if !is_installed() {
        part.left_out.push("PostgreSQL is not installed".into());
        return;
    }
    let mut dice = part.dice(campaign, 0);
    let least = if campaign.long { MESSAGES.1 } else { MESSAGES.0 };
    part.attempt("messages", |part| history(part, &mut dice, least));
}

fn history(part: &mut Part, dice: &mut Dice, least: u64) -> Result<(), String> {
    let mut server = Postgres::start(&[]);
    let url = server.new_database("messages");
    let (hook, heard) = receiver()?;
    let more = format!(
        "[outbox]\nlease = \"2s\"\nretry_base = \"50ms\"\nretry_max = \"500ms\"\nmax_attempts = 1000\n[[webhooks]]\nname = \"counter\"\nurl = \"{hook}\"\n"
    );
    let mut daemons: Vec<Daemon> = (0..INSTANCES).map(|_| Setup::with(&more).store(&url).start()).collect();
    daemons[0].wait_for("at its database", AGAIN, |daemon| daemon.get("/readyz").json()["checks"]["store"] != "away");
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (url, over, pace) = (url.clone(), over.clone(), if least > 10_000 { 100 } else { 20 });
        thread::spawn(move || write(&url, least, pace, &over))
    };
    while part.goes_on() {
        thread::sleep(Duration::from_millis(dice.below(1_500)));
        let at = dice.below(INSTANCES as u64) as usize;
        if !daemons[at].is_running() {
            // Its overseer may end a process that was halted; whoever started it starts it again.
            daemons[at].spawn();
            part.count("ended by itself and was started again", 1);
            continue;
        }
        match dice.below(8) {
            0 => {
                server.crash();
                server.restart();
                part.fault("the database crashed");
            }
            1..=3 => {
                daemons[at].signal(libc::SIGSTOP);
                thread::sleep(Duration::from_millis(500 + dice.below(5_000)));
                daemons[at].signal(libc::SIGCONT);
                part.fault("an instance halted");
            }
            _ => {
                daemons[at].kill();
                daemons[at].spawn();
                part.fault("an instance killed");
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    let written = writer.join().map_err(|_| "the writer panicked".to_owned())??;
    part.count("messages", written);
    settle(&url, &daemons)?;
    compare(part, &url, &heard, written)
}

/// Enqueues until the faults are over and there were enough; returns how many.
fn write(url: &str, least: u64, pace: u64, over: &AtomicBool) -> Result<u64, String> {
    let mut config = Config::default().store;
    url.clone_into(&mut config.url);
    let store = Store::open(&config).map_err(|error| error.message)?;
    let mut written = 0;
    while written < least || !over.load(Ordering::Relaxed) {
        let rows: Vec<NewDelivery> = (written..written + pace).map(message).collect();
        let mut tries = 0;
        // One whose commit had no answer may be there: then its ids are, and that is all that was wanted.
        while let Err(error) = store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 1))) {
            if error.kind == belayd::store::StoreErrorKind::Conflict {
                break;
            }
            tries += 1;
            if tries > TRIES {
                return Err(format!("enqueue: {error}"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        written += pace;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(written)
}

/// Every second one is to be sent again where nobody knows whether it arrived.
fn message(n: u64) -> NewDelivery {
    NewDelivery {
        id: format!("m{n}"),
        sink: "counter".into(),
        lane: format!("to:{}", n % LANES),
        subject: format!("m{n}"),
        payload: format!(r#"{{"message":{{"id":"m{n}","subject":"s","body":"b","createdAt":"2026-01-01T00:00:00Z"}}}}"#),
        due_at_us: 0,
        max_attempts: 1_000,
        on_unknown: if n.is_multiple_of(2) { OnUnknown::Resend } else { OnUnknown::Review },
        recipient: String::new(),
    }
}

#[derive(diesel::QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    on_unknown: String,
    #[diesel(sql_type = diesel::sql_types::Integer)]
    possible_repeat: i32,
}

fn rows(url: &str, condition: &str) -> Result<Vec<Row>, String> {
    let mut conn = PgConnection::establish(url).map_err(|error| error.to_string())?;
    let text = format!("SELECT id, state, on_unknown, possible_repeat FROM deliveries WHERE sink = 'counter' AND {condition}");
    diesel::sql_query(text).load(&mut conn).map_err(|error| error.to_string())
}

/// Waits until nothing is on its way.
fn settle(url: &str, daemons: &[Daemon]) -> Result<(), String> {
    let until = Instant::now() + AGAIN;
    loop {
        let left = rows(url, "state IN ('scheduled', 'ready', 'claimed', 'sending', 'retry')");
        match left {
            Ok(left) if left.is_empty() => return Ok(()),
            _ if Instant::now() < until => thread::sleep(Duration::from_millis(200)),
            Ok(left) => {
                let logs: Vec<String> =
                    daemons.iter().map(|daemon| daemon.log().lines().rev().take(20).collect::<Vec<_>>().join("\n")).collect();
                return Err(format!(
                    "{} deliveries have no end within {AGAIN:?}, {} is {}:\n{}",
                    left.len(),
                    left[0].id,
                    left[0].state,
                    logs.join("\n---\n")
                ));
            }
            Err(error) => return Err(error),
        }
    }
}

fn compare(part: &mut Part, url: &str, heard: &Heard, written: u64) -> Result<(), String> {
    let all = rows(url, "true")?;
    let heard = heard.lock().map_err(|_| "the receiver panicked".to_owned())?;
    let mut wrong = Vec::new();
    if all.len() as u64 != written {
        wrong.push(format!("{written} were enqueued, {} are there", all.len()));
    }
    for row in &all {
        let received = heard.get(&row.id).copied().unwrap_or(0);
        let is_right = match (row.state.as_str(), row.on_unknown.as_str()) {
            ("sent", "review") => received == 1,
            ("sent", _) => received == 1 || (received > 1 && row.possible_repeat == 1),
            ("uncertain", "review") => received <= 1,
            _ => false,
        };
        if !is_right {
            wrong.push(format!(
                "{} is {} ({}, repeat {}), received {received} times",
                row.id, row.state, row.on_unknown, row.possible_repeat
            ));
        }
        part.count("received", received);
        part.count("received again, with the mark", received.saturating_sub(1));
        part.count("left to a person", u64::from(row.state == "uncertain"));
        part.count("of them received", u64::from(row.state == "uncertain" && received == 1));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} are wrong: {}", wrong.len(), wrong[..wrong.len().min(20)].join("; "))) }
}
