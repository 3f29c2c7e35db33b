//! The Discord sink: a webhook, which posts to the one channel it was made for.
//!
//! Out: one embed, with no mentions allowed whatever its text says. `wait=true` has Discord answer with the message that it made. 429 says
//! when to come again, in its JSON to the millisecond; 401, 403 and 404 mean that the webhook is gone, which a person has to mend. Discord
//! knows no delivery ids, so what comes again shows twice there. Attachments are named.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::{Value as Json, json};

use super::{
    ErrorClass, Letter, Limits, SendError, Sent, Sink,
    content::{Content, Event},
    escape, http, limits_of,
    templates::{Part, Templates},
};
use crate::{
    config::{ChatConfig, SinkSettings},
    domain::channel,
    ingest::http_client::{Answer, ClientPolicy, GuardedClient},
};

/// The name of this sink in routes.
const NAME: &str = "discord";

/// Discord's own bounds, characters: an embed's title, its description, its footer.
const TITLE_MAX_CHARS: usize = 256;
const DESCRIPTION_MAX_CHARS: usize = 4_000;
const FOOTER_MAX_CHARS: usize = 500;

/// Posts to one webhook.
pub struct DiscordSink {
    /// Never logged: its path is the secret.
    url: Arc<str>,
    timeout: Duration,
    settings: SinkSettings,
    templates: Arc<Templates>,
    client: GuardedClient,
}

impl std::fmt::Debug for DiscordSink {
    /// Without the URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiscordSink").field("name", &NAME).finish_non_exhaustive()
    }
}

impl DiscordSink {
    /// A sink that has connected to nothing yet.
    pub fn new(config: &ChatConfig, templates: Arc<Templates>) -> Self {
        let (timeout, settings) = (config.timeout, config.settings.clone());
        Self { url: waiting(&config.url), timeout, settings, templates, client: GuardedClient::new(ClientPolicy::default()) }
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

impl Sink for DiscordSink {
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

/// The URL by which Discord answers only when the message is made.
fn waiting(text: &str) -> Arc<str> {
    let Ok(mut url) = Url::parse(text) else { return text.into() };
    if !url.query_pairs().any(|(name, _)| name == "wait") {
        url.query_pairs_mut().append_pair("wait", "true");
    }
    url.as_str().into()
}

fn payload(templates: &Templates, letter: &Letter) -> Result<Json, SendError> {
    let content = Content::read(letter);
    let headline = escape::markdown(&templates.render(&content, Part::Subject)?);
    let text = templates.render(&content, Part::Discord)?;
    let colour = match (content.event, content.level.as_str()) {
        (Event::Resolved, _) => 0x1b_6e_3c,
        (_, "CRITICAL") => 0xb3_26_1e,
        (_, "WARNING") => 0xe0_a0_30,
        _ => 0x1a_5f_b4,
    };
    let mut embed = json!({"title": escape::cut(&headline, TITLE_MAX_CHARS), "color": colour});
    embed["description"] = json!(escape::cut(&text, DESCRIPTION_MAX_CHARS));
    if !letter.attachments.is_empty() {
        let names: Vec<&str> = letter.attachments.iter().map(|file| file.name.as_str()).collect();
        embed["footer"] = json!({"text": format!("📎 {}", escape::one_line(&names.join(", "), FOOTER_MAX_CHARS))});
    }
    Ok(json!({"embeds": [embed], "allowed_mentions": {"parse": []}}))
}

fn judge(answer: &Answer) -> Result<Sent, SendError> {
    let json: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        200..=299 => {
            let id = json["id"].as_str().map(|id| format!(" message {}", escape::one_line(id, 40)));
            Ok(Sent { answer: format!("HTTP {}{}", answer.status, id.unwrap_or_default()) })
        }
        401 | 403 | 404 => Err(http::refused(answer, (ErrorClass::Fatal, channel::DENIED))),
        429 => {
            let after = json["retry_after"].as_f64().and_then(http::patience).or_else(|| http::retry_after(&answer.headers));
            Err(http::refused(answer, (ErrorClass::Retry { after }, "status_429")))
        }
        status => Err(http::refused(answer, http::refusal(status, &answer.headers))),
    }
}

#[cfg(test)]
#[path = "discord_tests.rs"]
mod tests;
