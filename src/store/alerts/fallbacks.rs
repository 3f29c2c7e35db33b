//! Deliveries of alerts whose sink has a fallback: which waited too long or can never be made, and that each was copied once.
//!
//! In: the sinks that have a fallback. Out: what is to be copied; the mark that it was, in the transaction of the copy. A crash loses
//! nothing: what has no mark is looked at again.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use crate::{
    domain::delivery::DeliveryState,
    store::{
        Conn, StoreResult,
        control_schema::delivery_fallbacks,
        deliveries::{self, DeliveryRow},
    },
};

/// What died or waited before is history: whoever names a fallback today is not told of last month.
const LOOK_BACK_US: i64 = 24 * 3_600 * 1_000_000;

/// Deliveries to `sink` that have waited since `waiting_since_us` or before, or are dead, and have not been copied; at most `limit`. A
/// copy is not copied again.
///
/// # Errors
/// Those of the control store.
pub fn due(conn: &mut Conn, sink: &str, waiting_since_us: i64, now_us: i64, limit: i64) -> StoreResult<Vec<DeliveryRow>> {
    let not_copied =
        "NOT EXISTS (SELECT 1 FROM delivery_fallbacks AS f WHERE f.delivery_id = deliveries.id OR f.copy_id = deliveries.id)";
    // One statement for each partial index.
    let waiting = |states: &[DeliveryState]| {
        format!("{} AND sink = $1 AND created_at_us <= $2 AND {not_copied}", deliveries::is_one_of("state", states))
    };
    let dead = format!("state IN ('uncertain', 'dead') AND state = 'dead' AND sink = $1 AND updated_at_us > $2 AND {not_copied}");
    let mut rows = deliveries::select(conn, &waiting(&[DeliveryState::Ready]), sink, waiting_since_us, limit)?;
    rows.extend(deliveries::select(conn, &waiting(&DeliveryState::TAKEN), sink, waiting_since_us, limit)?);
    rows.sort_unstable_by_key(|row| row.seq);
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    rows.extend(deliveries::select(conn, &dead, sink, now_us.saturating_sub(LOOK_BACK_US), limit)?);
    Ok(rows)
}

/// Notes that a delivery was copied. Call it in the transaction that enqueues the copy.
///
/// # Errors
/// `Conflict` where it was already; those of the control store.
pub fn mark(conn: &mut Conn, delivery_id: &str, copy_id: &str, now_us: i64) -> StoreResult<()> {
    let row = (
        delivery_fallbacks::delivery_id.eq(delivery_id),
        delivery_fallbacks::copy_id.eq(copy_id),
        delivery_fallbacks::at_us.eq(now_us),
    );
    diesel::insert_into(delivery_fallbacks::table).values(row).execute(conn)?;
    Ok(())
}

/// Forgets marks of deliveries that are gone, made before `before_us`; at most `limit`. Returns how many.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<usize> {
    let text = "DELETE FROM delivery_fallbacks WHERE delivery_id IN (SELECT f.delivery_id FROM delivery_fallbacks AS f \
                WHERE f.at_us < $1 AND NOT EXISTS (SELECT 1 FROM deliveries AS d WHERE d.id = f.delivery_id) LIMIT $2)";
    Ok(diesel::sql_query(text).bind::<BigInt, _>(before_us).bind::<BigInt, _>(i64::from(limit)).execute(conn)?)
}

/// The delivery of which this one is a copy, where it is one.
///
/// # Errors
/// Those of the control store.
pub fn original_of(conn: &mut Conn, copy_id: &str) -> StoreResult<Option<String>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        delivery_id: String,
    }
    let text = "SELECT delivery_id FROM delivery_fallbacks WHERE copy_id = $1";
    let row: Option<Row> = diesel::sql_query(text).bind::<Text, _>(copy_id).get_result(conn).optional()?;
    Ok(row.map(|row| row.delivery_id))
}
