//! Who handed messages in, for the audit: the lines that were written in the transaction of each message.

use diesel::prelude::*;

use super::message_events;
use crate::store::{Conn, StoreResult};

/// The line's number: each message begins with it.
const FIRST: i64 = 0;

/// Who handed a message in.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct HandedIn {
    /// The message; newer ones are greater.
    pub id: String,
    /// When, microseconds since the epoch.
    pub at_us: i64,
    /// The token's name.
    pub actor: String,
}

/// At most `limit` of them, newest first, older than the message `before` where given. They go with their messages.
///
/// # Errors
/// Those of the database.
pub fn handed_in(conn: &mut Conn, limit: u32, before: Option<&str>) -> StoreResult<Vec<HandedIn>> {
    // Behind every id, so that without a place every one is taken, by the same statement.
    let before = before.unwrap_or("ffffffff-ffff-ffff-ffff-ffffffffffff");
    let rows = message_events::table
        .filter(message_events::message_id.lt(before))
        .filter(message_events::no.eq(FIRST))
        .order(message_events::message_id.desc())
        .limit(i64::from(limit))
        .select((message_events::message_id, message_events::at_us, message_events::actor))
        .load(conn)?;
    Ok(rows)
}
