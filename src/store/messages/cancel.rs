//! Calling a message off: whatever of it nobody has begun to send.

use diesel::prelude::*;

use super::{MessageDelivery, messages, query};
use crate::{
    domain::delivery::{DeliveryState, Event, next},
    store::{Conn, StoreError, StoreErrorKind, StoreResult, deliveries},
};

/// What a cancellation came to.
#[derive(Clone, Debug)]
pub struct Cancelled {
    /// Called off: they will not be sent.
    pub cancelled: Vec<MessageDelivery>,
    /// Too late: as each stands.
    pub late: Vec<MessageDelivery>,
}

/// Calls off what has not been sent. Where that is nothing, nothing is written.
///
/// # Errors
/// `NotFound` for an id that is unknown; those of the database.
pub fn cancel(conn: &mut Conn, id: &str, reason: &str, actor: &str, now_us: i64) -> StoreResult<Cancelled> {
    conn.write(|conn| {
        lock(conn, id)?;
        let mut outcome = Cancelled { cancelled: Vec::new(), late: Vec::new() };
        for delivery in query::deliveries_of(conn, id)? {
            // What is shown as being sent may have come back from its claim.
            let may = delivery.state().is_some_and(|state| state == DeliveryState::Sending || next(state, Event::Cancel).is_ok());
            let done = may
                && match deliveries::act(conn, &delivery.id, Event::Cancel, now_us) {
                    Ok(_) => true,
                    // A worker was quicker.
                    Err(error) if matches!(error.kind, StoreErrorKind::Conflict | StoreErrorKind::NotFound) => false,
                    Err(error) => return Err(error),
                };
            if done { &mut outcome.cancelled } else { &mut outcome.late }.push(delivery);
        }
        if !outcome.cancelled.is_empty() {
            super::tell(conn, id, ("cancelled", actor, Some(reason)), now_us)?;
        }
        Ok(outcome)
    })
}

/// Two who call off the same message take turns.
fn lock(conn: &mut Conn, id: &str) -> StoreResult<()> {
    let by_id = messages::table.find(id).select(messages::id);
    let found: Option<String> = match conn {
        // SQLite's transaction holds the only write lock.
        Conn::Sqlite(c) => by_id.first(c).optional()?,
        Conn::Pg(c) => by_id.for_update().first(c).optional()?,
    };
    found
        .map(|_| ())
        .ok_or_else(|| StoreError::not_found(format!("there is no message \"{}\"", id.chars().take(64).collect::<String>())))
}
