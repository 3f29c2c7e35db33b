//! The log: its last lines, a live tail, and what is logged.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web::Data};
use log::LevelFilter;
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::{
    logging::{LogEntry, LogFilter, LogTail, RING_LINES, TailEvent},
    web::{
        audit::begin,
        auth::{Admin, Operator},
        body::{Json, Query},
        error::ApiError,
        openapi::Failure,
        state::WebState,
        stream::{self, Place, Source, event},
    },
};

/// Most of a level that the audit keeps, characters.
const SUBJECT_MAX_CHARS: usize = 200;

/// Parameters of `GET /admin/logs`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogsQuery {
    /// error, warn, info, debug or trace: this and worse
    level: Option<String>,
    /// This target and those below it, such as `belayd::outbox`
    target: Option<String>,
    /// At most so many of the kept lines, the newest; default 200
    limit: Option<usize>,
    /// false: the kept lines as a JSON list, and no more
    follow: Option<bool>,
}

/// `GET /admin/logs`: event `line` for each kept line and for each from then on; event `missed` where a slow reader lost some.
///
/// # Errors
/// 400 for parameters that mean nothing; 503 where every place is taken.
#[utoipa::path(get, path = "/admin/logs", tag = "admin", params(LogsQuery),
    responses((status = 200, description = "Server-sent events: `line`, `missed`", content_type = "text/event-stream"), Failure))]
pub async fn tail(
    who: Operator,
    query: Query<LogsQuery>,
    request: HttpRequest,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let LogsQuery { level, target, limit, follow } = query.0;
    let level = match level.as_deref() {
        None => LevelFilter::Trace,
        Some(text) => text.parse().map_err(|_| ApiError::query("level", "expected error, warn, info, debug or trace"))?,
    };
    let limit = limit.unwrap_or(200);
    if limit > RING_LINES {
        return Err(ApiError::query("limit", format!("at most {RING_LINES} lines are kept")));
    }
    let filter = LogFilter { level, target, limit };
    if follow == Some(false) {
        return Ok(HttpResponse::Ok().json(json!({"items": state.logging.ring.snapshot(&filter), "nextCursor": null})));
    }
    let place = Place::take(&request, state.clone(), who.0)?;
    let (lines, tail) = state.logging.ring.follow(filter);
    Ok(stream::answer(place, Lines { kept: lines.into_iter(), tail }))
}

/// The kept lines, then each new one.
struct Lines<I> {
    kept: I,
    tail: LogTail,
}

impl<I: Iterator<Item = Arc<LogEntry>>> Source for Lines<I> {
    async fn next(&mut self) -> Option<bytes::Bytes> {
        if let Some(line) = self.kept.next() {
            return Some(event("line", &serde_json::to_string(&*line).ok()?));
        }
        match self.tail.next().await? {
            TailEvent::Line(line) => Some(event("line", &serde_json::to_string(&*line).ok()?)),
            TailEvent::Missed(missed) => Some(event("missed", &json!({"missed": missed}).to_string())),
        }
    }
}

/// Body of `PUT /admin/log-level`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LevelBody {
    /// A level, or directives such as `info,belayd::outbox=debug`
    level: String,
}

/// `PUT /admin/log-level`: until the next restart or reload.
///
/// # Errors
/// 400 for directives that cannot be read; the old stay.
#[utoipa::path(put, path = "/admin/log-level", tag = "admin", request_body = LevelBody,
    responses((status = 200, description = "In force", body = LevelBody), Failure))]
pub async fn set_level(who: Admin, body: Json<LevelBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let subject: String = body.0.level.chars().take(SUBJECT_MAX_CHARS).collect();
    let begun = begin(&state, &who.0, "log.level", &subject, None).await?;
    let set = state.logging.control.set_filter(&body.0.level).map_err(|error| ApiError::field("level", error));
    begun.end(&state, set, "ok").await?;
    let level = state.logging.control.filter();
    Ok(HttpResponse::Ok().json(json!({"level": level})))
}
