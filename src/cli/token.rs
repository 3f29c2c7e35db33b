//! `belayd token`: tokens for people and senders, over the daemon's control socket, or on the control store while it does not run.

use std::{
    fmt::Write,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    GlobalArgs,
    control_client::{ControlClient, Failed, block_on},
};
use crate::{
    clock::{Clock, SystemClock},
    config::units::{format_duration, parse_duration},
    daemon::{DataDirectory, Denied},
    domain::role::Role,
    ingest::timestamp::from_rfc3339,
    store::{
        StoreError,
        audit::{AuditEntry, record},
        control, tokens,
    },
};

/// How long a daemon that has the directory gets to open its socket.
const SOCKET_WAIT: Duration = Duration::from_secs(5);
/// From one look for the socket to the next.
const SOCKET_LOOK: Duration = Duration::from_millis(100);
/// Who the audit names where no daemon stood between.
const WHO: &str = "command-line";

/// Arguments of `belayd token`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd token create plant-7 --role ingest --expires 365d")]
pub struct TokenArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: TokenAction,
}

/// What to do with tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenAction {
    /// Make one, and print it alone on stdout; it is shown this once
    #[command(after_help = "Example:\n  belayd token create plant-7 --role ingest --expires 365d")]
    Create {
        /// Its name, for lists, audit and revoking
        name: String,
        /// What its bearer may do
        #[arg(long, value_parser = ["viewer", "operator", "admin", "ingest"])]
        role: String,
        /// It ends after this; without it never
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// List them, without their secrets
    #[command(after_help = "Example:\n  belayd token list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End one at once
    #[command(after_help = "Example:\n  belayd token revoke plant-7")]
    Revoke {
        /// Its name
        name: String,
    },
}

/// Runs the command: asks the daemon where one runs, else opens the control store itself.
pub fn execute(args: &TokenArgs, global: &GlobalArgs) -> ExitCode {
    let dir = match global.data_dir() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    match ask_or_open(&dir, &args.action, SOCKET_WAIT) {
        Ok(text) => super::print(&text),
        Err(failed) => failed.complain(),
    }
}

/// A daemon locks the directory some moments before it listens, and one that stops holds it some moments longer: both are waited for.
fn ask_or_open(dir: &Path, action: &TokenAction, wait: Duration) -> Result<String, Failed> {
    let begun = Instant::now();
    loop {
        match block_on(ask(dir, action)) {
            Err(Failed::NotRunning(_)) => {}
            other => return other,
        }
        match DataDirectory::open(dir) {
            Ok(lock) => return directly(&lock, action),
            Err(Denied::InUse(_)) if begun.elapsed() < wait => std::thread::sleep(SOCKET_LOOK),
            Err(denied) => return Err(Failed::Other(denied.to_string())),
        }
    }
}

async fn ask(dir: &Path, action: &TokenAction) -> Result<String, Failed> {
    let client = ControlClient::new(dir)?;
    let path = ["admin", "tokens"];
    match action {
        TokenAction::Create { name, role, expires } => {
            let body = json!({"name": name, "role": role, "expires": expires.map(format_duration)});
            let made = client.send(Method::POST, &path, &body).await?;
            Ok(format!("{}\n", made["token"].as_str().unwrap_or_default()))
        }
        TokenAction::List { json } => {
            let listed = client.get(&path, &[]).await?;
            Ok(render(&listed["items"], *json, SystemClock.now_us()))
        }
        TokenAction::Revoke { name } => {
            let revoked = client.send(Method::DELETE, &["admin", "tokens", name], &json!({})).await?;
            Ok(format!("revoked {}\n", revoked["name"].as_str().unwrap_or(name)))
        }
    }
}

/// Needs the directory's lock, so that a daemon that starts does not miss what is written.
fn directly(lock: &DataDirectory, action: &TokenAction) -> Result<String, Failed> {
    let dir = lock.path();
    // A token made for another directory is one that no daemon knows.
    super::complain(&format!("no daemon runs on {}: working on its control store", dir.display()));
    let now_us = SystemClock.now_us();
    let failed = |error: StoreError| Failed::Other(error.to_string());
    let (store, _) = control::open(dir, now_us).map_err(failed)?;
    let audit = |action: &str, subject: &str| AuditEntry {
        at_us: now_us,
        actor: WHO.into(),
        action: action.into(),
        subject: subject.into(),
        reason: None,
        outcome: "ok".into(),
    };
    match action {
        TokenAction::Create { name, role, expires } => {
            let role: Role = role.parse().map_err(|error| Failed::Other(format!("{error}")))?;
            let lifetime_us = expires.map(|expires| i64::try_from(expires.as_micros()).unwrap_or(i64::MAX));
            let expires_at_us = lifetime_us.map(|lifetime_us| now_us.saturating_add(lifetime_us));
            let made = store.with(|conn| {
                conn.write(|conn| {
                    let made = tokens::create(conn, name, role, expires_at_us, now_us)?;
                    record(conn, &audit("token.create", name))?;
                    Ok(made)
                })
            });
            Ok(format!("{}\n", made.map_err(failed)?.text))
        }
        TokenAction::List { json } => {
            let listed = store.with(tokens::list).map_err(failed)?;
            Ok(render(&json!(listed), *json, now_us))
        }
        TokenAction::Revoke { name } => {
            let revoked = store.with(|conn| {
                conn.write(|conn| {
                    let revoked = tokens::revoke(conn, name, now_us)?;
                    record(conn, &audit("token.revoke", &revoked.name))?;
                    Ok(revoked)
                })
            });
            Ok(format!("revoked {}\n", revoked.map_err(failed)?.name))
        }
    }
}

fn render(items: &Value, as_json: bool, now_us: i64) -> String {
    if as_json {
        return format!("{items:#}\n");
    }
    let mut text = format!("{:<24} {:<9} {:<8} {:<28} {}\n", "NAME", "ROLE", "STATE", "EXPIRES", "LAST USED");
    for item in items.as_array().into_iter().flatten() {
        let word = |name: &str| item[name].as_str().unwrap_or("-");
        let over = |end: &Value| end.as_str().and_then(from_rfc3339).is_some_and(|end_us| end_us <= now_us);
        let state = match (item["revokedAt"].is_null(), over(&item["expiresAt"])) {
            (false, _) => "revoked",
            (true, true) => "expired",
            (true, false) => "live",
        };
        // Writing into memory cannot fail.
        let _ =
            writeln!(text, "{:<24} {:<9} {state:<8} {:<28} {}", word("name"), word("role"), word("expiresAt"), word("lastUsedAt"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_daemon_tokens_are_made_listed_and_revoked_in_the_control_store() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let directly = |data: &Path, action: &TokenAction| directly(&DataDirectory::open(data).expect("nobody else"), action);
        let create = TokenAction::Create { name: "plant-7".into(), role: "ingest".into(), expires: Some(Duration::from_secs(60)) };
        let token = directly(&data, &create).expect("made");
        assert!(token.starts_with("bly_") && token.ends_with('\n') && token.lines().count() == 1, "{token}");
        assert!(directly(&data, &create).expect_err("the name is taken").to_string().contains("plant-7"));
        let listed = directly(&data, &TokenAction::List { json: false }).expect("listed");
        assert!(listed.contains("plant-7") && listed.contains("ingest") && listed.contains("live"), "{listed}");
        assert!(!listed.contains(token.trim()), "the secret is not kept");
        let items = json!([{"name": "old", "role": "viewer", "revokedAt": null, "expiresAt": "2026-01-01T00:00:00.000000Z"}]);
        let shown = |now_us| render(&items, false, now_us);
        assert!(shown(1_767_225_599_000_000).contains(" live ") && shown(1_767_225_601_000_000).contains(" expired "));
        directly(&data, &TokenAction::Revoke { name: "plant-7".into() }).expect("revoked");
        let listed = directly(&data, &TokenAction::List { json: true }).expect("listed");
        let items: Value = serde_json::from_str(&listed).expect("is JSON");
        assert!(items[0]["revokedAt"].is_string());
    }

    #[test]
    fn a_directory_that_is_taken_is_waited_for_and_given_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let list = TokenAction::List { json: true };
        let taken = DataDirectory::open(&data).expect("nobody else");
        let failed = ask_or_open(&data, &list, Duration::from_millis(250)).expect_err("taken all the while");
        assert!(failed.to_string().contains("in use by another belayd"), "{failed}");
        std::thread::scope(|scope| {
            let listed = scope.spawn(|| ask_or_open(&data, &list, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_millis(300));
            drop(taken);
            assert_eq!(listed.join().expect("ends").expect("free at last"), "[]\n");
        });
    }
}
