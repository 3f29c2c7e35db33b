//! Actors: how they are, and a restart by name.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde_json::json;

use super::ReasonBody;
use crate::web::{
    audit::{begin, optional_reason},
    auth::{Admin, Operator},
    body::Json,
    error::ApiError,
    openapi::{Actors, Failure, Requested},
    state::WebState,
};

/// `GET /admin/actors`: the actors and loops, and how they are.
#[utoipa::path(get, path = "/admin/actors", tag = "admin",
    responses((status = 200, description = "Actors and loops", body = Actors), Failure))]
pub async fn list(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"items": state.registry.statuses(), "loops": state.registry.loops(), "nextCursor": null}))
}

/// `POST /admin/actors/{name}/restart`: in place; its mailbox stays.
///
/// # Errors
/// 404 where there is no such actor.
#[utoipa::path(post, path = "/admin/actors/{name}/restart", tag = "admin", params(("name" = String, Path, description = "Such as IngestActor")),
    request_body = Option<ReasonBody>, responses((status = 202, description = "Asked for", body = Requested), Failure))]
pub async fn restart(
    who: Admin,
    name: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = optional_reason(body.0.reason.as_deref())?;
    let begun = begin(&state, &who.0, "actor.restart", &name, reason.as_deref()).await?;
    let asked = if state.registry.restart(&name) { Ok(()) } else { Err(no_actor(&state, &name)) };
    begun.end(&state, asked, "ok").await?;
    Ok(HttpResponse::Accepted().json(json!({"name": *name, "state": "requested"})))
}

fn no_actor(state: &WebState, name: &str) -> ApiError {
    let names: Vec<&str> = state.registry.statuses().iter().map(|actor| actor.name).collect();
    ApiError::not_found("running actor", name).hint(format!("Actors: {}.", names.join(", ")))
}

/// Body of a fault.
#[cfg(feature = "fault-injection")]
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultBody {
    kind: crate::protocol::Fault,
}

/// `POST /admin/actors/{name}/fault`: makes an actor fail. Only test builds have it.
///
/// # Errors
/// 404 where there is no such actor.
#[cfg(feature = "fault-injection")]
pub async fn fault(who: Admin, name: Path<String>, body: Json<FaultBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    log::warn!(target: "belayd::web", who = who.0.name(), actor = name.as_str(); "fault injected");
    if state.registry.inject(&name, body.0.kind) {
        Ok(HttpResponse::Accepted().json(json!({"name": *name})))
    } else {
        Err(no_actor(&state, &name))
    }
}
