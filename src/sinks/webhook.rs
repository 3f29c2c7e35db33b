//! The webhook sink: the delivery's JSON in a POST, files in base64.
//!
//! Out: the payload with `Belayd-Delivery-Id` and `Idempotency-Key` (both the delivery's id, the same in every attempt), and
//! `Belayd-Possible-Repeat: true` where an earlier attempt may have arrived; where the section has a secret, signed by Standard Webhooks:
//! `webhook-id`, `webhook-timestamp`, `webhook-signature`. 2xx is sent; 429 and 5xx come again, honouring Retry-After; every other status is
//! a rejection, redirects included.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value as Json;
use sha2::Sha256;

use super::{ErrorClass, Letter, Limits, SendError, Sent, Sink, http, limits_of};
use crate::{
    config::{SinkSettings, WebhookConfig, signing_key},
    ingest::http_client::{Answer, ClientPolicy, GuardedClient},
};

const DELIVERY_ID: HeaderName = HeaderName::from_static("belayd-delivery-id");
const POSSIBLE_REPEAT: HeaderName = HeaderName::from_static("belayd-possible-repeat");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Posts to one URL.
pub struct WebhookSink {
    name: String,
    /// Never logged: it may hold a secret.
    url: Arc<str>,
    signer: Option<Signer>,
    timeout: Duration,
    settings: SinkSettings,
    client: GuardedClient,
}

impl std::fmt::Debug for WebhookSink {
    /// Without the URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSink").field("name", &self.name).finish_non_exhaustive()
    }
}

impl WebhookSink {
    /// A sink that has connected to nothing yet.
    pub fn new(config: &WebhookConfig) -> Self {
        let policy = ClientPolicy { ca: None, headers: config.headers.clone(), allow_link_local: config.allow_link_local };
        Self {
            name: config.name.clone(),
            url: config.url.as_str().into(),
            signer: config.secret.as_deref().and_then(Signer::new),
            timeout: config.timeout,
            settings: config.settings.clone(),
            client: GuardedClient::new(policy),
        }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let unfit = || SendError {
            class: ErrorClass::Reject,
            error_type: "invalid_id",
            message: format!("the delivery id {:?} cannot stand in a header", letter.id),
        };
        let mut headers = identity(letter).ok_or_else(unfit)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = body(letter);
        if let Some(signer) = &self.signer {
            signer.sign(&mut headers, &letter.id, chrono::Utc::now().timestamp(), &body).ok_or_else(unfit)?;
        }
        match self.client.post(&self.url, body, &headers, self.timeout, http::ANSWER_MAX_BYTES).await {
            Ok(answer) => judge(&answer),
            Err(error) => Err(http::unanswered(&error)),
        }
    }
}

impl Sink for WebhookSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        limits_of(&self.settings)
    }

    fn takes_batches(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(self.post(letter))
    }
}

/// The payload; the files of a message stand in it whole, each beside its name, since a receiver has no other way to them. Their bound is
/// that of a message.
fn body(letter: &Letter) -> Bytes {
    let plain = || Bytes::copy_from_slice(letter.payload.as_bytes());
    if letter.attachments.is_empty() {
        return plain();
    }
    let Ok(mut payload) = serde_json::from_str::<Json>(&letter.payload) else { return plain() };
    let Some(named) = payload["message"]["attachments"].as_array_mut() else { return plain() };
    for (named, file) in named.iter_mut().zip(&letter.attachments) {
        if let Some(fields) = named.as_object_mut() {
            fields.insert("base64".to_owned(), Json::from(BASE64_STANDARD.encode(&file.content)));
        }
    }
    payload.to_string().into()
}

/// The headers by which a receiver tells repeats; none where the id cannot stand in one.
pub(super) fn identity(letter: &Letter) -> Option<HeaderMap> {
    let id = HeaderValue::from_str(&letter.id).ok()?;
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(DELIVERY_ID, id.clone());
    headers.insert(IDEMPOTENCY_KEY, id);
    if letter.possible_repeat {
        headers.insert(POSSIBLE_REPEAT, HeaderValue::from_static("true"));
    }
    Some(headers)
}

/// Signs by Standard Webhooks, version 1: HMAC-SHA256 over id, time and body.
struct Signer(Hmac<Sha256>);

impl Signer {
    fn new(secret: &str) -> Option<Self> {
        Hmac::new_from_slice(&signing_key(secret)?).ok().map(Self)
    }

    fn sign(&self, headers: &mut HeaderMap, id: &str, at_s: i64, body: &[u8]) -> Option<()> {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{at_s}.").as_bytes());
        mac.update(body);
        let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        headers.insert(WEBHOOK_ID, HeaderValue::from_str(id).ok()?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(at_s));
        headers.insert(WEBHOOK_SIGNATURE, HeaderValue::from_str(&signature).ok()?);
        Some(())
    }
}

fn judge(answer: &Answer) -> Result<Sent, SendError> {
    match answer.status {
        200..=299 => Ok(Sent { answer: http::told(answer) }),
        status => Err(http::refused(answer, http::refusal(status, &answer.headers))),
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
