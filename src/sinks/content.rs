//! What a delivery says, read from its payload: a notice of an alert, a digest of several, or a message.
//!
//! In: the payload's JSON, whatever its age. Out: [`Content`], in which every name that templates may use is there. Nothing is refused:
//! what is no such JSON is a message whose text it is, since a delivery that was committed must not be lost over its form.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::Letter;

/// What of a payload that is not understood is shown, characters.
const UNKNOWN_MAX_CHARS: usize = 4_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An alert began.
    Firing,
    /// An open alert got worse.
    Escalated,
    /// An open alert is told of again.
    Repeat,
    /// An alert is over.
    Resolved,
    /// Several alerts in one.
    Digest,
    /// What somebody wrote.
    Message,
}

impl Event {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Firing, Self::Escalated, Self::Repeat, Self::Resolved, Self::Digest, Self::Message];

    /// The word in payloads and template names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Escalated => "escalated",
            Self::Repeat => "repeat",
            Self::Resolved => "resolved",
            Self::Digest => "digest",
            Self::Message => "message",
        }
    }

    /// The name of the templates that serve it where it has none of its own.
    pub fn group(self) -> &'static str {
        match self {
            Self::Firing | Self::Escalated | Self::Repeat | Self::Resolved => "alert",
            Self::Digest => "digest",
            Self::Message => "message",
        }
    }
}

/// A notice of one alert, or of several. Names that are not here yet are kept in `more`, and templates see them too.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Notice {
    event: String,
    title: String,
    id: String,
    kind: String,
    name: String,
    subject: String,
    level: String,
    state: String,
    opened_at: Json,
    acknowledged_at: Json,
    acknowledged_by: Json,
    resolved_at: Json,
    value: Json,
    threshold: Json,
    text: String,
    count: Json,
    sent_at: Json,
    /// Of a digest: how many are firing.
    firing: Json,
    /// Of a digest: how many are over.
    resolved: Json,
    /// Of a digest: the newest of them.
    alerts: Vec<Notice>,
    #[serde(flatten)]
    more: Map<String, Json>,
}

/// A message that somebody wrote.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Message {
    id: String,
    subject: String,
    body: String,
    html: Option<String>,
    to: Vec<String>,
    attachments: Vec<Json>,
    reply_to: Option<String>,
    from: Json,
    created_at: Json,
}

#[derive(Deserialize)]
struct Envelope {
    message: Message,
}

/// What templates see beside what the delivery says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a, T> {
    #[serde(flatten)]
    said: &'a T,
    event: &'static str,
    title: &'a str,
    delivery_id: &'a str,
    recipient: &'a str,
    possible_repeat: bool,
}

/// A message as templates see it: under one name, so that no word of a person is taken for belayd's.
#[derive(Serialize)]
struct Wrapped<'a> {
    message: &'a Message,
}

/// What a delivery says.
#[derive(Clone, Debug)]
pub struct Content {
    /// What happened.
    pub event: Event,
    /// One line that says it; never from a template.
    pub title: String,
    /// `INFO`, `WARNING` or `CRITICAL`; empty for a message.
    pub level: String,
    /// The alert's id, where it is about one.
    pub alert_id: Option<String>,
    /// Every name that a template may use.
    pub context: Json,
}

impl Content {
    /// Reads a delivery.
    pub fn read(letter: &Letter) -> Self {
        if let Ok(Envelope { message }) = serde_json::from_str(&letter.payload) {
            return Self::of_message(letter, &message);
        }
        let unknown = || {
            let body = letter.payload.chars().take(UNKNOWN_MAX_CHARS).collect();
            Self::of_message(letter, &Message { subject: "delivery".to_owned(), body, ..Message::default() })
        };
        let Ok(notice) = serde_json::from_str::<Notice>(&letter.payload) else { return unknown() };
        if notice.title.is_empty() && notice.text.is_empty() && notice.alerts.is_empty() {
            return unknown();
        }
        let event = Event::ALL.into_iter().find(|event| *event != Event::Message && event.as_str() == notice.event);
        let event = event.unwrap_or(Event::Firing);
        Self {
            event,
            title: notice.title.clone(),
            level: notice.level.clone(),
            alert_id: (event != Event::Digest && !notice.id.is_empty()).then(|| notice.id.clone()),
            context: context(letter, &notice, event, &notice.title),
        }
    }

    fn of_message(letter: &Letter, message: &Message) -> Self {
        let said = Wrapped { message };
        Self {
            event: Event::Message,
            title: message.subject.clone(),
            level: String::new(),
            alert_id: None,
            context: context(letter, &said, Event::Message, &message.subject),
        }
    }

    /// Where answers to the message go, where it says so.
    pub fn reply_to(&self) -> Option<&str> {
        self.context["message"]["replyTo"].as_str()
    }

    /// The id of the message, where it is one.
    pub fn message_id(&self) -> Option<&str> {
        self.context["message"]["id"].as_str().filter(|id| !id.is_empty())
    }
}

fn context<T: Serialize>(letter: &Letter, said: &T, event: Event, title: &str) -> Json {
    let Letter { id: delivery_id, recipient, possible_repeat, .. } = letter;
    let context = Context { said, event: event.as_str(), title, delivery_id, recipient, possible_repeat: *possible_repeat };
    // The same name twice (event, title): what stands behind goes over what stands before. Words and numbers cannot fail.
    serde_json::to_value(context).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::doubles::letter;

    #[test]
    fn every_shape_is_read_and_every_name_is_there() {
        let firing = letter(r#"{"event":"escalated","title":"t","level":"CRITICAL","id":"a1","labels":{"line":"3"}}"#);
        let content = Content::read(&firing);
        assert_eq!((content.event, content.title.as_str(), content.level.as_str()), (Event::Escalated, "t", "CRITICAL"));
        assert_eq!(content.alert_id.as_deref(), Some("a1"));
        assert_eq!(content.context["labels"]["line"], "3", "names to come reach templates");
        for name in ["openedAt", "value", "threshold", "acknowledgedBy", "resolvedAt", "count", "deliveryId", "possibleRepeat"] {
            assert!(content.context.get(name).is_some(), "{name}");
        }
        let digest = Content::read(&letter(r#"{"event":"digest","title":"3 alerts","count":3,"alerts":[{"name":"n"}]}"#));
        assert_eq!((digest.event, digest.context["alerts"][0]["subject"].as_str()), (Event::Digest, Some("")));
        let message = Content::read(&letter(r#"{"message":{"id":"m","subject":"s","body":"b"}}"#));
        assert_eq!((message.event, message.message_id(), message.title.as_str()), (Event::Message, Some("m"), "s"));
        assert!(message.context["message"]["html"].is_null() && message.context["message"].get("from").is_some());
    }

    #[test]
    fn what_is_not_understood_is_shown_as_it_is() {
        for text in ["", "plain", "{}", "[1]", r#"{"event":7}"#, "\u{0}"] {
            let content = Content::read(&letter(text));
            assert_eq!((content.event, content.title.as_str()), (Event::Message, "delivery"), "{text:?}");
            assert_eq!(content.context["message"]["body"], text);
        }
        let unknown_event = Content::read(&letter(r#"{"event":"later","title":"t"}"#));
        assert_eq!(unknown_event.event, Event::Firing);
    }
}
