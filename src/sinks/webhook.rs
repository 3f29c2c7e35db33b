//! The webhook sink: the delivery's JSON in a POST.
//!
//! Out: the payload with `Belayd-Delivery-Id` and `Idempotency-Key` (both the delivery's id, the same in every attempt), and
//! `Belayd-Possible-Repeat: true` where an earlier attempt may have arrived. 2xx is sent; 429 and 5xx come again, honouring
//! Retry-After; every other status is a rejection, redirects included, since a webhook that moved must be told to a person.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::{ErrorClass, Letter, SendError, Sent, Sink};
use crate::{
    config::WebhookConfig,
    ingest::http_client::{ClientError, ClientPolicy, FailureKind, GuardedClient},
};

/// Of the answer's body nothing is used; so much is read that the connection can be kept.
const ANSWER_MAX_BYTES: usize = 16 * 1024;
/// A receiver that asks for more patience than a day is asked again after one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

const DELIVERY_ID: HeaderName = HeaderName::from_static("belayd-delivery-id");
const POSSIBLE_REPEAT: HeaderName = HeaderName::from_static("belayd-possible-repeat");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Posts to one URL.
#[derive(Debug)]
pub struct WebhookSink {
    name: String,
    /// Never logged: it may hold a secret.
    url: Arc<str>,
    timeout: Duration,
    client: GuardedClient,
}

impl WebhookSink {
    /// A sink that has connected to nothing yet.
    pub fn new(config: &WebhookConfig) -> Self {
        let policy = ClientPolicy { ca: None, headers: config.headers.clone(), allow_link_local: config.allow_link_local };
        Self {
            name: config.name.clone(),
            url: config.url.as_str().into(),
            timeout: config.timeout,
            client: GuardedClient::new(policy),
        }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let headers = headers(letter).ok_or_else(|| SendError {
            class: ErrorClass::Reject,
            error_type: "invalid_id",
            message: format!("the delivery id {:?} cannot stand in a header", letter.id),
        })?;
        let body = Bytes::copy_from_slice(letter.payload.as_bytes());
        match self.client.post(&self.url, body, &headers, self.timeout, ANSWER_MAX_BYTES).await {
            Ok(answer) => judge(answer.status, &answer.headers),
            Err(error) => Err(classify(&error)),
        }
    }
}

impl Sink for WebhookSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(self.post(letter))
    }
}

fn headers(letter: &Letter) -> Option<HeaderMap> {
    let id = HeaderValue::from_str(&letter.id).ok()?;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(DELIVERY_ID, id.clone());
    headers.insert(IDEMPOTENCY_KEY, id);
    if letter.possible_repeat {
        headers.insert(POSSIBLE_REPEAT, HeaderValue::from_static("true"));
    }
    Some(headers)
}

fn judge(status: u16, headers: &HeaderMap) -> Result<Sent, SendError> {
    let (class, error_type) = match status {
        200..=299 => return Ok(Sent { answer: format!("HTTP {status}") }),
        429 => (ErrorClass::Retry { after: retry_after(headers) }, "status_429"),
        408 | 425 => (ErrorClass::Retry { after: retry_after(headers) }, "status_4xx"),
        500..=599 => (ErrorClass::Retry { after: retry_after(headers) }, "status_5xx"),
        300..=399 => (ErrorClass::Reject, "redirect"),
        _ => (ErrorClass::Reject, "status_4xx"),
    };
    Err(SendError { class, error_type, message: format!("the receiver answered HTTP {status}") })
}

/// Retry-After as seconds, or as a date, which is taken relative to the receiver's own Date, so that no clock is compared.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = DateTime::parse_from_rfc2822(text).ok()?;
            let now = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
            (until - now).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn classify(error: &ClientError) -> SendError {
    let (class, error_type) = match error.kind {
        FailureKind::Refused => (ErrorClass::Fatal, "refused"),
        // Nothing was sent: as good as not tried.
        FailureKind::Connect => (ErrorClass::Retry { after: None }, "connect"),
        FailureKind::Timeout => (ErrorClass::Unknown, "timeout"),
        FailureKind::Broken | FailureKind::TooLarge => (ErrorClass::Unknown, "broken"),
    };
    SendError { class, error_type, message: error.message.clone() }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
