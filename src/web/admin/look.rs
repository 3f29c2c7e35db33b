//! Looking: buffer and admission, outbox, audit, configuration.

use actix_web::{HttpResponse, web::Data};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use crate::{
    domain::ack::AckLevel,
    store::audit,
    web::{
        auth::Operator,
        body::Query,
        error::ApiError,
        openapi::Failure,
        query::{List, page_size},
        state::WebState,
    },
};

/// `GET /admin/buffer`: the buffer, the account over all streams, and what may be let in now.
#[utoipa::path(get, path = "/admin/buffer", tag = "admin", responses((status = 200, description = "Medium, fill, account", body = Object), Failure))]
pub async fn buffer(_who: Operator, state: Data<WebState>) -> HttpResponse {
    let (stats, account) = state.views.account();
    let mut body = json!(stats);
    body["total"] = json!(account);
    let weak = state.views.health.view().weak;
    let level = if weak.is_some() { state.views.buffer.medium_level() } else { AckLevel::Store };
    body["storeAck"] = json!({"level": level, "reason": weak});
    let (bytes, bytes_bound) = (state.admission.in_use(), state.admission.bound());
    let (limit, room) = match &state.pace {
        Some(pace) => (Some(pace.readings_per_s()), Some(pace.room(state.views.started.1.elapsed()))),
        None => (None, None),
    };
    body["admission"] = json!({"bytes": bytes, "bytesBound": bytes_bound, "readingsPerS": limit, "readingsRoom": room});
    if let Some(redis) = state.views.buffer.redis() {
        body["redis"] = json!(redis);
    }
    HttpResponse::Ok().json(body)
}

/// `GET /admin/outbox`: deliveries by state and by sink.
#[utoipa::path(get, path = "/admin/outbox", tag = "admin", responses((status = 200, description = "Deliveries by state and sink", body = Object), Failure))]
pub async fn outbox(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json((state.views.outbox)())
}

/// `GET /admin/instances`: who uses the same database.
#[utoipa::path(get, path = "/admin/instances", tag = "admin", responses((status = 200, description = "Instances: alive, dead or stopped, when heard of last, the leases that each holds", body = Object), Failure))]
pub async fn instances(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"items": state.views.instances.list(), "nextCursor": null}))
}

/// Parameters of `GET /admin/audit`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// `GET /admin/audit`: newest first.
///
/// # Errors
/// 400 for a cursor that is none; 503 where the control store does not answer.
#[utoipa::path(get, path = "/admin/audit", tag = "admin", params(AuditQuery),
    responses((status = 200, description = "Who did what, when, why; newest first", body = Object), Failure))]
pub async fn audit_rows(_who: Operator, query: Query<AuditQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let limit = page_size(query.0.limit)?;
    let before = query
        .0
        .cursor
        .map(|cursor| cursor.parse::<i64>())
        .transpose()
        .map_err(|_| ApiError::query("cursor", "does not belong to this list"))?;
    let items = state.control.call(move |conn| audit::list(conn, limit, before)).await?;
    let full = items.len() == limit as usize;
    let next_cursor = items.last().filter(|_| full).map(|last| last.id.to_string());
    Ok(HttpResponse::Ok().json(List { items, next_cursor }))
}

/// `GET /admin/config`: the configuration in force, secrets hidden.
#[utoipa::path(get, path = "/admin/config", tag = "admin", responses((status = 200, description = "Values in force; secrets as ***", body = Object), Failure))]
pub async fn config(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(state.config.load().redacted())
}
