//! What could not be stored or sent and waits for a person: look, try again, give up, mark as sent.
//!
//! In: readings from the store, deliveries from both stores. Out: one list; decisions with a reason, each written to the audit. While
//! the database is away the control store's deliveries can still be decided.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::ReasonBody;
use crate::{
    domain::{delivery::Event, time::rfc3339_us},
    protocol::Wake,
    store::{
        Conn, Store, StoreErrorKind, StoreResult,
        audit::record,
        deliveries::{self, DeliveryRow},
        failures::{self, FailureFilter, FailureState, ReadingFailure},
        readings::{PAGE_MAX, Relaying},
    },
    web::{
        audit::{begin, entry, required_reason},
        auth::{Caller, Operator},
        body::{Json, Query},
        error::{ApiError, ErrorCode},
        openapi::{Failure, Failures},
        query::{List, page_size},
        state::WebState,
    },
};

/// What a failure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A reading that was not stored.
    Reading,
    /// A delivery that was not sent, or of which nobody knows.
    Delivery,
}

/// Parameters of `GET /admin/failures`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FailuresQuery {
    /// reading or delivery; without it both
    kind: Option<Kind>,
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// The list runs through three places, one after the other; the cursor names the place and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shelf {
    Control,
    Readings,
    Store,
}

impl Shelf {
    fn word(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Readings => "readings",
            Self::Store => "store",
        }
    }

    /// The places of a kind, in their order.
    fn of(kind: Option<Kind>) -> &'static [Shelf] {
        match kind {
            Some(Kind::Reading) => &[Self::Readings],
            Some(Kind::Delivery) => &[Self::Control, Self::Store],
            None => &[Self::Control, Self::Readings, Self::Store],
        }
    }

    /// Items after `cursor`, and the cursor for the rest of this place.
    async fn page(self, state: &WebState, limit: u32, cursor: Option<String>) -> Result<(Vec<Value>, Option<String>), ApiError> {
        let store = match self {
            Self::Control => &state.control,
            Self::Readings => {
                let filter = FailureFilter { kind: None, state: Some(FailureState::Open), cursor, limit };
                let page = state.store.call(move |conn| failures::list(conn, &filter)).await?;
                return Ok((page.items.iter().map(reading_view).collect(), page.next_cursor));
            }
            Self::Store => &state.store,
        };
        let before = cursor.map(|cursor| cursor.parse::<i64>()).transpose().map_err(|_| bad_cursor())?;
        let rows = store.call(move |conn| deliveries::failures(conn, limit, before)).await?;
        let next = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.seq.to_string());
        Ok((rows.iter().map(|row| delivery_view(row, self.word())).collect(), next))
    }
}

fn bad_cursor() -> ApiError {
    ApiError::query("cursor", "does not belong to this list; start again without it")
}

/// `GET /admin/failures`: newest first within each place.
///
/// # Errors
/// 400 for parameters that mean nothing; 503 where a place does not answer.
#[utoipa::path(get, path = "/admin/failures", tag = "failures", params(FailuresQuery),
    responses((status = 200, description = "Readings and deliveries that wait for a person", body = Failures), Failure))]
pub async fn list(_who: Operator, query: Query<FailuresQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let limit = page_size(query.0.limit)?;
    let shelves = Shelf::of(query.0.kind);
    let (first, mut cursor) = match &query.0.cursor {
        None => (0, None),
        Some(cursor) => {
            let (word, rest) = cursor.split_once(':').ok_or_else(bad_cursor)?;
            let place = shelves.iter().position(|shelf| shelf.word() == word).ok_or_else(bad_cursor)?;
            (place, (!rest.is_empty()).then(|| rest.to_owned()))
        }
    };
    let mut items = Vec::new();
    for (at, shelf) in shelves.iter().enumerate().skip(first) {
        let room = limit - items.len() as u32;
        let (found, next) = match shelf.page(&state, room, cursor.take()).await {
            // What waits in the control store can be decided while the database is away.
            Err(error) if error.status.as_u16() == 503 && !items.is_empty() => {
                return Ok(HttpResponse::Ok().json(List { items, next_cursor: Some(format!("{}:", shelf.word())) }));
            }
            other => other?,
        };
        items.extend(found);
        let next = next.map(|next| format!("{}:{next}", shelf.word()));
        let following = || shelves.get(at + 1).map(|shelf| format!("{}:", shelf.word()));
        if next.is_some() || items.len() as u32 >= limit {
            return Ok(HttpResponse::Ok().json(List { items, next_cursor: next.or_else(following) }));
        }
    }
    Ok(HttpResponse::Ok().json(List { items, next_cursor: None }))
}

fn reading_view(failure: &ReadingFailure) -> Value {
    json!({
        "id": failure.id, "kind": "reading", "cause": failure.kind, "state": failure.state, "stream": failure.stream, "seq": failure.seq,
        "engineId": failure.engine_id, "observedAt": rfc3339_us(failure.observed_at_us), "payload": failure.payload,
        "existing": failure.existing, "errorCode": failure.error_code, "message": failure.message, "attempts": failure.attempts,
        "reason": failure.reason, "actor": failure.actor, "createdAt": rfc3339_us(failure.created_at_us),
        "updatedAt": rfc3339_us(failure.updated_at_us),
    })
}

fn delivery_view(row: &DeliveryRow, store: &str) -> Value {
    let payload = serde_json::from_str::<Value>(&row.payload).unwrap_or_else(|_| json!(row.payload));
    let state = row.state().map_or("unknown", |state| state.as_str());
    json!({
        "id": row.id, "kind": "delivery", "cause": state, "state": state, "store": store, "sink": row.sink, "subject": row.subject,
        "payload": payload, "attempts": row.attempt, "maxAttempts": row.max_attempts, "errorCode": row.last_error_type,
        "message": row.last_error, "possibleRepeat": row.possible_repeat(), "createdAt": rfc3339_us(row.created_at_us),
        "updatedAt": rfc3339_us(row.updated_at_us),
    })
}

/// Where one failure was found.
enum Found {
    Reading(Box<ReadingFailure>),
    Delivery(Box<DeliveryRow>, Store, &'static str),
}

impl Found {
    fn view(&self) -> Value {
        match self {
            Self::Reading(failure) => reading_view(failure),
            Self::Delivery(row, _, store) => delivery_view(row, store),
        }
    }
}

async fn find(state: &WebState, id: &str) -> Result<Found, ApiError> {
    let wanted = id.to_owned();
    if let Some(row) = state.control.call(move |conn| deliveries::get(conn, &wanted)).await? {
        return Ok(Found::Delivery(Box::new(row), state.control.clone(), Shelf::Control.word()));
    }
    let wanted = id.to_owned();
    let (reading, delivery) = state
        .store
        .call(move |conn| {
            let reading = match failures::get(conn, &wanted) {
                Err(error) if error.kind == StoreErrorKind::NotFound => None,
                other => Some(other?),
            };
            Ok((reading, deliveries::get(conn, &wanted)?))
        })
        .await?;
    match (reading, delivery) {
        (Some(reading), _) => Ok(Found::Reading(Box::new(reading))),
        (None, Some(row)) => Ok(Found::Delivery(Box::new(row), state.store.clone(), Shelf::Store.word())),
        (None, None) => Err(ApiError::not_found("failure", id)),
    }
}

/// `GET /admin/failures/{id}`: one in full.
///
/// # Errors
/// 404 for an id that is unknown.
#[utoipa::path(get, path = "/admin/failures/{id}", tag = "failures", params(("id" = String, Path, description = "As listed")),
    responses((status = 200, description = "One failure in full", body = Object), Failure))]
pub async fn show(_who: Operator, id: Path<String>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(find(&state, &id).await?.view()))
}

/// `PATCH /admin/failures/{id}/retry`: a reading is stored again at once; a delivery goes out again.
///
/// # Errors
/// 400 without a reason, 404 for an unknown id, 409 where it has been decided, 503 where the store is away.
#[utoipa::path(patch, path = "/admin/failures/{id}/retry", tag = "failures", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody, responses((status = 200, description = "As it stands now", body = Object), Failure))]
pub async fn retry(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    let view = match find(&state, &id).await? {
        Found::Reading(failure) => retry_reading(&state, &who.0, failure.id, reason).await?,
        Found::Delivery(row, store, word) => act(&state, &who.0, (&store, word), row.id, Event::Redrive, reason).await?,
    };
    Ok(HttpResponse::Ok().json(view))
}

async fn retry_reading(state: &WebState, who: &Caller, id: String, reason: String) -> Result<Value, ApiError> {
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
    request_body = ReasonBody, responses((status = 200, description = "As it stands now", body = Object), Failure))]
pub async fn discard(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    let view = match find(&state, &id).await? {
        Found::Delivery(row, store, word) => act(&state, &who.0, (&store, word), row.id, Event::Discard, reason).await?,
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
    request_body = ReasonBody, responses((status = 200, description = "As it stands now", body = Object), Failure))]
pub async fn mark_sent(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    match find(&state, &id).await? {
        Found::Reading(_) => Err(ApiError::new(ErrorCode::Conflict, "a reading is not sent: retry or discard it")),
        Found::Delivery(row, store, word) => {
            Ok(HttpResponse::Ok().json(act(&state, &who.0, (&store, word), row.id, Event::MarkSent, reason).await?))
        }
    }
}

/// Moves one delivery. In the control store the audit row is part of the same transaction; for the store it is written before.
async fn act(
    state: &WebState,
    who: &Caller,
    (store, word): (&Store, &'static str),
    id: String,
    event: Event,
    reason: String,
) -> Result<Value, ApiError> {
    let action = match event {
        Event::Discard => "delivery.discard",
        Event::MarkSent => "delivery.mark-sent",
        _ => "delivery.retry",
    };
    let now_us = state.clock.now_us();
    let row: DeliveryRow = if word == Shelf::Control.word() {
        let entry = entry(state, who, action, &id, Some(&reason), "ok");
        let acted: StoreResult<DeliveryRow> = store
            .call(move |conn| {
                conn.write(|conn| {
                    let row = deliveries::act(conn, &id, event, now_us)?;
                    record(conn, &entry)?;
                    Ok(row)
                })
            })
            .await;
        acted?
    } else {
        let begun = begin(state, who, action, &id, Some(&reason)).await?;
        let acted: StoreResult<DeliveryRow> =
            store.call(move |conn| conn.write(|conn| deliveries::act(conn, &id, event, now_us))).await;
        begun.end(state, acted.map_err(ApiError::from), "ok").await?
    };
    // Only a hint: the outbox looks by itself before long.
    let _ = state.wake.try_send(Wake);
    Ok(delivery_view(&row, word))
}

/// Body of a redrive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveBody {
    /// Why, for the audit
    reason: Option<String>,
    /// reading or delivery; without it both
    kind: Option<Kind>,
    /// Only deliveries to this sink
    sink: Option<String>,
    /// At most so many, 1 to 1000; default 100
    limit: Option<u32>,
}

/// `POST /admin/failures/redrive`: tries many again, in each place the newest first.
///
/// # Errors
/// 400 without a reason; 503 where a store is away.
#[utoipa::path(post, path = "/admin/failures/redrive", tag = "failures", request_body = RedriveBody,
    responses((status = 200, description = "How many were tried again, and how many failed again", body = Object), Failure))]
pub async fn redrive(who: Operator, body: Json<RedriveBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let RedriveBody { reason, kind, sink, limit } = body.0;
    let reason = required_reason(reason.as_deref())?;
    let limit = page_size(limit)?;
    // A sink names deliveries.
    let kind = sink.as_ref().map_or(kind, |_| kind.or(Some(Kind::Delivery)));
    let (mut redriven, mut failed) = (0, 0);
    for shelf in Shelf::of(kind) {
        let mut cursor = None;
        while redriven + failed < limit {
            let (items, next) = match shelf.page(&state, PAGE_MAX, cursor.take()).await {
                // What was done is told; a second call says what could not be reached.
                Err(error) if error.status.as_u16() == 503 && redriven + failed > 0 => break,
                other => other?,
            };
            let wanted = items.into_iter().filter(|item| sink.as_deref().is_none_or(|sink| item["sink"] == sink));
            for item in wanted.take((limit - redriven - failed) as usize) {
                let Some(id) = item["id"].as_str().map(str::to_owned) else { continue };
                if redrive_one(&state, &who.0, *shelf, id, reason.clone()).await? {
                    redriven += 1;
                } else {
                    failed += 1;
                }
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(HttpResponse::Ok().json(json!({"redriven": redriven, "failed": failed})))
}

/// `false` where someone else decided it in the meantime, or it failed for the same reason as before.
async fn redrive_one(state: &WebState, who: &Caller, shelf: Shelf, id: String, reason: String) -> Result<bool, ApiError> {
    let tried = match shelf {
        Shelf::Readings => retry_reading(state, who, id, reason).await.map(|view| view["settled"] == true),
        Shelf::Control => act(state, who, (&state.control, shelf.word()), id, Event::Redrive, reason).await.map(|_| true),
        Shelf::Store => act(state, who, (&state.store, shelf.word()), id, Event::Redrive, reason).await.map(|_| true),
    };
    match tried {
        Err(error) if error.status.as_u16() == 409 || error.status.as_u16() == 404 => Ok(false),
        other => other,
    }
}
