//! `belayd tail`: the running daemon's latest log lines, over its control socket.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use reqwest::Method;
use serde_json::Value;

use super::{
    GlobalArgs,
    control_client::{ControlClient, Failed, with_daemon},
};

/// Most bytes of one event; a line of the log is cut long before that.
const EVENT_MAX_BYTES: usize = 1024 * 1024;

/// Arguments of `belayd tail`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Example:\n  belayd tail -f --level warn --target belayd::outbox")]
pub struct TailArgs {
    /// Go on with what is logged from now on
    #[arg(short, long)]
    pub follow: bool,
    /// This level and above
    #[arg(long, value_name = "L", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub level: Option<String>,
    /// Only targets that begin with this
    #[arg(long, value_name = "T")]
    pub target: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Prints the lines; with `--follow` until it is interrupted or the daemon stops.
pub fn execute(args: &TailArgs, global: &GlobalArgs) -> ExitCode {
    with_daemon(global, |client| async move {
        let mut query = vec![("follow", args.follow.to_string())];
        query.extend(args.level.clone().map(|level| ("level", level)));
        query.extend(args.target.clone().map(|target| ("target", target)));
        if args.follow {
            follow(&client, &query, args.json).await?;
            return Ok(String::new());
        }
        let listed = client.get(&["admin", "logs"], &query).await?;
        Ok(listed["items"].as_array().into_iter().flatten().map(|line| render(line, args.json)).collect())
    })
}

async fn follow(client: &ControlClient, query: &[(&str, String)], as_json: bool) -> Result<(), Failed> {
    let mut response = client.open(Method::GET, &["admin", "logs"], query, None).await?;
    let mut waiting = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failed::Other(format!("the tail broke off: {error}")))? {
        waiting.extend_from_slice(&chunk);
        while let Some(end) = waiting.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = waiting.drain(..end + 2).collect();
            let written = io::stdout().lock().write_all(of_event(&String::from_utf8_lossy(&event), as_json).as_bytes());
            if written.is_err() {
                // Whoever read has gone (`belayd tail -f | head`).
                return Ok(());
            }
        }
        if waiting.len() > EVENT_MAX_BYTES {
            return Err(Failed::Other("the daemon sent a line without end".into()));
        }
    }
    Ok(())
}

/// The text for one event: nothing for comments.
fn of_event(event: &str, as_json: bool) -> String {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let Some(data) = field("data") else { return String::new() };
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    match field("event") {
        Some("missed") if as_json => format!("{data}\n"),
        Some("missed") => format!("… {} lines missed …\n", data["missed"]),
        _ => render(&data, as_json),
    }
}

fn render(line: &Value, as_json: bool) -> String {
    if as_json {
        return format!("{line}\n");
    }
    let word = |name: &str| line[name].as_str().unwrap_or("-");
    let fields = line["fields"].as_object().into_iter().flatten();
    let fields: String = fields
        .map(|(name, value)| match value.as_str() {
            Some(text) if text.contains([' ', '"', '=']) => format!(" {name}={text:?}"),
            Some(text) => format!(" {name}={text}"),
            None => format!(" {name}={value}"),
        })
        .collect();
    format!("{} {:<5} {} {}{fields}\n", word("time"), word("level").to_uppercase(), word("target"), word("message"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_become_lines_and_comments_nothing() {
        assert_eq!(of_event(": still here\n\n", false), "");
        assert_eq!(of_event("event: missed\ndata: {\"missed\":3}\n\n", false), "… 3 lines missed …\n");
        let line = json!({"time": "T", "level": "warn", "target": "belayd::web", "message": "m", "fields": {"a": 1, "b": "x y"}});
        let event = format!("event: line\ndata: {line}\n\n");
        assert_eq!(of_event(&event, false), "T WARN  belayd::web m a=1 b=\"x y\"\n");
        assert_eq!(of_event(&event, true), format!("{line}\n"));
    }
}
