//! Duty: one answer of one source, asked for and read.
//!
//! Comes in: a source's configuration and the last `X-Next`. Goes out: a body with its kind, then its readings, or a [`PollError`]
//! that says in one sentence, without the URL, what failed. A crash loses the answer; it is asked for again.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::{
    gzip::Coding,
    http_client::{Answer, ClientPolicy, GuardedClient},
    limits::{MAX_BODY_BYTES, MAX_NEXT_BYTES},
    parse::{BodyKind, FieldMap, ParseContext, Parsed, parse_body},
    poll::PollContext,
    reason::{BodyError, Reason},
};
use crate::config::SourceConfig;

/// The place in a URL that takes the last `X-Next`.
const AFTER: &str = "{after}";

/// A poll that brought nothing; the same is asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PollError(String);

impl PollError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for PollError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BodyError> for PollError {
    fn from(error: BodyError) -> Self {
        Self(error.to_string())
    }
}

/// A whole answer, inflated but not yet parsed.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// As the answer said; `None` where it said nothing that is known.
    pub(super) kind: Option<BodyKind>,
    /// What to ask for next, once this has been taken.
    pub(super) next: Option<String>,
}

/// Asks one source.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: GuardedClient,
    source: SourceConfig,
    fields: FieldMap,
}

impl Fetcher {
    pub(super) fn new(source: &SourceConfig) -> Self {
        let policy =
            ClientPolicy { ca: source.ca.clone(), headers: source.headers.clone(), allow_link_local: source.allow_link_local };
        Self { client: GuardedClient::new(policy), fields: FieldMap::new(&source.fields), source: source.clone() }
    }

    /// Asks for what comes after `after`, or for the beginning.
    pub(super) async fn fetch(&self, after: Option<&str>) -> Result<Fetched, PollError> {
        let url = fill(&self.source.url, after.unwrap_or_default());
        let answer = self.client.get(&url, self.source.timeout, MAX_BODY_BYTES).await;
        let Answer { status, headers, body } = answer.map_err(|error| PollError::new(error.to_string()))?;
        match status {
            200 | 204 => {}
            300..=399 => return Err(PollError::new(format!("it answered {status}; redirects are not followed"))),
            _ => return Err(PollError::new(format!("it answered {status}"))),
        }
        let next = text(&headers, "x-next").map(str::to_owned);
        if next.as_ref().is_some_and(|next| next.len() > MAX_NEXT_BYTES) {
            return Err(PollError::new(format!("its X-Next is longer than {MAX_NEXT_BYTES} bytes")));
        }
        let coding = Coding::from_header(text(&headers, CONTENT_ENCODING.as_str()))?;
        let inflated = match coding.decode(&body, MAX_BODY_BYTES)? {
            Cow::Owned(plain) => Some(plain),
            Cow::Borrowed(_) => None,
        };
        Ok(Fetched {
            body: inflated.map_or(body, Bytes::from),
            kind: BodyKind::from_content_type(text(&headers, CONTENT_TYPE.as_str())).ok(),
            next,
        })
    }

    /// Reads an answer; `None` where it holds no reading, which is the way to say that there is nothing new.
    pub(super) fn parse(&self, kind: Option<BodyKind>, body: &[u8], context: &PollContext) -> Result<Option<Parsed>, PollError> {
        let fields = Some(&self.fields).filter(|fields| !fields.is_empty());
        let parse_context = ParseContext { fields, ..ParseContext::new(&context.readings, &context.arrival) };
        let read = |kind| parse_body(kind, body, &parse_context);
        let parsed = match kind {
            Some(BodyKind::Ndjson) => read(BodyKind::Ndjson),
            // Many serve NDJSON under the type of JSON, or under none: a second object tells.
            _ => match read(BodyKind::Json) {
                Err(first) if first.code == Reason::BadJson && body.trim_ascii_start().starts_with(b"{") => {
                    read(BodyKind::Ndjson).ok().filter(|parsed| !parsed.batch.is_empty()).ok_or(first)
                }
                other => other,
            },
        };
        match parsed {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) if error.code == Reason::EmptyBody => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Puts `after` into the URL, escaped so that it stays one value.
fn fill<'a>(url: &'a str, after: &str) -> Cow<'a, str> {
    if !url.contains(AFTER) {
        return Cow::Borrowed(url);
    }
    let escaped: String = url::form_urlencoded::byte_serialize(after.as_bytes()).collect();
    // A plus is a space only behind the question mark; %20 is one everywhere.
    Cow::Owned(url.replace(AFTER, &escaped.replace('+', "%20")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_next_is_put_into_the_url_as_one_value() {
        assert_eq!(fill("http://h/x?a=1", "7"), "http://h/x?a=1");
        assert_eq!(fill("http://h/x?after={after}&n=1", ""), "http://h/x?after=&n=1");
        assert_eq!(fill("http://h/{after}", "a b&c/d+é"), "http://h/a%20b%26c%2Fd%2B%C3%A9");
    }
}
