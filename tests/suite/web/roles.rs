//! Every route with every role.

use belayd::{
    domain::role::Role,
    web::routes::{Access, FAULT_ROUTES, ROUTES},
};

use crate::support::daemon::{Daemon, Setup};

/// A path with its names filled in by something that is not there.
fn concrete(path: &str) -> String {
    path.replace("{stream}", "00000000-0000-0000-0000-000000000000")
        .replace("{seq}", "1")
        .replace("{hash}", "x")
        .replace("{name}", "nobody")
        .replace("{id}", "nothing")
}

#[test]
fn every_route_lets_in_the_roles_of_its_line_and_nobody_else() {
    let daemon = Setup::default().start();
    let tokens: Vec<(Option<Role>, String)> = std::iter::once((None, String::new()))
        .chain(Role::ALL.into_iter().map(|role| (Some(role), daemon.create_token(role.as_str(), role.as_str()))))
        .collect();
    let mut refused: Vec<(&str, String)> = Vec::new();
    for spec in ROUTES.iter().chain(FAULT_ROUTES) {
        // Both end only when their reader does; the tests of streams look at them. /metrics is opened by configuration.
        if matches!(spec.path, "/api/stream" | "/admin/logs" | "/metrics") {
            continue;
        }
        for (role, token) in &tokens {
            let bearer = format!("Bearer {token}");
            let mut headers = vec![("Content-Type", "application/json")];
            if role.is_some() {
                headers.push(("Authorization", &bearer));
            }
            let answer = daemon.raw(spec.method, &concrete(spec.path), &headers, b"");
            let admitted = match spec.access {
                Access::Open => true,
                Access::Roles(roles) => role.is_some_and(|role| roles.iter().any(|required| role.meets(*required))),
            };
            let told = format!("{spec:?} as {role:?}: {answer:?}");
            match (admitted, role) {
                // The form is refused for its missing origin, not for the role.
                _ if spec.path == "/login" && spec.method == "POST" => assert_eq!(answer.code(), "cross_site", "{told}"),
                (true, _) => assert!(!matches!(answer.status, 401 | 403), "{told}"),
                (false, None) => {
                    assert_eq!(answer.status, 401, "{told}");
                    assert!(answer.head.contains("www-authenticate: bearer"), "{told}");
                }
                (false, Some(role)) => {
                    assert_eq!(answer.status, 403, "{told}");
                    // Of pushes not each is written down, see below.
                    if !matches!(spec.method, "GET" | "HEAD") && spec.path != "/api/readings" {
                        refused.push((role.as_str(), format!("{} {}", spec.method, concrete(spec.path))));
                    }
                }
            }
            assert!(!matches!(answer.status, 0 | 500), "{told}");
        }
    }
    let everywhere = ["POST /api/messages", "POST /api/issues", "POST /api/silences", "POST /api/alerts/nothing/ack"];
    let has = |who: &str, what: &str| refused.iter().any(|(role, route)| (*role, route.as_str()) == (who, what));
    assert!(has("operator", "PUT /admin/log-level") && everywhere.iter().all(|what| has("viewer", what) && has("ingest", what)));
    // Nobody waits for these rows: they are written behind the answer.
    let mut missing = refused.clone();
    daemon.wait_for("in the audit: every change that was refused", std::time::Duration::from_secs(10), |daemon| {
        let audit = daemon.get("/admin/audit?limit=1000").json();
        let told: Vec<_> = audit["items"].as_array().into_iter().flatten().filter(|row| row["action"] == "admin.refused").collect();
        assert!(
            told.iter()
                .all(|row| row["subject"].as_str().is_some_and(|what| !what.starts_with("GET ") && !what.starts_with("HEAD ")))
        );
        missing.retain(|(role, what)| !told.iter().any(|row| row["actor"] == *role && row["subject"] == what.as_str()));
        missing.is_empty()
    });
    // A sender with the wrong token pushes without an end: one row tells.
    let pushed = |daemon: &Daemon| {
        let audit = daemon.get("/admin/audit?limit=1000").json()["items"].clone();
        audit.as_array().into_iter().flatten().filter(|row| row["subject"] == "POST /api/readings").count()
    };
    let viewer = format!("Bearer {}", daemon.create_token("reads", "viewer"));
    for _ in 0..20 {
        let headers = [("Authorization", viewer.as_str()), ("Content-Type", "application/json")];
        assert_eq!(daemon.raw("POST", "/api/readings", &headers, b"{}").status, 403);
    }
    daemon.wait_for("in the audit: a refused push", std::time::Duration::from_secs(10), |daemon| pushed(daemon) > 0);
    assert!(pushed(&daemon) < 5, "not each of them");
    assert!(!daemon.log().contains("bly_"), "no token in the log");
}

#[test]
fn metrics_need_a_viewer_unless_the_configuration_opens_them() {
    let closed = Setup { server: "metrics_open = false".into(), ..Setup::default() }.start();
    assert_eq!(closed.raw("GET", "/metrics", &[], b"").status, 401);
    assert_eq!(closed.get("/metrics").status, 200);
    let pusher = format!("Bearer {}", closed.create_token("pusher", "ingest"));
    assert_eq!(closed.raw("GET", "/metrics", &[("Authorization", &pusher)], b"").status, 403);
    let open = Setup { server: "metrics_open = true".into(), ..Setup::default() }.start();
    assert_eq!(open.raw("GET", "/metrics", &[], b"").status, 200);
}

#[test]
fn a_token_that_is_revoked_or_expired_lets_nobody_in() {
    let daemon = Setup::default().start();
    let revoked = daemon.create_token("gone", "viewer");
    let bearer = |token: &str| format!("Bearer {token}");
    let status = |token: &str| daemon.raw("GET", "/api/engines", &[("Authorization", &bearer(token))], b"").status;
    assert_eq!(status(&revoked), 200);
    assert_eq!(daemon.request("DELETE", "/admin/tokens/gone", &[], "").status, 200);
    assert_eq!(status(&revoked), 401);
    assert_eq!(daemon.request("DELETE", "/admin/tokens/gone", &[], "").status, 404);
    let made = daemon.post("/admin/tokens", r#"{"name":"brief","role":"viewer","expires":"1s"}"#);
    assert_eq!(made.status, 201, "{made:?}");
    let brief = made.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(status(&brief), 200);
    daemon.wait_for("expired", std::time::Duration::from_secs(5), |_| status(&brief) == 401);
    assert!(!daemon.get("/admin/tokens").body.contains(&brief[4..]), "the secret is shown once");
}

#[test]
fn the_control_socket_is_its_owners_and_needs_no_token() {
    use std::os::unix::fs::PermissionsExt;
    let daemon = Setup::default().start();
    let socket = daemon.dir().join("data/control.sock");
    assert_eq!(std::fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    // A daemon is up before it has reached its database: that is "buffering" for a moment, and 200 as well.
    daemon.wait_for("ready", std::time::Duration::from_secs(10), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    let status = daemon.command(&["status", "--json"]);
    assert!(status.status.success(), "{status:?}");
    let state: serde_json::Value = serde_json::from_slice(&status.stdout).expect("is JSON");
    assert_eq!(state["readiness"], "ready");
    let tail = daemon.command(&["tail", "--level", "info"]);
    assert!(String::from_utf8_lossy(&tail.stdout).contains("belayd is up"), "{tail:?}");
    let made = daemon.create_token("by-owner", "viewer");
    assert!(made.starts_with("bly_"));
    let audit = daemon.get("/admin/audit").json();
    let row = audit["items"].as_array().into_iter().flatten().find(|row| row["subject"] == "by-owner").cloned();
    assert_eq!(row.expect("an audit row")["actor"], "control-socket");
}
