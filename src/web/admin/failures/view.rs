//! Failures as the API shows them.

use serde_json::{Value, json};

use crate::{
    domain::time::rfc3339_us,
    store::{
        deliveries::{AttemptRow, Cause, DeliveryRow},
        failures::ReadingFailure,
    },
};

pub(super) fn reading_view(failure: &ReadingFailure) -> Value {
    json!({
        "id": failure.id, "kind": "reading", "cause": failure.kind, "state": failure.state, "stream": failure.stream, "seq": failure.seq,
        "engineId": failure.engine_id, "observedAt": rfc3339_us(failure.observed_at_us), "payload": failure.payload,
        "existing": failure.existing, "errorCode": failure.error_code, "message": failure.message, "attempts": failure.attempts,
        "reason": failure.reason, "actor": failure.actor, "createdAt": rfc3339_us(failure.created_at_us),
        "updatedAt": rfc3339_us(failure.updated_at_us),
    })
}

pub(super) fn delivery_view(row: &DeliveryRow, store: &str) -> Value {
    let payload = serde_json::from_str::<Value>(&row.payload).unwrap_or_else(|_| json!(row.payload));
    let state = row.state().map_or("unknown", |state| state.as_str());
    json!({
        "id": row.id, "kind": "delivery", "cause": state, "state": state, "store": store, "sink": row.sink, "recipient": row.recipient,
        "subject": row.subject, "payload": payload, "attempts": row.attempt, "maxAttempts": row.max_attempts,
        "errorCode": row.last_error_type, "message": row.last_error, "possibleRepeat": row.possible_repeat(),
        "createdAt": rfc3339_us(row.created_at_us), "updatedAt": rfc3339_us(row.updated_at_us),
    })
}

/// All there is to know about a delivery; `attempts` are those that did not succeed at the first go.
pub(super) fn evidence(row: &DeliveryRow, store: &str, attempts: &[AttemptRow]) -> Value {
    let mut view = delivery_view(row, store);
    view["lane"] = json!(row.lane);
    view["dueAt"] = json!(rfc3339_us(row.due_at_us));
    view["settledAt"] = json!(row.settled_at_us.map(rfc3339_us));
    view["answer"] = json!(row.answer);
    view["onUnknown"] = json!(row.on_unknown());
    view["claims"] = json!(row.epoch);
    view["claimedBy"] = json!(row.claimed_by);
    view["history"] = attempts.iter().map(attempt_view).collect();
    view
}

fn attempt_view(attempt: &AttemptRow) -> Value {
    json!({
        "attempt": attempt.attempt, "claim": attempt.epoch, "worker": attempt.worker, "beganAt": rfc3339_us(attempt.began_at_us),
        "endedAt": rfc3339_us(attempt.ended_at_us), "outcome": attempt.outcome, "errorType": attempt.error_type, "error": attempt.error,
        "answer": attempt.answer,
    })
}

pub(super) fn cause_view(cause: &Cause, stores: &[&str]) -> Value {
    json!({
        "stores": stores, "sink": cause.sink, "errorType": cause.error_type, "state": cause.state, "count": cause.count,
        "oldestAt": rfc3339_us(cause.oldest_at_us), "newestAt": rfc3339_us(cause.newest_at_us),
        "sample": {"id": cause.sample.id, "recipient": cause.sample.recipient, "subject": cause.sample.subject, "message": cause.sample.last_error},
    })
}
