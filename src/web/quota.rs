//! Quotas: how much each token and each client address may ask in a minute.
//!
//! In: requests that write. Out: leave, or 429 with `Retry-After`; and on every answer of a counted request how much is left, in
//! `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds until all of it is there again). The address is counted before
//! anything else is looked at, the token where a message is handed in. Pushes of readings are not counted: they have bounds of their own,
//! and nothing may be on their way. A crash loses the counts, which lets everybody begin anew.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    HttpMessage, HttpRequest,
    body::BoxBody,
    dev::ServiceResponse,
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
};

use super::{
    auth::{Caller, Means, network},
    error::{ApiError, ErrorCode},
    peer, push,
    state::WebState,
};
use crate::{
    domain::quota::{Buckets, Standing},
    event::RequestLimited,
};

/// Most tokens and most addresses that are counted apart. What happens beyond it, [`Buckets`] says.
const MAX_KEYS: usize = 10_000;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Everybody's account.
#[derive(Debug)]
pub struct Quotas {
    began: Instant,
    tokens: Mutex<Buckets<String>>,
    addresses: Mutex<Buckets<IpAddr>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { began: Instant::now(), tokens: Mutex::new(Buckets::new(MAX_KEYS)), addresses: Mutex::new(Buckets::new(MAX_KEYS)) }
    }
}

/// How the caller stands, kept with the request for its answer.
struct Shown(Standing);

/// Whether requests of this kind are counted by address.
fn is_counted(request: &HttpRequest) -> bool {
    !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && request.path() != push::PATH
}

/// Counts a request against its address.
///
/// # Errors
/// 429 where the address has asked too much.
pub fn admit_address(request: &HttpRequest) -> Result<(), ApiError> {
    if !is_counted(request) || peer::is_control(request) {
        return Ok(());
    }
    let state = WebState::of(request)?;
    let config = state.config.load();
    let per_minute = config.limits.requests_per_minute;
    if per_minute == 0 {
        return Ok(());
    }
    let address = network(peer::client_address(request, &config.server));
    let standing = lock(&state.quotas.addresses).take(&address, per_minute, state.quotas.began.elapsed());
    judge(request, state, standing, "address", "limits.requests_per_minute")
}

/// Counts a message against the token that hands it in.
///
/// # Errors
/// 429 where the token has handed in too many.
pub fn admit_message(request: &HttpRequest, state: &WebState, caller: &Caller) -> Result<(), ApiError> {
    let per_minute = state.config.load().limits.messages_per_minute;
    if per_minute == 0 || caller.means == Means::Control {
        return Ok(());
    }
    let standing = lock(&state.quotas.tokens).take(&caller.principal.token_id, per_minute, state.quotas.began.elapsed());
    judge(request, state, standing, "token", "limits.messages_per_minute")
}

fn judge(request: &HttpRequest, state: &WebState, standing: Standing, by: &'static str, key: &str) -> Result<(), ApiError> {
    note(request, standing);
    let Some(wait) = standing.wait else { return Ok(()) };
    RequestLimited { by }.emit(&state.metrics);
    let message = format!("more than {} a minute by this {by} ({key})", standing.limit);
    Err(ApiError::new(ErrorCode::TooManyRequests, message).retry_after(seconds(wait).max(1)))
}

/// Of two quotas the answer shows the one that ends first.
fn note(request: &HttpRequest, standing: Standing) {
    let mut extensions = request.extensions_mut();
    if extensions.get::<Shown>().is_none_or(|known| standing.remaining <= known.0.remaining) {
        extensions.insert(Shown(standing));
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// Writes into the answer how much is left.
pub fn show(response: &mut ServiceResponse<BoxBody>) {
    if !is_counted(response.request()) {
        return;
    }
    let standing = response.request().extensions().get::<Shown>().map(|shown| shown.0);
    let Some(standing) = standing else { return };
    let headers = response.headers_mut();
    for (name, value) in [(LIMIT, standing.limit), (REMAINING, standing.remaining), (RESET, seconds(standing.reset))] {
        headers.insert(name, HeaderValue::from(value));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a half-written count behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn what_writes_is_counted_and_pushes_of_readings_are_not() {
        let counted = |method: Method, path: &str| is_counted(&TestRequest::with_uri(path).method(method).to_http_request());
        assert!(counted(Method::POST, "/api/messages") && counted(Method::PATCH, "/admin/failures/x/retry"));
        assert!(counted(Method::DELETE, "/admin/tokens/x") && counted(Method::POST, "/login"));
        assert!(!counted(Method::POST, "/api/readings") && !counted(Method::POST, "/api/readings?ack=store"));
        assert!(!counted(Method::GET, "/api/messages") && !counted(Method::HEAD, "/"));
    }

    #[test]
    fn the_tighter_quota_is_shown() {
        let request = TestRequest::post().to_http_request();
        let standing = |remaining| Standing { limit: 10, remaining, reset: Duration::from_millis(1_001), wait: None };
        note(&request, standing(5));
        note(&request, standing(3));
        note(&request, standing(9));
        assert_eq!(request.extensions().get::<Shown>().map(|shown| (shown.0.remaining, seconds(shown.0.reset))), Some((3, 2)));
    }
}
