//! What people decide about deliveries that failed: filtered, grouped by cause, set right, sent again at a rate, marked as sent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Receiver, databases, plain, ready, sent, stands};
use crate::support::daemon::{Answer, Daemon, Setup};

fn failures(daemon: &Daemon, query: &str) -> Vec<Value> {
    let answer = daemon.get(&format!("/admin/failures?kind=delivery&limit=1000{query}"));
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()["items"].as_array().cloned().unwrap_or_default()
}

/// These receivers get messages alone: alerts, of which failures make some, go to the log.
fn alone(sections: &str) -> String {
    format!("{sections}[[routes]]\nsinks = [\"log\"]\n")
}

fn id_of(item: &Value) -> String {
    item["id"].as_str().expect("an id").to_owned()
}

fn retry(daemon: &Daemon, token: &str, id: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
    daemon.raw("PATCH", &format!("/admin/failures/{id}/retry"), &headers, body.to_string().as_bytes())
}

fn audited(daemon: &Daemon, action: &str) -> Vec<(String, String)> {
    let rows = daemon.get("/admin/audit?limit=1000").json()["items"].clone();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mine = rows.as_array().into_iter().flatten().filter(|row| row["action"] == action);
    mine.map(|row| (text(row, "subject"), text(row, "outcome"))).collect()
}

/// What was done to a message, and why.
fn history(message: &Value) -> Vec<(String, String)> {
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    message["history"].as_array().into_iter().flatten().map(|event| (text(event, "event"), text(event, "reason"))).collect()
}

#[test]
fn a_delivery_is_set_right_by_an_admin_and_goes_out_again() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(422);
        let daemon = ready(&Setup::with(&alone(&receiver.section("hook"))).store(&url));
        let mut message = plain("hook", "wrong");
        message["html"] = json!("<p>wrong</p>");
        let id = sent(&daemon, &message);
        stands(&daemon, &id, "dead");
        let failed = id_of(&failures(&daemon, "")[0]);
        let shown = daemon.get(&format!("/admin/failures/{failed}")).json();
        assert_eq!(
            (&shown["subject"], &shown["errorCode"], &shown["onUnknown"]),
            (&json!(id), &json!("status_4xx"), &json!("review")),
            "{shown}"
        );
        assert!(shown["lane"].is_string() && shown["dueAt"].is_string() && shown["claims"] == 1, "{shown}");

        let operator = daemon.create_token("op", "operator");
        let edit = json!({"reason": "typo", "edit": {"subject": "right", "body": "the right text"}});
        let refused = retry(&daemon, &operator, &failed, &edit);
        assert_eq!((refused.status, refused.code()), (403, "forbidden".into()), "{refused:?}");
        assert!(refused.json()["error"]["message"].as_str().is_some_and(|text| text.contains("admin")), "{refused:?}");
        let admin = daemon.token.clone();
        for (wrong, field) in [
            (json!({"recipient": "a@example.com"}), "edit.recipient"),
            (json!({"subject": "a\nb"}), "edit.subject"),
            (json!({"body": "\u{0}"}), "edit.body"),
            (json!({"payload": 7}), "edit.payload"),
            (json!({"payload": {"a": "\u{0}"}}), "edit.payload"),
            (json!({"payload": {}, "subject": "x"}), "edit.payload"),
        ] {
            let answer = retry(&daemon, &admin, &failed, &json!({"reason": "typo", "edit": wrong}));
            assert_eq!((answer.status, super::fields(&answer)), (400, vec![field.to_owned()]), "{answer:?}");
        }
        assert_eq!(retry(&daemon, &admin, &failed, &json!({"reason": "typo", "edit": {"sink": "log"}})).status, 400);
        assert_eq!(super::show(&daemon, &id)["status"], "dead", "nothing was moved");

        receiver.answer(200);
        let done = retry(&daemon, &admin, &failed, &edit);
        assert_eq!(done.status, 200, "{done:?}");
        stands(&daemon, &id, "sent");
        let heard = receiver.messages();
        let body = &heard[0].1["message"];
        assert_eq!((&body["subject"], &body["body"], &body["html"]), (&json!("right"), &json!("the right text"), &Value::Null));
        let shown = super::show(&daemon, &id);
        assert_eq!((&shown["subject"], &shown["body"], &shown["html"]), (&json!("right"), &json!("the right text"), &Value::Null));
        let done_to_it = history(&shown);
        assert_eq!(done_to_it, [("created".to_owned(), String::new()), ("edited".to_owned(), "typo (subject, body)".to_owned())]);
        let told = audited(&daemon, "delivery.edit");
        assert_eq!(
            told,
            [(format!("{failed} (subject, body)"), "ok".to_owned()), (format!("{failed} (subject, body)"), "forbidden".to_owned())],
            "what was edited, never to what"
        );
        // The same over the command line, whose user owns the data directory.
        receiver.answer(422);
        let by_hand = sent(&daemon, &plain("hook", "wrong again"));
        stands(&daemon, &by_hand, "dead");
        receiver.answer(200);
        let failed = id_of(&failures(&daemon, "")[0]);
        let said =
            daemon.command(&["failures", "retry", &failed, "--reason", "typo", "--subject", "right again", "--body", "as meant"]);
        assert!(said.status.success(), "{said:?}");
        stands(&daemon, &by_hand, "sent");
        let heard = receiver.messages();
        let body = &heard[1].1["message"];
        assert_eq!((&body["subject"], &body["body"]), (&json!("right again"), &json!("as meant")));
        // Without an edit an operator may.
        receiver.answer(422);
        let second = sent(&daemon, &plain("hook", "again"));
        stands(&daemon, &second, "dead");
        receiver.answer(200);
        let failed = id_of(&failures(&daemon, "")[0]);
        assert_eq!(retry(&daemon, &operator, &failed, &json!({"reason": "back"})).status, 200);
        stands(&daemon, &second, "sent");
        let shown = super::show(&daemon, &second);
        assert_eq!(
            (&shown["subject"], history(&shown).last()),
            (&json!("again"), Some(&("retried".to_owned(), "back".to_owned())))
        );
    }
}

#[test]
fn a_cause_of_both_stores_is_told_once() {
    let receiver = Receiver::start(422);
    let daemon = ready(&Setup::with(&alone(&receiver.section("bad"))));
    stands(&daemon, &sent(&daemon, &plain("bad", "of the store")), "dead");
    let test = daemon.post("/admin/sinks/bad/test", &json!({"reason": "one of the control store"}).to_string());
    assert_eq!(test.status, 202, "{test:?}");
    daemon.wait_for("both are dead", Duration::from_secs(60), |daemon| failures(daemon, "&sink=bad").len() == 2);
    let causes = daemon.get("/admin/failures/causes").json()["items"].clone();
    let of_bad: Vec<_> = causes.as_array().into_iter().flatten().filter(|cause| cause["sink"] == "bad").collect();
    assert_eq!(of_bad.len(), 1, "{causes}");
    assert_eq!((&of_bad[0]["count"], &of_bad[0]["stores"]), (&json!(2), &json!(["control", "store"])), "{causes}");
}

#[test]
fn a_failure_is_shown_in_full_and_given_up_over_the_command_line() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(422);
        let daemon = ready(&Setup::with(&alone(&receiver.section("hook"))).store(&url));
        let id = sent(&daemon, &plain("hook", "wrong"));
        stands(&daemon, &id, "dead");
        let failed = id_of(&failures(&daemon, "")[0]);
        let run = |args: &[&str]| {
            let output = daemon.command(args);
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let (code, shown, _) = run(&["failures", "show", &failed]);
        assert_eq!(code, Some(0), "{shown}");
        let line =
            |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default().trim();
        assert_eq!(
            ["id", "kind", "state", "sink", "errorCode"].map(line),
            [&failed, "delivery", "dead", "hook", "status_4xx"],
            "{shown}"
        );
        assert_eq!((line("subject"), line("attempts"), line("settledAt")), (id.as_str(), "1", ""), "{shown}");
        assert!(line("message").contains("422") && line("payload").contains("text of wrong"), "{shown}");
        assert!(line("history").contains("\"status_4xx\""), "what was tried is evidence: {shown}");
        let (code, json, _) = run(&["failures", "show", &failed, "--json"]);
        let told: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((code, told), (Some(0), daemon.get(&format!("/admin/failures/{failed}")).json()));
        let unknown = "01a1fa89-b3a4-74b0-8106-211d21c0fc2c";
        let (code, _, wrong) = run(&["failures", "show", unknown]);
        assert!(code == Some(1) && wrong.contains(unknown), "{wrong}");

        assert_eq!(run(&["failures", "discard", &failed]).0, Some(2), "a reason is wanted");
        assert_eq!(super::show(&daemon, &id)["status"], "dead", "and nothing was moved");
        let done = run(&["failures", "discard", &failed, "--reason", "test data"]);
        assert_eq!(done, (Some(0), format!("{failed} is given up\n"), String::new()));
        stands(&daemon, &id, "discarded");
        assert_eq!(history(&super::show(&daemon, &id)).last(), Some(&("discarded".to_owned(), "test data".to_owned())));
        assert_eq!((failures(&daemon, "").len(), receiver.messages().len()), (0, 0));
        let (code, _, wrong) = run(&["failures", "discard", &failed, "--reason", "once more"]);
        assert!(code == Some(1) && wrong.contains("discarded"), "{wrong}");
        assert_eq!(run(&["failures", "discard", unknown, "--reason", "x"]).0, Some(1));
        assert!(run(&["failures", "show", &failed]).1.contains("discarded"), "what was decided can still be seen");
        let told = audited(&daemon, "delivery.discard");
        assert_eq!(told, [(failed.clone(), "conflict".to_owned()), (failed, "ok".to_owned())]);

        // Which ones: since a time, or no longer ago than so.
        let later = sent(&daemon, &plain("hook", "later"));
        stands(&daemon, &later, "dead");
        let listed = |since: &str| {
            let (code, text, wrong) = run(&["failures", "list", "--kind", "delivery", "--since", since]);
            assert_eq!(code, Some(0), "{wrong}");
            text.lines().count() - 1
        };
        assert_eq!((listed("1h"), listed("2020-01-01T00:00:00Z"), listed("2099-01-01T00:00:00Z")), (1, 1, 0));
        super::flow::execute(
            &daemon,
            &url,
            "UPDATE deliveries SET updated_at_us = updated_at_us - 7200000000 WHERE state = 'dead'",
        );
        assert_eq!((listed("1h"), listed("3h")), (0, 1));
        let (code, _, wrong) = run(&["failures", "redrive", "--since", "yesterday", "--reason", "x"]);
        assert!(code == Some(2) && wrong.contains("1h"), "{wrong}");
        let again = run(&["failures", "redrive", "--since", "1h", "--reason", "x"]);
        assert!(again.0 == Some(0) && again.1.starts_with("0 tried again"), "{again:?}");
    }
}

#[test]
fn many_go_out_again_at_their_rate_and_are_told_apart_by_cause() {
    for (url, _server) in databases() {
        let (bad, worse) = (Receiver::start(422), Receiver::start(404));
        let sections = format!("{}{}", bad.section("bad"), worse.section("worse"));
        let daemon = ready(&Setup::with(&alone(&sections)).store(&url));
        for n in 0..12 {
            sent(&daemon, &plain("bad", &format!("bad {n}")));
        }
        let other = sent(&daemon, &plain("worse", "worse"));
        daemon.wait_for("all are dead", Duration::from_secs(60), |daemon| failures(daemon, "").len() == 13);

        assert_eq!((failures(&daemon, "&sink=bad").len(), failures(&daemon, "&sink=worse&state=dead").len()), (12, 1));
        assert_eq!((failures(&daemon, "&errorType=status_4xx").len(), failures(&daemon, "&state=uncertain").len()), (13, 0));
        assert_eq!(
            (failures(&daemon, "&since=2020-01-01T00:00:00Z").len(), failures(&daemon, "&since=2099-01-01T00:00:00Z").len()),
            (13, 0)
        );
        for wrong in ["kind=reading&sink=bad", "state=sent", "since=x", "sink=", "errorType=%00"] {
            assert_eq!(daemon.get(&format!("/admin/failures?{wrong}")).status, 400, "{wrong}");
        }
        for answer in
            [daemon.get("/admin/failures?sink=badd"), daemon.post("/admin/failures/redrive", r#"{"reason":"x","sink":"badd"}"#)]
        {
            assert_eq!(answer.status, 400, "a slip of the pen is no empty list: {answer:?}");
            let told = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(told.starts_with("sink: ") && told.ends_with("log, bad, worse"), "{told}");
        }
        let causes = daemon.get("/admin/failures/causes").json()["items"].clone();
        let groups: Vec<_> =
            causes.as_array().into_iter().flatten().map(|cause| (cause["sink"].clone(), cause["count"].clone())).collect();
        assert_eq!(groups, [(json!("bad"), json!(12)), (json!("worse"), json!(1))], "{causes}");
        assert!(causes[0]["sample"]["message"].as_str().is_some_and(|text| text.contains("422")), "{causes}");
        let table = String::from_utf8(daemon.command(&["failures", "causes"]).stdout).expect("text");
        assert!(table.contains("bad") && table.contains("12"), "{table}");

        let redrive = |body: &Value| daemon.post("/admin/failures/redrive", &body.to_string());
        for (wrong, field) in [
            (json!({"reason": "x", "limit": 0}), "limit"),
            (json!({"reason": "x", "limit": 10_001}), "limit"),
            (json!({"reason": "x", "perSecond": 0}), "perSecond"),
            (json!({"reason": "x", "perSecond": -1}), "perSecond"),
            (json!({"reason": "x", "state": "sent"}), "state"),
            (json!({"reason": "x", "since": "x"}), "since"),
        ] {
            let answer = redrive(&wrong);
            assert_eq!((answer.status, super::fields(&answer)), (400, vec![field.to_owned()]), "{answer:?}");
        }
        bad.answer(200);
        let begun = Instant::now();
        let done = redrive(&json!({"reason": "back", "sink": "bad", "perSecond": 4, "limit": 9}));
        assert_eq!((done.status, &done.json()["redriven"], &done.json()["failed"]), (200, &json!(9), &json!(0)), "{done:?}");
        assert!(done.json()["until"].is_string(), "{done:?}");
        daemon.wait_for("nine arrive", Duration::from_secs(60), |_| bad.messages().len() == 9);
        // On a machine that is busy the first come late; none comes early.
        let took = bad.messages()[8].2.duration_since(begun);
        assert!(took >= Duration::from_millis(1_900), "nine at four a second take two seconds: {took:?}");
        assert_eq!((failures(&daemon, "&sink=bad").len(), super::show(&daemon, &other)["status"].clone()), (3, json!("dead")));
        let told = audited(&daemon, "delivery.retry");
        assert_eq!((told.len(), told.iter().all(|(_, outcome)| outcome == "ok")), (9, true), "{told:?}");

        // The same over the command line.
        let said = daemon.command(&["failures", "redrive", "--sink", "bad", "--limit", "2", "--reason", "the rest"]);
        assert!(String::from_utf8_lossy(&said.stdout).starts_with("2 tried again"), "{said:?}");
        daemon.wait_for("two more", Duration::from_secs(60), |_| bad.messages().len() == 11);
        let last = id_of(&failures(&daemon, "&sink=worse")[0]);
        let said = daemon.command(&["failures", "mark-sent", &last, "--reason", "they called back"]);
        assert!(said.status.success(), "{said:?}");
        stands(&daemon, &other, "sent");
        assert_eq!(audited(&daemon, "delivery.mark-sent"), [(last, "ok".to_owned())]);
    }
}

#[test]
fn what_may_have_arrived_goes_out_again_only_where_that_is_asked_for() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(422);
        let daemon = ready(&Setup::with(&alone(&receiver.section("hook"))).store(&url));
        let (dead, unknown) = (sent(&daemon, &plain("hook", "dead")), sent(&daemon, &plain("hook", "unknown")));
        [&dead, &unknown].iter().for_each(|id| stands(&daemon, id, "dead"));
        super::flow::execute(&daemon, &url, &format!("UPDATE deliveries SET state = 'uncertain' WHERE subject = '{unknown}'"));
        receiver.answer(200);
        let redriven = |more: &str| {
            let answer = daemon.post("/admin/failures/redrive", &format!(r#"{{"reason":"back","kind":"delivery"{more}}}"#));
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["redriven"].clone()
        };
        assert_eq!(redriven(""), 1, "the dead one");
        stands(&daemon, &dead, "sent");
        assert_eq!(super::show(&daemon, &unknown)["status"], "uncertain");
        let said = daemon.command(&["failures", "redrive", "--reason", "again"]);
        assert!(String::from_utf8_lossy(&said.stdout).starts_with("0 tried again"), "{said:?}");
        assert_eq!(redriven(r#","state":"uncertain""#), 1);
        stands(&daemon, &unknown, "sent");
        assert_eq!(receiver.messages().len(), 2);
    }
}
