//! Periodic duties: when each ran and runs next, and a run now by name.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde_json::json;

use super::ReasonBody;
use crate::{
    protocol::RunDuty,
    web::{
        audit::{begin, optional_reason},
        auth::{Admin, Operator},
        body::Json,
        error::{ApiError, ErrorCode},
        openapi::{Duties, Failure, Requested},
        state::WebState,
    },
};

/// `GET /admin/duties`: what runs at fixed times, and when it last did.
#[utoipa::path(get, path = "/admin/duties", tag = "admin",
    responses((status = 200, description = "Duties by name, the last statistics of the store and its last integrity check", body = Duties), Failure))]
pub async fn list(_who: Operator, state: Data<WebState>) -> HttpResponse {
    let with_name = |(name, status)| json!({"name": name, "status": status});
    let items: Vec<_> = state.schedule.duties().into_iter().map(with_name).collect();
    HttpResponse::Ok().json(json!({"items": items, "statistics": state.schedule.statistics(), "integrity": state.schedule.integrity(), "nextCursor": null}))
}

/// `POST /admin/duties/{name}/run`: as soon as no other duty runs.
///
/// # Errors
/// 404 where no duty has this name, 503 where too many runs wait.
#[utoipa::path(post, path = "/admin/duties/{name}/run", tag = "admin", params(("name" = String, Path, description = "Such as retention")),
    request_body = Option<ReasonBody>, responses((status = 202, description = "Asked for", body = Requested), Failure))]
pub async fn run(who: Admin, name: Path<String>, body: Json<ReasonBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let reason = optional_reason(body.0.reason.as_deref())?;
    let names: Vec<_> = state.schedule.duties().into_keys().collect();
    if !names.contains(&name.as_str()) {
        return Err(ApiError::not_found("duty", &name).hint(format!("Duties: {}.", names.join(", "))));
    }
    let begun = begin(&state, &who.0, "duty.run", &name, reason.as_deref()).await?;
    let asked = state.run_duty.try_send(RunDuty { name: name.to_string() });
    let asked = asked.map_err(|refused| ApiError::new(ErrorCode::NotReady, format!("the run was not taken: {refused}")));
    begun.end(&state, asked, "ok").await?;
    Ok(HttpResponse::Accepted().json(json!({"name": *name, "state": "requested"})))
}
