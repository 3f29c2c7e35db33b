//! The gate: what every request passes on its way in and every answer on its way out.
//!
//! In: any request. It checks the Host header (an answer under a foreign name would let another site's page read ours after a DNS
//! trick). Out: the answer with its security headers, the request id, and every failure in the one form of [`super::error`], those
//! of actix included. It holds no state. What is refused before there is a request at all (a head that cannot be parsed, comes too
//! slowly, is larger than 128 KB or has more than 96 fields) never comes here: [`super::bare`] gives that its form.

use std::time::Duration;

use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method, StatusCode,
        header::{
            ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
            RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    middleware::Next,
};

use super::{
    body,
    error::{ApiError, ErrorCode},
    peer, quota,
    request_id::{self, request_id},
    state::WebState,
};
use crate::config::ServerConfig;

/// Longest path and query, bytes.
const URI_MAX_BYTES: usize = 8 * 1024;
/// Longest header section, bytes, as far as actix lets it through (it ends at 128 KB and 96 headers by itself).
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// Headers of every answer that does not bring its own.
pub(super) const STANDARD: [(HeaderName, HeaderValue); 4] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// The middleware around everything.
///
/// # Errors
/// Those of an inner middleware, of which there is none.
pub async fn gate(mut request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Err(error) = admit(request.request()).and_then(|()| quota::admit_address(request.request())) {
        let mut payload = request.take_payload();
        if let Some(pause) = patience(request.request()) {
            body::turn_away(request.request(), &mut payload, pause).await;
        }
        let answer = render(request.request(), &error);
        return Ok(finish(request.into_response(answer)));
    }
    let unread = body::Shared::of(&mut request);
    // Resources, handlers and extractors turn their failures into answers themselves; the router needs the request for itself, so
    // none can be kept here for an error that bubbles up.
    let mut response = next.call(request).await?.map_into_boxed_body();
    if let Some(unread) = unread.filter(|_| is_refusal(&response))
        && let Some(pause) = patience(response.request())
    {
        unread.turn_away(response.request(), pause).await;
        if peer::cutter(response.request()).lingers() {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
    }
    Ok(finish(response))
}

/// How long the rest of a refused body is waited for.
fn patience(request: &HttpRequest) -> Option<Duration> {
    WebState::of(request).ok().map(|state| state.config.load().server.client_timeout)
}

/// Whether a body may still be on its way of which nothing more is wanted.
fn is_refusal(response: &ServiceResponse<BoxBody>) -> bool {
    let status = response.status();
    let error = response.response().error().and_then(|error| error.as_error::<ApiError>());
    (status.is_client_error() || status.is_server_error()) && body::is_worth_the_wait(status, error.map_or("", |error| error.code))
}

/// Looks at what can be told from the head alone.
fn admit(request: &HttpRequest) -> Result<(), ApiError> {
    let uri = request.uri();
    if uri.path().len() + uri.query().map_or(0, str::len) > URI_MAX_BYTES {
        return Err(ApiError::new(ErrorCode::UriTooLong, "path and query are longer than 8 KB"));
    }
    // Most requests have a handful of headers: only a long list is worth adding up.
    if request.headers().len() > 8 && head_bytes(request.headers()) > HEAD_MAX_BYTES {
        return Err(ApiError::new(ErrorCode::HeadTooLarge, "the headers are longer than 32 KB"));
    }
    if peer::is_control(request) {
        return Ok(());
    }
    check_host(request, &WebState::of(request)?.config.load().server)
}

fn head_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Whether the Host header names us. Entries of `server.hosts` stand without a port; the literal address that we listen on counts
/// too.
fn check_host(request: &HttpRequest, config: &ServerConfig) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST);
    let authority = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        // HTTP/2 carries it in the request target.
        (None, None) => request.uri().authority().map_or("", |authority| authority.as_str()),
        _ => "",
    };
    let host =
        without_port(authority).ok_or_else(|| ApiError::new(ErrorCode::BadHost, "the Host header is missing or malformed"))?;
    let bound = config.listen.ip();
    let known = config.hosts.iter().any(|known| known.trim_matches(['[', ']']).eq_ignore_ascii_case(host))
        || (!bound.is_unspecified() && host.parse().is_ok_and(|ip: std::net::IpAddr| ip == bound));
    if known {
        return Ok(());
    }
    let shown: String = host.chars().take(64).collect();
    Err(ApiError::new(ErrorCode::WrongHost, format!("\"{shown}\" is not one of server.hosts")))
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`; `None` where it is none of these.
pub(super) fn without_port(authority: &str) -> Option<&str> {
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':')? })
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'));
    (plain && is_port(port)).then_some(host)
}

/// Gives an answer its headers and, where it is a failure, its body.
fn finish(mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response = reshape(response);
    }
    let lean = status == StatusCode::ACCEPTED && response.request().method() == Method::POST;
    let id = match request_id::incoming(response.request()) {
        Some(id) => HeaderValue::from_str(id).ok(),
        None if lean => None,
        None => HeaderValue::from_str(&request_id(response.request())).ok(),
    };
    quota::show(&mut response);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !lean {
        for (name, value) in STANDARD {
            if !headers.contains_key(&name) {
                headers.insert(name, value);
            }
        }
    }
    if let Some(id) = id {
        headers.insert(request_id::HEADER, id);
    }
    response
}

/// Marks a failure whose body is already what the client shall see.
#[derive(Clone, Copy, Debug)]
pub struct OwnBody;

fn reshape(response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
    if response.response().extensions().get::<OwnBody>().is_some() {
        return response;
    }
    let error = match response.response().error() {
        Some(error) => match error.as_error::<ApiError>() {
            Some(error) => error.clone(),
            None => of_actix(response.status(), Some(error), response.headers()),
        },
        None => of_actix(response.status(), None, response.headers()),
    };
    let answer = render(response.request(), &error);
    let (request, _) = response.into_parts();
    ServiceResponse::new(request, answer)
}

/// What actix refused by itself. Its text is only shown where the client is at fault: ours may tell too much.
fn of_actix(status: StatusCode, error: Option<&Error>, headers: &HeaderMap) -> ApiError {
    let message = match (status, error) {
        (StatusCode::NOT_FOUND, _) => "there is nothing at this path".to_owned(),
        (StatusCode::METHOD_NOT_ALLOWED, _) => "the path does not take this method".to_owned(),
        (_, Some(error)) if status.is_client_error() => error.to_string(),
        _ => {
            if let Some(error) = error {
                log::error!(target: "belayd::web", error:% = error; "request failed");
            }
            status.canonical_reason().unwrap_or("the request failed").to_lowercase()
        }
    };
    let allow = headers.get(ALLOW).and_then(|allow| allow.to_str().ok()).unwrap_or_default();
    let methods = allow.split(',').filter_map(|method| method.trim().parse().ok()).collect();
    ApiError::of_status(status, message).allow(methods)
}

/// A failure as an answer.
pub(super) fn render(request: &HttpRequest, error: &ApiError) -> HttpResponse {
    let id = request_id(request);
    if error.status.is_server_error() && error.status != StatusCode::SERVICE_UNAVAILABLE {
        log::warn!(target: "belayd::web", requestId = id.as_str(), code = error.code, path = request.path(); "request failed");
    }
    let mut answer = HttpResponse::build(error.status);
    answer.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    if let Some(seconds) = error.retry_after_s {
        answer.insert_header((RETRY_AFTER, seconds));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        answer.insert_header((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"belayd\"")));
    }
    if !error.allow.is_empty() {
        let methods: Vec<&str> = error.allow.iter().map(Method::as_str).collect();
        answer.insert_header((ALLOW, methods.join(", ")));
    }
    let unread = error.status == StatusCode::REQUEST_TIMEOUT || error.status == StatusCode::PAYLOAD_TOO_LARGE;
    if unread || peer::cutter(request).lingers() {
        // What is left of the body will not be read.
        answer.force_close();
    }
    let mut answer = answer.body(error.body(&id));
    answer.extensions_mut().insert(OwnBody);
    answer
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::web::testing::server_config;

    #[test]
    fn a_host_is_taken_apart_from_its_port() {
        for (authority, host) in [
            ("localhost", Some("localhost")),
            ("localhost:7070", Some("localhost")),
            ("127.0.0.1:7070", Some("127.0.0.1")),
            ("[::1]:7070", Some("::1")),
            ("[::1]", Some("::1")),
            ("", None),
            (":7070", None),
            ("a b", None),
            ("evil.example/x", None),
            ("host:port", None),
            ("host:123456", None),
            ("user@host", None),
            ("[::1", None),
            ("[::1]x", None),
        ] {
            assert_eq!(without_port(authority), host, "{authority}");
        }
    }

    #[test]
    fn only_configured_hosts_and_the_bound_address_are_answered() {
        let mut config = server_config();
        config.hosts = vec!["localhost".into(), "belayd.example".into()];
        config.listen = "192.0.2.1:7070".parse().expect("an address");
        let status = |host: &str| {
            let request = TestRequest::default().insert_header((HOST, host)).to_http_request();
            check_host(&request, &config).map_err(|error| error.status.as_u16())
        };
        for host in ["localhost:1", "LOCALHOST", "belayd.example", "192.0.2.1:7070"] {
            assert_eq!(status(host), Ok(()), "{host}");
        }
        for host in ["evil.example", "127.0.0.1", "belayd.example.evil.example"] {
            assert_eq!(status(host), Err(421), "{host}");
        }
        assert_eq!(status("a b"), Err(400));
        assert_eq!(check_host(&TestRequest::default().to_http_request(), &config).map_err(|error| error.code), Err("bad_host"));
        let twice = TestRequest::default().append_header((HOST, "localhost")).append_header((HOST, "evil")).to_http_request();
        assert!(check_host(&twice, &config).is_err());
    }
}
