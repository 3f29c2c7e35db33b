//! kill -9 around the 202: what was acknowledged is there and is sent; what was not is there whole or not at all.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Receiver, databases, flow::count, plain, ready};
use crate::support::{client::Client, daemon::Setup};

const ROUNDS: usize = 4;

#[test]
fn a_message_that_was_acknowledged_outlives_a_kill_and_one_that_was_not_is_whole_or_absent() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(200);
        let setup = Setup::with(&format!("{}[limits]\nmessages_per_minute = 0\n", receiver.section("hook"))).store(&url);
        let mut daemon = ready(&setup);
        let mut acknowledged: Vec<String> = Vec::new();
        let mut asked = 0;
        for round in 0..ROUNDS {
            let (address, token) = (daemon.address.clone(), daemon.token.clone());
            let sender = std::thread::spawn(move || {
                let client = Client::new(&address, &token);
                let mut told: Vec<(u16, Value)> = Vec::new();
                // Until the daemon is gone; each message has a key of its own, so that none is handed in twice.
                for n in 0..10_000 {
                    let mut message = plain("hook", &format!("{round}-{n}"));
                    message["idempotencyKey"] = json!(format!("{round}-{n}"));
                    message["attachments"] = json!([{"name": "a", "contentType": "text/plain", "content": "aGk="}]);
                    let answer = client.post("/api/messages", &message.to_string());
                    told.push((answer.status, answer.json()["id"].clone()));
                    if answer.status == 0 {
                        break;
                    }
                }
                told
            });
            let before = acknowledged.len() as i64;
            daemon.wait_for("some were taken", Duration::from_secs(30), |daemon| {
                count(daemon, &url, "messages") >= before + 5 + 7 * round as i64
            });
            daemon.kill();
            let told = sender.join().expect("no panic");
            asked += told.len();
            acknowledged
                .extend(told.iter().filter(|(status, _)| *status == 202).filter_map(|(_, id)| id.as_str().map(str::to_owned)));
            daemon.start_again();
            daemon.wait_for("ready", Duration::from_secs(30), |daemon| daemon.get("/readyz").json()["state"] == "ready");
        }
        for id in &acknowledged {
            let seen = super::show(&daemon, id);
            assert_eq!(seen["deliveries"].as_array().map(Vec::len), Some(1), "{seen}");
        }
        let rows = ["messages", "message_deliveries", "message_attachments", "message_events", "idempotency_keys", "deliveries"]
            .map(|table| count(&daemon, &url, table));
        assert!(rows.iter().all(|number| *number == rows[0]), "all of a message or nothing: {rows:?}");
        let there = rows[0] as usize;
        assert!(there >= acknowledged.len() && there <= asked, "{} acknowledged, {there} there, {asked} asked", acknowledged.len());
        // Nothing that was acknowledged stays behind: it arrived, or a person is asked about it.
        daemon.wait_for("all are over or wait for a person", Duration::from_secs(60), |daemon| {
            ["ready", "sending", "retry", "scheduled"]
                .iter()
                .all(|status| daemon.get(&format!("/api/messages?limit=1&status={status}")).json()["items"] == json!([]))
        });
        let heard = receiver.messages();
        for id in &acknowledged {
            let seen = super::show(&daemon, id);
            let arrived = heard.iter().any(|(_, body, _)| body["message"]["id"] == id.as_str());
            assert!(arrived || seen["status"] == "uncertain", "{seen}");
        }
    }
}
