//! `POST /api/readings`: the hot path. Admission in bytes before anything is read, parse on the HTTP worker, one message to
//! `IngestActor`, one wait.
//!
//! In: a body of readings. Out: 202 with the level reached, or a refusal that says whether and when to come again. A crash loses
//! what was not acknowledged; the sender repeats it. No lock, no look-up by name and no log line is on the way of a good push.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    dev::Payload,
    http::{
        StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue},
    },
    web::{self, Data},
};
use serde_json::json;

use super::{
    auth::Pusher,
    body,
    error::{ApiError, ErrorCode},
    state::WebState,
};
use crate::{
    domain::ack::AckLevel,
    event::{PushRefused, ReadingsRejected, seconds},
    ingest::{
        gzip::Coding,
        limits::MAX_BODY_BYTES,
        pace::Claim,
        parse::{BodyKind, ParseContext, Parsed, parse_body},
        reason::Rejection,
    },
    protocol::{Accepted, Ingest},
    supervise::SendRefused,
};

/// Where readings are pushed to.
pub const PATH: &str = "/api/readings";
/// Longest wait for the alerts of a batch to be committed. They are committed anyway; the answer only prefers to come after them.
const ALERTS_WAIT: Duration = Duration::from_secs(1);

/// `POST /api/readings`: takes readings; engineId and at least one metric each, a reason for every one that is refused.
///
/// # Errors
/// 400, 408, 413, 415 for bad bodies; 429, 503, 507 where the sender should come again.
#[utoipa::path(post, path = "/api/readings", tag = "readings", params(super::openapi::AckParam),
    request_body(content((super::openapi::ReadingsBody = "application/json"), (String = "application/x-ndjson")),
        description = "One reading, an array of them, or one a line; at most 8 MB and 10,000 items; may be gzipped"),
    responses((status = 202, description = "Taken", body = super::openapi::PushAnswer), super::openapi::Failure))]
pub async fn push(
    request: HttpRequest,
    who: Result<Pusher, ApiError>,
    state: Data<WebState>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let mut payload = payload.into_inner();
    let result = match who {
        Ok(Pusher(_)) => take(&request, &state, &mut payload).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        turned_away(&request, &state, &mut payload, error).await;
    }
    result
}

/// Sees to the metric and to what is left of the body.
async fn turned_away(request: &HttpRequest, state: &WebState, payload: &mut Payload, error: &ApiError) {
    if matches!(error.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE) {
        PushRefused { code: error.code }.emit(&state.metrics);
    }
    if body::is_worth_the_wait(error.status, error.code) {
        let pause = state.config.load().server.client_timeout;
        body::turn_away(request, payload, pause).await;
    }
}

async fn take(request: &HttpRequest, state: &WebState, payload: &mut Payload) -> Result<HttpResponse, ApiError> {
    let ack = ack_level(request.query_string(), state)?;
    let header = |name| body::header_str(request, name);
    let kind = BodyKind::from_content_type(header(CONTENT_TYPE))?;
    let coding = Coding::from_header(header(CONTENT_ENCODING))?;
    let announced = body::announced_length(request, MAX_BODY_BYTES)?;
    // A body of unannounced length counts as the largest: what it may become is what must fit.
    let bytes = announced.unwrap_or(MAX_BODY_BYTES) as u64;
    let mut claim = claim(state, bytes)?;
    let busy = || ApiError::new(ErrorCode::AdmissionLimit, "too many bytes of requests are in the works");
    let permit = state.admission.try_admit(bytes).ok_or_else(busy)?;
    let config = state.config.load();
    let (pause, ack_timeout) = (config.server.client_timeout, config.buffer.ack_timeout);
    let body = body::read(payload, announced, MAX_BODY_BYTES, pause).await?;
    let began = Instant::now();

    let parsed = {
        let plain = coding.decode(&body, MAX_BODY_BYTES)?;
        // Held while it is parsed: what a gzipped body inflates to takes room too.
        let inflated = plain.len().saturating_sub(body.len()) as u64;
        let _room = if inflated > 0 { Some(state.admission.try_admit(inflated).ok_or_else(busy)?) } else { None };
        parse_body(kind, &plain, &ParseContext::new(&config.readings, &state.arrivals))?
    };
    drop(config);
    drop(body);
    if let Some(claim) = &mut claim {
        claim.counted(parsed.batch.len());
    }
    if parsed.rejected_total > 0 {
        for (reason, count) in parsed.rejected_by.iter() {
            ReadingsRejected { via: "http", reason: reason.as_str(), readings: count.into() }.emit(&state.metrics);
        }
    }
    if let Some(refusal) = parsed.refusal() {
        return Err(ApiError::from(refusal).details(parsed.rejected.iter().map(|rejection| json!(rejection)).collect()));
    }

    let Parsed { batch, rejected, rejected_total, .. } = parsed;
    let accepted = batch.len();
    let (reply, answer) = tokio::sync::oneshot::channel();
    state.ingest.try_send(Ingest { batch, ack, reply, permit }).map_err(|refused| match refused {
        SendRefused::Full(_) => ApiError::new(ErrorCode::IngestBusy, "the ingest queue is full"),
        SendRefused::Closed(_) => ApiError::new(ErrorCode::Stopping, "the daemon is stopping"),
    })?;
    let outcome = match tokio::time::timeout(ack_timeout, answer).await {
        Ok(Ok(outcome)) => outcome?,
        Ok(Err(_)) => return Err(ApiError::new(ErrorCode::OutcomeUnknown, "the part that worked on the readings was restarted")),
        Err(_) => return Err(ApiError::new(ErrorCode::OutcomeUnknown, "no acknowledgement within buffer.ack_timeout")),
    };
    if let Some(claim) = claim {
        claim.keep();
    }
    let (receipt, mut reached) = settle(outcome, ack_timeout.saturating_sub(began.elapsed())).await;
    if ack == AckLevel::Relay
        && reached == AckLevel::Store
        && relayed(state, &receipt, ack_timeout.saturating_sub(began.elapsed())).await
    {
        reached = AckLevel::Relay;
    }
    // A commit that a crash may take back is no safer than the buffer was.
    let weak = reached == AckLevel::Store && state.views.health.view().weak.is_some();
    let level = if weak { state.views.buffer.medium_level() } else { reached };
    state.metrics.ack_seconds(level).observe(seconds(began.elapsed()));
    Ok(HttpResponse::Accepted().insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json"))).body(answer_body(
        accepted,
        &rejected,
        rejected_total,
        level,
        &receipt,
    )))
}

/// What a body of `bytes` pays in advance where there is a limit on readings a second.
fn claim(state: &WebState, bytes: u64) -> Result<Option<Claim>, ApiError> {
    let Some(pace) = &state.pace else { return Ok(None) };
    pace.try_claim(bytes, state.views.started.1.elapsed()).map(Some).map_err(|wait| {
        let seconds = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX).max(1);
        let message = format!("more than {} readings a second (buffer.readings_per_s)", pace.readings_per_s());
        ApiError::new(ErrorCode::RateLimit, message).retry_after(seconds)
    })
}

/// Waits for what was asked for beyond the tier's own level, and for the alerts of the batch; then says what was reached.
async fn settle(accepted: Accepted, left: Duration) -> (crate::domain::receipt::Receipt, AckLevel) {
    let Accepted { receipt, mut level, upgrade, alerts } = accepted;
    if let Some(upgrade) = upgrade
        && let Ok(Ok(reached)) = tokio::time::timeout(left, upgrade).await
    {
        level = reached;
    }
    if let Some(alerts) = alerts {
        let _ = tokio::time::timeout(ALERTS_WAIT, alerts).await;
    }
    (receipt, level)
}

/// Whether Kafka is known to have committed all of these within `left`.
async fn relayed(state: &WebState, receipt: &crate::domain::receipt::Receipt, left: Duration) -> bool {
    let Some(wait) = &state.relayed else { return false };
    let locate = |seq| state.views.buffer.locate(receipt.stream, seq);
    let ((begun, first), (stream, last)) = (locate(receipt.first_seq), locate(receipt.last_seq));
    // A push that was renumbered from its middle on is in two streams, and one alone tells nothing.
    begun == stream && matches!(tokio::time::timeout(left, wait(stream, (first, last))).await, Ok(Ok(())))
}

/// The level of `?ack=`; the tier's own where there is none.
fn ack_level(query: &str, state: &WebState) -> Result<AckLevel, ApiError> {
    let buffer = &state.views.buffer;
    if query.is_empty() {
        return Ok(buffer.level());
    }
    let mut level = None;
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name != "ack" {
            let name: String = name.chars().take(64).collect();
            return Err(ApiError::query(&name, "unknown parameter; this route takes ack"));
        }
        if level.replace(value.parse::<AckLevel>().map_err(|error| ApiError::query("ack", error))?).is_some() {
            return Err(ApiError::query("ack", "given twice"));
        }
    }
    let level = level.unwrap_or_else(|| buffer.level());
    // Where readings are relayed is not the buffer's business.
    let reaches = |level| if level == AckLevel::Relay { state.relayed.is_some() } else { buffer.reaches(level) };
    if !reaches(level) {
        let reached: Vec<&str> = AckLevel::ALL.into_iter().filter(|level| reaches(*level)).map(AckLevel::as_str).collect();
        return Err(ApiError::new(ErrorCode::AckLevelUnavailable, format!("this buffer does not reach the level \"{level}\""))
            .hint(format!("Ask for one of: {}.", reached.join(", "))));
    }
    Ok(level)
}

/// Written by hand: the common answer is a few words and two numbers.
fn answer_body(
    accepted: u32,
    rejected: &[Rejection],
    rejected_total: u32,
    level: AckLevel,
    receipt: &crate::domain::receipt::Receipt,
) -> String {
    let mut body = String::with_capacity(192);
    let rejected = if rejected.is_empty() { "[]".into() } else { serde_json::to_string(rejected).unwrap_or_else(|_| "[]".into()) };
    let crate::domain::receipt::Receipt { stream, first_seq, last_seq } = receipt;
    // Writing into memory cannot fail.
    let _ = write!(body, r#"{{"accepted":{accepted},"rejected":{rejected},"#);
    if rejected_total > 0 {
        let _ = write!(body, r#""rejectedTotal":{rejected_total},"#);
    }
    let _ = write!(body, r#""ack":"{level}","receipt":{{"stream":"{stream}","firstSeq":{first_seq},"lastSeq":{last_seq}}}}}"#);
    body
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{domain::receipt::Receipt, ingest::reason::Reason};

    #[test]
    fn the_answer_is_json_of_the_interface() {
        let receipt = Receipt { stream: Uuid::nil(), first_seq: 7, last_seq: 9 };
        let body: serde_json::Value = serde_json::from_str(&answer_body(3, &[], 0, AckLevel::Memory, &receipt)).expect("is JSON");
        assert_eq!(
            body,
            json!({"accepted": 3, "rejected": [], "ack": "memory",
            "receipt": {"stream": Uuid::nil(), "firstSeq": 7, "lastSeq": 9}})
        );
        let rejected = [Rejection { index: 1, code: Reason::WrongType, message: "rpm \"x\"".into() }];
        let body: serde_json::Value =
            serde_json::from_str(&answer_body(1, &rejected, 1, AckLevel::Store, &receipt)).expect("is JSON");
        assert_eq!(body["rejected"][0]["code"], "wrong_type");
        assert_eq!(body["rejectedTotal"], 1);
    }
}
