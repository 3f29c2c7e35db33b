//! The ways out: how each is, and a delivery that tries one.
//!
//! In: a sink's name, a reason, and to whom where the sink takes recipients. Out: a real delivery in the control store, which goes the way
//! that alerts go; `GET /admin/failures/{id}` tells what became of it. It has one attempt: what fails is told at once and waits for nobody.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    config::{OnUnknown, SinkInfo},
    domain::time::rfc3339_us,
    protocol::Wake,
    store::{
        audit::record,
        deliveries::{self, NewDelivery},
    },
    web::{
        audit::{entry, required_reason},
        auth::Operator,
        body::Json,
        error::ApiError,
        openapi::Failure,
        state::WebState,
    },
};

/// The ways out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sinks {
    items: Vec<SinkItem>,
    next_cursor: Option<String>,
}

/// One way out.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SinkItem {
    name: String,
    /// log, smtp, slack, discord, webhook or bot
    kind: &'static str,
    /// Whether a delivery names to whom it goes
    takes_recipients: bool,
    /// closed, half-open or open
    circuit: &'static str,
    /// Due or in the works
    backlog: u64,
    in_flight: usize,
    /// Sends at once
    concurrency: usize,
    /// Most sends a minute; null where there is no limit
    per_minute: Option<u32>,
    /// The sink that is told instead while this one stays down
    fallback: Option<String>,
}

/// A test delivery on its way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestAnswer {
    /// GET /admin/failures/{id} tells what became of it
    delivery_id: String,
    sink: String,
    /// Empty where the sink knows
    to: String,
}

/// `GET /admin/sinks`: every way out, its circuit, what waits for it and its limits.
#[utoipa::path(get, path = "/admin/sinks", tag = "sinks", responses((status = 200, description = "Sinks in a fixed order", body = Sinks), Failure))]
pub async fn list(_who: Operator, state: Data<WebState>) -> HttpResponse {
    let (config, outbox) = (state.config.load(), (state.views.outbox)());
    let view = |sink: SinkInfo<'_>| {
        let seen = outbox.sinks.iter().find(|seen| seen.name == sink.name);
        SinkItem {
            name: sink.name.to_owned(),
            kind: sink.kind.as_str(),
            takes_recipients: sink.kind.takes_recipients(),
            circuit: seen.map_or("closed", |seen| seen.state),
            backlog: seen.map_or(0, |seen| seen.backlog),
            in_flight: seen.map_or(0, |seen| seen.in_flight),
            concurrency: sink.settings.concurrency.unwrap_or(config.outbox.concurrency),
            per_minute: sink.settings.per_minute,
            fallback: sink.settings.fallback.clone(),
        }
    };
    let items = config.sinks().into_iter().map(view).collect();
    HttpResponse::Ok().json(Sinks { items, next_cursor: None })
}

/// Body of a test.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestBody {
    /// Why, for the audit
    reason: Option<String>,
    /// An address for smtp, a room for a bot; without it the one in the configuration
    to: Option<String>,
}

/// `POST /admin/sinks/{name}/test`: sends a test delivery, as alerts are sent.
///
/// # Errors
/// 400 without a reason, or where `to` is none for this sink; 404 where no sink has this name; 503 where the control store is away.
#[utoipa::path(post, path = "/admin/sinks/{name}/test", tag = "sinks", params(("name" = String, Path, description = "As listed")),
    request_body = TestBody, responses((status = 202, description = "It is on its way", body = TestAnswer), Failure))]
pub async fn test(
    who: Operator,
    name: Path<String>,
    body: Json<TestBody>,
    state: Data<WebState>,
) -> Result<HttpResponse, ApiError> {
    let TestBody { reason, to } = body.0;
    let reason = required_reason(reason.as_deref())?;
    let config = state.config.load_full();
    let sink = config.sink(&name).ok_or_else(|| {
        let known: Vec<&str> = config.sinks().iter().map(|sink| sink.name).collect();
        ApiError::not_found("sink", &name).hint(format!("Sinks: {}.", known.join(", ")))
    })?;
    let recipient = recipient(&sink, to)?;
    let now_us = state.clock.now_us();
    let id = Uuid::now_v7().to_string();
    let delivery = NewDelivery {
        id: id.clone(),
        sink: sink.name.to_owned(),
        // A lane of its own: it waits behind no alert, and none behind it.
        lane: format!("test/{id}"),
        subject: format!("test/{id}"),
        payload: payload(&id, who.0.name(), now_us).to_string(),
        due_at_us: now_us,
        max_attempts: 1,
        on_unknown: OnUnknown::Review,
        recipient: recipient.clone(),
    };
    let entry = entry(&state, &who.0, "sink.test", &name, Some(&reason), "ok");
    state
        .control
        .call(move |conn| {
            conn.write(|conn| {
                deliveries::enqueue(conn, &[delivery], now_us)?;
                record(conn, &entry)
            })
        })
        .await?;
    // Only a hint: the outbox looks by itself before long.
    let _ = state.wake.try_send(Wake);
    Ok(HttpResponse::Accepted().json(TestAnswer { delivery_id: id, sink: name.into_inner(), to: recipient }))
}

/// To whom the test goes; empty where the sink knows.
fn recipient(sink: &SinkInfo<'_>, to: Option<String>) -> Result<String, ApiError> {
    let to = to.unwrap_or_default();
    if to.is_empty() {
        return if sink.may_leave_out_recipient() {
            Ok(to)
        } else {
            Err(ApiError::field("to", format!("the sink {} needs a recipient; give one, or set {}.to", sink.name, sink.name)))
        };
    }
    sink.recipient_fault(&to).map_or(Ok(to), |wrong| Err(ApiError::field("to", wrong)))
}

/// A message as people write them.
fn payload(id: &str, who: &str, now_us: i64) -> Value {
    let at = rfc3339_us(now_us);
    let body = format!("belayd can reach you this way.\nbelayd에서 보낸 시험 메시지입니다.\n\nAsked for by {who} at {at}.");
    json!({"message": {"id": format!("test/{id}"), "subject": "Test from belayd (시험 메시지)", "body": body, "from": who, "createdAt": at}})
}
