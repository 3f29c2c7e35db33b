//! `belayd failures`: readings and deliveries that wait for a person, over the daemon's control socket.

use std::{fmt::Write, process::ExitCode};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::{GlobalArgs, control_client::with_daemon};

/// Arguments of `belayd failures`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd failures list --kind reading\n  belayd failures retry ID --reason \"sensor replaced\"")]
pub struct FailuresArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: FailuresAction,
}

/// What to do with failures.
#[derive(Clone, Debug, Subcommand)]
pub enum FailuresAction {
    /// List them, newest first
    #[command(after_help = "Example:\n  belayd failures list --kind delivery --limit 20")]
    List {
        /// Readings or deliveries only
        #[arg(long, value_parser = ["reading", "delivery"])]
        kind: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one in full
    #[command(after_help = "Example:\n  belayd failures show 01a1fa89-b3a4-74b0-8106-211d21c0fc2c")]
    Show {
        /// In full, as `belayd failures list` shows it
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try one again
    #[command(after_help = "Example:\n  belayd failures retry 01a1fa89-b3a4-74b0-8106-211d21c0fc2c --reason \"receiver is back\"")]
    Retry {
        /// In full, as `belayd failures list` shows it
        id: String,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Give one up for good
    #[command(after_help = "Example:\n  belayd failures discard 01a1fa89-b3a4-74b0-8106-211d21c0fc2c --reason \"test data\"")]
    Discard {
        /// In full, as `belayd failures list` shows it
        id: String,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Lists or decides.
pub fn execute(args: &FailuresArgs, global: &GlobalArgs) -> ExitCode {
    let action = args.action.clone();
    with_daemon(global, |client| async move {
        match action {
            FailuresAction::List { kind, limit, json } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(kind.map(|kind| ("kind", kind)));
                let listed = client.get(&["admin", "failures"], &query).await?;
                Ok(if json { format!("{:#}\n", listed["items"]) } else { render(&listed["items"]) })
            }
            FailuresAction::Show { id, json } => {
                let failure = client.get(&["admin", "failures", &id], &[]).await?;
                Ok(if json { format!("{failure:#}\n") } else { in_full(&failure) })
            }
            FailuresAction::Retry { id, reason } => {
                let path = ["admin", "failures", &id, "retry"];
                let failure = client.send(Method::PATCH, &path, &json!({"reason": reason})).await?;
                Ok(match failure["settled"].as_bool() {
                    Some(false) => format!("{id} failed again: {}\n", failure["message"].as_str().unwrap_or("-")),
                    Some(true) => format!("{id} is stored\n"),
                    None => format!("{id} is on its way again\n"),
                })
            }
            FailuresAction::Discard { id, reason } => {
                client.send(Method::POST, &["admin", "failures", &id, "discard"], &json!({"reason": reason})).await?;
                Ok(format!("{id} is given up\n"))
            }
        }
    })
}

fn render(items: &Value) -> String {
    let mut text = format!("{:<36} {:<9} {:<9} {:<28} {}\n", "ID", "KIND", "CAUSE", "SINCE", "WHAT");
    for item in items.as_array().into_iter().flatten() {
        let word = |name: &str| item[name].as_str().unwrap_or("-");
        let about = if item["kind"] == "reading" { word("engineId") } else { word("sink") };
        let what = format!("{about}: {}", word("message"));
        // Writing into memory cannot fail.
        let _ = writeln!(text, "{:<36} {:<9} {:<9} {:<28} {what}", word("id"), word("kind"), word("cause"), word("createdAt"));
    }
    text
}

fn in_full(failure: &Value) -> String {
    let fields = failure.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    fields
        .map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name:<14} {text}\n"),
            None => format!("{name:<14} {value}\n"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_what_it_is_about() {
        let text = render(&json!([
            {"id": "1", "kind": "reading", "cause": "conflict", "engineId": "e7", "message": "other values", "createdAt": "t"},
            {"id": "2", "kind": "delivery", "cause": "dead", "sink": "ops", "message": null, "createdAt": "t"},
        ]));
        assert!(text.contains("e7: other values") && text.contains("ops: -"), "{text}");
        assert!(in_full(&json!({"a": "b", "n": 1, "x": null})) == "a              b\nn              1\n");
    }
}
