//! `belayd failures`: readings and deliveries that wait for a person, over the daemon's control socket.

use std::{fmt::Write, process::ExitCode};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{GlobalArgs, control_client::with_daemon};
use crate::{
    clock::{Clock, SystemClock},
    config::units::parse_duration,
    domain::time::rfc3339_us,
    ingest::timestamp::from_rfc3339,
};

/// Arguments of `belayd failures`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd failures list --kind reading\n  belayd failures retry ID --reason \"sensor replaced\"")]
pub struct FailuresArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: FailuresAction,
}

/// Which deliveries are meant; what is left out matches all.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Only deliveries to this sink
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// Only deliveries that failed so, for example connect
    #[arg(long, value_name = "WORD")]
    pub error_type: Option<String>,
    /// Only deliveries that stand so
    #[arg(long, value_parser = ["dead", "uncertain"])]
    pub state: Option<String>,
    /// Only deliveries that failed at or after this time, RFC 3339, or no longer ago than this, for example 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<String>,
}

impl Which {
    /// As the API names them.
    fn named(self) -> impl Iterator<Item = (&'static str, String)> {
        let all = [("sink", self.sink), ("errorType", self.error_type), ("state", self.state), ("since", self.since)];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// What of a delivery is set right before it goes out again; what is left out stays.
#[derive(Clone, Debug, clap::Args)]
pub struct EditArgs {
    /// Send it to somebody else
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Option<String>,
    /// Another subject, of a message
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// Another text, of a message; its HTML is dropped
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// Another payload, a JSON object, instead of subject and body
    #[arg(long, value_name = "JSON", conflicts_with_all = ["subject", "body"], value_parser = json_object)]
    pub payload: Option<Value>,
}

impl EditArgs {
    /// As the API names it; `None` where nothing is changed.
    fn named(self) -> Option<Value> {
        let texts = [("recipient", self.recipient), ("subject", self.subject), ("body", self.body)];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))));
        let edit: Map<String, Value> = texts.chain(self.payload.map(|payload| ("payload".to_owned(), payload))).collect();
        (!edit.is_empty()).then(|| Value::from(edit))
    }
}

/// A moment as the API takes it: one of RFC 3339, or how long ago it is.
fn since(text: &str) -> Result<String, String> {
    since_at(text, SystemClock.now_us())
}

fn since_at(text: &str, now_us: i64) -> Result<String, String> {
    if let Some(at_us) = from_rfc3339(text) {
        return Ok(rfc3339_us(at_us));
    }
    let wrong = |_| "neither an RFC 3339 time such as 2026-01-31T12:00:00Z nor how long ago, such as 30m, 1h or 7d".to_owned();
    let ago_us = i64::try_from(parse_duration(text).map_err(wrong)?.as_micros()).unwrap_or(i64::MAX);
    // Before 1970 nothing failed.
    Ok(rfc3339_us(now_us.saturating_sub(ago_us).max(0)))
}

fn json_object(text: &str) -> Result<Value, String> {
    serde_json::from_str::<Map<String, Value>>(text).map(Value::from).map_err(|error| format!("it is no JSON object: {error}"))
}

/// What to do with failures.
#[derive(Clone, Debug, Subcommand)]
pub enum FailuresAction {
    /// List them, newest first within each store
    #[command(after_help = "Example:\n  belayd failures list --kind delivery --limit 20\n  belayd failures list --since 1h")]
    List {
        /// Readings or deliveries only
        #[arg(long, value_parser = ["reading", "delivery"])]
        kind: Option<String>,
        /// Which deliveries
        #[command(flatten)]
        which: Which,
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
    /// Try one again, set right where something in it was wrong
    #[command(
        after_help = "Example:\n  belayd failures retry 01a1fa89-b3a4-74b0-8106-211d21c0fc2c --reason \"receiver is back\"\n  \
                        belayd failures retry 01a1fa89-b3a4-74b0-8106-211d21c0fc2c --reason typo --recipient ops@example.com"
    )]
    Retry {
        /// In full, as `belayd failures list` shows it
        id: String,
        /// What is set right
        #[command(flatten)]
        edit: EditArgs,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Say that a delivery arrived after all
    #[command(name = "mark-sent")]
    #[command(
        after_help = "Example:\n  belayd failures mark-sent 01a1fa89-b3a4-74b0-8106-211d21c0fc2c --reason \"they called back\""
    )]
    MarkSent {
        /// In full, as `belayd failures list` shows it
        id: String,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Try many again, deliveries at so many a second
    #[command(after_help = "Example:\n  belayd failures redrive --sink on-call --per-second 5 --reason \"receiver is back\"")]
    Redrive {
        /// Readings or deliveries only
        #[arg(long, value_parser = ["reading", "delivery"])]
        kind: Option<String>,
        /// Which deliveries
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Deliveries that become due each second; without it all at once
        #[arg(long, value_name = "RATE")]
        per_second: Option<f64>,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Show how many deliveries failed alike, the most first
    #[command(after_help = "Example:\n  belayd failures causes")]
    Causes {
        /// As JSON
        #[arg(long)]
        json: bool,
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
            FailuresAction::List { kind, which, limit, json } => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(kind.map(|kind| ("kind", kind)));
                query.extend(which.named());
                let listed = client.get(&["admin", "failures"], &query).await?;
                Ok(if json { format!("{:#}\n", listed["items"]) } else { render(&listed) })
            }
            FailuresAction::Show { id, json } => {
                let failure = client.get(&["admin", "failures", &id], &[]).await?;
                Ok(if json { format!("{failure:#}\n") } else { in_full(&failure) })
            }
            FailuresAction::Retry { id, edit, reason } => {
                let path = ["admin", "failures", &id, "retry"];
                let mut body = json!({"reason": reason});
                if let Some(edit) = edit.named() {
                    body["edit"] = edit;
                }
                let failure = client.send(Method::PATCH, &path, &body).await?;
                Ok(match failure["settled"].as_bool() {
                    Some(false) => format!("{id} failed again: {}\n", failure["message"].as_str().unwrap_or("-")),
                    Some(true) => format!("{id} is stored\n"),
                    None => format!("{id} is on its way again\n"),
                })
            }
            FailuresAction::MarkSent { id, reason } => {
                client.send(Method::POST, &["admin", "failures", &id, "mark-sent"], &json!({"reason": reason})).await?;
                Ok(format!("{id} counts as sent\n"))
            }
            FailuresAction::Redrive { kind, which, limit, per_second, reason } => {
                let mut body = json!({"reason": reason, "limit": limit});
                let named = which.named().map(|(name, value)| (name, json!(value)));
                for (name, value) in
                    named.chain(kind.map(|kind| ("kind", json!(kind)))).chain(per_second.map(|rate| ("perSecond", json!(rate))))
                {
                    body[name] = value;
                }
                let done = client.send(Method::POST, &["admin", "failures", "redrive"], &body).await?;
                let until = done["until"].as_str().map_or_else(String::new, |until| format!(", deliveries until {until}"));
                Ok(format!(
                    "{} tried again{until}; {} failed again or were decided by somebody else\n",
                    done["redriven"], done["failed"]
                ))
            }
            FailuresAction::Causes { json } => {
                let causes = client.get(&["admin", "failures", "causes"], &[]).await?;
                Ok(if json { format!("{:#}\n", causes["items"]) } else { grouped(&causes) })
            }
            FailuresAction::Discard { id, reason } => {
                client.send(Method::POST, &["admin", "failures", &id, "discard"], &json!({"reason": reason})).await?;
                Ok(format!("{id} is given up\n"))
            }
        }
    })
}

fn render(listed: &Value) -> String {
    let mut text = format!("{:<36} {:<9} {:<9} {:<28} {}\n", "ID", "KIND", "CAUSE", "SINCE", "WHAT");
    for item in listed["items"].as_array().into_iter().flatten() {
        let word = |name: &str| item[name].as_str().unwrap_or("-");
        let about = if item["kind"] == "reading" { word("engineId") } else { word("sink") };
        let what = format!("{about}: {}", word("message"));
        // Writing into memory cannot fail.
        let _ = writeln!(text, "{:<36} {:<9} {:<9} {:<28} {what}", word("id"), word("kind"), word("cause"), word("createdAt"));
    }
    if listed["nextCursor"].is_string() {
        text.push_str("there are more; --limit shows up to 1000, --sink, --error-type, --state and --since narrow it\n");
    }
    text
}

fn grouped(causes: &Value) -> String {
    let mut text = format!("{:>7} {:<10} {:<20} {:<20} {:<28} {}\n", "COUNT", "STATE", "SINK", "ERROR", "NEWEST", "SAMPLE");
    for cause in causes["items"].as_array().into_iter().flatten() {
        let word = |name: &str| cause[name].as_str().unwrap_or("-");
        let sample =
            format!("{} {}", cause["sample"]["id"].as_str().unwrap_or("-"), cause["sample"]["message"].as_str().unwrap_or("-"));
        // Writing into memory cannot fail.
        let _ = writeln!(
            text,
            "{:>7} {:<10} {:<20} {:<20} {:<28} {sample}",
            cause["count"].to_string(),
            word("state"),
            word("sink"),
            word("errorType"),
            word("newestAt")
        );
    }
    if causes["away"].as_array().is_some_and(|away| !away.is_empty()) {
        text.push_str("the database is away: deliveries of messages are missing here\n");
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
        let text = render(&json!({"nextCursor": null, "items": [
            {"id": "1", "kind": "reading", "cause": "conflict", "engineId": "e7", "message": "other values", "createdAt": "t"},
            {"id": "2", "kind": "delivery", "cause": "dead", "sink": "ops", "message": null, "createdAt": "t"},
        ]}));
        assert!(text.contains("e7: other values") && text.contains("ops: -") && !text.contains("more"), "{text}");
        assert!(render(&json!({"nextCursor": "control:7", "items": []})).contains("there are more"));
        let groups = grouped(
            &json!({"items": [{"count": 12, "state": "dead", "sink": "ops", "errorType": "connect", "sample": {"id": "7"}}],
            "away": ["store"]}),
        );
        assert!(
            groups.contains("     12 dead       ops") && groups.contains("7 -") && groups.contains("the database is away"),
            "{groups}"
        );
        let edit = EditArgs { recipient: Some("a@b".into()), subject: None, body: Some("x".into()), payload: None };
        assert_eq!(edit.named(), Some(json!({"recipient": "a@b", "body": "x"})));
        let noon_us = from_rfc3339("2026-01-31T12:00:00Z").expect("a time");
        let told = |text: &str| since_at(text, noon_us);
        assert_eq!(told("1.5h").as_deref(), Ok("2026-01-31T10:30:00.000000Z"));
        assert_eq!(told("2026-01-31T13:00:00+01:00").as_deref(), Ok("2026-01-31T12:00:00.000000Z"));
        assert_eq!(told("30000d").as_deref(), Ok("1970-01-01T00:00:00.000000Z"));
        assert!(["yesterday", "1", "-1h", "", "2026-01-31"].iter().all(|text| told(text).is_err_and(|why| why.contains("1h"))));
        assert!(json_object("7").is_err() && json_object(r#"{"a":1}"#).is_ok());
        assert!(in_full(&json!({"a": "b", "n": 1, "x": null})) == "a              b\nn              1\n");
    }
}
