//! `belayd sinks`: the ways out and a test of one, over the daemon's control socket.

use std::{fmt::Write, process::ExitCode, time::Duration};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    GlobalArgs,
    control_client::{ControlClient, Failed, with_daemon},
};

/// From one look at a test's delivery to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks before a person is sent away with the id: a minute of them.
const LOOKS_MAX: u32 = 300;

/// Arguments of `belayd sinks`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd sinks list\n  belayd sinks test smtp --to ops@example.org --reason \"new mail server\"")]
pub struct SinksArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: SinksAction,
}

/// What to do with sinks.
#[derive(Clone, Debug, Subcommand)]
pub enum SinksAction {
    /// List them: circuit, what waits, limits
    #[command(after_help = "Example:\n  belayd sinks list --json")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send a test delivery and say what became of it
    #[command(after_help = "Example:\n  belayd sinks test smtp --to ops@example.org --reason \"new mail server\"")]
    Test {
        /// As `belayd sinks list` shows it
        name: String,
        /// An address for smtp, a room for a bot; without it the one in the configuration
        #[arg(long, value_name = "RECIPIENT")]
        to: Option<String>,
        /// Why; goes to the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Lists or tests.
pub fn execute(args: &SinksArgs, global: &GlobalArgs) -> ExitCode {
    let action = args.action.clone();
    with_daemon(global, |client| async move {
        match action {
            SinksAction::List { json } => {
                let listed = client.get(&["admin", "sinks"], &[]).await?;
                Ok(if json { format!("{:#}\n", listed["items"]) } else { render(&listed["items"]) })
            }
            SinksAction::Test { name, to, reason } => {
                let body = json!({"reason": reason, "to": to});
                let asked = client.send(Method::POST, &["admin", "sinks", &name, "test"], &body).await?;
                let id = asked["deliveryId"].as_str().unwrap_or_default().to_owned();
                follow(&client, &name, &id).await
            }
        }
    })
}

/// Waits for the end of a test's delivery.
async fn follow(client: &ControlClient, name: &str, id: &str) -> Result<String, Failed> {
    for _ in 0..LOOKS_MAX {
        let delivery = client.get(&["admin", "failures", id], &[]).await?;
        let word = |key: &str| delivery[key].as_str().unwrap_or_default().to_owned();
        match word("state").as_str() {
            "sent" => return Ok(format!("{name} took it ({id})\n{}", line("answer", &word("answer")))),
            "dead" | "uncertain" => {
                let told = format!("{name} did not take it: {} ({id})", word("message"));
                return Err(Failed::Other(told));
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    Err(Failed::Other(format!("{name} has not answered yet; look later: belayd failures show {id}")))
}

fn line(name: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("  {name}: {text}\n") }
}

fn render(items: &Value) -> String {
    let mut text = format!("{:<24} {:<8} {:<10} {:>8} {:>8}  {}\n", "NAME", "KIND", "CIRCUIT", "BACKLOG", "SENDING", "LIMITS");
    for item in items.as_array().into_iter().flatten() {
        let word = |name: &str| item[name].as_str().unwrap_or("-");
        let rate = item["perMinute"].as_u64().map_or_else(String::new, |rate| format!(", {rate} a minute"));
        let limits = format!("{} at once{rate}", item["concurrency"]);
        let (backlog, sending) = (&item["backlog"], &item["inFlight"]);
        // Writing into memory cannot fail.
        let _ = writeln!(
            text,
            "{:<24} {:<8} {:<10} {:>8} {:>8}  {limits}",
            word("name"),
            word("kind"),
            word("circuit"),
            backlog.to_string(),
            sending.to_string()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_circuit_and_limits() {
        let text = render(&json!([
            {"name": "smtp", "kind": "smtp", "circuit": "open", "backlog": 3, "inFlight": 1, "concurrency": 2, "perMinute": 60},
            {"name": "log", "kind": "log", "circuit": "closed", "backlog": 0, "inFlight": 0, "concurrency": 4, "perMinute": null},
        ]));
        assert!(text.contains("open") && text.contains("2 at once, 60 a minute"), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.ends_with("4 at once")), "{text}");
    }
}
