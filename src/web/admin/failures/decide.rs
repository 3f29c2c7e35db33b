//! Deciding about one failure.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Found, Shelf,
    edit::EditBody,
    find,
    view::{delivery_view, reading_view},
};
use crate::{
    domain::{delivery::Event, role::Role},
    protocol::Wake,
    store::{
        Conn, StoreResult,
        audit::record,
        deliveries::{self, DeliveryRow, Edit},
        failures, messages,
        readings::Relaying,
    },
    web::{
        admin::ReasonBody,
        audit::{audit, begin, entry, required_reason},
        auth::{Caller, Operator},
        body::Json,
        error::{ApiError, ErrorCode},
        openapi::{Failure, FailureItem},
        state::WebState,
    },
};

/// Body of a retry.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryBody {
    /// Why, for the audit
    reason: Option<String>,
    /// Deliveries only, and for an admin only: what is set right before it goes out again
    edit: Option<EditBody>,
}

/// `PATCH /admin/failures/{id}/retry`: a reading is stored again at once; a delivery goes out again, set right where an admin wants it so.
///
/// # Errors
/// 400 without a reason or for an edit that is wrong, 403 for an edit by an operator, 404 for an unknown id, 409 where it has been decided,
/// 503 where the store is away.
#[utoipa::path(patch, path = "/admin/failures/{id}/retry", tag = "failures", params(("id" = String, Path, description = "As listed")),
    request_body = RetryBody, responses((status = 200, description = "As it stands now", body = FailureItem), Failure))]
pub async fn retry(
    who: Operator,
    id: Path<String>,
    body: Json<RetryBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let RetryBody { reason, edit } = body.0;
    let reason = required_reason(reason.as_deref())?;
    let edit = edit.filter(|edit| !edit.fields().is_empty());
    if let Some(edit) = &edit
        && !who.0.role().meets(Role::Admin)
    {
        let subject = format!("{} ({})", id.chars().take(64).collect::<String>(), edit.fields().join(", "));
        audit(&state, &who.0, "delivery.edit", &subject, Some(&reason), ErrorCode::Forbidden.as_str()).await?;
        let message = format!("the token has the role {}; editing what is sent takes admin", who.0.role());
        return Err(ApiError::new(ErrorCode::Forbidden, message).hint("Retry it without edit, or have an admin do it."));
    }
    let view = match (find(&state, &id).await?, edit) {
        (Found::Reading(_), Some(_)) => return Err(ApiError::field("edit", "a reading cannot be edited: it is what was measured")),
        (Found::Reading(failure), None) => retry_reading(&state, &who.0, failure.id, reason).await?,
        (Found::Delivery(row, shelf), None) => act(&state, &who.0, shelf, row.id, Event::Redrive, reason).await?,
        (Found::Delivery(row, shelf), Some(edit)) => {
            let edited = edit.fields().join(", ");
            let subject = format!("{} ({edited})", row.id);
            let edit = edit.apply(&row, &state)?;
            let action = Action { event: Event::Redrive, word: "delivery.edit", subject, edit: Some(edit), edited };
            perform(&state, &who.0, shelf, row.id, action, reason).await?
        }
    };
    Ok(HttpResponse::Ok().json(view))
}

pub(super) async fn retry_reading(state: &WebState, who: &Caller, id: String, reason: String) -> Result<Value, ApiError> {
    let (actor, now_us, why, which) = (who.name().to_owned(), state.clock.now_us(), reason.clone(), id.clone());
    let begun = begin(state, who, "reading.retry", &id, Some(&reason)).await?;
    let relaying = if state.config.load().kafka.is_some() { Relaying::On } else { Relaying::Off };
    let retry = move |conn: &mut Conn| failures::retry_for(conn, &which, (&why, &actor), now_us, relaying);
    let retried = state.store.call(retry).await;
    // Only a hint: a relay looks by itself before long.
    let _ = state.wake.try_send(Wake);
    let outcome = if retried.as_ref().is_ok_and(|retried| retried.settled) { "ok" } else { "failed_again" };
    if let Ok(retried) = &retried {
        state.views.follow_decision(&retried.delta);
    }
    let retried = begun.end(state, retried.map_err(ApiError::from), outcome).await?;
    let mut view = reading_view(&retried.failure);
    view["settled"] = json!(retried.settled);
    Ok(view)
}

/// `POST /admin/failures/{id}/discard`: given up for good.
///
/// # Errors
/// As of retry.
#[utoipa::path(post, path = "/admin/failures/{id}/discard", tag = "failures", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody, responses((status = 200, description = "As it stands now", body = FailureItem), Failure))]
pub async fn discard(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    let view = match find(&state, &id).await? {
        Found::Delivery(row, shelf) => act(&state, &who.0, shelf, row.id, Event::Discard, reason).await?,
        Found::Reading(failure) => {
            let (actor, now_us, why, which) = (who.0.name().to_owned(), state.clock.now_us(), reason.clone(), failure.id.clone());
            let begun = begin(&state, &who.0, "reading.discard", &failure.id, Some(&reason)).await?;
            let discarded = state.store.call(move |conn| failures::discard(conn, &which, &why, &actor, now_us)).await;
            if let Ok((_, delta)) = &discarded {
                state.views.follow_decision(delta);
            }
            let (failure, _) = begun.end(&state, discarded.map_err(ApiError::from), "ok").await?;
            reading_view(&failure)
        }
    };
    Ok(HttpResponse::Ok().json(view))
}

/// `POST /admin/failures/{id}/mark-sent`: someone knows that it arrived.
///
/// # Errors
/// As of retry; 409 for a reading.
#[utoipa::path(post, path = "/admin/failures/{id}/mark-sent", tag = "failures", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody, responses((status = 200, description = "As it stands now", body = FailureItem), Failure))]
pub async fn mark_sent(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    match find(&state, &id).await? {
        Found::Reading(_) => Err(ApiError::new(ErrorCode::Conflict, "a reading is not sent: retry or discard it")),
        Found::Delivery(row, shelf) => {
            Ok(HttpResponse::Ok().json(act(&state, &who.0, shelf, row.id, Event::MarkSent, reason).await?))
        }
    }
}

/// What is done to one delivery, in the words of the audit.
struct Action {
    event: Event,
    word: &'static str,
    subject: String,
    edit: Option<Edit>,
    /// The names of what the edit changes.
    edited: String,
}

/// What the history of a message says of a decision.
struct Told {
    actor: String,
    reason: String,
    edited: String,
}

/// The word of the audit for a move.
pub(super) fn action_word(event: Event) -> &'static str {
    match event {
        Event::Discard => "delivery.discard",
        Event::MarkSent => "delivery.mark-sent",
        _ => "delivery.retry",
    }
}

/// Moves one delivery.
pub(super) async fn act(
    state: &WebState,
    who: &Caller,
    shelf: Shelf,
    id: String,
    event: Event,
    reason: String,
) -> Result<Value, ApiError> {
    let action = Action { event, word: action_word(event), subject: id.clone(), edit: None, edited: String::new() };
    perform(state, who, shelf, id, action, reason).await
}

/// In the control store the audit row is part of the same transaction; for the store it is written before.
async fn perform(
    state: &WebState,
    who: &Caller,
    shelf: Shelf,
    id: String,
    action: Action,
    reason: String,
) -> Result<Value, ApiError> {
    let now_us = state.clock.now_us();
    let Action { event, word, subject, edit, edited } = action;
    let row: DeliveryRow = if shelf == Shelf::Control {
        let entry = entry(state, who, word, &subject, Some(&reason), "ok");
        let acted: StoreResult<DeliveryRow> = state
            .control
            .call(move |conn| {
                conn.write(|conn| {
                    if let Some(edit) = &edit {
                        deliveries::edit(conn, &id, edit)?;
                    }
                    let row = deliveries::act(conn, &id, event, now_us)?;
                    record(conn, &entry)?;
                    Ok(row)
                })
            })
            .await;
        if let Err(error) = &acted {
            // Of the act nothing is left; that it was tried stands by itself.
            let code = ApiError::from(error.clone()).code;
            audit(state, who, word, &subject, Some(&reason), code).await?;
        }
        acted?
    } else {
        let begun = begin(state, who, word, &subject, Some(&reason)).await?;
        let told = Told { actor: who.name().to_owned(), reason, edited };
        let acted: StoreResult<DeliveryRow> =
            state.store.call(move |conn| conn.write(|conn| edit_and_act(conn, &id, edit.as_ref(), event, &told, now_us))).await;
        begun.end(state, acted.map_err(ApiError::from), "ok").await?
    };
    // Only a hint: the outbox looks by itself before long.
    let _ = state.wake.try_send(Wake);
    Ok(delivery_view(&row, shelf.word()))
}

/// In the store a delivery may be a message's, which is found by its recipients.
fn edit_and_act(
    conn: &mut Conn,
    id: &str,
    edit: Option<&Edit>,
    event: Event,
    told: &Told,
    now_us: i64,
) -> StoreResult<DeliveryRow> {
    if let Some(edit) = edit {
        deliveries::edit(conn, id, edit)?;
    }
    let row = deliveries::act(conn, id, event, now_us)?;
    if let Some(recipient) = edit.and_then(|edit| edit.recipient.as_deref()) {
        messages::readdress(conn, &row.subject, id, recipient)?;
    }
    if let Some(payload) = edit.and_then(|edit| edit.payload.as_deref()) {
        messages::reword(conn, &row.subject, payload)?;
    }
    let (word, reason) = match event {
        Event::Discard => ("discarded", told.reason.clone()),
        Event::MarkSent => ("marked-sent", told.reason.clone()),
        _ if edit.is_some() => ("edited", format!("{} ({})", told.reason, told.edited)),
        _ => ("retried", told.reason.clone()),
    };
    messages::tell_decision(conn, &row.subject, id, (word, &told.actor, Some(&reason)), now_us)?;
    Ok(row)
}
