//! Writing a delivery and its readings, in the transaction that stores them.

use diesel::prelude::*;
use uuid::Uuid;

use super::{Body, SINK};
use crate::{
    config::OnUnknown,
    store::{
        Conn, StoreResult,
        deliveries::{self, NewDelivery},
        schema::delivery_bodies,
    },
};

/// Adds the delivery of `body`, where it holds anything. Call it in the transaction that stores its readings.
///
/// # Errors
/// Those of the store.
pub(in crate::store) fn enqueue(conn: &mut Conn, stream: &str, body: &Body, now_us: i64) -> StoreResult<()> {
    let (Some(first), Some(last)) = (body.segments.first(), body.segments.last()) else { return Ok(()) };
    let (first, last) = (first.first_seq, last.first_seq + u64::from(last.batch.len()) - 1);
    let rows = body.readings();
    let id = Uuid::now_v7().to_string();
    let delivery = NewDelivery {
        id: id.clone(),
        sink: SINK.to_owned(),
        lane: stream.to_owned(),
        subject: format!("{stream}/{first}-{last}"),
        payload: format!(r#"{{"stream":"{stream}","firstSeq":{first},"lastSeq":{last},"rows":{rows}}}"#),
        due_at_us: now_us,
        // An outage never makes readings dead; what ends attempts is Kafka's word about this delivery alone.
        max_attempts: i32::MAX as u32,
        on_unknown: OnUnknown::Review,
        recipient: String::new(),
    };
    deliveries::enqueue(conn, &[delivery], now_us)?;
    diesel::insert_into(delivery_bodies::table)
        .values((
            delivery_bodies::delivery_id.eq(&id),
            delivery_bodies::lane.eq(stream),
            delivery_bodies::first_seq.eq(first.cast_signed()),
            delivery_bodies::last_seq.eq(last.cast_signed()),
            delivery_bodies::readings.eq(rows.cast_signed()),
            delivery_bodies::body.eq(body.encode()),
        ))
        .execute(conn)?;
    Ok(())
}
