//! Limits by token and by address: 429 with the time to come again, and how much is left on every answer.

use serde_json::Value;

use super::{plain, ready, send};
use crate::support::daemon::{Answer, Daemon, Setup};

fn header(answer: &Answer, name: &str) -> Option<u64> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.trim().parse().ok())
}

fn quota(answer: &Answer) -> (Option<u64>, Option<u64>) {
    (header(answer, "ratelimit-limit"), header(answer, "ratelimit-remaining"))
}

fn as_token(daemon: &Daemon, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    daemon.raw(
        "POST",
        "/api/messages",
        &[("Authorization", bearer.as_str()), ("Content-Type", "application/json")],
        body.to_string().as_bytes(),
    )
}

#[test]
fn each_token_has_its_own_quota_and_is_told_what_is_left() {
    let daemon = ready(&Setup::with("[limits]\nmessages_per_minute = 3\n"));
    for left in (0..3).rev() {
        let answer = send(&daemon, &plain("log", "s"));
        assert_eq!((answer.status, quota(&answer)), (202, (Some(3), Some(left))), "{answer:?}");
        assert!(header(&answer, "ratelimit-reset").is_some_and(|reset| (1..=60).contains(&reset)), "{answer:?}");
    }
    let refused = send(&daemon, &plain("log", "s"));
    assert_eq!(
        (refused.status, refused.code(), quota(&refused)),
        (429, "too_many_requests".into(), (Some(3), Some(0))),
        "{refused:?}"
    );
    assert!(header(&refused, "retry-after").is_some_and(|wait| (1..=20).contains(&wait)), "{refused:?}");
    assert_eq!(daemon.metric("belayd_requests_limited_total{by=\"token\"}"), 1.0);

    let other = daemon.create_token("other", "operator");
    assert_eq!(as_token(&daemon, &other, &plain("log", "s")).status, 202, "another token has its own");
    assert_eq!(daemon.get("/api/messages").status, 200, "looking is not limited");
    assert_eq!(daemon.post("/api/readings", r#"{"engineId":"e","rpm":1}"#).status, 202, "nor are readings");
    let said = daemon.command(&["send", "--via", "log", "--subject", "s", "b"]);
    assert!(said.status.success(), "nor is the control socket: {said:?}");
}

#[test]
fn each_address_has_its_own_quota_for_whatever_writes() {
    let server = "behind_proxy = [\"127.0.0.1\"]".into();
    let daemon = ready(&Setup { server, ..Setup::with("[limits]\nrequests_per_minute = 4\n") });
    let bearer = format!("Bearer {}", daemon.token);
    let ask = |address: &str, method: &str, path: &str, body: &[u8]| {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json"), ("X-Forwarded-For", address)];
        daemon.raw(method, path, &headers, body)
    };
    let message = plain("log", "s").to_string();
    let first = ask("192.0.2.1", "POST", "/api/messages", message.as_bytes());
    assert_eq!((first.status, quota(&first)), (202, (Some(4), Some(3))), "the tighter of the two is shown: {first:?}");
    let wrong = ask("192.0.2.1", "PATCH", "/admin/failures/nothing/retry", br#"{"reason":"x"}"#);
    assert_eq!((wrong.status, quota(&wrong)), (404, (Some(4), Some(2))), "a refused one counts too: {wrong:?}");
    assert_eq!(ask("192.0.2.1", "DELETE", "/admin/tokens/nobody", b"").status, 404);
    assert_eq!(ask("192.0.2.1", "POST", "/nothing", b"").status, 404);
    let refused = ask("192.0.2.1", "POST", "/api/messages", message.as_bytes());
    assert_eq!((refused.status, refused.code()), (429, "too_many_requests".into()), "{refused:?}");
    assert!(header(&refused, "retry-after").is_some_and(|wait| (1..=15).contains(&wait)), "{refused:?}");
    // Who is not known is counted as well, before anything is looked at.
    let stranger = daemon.raw("POST", "/api/messages", &[("X-Forwarded-For", "192.0.2.1")], message.as_bytes());
    assert_eq!(stranger.status, 429, "{stranger:?}");
    assert_eq!(ask("192.0.2.2", "POST", "/api/messages", message.as_bytes()).status, 202, "another address has its own");
    let network = |host: u16| ask(&format!("2001:db8::{host:x}"), "POST", "/api/messages", message.as_bytes()).status;
    assert_eq!([1, 2, 3, 4, 5].map(network), [202, 202, 202, 202, 429], "a network of IPv6 counts as one");
    for _ in 0..20 {
        assert_eq!(ask("192.0.2.1", "POST", "/api/readings", br#"{"engineId":"e","rpm":1}"#).status, 202, "pushes are not counted");
        assert_eq!(ask("192.0.2.1", "GET", "/api/messages", b"").status, 200);
    }
    assert!(daemon.metric("belayd_requests_limited_total{by=\"address\"}") >= 3.0);
}

#[test]
fn a_reload_changes_the_limits_at_once() {
    let daemon = ready(&Setup::with("[limits]\nmessages_per_minute = 1\n"));
    assert_eq!(send(&daemon, &plain("log", "s")).status, 202);
    assert_eq!(send(&daemon, &plain("log", "s")).status, 429);
    let text = std::fs::read_to_string(daemon.config_path()).expect("the configuration");
    std::fs::write(daemon.config_path(), text.replace("messages_per_minute = 1", "messages_per_minute = 0")).expect("written");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("reloaded", std::time::Duration::from_secs(20), |daemon| daemon.log().contains("configuration reloaded"));
    for _ in 0..5 {
        let answer = send(&daemon, &plain("log", "s"));
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}
