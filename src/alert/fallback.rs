//! Notices that wait too long for a receiver that is away, or can never be delivered, are copied to the fallback of their sink: each once.
//!
//! In: the configuration, the clock, by the round. Out: copies, marked as such; the mark that each was made, in the same transaction. A
//! crash loses nothing: what has no mark is looked at again, and what has one is not.

use uuid::Uuid;

use super::{notice, teller::Teller};
use crate::{
    config::Config,
    domain::delivery::DeliveryState,
    store::{
        Conn, StoreResult,
        alerts::fallbacks,
        deliveries::{self, NewDelivery},
    },
};

/// Copies of one round for each sink; the next one comes within a second.
const COPIES_MAX: i64 = 100;
/// What a copy's id differs by from its original's: a second copy of the same cannot be enqueued.
const COPY: u128 = 0x0fa1_1bac;

/// Whether anything is to be copied. Only reads.
///
/// # Errors
/// Those of the control store.
pub(super) fn is_due(conn: &mut Conn, config: &Config, now_us: i64) -> StoreResult<bool> {
    for (sink, _) in config.fallbacks() {
        if !fallbacks::due(conn, &sink, waiting_since(config, now_us), now_us, 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies what is due. Returns the sink of each.
///
/// # Errors
/// Those of the control store.
pub(super) fn copy(conn: &mut Conn, teller: &mut Teller<'_>) -> StoreResult<Vec<String>> {
    let (config, now_us) = (teller.config, teller.now_us);
    let mut copied = Vec::new();
    for (sink, fallback) in config.fallbacks() {
        for row in fallbacks::due(conn, &sink, waiting_since(config, now_us), now_us, COPIES_MAX)? {
            let reason = if row.state()? == DeliveryState::Dead { "dead" } else { "waiting" };
            let id = copy_id(&row.id);
            fallbacks::mark(conn, &row.id, &id, now_us)?;
            let copy = NewDelivery {
                id,
                sink: fallback.clone(),
                lane: row.lane.clone(),
                subject: row.subject.clone(),
                payload: notice::marked(&row.payload, &sink, &row.id, reason),
                due_at_us: now_us,
                max_attempts: config.outbox.max_attempts,
                on_unknown: row.on_unknown(),
                recipient: String::new(),
            };
            deliveries::enqueue(conn, &[copy], now_us)?;
            teller.deliveries += 1;
            copied.push(sink.clone());
        }
    }
    Ok(copied)
}

fn waiting_since(config: &Config, now_us: i64) -> i64 {
    now_us.saturating_sub(i64::try_from(config.alerts.fallback_after.as_micros()).unwrap_or(i64::MAX))
}

fn copy_id(id: &str) -> String {
    let other = |uuid: Uuid| Uuid::from_u128(uuid.as_u128() ^ COPY).to_string();
    id.parse().map_or_else(|_| format!("{id}-fallback"), other)
}
