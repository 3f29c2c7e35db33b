//! Taking deliveries under a lease: whose turn it is, fences, and renewal.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};

use super::{COLUMNS, DeliveryRow, literals, sources};
use crate::{
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{Conn, StoreResult},
};

/// Rows made ready in one statement.
const PROMOTE_ROWS: i64 = 1_000;
/// The database's clock, for leases that several instances read.
pub(in crate::store) const PG_CLOCK_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Who claims how much of what.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Only this sink's deliveries.
    pub sink: &'a str,
    /// The worker; it takes its claims back under this name when it restarts.
    pub worker: &'a str,
    /// At most so many, each of another lane.
    pub limit: u32,
    /// How long before another worker may take over, unless renewed.
    pub lease: Duration,
    /// Now, by the injected clock.
    pub now_us: i64,
}

/// A claim: what is written under it carries its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The delivery.
    pub id: String,
    /// The epoch of the claim.
    pub epoch: i64,
}

/// The clock of leases on SQLite, where one process has the file: monotonic, so that a step of the wall clock expires nothing.
/// After a restart it means nothing, which is why [`super::take_back`] frees all of them then.
pub(super) fn monotonic_us() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    i64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn lease_us(lease: Duration) -> i64 {
    i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// Makes ready what has become due. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn promote_due(conn: &mut Conn, now_us: i64) -> StoreResult<usize> {
    let skip = if matches!(conn, Conn::Pg(_)) { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text = format!(
        "UPDATE deliveries SET state = '{}', updated_at_us = $1 WHERE seq IN (SELECT seq FROM deliveries \
         WHERE state IN ({}) AND due_at_us <= $2 ORDER BY due_at_us LIMIT {PROMOTE_ROWS} {skip})",
        Event::Due.target(),
        sources(Event::Due),
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(now_us).bind::<BigInt, _>(now_us).execute(c))?)
}

/// When the next scheduled or retried delivery is due, microseconds since the epoch.
///
/// # Errors
/// Those of the store.
pub fn next_due(conn: &mut Conn) -> StoreResult<Option<i64>> {
    let text = format!("SELECT MIN(due_at_us) AS due_at_us FROM deliveries WHERE state IN ({})", sources(Event::Due));
    let row: NextDue = on_backend!(conn, |c| diesel::sql_query(text).get_result(c))?;
    Ok(row.due_at_us)
}

#[derive(QueryableByName)]
struct NextDue {
    #[diesel(sql_type = Nullable<BigInt>)]
    due_at_us: Option<i64>,
}

/// The rows whose turn it is: ready, and nothing before them in their lane still on its way. A hot lane holds back only itself.
pub(super) fn heads_sql(skip_locked: &str) -> String {
    format!(
        "SELECT d.seq FROM deliveries AS d WHERE d.sink = $1 AND d.state = 'ready' AND NOT EXISTS (SELECT 1 FROM deliveries AS b \
         WHERE b.sink = d.sink AND b.lane = d.lane AND b.seq < d.seq AND b.state IN ({})) \
         ORDER BY d.due_at_us, d.seq LIMIT $2 {skip_locked}",
        literals(&DeliveryState::BLOCKING)
    )
}

/// Claims deliveries whose turn it is, oldest first. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn claim_due(conn: &mut Conn, claim: &Claim<'_>) -> StoreResult<Vec<DeliveryRow>> {
    let limit = i64::from(claim.limit);
    let lease_us = lease_us(claim.lease);
    let target = Event::Claim.target();
    let mut rows: Vec<DeliveryRow> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(format!(
            "UPDATE deliveries SET state = '{target}', epoch = epoch + 1, claimed_by = $3, lease_until_us = $4, updated_at_us = $5 \
             WHERE seq IN ({}) RETURNING {COLUMNS}",
            // SQLite numbers `$1` and its like by their first appearance, which is in the SET clause.
            heads_sql("")
        ))
        .bind::<Text, _>(claim.worker)
        .bind::<BigInt, _>(monotonic_us() + lease_us)
        .bind::<BigInt, _>(claim.now_us)
        .bind::<Text, _>(claim.sink)
        .bind::<BigInt, _>(limit)
        .load(c)?,
        Conn::Pg(c) => {
            let columns = COLUMNS.split(", ").map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ");
            diesel::sql_query(format!(
                "WITH heads AS ({}) UPDATE deliveries AS t SET state = '{target}', epoch = t.epoch + 1, claimed_by = $3, \
                 lease_until_us = {PG_CLOCK_US} + $4, updated_at_us = $5 FROM heads WHERE t.seq = heads.seq RETURNING {columns}",
                heads_sql("FOR UPDATE OF d SKIP LOCKED")
            ))
            .bind::<Text, _>(claim.sink)
            .bind::<BigInt, _>(limit)
            .bind::<Text, _>(claim.worker)
            .bind::<BigInt, _>(lease_us)
            .bind::<BigInt, _>(claim.now_us)
            .load(c)?
        }
    };
    rows.sort_unstable_by_key(|row| row.seq);
    Ok(rows)
}

/// Notes that the attempts begin, counting them. Returns the claims that still hold; the others must not be sent.
/// Call it in a writing transaction, which must be committed before the first byte leaves.
///
/// # Errors
/// Those of the store.
pub fn mark_sending(conn: &mut Conn, held: &[Held], now_us: i64) -> StoreResult<Vec<Held>> {
    let text = format!(
        "UPDATE deliveries SET state = '{}', attempt = attempt + 1, updated_at_us = $1 WHERE id = $2 AND epoch = $3 AND state IN ({})",
        Event::BeginSend.target(),
        sources(Event::BeginSend)
    );
    still_held(held, |one| {
        Ok(on_backend!(conn, |c| diesel::sql_query(text.as_str())
            .bind::<BigInt, _>(now_us)
            .bind::<Text, _>(&one.id)
            .bind::<BigInt, _>(one.epoch)
            .execute(c))?)
    })
}

/// Prolongs leases. Returns the claims that still hold; the workers of the others must stop.
///
/// # Errors
/// Those of the store.
pub fn renew(conn: &mut Conn, held: &[Held], lease: Duration) -> StoreResult<Vec<Held>> {
    let until = match conn {
        Conn::Sqlite(_) => (monotonic_us() + lease_us(lease)).to_string(),
        Conn::Pg(_) => format!("{PG_CLOCK_US} + {}", lease_us(lease)),
    };
    let text = format!(
        "UPDATE deliveries SET lease_until_us = {until} WHERE id = $1 AND epoch = $2 AND state IN ({})",
        literals(&[DeliveryState::Claimed, DeliveryState::Sending])
    );
    still_held(held, |one| {
        Ok(on_backend!(conn, |c| diesel::sql_query(text.as_str())
            .bind::<Text, _>(&one.id)
            .bind::<BigInt, _>(one.epoch)
            .execute(c))?)
    })
}

fn still_held(held: &[Held], mut write: impl FnMut(&Held) -> StoreResult<usize>) -> StoreResult<Vec<Held>> {
    let mut kept = Vec::with_capacity(held.len());
    for one in held {
        if write(one)? == 1 {
            kept.push(one.clone());
        }
    }
    Ok(kept)
}
