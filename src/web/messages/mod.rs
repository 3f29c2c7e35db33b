//! Messages to people: hand in, list, look, call off.
//!
//! In: JSON from whoever may decide. Out: the message with its deliveries, committed in one transaction before the 202. A crash before
//! the commit leaves nothing of it, a crash behind it loses nothing; whoever got no answer repeats with the same idempotency key. Texts and
//! addresses are never logged.

mod compose;
mod draft;
mod view;
mod ways;

use actix_web::{
    HttpRequest, HttpResponse,
    dev::Payload,
    http::header::HeaderName,
    web::{self, Data, Path},
};
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

pub use self::{
    compose::lane,
    draft::recipient_fault,
    view::{AttachmentItem, CancelAnswer, DeliveryFull, DeliveryShort, MessageAnswer, MessageEvent, MessageFull, MessageItem},
    ways::{Way, Ways, all as ways},
};
use super::{
    admin::ReasonBody,
    audit::{begin, required_reason},
    auth::{Caller, Operator},
    body::{self, Json, Query},
    error::{ApiError, ErrorCode},
    openapi::Failure,
    query::{List, moment, page_size},
    quota,
    state::WebState,
};
use crate::{
    domain::{
        delivery::DeliveryState,
        message::{MAX_RECIPIENT_CHARS, MessageStatus, status},
    },
    event::MessageAccepted,
    ingest::limits::MAX_BODY_BYTES,
    protocol::Wake,
    store::{
        StoreError,
        messages::{self, Cancelled, ListFilter, Made, Message, NewMessage},
    },
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A message to be sent.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "it describes")]
pub struct MessageBody {
    /// Mail addresses or rooms, 1 to 100 of them, none twice; where the sink itself is the receiver it may be left out, and is passed on for
    /// information
    to: Option<Vec<String>>,
    /// One line of at most 200 characters
    subject: String,
    /// Plain text; with html at most 1 MB
    body: String,
    /// The same as HTML
    html: Option<String>,
    /// Name of a sink; without it smtp, where that is configured
    via: Option<String>,
    /// RFC 3339, at most a year ahead; without it, or in the past, at once
    send_at: Option<String>,
    /// 1 to 255 visible characters: the same key makes no second message; may also be the header Idempotency-Key
    idempotency_key: Option<String>,
    /// A mail address
    reply_to: Option<String>,
    /// At most 10, and 5 MB in all
    attachments: Option<Vec<AttachmentBody>>,
}

/// Something that goes with a message.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "it describes")]
pub struct AttachmentBody {
    /// Of the file, without a path
    name: String,
    /// A media type such as application/pdf
    content_type: String,
    /// Base64
    content: String,
}

/// `POST /api/messages`: takes a message; with idempotencyKey a repeat makes no second one.
///
/// # Errors
/// 400 with every fault of the body, 409 where the key has made another message, 413, 415, 429, 503.
#[utoipa::path(post, path = "/api/messages", tag = "messages", request_body = MessageBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotencyKey of the body")),
    responses((status = 202, description = "Taken: the message and its deliveries are committed; repeated tells that the same key had made it before, and it is told as it stands now", body = MessageAnswer), Failure))]
pub async fn create(
    request: HttpRequest,
    who: Operator,
    payload: web::Payload,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    quota::admit_message(&request, &state, &who.0)?;
    let new = read(&request, &mut payload.into_inner(), &state, &who.0).await?;
    let now_us = state.clock.now_us();
    let (id, via, count) = (new.id.clone(), new.via.clone(), new.deliveries.len());
    let made = state
        .store
        .call(move |conn| {
            let made = messages::create(conn, &new, now_us)?;
            let id = match &made {
                Made::New => &new.id,
                Made::Repeated(id) | Made::OtherContent(id) => id,
            };
            let message = messages::get(conn, id)?;
            Ok((made, message))
        })
        .await?;
    match made {
        (Made::New, Some(message)) => {
            // Only a hint: the outbox looks by itself before long.
            let _ = state.wake.try_send(Wake);
            MessageAccepted { message_id: &id, via: &via, deliveries: count, who: who.0.name() }.emit(&state.metrics);
            answer(&message, false)
        }
        (Made::Repeated(_), Some(message)) => answer(&message, true),
        (Made::OtherContent(id), _) => Err(ApiError::new(
            ErrorCode::IdempotencyConflict,
            format!("this idempotency key has made the message {id}, which has another content"),
        )),
        (_, None) => Err(ApiError::new(ErrorCode::Conflict, "the message that this idempotency key made is gone already")),
    }
}

/// Reads the body within its bounds and checks it.
async fn read(request: &HttpRequest, payload: &mut Payload, state: &WebState, who: &Caller) -> Result<NewMessage, ApiError> {
    let coding = body::coding(request)?;
    let announced = body::announced_length(request, MAX_BODY_BYTES)?;
    let busy = || ApiError::new(ErrorCode::AdmissionLimit, "too many bytes of requests are in the works");
    // A body of unannounced length counts as the largest, as pushes do: they share the budget.
    let _permit = state.admission.try_admit(announced.unwrap_or(MAX_BODY_BYTES) as u64).ok_or_else(busy)?;
    let packed = body::read_document(request, payload, announced, MAX_BODY_BYTES).await?;
    if packed.is_empty() {
        return Err(body::empty());
    }
    let plain = coding.decode(&packed, MAX_BODY_BYTES)?;
    let inflated = plain.len().saturating_sub(packed.len()) as u64;
    let _room = if inflated > 0 { Some(state.admission.try_admit(inflated).ok_or_else(busy)?) } else { None };
    let key = match request.headers().get(IDEMPOTENCY_KEY) {
        None => None,
        // What is no text is no key either, and is told so with its field.
        Some(value) => Some(value.to_str().unwrap_or("\u{0}")),
    };
    let (config, now_us) = (state.config.load(), state.clock.now_us());
    let draft = draft::read(&plain, key, &ways(state), now_us)?;
    Ok(compose::message(draft, who.name(), &config, now_us))
}

fn answer(message: &Message, repeated: bool) -> Result<HttpResponse, ApiError> {
    let status = message.status().ok_or_else(|| gone(&message.head.id))?;
    let deliveries = message.deliveries.iter().map(DeliveryShort::of).collect();
    Ok(HttpResponse::Accepted().json(MessageAnswer { id: message.head.id.clone(), status, deliveries, repeated }))
}

fn gone(id: &str) -> ApiError {
    ApiError::not_found("message", id)
}

/// Parameters of `GET /api/messages`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MessagesQuery {
    /// scheduled, ready, sending, sent, retry, uncertain, dead, cancelled or discarded
    #[param(value_type = Option<String>)]
    status: Option<MessageStatus>,
    /// Only to this sink
    via: Option<String>,
    /// Only to this recipient
    to: Option<String>,
    /// Handed in at or after this time, RFC 3339
    from: Option<String>,
    /// Handed in before this time, RFC 3339
    until: Option<String>,
    /// Only with this in the subject
    q: Option<String>,
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// `GET /api/messages`: newest first; a page may be short, `nextCursor` says whether there is more.
///
/// # Errors
/// 400 for parameters that mean nothing; 503 while the database is away.
#[utoipa::path(get, path = "/api/messages", tag = "messages", params(MessagesQuery),
    responses((status = 200, description = "Newest first", body = List<MessageItem>), Failure))]
pub async fn list(_who: Operator, query: Query<MessagesQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let MessagesQuery { status, via, to, from, until, q, limit, cursor } = query.0;
    let limit = page_size(limit)?;
    for (name, value) in [("via", &via), ("to", &to), ("q", &q)] {
        let bad = value
            .as_deref()
            .is_some_and(|text| text.is_empty() || text.chars().count() > MAX_RECIPIENT_CHARS || text.contains('\0'));
        if bad {
            return Err(ApiError::query(name, format!("1 to {MAX_RECIPIENT_CHARS} characters, none of them NUL")));
        }
    }
    let filter = ListFilter {
        status,
        via,
        to,
        text: q,
        from_us: moment("from", from.as_deref())?,
        until_us: moment("until", until.as_deref())?,
        before: cursor.as_deref().map(parse_cursor).transpose()?,
    };
    let (items, next) = state.store.call(move |conn| messages::list(conn, &filter, limit)).await?;
    let next_cursor = next.map(|(at_us, id)| format!("{at_us}@{id}"));
    Ok(HttpResponse::Ok().json(List { items: items.into_iter().map(MessageItem::from).collect(), next_cursor }))
}

fn parse_cursor(cursor: &str) -> Result<(i64, String), ApiError> {
    let parsed = cursor.split_once('@').and_then(|(at, id)| Some((at.parse().ok()?, uuid::Uuid::parse_str(id).ok()?.to_string())));
    parsed.ok_or_else(|| ApiError::query("cursor", "does not belong to this list; start again without it"))
}

/// `GET /api/messages/{id}`: one in full, with its deliveries and their outcomes.
///
/// # Errors
/// 404 for an id that is unknown or of a message that retention has dropped; 503 while the database is away.
#[utoipa::path(get, path = "/api/messages/{id}", tag = "messages", params(("id" = String, Path, description = "As listed")),
    responses((status = 200, description = "The message in full", body = MessageFull), Failure))]
pub async fn show(_who: Operator, id: Path<String>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let id = known_form(&id)?;
    let wanted = id.clone();
    let message = state.store.call(move |conn| messages::get(conn, &wanted)).await?.ok_or_else(|| gone(&id))?;
    let status = message.status().ok_or_else(|| gone(&id))?;
    Ok(HttpResponse::Ok().json(MessageFull::of(message, status)))
}

/// An id that can be one: a database would refuse some texts in words of its own.
fn known_form(id: &str) -> Result<String, ApiError> {
    uuid::Uuid::parse_str(id).map(|id| id.to_string()).map_err(|_| gone(id))
}

/// `POST /api/messages/{id}/cancel`: calls off what has not been sent, and tells what it was too late for.
///
/// # Errors
/// 400 without a reason, 404 for an unknown id, 409 where nothing could be called off, 503 while the database is away.
#[utoipa::path(post, path = "/api/messages/{id}/cancel", tag = "messages", params(("id" = String, Path, description = "As listed")),
    request_body = ReasonBody, responses((status = 200, description = "What was called off", body = CancelAnswer), Failure))]
pub async fn cancel(
    who: Operator,
    id: Path<String>,
    body: Json<ReasonBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let reason = required_reason(body.0.reason.as_deref())?;
    let id = known_form(&id)?;
    let (wanted, actor, now_us) = (id.clone(), who.0.name().to_owned(), state.clock.now_us());
    let begun = begin(&state, &who.0, "message.cancel", &id, Some(&reason)).await?;
    let done = state.store.call(move |conn| messages::cancel(conn, &wanted, &reason, &actor, now_us)).await;
    let answer = begun.end(&state, done.map_err(ApiError::from).and_then(|outcome| told(id, outcome)), "ok").await?;
    // What came behind it in its lanes may go now.
    let _ = state.wake.try_send(Wake);
    Ok(HttpResponse::Ok().json(answer))
}

fn told(id: String, outcome: Cancelled) -> Result<CancelAnswer, ApiError> {
    let too_late: Vec<DeliveryShort> = outcome.late.iter().map(DeliveryShort::of).collect();
    if outcome.cancelled.is_empty() {
        let details = too_late.iter().map(|delivery| json!(delivery)).collect();
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "nothing of the message could be called off: it has been sent, is being sent, or waits for a decision",
        )
        .hint(
            "details tell where each delivery stands; what waits for a decision is discarded by POST /admin/failures/{id}/discard.",
        )
        .details(details));
    }
    let mut cancelled: Vec<DeliveryShort> = outcome.cancelled.iter().map(DeliveryShort::of).collect();
    cancelled.iter_mut().for_each(|delivery| delivery.state = DeliveryState::Cancelled.to_string());
    let states: Vec<DeliveryState> =
        outcome.late.iter().filter_map(|delivery| delivery.state()).chain([DeliveryState::Cancelled]).collect();
    let status = status(&states).ok_or_else(|| ApiError::from(StoreError::other("a cancelled message has no delivery")))?;
    Ok(CancelAnswer { id, status, cancelled, too_late })
}
