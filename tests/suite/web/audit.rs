//! The audit of the real daemon: nothing is done that it does not know of, and it says how things ended.

use diesel::{Connection, RunQueryDsl, SqliteConnection};
use serde_json::Value;

use crate::support::daemon::{Daemon, Setup};

const RESTART: &str = "/admin/actors/ScheduleActor/restart";

fn rows(daemon: &Daemon, action: &str) -> Vec<Value> {
    let items = daemon.get("/admin/audit?limit=1000").json()["items"].clone();
    items.as_array().into_iter().flatten().filter(|row| row["action"] == action).cloned().collect()
}

fn restarts(daemon: &Daemon) -> Value {
    let actors = daemon.get("/admin/actors").json()["items"].clone();
    let found = actors.as_array().into_iter().flatten().find(|actor| actor["name"] == "ScheduleActor").cloned();
    found.expect("the actor")["restarts"].clone()
}

#[test]
fn an_action_is_written_down_once_with_its_outcome_also_where_it_fails() {
    let daemon = Setup::default().start();
    assert_eq!(daemon.post(RESTART, r#"{"reason":"drill"}"#).status, 202);
    assert_eq!(daemon.post("/admin/actors/NoActor/restart", r#"{"reason":"typo"}"#).status, 404);
    assert_eq!(daemon.post("/admin/tokens", r#"{"name":"twice","role":"viewer"}"#).status, 201);
    assert_eq!(daemon.post("/admin/tokens", r#"{"name":"twice","role":"viewer"}"#).status, 409);
    assert_eq!(daemon.request("DELETE", "/admin/tokens/nobody", &[], "").status, 404);
    let told = |action: &str| -> Vec<(Value, Value)> {
        rows(&daemon, action).into_iter().map(|row| (row["subject"].clone(), row["outcome"].clone())).collect()
    };
    assert_eq!(told("actor.restart"), [("NoActor".into(), "not_found".into()), ("ScheduleActor".into(), "ok".into())]);
    assert_eq!(told("token.create")[..2], [("twice".into(), "conflict".into()), ("twice".into(), "ok".into())]);
    assert_eq!(told("token.revoke"), [("nobody".into(), "not_found".into())]);
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let daemon = Setup::default().start();
    let before = restarts(&daemon);
    let path = daemon.dir().join("data/control.db");
    let mut other = SqliteConnection::establish(&path.display().to_string()).expect("the control store");
    diesel::sql_query("PRAGMA busy_timeout = 10000").execute(&mut other).expect("patient");
    diesel::sql_query("BEGIN IMMEDIATE").execute(&mut other).expect("locked");
    let refused = daemon.post(RESTART, r#"{"reason":"drill"}"#);
    assert_eq!(refused.status, 503, "{refused:?}");
    diesel::sql_query("ROLLBACK").execute(&mut other).expect("free again");
    assert_eq!(restarts(&daemon), before, "nothing was restarted");
    assert_eq!(daemon.post(RESTART, r#"{"reason":"drill"}"#).status, 202);
    daemon.wait_for("restarted", std::time::Duration::from_secs(5), |daemon| restarts(daemon) != before);
}

#[test]
fn a_decision_that_came_too_late_is_written_down_too() {
    let hook = "[[webhooks]]\nname = \"hook\"\nurl = \"http://127.0.0.1:1/\"\n[outbox]\nmax_attempts = 1\n";
    let daemon = Setup::with(hook).start();
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e","temperature":400}"#).status, 202);
    let dead = |daemon: &Daemon| {
        let items = daemon.get("/admin/failures?kind=delivery&sink=hook").json()["items"].clone();
        items.as_array().and_then(|items| Some(items.first()?["id"].as_str()?.to_owned()))
    };
    daemon.wait_for("a delivery of the control store is dead", std::time::Duration::from_secs(30), |daemon| dead(daemon).is_some());
    let id = dead(&daemon).expect("dead");
    for status in [200, 409] {
        assert_eq!(daemon.post(&format!("/admin/failures/{id}/discard"), r#"{"reason":"known"}"#).status, status);
    }
    let told: Vec<_> =
        rows(&daemon, "delivery.discard").into_iter().map(|row| (row["subject"].clone(), row["outcome"].clone())).collect();
    assert_eq!(told, [(Value::from(id.as_str()), "conflict".into()), (id.as_str().into(), "ok".into())]);
}
