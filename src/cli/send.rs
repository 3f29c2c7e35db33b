//! `belayd send`: a message to people, over the daemon's control socket.

use std::{fmt::Write, io::Read, process::ExitCode};

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    GlobalArgs,
    control_client::{Failed, with_daemon},
};

/// More than any message may have: what is longer is refused by the daemon, which says so.
const BODY_MAX_BYTES: u64 = 2_000_000;

/// Arguments of `belayd send`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  belayd send --to ops@example.com --subject \"Pump 3\" \"Pressure is falling\"\n  \
                        report | belayd send --via on-call --subject \"Nightly report\" -")]
pub struct SendArgs {
    /// To whom: a mail address or a room; several times for several
    #[arg(long, value_name = "RECIPIENT")]
    pub to: Vec<String>,
    /// One line
    #[arg(long, value_name = "TEXT")]
    pub subject: String,
    /// The sink; without it smtp, where that is configured
    #[arg(long, value_name = "SINK")]
    pub via: Option<String>,
    /// Not before this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Where answers go
    #[arg(long, value_name = "ADDRESS")]
    pub reply_to: Option<String>,
    /// The same key makes no second message
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// The text; - reads it from standard input
    pub body: String,
}

/// Hands it in.
pub fn execute(args: &SendArgs, global: &GlobalArgs) -> ExitCode {
    let args = args.clone();
    with_daemon(global, |client| async move {
        let body = text(&args.body)?;
        let mut message = json!({"subject": args.subject, "body": body});
        if !args.to.is_empty() {
            message["to"] = json!(args.to);
        }
        let optional =
            [("via", args.via), ("sendAt", args.at), ("replyTo", args.reply_to), ("idempotencyKey", args.idempotency_key)];
        for (name, value) in optional.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            message[name] = json!(value);
        }
        let answer = client.send(Method::POST, &["api", "messages"], &message).await?;
        Ok(if args.json { format!("{answer:#}\n") } else { render(&answer) })
    })
}

fn text(body: &str) -> Result<String, Failed> {
    if body != "-" {
        return Ok(body.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(BODY_MAX_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failed::Other(format!("the text cannot be read from standard input: {error}")))?;
    Ok(text)
}

fn render(answer: &Value) -> String {
    let word = |value: &Value, name: &str| value[name].as_str().unwrap_or("-").to_owned();
    let again = if answer["repeated"] == true { " (handed in before)" } else { "" };
    let mut text = format!("{} {}{again}\n", word(answer, "id"), word(answer, "status"));
    for delivery in answer["deliveries"].as_array().into_iter().flatten() {
        // Writing into memory cannot fail.
        let _ = writeln!(text, "  {} {} {}", word(delivery, "id"), word(delivery, "state"), word(delivery, "recipient"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_the_message_and_each_delivery() {
        let text = render(&json!({"id": "m", "status": "ready", "repeated": true,
            "deliveries": [{"id": "d", "state": "ready", "recipient": "a@example.com"}]}));
        assert_eq!(text, "m ready (handed in before)\n  d ready a@example.com\n");
    }
}
