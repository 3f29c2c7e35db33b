//! Who is calling, and what they may do.
//!
//! In: a Bearer token, the page's session cookie, or the control socket. Out: a [`Caller`], or 401, 403, 429. The permission a route
//! needs stands in its handler's signature: [`Viewer`], [`Operator`], [`Admin`], [`Pusher`], [`Asker`]. A crash loses the count of
//! failed sign-ins.

mod permission;
mod throttle;

use std::sync::{Arc, OnceLock};

use actix_web::{
    HttpRequest,
    http::{
        Method,
        header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN},
    },
};

pub use permission::{Admin, Asker, Operator, Pusher, Viewer};
pub use throttle::{Throttle, network};

use super::{
    error::{ApiError, ErrorCode},
    peer,
    state::WebState,
};
use crate::{domain::role::Role, event::SignInFailed, store::tokens::Principal};

/// The cookie of a signed-in page.
pub const SESSION_COOKIE: &str = "belayd_session";
/// What the audit calls the owner of the data directory.
pub const CONTROL_NAME: &str = "control-socket";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How a caller proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// The owner of the data directory, through the control socket.
    Control,
    /// `Authorization: Bearer`.
    Bearer,
    /// The page's cookie; its text, for logout and to see whether it still holds.
    Session(String),
}

/// Someone who is known.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Name and role.
    pub principal: Arc<Principal>,
    /// How it was proved.
    pub means: Means,
}

impl Caller {
    /// The name for the audit.
    pub fn name(&self) -> &str {
        &self.principal.name
    }

    /// What they may do.
    pub fn role(&self) -> Role {
        self.principal.role
    }

    /// Whether the proof still holds; asked again and again by long-lived streams.
    pub fn still_holds(&self, state: &WebState) -> bool {
        match &self.means {
            Means::Control => true,
            Means::Bearer => state.tokens.is_live(&self.principal.token_id),
            Means::Session(cookie) => state.tokens.verify_session(cookie).is_some(),
        }
    }
}

fn owner() -> Arc<Principal> {
    static OWNER: OnceLock<Arc<Principal>> = OnceLock::new();
    OWNER
        .get_or_init(|| {
            Arc::new(Principal { token_id: String::new(), name: CONTROL_NAME.into(), role: Role::Admin, expires_at_us: None })
        })
        .clone()
}

/// Who sent this request.
///
/// # Errors
/// 401 without a valid proof, 429 after too many invalid ones, 403 for a write with a cookie from another site.
pub fn authenticate(request: &HttpRequest, state: &WebState) -> Result<Caller, ApiError> {
    if peer::is_control(request) {
        return Ok(Caller { principal: owner(), means: Means::Control });
    }
    if let Some(header) = request.headers().get(AUTHORIZATION) {
        return match bearer(header.as_bytes()).and_then(|token| state.tokens.verify(token)) {
            Some(principal) => Ok(Caller { principal, means: Means::Bearer }),
            None => Err(refuse_sign_in(request, state)),
        };
    }
    if let Some(cookie) = session_cookie(request)
        && let Some(principal) = state.tokens.verify_session(cookie)
    {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            require_same_origin(request)?;
        }
        return Ok(Caller { principal, means: Means::Session(cookie.to_owned()) });
    }
    Err(ApiError::new(ErrorCode::Unauthenticated, "sign-in is required"))
}

/// Counts a proof that is not valid against its address. A valid one is never held up by it: whoever fails may share the address with
/// others (a proxy, an office), and a token of 256 random bits is not found by trying. What the limit spares is the log and its readers.
pub fn refuse_sign_in(request: &HttpRequest, state: &WebState) -> ApiError {
    let address = peer::client_address(request, &state.config.load().server);
    let failures = state.throttle.fail(address);
    SignInFailed { address: &address.to_string(), failures }.emit();
    match state.throttle.wait_s(address) {
        Some(seconds) => too_many(seconds),
        None => ApiError::new(ErrorCode::Unauthenticated, "the token is unknown, revoked or expired"),
    }
}

fn too_many(seconds: u32) -> ApiError {
    ApiError::new(ErrorCode::TooManySignIns, "too many failed sign-ins from this address").retry_after(seconds)
}

/// The token of a `Bearer` header; the scheme is case-insensitive (RFC 9110, 11.1).
fn bearer(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session cookie, where there is exactly one.
pub fn session_cookie(request: &HttpRequest) -> Option<&str> {
    let headers = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut found = headers.flat_map(|value| value.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == SESSION_COOKIE).then_some(value)
    });
    match (found.next(), found.next()) {
        (Some(cookie), None) => Some(cookie),
        _ => None,
    }
}

/// A write that the browser made with a cookie must come from one of our own pages. Browsers say so in `Sec-Fetch-Site`; older
/// ones in `Origin`.
///
/// # Errors
/// 403 where neither says so.
pub fn require_same_origin(request: &HttpRequest) -> Result<(), ApiError> {
    let header = |name| request.headers().get(name).and_then(|value: &actix_web::http::header::HeaderValue| value.to_str().ok());
    let same = match header(SEC_FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => {
            let host = header(HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
            let origin = header(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
            matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
        }
    };
    if same { Ok(()) } else { Err(ApiError::new(ErrorCode::CrossSite, "the request does not come from this site's own pages")) }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_scheme_of_a_bearer_token_is_case_insensitive() {
        assert_eq!(bearer(b"Bearer bly_x"), Some("bly_x"));
        assert_eq!(bearer(b"bearer  bly_x "), Some("bly_x"));
        assert_eq!(bearer(b"Basic bly_x"), None);
        assert_eq!(bearer(b"Bearer"), None);
        assert_eq!(bearer(b"\xff x"), None);
    }

    #[test]
    fn two_session_cookies_are_none() {
        let with = |cookie: &str| TestRequest::default().insert_header((COOKIE, cookie)).to_http_request();
        assert_eq!(session_cookie(&with("a=1; belayd_session=x; b=2")), Some("x"));
        assert_eq!(session_cookie(&with("belayd_session=x; belayd_session=y")), None);
        assert_eq!(session_cookie(&with("xbelayd_session=x")), None);
    }

    #[test]
    fn only_our_own_pages_write_with_a_cookie() {
        let ok = |headers: &[(&'static str, &str)]| {
            let mut request = TestRequest::post().insert_header((HOST, "localhost:7070"));
            for (name, value) in headers {
                request = request.insert_header((*name, *value));
            }
            require_same_origin(&request.to_http_request()).is_ok()
        };
        assert!(ok(&[("sec-fetch-site", "same-origin")]));
        assert!(ok(&[("origin", "http://localhost:7070")]));
        assert!(!ok(&[]));
        assert!(!ok(&[("origin", "http://localhost:9999")]));
        assert!(!ok(&[("origin", "null")]));
        assert!(!ok(&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:7070")]));
        assert!(!ok(&[("sec-fetch-site", "cross-site")]));
        assert!(!ok(&[("sec-fetch-site", "none")]));
    }
}
