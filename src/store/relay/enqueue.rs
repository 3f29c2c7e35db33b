//! Writing a delivery and its readings, in the transaction that stores them.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Body, SINK};
use crate::{
    config::OnUnknown,
    store::{
        Conn, StoreError, StoreResult,
        deliveries::{self, NewDelivery},
        schema::delivery_bodies,
    },
};

/// Which numbers a delivery carries: its payload.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::store) struct Payload {
    pub(in crate::store) stream: String,
    pub(in crate::store) first_seq: u64,
    pub(in crate::store) last_seq: u64,
    /// How many of them it carries: those that were stored.
    pub(in crate::store) rows: u64,
    /// A person retried it: it lies within numbers that another delivery carries but for this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::store) retried: bool,
}

/// The id of a delivery that is about to be made.
pub(in crate::store) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Adds the delivery `id` of `body`, where it holds anything, and returns the last number in it, 0 where it holds nothing. Call it in the
/// transaction that stores its readings.
///
/// # Errors
/// Those of the store.
pub(in crate::store) fn enqueue(conn: &mut Conn, id: &str, stream: &str, body: &Body, now_us: i64) -> StoreResult<u64> {
    add(conn, (id, stream), body, false, now_us)
}

/// The same for a reading that a person has had stored.
///
/// # Errors
/// Those of the store.
pub(in crate::store) fn enqueue_retried(conn: &mut Conn, stream: &str, body: &Body, now_us: i64) -> StoreResult<u64> {
    add(conn, (&new_id(), stream), body, true, now_us)
}

fn add(conn: &mut Conn, (id, stream): (&str, &str), body: &Body, retried: bool, now_us: i64) -> StoreResult<u64> {
    let (Some(first), Some(last)) = (body.segments.first(), body.segments.last()) else { return Ok(0) };
    let (first, last) = (first.first_seq, last.first_seq + u64::from(last.batch.len()) - 1);
    let rows = body.readings();
    let payload = Payload { stream: stream.to_owned(), first_seq: first, last_seq: last, rows, retried };
    let payload = serde_json::to_string(&payload).map_err(|error| StoreError::other(error.to_string()))?;
    let delivery = NewDelivery {
        id: id.to_owned(),
        sink: SINK.to_owned(),
        lane: stream.to_owned(),
        subject: format!("{stream}/{first}-{last}"),
        payload,
        due_at_us: now_us,
        // An outage never makes readings dead; what ends attempts is Kafka's word about this delivery alone.
        max_attempts: i32::MAX as u32,
        on_unknown: OnUnknown::Review,
        recipient: String::new(),
    };
    deliveries::enqueue(conn, &[delivery], now_us)?;
    diesel::insert_into(delivery_bodies::table)
        .values((
            delivery_bodies::delivery_id.eq(id),
            delivery_bodies::lane.eq(stream),
            delivery_bodies::first_seq.eq(first.cast_signed()),
            delivery_bodies::last_seq.eq(last.cast_signed()),
            delivery_bodies::readings.eq(rows.cast_signed()),
            delivery_bodies::body.eq(body.encode()),
        ))
        .execute(conn)?;
    Ok(last)
}
