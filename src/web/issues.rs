//! Issues: what people work on. Open, talk, move; each written to the audit.
//!
//! In: decisions of people. Out: rows of the store, JSON. Alerts come by another way: the outbox brings them
//! (`outbox/issues.rs`). While the database is away nothing of this can be done, and says so; alerts wait in the outbox.

use actix_web::{
    HttpRequest, HttpResponse,
    http::Method,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    admin::ReasonBody,
    audit::{begin, required_reason},
    auth::{Operator, Viewer},
    body::{Json, Query},
    error::ApiError,
    query::{List, page_size},
    state::WebState,
};
use crate::{
    domain::{
        alert::Level,
        issue::{IssueEvent, IssueState},
        message::is_no_line,
    },
    store::issues::{self, IssueFilter, NewIssue},
};

/// Longest title, characters.
const TITLE_MAX_CHARS: usize = 200;
/// Longest body and comment, characters.
const TEXT_MAX_CHARS: usize = 10_000;
/// Longest subject, characters.
const SUBJECT_MAX_CHARS: usize = 200;

/// Parameters of `GET /api/issues`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct IssuesQuery {
    /// OPEN, IN_PROGRESS, RESOLVED or CLOSED
    #[param(value_type = Option<String>)]
    state: Option<IssueState>,
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// `GET /api/issues`: newest first.
///
/// # Errors
/// 400 for parameters that mean nothing; 503 where the database is away.
#[utoipa::path(get, path = "/api/issues", tag = "issues", params(IssuesQuery),
    responses((status = 200, description = "Newest first", body = super::openapi::Issues), super::openapi::Failure))]
pub async fn list(_who: Viewer, query: Query<IssuesQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let IssuesQuery { state: wanted, limit, cursor } = query.0;
    let cursor = cursor.map(|cursor| Uuid::parse_str(&cursor).map(|id| id.to_string())).transpose();
    let cursor = cursor.map_err(|_| ApiError::query("cursor", "does not belong to this list; start again without it"))?;
    let filter = IssueFilter { state: wanted, cursor, limit: page_size(limit)? };
    let page = state.store.call(move |conn| issues::list(conn, &filter)).await?;
    Ok(HttpResponse::Ok().json(List { items: page.items, next_cursor: page.next_cursor }))
}

/// Body of a new issue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueBody {
    /// One line of at most 200 characters
    title: String,
    /// What it is about, at most 10000 characters
    body: Option<String>,
    /// INFO, WARNING or CRITICAL
    #[schema(value_type = Option<String>)]
    level: Option<Level>,
    /// The engine or part that it is about
    subject: Option<String>,
}

/// `POST /api/issues`: a person opens one.
///
/// # Errors
/// 400 for a field that cannot be; 503 where the database is away.
#[utoipa::path(post, path = "/api/issues", tag = "issues", request_body = IssueBody,
    responses((status = 201, description = "The issue", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn open(who: Operator, body: Json<IssueBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let IssueBody { title, body, level, subject } = body.0;
    let title = line("title", &title, TITLE_MAX_CHARS)?;
    let text = match body {
        Some(body) if !body.trim().is_empty() => text("body", &body)?,
        _ => String::new(),
    };
    let subject = subject.map(|subject| line("subject", &subject, SUBJECT_MAX_CHARS)).transpose()?;
    let new = NewIssue { title, body: text, level, subject, opened_by: who.0.name().to_owned(), ..NewIssue::default() };
    let now_us = state.clock.now_us();
    let begun = begin(&state, &who.0, "issue.open", &new.title, None).await?;
    let opened = state.store.call(move |conn| issues::open(conn, &new, now_us)).await;
    let issue = begun.end(&state, opened.map_err(ApiError::from), "ok").await?;
    Ok(HttpResponse::Created().json(issue))
}

/// Parameters of `GET /api/issues/{id}`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LookQuery {
    /// false where somebody who has it open looks again: that is no further look. Default true
    counted: Option<bool>,
}

/// `GET /api/issues/{id}`: one with what happened to it; the look is counted, that of HEAD is not.
///
/// # Errors
/// 404 for an id that is unknown; 503 where the database is away.
#[utoipa::path(get, path = "/api/issues/{id}", tag = "issues", params(("id" = String, Path, description = "As listed"), LookQuery),
    responses((status = 200, description = "The issue with its events", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn show(
    _who: Viewer,
    id: Path<String>,
    query: Query<LookQuery>,
    request: HttpRequest,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let id = known(&id)?;
    let is_look = request.method() == Method::GET && query.0.counted.unwrap_or(true);
    let (issue, events) = state.store.call(move |conn| issues::look(conn, &id, is_look)).await?;
    let mut body = json!(issue);
    body["events"] = json!(events);
    Ok(HttpResponse::Ok().json(body))
}

/// Body of a comment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommentBody {
    /// At most 10000 characters
    text: String,
}

/// `POST /api/issues/{id}/comments`: somebody says something.
///
/// # Errors
/// 400 for a text that cannot be, 404 for an id that is unknown; 503 where the database is away.
#[utoipa::path(post, path = "/api/issues/{id}/comments", tag = "issues", params(("id" = String, Path, description = "As listed")),
    request_body = CommentBody,
    responses((status = 201, description = "The issue", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn comment(
    who: Operator,
    id: Path<String>,
    body: Json<CommentBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let (id, said, by, now_us) = (known(&id)?, text("text", &body.0.text)?, who.0.name().to_owned(), state.clock.now_us());
    let begun = begin(&state, &who.0, "issue.comment", &id, None).await?;
    let written = state.store.call(move |conn| issues::comment(conn, &id, &by, &said, now_us)).await;
    let issue = begun.end(&state, written.map_err(ApiError::from), "ok").await?;
    Ok(HttpResponse::Created().json(issue))
}

/// `POST /api/issues/{id}/start`: somebody takes it up.
///
/// # Errors
/// 400 without a reason, 404 for an unknown id, 409 where the issue does not stand so; 503 where the database is away.
#[utoipa::path(post, path = "/api/issues/{id}/start", tag = "issues", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody,
    responses((status = 200, description = "The issue", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn start(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    act(who, id, body, state, IssueEvent::Start).await
}

/// `POST /api/issues/{id}/resolve`: it is mended.
///
/// # Errors
/// As of start.
#[utoipa::path(post, path = "/api/issues/{id}/resolve", tag = "issues", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody,
    responses((status = 200, description = "The issue", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn resolve(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    act(who, id, body, state, IssueEvent::Resolve).await
}

/// `POST /api/issues/{id}/close`: it is done with.
///
/// # Errors
/// As of start.
#[utoipa::path(post, path = "/api/issues/{id}/close", tag = "issues", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody,
    responses((status = 200, description = "The issue", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn close(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    act(who, id, body, state, IssueEvent::Close).await
}

/// `POST /api/issues/{id}/reopen`: it was not mended after all.
///
/// # Errors
/// As of start; 409 too where another issue of the same condition is worked on.
#[utoipa::path(post, path = "/api/issues/{id}/reopen", tag = "issues", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody,
    responses((status = 200, description = "The issue", body = super::openapi::IssueItem), super::openapi::Failure))]
pub async fn reopen(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    act(who, id, body, state, IssueEvent::Reopen).await
}

async fn act(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
    event: IssueEvent,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    let (id, by, now_us) = (known(&id)?, who.0.name().to_owned(), state.clock.now_us());
    let action = match event {
        IssueEvent::Start => "issue.start",
        IssueEvent::Resolve => "issue.resolve",
        IssueEvent::Close => "issue.close",
        IssueEvent::Reopen => "issue.reopen",
    };
    let begun = begin(&state, &who.0, action, &id, Some(&reason)).await?;
    let moved = state.store.call(move |conn| issues::act(conn, &id, event, &by, &reason, now_us)).await;
    let issue = begun.end(&state, moved.map_err(ApiError::from), "ok").await?;
    Ok(HttpResponse::Ok().json(issue))
}

/// An id that can be one. A database would refuse some texts in words of its own.
fn known(id: &str) -> Result<String, ApiError> {
    Ok(Uuid::parse_str(id).map_err(|_| ApiError::not_found("issue", id))?.to_string())
}

/// One line with something on it.
fn line(field: &str, value: &str, most: usize) -> Result<String, ApiError> {
    let value = value.trim();
    if value.chars().any(is_no_line) {
        return Err(ApiError::field(field, "must be one line without control characters"));
    }
    bounded(field, value, most)
}

/// Several lines with something on them.
fn text(field: &str, value: &str) -> Result<String, ApiError> {
    let value = value.trim();
    if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(ApiError::field(field, "must not hold control characters other than line breaks and tabs"));
    }
    bounded(field, value, TEXT_MAX_CHARS)
}

fn bounded(field: &str, value: &str, most: usize) -> Result<String, ApiError> {
    match value.chars().count() {
        0 => Err(ApiError::field(field, "must not be empty")),
        count if count > most => Err(ApiError::field(field, format!("has {count} characters; at most {most}"))),
        _ => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_texts_are_held_to_their_bounds() {
        assert_eq!(line("title", "  pump 3 leaks ", 20).expect("fits"), "pump 3 leaks");
        for bad in ["", "   ", "two\nlines", "bell\u{7}", "nul\0", "two\u{2028}lines", "txt\u{202e}exe", &"x".repeat(21)] {
            assert!(line("title", bad, 20).is_err(), "{bad:?}");
        }
        assert_eq!(text("body", "two\nlines\twith tab\r\n").expect("fits"), "two\nlines\twith tab");
        for bad in ["", "\n\n", "nul\0", "escape\u{1b}[31m", &"x".repeat(TEXT_MAX_CHARS + 1)] {
            assert!(text("body", bad).is_err(), "{:?}", bad.chars().take(20).collect::<String>());
        }
        assert!(text("body", &"가".repeat(TEXT_MAX_CHARS)).is_ok(), "characters count, not bytes");
    }
}
