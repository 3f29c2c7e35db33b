//! Request bodies, read within bounds of size and time, inflated where they are gzipped.
//!
//! In: the payload of a request. Out: plain bytes or typed JSON. A client that pauses longer than `server.client_timeout` within
//! its body, or sends it in a trickle, is cut off, so that slow clients cannot hold memory.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::{Payload, ServiceRequest},
    error::PayloadError,
    http::{
        Method, StatusCode, Version,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    error::{ApiError, ErrorCode},
    peer, push,
    state::WebState,
};
use crate::ingest::{
    gzip::Coding,
    limits::MAX_BODY_BYTES,
    reason::{BodyError, Reason},
};

/// Most bytes of a body that is not made of readings.
const JSON_MAX_BYTES: usize = 64 * 1024;

/// A body must come at this pace on average, bytes a second: below the slowest line that is of use, far above a client that keeps
/// a connection and its room in the budget by a byte now and then.
const PACE_MIN_BYTES_PER_S: f64 = 4096.0;

/// Most bytes of a refused body that are read before the answer: twice a push of 1,000 readings. Reading so much takes less than a new
/// connection does, and on a line of 10 Mbit/s a fifth of a second.
const FORGET_MAX_BYTES: usize = 256 * 1024;

/// A header as text, where it is there and is text.
pub fn header_str(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// The length that the client announced; `None` for a chunked body.
///
/// # Errors
/// 413 where it is above `max_bytes`: nothing of it is read.
pub fn announced_length(request: &HttpRequest, max_bytes: usize) -> Result<Option<usize>, ApiError> {
    let Some(length) = header_str(request, CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok()) else { return Ok(None) };
    if length > max_bytes { Err(too_large(max_bytes)) } else { Ok(Some(length)) }
}

fn too_large(max_bytes: usize) -> ApiError {
    BodyError::new(Reason::BodyTooLarge, format!("the body is larger than {max_bytes} bytes")).into()
}

/// Reads a body of at most `max_bytes`, waiting at most `pause` for each part of it, and for all of it no longer than `pause` plus
/// what the slowest accepted pace takes for the bytes that came.
///
/// # Errors
/// 413 beyond `max_bytes`, 408 after a pause or for a trickle, 400 where it is cut.
pub async fn read(payload: &mut Payload, announced: Option<usize>, max_bytes: usize, pause: Duration) -> Result<Bytes, ApiError> {
    let began = Instant::now();
    let Some(first) = next_part(payload, pause).await? else { return Ok(Bytes::new()) };
    // A small body arrives in one part: it is used as it is, without a copy.
    if announced == Some(first.len()) {
        return Ok(first);
    }
    // As much as was announced, which admission has counted: it is address space until bytes arrive, and a buffer that doubles on its way
    // there would leave as much again behind it.
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0).max(first.len()));
    body.extend_from_slice(&first);
    loop {
        let patience = pause + Duration::from_secs_f64(body.len() as f64 / PACE_MIN_BYTES_PER_S);
        let left = patience.saturating_sub(began.elapsed());
        let Some(part) = next_part(payload, pause.min(left)).await? else { break };
        if body.len() + part.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        body.extend_from_slice(&part);
    }
    Ok(body.freeze())
}

/// A request's body that a handler reads and the gate keeps in hand, to see to what is left of it where the request is refused.
#[derive(Clone)]
pub struct Shared(Rc<RefCell<Payload>>);

impl Shared {
    /// Takes the body of a request and leaves a view of it there. `None` where there is none, and for pushes of readings, which see to it
    /// themselves and are spared the detour.
    pub fn of(request: &mut ServiceRequest) -> Option<Self> {
        if request.method() == Method::POST && request.path() == push::PATH {
            return None;
        }
        match request.take_payload() {
            Payload::None => None,
            payload => {
                let shared = Self(Rc::new(RefCell::new(payload)));
                request.set_payload(Payload::Stream { payload: Box::pin(shared.clone()) });
                Some(shared)
            }
        }
    }

    /// As [`turn_away`].
    pub async fn turn_away(self, request: &HttpRequest, pause: Duration) {
        // The handler is done with it.
        let mut payload = self.0.replace(Payload::None);
        turn_away(request, &mut payload, pause).await;
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.borrow_mut().poll_next_unpin(context)
    }
}

/// Whether somebody may still be sending the body that this refuses. One that came too slowly or was cut is not waited for.
pub fn is_worth_the_wait(status: StatusCode, code: &str) -> bool {
    status != StatusCode::REQUEST_TIMEOUT && code != Reason::CutBody.as_str()
}

/// What is done about the body of a request that was refused, so that its sender sees the answer.
///
/// A small rest is read and forgotten before the answer goes out: that takes less than a new connection, and the sender can use this
/// one again. Behind a large one the connection ends, see [`super::linger`]; so it does where the sender waits to be told to go on.
/// On HTTP/2 only the stream ends.
pub async fn turn_away(request: &HttpRequest, payload: &mut Payload, pause: Duration) {
    let expects = request.headers().contains_key(EXPECT);
    let announced = header_str(request, CONTENT_LENGTH).and_then(|text| text.parse::<usize>().ok());
    let small = announced.is_none_or(|length| length <= FORGET_MAX_BYTES);
    if !expects && small && forget(payload, pause).await {
        return;
    }
    if request.version() < Version::HTTP_2 {
        peer::cutter(request).linger(MAX_BODY_BYTES, pause);
    }
}

/// Reads up to [`FORGET_MAX_BYTES`] for at most `pause`; whether that was all of it.
async fn forget(payload: &mut Payload, pause: Duration) -> bool {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(part)) = payload.next().await {
            seen += part.len();
            if seen > FORGET_MAX_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(pause, reading).await.unwrap_or(false)
}

async fn next_part(payload: &mut Payload, pause: Duration) -> Result<Option<Bytes>, ApiError> {
    match tokio::time::timeout(pause, payload.next()).await {
        Err(_) => Err(ApiError::new(ErrorCode::RequestTimeout, "the body comes too slowly")),
        Ok(None) => Ok(None),
        Ok(Some(Ok(part))) => Ok(Some(part)),
        Ok(Some(Err(PayloadError::Overflow))) => Err(BodyError::new(Reason::BodyTooLarge, "the body is too large").into()),
        Ok(Some(Err(error))) => Err(BodyError::new(Reason::CutBody, format!("the body could not be read: {error}")).into()),
    }
}

/// A JSON body of one object, small, with known fields only.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let mut payload = payload.take();
        Box::pin(async move { read_json(&request, &mut payload).await.map(Json) })
    }
}

async fn read_json<T: DeserializeOwned>(request: &HttpRequest, payload: &mut Payload) -> Result<T, ApiError> {
    let announced = announced_length(request, JSON_MAX_BYTES)?;
    let body = read_document(request, payload, announced, JSON_MAX_BYTES).await?;
    if body.is_empty() {
        // Where every field may be left out, so may the body.
        return serde_json::from_slice(b"{}").map_err(|_| empty());
    }
    let plain: Cow<'_, [u8]> = coding(request)?.decode(&body, JSON_MAX_BYTES)?;
    parse(&plain)
}

/// The body as it came; a body that is not empty must say that it is JSON.
///
/// # Errors
/// As [`read`]; 415.
pub async fn read_document(
    request: &HttpRequest,
    payload: &mut Payload,
    announced: Option<usize>,
    max_bytes: usize,
) -> Result<Bytes, ApiError> {
    let media = header_str(request, CONTENT_TYPE).unwrap_or_default();
    let mut parts = media.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let charset = charset.map_or("utf-8", |(_, value)| value.trim().trim_matches('"'));
    let pause = WebState::of(request)?.config.load().server.client_timeout;
    let body = read(payload, announced, max_bytes, pause).await?;
    let refused = |message: &str| {
        let error = ApiError::from(BodyError::new(Reason::UnsupportedMediaType, message));
        Err(error.hint("Use Content-Type: application/json, in UTF-8."))
    };
    if !body.is_empty() && !essence.eq_ignore_ascii_case("application/json") {
        return refused("the body must be application/json");
    }
    // JSON has no other: what says so is not what it says, and would be misread letter by letter.
    if !body.is_empty() && !["utf-8", "utf8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known)) {
        return refused("the body must be in UTF-8");
    }
    Ok(body)
}

/// How the body is packed.
///
/// # Errors
/// 415 for a coding that is not known.
pub fn coding(request: &HttpRequest) -> Result<Coding, ApiError> {
    Ok(Coding::from_header(header_str(request, CONTENT_ENCODING))?)
}

/// There is no body where one is needed.
pub fn empty() -> ApiError {
    BodyError::new(Reason::EmptyBody, "the body is empty; a JSON object is expected").into()
}

/// Plain bytes as JSON.
///
/// # Errors
/// 400 for text that is no JSON, is cut, or is of another shape.
pub fn parse<T: DeserializeOwned>(plain: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(plain).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => of_shape(&error.to_string()),
        serde_json::error::Category::Eof => BodyError::new(Reason::CutBody, error.to_string()).into(),
        _ => BodyError::new(Reason::BadJson, error.to_string()).into(),
    })
}

/// JSON of another shape, by its field where the parser names one.
fn of_shape(told: &str) -> ApiError {
    match named(told) {
        Some((field, "missing")) => ApiError::field(field, "is missing"),
        Some((field, "unknown")) => ApiError::field(field, told),
        Some((field, _)) => ApiError::field(field, "stands twice"),
        None => ApiError::new(ErrorCode::InvalidField, told.to_owned()),
    }
}

/// The field of `missing field `x``, and the first word.
fn named(told: &str) -> Option<(&str, &str)> {
    let (word, rest) = ["missing", "unknown", "duplicate"]
        .into_iter()
        .find_map(|word| Some((word, told.strip_prefix(word)?.strip_prefix(" field `")?)))?;
    Some((rest.split_once('`')?.0, word))
}

/// A query that means nothing, by its parameter where that can be told.
fn of_query(query: &str, told: &str) -> ApiError {
    let told = told.strip_prefix("Query deserialize error: ").unwrap_or(told);
    if let Some((name, word)) = named(told) {
        return match word {
            "missing" => ApiError::query(name, "is missing"),
            "unknown" => ApiError::query(name, told.split_once(", ").map_or("is not known", |(_, known)| known)),
            _ => ApiError::query(name, "stands twice"),
        };
    }
    let value = told.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, "));
    let found = value.and_then(|(value, known)| {
        let (name, _) = url::form_urlencoded::parse(query.as_bytes()).find(|(_, given)| given == value)?;
        Some(ApiError::query(&name, known))
    });
    found.unwrap_or_else(|| ApiError::new(ErrorCode::InvalidQuery, told.to_owned()))
}

/// Query parameters, with known names only.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parsed = actix_web::web::Query::<T>::from_query(request.query_string());
        std::future::ready(match parsed {
            Ok(query) => Ok(Self(query.into_inner())),
            Err(error) => Err(of_query(request.query_string(), &error.to_string())),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn what_is_of_another_shape_is_told_by_its_name_where_there_is_one() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only its shape counts")]
        struct Shape {
            title: String,
            n: Option<u32>,
        }
        let field =
            |text: &str| parse::<Shape>(text.as_bytes()).expect_err("refused").details.first().map(|one| one["field"].clone());
        assert_eq!(field("{}"), Some("title".into()));
        assert_eq!(field(r#"{"title":"t","sink":1}"#), Some("sink".into()));
        assert_eq!(field(r#"{"title":"t","title":"t"}"#), Some("title".into()));
        assert_eq!(field(r#"{"title":7}"#), None);
        let query = |text: &str, told: &str| {
            let error = of_query(text, told);
            assert!(!error.message.contains("deserialize"), "{error:?}");
            error.details.first().map(|one| (one["parameter"].clone(), one["message"].clone()))
        };
        let told = "Query deserialize error: unknown variant `lost`, expected `sent` or `dead`";
        assert_eq!(query("limit=5&status=lost", told), Some(("status".into(), "expected `sent` or `dead`".into())));
        let told = "Query deserialize error: unknown field `x`, expected `a` or `b`";
        assert_eq!(query("x=1", told), Some(("x".into(), "expected `a` or `b`".into())));
        assert_eq!(query("limit=x", "Query deserialize error: invalid digit found in string"), None);
    }
}
