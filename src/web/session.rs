//! The pages, signing in and out.
//!
//! In: `GET /`, the sign-in form, `/?token=` in the demo only. Out: HTML, and the session cookie. Tokens never stay in an address:
//! the demo's link is answered with a redirect that carries none. Whoever has to sign in first comes to the page that was asked for, and only
//! to one of our own: the address is held against the list of pages.

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time},
    http::{
        StatusCode,
        header::{ACCEPT_LANGUAGE, LOCATION},
    },
    web::{Data, Payload},
};
use serde_json::{Value, json};

use super::{
    auth::{self, Caller, Means, SESSION_COOKIE, Viewer, authenticate},
    body,
    error::{ApiError, ErrorCode},
    gate::OwnBody,
    messages, peer,
    state::WebState,
    ui::{Lang, Place, Visitor, WorkPage, render_login, render_page, render_work, serve_html},
};
use crate::{domain::role::Role, monitor, store::tokens::Principal};

/// Most bytes of the sign-in form.
const FORM_MAX_BYTES: usize = 4 * 1024;
/// Longest address to come back to, in bytes; escaped three times as long, it leaves the form room for a token.
const NEXT_MAX_BYTES: usize = 1024;

fn lang(request: &HttpRequest) -> Lang {
    Lang::from_accept_language(body::header_str(request, ACCEPT_LANGUAGE))
}

fn see_other(location: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, location)).finish()
}

/// Where to go after signing in: a page to work on with its query, or nowhere in particular. Another site, a path that only looks like
/// ours, or what cannot stand in a header is nowhere.
fn next(address: &str) -> Option<&str> {
    let path = address.split('?').next().and_then(|path| path.strip_prefix('/'))?;
    let is_ours = WorkPage::ALL.iter().any(|page| page.name() == path);
    (is_ours && address.len() <= NEXT_MAX_BYTES && address.bytes().all(|byte| byte.is_ascii_graphic())).then_some(address)
}

/// The value of a field of a form or a query.
fn field(text: &[u8], wanted: &str) -> Option<String> {
    url::form_urlencoded::parse(text).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// `GET /`: the page for who may look, the way to the form for the others.
///
/// # Errors
/// 429 after too many tokens that are not valid.
#[utoipa::path(get, path = "/", tag = "page", params(("token" = Option<String>, Query, description = "Demo only: signs in, answered with 303")),
    responses((status = 200, description = "The page", content_type = "text/html"), (status = 303, description = "To /login, or to / with the cookie"), super::openapi::Failure))]
pub async fn page(request: HttpRequest, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    if !request.query_string().is_empty() {
        return sign_in_by_link(&request, &state).await;
    }
    let caller = match authenticate(&request, &state) {
        Ok(caller) if caller.role().meets(Role::Viewer) => caller,
        _ => return Ok(see_other("/login")),
    };
    let snapshot =
        serde_json::to_value(state.views.snapshot()).map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let lang = lang(&request);
    Ok(serve_html(&request, StatusCode::OK, lang, render_page(&snapshot, lang, Some(visitor(&caller)))))
}

fn visitor(caller: &Caller) -> Visitor<'_> {
    let role = caller.role();
    Visitor { name: caller.name(), may_operate: role.meets(Role::Operator), may_edit: role.meets(Role::Admin) }
}

/// A page to work on, for who may look; the way to the form for the others. What its script asks for is decided request by request.
fn work(request: &HttpRequest, state: &WebState, page: WorkPage) -> HttpResponse {
    let caller = match authenticate(request, state) {
        Ok(caller) if caller.role().meets(Role::Viewer) => caller,
        _ => {
            let asked = request.uri().path_and_query().map_or("", |asked| asked.as_str());
            let back =
                next(asked).map(|next| url::form_urlencoded::Serializer::new(String::new()).append_pair("next", next).finish());
            return see_other(&back.map_or_else(|| "/login".to_owned(), |back| format!("/login?{back}")));
        }
    };
    let lang = lang(request);
    let way = |way: &messages::Way| json!({"name": way.name, "takesRecipients": way.takes_recipients, "isDefault": way.is_default});
    let ways = Value::from(messages::ways(state).iter().map(way).collect::<Vec<_>>()).to_string();
    let place = Place { instance: &monitor::instance(), ways: &ways };
    serve_html(request, StatusCode::OK, lang, render_work(page, place, lang, visitor(&caller)))
}

macro_rules! work_pages {
    ($($(#[$doc:meta])* $name:ident $path:literal $page:ident;)*) => {$(
        $(#[$doc])*
        #[utoipa::path(get, path = $path, tag = "page",
            responses((status = 200, description = "The page", content_type = "text/html"), (status = 303, description = "To /login, which leads back")))]
        pub async fn $name(request: HttpRequest, state: Data<WebState>) -> HttpResponse {
            work(&request, &state, WorkPage::$page)
        }
    )*};
}

work_pages! {
    /// `GET /failures`: the page of what waits for a person.
    failures_page "/failures" Failures;
    /// `GET /messages`: the page of messages.
    messages_page "/messages" Messages;
    /// `GET /alerts`: the page of alerts and silences.
    alerts_page "/alerts" Alerts;
    /// `GET /issues`: the page of issues.
    issues_page "/issues" Issues;
    /// `GET /sinks`: the page of the ways out.
    sinks_page "/sinks" Sinks;
}

/// Whatever the query was, the answer leaves it behind.
async fn sign_in_by_link(request: &HttpRequest, state: &WebState) -> Result<HttpResponse, ApiError> {
    let token = field(request.query_string().as_bytes(), "token");
    let Some(token) = token.filter(|_| state.demo) else { return Ok(see_other("/")) };
    match state.tokens.verify(&token) {
        Some(principal) => open(request, state, &principal, "/").await,
        None => {
            auth::refuse_sign_in(request, state);
            Ok(see_other("/login"))
        }
    }
}

/// `GET /login`: the form.
#[utoipa::path(get, path = "/login", tag = "page", params(("next" = Option<String>, Query, description = "The page to come to, such as /failures")),
    responses((status = 200, description = "The sign-in form", content_type = "text/html")))]
pub async fn form(request: HttpRequest) -> HttpResponse {
    let lang = lang(&request);
    let back = field(request.query_string().as_bytes(), "next");
    serve_html(&request, StatusCode::OK, lang, render_login(lang, None, back.as_deref().and_then(next)))
}

/// `POST /login`: takes a token, answers with the cookie.
///
/// # Errors
/// 403 from another site, 413 for a form that is too large, 503 where the session cannot be kept.
#[utoipa::path(post, path = "/login", tag = "page", request_body(content = String, content_type = "application/x-www-form-urlencoded", description = "token=… and, to come to another page than the overview, next=/failures"),
    responses((status = 303, description = "To the page, with the cookie"), (status = 401, description = "The form again", content_type = "text/html"), super::openapi::Failure))]
pub async fn sign_in(request: HttpRequest, state: Data<WebState>, payload: Payload) -> Result<HttpResponse, ApiError> {
    auth::require_same_origin(&request)?;
    let pause = state.config.load().server.client_timeout;
    let lang = lang(&request);
    let announced = body::announced_length(&request, FORM_MAX_BYTES)?;
    let bytes = body::read(&mut payload.into_inner(), announced, FORM_MAX_BYTES, pause).await?;
    let back = field(&bytes, "next");
    let back = back.as_deref().and_then(next);
    let Some(principal) = field(&bytes, "token").and_then(|token| state.tokens.verify(token.trim())) else {
        let error = auth::refuse_sign_in(&request, &state);
        return Ok(form_again(&request, lang, &error, back));
    };
    if !principal.role.meets(Role::Viewer) {
        let error = ApiError::new(ErrorCode::Forbidden, "this token may push readings, not look");
        return Ok(form_again(&request, lang, &error, back));
    }
    open(&request, &state, &principal, back.unwrap_or("/")).await
}

fn form_again(request: &HttpRequest, lang: Lang, error: &ApiError, back: Option<&str>) -> HttpResponse {
    let text = match (lang, error.status) {
        (Lang::Ko, StatusCode::TOO_MANY_REQUESTS) => "로그인 실패가 너무 많습니다. 잠시 후 다시 시도하세요.",
        (Lang::Ko, StatusCode::FORBIDDEN) => "이 토큰은 측정값 전송 전용입니다.",
        (Lang::Ko, _) => "토큰을 알 수 없거나 만료되었거나 폐기되었습니다.",
        (Lang::En, StatusCode::TOO_MANY_REQUESTS) => "Too many failed sign-ins. Wait a minute and try again.",
        (Lang::En, StatusCode::FORBIDDEN) => "This token may push readings, not look.",
        (Lang::En, _) => "The token is unknown, revoked or expired.",
    };
    let mut answer = serve_html(request, error.status, lang, render_login(lang, Some(text), back));
    if let Some(seconds) = error.retry_after_s {
        answer.headers_mut().insert(actix_web::http::header::RETRY_AFTER, seconds.into());
    }
    answer.extensions_mut().insert(OwnBody);
    answer
}

async fn open(request: &HttpRequest, state: &WebState, principal: &Principal, to: &str) -> Result<HttpResponse, ApiError> {
    let (lifetime, secure) = {
        let config = state.config.load();
        (config.server.session_lifetime, peer::is_secure(request, &config.server))
    };
    let text = state.tokens.open_session(&principal.token_id, lifetime).await?;
    let max_age = time::Duration::seconds(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
    let cookie = cookie(text, secure, max_age);
    log::info!(target: "belayd::web", who = principal.name.as_str(); "signed in");
    Ok(HttpResponse::SeeOther().insert_header((LOCATION, to)).cookie(cookie).finish())
}

fn cookie(text: String, secure: bool, max_age: time::Duration) -> Cookie<'static> {
    Cookie::build(SESSION_COOKIE, text)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(secure)
        .max_age(max_age)
        .finish()
}

/// `POST /logout`: ends the session and takes the cookie back.
///
/// # Errors
/// 401 without a session, 403 from another site, 503 where the end cannot be kept.
#[utoipa::path(post, path = "/logout", tag = "page", responses((status = 303, description = "To /login"), super::openapi::Failure))]
pub async fn sign_out(who: Viewer, request: HttpRequest, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    if let Means::Session(cookie) = who.0.means {
        state.tokens.close_session(&cookie).await?;
    }
    let secure = peer::is_secure(&request, &state.config.load().server);
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, "/login"))
        .cookie(cookie(String::new(), secure, time::Duration::ZERO))
        .finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_our_own_are_come_back_to() {
        for page in WorkPage::ALL {
            let path = format!("/{}", page.name());
            assert_eq!(next(&path), Some(path.as_str()));
        }
        let asked = "/failures?state=dead&sink=a%2Fb";
        assert_eq!(next(asked), Some(asked));
        let long = format!("/alerts?{}", "x".repeat(NEXT_MAX_BYTES));
        for wild in [
            "",
            "/",
            "//evil.example",
            "//evil.example/alerts",
            "/\\evil.example",
            "https://evil.example/alerts",
            "javascript:alert(1)",
            "alerts",
            "/alerts/",
            "/alerts/../logout",
            "/alerts@evil.example",
            "/alerts#x",
            "/login",
            "/admin/tokens",
            "/ALERTS",
            "/alerts?a\r\nSet-Cookie: x",
            "/alerts? ",
            "/alerts?\u{e9}",
            "\t/alerts",
            &long,
        ] {
            assert_eq!(next(wild), None, "{wild}");
        }
    }
}
