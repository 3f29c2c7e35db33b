//! The Slack sink: an incoming webhook, which posts to the one channel it was made for.
//!
//! Out: blocks (a headline and sections of mrkdwn) with a plain text for notifications. Slack answers `ok` to what it took; 429 says when to
//! come again; 403, 404 and 410 mean that the webhook or its channel is gone, which a person has to mend. Incoming webhooks take no files:
//! attachments are named. Slack knows no delivery ids, so what comes again shows twice there.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value as Json, json};

use super::{
    ErrorClass, Letter, Limits, SendError, Sent, Sink,
    content::Content,
    escape, http, limits_of,
    templates::{Part, Templates},
};
use crate::{
    config::{ChatConfig, SinkSettings},
    domain::channel,
    ingest::http_client::{Answer, ClientPolicy, GuardedClient},
};

/// The name of this sink in routes.
const NAME: &str = "slack";

/// Slack's own bounds, characters: a headline, the text of a section.
const HEADER_MAX_CHARS: usize = 150;
const SECTION_MAX_CHARS: usize = 3_000;
/// Sections of one post; Slack takes 50, nobody reads them.
const SECTIONS_MAX: usize = 10;

/// Posts to one webhook.
pub struct SlackSink {
    /// Never logged: its path is the secret.
    url: Arc<str>,
    timeout: Duration,
    settings: SinkSettings,
    templates: Arc<Templates>,
    client: GuardedClient,
}

impl std::fmt::Debug for SlackSink {
    /// Without the URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlackSink").field("name", &NAME).finish_non_exhaustive()
    }
}

impl SlackSink {
    /// A sink that has connected to nothing yet.
    pub fn new(config: &ChatConfig, templates: Arc<Templates>) -> Self {
        let (timeout, settings) = (config.timeout, config.settings.clone());
        Self { url: config.url.as_str().into(), timeout, settings, templates, client: GuardedClient::new(ClientPolicy::default()) }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let body = payload(&self.templates, letter)?.to_string().into();
        match self.client.post(&self.url, body, &headers, self.timeout, http::ANSWER_MAX_BYTES).await {
            Ok(answer) => judge(&answer),
            Err(error) => Err(http::unanswered(&error)),
        }
    }
}

impl Sink for SlackSink {
    fn name(&self) -> &str {
        NAME
    }

    fn limits(&self) -> Limits {
        limits_of(&self.settings)
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(self.post(letter))
    }
}

fn payload(templates: &Templates, letter: &Letter) -> Result<Json, SendError> {
    let content = Content::read(letter);
    let headline = templates.render(&content, Part::Subject)?;
    let mut text = templates.render(&content, Part::Slack)?;
    if !letter.attachments.is_empty() {
        let names: Vec<&str> = letter.attachments.iter().map(|file| file.name.as_str()).collect();
        text.push_str(&format!("\n📎 {}", escape::mrkdwn(&escape::one_line(&names.join(", "), 500))));
    }
    let mut blocks = Vec::new();
    if !headline.is_empty() {
        // Plain text: nothing in it is taken for markup.
        let line = escape::cut(&headline, HEADER_MAX_CHARS);
        blocks.push(json!({"type": "header", "text": {"type": "plain_text", "text": line, "emoji": false}}));
    }
    let sections = escape::pieces(&text, SECTION_MAX_CHARS, SECTIONS_MAX);
    blocks.extend(
        sections.iter().map(|piece| json!({"type": "section", "text": {"type": "mrkdwn", "text": piece, "verbatim": true}})),
    );
    Ok(json!({"text": escape::mrkdwn(&headline), "blocks": blocks, "unfurl_links": false, "unfurl_media": false}))
}

fn judge(answer: &Answer) -> Result<Sent, SendError> {
    match answer.status {
        200..=299 if took(answer) => Ok(Sent { answer: http::told(answer) }),
        // A page of somebody in between, or not Slack at all.
        200..=299 => {
            let message = "the receiver answered, and not as Slack does (\"ok\"); look at slack.url".to_owned();
            Err(SendError { class: ErrorClass::Fatal, error_type: "not_slack", message })
        }
        401 | 403 | 404 | 410 => Err(http::refused(answer, (ErrorClass::Fatal, channel::DENIED))),
        status => Err(http::refused(answer, http::refusal(status, &answer.headers))),
    }
}

/// `ok`; receivers that speak Slack's form, such as Mattermost and Rocket.Chat, say so in JSON or likewise.
fn took(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    let json: Json = serde_json::from_str(&text).unwrap_or_default();
    text.trim() == "ok" || json["ok"] == true || json["success"] == true
}

#[cfg(test)]
#[path = "slack_tests.rs"]
mod tests;
