//! Alerts: the list from the control store, their history, and taking one on.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::oneshot, time::timeout};
use utoipa::{IntoParams, ToSchema};

use super::{
    audit::optional_reason,
    auth::{Operator, Viewer},
    body::{Json, Query},
    error::{ApiError, ErrorCode},
    query::{List, page_size},
    state::WebState,
};
use crate::{
    domain::{
        alert::{Alert, AlertKind, AlertState, Level},
        reading::is_name,
    },
    protocol::{AcknowledgeAlert, AcknowledgeError},
    store::{
        Conn,
        alerts::{self, AlertFilter},
    },
    supervise::SendRefused,
};

/// Longest wait for `AlertActor`.
const ACK_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Parameters of `GET /api/alerts`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlertsQuery {
    /// firing, acknowledged or resolved
    #[param(value_type = Option<String>)]
    state: Option<AlertState>,
    /// INFO, WARNING or CRITICAL
    #[param(value_type = Option<String>)]
    level: Option<Level>,
    /// rule or system
    #[param(value_type = Option<String>)]
    kind: Option<AlertKind>,
    /// Of the rule or condition
    name: Option<String>,
    /// Engine id, or the part of the system
    subject: Option<String>,
    /// A label and its value, such as `site=north`
    label: Option<String>,
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// `GET /api/alerts`: newest first.
///
/// # Errors
/// 400 for parameters that mean nothing; 503 where the control store does not answer.
#[utoipa::path(get, path = "/api/alerts", tag = "alerts", params(AlertsQuery),
    responses((status = 200, description = "Newest first", body = super::openapi::Alerts), super::openapi::Failure))]
pub async fn list(_who: Viewer, query: Query<AlertsQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let AlertsQuery { state: wanted, level, kind, name, subject, label, limit, cursor } = query.0;
    let limit = page_size(limit)?;
    let before = cursor.as_deref().map(parse_cursor).transpose()?;
    let label = label.as_deref().map(parse_label).transpose()?;
    let filter = AlertFilter { state: wanted, level, kind, name, subject, label, before };
    let (items, next) = state.control.call(move |conn| alerts::list(conn, &filter, limit)).await?;
    let next_cursor = next.map(|(at_us, id)| format!("{at_us}@{id}"));
    Ok(HttpResponse::Ok().json(List { items, next_cursor }))
}

fn parse_label(text: &str) -> Result<(String, String), ApiError> {
    let parsed = text.split_once('=').filter(|(name, _)| is_name(name));
    let wrong = || ApiError::query("label", "write name=value, such as site=north");
    parsed.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(wrong)
}

fn parse_cursor(cursor: &str) -> Result<(i64, String), ApiError> {
    let parsed = cursor.split_once('@').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    parsed.ok_or_else(|| ApiError::query("cursor", "does not belong to this list; start again without it"))
}

/// `GET /api/alerts/{id}`: one alert with its history, and whom it was told or why not.
///
/// # Errors
/// 404 for an id that is unknown.
#[utoipa::path(get, path = "/api/alerts/{id}", tag = "alerts", params(("id" = String, Path, description = "As listed")),
    responses((status = 200, description = "The alert with its history and notifications", body = super::openapi::AlertInFull), super::openapi::Failure))]
pub async fn show(_who: Viewer, id: Path<String>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    let ask =
        move |conn: &mut Conn| Ok((alerts::get(conn, &id)?, alerts::history(conn, &id)?, alerts::notices::of_alert(conn, &id)?));
    let (alert, history, notices) = state.control.call(ask).await?;
    let mut body = json!(alert);
    body["history"] = json!(history);
    body["notifications"] = json!(notices);
    Ok(HttpResponse::Ok().json(body))
}

/// Body of an acknowledgement.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckBody {
    /// Why, for the audit
    reason: Option<String>,
}

/// `POST /api/alerts/{id}/ack`: someone takes it on.
///
/// # Errors
/// 404 for an id that is unknown, 409 where it is resolved, 503 where it cannot be kept now.
#[utoipa::path(post, path = "/api/alerts/{id}/ack", tag = "alerts", params(("id" = String, Path, description = "As listed")), request_body = Option<AckBody>,
    responses((status = 200, description = "The alert, acknowledged", body = super::openapi::AlertItem), super::openapi::Failure))]
pub async fn acknowledge(
    who: Operator,
    id: Path<String>,
    body: Json<AckBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let id = id.into_inner();
    let reason = optional_reason(body.0.reason.as_deref())?;
    // The desk writes the audit row in the transaction of the acknowledgement itself.
    let alert = ask(&state, &id, who.0.name(), reason).await?;
    log::info!(target: "belayd::web", who = who.0.name(), action = "alert.acknowledge", subject = id.as_str(), outcome = "ok"; "admin action");
    Ok(HttpResponse::Ok().json(alert))
}

async fn ask(state: &WebState, id: &str, by: &str, reason: Option<String>) -> Result<Alert, ApiError> {
    let (reply, answer) = oneshot::channel();
    let order = AcknowledgeAlert { id: id.to_owned(), by: by.to_owned(), reason, reply };
    state.acknowledge.try_send(order).map_err(|refused| match refused {
        SendRefused::Full(_) => ApiError::new(ErrorCode::NotReady, "the alert queue is full"),
        SendRefused::Closed(_) => ApiError::new(ErrorCode::Stopping, "the daemon is stopping"),
    })?;
    match timeout(ACK_WAIT, answer).await {
        Ok(Ok(Ok(alert))) => Ok(alert),
        Ok(Ok(Err(AcknowledgeError::NotFound))) => Err(ApiError::not_found("alert", id)),
        Ok(Ok(Err(AcknowledgeError::Resolved))) => Err(ApiError::new(ErrorCode::Conflict, "the alert is resolved already")),
        Ok(Ok(Err(AcknowledgeError::Unavailable(cause)))) => Err(ApiError::new(ErrorCode::StoreUnavailable, cause)),
        Ok(Err(_)) | Err(_) => {
            Err(ApiError::new(ErrorCode::NotReady, "AlertActor did not answer; look again before you repeat it"))
        }
    }
}
