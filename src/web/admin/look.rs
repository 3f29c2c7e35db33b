//! Looking: buffer and admission, outbox, audit, configuration.
//!
//! The audit is told from two places. What people do is a row of the control store; who handed a message in stands in the database, in the
//! transaction of the message itself, because the two are different databases and a message without its line must not be.

use actix_web::{HttpResponse, web::Data};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::{
    domain::{ack::AckLevel, time::rfc3339_us},
    store::{
        audit::{self, AuditRow},
        messages::{self, HandedIn},
    },
    web::{
        auth::Operator,
        body::Query,
        error::ApiError,
        openapi::{Audit, BufferLook, ConfigAnswer, Failure, Instances, OutboxLook},
        query::page_size,
        state::WebState,
    },
};

/// `GET /admin/buffer`: the buffer, the account over all streams, and what may be let in now.
#[utoipa::path(get, path = "/admin/buffer", tag = "admin", responses((status = 200, description = "Medium, fill, account", body = BufferLook), Failure))]
pub async fn buffer(_who: Operator, state: Data<WebState>) -> HttpResponse {
    let (stats, account) = state.views.account();
    let mut body = json!(stats);
    body["total"] = json!(account);
    let weak = state.views.health.view().weak;
    let level = if weak.is_some() { state.views.buffer.medium_level() } else { AckLevel::Store };
    body["storeAck"] = json!({"level": level, "reason": weak});
    let (bytes, bytes_bound) = (state.admission.in_use(), state.admission.bound());
    let (limit, room) = match &state.pace {
        Some(pace) => (Some(pace.readings_per_s()), Some(pace.room(state.views.started.1.elapsed()))),
        None => (None, None),
    };
    body["admission"] = json!({"bytes": bytes, "bytesBound": bytes_bound, "readingsPerS": limit, "readingsRoom": room});
    if let Some(redis) = state.views.buffer.redis() {
        body["redis"] = json!(redis);
    }
    HttpResponse::Ok().json(body)
}

/// `GET /admin/outbox`: deliveries by state and by sink.
#[utoipa::path(get, path = "/admin/outbox", tag = "admin", responses((status = 200, description = "Deliveries by state and sink", body = OutboxLook), Failure))]
pub async fn outbox(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json((state.views.outbox)())
}

/// `GET /admin/instances`: who uses the same database.
#[utoipa::path(get, path = "/admin/instances", tag = "admin", responses((status = 200, description = "Instances: alive, dead or stopped, when heard of last, the leases that each holds", body = Instances), Failure))]
pub async fn instances(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({"items": state.views.instances.list(), "nextCursor": null}))
}

/// Parameters of `GET /admin/audit`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// A place in both lists: the row of the control store and the message before which to go on. Each is left out where none was shown yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AuditPlace {
    row: Option<i64>,
    message: Option<String>,
}

impl AuditPlace {
    /// `17`, `17@MESSAGE` or `@MESSAGE`.
    fn parse(cursor: &str) -> Option<Self> {
        let (row, message) = cursor.split_once('@').map_or((cursor, None), |(row, message)| (row, Some(message)));
        let message = message.map(|id| uuid::Uuid::parse_str(id).map(|id| id.to_string())).transpose().ok()?;
        let row = if row.is_empty() && message.is_some() { None } else { Some(row.parse().ok()?) };
        Some(Self { row, message })
    }

    fn told(&self) -> String {
        let row = self.row.map(|row| row.to_string()).unwrap_or_default();
        self.message.as_ref().map_or_else(|| row.clone(), |message| format!("{row}@{message}"))
    }
}

/// The newest `limit` of both, and the place behind them.
fn merged(limit: u32, rows: Vec<AuditRow>, made: Vec<HandedIn>, place: AuditPlace) -> (Vec<Value>, Option<String>) {
    let limit = limit as usize;
    // Where one list is full, more may follow in it.
    let more = rows.len() + made.len() > limit || rows.len() == limit || made.len() == limit;
    let (mut rows, mut made, mut place) = (rows.into_iter().peekable(), made.into_iter().peekable(), place);
    let mut items = Vec::with_capacity(limit);
    while items.len() < limit {
        let from_rows = match (rows.peek(), made.peek()) {
            (None, None) => break,
            (Some(row), Some(made)) => row.at_us >= made.at_us,
            (row, _) => row.is_some(),
        };
        if let Some(row) = rows.next_if(|_| from_rows) {
            place.row = Some(row.id);
            items.push(json!(row));
        } else if let Some(made) = made.next() {
            items.push(json!({"id": null, "at": rfc3339_us(made.at_us), "actor": made.actor, "action": "message.create",
                "subject": made.id, "reason": null, "outcome": "ok"}));
            place.message = Some(made.id);
        }
    }
    let next = more.then(|| place.told()).filter(|_| !items.is_empty());
    (items, next)
}

/// `GET /admin/audit`: newest first. Who handed messages in is read from the database; while it is away it is named under `away`, and those
/// lines are missing.
///
/// # Errors
/// 400 for a cursor that is none; 503 where the control store does not answer.
#[utoipa::path(get, path = "/admin/audit", tag = "admin", params(AuditQuery),
    responses((status = 200, description = "Who did what, when, why; newest first. id is null for message.create, which is kept with the message. away names what could not be asked", body = Audit), Failure))]
pub async fn audit_rows(_who: Operator, query: Query<AuditQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let limit = page_size(query.0.limit)?;
    let wrong = || ApiError::query("cursor", "does not belong to this list");
    let place = query.0.cursor.map(|cursor| AuditPlace::parse(&cursor).ok_or_else(wrong)).transpose()?.unwrap_or_default();
    let (row, message) = (place.row, place.message.clone());
    let rows = state.control.call(move |conn| audit::list(conn, limit, row)).await?;
    let (made, away) = match state.store.call(move |conn| messages::handed_in(conn, limit, message.as_deref())).await {
        Ok(made) => (made, Vec::new()),
        // What people did is told whatever is wrong with the database: it is then that somebody wants to know.
        Err(error) => {
            log::warn!(target: "belayd::web", error:% = error; "who handed messages in is missing in the audit that was asked for");
            (Vec::new(), vec!["store"])
        }
    };
    let (items, next_cursor) = merged(limit, rows, made, place);
    Ok(HttpResponse::Ok().json(json!({"items": items, "nextCursor": next_cursor, "away": away})))
}

/// `GET /admin/config`: the configuration in force, secrets hidden.
#[utoipa::path(get, path = "/admin/config", tag = "admin", responses((status = 200, description = "Values in force; secrets as ***", body = ConfigAnswer), Failure))]
pub async fn config(_who: Operator, state: Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(state.config.load().redacted())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, at_us: i64) -> AuditRow {
        let text = String::new;
        AuditRow { id, at_us, actor: text(), action: "a".into(), subject: text(), reason: None, outcome: text() }
    }

    fn id(n: i64) -> String {
        format!("00000000-0000-7000-8000-{n:012}")
    }

    fn made(n: i64, at_us: i64) -> HandedIn {
        HandedIn { id: id(n), at_us, actor: "kim".into() }
    }

    #[test]
    fn pages_of_both_lists_together_hold_everything_once_newest_first() {
        let rows: Vec<_> = [(9, 90), (8, 60), (7, 60), (3, 10)].map(|(id, at_us)| row(id, at_us)).into();
        let all_made: Vec<_> = [(5, 95), (4, 70), (2, 60), (1, 5)].map(|(n, at_us)| made(n, at_us)).into();
        for limit in 1..=9_u32 {
            let (mut seen, mut place) = (Vec::new(), AuditPlace::default());
            for _ in 0..20 {
                let page = |n: usize| n.min(limit as usize);
                let older: Vec<_> = rows.iter().filter(|row| place.row.is_none_or(|before| row.id < before)).cloned().collect();
                let newer: Vec<_> =
                    all_made.iter().filter(|made| place.message.as_ref().is_none_or(|before| made.id < *before)).cloned().collect();
                let (older, newer) = (older[..page(older.len())].to_vec(), newer[..page(newer.len())].to_vec());
                let (items, next) = merged(limit, older, newer, place.clone());
                seen.extend(items);
                let Some(next) = next else { break };
                place = AuditPlace::parse(&next).expect("its own cursor");
            }
            let times: Vec<_> = seen.iter().map(|item| item["at"].as_str().expect("a time").to_owned()).collect();
            assert_eq!(seen.len(), 8, "{limit}: {seen:?}");
            assert!(times.is_sorted_by(|newer, older| newer >= older), "{limit}: {times:?}");
        }
    }

    #[test]
    fn a_cursor_is_read_back_or_refused() {
        for place in [
            AuditPlace { row: Some(7), message: None },
            AuditPlace { row: Some(7), message: Some(id(1)) },
            AuditPlace { row: None, message: Some(id(1)) },
        ] {
            assert_eq!(AuditPlace::parse(&place.told()), Some(place));
        }
        for bad in ["", "@", "x", "7@", "7@x", "@x", "7@1@2"] {
            assert_eq!(AuditPlace::parse(bad), None, "{bad}");
        }
    }
}
