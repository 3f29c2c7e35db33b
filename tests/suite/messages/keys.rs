//! Idempotency keys: one message, however often it is asked for, by whomever it is answered.

use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

use super::{databases, flow::count, plain, ready, send, sent};
use crate::support::daemon::{Daemon, Setup};

fn keyed(key: &str) -> Value {
    let mut message = plain("log", "keyed");
    message["idempotencyKey"] = json!(key);
    message
}

/// Hands the same message in from many clients at once; each is taken. Returns whether it was a repeat, and the id.
fn at_once(daemons: &[&Daemon], times: usize, message: &Value) -> Vec<(bool, String)> {
    let start = Arc::new(Barrier::new(times));
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..times)
            .map(|n| {
                let (daemon, start) = (daemons[n % daemons.len()], start.clone());
                scope.spawn(move || {
                    start.wait();
                    let answer = send(daemon, message);
                    assert_eq!(answer.status, 202, "{answer:?}");
                    let told = answer.json();
                    (told["repeated"] == true, told["id"].as_str().expect("an id").to_owned())
                })
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().expect("no panic")).collect()
    })
}

#[test]
fn fifty_at_once_make_one_message_and_so_does_one_more_after_a_restart() {
    for (url, _server) in databases() {
        let mut daemon = ready(&Setup::default().store(&url));
        let answers = at_once(&[&daemon], 50, &keyed("once"));
        let taken: Vec<_> = answers.iter().filter(|(repeated, _)| !repeated).collect();
        assert_eq!((taken.len(), answers.len()), (1, 50), "{answers:?}");
        assert!(answers.iter().all(|(_, id)| *id == taken[0].1), "{answers:?}");
        let id = taken[0].1.clone();
        daemon.kill();
        daemon.start_again();
        daemon.wait_for("ready", std::time::Duration::from_secs(30), |daemon| daemon.get("/readyz").json()["state"] == "ready");
        let again = send(&daemon, &keyed("once"));
        assert_eq!((again.status, &again.json()["id"], &again.json()["repeated"]), (202, &json!(id), &json!(true)), "{again:?}");
        assert_eq!((count(&daemon, &url, "messages"), count(&daemon, &url, "deliveries")), (1, 1));
    }
}

#[test]
fn the_key_holds_for_its_content_and_its_caller_alone() {
    let daemon = ready(&Setup::default());
    let id = sent(&daemon, &keyed("k"));
    let mut other = keyed("k");
    other["body"] = json!("another text");
    let refused = send(&daemon, &other);
    assert_eq!((refused.status, refused.code()), (409, "idempotency_conflict".into()), "{refused:?}");
    assert!(refused.json()["error"]["message"].as_str().is_some_and(|text| text.contains(&id)), "{refused:?}");

    let with_header = |body: &Value, key: &str| {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        daemon.request("POST", "/api/messages", &headers, &body.to_string())
    };
    assert_eq!(with_header(&plain("log", "keyed"), "k").json()["id"], id, "the header means the same");
    assert_eq!(with_header(&keyed("k"), "k").json()["repeated"], true);
    assert_eq!(with_header(&keyed("k"), "l").status, 400, "they must agree");

    let operator = format!("Bearer {}", daemon.create_token("other", "operator"));
    let headers = [("Authorization", operator.as_str()), ("Content-Type", "application/json")];
    let theirs = daemon.raw("POST", "/api/messages", &headers, keyed("k").to_string().as_bytes());
    assert_eq!(theirs.status, 202, "everybody has keys of their own: {theirs:?}");
    assert_ne!(theirs.json()["id"], id);
}

#[test]
fn of_two_instances_one_makes_the_message() {
    let Some((url, _server)) = databases().into_iter().find(|(url, _)| url.starts_with("postgres:")) else { return };
    let (one, two) = (ready(&Setup::default().store(&url)), ready(&Setup::default().store(&url)));
    for round in 0..5 {
        // Both have a token of the name "test", so both speak for the same caller.
        let answers = at_once(&[&one, &two], 20, &keyed(&format!("round-{round}")));
        assert_eq!(answers.iter().filter(|(repeated, _)| !repeated).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|(_, id)| *id == answers[0].1), "{answers:?}");
    }
    assert_eq!(count(&one, &url, "messages"), 5);
}
