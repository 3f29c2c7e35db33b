//! `belayd status`: what the running daemon says of itself, over its control socket.

use std::{fmt::Write, process::ExitCode};

use serde_json::Value;

use super::{GlobalArgs, control_client::with_daemon};
use crate::config::units::format_size;

/// Arguments of `belayd status`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd status --json")]
pub struct StatusArgs {
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints the daemon's state.
pub fn execute(args: &StatusArgs, global: &GlobalArgs) -> ExitCode {
    with_daemon(global, |client| async move {
        let state = client.get(&["api", "state"], &[]).await?;
        Ok(if args.json { format!("{state:#}\n") } else { render(&state) })
    })
}

fn render(state: &Value) -> String {
    let mut text = String::new();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (buffer, store, ingest, outbox) = (&state["buffer"], &state["store"], &state["ingest"], &state["outbox"]);
    let mut line = |name: &str, what: String| {
        // Writing into memory cannot fail.
        let _ = writeln!(text, "{name:<9} {what}");
    };
    line("belayd", format!("{} on {}, up since {}", word(&state["version"]), word(&state["instance"]), word(&state["startedAt"])));
    line("state", word(&state["readiness"]));
    line(
        "ingest",
        format!("{} accepted, {} rejected, {:.1}/s", ingest["acceptedTotal"], ingest["rejectedTotal"], number(&ingest["ratePerS"])),
    );
    line("buffer", format!("{}: {}, difference {}", word(&buffer["tier"]), waiting(buffer), buffer["difference"]));
    let redis = &state["redis"];
    if redis.is_object() {
        let cause = redis["cause"].as_str().map(|cause| format!(": {cause}")).unwrap_or_default();
        let (bytes, bound) = (redis["bytes"].as_u64().unwrap_or(0), redis["bytesBound"].as_u64().unwrap_or(0));
        let bytes = format_size(bytes / 1_000_000 * 1_000_000);
        line(
            "redis",
            format!(
                "{} is {}{cause}, {bytes} of {}, may lose {}",
                word(&redis["address"]),
                word(&redis["state"]),
                format_size(bound),
                word(&buffer["mayLose"])
            ),
        );
    }
    line("store", format!("{} is {}", word(&store["backend"]), word(&store["state"])));
    line(
        "outbox",
        format!("{} ready, {} retry, {} uncertain, {} dead", outbox["ready"], outbox["retry"], outbox["uncertain"], outbox["dead"]),
    );
    for source in state["ingest"]["sources"].as_array().into_iter().flatten() {
        let error = source["error"].as_str().map(|error| format!(": {error}")).unwrap_or_default();
        line("source", format!("{} is {}{error}", word(&source["name"]), word(&source["state"])));
    }
    for sink in outbox["sinks"].as_array().into_iter().flatten() {
        let state = match word(&sink["state"]).as_str() {
            "closed" => "up".to_owned(),
            "open" => "down (circuit open)".to_owned(),
            "half-open" => "down (trying again)".to_owned(),
            other => other.to_owned(),
        };
        line("sink", format!("{} is {state}, {} wait", word(&sink["name"]), sink["backlog"]));
    }
    for actor in state["actors"].as_array().into_iter().flatten() {
        line(
            "actor",
            format!(
                "{:<18} {:<9} {} restarts, {} messages wait",
                word(&actor["name"]),
                word(&actor["state"]),
                actor["restarts"],
                actor["mailboxDepth"]
            ),
        );
    }
    let open = state["alerts"].as_array().into_iter().flatten().filter(|alert| alert["state"] != "resolved");
    let mut shown = 0;
    for alert in open {
        shown += 1;
        line(
            "alert",
            format!("{} {} ({}): {}", word(&alert["level"]), word(&alert["name"]), word(&alert["state"]), word(&alert["text"])),
        );
    }
    let all = state["alertCounts"]["open"].as_u64().unwrap_or(shown);
    if all > 0 {
        let more = if all > shown {
            format!("; {shown} of them are shown, GET /api/alerts?state=firing lists all")
        } else {
            String::new()
        };
        line("alerts", format!("{all} open, {} critical{more}", state["alertCounts"]["critical"]));
    }
    text
}

/// How full the buffer is: by readings in memory, by bytes on disk.
fn waiting(buffer: &Value) -> String {
    let rows = &buffer["rows"];
    if !buffer["rowsBound"].is_null() {
        return format!("{rows} of {} readings wait", buffer["rowsBound"]);
    }
    let size = |key: &str| format_size(buffer[key].as_u64().unwrap_or(0) / 1_000_000 * 1_000_000);
    let full = buffer["fullInMs"].as_u64().map(|ms| format!(", full in about {} min", ms.div_ceil(60_000))).unwrap_or_default();
    format!("{rows} readings wait, {} of {} on disk{full}", size("bytes"), size("bytesBound"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_buffer_is_told_by_what_bounds_it() {
        assert_eq!(waiting(&json!({"rows": 3, "rowsBound": 100})), "3 of 100 readings wait");
        let journal = json!({"rows": 9, "rowsBound": null, "bytes": 812_345_678, "bytesBound": 2_000_000_000, "fullInMs": 601_000});
        assert_eq!(waiting(&journal), "9 readings wait, 812MB of 2GB on disk, full in about 11 min");
    }

    #[test]
    fn open_alerts_sinks_and_actors_are_shown_and_resolved_alerts_are_not() {
        let text = render(&json!({
            "version": "0.1.0", "instance": "host", "startedAt": "t", "readiness": "buffering",
            "actors": [{"name": "IngestActor", "state": "running", "restarts": 2, "mailboxDepth": 0}],
            "outbox": {"sinks": [{"name": "log", "state": "closed", "backlog": 0}, {"name": "pager", "state": "open", "backlog": 3}]},
            "alerts": [{"level": "CRITICAL", "name": "overheat", "state": "firing", "text": "too hot"},
                {"level": "INFO", "name": "old", "state": "resolved", "text": "over"}],
            "alertCounts": {"open": 304, "critical": 303},
        }));
        assert!(text.contains("state     buffering"), "{text}");
        assert!(text.contains("sink      log is up, 0 wait") && text.contains("pager is down (circuit open), 3 wait"), "{text}");
        assert!(text.contains("IngestActor") && text.contains("2 restarts"), "{text}");
        assert!(text.contains("overheat") && !text.contains("old"), "{text}");
        assert!(text.contains("alerts    304 open, 303 critical; 1 of them are shown"), "{text}");
    }
}
