//! Trying many failures again, at a rate that their receiver can bear.
//!
//! In: which ones, how many, how many a second. Out: how many go out again, and when the last does. The rate is kept by due times: the
//! outbox sends what is due, so a restart in between changes nothing.

use actix_web::{HttpResponse, web::Data};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{Kind, Shelf, Wanted, check_sink, decide::action_word, decide::retry_reading};
use crate::{
    domain::{
        delivery::{DeliveryState, Event},
        time::rfc3339_us,
    },
    protocol::Wake,
    store::{
        Conn, StoreError, StoreErrorKind, StoreResult, audit,
        deliveries::{self, FailureFilter},
        messages, relay,
    },
    web::{
        audit::{entry, required_reason},
        auth::{Caller, Operator},
        body::Json,
        error::ApiError,
        openapi::{Failure, Redriven},
        state::WebState,
    },
};

/// Most failures of one call.
const MANY_MAX: u32 = 10_000;
/// Most deliveries a second; beyond it a rate says nothing.
const PER_SECOND_MAX: f64 = 10_000.0;
/// Slowest rate: one an hour.
const PER_SECOND_MIN: f64 = 1.0 / 3600.0;
/// Deliveries of one transaction.
const CHUNK: u32 = 500;
/// What the audit says of one that somebody else has decided meanwhile.
const OVERTAKEN: &str = "conflict";

/// Body of a redrive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedriveBody {
    /// Why, for the audit
    reason: Option<String>,
    /// reading or delivery; without it both
    kind: Option<Kind>,
    /// Only deliveries to this sink
    sink: Option<String>,
    /// Only deliveries that failed so; the word is their errorCode
    error_type: Option<String>,
    /// dead or uncertain: only deliveries that stand so; without it dead, since what is uncertain may have arrived and would come twice
    state: Option<String>,
    /// Only deliveries that failed at or after this time, RFC 3339
    since: Option<String>,
    /// At most so many, 1 to 10000; default 100
    limit: Option<u32>,
    /// Deliveries that become due each second; without it all at once
    per_second: Option<f64>,
}

/// What has been done so far.
#[derive(Default)]
struct Tally {
    redriven: u32,
    failed: u32,
    /// Deliveries that were given a due time.
    spread: u32,
}

impl Tally {
    fn total(&self) -> u32 {
        self.redriven + self.failed
    }
}

/// When the nth delivery is due.
#[derive(Clone, Copy)]
struct Pace {
    now_us: i64,
    step_us: f64,
}

impl Pace {
    fn due_us(self, n: u32) -> i64 {
        self.now_us.saturating_add((f64::from(n) * self.step_us) as i64)
    }
}

/// `POST /admin/failures/redrive`: tries many again, in each place the newest first; deliveries at so many a second.
///
/// # Errors
/// 400 without a reason or for words that mean nothing; 503 where a store is away.
#[utoipa::path(post, path = "/admin/failures/redrive", tag = "failures", request_body = RedriveBody,
    responses((status = 200, description = "How many were tried again, how many failed again, and when the last delivery is due", body = Redriven), Failure))]
pub async fn redrive(who: Operator, body: Json<RedriveBody>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let RedriveBody { reason, kind, sink, error_type, state: stands, since, limit, per_second } = body.0;
    let reason = required_reason(reason.as_deref())?;
    let limit = match limit {
        None => 100,
        Some(limit) if (1..=MANY_MAX).contains(&limit) => limit,
        Some(limit) => return Err(ApiError::field("limit", format!("{limit} is not within 1 to {MANY_MAX}"))),
    };
    let step_us = match per_second {
        None => 0.0,
        Some(rate) if (PER_SECOND_MIN..=PER_SECOND_MAX).contains(&rate) => 1e6 / rate,
        Some(_) => return Err(ApiError::field("perSecond", "must be within one an hour and 10,000 a second")),
    };
    let wrong = |name: &str, reason: String| ApiError::field(name, reason);
    let mut wanted = Wanted::new(kind, (sink, error_type), stands.as_deref(), since.as_deref(), wrong)?;
    check_sink(&state, &wanted, wrong).await?;
    wanted.deliveries.state.get_or_insert(DeliveryState::Dead);
    let pace = Pace { now_us: state.clock.now_us(), step_us };
    let mut tally = Tally::default();
    for shelf in Shelf::of(wanted.kind) {
        let done = match shelf {
            Shelf::Readings => readings(&state, &who.0, &reason, limit, &mut tally).await,
            Shelf::Control | Shelf::Store => {
                deliveries(&state, &who.0, *shelf, &wanted.deliveries, &reason, (limit, pace), &mut tally).await
            }
        };
        match done {
            // What was done is told; a second call says what could not be reached.
            Err(error) if error.status.as_u16() == 503 && tally.total() > 0 => break,
            other => other?,
        }
    }
    let until = tally.spread.checked_sub(1).map(|last| rfc3339_us(pace.due_us(last)));
    Ok(HttpResponse::Ok().json(json!({"redriven": tally.redriven, "failed": tally.failed, "until": until})))
}

/// Stores readings again, one after the other: each is judged by the database there and then.
async fn readings(state: &WebState, who: &Caller, reason: &str, limit: u32, tally: &mut Tally) -> Result<(), ApiError> {
    let mut cursor = None;
    while tally.total() < limit {
        let (items, next) = Shelf::Readings.page(state, &FailureFilter::default(), CHUNK, cursor.take()).await?;
        for item in items.iter().take((limit - tally.total()) as usize) {
            let Some(id) = item["id"].as_str().map(str::to_owned) else { continue };
            match retry_reading(state, who, id, reason.to_owned()).await {
                Ok(view) if view["settled"] == true => tally.redriven += 1,
                Ok(_) => tally.failed += 1,
                // Someone else has decided it meanwhile.
                Err(error) if matches!(error.status.as_u16(), 404 | 409) => tally.failed += 1,
                Err(error) => return Err(error),
            }
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(())
}

/// Sends deliveries of one place again, in transactions of some hundreds. Each has its row in the audit, which is written with it in the
/// control store, and before it for the store.
async fn deliveries(
    state: &WebState,
    who: &Caller,
    shelf: Shelf,
    filter: &FailureFilter,
    reason: &str,
    (limit, pace): (u32, Pace),
    tally: &mut Tally,
) -> Result<(), ApiError> {
    let mut before = None;
    while tally.total() < limit {
        let (wanted, room) = (filter.clone(), (limit - tally.total()).min(CHUNK));
        let rows = shelf.store(state).call(move |conn| deliveries::failures_where(conn, &wanted, room, before)).await?;
        let Some(last) = rows.last().map(|row| row.seq) else { break };
        before = Some(last);
        let full = rows.len() as u32 == room;
        let orders: Vec<Order> = rows
            .iter()
            .enumerate()
            .map(|(n, row)| {
                // A lane to Kafka has a pace of its own, and its order.
                let due_us = if row.sink == relay::SINK { pace.now_us } else { pace.due_us(tally.spread + n as u32) };
                Order {
                    id: row.id.clone(),
                    message: row.subject.clone(),
                    due_us,
                    entry: entry(state, who, action_word(Event::Redrive), &row.id, Some(reason), "ok"),
                }
            })
            .collect();
        let done = if shelf == Shelf::Control {
            in_control(state, orders, pace.now_us).await?
        } else {
            in_store(state, orders, pace.now_us).await?
        };
        let redriven = done.iter().filter(|done| **done).count() as u32;
        log::info!(target: "belayd::web", who = who.name(), action = "delivery.retry", count = redriven, store = shelf.word(); "admin action");
        tally.redriven += redriven;
        tally.failed += done.len() as u32 - redriven;
        tally.spread += done.len() as u32;
        // Only a hint: the outbox looks by itself before long.
        let _ = state.wake.try_send(Wake);
        if !full {
            break;
        }
    }
    Ok(())
}

/// One delivery that is to go out again.
struct Order {
    id: String,
    /// The message whose delivery it may be.
    message: String,
    due_us: i64,
    entry: audit::AuditEntry,
}

/// `false` where someone else decided it in the meantime.
fn redrive_one(conn: &mut Conn, order: &Order, now_us: i64) -> StoreResult<bool> {
    let Order { id, due_us, .. } = order;
    let (id, due_us) = (id.as_str(), *due_us);
    let event = if due_us > now_us { Event::RedriveLater } else { Event::Redrive };
    let overtaken = |error: &StoreError| matches!(error.kind, StoreErrorKind::Conflict | StoreErrorKind::NotFound);
    match deliveries::act_at(conn, id, event, due_us, now_us) {
        Ok(_) => Ok(true),
        Err(error) if overtaken(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// In the store a delivery may be a message's, whose history tells of it.
fn redrive_message(conn: &mut Conn, order: &Order, now_us: i64) -> StoreResult<bool> {
    let redriven = redrive_one(conn, order, now_us)?;
    if redriven {
        let told = ("retried", order.entry.actor.as_str(), order.entry.reason.as_deref());
        messages::tell_decision(conn, &order.message, &order.id, told, now_us)?;
    }
    Ok(redriven)
}

async fn in_control(state: &WebState, orders: Vec<Order>, now_us: i64) -> StoreResult<Vec<bool>> {
    let all = move |conn: &mut Conn| {
        let mut done = Vec::with_capacity(orders.len());
        for order in &orders {
            let redriven = redrive_one(conn, order, now_us)?;
            if redriven {
                audit::record(conn, &order.entry)?;
            }
            done.push(redriven);
        }
        Ok(done)
    };
    state.control.call(move |conn| conn.write(all)).await
}

async fn in_store(state: &WebState, orders: Vec<Order>, now_us: i64) -> StoreResult<Vec<bool>> {
    let entries: Vec<audit::AuditEntry> = orders.iter().map(|order| order.entry.clone()).collect();
    let begun: Vec<i64> =
        state.control.call(move |conn| conn.write(|conn| entries.iter().map(|entry| audit::begin(conn, entry)).collect())).await?;
    let all = move |conn: &mut Conn| orders.iter().map(|order| redrive_message(conn, order, now_us)).collect();
    let done: StoreResult<Vec<bool>> = state.store.call(move |conn| conn.write(all)).await;
    let ends: Vec<(i64, &'static str)> = match &done {
        Ok(done) => begun.into_iter().zip(done).map(|(id, done)| (id, if *done { "ok" } else { OVERTAKEN })).collect(),
        Err(error) => {
            let code = ApiError::from(error.clone()).code;
            begun.into_iter().map(|id| (id, code)).collect()
        }
    };
    let concluded = state
        .control
        .call(move |conn| conn.write(|conn| ends.iter().try_for_each(|(id, outcome)| audit::conclude(conn, *id, outcome))))
        .await;
    if let Err(error) = concluded {
        log::warn!(target: "belayd::web", error:% = error, action = "delivery.retry"; "the outcome of an action is missing in the audit");
    }
    done
}
