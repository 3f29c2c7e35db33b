//! The sink that is always there: alerts as log lines, for whoever tails the log. Of a message only its subject is logged: what people
//! write to each other belongs into no log.

use futures_util::future::{BoxFuture, ready};

use super::{
    Letter, SendError, Sent, Sink,
    content::{Content, Event},
    escape,
};

/// Writes one line an alert. It cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct LogSink;

/// The name of [`LogSink`] in routes.
pub const NAME: &str = "log";

/// What of a sentence is logged, characters.
const TEXT_MAX_CHARS: usize = 1_000;

impl Sink for LogSink {
    fn name(&self) -> &str {
        NAME
    }

    fn takes_batches(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        let content = Content::read(letter);
        let title = escape::one_line(&content.title, escape::SUBJECT_MAX_CHARS);
        // That something is over is no trouble, whatever it was.
        let level = match (content.event, content.level.as_str()) {
            (Event::Resolved, _) => log::Level::Info,
            (_, "CRITICAL") => log::Level::Error,
            (_, "WARNING") => log::Level::Warn,
            _ => log::Level::Info,
        };
        if content.event == Event::Message {
            log::info!(target: "belayd::alert", messageId = letter.subject.as_str(), deliveryId = letter.id.as_str(); "message: {title}");
        } else {
            let text = escape::cut(content.context["text"].as_str().unwrap_or_default(), TEXT_MAX_CHARS);
            log::log!(target: "belayd::alert", level, alertId = letter.subject.as_str(), deliveryId = letter.id.as_str(), text = text.as_str();
                "{title}");
        }
        Box::pin(ready(Ok(Sent { answer: "logged".into() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::doubles::letter;

    #[tokio::test]
    async fn anything_can_be_logged() {
        for payload in
            [r#"{"title":"t","text":"x","level":"CRITICAL"}"#, r#"{"message":{"subject":"s","body":"b"}}"#, "not json", ""]
        {
            assert!(LogSink.send(&letter(payload)).await.is_ok());
        }
    }
}
