//! The way of a message from the request to the receiver, on both databases.

use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{Receiver, databases, plain, ready, send, sent, show, stands};
use crate::support::daemon::{Daemon, Setup};

fn ids(daemon: &Daemon, query: &str) -> Vec<String> {
    let answer = daemon.get(&format!("/api/messages?{query}"));
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    let items = answer.json()["items"].clone();
    items.as_array().into_iter().flatten().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_message_is_taken_sent_shown_and_listed() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(200);
        let daemon = ready(&Setup::with(&receiver.section("hook")).store(&url));
        let subject = "점검 <b>3</b> {{ 7 * 7 }}";
        let attached = json!([{"name": "보고.txt", "contentType": "text/plain", "content": "aGVsbG8="}]);
        let mut message = plain("hook", subject);
        message["html"] = json!("<p>x</p>");
        message["replyTo"] = json!("kim@example.com");
        message["attachments"] = attached;
        let answer = send(&daemon, &message);
        assert_eq!((answer.status, &answer.json()["repeated"]), (202, &json!(false)), "{answer:?}");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        let delivery = answer.json()["deliveries"][0]["id"].as_str().expect("an id").to_owned();
        stands(&daemon, &id, "sent");

        let seen = show(&daemon, &id);
        assert_eq!((&seen["subject"], &seen["html"], &seen["via"]), (&json!(subject), &json!("<p>x</p>"), &json!("hook")));
        let one = &seen["deliveries"][0];
        assert_eq!((&one["id"], &one["state"], &one["attempts"]), (&json!(delivery), &json!("sent"), &json!(1)), "{seen}");
        assert!(one["answer"].as_str().is_some_and(|text| text.contains("200")) && one["settledAt"].is_string(), "{seen}");
        let file = &seen["attachments"][0];
        assert_eq!((&file["name"], &file["bytes"]), (&json!("보고.txt"), &json!(5)), "{seen}");
        assert_eq!((&seen["history"][0]["event"], &seen["history"][0]["actor"]), (&json!("created"), &json!("test")));

        let heard = receiver.messages();
        assert_eq!(heard.len(), 1, "once");
        let body = &heard[0].1["message"];
        assert_eq!((heard[0].0.as_str(), &body["id"], &body["subject"]), (delivery.as_str(), &json!(id), &json!(subject)));
        assert_eq!(body["attachments"][0]["base64"], "aGVsbG8=", "a receiver has no other way to the file");
        let audit = daemon.get("/admin/audit?limit=1000").json();
        let told: Vec<_> =
            audit["items"].as_array().into_iter().flatten().filter(|row| row["action"] == "message.create").collect();
        assert_eq!((told.len(), &told[0]["subject"], &told[0]["actor"]), (1, &json!(id), &json!("test")), "{audit}");
        assert_eq!(daemon.metric("belayd_messages_accepted_total{via=\"hook\"}"), 1.0);

        let log = daemon.log();
        let line = |text: &str| log.lines().any(|line| line.contains(text) && line.contains(&format!("messageId={id}")));
        assert!(line("message accepted") && line("delivery sent"), "{log}");
        assert_eq!(daemon.metric("belayd_alert_latency_seconds_count"), 0.0, "a message is no alert");
        for secret in [subject, "text of", "kim@example.com", "aGVsbG8", "보고"] {
            assert!(!log.contains(secret), "{secret} is in the log");
        }
    }
}

#[test]
fn lists_are_filtered_and_paged() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(404);
        let daemon = ready(&Setup::with(&receiver.section("hook")).store(&url));
        let mut all: Vec<String> = (0..7).map(|n| sent(&daemon, &plain("log", &format!("Order {n}")))).collect();
        all.push(sent(&daemon, &plain("hook", "never taken")));
        all.reverse();
        stands(&daemon, &all[0], "dead");
        all[1..].iter().for_each(|id| stands(&daemon, id, "sent"));
        assert_eq!(ids(&daemon, ""), all, "newest first");
        assert_eq!(ids(&daemon, "status=dead"), all[..1]);
        assert_eq!(ids(&daemon, "via=log&status=sent"), all[1..]);
        assert_eq!(ids(&daemon, "q=oRDER%203"), all[4..5]);
        assert_eq!(ids(&daemon, "to=nobody%40example.com"), Vec::<String>::new());
        let created = |id: &str| show(&daemon, id)["createdAt"].as_str().expect("a time").to_owned();
        assert_eq!(ids(&daemon, &format!("from={}", created(&all[2]))), all[..3]);
        assert_eq!(ids(&daemon, &format!("until={}", created(&all[2]))), all[3..]);
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = daemon.get(&format!("/api/messages?limit=3{cursor}")).json();
            seen.extend(page["items"].as_array().into_iter().flatten().map(|item| item["id"].as_str().expect("an id").to_owned()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, all);
        for bad in ["status=lost", "limit=0", "from=x", "cursor=x", "cursor=1@x", "q=", "to=%00", "unknown=1"] {
            assert_eq!(daemon.get(&format!("/api/messages?{bad}")).status, 400, "{bad}");
        }
        for nothing in ["x", "00000000-0000-0000-0000-000000000000", "%00", "%ff"] {
            assert_eq!(daemon.get(&format!("/api/messages/{nothing}")).status, 404, "{nothing}");
        }
    }
}

fn in_seconds(seconds: i64) -> String {
    (Utc::now() + chrono::TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[test]
fn a_timed_message_leaves_at_its_time_and_not_before() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(200);
        // The rarest looks that can be had.
        let setup =
            Setup::with(&format!("{}[outbox]\npoll_interval = \"5s\"\nlease = \"1h\"\n", receiver.section("hook"))).store(&url);
        let daemon = ready(&setup);
        let mut timed = plain("hook", "later");
        timed["sendAt"] = json!(in_seconds(4));
        let begin = Instant::now();
        let id = sent(&daemon, &timed);
        assert_eq!(show(&daemon, &id)["status"], "scheduled");
        stands(&daemon, &id, "sent");
        let due_after = receiver.messages()[0].2.duration_since(begin);
        assert!(due_after >= Duration::from_millis(3_900), "{due_after:?}");
        // Within a second on a machine that keeps up; a slow one is late and never early.
        let seen = show(&daemon, &id);
        let late = late_s(&seen["deliveries"][0]);
        assert!(late < 5.0, "{late} s late");
        let mut past = plain("hook", "at once");
        past["sendAt"] = json!(in_seconds(-3_600));
        stands(&daemon, &sent(&daemon, &past), "sent");
    }
}

/// From the due time to the settlement.
fn late_s(delivery: &Value) -> f64 {
    let at = |name: &str| chrono::DateTime::parse_from_rfc3339(delivery[name].as_str().expect("a time")).expect("RFC 3339");
    (at("settledAt") - at("dueAt")).as_seconds_f64()
}

#[test]
fn what_has_not_been_sent_is_called_off_and_what_has_is_not() {
    for (url, _server) in databases() {
        let receiver = Receiver::start(200);
        let daemon = ready(&Setup::with(&receiver.section("hook")).store(&url));
        let mut timed = plain("hook", "called off");
        timed["sendAt"] = json!(in_seconds(3_600));
        let id = sent(&daemon, &timed);
        let cancel = |id: &str, body: &str| daemon.post(&format!("/api/messages/{id}/cancel"), body);
        assert_eq!(cancel(&id, "{}").code(), "reason_required");
        let done = cancel(&id, r#"{"reason":"no longer true"}"#);
        assert_eq!((done.status, &done.json()["status"]), (200, &json!("cancelled")), "{done:?}");
        assert_eq!(done.json()["cancelled"].as_array().map(Vec::len), Some(1));
        let seen = show(&daemon, &id);
        assert_eq!(
            (&seen["status"], &seen["history"][1]["event"], &seen["history"][1]["reason"]),
            (&json!("cancelled"), &json!("cancelled"), &json!("no longer true"))
        );

        let again = cancel(&id, r#"{"reason":"again"}"#);
        assert_eq!((again.status, again.code()), (409, "conflict".into()), "{again:?}");
        assert_eq!(again.json()["error"]["details"][0]["state"], "cancelled");
        let gone = sent(&daemon, &plain("hook", "on its way"));
        stands(&daemon, &gone, "sent");
        assert_eq!(cancel(&gone, r#"{"reason":"too late"}"#).status, 409);
        assert_eq!(cancel("00000000-0000-0000-0000-000000000000", r#"{"reason":"x"}"#).status, 404);
        assert_eq!(show(&daemon, &gone)["history"].as_array().map(Vec::len), Some(1), "nothing was written");

        let audit = daemon.get("/admin/audit?limit=1000").json()["items"].clone();
        let told: Vec<_> = audit.as_array().into_iter().flatten().filter(|row| row["action"] == "message.cancel").collect();
        let outcomes: Vec<_> = told.iter().map(|row| row["outcome"].as_str().unwrap_or_default()).collect();
        assert_eq!(outcomes, ["not_found", "conflict", "conflict", "ok"]);
        assert!(receiver.messages().iter().all(|(_, body, _)| body["message"]["subject"] != "called off"));
    }
}

#[test]
fn each_recipient_has_a_delivery_of_its_own_and_mail_is_meant_where_nothing_is_said() {
    // Nobody listens: what counts is what is committed.
    let daemon = ready(&Setup::with("[smtp]\nhost = \"127.0.0.1\"\nport = 1\ntls = \"none\"\nfrom = \"belayd@example.org\"\n"));
    let to = json!(["Kim@example.com", "lee@example.com", "ops+pump@example.com"]);
    let id = sent(&daemon, &json!({"to": to, "subject": "s", "body": "b", "sendAt": in_seconds(3_600)}));
    let seen = show(&daemon, &id);
    let recipients: Vec<_> = seen["deliveries"].as_array().into_iter().flatten().map(|one| one["recipient"].clone()).collect();
    assert_eq!((json!(recipients), &seen["via"], &seen["status"]), (to, &json!("smtp"), &json!("scheduled")), "{seen}");
    assert_eq!(ids(&daemon, "to=kim%40EXAMPLE.com"), std::slice::from_ref(&id), "in any case of its letters");
    assert_eq!(count(&daemon, "sqlite:", "(SELECT DISTINCT lane FROM deliveries WHERE lane LIKE 'to:%')"), 3, "a lane for each");
    for (wrong, field) in [
        (json!([]), "to"),
        (json!(null), "to"),
        (json!(["nobody"]), "to[0]"),
        (json!(["a@example.com", "A@Example.com"]), "to[1]"),
        (json!(["a@example.com\r\nRCPT TO:<b@example.com>"]), "to[0]"),
        (json!(["Ops <ops@example.com>"]), "to[0]"),
        (json!(["a@example.com, b@example.com"]), "to[0]"),
        (json!(["a@[127.0.0.1]"]), "to[0]"),
        (json!((0..101).map(|n| format!("a{n}@example.com")).collect::<Vec<_>>()), "to"),
    ] {
        let answer = send(&daemon, &json!({"to": wrong, "subject": "s", "body": "b"}));
        assert_eq!((answer.status, super::fields(&answer)), (400, vec![field.to_owned()]), "{answer:?}");
    }
    let gone = daemon.post(&format!("/api/messages/{id}/cancel"), r#"{"reason":"x"}"#);
    assert_eq!(gone.json()["cancelled"].as_array().map(Vec::len), Some(3), "{gone:?}");
    assert!(!daemon.log().to_lowercase().contains("kim@"), "no address in the log");
}

#[test]
fn the_command_line_hands_a_message_in() {
    let receiver = Receiver::start(200);
    let daemon = ready(&Setup::with(&receiver.section("hook")));
    let said = daemon.command(&["send", "--via", "hook", "--subject", "by hand", "--idempotency-key", "k", "the text"]);
    assert!(said.status.success(), "{said:?}");
    let id = String::from_utf8(said.stdout).expect("text").split_whitespace().next().expect("an id").to_owned();
    stands(&daemon, &id, "sent");
    assert_eq!(
        (receiver.messages()[0].1["message"]["body"].clone(), show(&daemon, &id)["createdBy"].clone()),
        (json!("the text"), json!("control-socket"))
    );
    let again = daemon.command(&["send", "--via", "hook", "--subject", "by hand", "--idempotency-key", "k", "the text"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("handed in before"), "{again:?}");
    let wrong = daemon.command(&["send", "--to", "nobody", "--subject", "a\nb", "the text"]);
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && told.contains("subject: ") && told.contains("via: "), "{told}");
}

#[test]
fn messages_go_with_their_deliveries_once_they_are_old() {
    for (url, _server) in databases() {
        let daemon = ready(&Setup::with("[retention]\ndeliveries = \"1h\"\n").store(&url));
        let mut message = plain("log", "old");
        message["idempotencyKey"] = json!("k");
        message["attachments"] = json!([{"name": "a", "contentType": "text/plain", "content": "aGk="}]);
        let id = sent(&daemon, &message);
        stands(&daemon, &id, "sent");
        let young = sent(&daemon, &plain("log", "young"));
        stands(&daemon, &young, "sent");
        let two_hours_us = 7_200_000_000_i64;
        for statement in [
            format!("UPDATE deliveries SET settled_at_us = settled_at_us - {two_hours_us} WHERE subject = '{id}'"),
            format!("UPDATE messages SET created_at_us = created_at_us - {two_hours_us} WHERE id = '{id}'"),
            format!("UPDATE idempotency_keys SET created_at_us = created_at_us - {two_hours_us}"),
        ] {
            execute(&daemon, &url, &statement);
        }
        let answer = daemon.post("/admin/duties/retention/run", r#"{"reason":"test"}"#);
        assert!(answer.status < 300, "{answer:?}");
        daemon.wait_for("the message goes", Duration::from_secs(30), |daemon| {
            daemon.get(&format!("/api/messages/{id}")).status == 404
        });
        assert_eq!(daemon.get(&format!("/api/messages/{young}")).status, 200);
        for table in ["message_attachments", "idempotency_keys"] {
            daemon.wait_for("all of it goes", Duration::from_secs(30), |daemon| count(daemon, &url, table) == 0);
        }
        assert_eq!(count(&daemon, &url, "message_events"), 1);
    }
}

/// Runs a statement past the daemon.
pub(super) fn execute(daemon: &Daemon, url: &str, statement: &str) {
    use diesel::{Connection, RunQueryDsl};
    if url.starts_with("postgres:") {
        return crate::support::rows::execute(url, statement);
    }
    let path = daemon.dir().join("belayd.db");
    let mut conn = diesel::SqliteConnection::establish(path.to_str().expect("a plain path")).expect("the database opens");
    diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut conn).expect("a pragma");
    diesel::sql_query(statement).execute(&mut conn).expect("the statement is right");
}

/// How many rows a table has.
pub(super) fn count(daemon: &Daemon, url: &str, table: &str) -> i64 {
    use diesel::{Connection, QueryableByName, RunQueryDsl, sql_types::BigInt};
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let query = format!("SELECT COUNT(*) AS n FROM {table}");
    if url.starts_with("postgres:") {
        let mut conn = diesel::PgConnection::establish(url).expect("the server answers");
        return diesel::sql_query(query).get_result::<Number>(&mut conn).expect("the table is there").n;
    }
    crate::support::rows::number(&daemon.dir().join("belayd.db"), &query)
}
