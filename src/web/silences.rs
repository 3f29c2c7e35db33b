//! Silences: which alerts are not told for a while. Made, ended and looked at by people; each with its audit row in one transaction.
//!
//! In: matchers, times, a reason. Out: rows of the control store, by which the alert side goes. An alert that is silenced is recorded and
//! not told; where it still fires when the silence ends, it is told then.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    audit::{entry, optional_reason, required_reason},
    auth::{Operator, Viewer},
    body::{Json, Query},
    error::ApiError,
    openapi::Failure,
    query::{List, page_size},
    state::WebState,
};
use crate::{
    domain::{
        alert::{AlertKind, Labels, Level},
        silence::{LONGEST_US, Matchers},
    },
    ingest::timestamp::from_rfc3339,
    store::{
        StoreResult, alerts,
        audit::record,
        silences::{self, NewSilence, Silence},
    },
};

/// How far back a preview looks, microseconds: a week.
const PREVIEW_US: i64 = 7 * 86_400 * 1_000_000;
/// Alerts that a preview shows of each kind; the counts have all.
const PREVIEW_SHOWS: usize = 50;

/// Which alerts are meant; what is left out matches everything, and `*` in a text stands for any characters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchersBody {
    /// rule or system
    #[schema(value_type = Option<String>)]
    kind: Option<AlertKind>,
    /// Of the rule or condition
    name: Option<String>,
    /// Engine id, or the part of the system
    subject: Option<String>,
    /// INFO, WARNING or CRITICAL
    #[schema(value_type = Option<String>)]
    level: Option<Level>,
    /// Labels that must be there, by name
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    labels: Labels,
}

impl MatchersBody {
    fn checked(self) -> Result<Matchers, ApiError> {
        let Self { kind, name, subject, level, labels } = self;
        let matchers = Matchers { kind, name, subject, level, labels };
        matchers.fault().map_or(Ok(matchers), |(field, reason)| Err(ApiError::field(field, reason)))
    }
}

/// Body of a new silence.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SilenceBody {
    matchers: MatchersBody,
    /// RFC 3339; left out: now
    starts_at: Option<String>,
    /// RFC 3339; at most a year from now
    ends_at: String,
    /// Why; it goes to the audit
    reason: Option<String>,
}

/// Body of a preview: that of a new silence, of which only the matchers must be there.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreviewBody {
    matchers: MatchersBody,
    /// RFC 3339; left out: now
    starts_at: Option<String>,
    /// RFC 3339; looked at as a new silence's is
    ends_at: Option<String>,
    /// Looked at as a new silence's is; it goes nowhere
    reason: Option<String>,
}

/// Body of an end before its time.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpireBody {
    /// Why, for the audit
    reason: Option<String>,
}

/// Parameters of `GET /api/silences`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SilencesQuery {
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

fn view(silence: &Silence, now_us: i64) -> Value {
    let mut view = json!(silence);
    view["state"] = json!(silence.state(now_us));
    view
}

fn moment(field: &str, text: &str) -> Result<i64, ApiError> {
    from_rfc3339(text).ok_or_else(|| ApiError::field(field, "not an RFC 3339 time such as 2026-01-31T12:00:00Z"))
}

/// When a silence begins, microseconds since the epoch. It must be over within a year, so it begins within one.
fn beginning(starts_at: Option<&str>, now_us: i64) -> Result<i64, ApiError> {
    let starts_at_us = starts_at.map(|text| moment("startsAt", text)).transpose()?.unwrap_or(now_us);
    if starts_at_us.saturating_sub(now_us) >= LONGEST_US {
        return Err(ApiError::field("startsAt", "lies a year ahead or more; a silence must be over within a year"));
    }
    Ok(starts_at_us)
}

/// When one that begins then is over, microseconds since the epoch.
fn end(ends_at: &str, starts_at_us: i64, now_us: i64) -> Result<i64, ApiError> {
    let ends_at_us = moment("endsAt", ends_at)?;
    if ends_at_us <= starts_at_us {
        return Err(ApiError::field("endsAt", "does not lie after startsAt"));
    }
    if ends_at_us <= now_us {
        return Err(ApiError::field("endsAt", "is over already"));
    }
    if ends_at_us.saturating_sub(now_us) > LONGEST_US || ends_at_us.saturating_sub(starts_at_us) > LONGEST_US {
        return Err(ApiError::field("endsAt", "lies more than a year ahead; what should never be told is a matter of routes"));
    }
    Ok(ends_at_us)
}

/// `GET /api/silences`: newest first, those that are over included.
///
/// # Errors
/// 400 for parameters that mean nothing; 503 where the control store does not answer.
#[utoipa::path(get, path = "/api/silences", tag = "alerts", params(SilencesQuery),
    responses((status = 200, description = "Newest first", body = super::openapi::Silences), Failure))]
pub async fn list(_who: Viewer, query: Query<SilencesQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let limit = page_size(query.0.limit)?;
    let parse = |cursor: &str| cursor.split_once('@').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    let wrong = || ApiError::query("cursor", "does not belong to this list; start again without it");
    let before: Option<(i64, String)> = query.0.cursor.as_deref().map(|cursor| parse(cursor).ok_or_else(wrong)).transpose()?;
    let rows = state.control.call(move |conn| silences::list(conn, limit, before)).await?;
    let full = rows.len() == limit as usize;
    let next_cursor = rows.last().filter(|_| full).map(|last| format!("{}@{}", last.created_at_us, last.id));
    let now_us = state.clock.now_us();
    Ok(HttpResponse::Ok().json(List { items: rows.iter().map(|row| view(row, now_us)).collect(), next_cursor }))
}

/// `GET /api/silences/{id}`: one of them.
///
/// # Errors
/// 404 for an id that is unknown.
#[utoipa::path(get, path = "/api/silences/{id}", tag = "alerts", params(("id" = String, Path, description = "As listed")),
    responses((status = 200, description = "The silence", body = super::openapi::SilenceItem), Failure))]
pub async fn show(_who: Viewer, id: Path<String>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    let silence = state.control.call(move |conn| silences::get(conn, &id)).await?;
    Ok(HttpResponse::Ok().json(view(&silence, state.clock.now_us())))
}

/// `POST /api/silences`: from its start to its end the alerts that it means are recorded and not told.
///
/// # Errors
/// 400 for matchers that mean nothing, times that cannot be, or a missing reason; 409 where there are too many; 503 where it cannot be
/// kept now.
#[utoipa::path(post, path = "/api/silences", tag = "alerts", request_body = SilenceBody,
    responses((status = 201, description = "The silence", body = super::openapi::SilenceItem), Failure))]
pub async fn create(who: Operator, body: Json<SilenceBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let SilenceBody { matchers, starts_at, ends_at, reason } = body.0;
    let now_us = state.clock.now_us();
    let matchers = matchers.checked()?;
    let starts_at_us = beginning(starts_at.as_deref(), now_us)?;
    let ends_at_us = end(&ends_at, starts_at_us, now_us)?;
    let reason = required_reason(reason.as_deref())?;
    let new = NewSilence { matchers, starts_at_us, ends_at_us, reason: reason.clone(), by: who.0.name().to_owned() };
    let mut entry = entry(&state, &who.0, "silence.create", "", Some(&reason), "ok");
    let made: StoreResult<Silence> = state
        .control
        .call(move |conn| {
            conn.write(|conn| {
                let silence = silences::create(conn, &new, now_us)?;
                entry.subject.clone_from(&silence.id);
                record(conn, &entry)?;
                Ok(silence)
            })
        })
        .await;
    let silence = made?;
    log::info!(target: "belayd::web", who = who.0.name(), action = "silence.create", subject = silence.id.as_str(), outcome = "ok"; "admin action");
    Ok(HttpResponse::Created().json(view(&silence, now_us)))
}

/// `DELETE /api/silences/{id}`: ends it now; what still fires is told. It stays in the list.
///
/// # Errors
/// 404 for an id that is unknown; 409 where it is over already; 503 where it cannot be kept now.
#[utoipa::path(delete, path = "/api/silences/{id}", tag = "alerts", params(("id" = String, Path, description = "As listed")), request_body = ExpireBody,
    responses((status = 200, description = "The silence, over", body = super::openapi::SilenceItem), Failure))]
pub async fn expire(
    who: Operator,
    id: Path<String>,
    body: Json<ExpireBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    let reason = optional_reason(body.0.reason.as_deref())?;
    let (now_us, by) = (state.clock.now_us(), who.0.name().to_owned());
    let entry = entry(&state, &who.0, "silence.expire", &id, reason.as_deref(), "ok");
    let ended: StoreResult<Silence> = state
        .control
        .call(move |conn| {
            conn.write(|conn| {
                let silence = silences::expire(conn, &id, &by, now_us)?;
                alerts::looks::release_silenced(conn, now_us)?;
                record(conn, &entry)?;
                Ok(silence)
            })
        })
        .await;
    let silence = ended?;
    log::info!(target: "belayd::web", who = who.0.name(), action = "silence.expire", subject = silence.id.as_str(), outcome = "ok"; "admin action");
    Ok(HttpResponse::Ok().json(view(&silence, now_us)))
}

/// `POST /api/silences/preview`: which open alerts these matchers mean, and which of the last seven days.
///
/// # Errors
/// 400 for matchers that mean nothing, and for times that a new silence cannot have; 503 where the control store does not answer.
#[utoipa::path(post, path = "/api/silences/preview", tag = "alerts", request_body = PreviewBody,
    responses((status = 200, description = "What is meant", body = super::openapi::SilencePreview), Failure))]
pub async fn preview(_who: Operator, body: Json<PreviewBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let PreviewBody { matchers, starts_at, ends_at, reason } = body.0;
    let (matchers, now_us) = (matchers.checked()?, state.clock.now_us());
    // Nothing comes of them but a refusal, which is better told before than after.
    let starts_at_us = beginning(starts_at.as_deref(), now_us)?;
    ends_at.as_deref().map(|ends_at| end(ends_at, starts_at_us, now_us)).transpose()?;
    optional_reason(reason.as_deref())?;
    let since_us = now_us.saturating_sub(PREVIEW_US);
    let meant = state.control.call(move |conn| alerts::meant(conn, &matchers, since_us, PREVIEW_SHOWS)).await?;
    Ok(HttpResponse::Ok().json(json!({
        "open": { "count": meant.open, "items": meant.open_items },
        "lastWeek": { "count": meant.recent, "complete": !meant.cut, "items": meant.recent_items },
    })))
}
