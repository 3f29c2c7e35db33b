//! Deliveries that wait for their channel: what is brought forward and what is not, the same on both databases.

use std::time::Duration;

use belayd::{
    config::OnUnknown,
    domain::delivery::DeliveryState,
    store::deliveries::{
        Claim, DeliveryRow, FORWARD_ROWS, Made, NewDelivery, Outcome, Settlement, attempts, claim_due, enqueue, forward,
        forward_one, get, settle, waiting_sinks,
    },
};

use super::{TestStore, on_both};

on_both!(
    only_what_failed_for_its_channel_is_brought_forward,
    what_waits_takes_turns_in_trying_the_channel,
    many_are_brought_forward_in_slices,
);

/// Far off.
const LATER: i64 = 900_000_000;

fn add(store: &TestStore, sink: &str, names: &[String]) {
    let rows: Vec<NewDelivery> = names
        .iter()
        .map(|name| NewDelivery {
            id: name.clone(),
            sink: sink.into(),
            lane: name.clone(),
            subject: "s".into(),
            payload: "{}".into(),
            due_at_us: 0,
            max_attempts: 9,
            on_unknown: OnUnknown::Resend,
            recipient: String::new(),
        })
        .collect();
    store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 100))).expect("enqueues");
}

fn claim(store: &TestStore, sink: &str) -> Vec<DeliveryRow> {
    let claim = Claim { sink, worker: "w", limit: 5_000, per_lane: 1, after: None, lease: Duration::from_secs(60), now_us: 100 };
    store.with(|conn| conn.write(|conn| claim_due(conn, &claim))).expect("claims").rows
}

/// Ends what is claimed of it: each with its own word.
fn end(store: &TestStore, rows: &[DeliveryRow], of: impl Fn(&DeliveryRow) -> (Outcome, String)) {
    let ends: Vec<Settlement> = rows
        .iter()
        .map(|row| {
            let (outcome, word) = of(row);
            let made = Made { worker: "w".into(), attempt: row.attempt.unsigned_abs(), began_at_us: 1, ended_at_us: 2 };
            Settlement { held: row.held(), outcome, error: Some((word, "no".into())), answer: None, made: Some(made) }
        })
        .collect();
    assert_eq!(store.with(|conn| settle(conn, &ends, 200)), Ok(vec![]));
}

fn row(store: &TestStore, id: &str) -> DeliveryRow {
    store.with(|conn| get(conn, id)).expect("reads").expect("is there")
}

fn only_what_failed_for_its_channel_is_brought_forward(store: &TestStore) {
    let words = ["connect", "status_5xx", "broken", "smtp_4xx", "asked_to_wait", "status_429", "told_by_another"].map(String::from);
    add(store, "hook", &words);
    add(store, "other", &["elsewhere".to_owned()]);
    end(store, &claim(store, "other"), |_| (Outcome::Retry { at_us: LATER }, "connect".into()));
    end(store, &claim(store, "hook"), |row| {
        let outcome = match row.id.as_str() {
            "connect" => Outcome::Waits { at_us: LATER, attempts: 0 },
            "broken" => Outcome::Repeat { at_us: LATER },
            _ => Outcome::Retry { at_us: LATER },
        };
        (outcome, row.id.clone())
    });
    assert_eq!((row(store, "connect").attempt, row(store, "status_5xx").attempt), (0, 1), "waiting costs no attempt");
    assert_eq!(store.with(|conn| attempts(conn, "connect")).expect("reads").len(), 1, "and is told all the same");
    let sinks = ["hook", "log"].map(String::from);
    assert_eq!(store.with(|conn| waiting_sinks(conn, &sinks)), Ok(vec!["hook".into()]));
    assert_eq!(store.with(|conn| forward(conn, "hook", 300)), Ok(3));
    let ready: Vec<_> = claim(store, "hook").into_iter().map(|row| (row.id.clone(), row.due_at_us)).collect();
    assert_eq!(ready, ["connect", "status_5xx", "broken"].map(|id| (id.to_owned(), 300)));
    for id in ["smtp_4xx", "asked_to_wait", "status_429", "told_by_another", "elsewhere"] {
        assert_eq!((row(store, id).state(), row(store, id).due_at_us), (Ok(DeliveryState::Retry), LATER), "{id}");
    }
    assert_eq!(store.with(|conn| waiting_sinks(conn, &sinks)), Ok(vec![]));
    assert_eq!(store.with(|conn| forward(conn, "hook", 300)), Ok(0));
}

fn what_waits_takes_turns_in_trying_the_channel(store: &TestStore) {
    add(store, "hook", &["a", "b", "c"].map(String::from));
    end(store, &claim(store, "hook"), |row| match row.id.as_str() {
        // It may have arrived: nobody sends it again for a trial.
        "a" => (Outcome::Repeat { at_us: LATER }, "timeout".into()),
        _ => (Outcome::Retry { at_us: LATER }, "timeout".into()),
    });
    let mut tried = Vec::new();
    for _ in 0..4 {
        assert_eq!(store.with(|conn| forward_one(conn, "hook", 300)), Ok(true));
        let rows = claim(store, "hook");
        tried.extend(rows.iter().map(|row| row.id.clone()));
        end(store, &rows, |row| (Outcome::Waits { at_us: LATER, attempts: row.attempt.unsigned_abs() - 1 }, "connect".into()));
    }
    assert_eq!(tried, ["b", "c", "b", "c"]);
    assert_eq!(row(store, "b").attempt, 1);
    assert_eq!(store.with(|conn| forward_one(conn, "other", 300)), Ok(false));
}

fn many_are_brought_forward_in_slices(store: &TestStore) {
    let names: Vec<String> = (0..FORWARD_ROWS + 5).map(|n| format!("d{n:05}")).collect();
    add(store, "hook", &names);
    end(store, &claim(store, "hook"), |_| (Outcome::Retry { at_us: LATER }, "connect".into()));
    let counts: Vec<_> = (0..3).map(|_| store.with(|conn| forward(conn, "hook", 300)).expect("brings forward")).collect();
    assert_eq!(counts, [FORWARD_ROWS, 5, 0]);
}
