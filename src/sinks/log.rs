//! The sink that is always there: alerts as log lines, for whoever tails the log.

use futures_util::future::{BoxFuture, ready};
use serde::Deserialize;

use super::{Letter, SendError, Sent, Sink};

/// Writes one line an alert. It cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct LogSink;

/// The name of [`LogSink`] in routes.
pub const NAME: &str = "log";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    /// `firing` or `resolved`.
    #[serde(default)]
    event: String,
    title: String,
    text: String,
    level: String,
}

impl Sink for LogSink {
    fn name(&self) -> &str {
        NAME
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        let notice = serde_json::from_str::<Notice>(&letter.payload).ok();
        let (title, text) = notice.as_ref().map_or(("delivery", &*letter.payload), |n| (n.title.as_str(), n.text.as_str()));
        // That something is over is no trouble, whatever it was.
        let level = match notice.as_ref().map(|notice| (notice.event.as_str(), notice.level.as_str())) {
            Some(("resolved", _)) => log::Level::Info,
            Some((_, "CRITICAL")) => log::Level::Error,
            Some((_, "WARNING")) => log::Level::Warn,
            _ => log::Level::Info,
        };
        log::log!(target: "belayd::alert", level, alertId = letter.subject.as_str(), deliveryId = letter.id.as_str(), text = text; "{title}");
        Box::pin(ready(Ok(Sent { answer: "logged".into() })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn anything_can_be_logged() {
        for payload in [r#"{"title":"t","text":"x","level":"CRITICAL"}"#, "not json", ""] {
            let letter = Letter {
                id: "d".into(),
                sink: NAME.into(),
                recipient: String::new(),
                subject: "a".into(),
                payload: payload.into(),
                attempt: 1,
                possible_repeat: false,
                attachments: Vec::new(),
            };
            assert!(LogSink.send(&letter).await.is_ok());
        }
    }
}
