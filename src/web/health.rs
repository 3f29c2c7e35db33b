//! Whether it lives, whether it is ready, and its metrics.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    web::Data,
};
use serde_json::json;

use super::{
    auth::authenticate,
    error::{ApiError, ErrorCode},
    state::WebState,
};
use crate::{domain::role::Role, event::Metrics, monitor::Readiness, supervise::ActorState};

/// `GET /healthz`: the process lives and its loops progress, nothing else.
///
/// # Errors
/// 503 where a loop has been silent for longer than it may.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives", body = super::openapi::Alive), super::openapi::Failure))]
pub async fn healthz(state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let stuck: Vec<_> = state.registry.loops().into_iter().filter(|entry| entry.last_progress_ms > entry.limit_ms).collect();
    if stuck.is_empty() {
        return Ok(HttpResponse::Ok().json(json!({"status": "ok"})));
    }
    Err(ApiError::new(ErrorCode::NotReady, "a loop makes no progress").details(stuck.iter().map(|entry| json!(entry)).collect()))
}

/// `GET /readyz`: whether readings are taken.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "Readings are taken", body = super::openapi::Ready),
        (status = 503, description = "Starting, full, failing or stopping", body = super::openapi::Ready)))]
pub async fn readyz(state: Data<WebState>) -> HttpResponse {
    let (stats, account) = state.views.account();
    let readiness = state.views.readiness();
    let health = state.views.health.view();
    let word = |ok: bool, bad: &'static str| if ok { "ok" } else { bad };
    let running = state.registry.statuses().iter().all(|actor| actor.state == ActorState::Running);
    let mut checks = json!({
        "buffer": match readiness {
            Readiness::Full => "full",
            Readiness::Failing => "failing",
            _ => "ok",
        },
        "medium": word(state.views.health.buffer_reads(), "unreadable"),
        "store": word(health.up, "away"),
        "durability": health.weak.as_deref().map_or_else(|| "ok".to_owned(), |why| format!("weak: {why}")),
        "actors": word(running, "restarting"),
        "conservation": word(stats.difference == 0, "failed"),
        "loss": word(account.lost + account.quarantined + account.void == 0, "lost"),
    });
    if let Some(redis) = state.views.buffer.redis() {
        // Readings are taken all the same: the journal does.
        checks["redis"] = json!(match redis.state {
            "up" => "ok",
            "down" => "away",
            other => other,
        });
    }
    let status = if readiness.takes_readings() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = HttpResponse::build(status);
    if !readiness.takes_readings() {
        answer.insert_header((RETRY_AFTER, 1));
    }
    let mut answer = answer.json(json!({"state": readiness.as_str(), "checks": checks}));
    // A person and a probe want to see the checks, not an error.
    answer.extensions_mut().insert(super::gate::OwnBody);
    answer
}

/// `GET /metrics`: Prometheus text.
///
/// # Errors
/// 401 and 403 where `server.metrics_open` is false and no viewer asks.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"), super::openapi::Failure))]
pub async fn metrics(request: HttpRequest, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    if !state.config.load().server.metrics_open {
        let caller = authenticate(&request, &state)?;
        if !caller.role().meets(Role::Viewer) {
            return Err(ApiError::new(ErrorCode::Forbidden, "metrics are for viewers"));
        }
    }
    let text = state.metrics.render().map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, Metrics::CONTENT_TYPE)).body(text))
}
