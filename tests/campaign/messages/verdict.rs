//! The comparison: what the databases say of each delivery, against what its receiver has and what was in flight.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Integer, Nullable, Text},
};
use serde_json::Value;

use super::{
    AGAIN, Part, Site,
    flight::{control, number},
    hook,
    posters::Handed,
};
use crate::support::smtp_server::Received;

const ON_ITS_WAY: &str = "state IN ('scheduled', 'ready', 'claimed', 'sending', 'retry')";
const COLUMNS: &str = "id, sink, state, on_unknown, possible_repeat, attempt, last_error";
/// Why a person decides, in the audit.
const REASON: &str = r#"{"reason":"the receiver was asked"}"#;
/// What is told of what is wrong, at most.
const TOLD_MAX: usize = 20;

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    sink: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = Text)]
    on_unknown: String,
    #[diesel(sql_type = Integer)]
    possible_repeat: i32,
    #[diesel(sql_type = Integer)]
    attempt: i32,
    #[diesel(sql_type = Nullable<Text>)]
    last_error: Option<String>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Row {
    fn told(&self, what: &str, received: &Received, was_in_flight: bool) -> String {
        format!(
            "{what} {} to {} is {} ({}, repeat {}, attempt {}, {}), received {} times, {} of them marked, in flight at a fault: {was_in_flight}",
            self.id,
            self.sink,
            self.state,
            self.on_unknown,
            self.possible_repeat,
            self.attempt,
            self.last_error.as_deref().unwrap_or("no error"),
            received.times,
            received.marked
        )
    }
}

fn messages(site: &Site) -> Result<Vec<Row>, String> {
    let mut conn = PgConnection::establish(&site.url).map_err(|error| error.to_string())?;
    sql_query(format!("SELECT {COLUMNS} FROM deliveries")).load(&mut conn).map_err(|error| error.to_string())
}

fn notices(site: &Site) -> Result<Vec<Row>, String> {
    let mut all = Vec::new();
    for one in &site.instances {
        let found = sql_query(format!("SELECT {COLUMNS} FROM deliveries WHERE sink = 'smtp'")).load(&mut control(&one.daemon)?);
        all.append(&mut found.map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// Waits until nothing is on its way.
pub fn settle(site: &Site) -> Result<(), String> {
    let until = Instant::now() + AGAIN;
    loop {
        let mut left = number(&site.url, &format!("SELECT count(*) AS n FROM deliveries WHERE {ON_ITS_WAY}"))?;
        for one in &site.instances {
            let query = format!("SELECT count(*) AS n FROM deliveries WHERE sink = 'smtp' AND {ON_ITS_WAY}");
            let count: Count = sql_query(query).get_result(&mut control(&one.daemon)?).map_err(|error| error.to_string())?;
            left += count.n.unsigned_abs();
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > until {
            let stuck: Vec<String> = messages(site)?
                .iter()
                .chain(&notices(site)?)
                .filter(|row| !["sent", "uncertain"].contains(&row.state.as_str()))
                .take(TOLD_MAX)
                .map(|row| row.told("", &Received::default(), site.flight.met(&row.id)))
                .collect();
            return Err(format!("{left} deliveries have no end within {AGAIN:?}: {}\n{}", stuck.join("; "), site.logs()));
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn judged(wrong: Vec<String>, what: &str) -> Result<(), String> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}: {} are wrong: {}", what, wrong.len(), wrong[..wrong.len().min(TOLD_MAX)].join("; ")))
}

/// What came of it by itself.
pub fn before_decisions(part: &mut Part, site: &Site, handed: &Handed) -> Result<(), String> {
    let (rows, notices) = (messages(site)?, notices(site)?);
    let (mails, hooks, cut) = (site.mail.received(), site.hook.heard(), site.mail.cut());
    let nothing = Received::default();
    let mut wrong = site.mail.faults();
    let there: HashMap<&str, &Row> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    for posted in &handed.messages {
        let sink = if posted.by_mail { "smtp" } else { hook::NAME };
        if there.get(posted.delivery.as_str()).is_none_or(|row| row.sink != sink) {
            wrong.push(format!("{} was acknowledged and is not there", posted.delivery));
        }
    }
    if rows.len() != handed.messages.len() {
        wrong.push(format!("{} were acknowledged, {} are there", handed.messages.len(), rows.len()));
    }
    if (notices.len() as u64) < handed.turns {
        wrong.push(format!("{} alerts began or ended, {} notices are there", handed.turns, notices.len()));
    }
    let known: HashSet<&str> = rows.iter().chain(&notices).map(|row| row.id.as_str()).collect();
    wrong.extend(mails.keys().filter(|id| !known.contains(id.as_str())).map(|id| format!("a mail {id} that nobody knows")));

    let mut uncertain = 0;
    for (row, is_notice) in rows.iter().map(|row| (row, false)).chain(notices.iter().map(|row| (row, true))) {
        let by_mail = row.sink == "smtp";
        let received = if by_mail { &mails } else { &hooks }.get(&row.id).unwrap_or(&nothing);
        // By mail only these may be unknown: a fault met them, or the server hung up on them.
        let excused = !by_mail || site.flight.met(&row.id) || cut.contains(&row.id);
        let is_right = match (row.state.as_str(), row.on_unknown.as_str()) {
            ("sent", "review") => received.times == 1 && received.marked == 0,
            ("uncertain", "review") => received.times <= 1 && excused,
            ("sent", "resend") => {
                received.times >= 1
                    && received.times - received.marked <= 1
                    && (received.times == 1 || (row.possible_repeat == 1 && excused))
            }
            _ => false,
        };
        if !is_right {
            wrong.push(row.told(if is_notice { "notice" } else { "message" }, received, site.flight.met(&row.id)));
        }
        let again = received.times.saturating_sub(1);
        part.count("repeats that came before what they repeat", received.unmarked_repeats);
        let is_uncertain = u64::from(row.state == "uncertain");
        let has_it = u64::from(received.times > 0);
        match (by_mail, is_notice) {
            (true, false) => {
                part.count("messages by mail", 1);
                part.count("by mail: uncertain, left to a person", is_uncertain);
                part.count("by mail: uncertain, and the server has it", is_uncertain * has_it);
                part.count("by mail: repeats, marked, where sending again is asked for", again);
                uncertain += is_uncertain;
            }
            (true, true) => {
                part.count("alerts' notices by mail", 1);
                part.count("alerts' notices: repeats, marked", again);
            }
            _ => {
                part.count("messages by webhook", 1);
                part.count("by webhook: uncertain, left to a person", is_uncertain);
                part.count("by webhook: repeats with the same key, marked", again);
            }
        }
    }
    part.count("mails taken by the server", site.mail.taken());
    part.count("mails refused for now", site.mail.deferred());
    part.count("mails on which the server hung up", cut.len() as u64);
    part.count("mails left off by the sender before their end", site.mail.unfinished());
    part.count("mails in flight at faults", site.flight.sum);
    if uncertain > site.flight.sum + cut.len() as u64 {
        wrong.push(format!("{uncertain} mails are uncertain, {} were in flight at faults", site.flight.sum));
    }
    judged(wrong, "before anybody decided")
}

/// What the API lists as uncertain at a sink.
fn listed(site: &Site, sink: &str) -> Result<HashSet<String>, String> {
    let (mut ids, mut cursor) = (HashSet::new(), String::new());
    loop {
        let path = format!("/admin/failures?kind=delivery&state=uncertain&sink={sink}&limit=500{cursor}");
        let answer = site.instances[0].daemon.get(&path);
        let page = answer.json();
        let items = page["items"].as_array().ok_or_else(|| format!("{path}: {} {}", answer.status, answer.body))?;
        ids.extend(items.iter().filter_map(|item| item["id"].as_str()).map(str::to_owned));
        match &page["nextCursor"] {
            Value::String(next) => cursor = format!("&cursor={next}"),
            _ => return Ok(ids),
        }
    }
}

/// A person asks the mail server about each uncertain mail, and has the rest sent again. Returns how many there were.
pub fn decide(part: &mut Part, site: &Site) -> Result<u64, String> {
    let mut decided = 0;
    let rows = messages(site)?;
    let (daemon, mails) = (&site.instances[0].daemon, site.mail.received());
    for sink in ["smtp", hook::NAME] {
        let stands = |row: &&Row| row.sink == sink && row.state == "uncertain";
        let there: HashSet<String> = rows.iter().filter(stands).map(|row| row.id.clone()).collect();
        let listed = listed(site, sink)?;
        if listed != there {
            let differ: Vec<_> = listed.symmetric_difference(&there).take(TOLD_MAX).collect();
            return Err(format!("{} are uncertain at {sink}, the API lists {}: {differ:?}", there.len(), listed.len()));
        }
        for id in &listed {
            let json = [("Content-Type", "application/json")];
            let (method, word, what) = match sink == "smtp" && mails.contains_key(id) {
                true => ("POST", "mark-sent", "decided: marked as sent, the server has it"),
                // The receiver of webhooks honours the key.
                false => ("PATCH", "retry", "decided: sent again"),
            };
            let answer = daemon.request(method, &format!("/admin/failures/{id}/{word}"), &json, REASON);
            if answer.status != 200 {
                return Err(format!("{word} of {id}: {} {}", answer.status, answer.body));
            }
            part.count(what, 1);
            decided += 1;
        }
    }
    Ok(decided)
}

/// Everything has arrived: by mail once, but for what may be sent again; by webhook once for whoever honours the key.
pub fn after_decisions(part: &mut Part, site: &Site) -> Result<(), String> {
    let (rows, mails, hooks) = (messages(site)?, site.mail.received(), site.hook.heard());
    let nothing = Received::default();
    let mut wrong = site.mail.faults();
    for row in &rows {
        let by_mail = row.sink == "smtp";
        let received = if by_mail { &mails } else { &hooks }.get(&row.id).unwrap_or(&nothing);
        let once = by_mail && row.on_unknown == "review";
        if row.state != "sent" || received.times == 0 || (once && received.times > 1) {
            wrong.push(row.told("message", received, site.flight.met(&row.id)));
        }
        part.count("arrived", u64::from(received.times > 0));
    }
    part.count("comparisons", 1);
    judged(wrong, "after a person had decided")
}
