//! New deliveries: written in the transaction of what they tell about, in the order of their lanes.

use diesel::prelude::*;
use twox_hash::XxHash3_64;

use crate::{
    config::OnUnknown,
    domain::delivery::DeliveryState,
    store::{
        Conn, StoreResult,
        conn::enlarge_cache,
        control_schema::deliveries,
        prepared::{Bind, Prepared},
        relay,
    },
};

/// From here on it is bulk. Fewer rows go quicker as a statement than by `COPY`, which takes three round trips.
const BULK_ROWS: usize = 64;
/// Lanes share so many locks: one transaction may have deliveries for any number of lanes, but PostgreSQL's table of locks is bounded.
const LANE_LOCKS: u64 = 1_024;
/// The first half of the key of those locks.
const LANE_LOCK_CLASS: i32 = i32::from_be_bytes(*b"lane");
/// On PostgreSQL a commit that adds deliveries notifies this channel.
pub const CHANNEL: &str = "belayd_deliveries";

/// A delivery to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// A UUID, made by the caller; the receiver can tell repeats by it.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// Deliveries of one sink and lane leave in the order in which they were enqueued.
    pub lane: String,
    /// What it is about: the id of the alert or message.
    pub subject: String,
    /// JSON text.
    pub payload: String,
    /// When it is due, microseconds since the epoch; what lies before now is ready at once.
    pub due_at_us: i64,
    /// Attempts before it is dead, at least 1.
    pub max_attempts: u32,
    /// What to do when an outcome is unknown.
    pub on_unknown: OnUnknown,
    /// To whom: an address, a room. Empty where the sink itself is the receiver.
    pub recipient: String,
}

#[derive(Insertable)]
#[diesel(table_name = deliveries, treat_none_as_default_value = false)]
struct InsertRow<'a> {
    id: &'a str,
    sink: &'a str,
    lane: &'a str,
    subject: &'a str,
    payload: &'a str,
    state: &'static str,
    max_attempts: i32,
    due_at_us: i64,
    on_unknown: &'static str,
    created_at_us: i64,
    updated_at_us: i64,
    recipient: &'a str,
}

/// Adds deliveries, in order. Call it in the transaction of what they tell about: committed together, delivered together.
///
/// # Errors
/// Those of the store; `Conflict` where an id is there already.
pub fn enqueue(conn: &mut Conn, new: &[NewDelivery], now_us: i64) -> StoreResult<()> {
    if new.is_empty() {
        return Ok(());
    }
    let rows: Vec<InsertRow<'_>> = new.iter().map(|delivery| insert_row(delivery, now_us)).collect();
    if rows.len() >= BULK_ROWS {
        enlarge_cache(conn)?;
    }
    match conn {
        Conn::Sqlite(c) => {
            // One row a statement, which is prepared once; a list of rows would be prepared each time.
            for row in &rows {
                diesel::insert_into(deliveries::table).values(row).execute(c)?;
            }
        }
        Conn::Pg(c) => {
            lock_lanes(c, new)?;
            match rows.as_slice() {
                [row] => diesel::insert_into(deliveries::table).values(row).execute(c)?,
                few if few.len() < BULK_ROWS => diesel::insert_into(deliveries::table).values(few).execute(c)?,
                _ => diesel::copy_from(deliveries::table).from_insertable(rows).execute(c)?,
            };
        }
    }
    Ok(())
}

fn insert_row(delivery: &NewDelivery, now_us: i64) -> InsertRow<'_> {
    let state = if delivery.due_at_us > now_us { DeliveryState::Scheduled } else { DeliveryState::Ready };
    InsertRow {
        id: &delivery.id,
        sink: &delivery.sink,
        lane: &delivery.lane,
        subject: &delivery.subject,
        payload: &delivery.payload,
        state: state.as_str(),
        max_attempts: i32::try_from(delivery.max_attempts.max(1)).unwrap_or(i32::MAX),
        due_at_us: delivery.due_at_us,
        on_unknown: match delivery.on_unknown {
            OnUnknown::Resend => "resend",
            OnUnknown::Review => "review",
        },
        created_at_us: now_us,
        updated_at_us: now_us,
        recipient: &delivery.recipient,
    }
}

/// PostgreSQL hands out numbers before commits, so two writers of one lane take turns; SQLite has one writer anyway. The same statement
/// has the commit wake the outbox of every instance; deliveries to Kafka are none of its.
fn lock_lanes(pg: &mut PgConnection, new: &[NewDelivery]) -> StoreResult<()> {
    let mut locks: Vec<i32> = new.iter().map(|delivery| lane_lock(&delivery.sink, &delivery.lane)).collect();
    // Sorted by what is locked, so that two writers never wait for each other in a circle.
    locks.sort_unstable();
    locks.dedup();
    let wakes = new.iter().any(|delivery| delivery.sink != relay::SINK);
    let notify = if wakes { format!(", pg_notify('{CHANNEL}', '')") } else { String::new() };
    let text =
        format!("SELECT pg_advisory_xact_lock($1, lock){notify} FROM (SELECT lock FROM unnest($2) AS lock ORDER BY 1) AS locks");
    Prepared::new(text, vec![Bind::Integer(LANE_LOCK_CLASS), Bind::Integers(locks)]).execute(pg)?;
    Ok(())
}

/// Every instance must come to the same.
fn lane_lock(sink: &str, lane: &str) -> i32 {
    let hash = XxHash3_64::oneshot(format!("{sink}/{lane}").as_bytes());
    (hash % LANE_LOCKS) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_a_bounded_number_of_locks_that_never_changes() {
        let locks: std::collections::HashSet<i32> = (0..10_000).map(|n| lane_lock("hook", &n.to_string())).collect();
        assert!(locks.len() > 1_000, "they are spread: {}", locks.len());
        assert_eq!(lane_lock("hook", "a"), 30);
        assert!((0..10_000).all(|n| (0..1_024).contains(&lane_lock("smtp", &format!("to:{n}@example.com")))));
    }
}
