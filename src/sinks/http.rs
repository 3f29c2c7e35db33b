//! What the sinks over HTTP have in common: reading an answer's status, its Retry-After and its words, and what a request without an
//! answer means. Pure.

use std::time::Duration;

use chrono::DateTime;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::{ErrorClass, SendError, escape};
use crate::domain::channel::ASKED_TO_WAIT;
use crate::ingest::http_client::{Answer, ClientError, FailureKind};

/// So much of an answer is read: enough for its words, and so that the connection can be kept.
pub(super) const ANSWER_MAX_BYTES: usize = 16 * 1024;
/// A receiver that asks for more patience than a day is asked again after one.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// What of an answer's words is kept, characters.
const WORDS_MAX_CHARS: usize = 200;

/// What a status that is no success means to every receiver: come again for 429 and 5xx, never for the rest. Redirects are among the rest,
/// since a receiver that moved must be told to a person.
pub(super) fn refusal(status: u16, headers: &HeaderMap) -> (ErrorClass, &'static str) {
    let again = || ErrorClass::Retry { after: retry_after(headers) };
    match status {
        429 => (again(), "status_429"),
        408 | 425 => (again(), "status_4xx"),
        500..=599 if retry_after(headers).is_some() => (again(), ASKED_TO_WAIT),
        500..=599 => (again(), "status_5xx"),
        300..=399 => (ErrorClass::Reject, "redirect"),
        _ => (ErrorClass::Reject, "status_4xx"),
    }
}

/// The error that says so, with what the receiver said.
pub(super) fn refused(answer: &Answer, (class, error_type): (ErrorClass, &'static str)) -> SendError {
    SendError { class, error_type, message: format!("the receiver answered {}", told(answer)) }
}

/// Status and words in one line.
pub(super) fn told(answer: &Answer) -> String {
    let words = words(answer);
    if words.is_empty() { format!("HTTP {}", answer.status) } else { format!("HTTP {} {words}", answer.status) }
}

/// What the answer says, in one line; nothing where it is a page for people.
pub(super) fn words(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    if text.trim_start().starts_with('<') { String::new() } else { escape::one_line(&text, WORDS_MAX_CHARS) }
}

/// Retry-After as seconds, or as a date, which is taken relative to the receiver's own Date, so that no clock is compared.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return patience(seconds);
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    let now = DateTime::parse_from_rfc2822(headers.get(DATE)?.to_str().ok()?).ok()?;
    Some((until - now).to_std().unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// Seconds that a receiver asks for; nothing where they are none.
pub(super) fn patience(seconds: f64) -> Option<Duration> {
    let bounded = seconds.min(RETRY_AFTER_MAX.as_secs_f64());
    // NaN is no minimum of anything.
    Duration::try_from_secs_f64(bounded).ok()
}

/// What a request without an answer means.
pub(super) fn unanswered(error: &ClientError) -> SendError {
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
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_read_in_every_form_and_bounded() {
        let with = |after: &'static str| {
            HeaderMap::from_iter([
                (RETRY_AFTER, HeaderValue::from_static(after)),
                (DATE, HeaderValue::from_static("Fri, 20 Nov 2026 18:00:00 GMT")),
            ])
        };
        for (text, expected) in [
            ("7", Some(Duration::from_secs(7))),
            (" 0.5 ", Some(Duration::from_millis(500))),
            ("99999999999999999999", Some(RETRY_AFTER_MAX)),
            ("Fri, 20 Nov 2026 18:00:30 GMT", Some(Duration::from_secs(30))),
            ("Fri, 20 Nov 2026 17:00:00 GMT", Some(Duration::ZERO)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(&with(text)), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
        assert_eq!(patience(f64::INFINITY), Some(RETRY_AFTER_MAX));
    }
}
