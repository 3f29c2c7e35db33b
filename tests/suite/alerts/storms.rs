//! Ten thousand alerts at once, and as many ends.

use serde_json::Value;

use super::{LIMIT, Receiver, reasons, to_hook};
use crate::support::daemon::{Daemon, Setup};

const ENGINES: usize = 10_000;

fn all_at(daemon: &Daemon, temperature: f64) {
    let readings: Vec<String> = (0..ENGINES).map(|n| format!(r#"{{"engineId":"e{n}","temperature":{temperature}}}"#)).collect();
    let body = format!("[{}]", readings.join(","));
    // While as many alerts as may wait are being committed, a push is asked to come again.
    daemon.wait_for("taken", LIMIT, |daemon| {
        let answer = daemon.post("/api/readings", &body);
        assert!(matches!(answer.status, 202 | 503), "{answer:?}");
        answer.json()["accepted"].as_u64() == Some(ENGINES as u64)
    });
}

/// Messages so far, and how many alerts they tell of that fire or are over.
fn told(receiver: &Receiver) -> (usize, u64, u64) {
    let all = receiver.all();
    let of = |body: &Value, word: &str, events: &[&str]| match body["event"].as_str() {
        Some("digest") => body[word].as_u64().unwrap_or(0),
        Some(event) => u64::from(events.contains(&event)),
        None => 0,
    };
    let sum = |word: &str, events: &[&str]| all.iter().map(|one| of(&one.body, word, events)).sum();
    (all.len(), sum("firing", &["firing"]), sum("resolved", &["resolved"]))
}

#[test]
fn ten_thousand_alerts_are_three_messages_and_so_are_their_ends() {
    let receiver = Receiver::start(204);
    let daemon = Setup::with(&to_hook(&receiver, "")).start();
    all_at(&daemon, 400.0);
    let whole = ENGINES as u64;
    daemon.wait_for("told of every alert", LIMIT, |_| told(&receiver).1 == whole);
    let messages = told(&receiver).0;
    assert!(messages <= 3, "{messages} messages: {:?}", receiver.words());
    assert!(receiver.all().iter().all(|one| one.body.to_string().len() < 100_000), "a digest is bounded");
    all_at(&daemon, 20.0);
    daemon.wait_for("told of every end", LIMIT, |_| told(&receiver).2 == whole);
    let ends = told(&receiver).0 - messages;
    assert!(ends <= 3, "{ends} messages more: {:?}", receiver.words());

    // All of them are in the history, each with what told it.
    let (mut seen, mut cursor, mut last) = (0, String::new(), Value::Null);
    loop {
        let page = daemon.get(&format!("/api/alerts?kind=rule&state=resolved&limit=1000{cursor}")).json();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        seen += items.len();
        last = items.last().cloned().unwrap_or(last);
        let Some(next) = page["nextCursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ENGINES);
    let shown = daemon.get(&format!("/api/alerts/{}", last["id"].as_str().expect("an id"))).json();
    let why = reasons(&shown);
    assert_eq!(why.len(), 2, "{shown}");
    assert!(
        shown["notifications"].as_array().into_iter().flatten().all(|one| one["state"] == "sent" && one["deliveryId"].is_string())
    );
    for outcome in ["told", "digest", "folded"] {
        let name = format!("belayd_alert_notices_total{{outcome=\"{outcome}\"}}");
        assert!(daemon.metric(&name) >= 1.0, "{name}");
    }
}
