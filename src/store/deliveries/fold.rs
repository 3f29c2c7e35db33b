//! Deliveries that are not due yet: called off because another tells the same, or filled further.
//!
//! In: ids of deliveries of the caller's own. Out: whether it was still possible. A crash loses nothing: it is part of the caller's
//! transaction.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use super::{DeliveryRow, claims, get, is_one_of, row::COLUMNS, settle};
use crate::{
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{Conn, StoreResult, control_schema::deliveries},
};

/// Calls a delivery off that is not due yet, and says why. `None` where it is due already or gone. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn call_off(conn: &mut Conn, id: &str, why: &str, now_us: i64) -> StoreResult<Option<DeliveryRow>> {
    let Some(row) = get(conn, id)?.filter(|row| row.state() == Ok(DeliveryState::Scheduled)) else { return Ok(None) };
    let mut patch = settle::Patch::of(Event::Cancel, now_us);
    patch.last_error_type = Some("folded");
    patch.last_error = Some(why);
    Ok(settle::apply(conn, id, &[DeliveryState::Scheduled], &patch)?.then_some(row))
}

/// Gives a delivery that is not due yet another payload. `false` where it is due already or gone: then another is to be made. Call it in
/// a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn refill(conn: &mut Conn, id: &str, payload: &str, now_us: i64) -> StoreResult<bool> {
    let row = deliveries::table.filter(deliveries::id.eq(id)).filter(deliveries::state.eq(DeliveryState::Scheduled.as_str()));
    let filled = (deliveries::payload.eq(payload), deliveries::updated_at_us.eq(now_us));
    Ok(on_backend!(conn, |c| diesel::update(row).set(filled).execute(c))? == 1)
}

/// Has a delivery that is not due yet be due at `due_us`, where that is sooner. `false` where it is not later, or due already.
///
/// # Errors
/// Those of the store.
pub fn hasten(conn: &mut Conn, id: &str, due_us: i64, now_us: i64) -> StoreResult<bool> {
    let row = deliveries::table.filter(deliveries::id.eq(id)).filter(deliveries::state.eq(DeliveryState::Scheduled.as_str()));
    let sooner = (deliveries::due_at_us.eq(due_us), deliveries::updated_at_us.eq(now_us));
    Ok(on_backend!(conn, |c| diesel::update(row.filter(deliveries::due_at_us.gt(due_us))).set(sooner).execute(c))? == 1)
}

/// Deliveries that fit `condition`, in which `$1` is the sink and `$2` a time; the oldest first, at most `limit`.
///
/// # Errors
/// Those of the store.
pub(in crate::store) fn select(
    conn: &mut Conn,
    condition: &str,
    sink: &str,
    at_us: i64,
    limit: i64,
) -> StoreResult<Vec<DeliveryRow>> {
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE {condition} ORDER BY seq LIMIT $3");
    let mut rows: Vec<DeliveryRow> = on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<Text, _>(sink)
        .bind::<BigInt, _>(at_us)
        .bind::<BigInt, _>(limit)
        .load(c))?;
    claims::show(conn, &mut rows)?;
    Ok(rows)
}

/// How many deliveries to this sink have been due since before `before_us` and nothing in the table explains why they wait: ready, first
/// in their lane and untouched; or scheduled, or to be tried again, and not made ready.
///
/// # Errors
/// Those of the store.
pub fn untouched(conn: &mut Conn, sink: &str, before_us: i64) -> StoreResult<u64> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        number: i64,
    }
    let late = "SELECT COUNT(*) AS number FROM deliveries WHERE state IN ('scheduled', 'retry') AND sink = $1 AND due_at_us < $2";
    // The lane has one partial index for what is ready and one for what was taken up.
    let before = |states: &[DeliveryState]| {
        format!(
            "NOT EXISTS (SELECT 1 FROM deliveries AS b WHERE b.sink = d.sink AND b.lane = d.lane AND b.seq < d.seq AND {})",
            is_one_of("b.state", states)
        )
    };
    let text = format!(
        "SELECT COUNT(*) AS number FROM deliveries AS d WHERE d.sink = $1 AND d.state = 'ready' AND d.due_at_us < $2 \
         AND d.updated_at_us < $2 AND d.seq NOT IN {} AND {} AND {}",
        claims::seqs_sql(matches!(conn, Conn::Pg(_))),
        before(&[DeliveryState::Ready]),
        before(&DeliveryState::TAKEN)
    );
    let mut sum = 0;
    for text in [text.as_str(), late] {
        let row: Row =
            on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(sink).bind::<BigInt, _>(before_us).get_result(c))?;
        sum += row.number.unsigned_abs();
    }
    Ok(sum)
}
