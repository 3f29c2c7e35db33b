//! Whoever hands messages in, and whoever makes alerts. A tenth of the messages comes over the API: who gets no answer goes on at another
//! instance, with the same idempotency key. The others are put into the table as they would be behind it, many in one transaction.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use belayd::{
    config::{Config, OnUnknown},
    store::{
        Store, StoreErrorKind,
        deliveries::{NewDelivery, enqueue},
    },
};
use serde_json::json;

use super::{INSTANCES, Part, Site, flight::number, hook};
use crate::support::client::Client;

const POSTERS: usize = 6;
/// One message of so many comes over the API.
const OVER_API: u64 = 10;
/// Messages of one transaction.
const BULK: u64 = 45;
/// What may wait in the table before more is put there: faults shall meet all of it, and not an end without any.
const BACKLOG: u64 = 1_000;
/// Recipients of mails; each has its order.
const RECIPIENTS: u64 = 500;
/// Longest that one message, or one reading, may take to be handed in.
const PATIENCE: Duration = Duration::from_secs(180);
/// Engines of each instance whose temperature goes up and down.
const ENGINES: u64 = 20;
/// From one reading to the next, at each instance.
const BEAT: Duration = Duration::from_millis(400);

/// A message that was acknowledged.
#[derive(Clone, Debug)]
pub struct Posted {
    /// The id of its one delivery.
    pub delivery: String,
    pub by_mail: bool,
    /// Whether it was handed in over the API.
    pub over_api: bool,
}

/// See the module.
pub struct Posters {
    threads: Vec<JoinHandle<Result<Vec<Posted>, String>>>,
    engines: Vec<JoinHandle<Result<u64, String>>>,
    work: Arc<Work>,
}

struct Work {
    url: String,
    /// Address and token of each instance.
    targets: Vec<(String, String)>,
    least: u64,
    a_second: f64,
    began: Instant,
    next: AtomicU64,
    acknowledged: AtomicU64,
    over: Arc<AtomicBool>,
    /// Answers that nobody should get.
    odd: Mutex<Vec<String>>,
}

/// What everybody handed in.
pub struct Handed {
    pub messages: Vec<Posted>,
    /// Readings that moved a rule from one phase to the other, and were acknowledged.
    pub turns: u64,
}

impl Posters {
    /// Hands in until `over`, and at least `least`, `a_second` at most.
    pub fn start(site: &Site, least: u64, a_second: f64, over: &Arc<AtomicBool>) -> Self {
        let targets = site.instances.iter().map(|one| (one.daemon.address.clone(), one.daemon.token.clone())).collect();
        let work = Arc::new(Work {
            url: site.url.clone(),
            targets,
            least,
            a_second,
            began: Instant::now(),
            next: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            over: over.clone(),
            odd: Mutex::default(),
        });
        let poster = |at: usize| {
            let work = work.clone();
            thread::spawn(move || work.post(at))
        };
        let engine = |at: usize| {
            let work = work.clone();
            thread::spawn(move || work.heat(at))
        };
        let writer = {
            let work = work.clone();
            thread::spawn(move || work.write())
        };
        Self { threads: (0..POSTERS).map(poster).chain([writer]).collect(), engines: (0..INSTANCES).map(engine).collect(), work }
    }

    /// Whether there are too few so far, and nobody has given up.
    pub fn is_short(&self) -> bool {
        let works = self.threads.iter().any(|thread| !thread.is_finished());
        works && self.work.acknowledged.load(Ordering::Relaxed) < self.work.least
    }

    /// Waits for what is in hand.
    pub fn join(self, part: &mut Part) -> Result<Handed, String> {
        let mut handed = Handed { messages: Vec::new(), turns: 0 };
        for thread in self.threads {
            handed.messages.append(&mut thread.join().map_err(|_| "a poster panicked".to_owned())??);
        }
        for thread in self.engines {
            handed.turns += thread.join().map_err(|_| "an engine panicked".to_owned())??;
        }
        let took = self.work.began.elapsed().as_secs().max(1);
        part.count("messages acknowledged", handed.messages.len() as u64);
        part.count("messages acknowledged over the API", handed.messages.iter().filter(|one| one.over_api).count() as u64);
        part.count("messages acknowledged a second", handed.messages.len() as u64 / took);
        let odd = self.work.odd.lock().map_err(|_| "a poster panicked".to_owned())?;
        if odd.is_empty() { Ok(handed) } else { Err(format!("answers that nobody should get: {}", odd.join("; "))) }
    }
}

impl Work {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note_odd(&self, answer: String) {
        if let Ok(mut odd) = self.odd.lock()
            && odd.len() < 10
        {
            odd.push(answer);
        }
    }

    fn clients(&self) -> Vec<Client> {
        self.targets.iter().map(|(address, token)| Client::new(address, token)).collect()
    }

    fn post(&self, at: usize) -> Result<Vec<Posted>, String> {
        let (clients, mut turn, mut posted) = (self.clients(), at, Vec::new());
        while !self.is_over() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.began + Duration::from_secs_f64(n as f64 * OVER_API as f64 / self.a_second);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let by_mail = n.is_multiple_of(2);
            let mut message = json!({
                "subject": format!("Message {n}"), "body": format!("The {n}th of many.\n.\nIt ends here."),
                "idempotencyKey": format!("c{n}"), "via": if by_mail { "smtp" } else { hook::NAME },
            });
            if by_mail {
                message["to"] = json!([format!("r{}@example.org", n / 2 % RECIPIENTS)]);
            }
            let (body, until) = (message.to_string(), Instant::now() + PATIENCE);
            let delivery = loop {
                let answer = clients[turn % INSTANCES].post("/api/messages", &body);
                match answer.status {
                    200 | 202 => {
                        let told = answer.json();
                        break told["deliveries"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| told.to_string())?;
                    }
                    // Nobody there, or not now.
                    0 | 408 | 429 | 503 => {}
                    _ => self.note_odd(format!("{} {}", answer.status, answer.body)),
                }
                if Instant::now() > until {
                    return Err(format!("message {n} was not taken within {PATIENCE:?}: {} {}", answer.status, answer.body));
                }
                turn += 1;
                thread::sleep(Duration::from_millis(20));
            };
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            posted.push(Posted { delivery, by_mail, over_api: true });
            // Each instance has its share.
            turn += 1;
        }
        Ok(posted)
    }

    /// Puts messages into the table.
    fn write(&self) -> Result<Vec<Posted>, String> {
        let mut config = Config::default().store;
        config.url.clone_from(&self.url);
        let store = Store::open(&config).map_err(|error| error.message)?;
        let (mut written, mut posted) = (0, Vec::new());
        while !self.is_over() {
            let rows: Vec<NewDelivery> = (written..written + BULK).map(bulk).collect();
            let until = Instant::now() + PATIENCE;
            // One whose commit had no answer may be there: then its ids are, and that is all that was wanted.
            while let Err(error) = store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 1))) {
                if error.kind == StoreErrorKind::Conflict {
                    break;
                }
                if Instant::now() > until {
                    return Err(format!("messages were not taken within {PATIENCE:?}: {error}"));
                }
                thread::sleep(Duration::from_millis(100));
            }
            posted.extend(rows.into_iter().map(|row| Posted { delivery: row.id, by_mail: row.sink == "smtp", over_api: false }));
            written += BULK;
            self.acknowledged.fetch_add(BULK, Ordering::Relaxed);
            let share = self.a_second * (1.0 - 1.0 / OVER_API as f64);
            let due = self.began + Duration::from_secs_f64(written as f64 / share);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // While the database is away nobody can tell.
            let waits = || number(&self.url, "SELECT count(*) AS n FROM deliveries WHERE state = 'ready'").unwrap_or(0);
            while !self.is_over() && waits() > BACKLOG {
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(posted)
    }

    /// Has engines of one instance overheat and cool down, one after the other; returns how often.
    fn heat(&self, at: usize) -> Result<u64, String> {
        let client = Client::new(&self.targets[at].0, &self.targets[at].1);
        let mut turns = 0;
        while !self.is_over() {
            let degrees = if (turns / ENGINES).is_multiple_of(2) { 400.0 } else { 300.0 };
            let body = format!(r#"{{"engineId":"a{at}-{}","temperature":{degrees}}}"#, turns % ENGINES);
            let until = Instant::now() + PATIENCE;
            loop {
                let answer = client.post("/api/readings", &body);
                match answer.status {
                    202 => break,
                    0 | 408 | 429 | 503 => {}
                    _ => self.note_odd(format!("{} {}", answer.status, answer.body)),
                }
                if Instant::now() > until {
                    return Err(format!("a reading was not taken within {PATIENCE:?}: {} {}", answer.status, answer.body));
                }
                thread::sleep(Duration::from_millis(50));
            }
            turns += 1;
            thread::sleep(BEAT);
        }
        Ok(turns)
    }
}

/// Of three the last is sent again where nobody knows whether it arrived.
fn bulk(n: u64) -> NewDelivery {
    let by_mail = n.is_multiple_of(2);
    let recipient = if by_mail { format!("r{}@example.org", n / 2 % RECIPIENTS) } else { String::new() };
    let id = uuid::Uuid::now_v7().to_string();
    NewDelivery {
        sink: if by_mail { "smtp" } else { hook::NAME }.to_owned(),
        lane: if by_mail { format!("to:{recipient}") } else { id.clone() },
        subject: id.clone(),
        payload: json!({"message": {
            "id": id, "subject": format!("Message {n}"), "body": format!("The {n}th of many.\n.\nIt ends here."),
            "createdAt": "2026-01-01T00:00:00.000000Z",
        }})
        .to_string(),
        due_at_us: 0,
        max_attempts: 1_000,
        on_unknown: if n % 3 == 2 { OnUnknown::Resend } else { OnUnknown::Review },
        recipient,
        id,
    }
}
