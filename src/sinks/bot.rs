//! The bot sink: text and images to a room, by a POST to a chat bot of the user's own. docs/SINKS.md has the contract.
//!
//! Out: JSON with the delivery's id, the room, headline and text, and images and other files in base64. The bot can tell repeats by the id and answers 409 to
//! one it has had, which counts as sent. 401 and 403 mean that the token is wrong, which a person has to mend.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value as Json, json};

use super::{
    Attachment, ErrorClass, Letter, Limits, SendError, Sent, Sink,
    content::Content,
    http, limits_of,
    templates::{Part, Templates},
};
use crate::{
    config::BotConfig,
    domain::channel,
    ingest::http_client::{Answer, ClientPolicy, GuardedClient},
};

/// Posts to one bot.
#[derive(Debug)]
pub struct BotSink {
    config: BotConfig,
    templates: Arc<Templates>,
    client: GuardedClient,
    timeout: Duration,
}

impl BotSink {
    /// A sink that has connected to nothing yet.
    pub fn new(config: &BotConfig, templates: Arc<Templates>) -> Self {
        let bearer = config.token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        let headers: BTreeMap<String, String> = bearer.collect();
        let policy = ClientPolicy { ca: config.ca.clone(), headers, allow_link_local: config.allow_link_local };
        Self { timeout: config.timeout, config: config.clone(), templates, client: GuardedClient::new(policy) }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let headers = headers(letter).ok_or_else(|| SendError {
            class: ErrorClass::Reject,
            error_type: "invalid_id",
            message: format!("the delivery id {:?} cannot stand in a header", letter.id),
        })?;
        let body = payload(&self.templates, letter, self.config.room.as_deref())?.to_string().into();
        match self.client.post(&self.config.url, body, &headers, self.timeout, http::ANSWER_MAX_BYTES).await {
            Ok(answer) => judge(&answer),
            Err(error) => Err(http::unanswered(&error)),
        }
    }
}

impl Sink for BotSink {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn limits(&self) -> Limits {
        limits_of(&self.config.settings)
    }

    fn takes_recipients(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(self.post(letter))
    }
}

fn headers(letter: &Letter) -> Option<HeaderMap> {
    let mut headers = super::webhook::identity(letter)?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(headers)
}

fn payload(templates: &Templates, letter: &Letter, room: Option<&str>) -> Result<Json, SendError> {
    let content = Content::read(letter);
    let (images, others): (Vec<&Attachment>, Vec<&Attachment>) =
        letter.attachments.iter().partition(|file| file.content_type.starts_with("image/"));
    let image = |file: &&Attachment| json!({"name": file.name, "contentType": file.content_type, "base64": BASE64_STANDARD.encode(&file.content)});
    let other = |file: &&Attachment| json!({"name": file.name, "contentType": file.content_type, "bytes": file.content.len(), "base64": BASE64_STANDARD.encode(&file.content)});
    let given = Some(letter.recipient.as_str()).filter(|room| !room.is_empty());
    Ok(json!({
        "deliveryId": letter.id,
        "possibleRepeat": letter.possible_repeat,
        "room": given.or(room),
        "event": content.event.as_str(),
        "level": Some(&content.level).filter(|level| !level.is_empty()),
        "title": templates.render(&content, Part::Subject)?,
        "text": templates.render(&content, Part::Text)?,
        "images": images.iter().map(image).collect::<Vec<_>>(),
        "attachments": others.iter().map(other).collect::<Vec<_>>(),
    }))
}

fn judge(answer: &Answer) -> Result<Sent, SendError> {
    match answer.status {
        // 409: it has this delivery already.
        200..=299 | 409 => Ok(Sent { answer: http::told(answer) }),
        401 | 403 => Err(http::refused(answer, (ErrorClass::Fatal, channel::DENIED))),
        status => Err(http::refused(answer, http::refusal(status, &answer.headers))),
    }
}

#[cfg(test)]
#[path = "bot_tests.rs"]
mod tests;
