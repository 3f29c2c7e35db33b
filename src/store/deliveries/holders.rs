//! Who holds claims on PostgreSQL, and until when at most: one row of `leases` a worker, `outbox/<worker>`.
//!
//! The lease of a delivery stands in its row, where no index finds it: an index would have every claim write a new entry into each index
//! of the table. So a worker notes beside its claims when the last of them runs out; only where that time has passed are the rows
//! looked through. The note never decides anything: whether a claim has run out says its own row, and once a minute they are looked
//! through whatever the notes say. SQLite has an index of leases instead.

use std::time::Duration;

use super::{claim::PG_CLOCK_US, partial};

/// Begins the names of these leases.
const PREFIX: &str = "outbox/";
/// How often all claims are looked through, whatever the notes say. With a million deliveries waiting that is a second's work.
pub const LOOK_THROUGH_EVERY: Duration = Duration::from_secs(60);

/// Notes that `worker` holds claims for `lease` microseconds (SQL, both), if `condition` holds. It writes nothing while what was noted
/// lasts for most of that: a claim need not write a second row.
pub(super) fn hold(worker: &str, lease: &str, condition: &str) -> String {
    format!(
        "INSERT INTO leases (name, owner, epoch, lease_until_us) SELECT '{PREFIX}' || {worker}, {worker}, 1, {PG_CLOCK_US} + {lease} \
         WHERE {condition} AND NOT EXISTS (SELECT 1 FROM leases AS l WHERE l.name = '{PREFIX}' || {worker} \
         AND l.lease_until_us > {PG_CLOCK_US} + {lease} * 3 / 4) \
         ON CONFLICT (name) DO UPDATE SET lease_until_us = GREATEST(leases.lease_until_us, excluded.lease_until_us)"
    )
}

/// Whether somebody's claims may have run out.
pub(super) fn any_due() -> String {
    format!("SELECT 1::bigint AS seq FROM leases AS l WHERE {} LIMIT 1", due())
}

/// Forgets who holds nothing any more. Whoever claims in the same moment waits for this row or has renewed it.
pub(super) fn forget() -> String {
    format!(
        "DELETE FROM leases AS l WHERE {} AND NOT EXISTS (SELECT 1 FROM deliveries WHERE {} AND claimed_by = l.owner)",
        due(),
        partial::in_hand(true)
    )
}

fn due() -> String {
    format!("l.name LIKE '{PREFIX}%' AND l.lease_until_us < (SELECT {PG_CLOCK_US})")
}
