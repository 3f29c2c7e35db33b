//! Leases: who may do a piece of work that several instances could do, until when, and under which epoch.
//!
//! In: names (`relay/<stream>`, `duty/<name>`, `redis/<instance>`) and who wants them. Out: a lease, or that another has it. A crash
//! loses nothing: a lease that nobody renews runs out. PostgreSQL's own clock decides, so that the hosts' clocks need not agree.
//!
//! A lease alone keeps nobody from writing late: a process that was paused wakes up believing that it holds one. So whatever is
//! written under a lease asks [`still_held`] in the same transaction, which then either ends before the next holder begins or is
//! refused.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Text},
};

use super::{Conn, StoreResult, deliveries::PG_CLOCK_US};
use crate::on_backend;

/// Time to live of every lease. Renewed every [`RENEW_EVERY`], a dead holder's work is free after at most this.
pub const TTL: Duration = Duration::from_secs(10);
/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);
/// A dead holder's work goes on elsewhere at the latest after this. Whoever waits for a lease looks so often that the time to live, the wait
/// for the next look and what it does then stay within it, and says so beside the pause between its looks.
pub const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(15);
/// Leases that ran out so long ago are forgotten: their holders are gone, or find at their next look that they have lost them.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Most rows that one call of [`forget`] removes.
const FORGET_MAX: u32 = 1_000;
/// Longest time to live. What claims to last longer stems from another clock (an earlier run on SQLite) and is void.
const TTL_MAX: Duration = Duration::from_secs(3_600);
/// How long the server lets a transaction that writes under a lease wait for its next statement: a paused holder must not keep the
/// row locked longer than its lease lasts.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A lease that was taken. It says nothing about now: ask [`still_held`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The piece of work.
    pub name: String,
    /// Who took it: the id of an instance.
    pub owner: String,
    /// Rises with every taking.
    pub epoch: i64,
}

/// A row of the table, for people.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct LeaseRow {
    /// The piece of work.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Who took it last.
    #[diesel(sql_type = Text)]
    pub owner: String,
    /// Rises with every taking.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// Whether it has not run out.
    #[diesel(sql_type = Bool)]
    pub live: bool,
}

#[derive(QueryableByName)]
struct Epoch {
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

/// Now by the clock of leases, as SQL. On SQLite one process has the file: its monotonic clock, begun at a random number, so that
/// whatever an earlier run left is far from it and void.
fn now_sql(conn: &Conn) -> String {
    static START: OnceLock<(i64, Instant)> = OnceLock::new();
    if matches!(conn, Conn::Pg(_)) {
        return PG_CLOCK_US.to_owned();
    }
    let (base, started) = START.get_or_init(|| {
        // Room is left above for every addition.
        let base = uuid::Uuid::new_v4().as_u64_pair().0 >> 2;
        (i64::try_from(base).unwrap_or_default(), Instant::now())
    });
    (base + i64::try_from(started.elapsed().as_micros()).unwrap_or_default()).to_string()
}

fn until_sql(now: &str, ttl: Duration) -> String {
    format!("{now} + {}", ttl.min(TTL_MAX).as_micros())
}

/// Whether the row `leases` has not run out.
fn live_sql(now: &str) -> String {
    format!("(leases.lease_until_us > {now} AND leases.lease_until_us <= {now} + {})", TTL_MAX.as_micros())
}

/// Takes a lease that is free, has run out, or is `owner`'s already. `None`: another holds it.
///
/// The epoch rises with every taking, also with `owner`'s own: what an earlier life of it still writes is refused. To go on holding a
/// lease, [`renew`] it instead. Several attempts at once: one wins.
///
/// # Errors
/// Those of the store.
pub fn take(conn: &mut Conn, name: &str, owner: &str, ttl: Duration) -> StoreResult<Option<Lease>> {
    let now = now_sql(conn);
    let text = format!(
        "INSERT INTO leases (name, owner, epoch, lease_until_us) VALUES ($1, $2, 1, {until}) \
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = leases.epoch + 1, lease_until_us = {until} \
         WHERE leases.owner = excluded.owner OR NOT {live} RETURNING epoch",
        until = until_sql(&now, ttl),
        live = live_sql(&now),
    );
    let taken: Option<Epoch> =
        on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(name).bind::<Text, _>(owner).get_result(c).optional())?;
    Ok(taken.map(|Epoch { epoch }| Lease { name: name.to_owned(), owner: owner.to_owned(), epoch }))
}

/// Prolongs a lease. `false`: it was lost, and its holder must stop. One that has run out and that nobody took is prolonged.
///
/// # Errors
/// Those of the store.
pub fn renew(conn: &mut Conn, lease: &Lease, ttl: Duration) -> StoreResult<bool> {
    let until = until_sql(&now_sql(conn), ttl);
    set_until(conn, lease, &until)
}

/// Whether the lease is still this holder's. Call it inside the transaction that writes under the lease, before anything is written:
/// it locks the row, so that nobody takes the lease before this transaction has ended. A lease that has run out and that nobody took
/// is still held.
///
/// # Errors
/// Those of the store.
pub fn still_held(conn: &mut Conn, lease: &Lease) -> StoreResult<bool> {
    let (held, lock) = ("SELECT epoch FROM leases WHERE name = $1 AND owner = $2 AND epoch = $3", "FOR SHARE");
    let found: Option<Epoch> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(held)
            .bind::<Text, _>(&lease.name)
            .bind::<Text, _>(&lease.owner)
            .bind::<BigInt, _>(lease.epoch)
            .get_result(c)
            .optional()?,
        Conn::Pg(c) => {
            let idle = format!(
                "SELECT epoch FROM (SELECT set_config('idle_in_transaction_session_timeout', '{}', true)) AS bound, ({held} {lock}) AS held",
                IDLE_MAX.as_millis()
            );
            diesel::sql_query(idle)
                .bind::<Text, _>(&lease.name)
                .bind::<Text, _>(&lease.owner)
                .bind::<BigInt, _>(lease.epoch)
                .get_result(c)
                .optional()?
        }
    };
    Ok(found.is_some())
}

/// Gives a lease back, so that another can take it at once. One that was lost already is left alone.
///
/// # Errors
/// Those of the store.
pub fn release(conn: &mut Conn, lease: &Lease) -> StoreResult<()> {
    let until = now_sql(conn);
    set_until(conn, lease, &until).map(drop)
}

/// Gives back everything that `owner` holds: it stops.
///
/// # Errors
/// Those of the store.
pub fn release_all(conn: &mut Conn, owner: &str) -> StoreResult<()> {
    let now = now_sql(conn);
    let text = format!("UPDATE leases SET lease_until_us = {now} WHERE owner = $1 AND lease_until_us > {now}");
    on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(owner).execute(c))?;
    Ok(())
}

/// Forgets leases that ran out, or were given back, a week ago: streams end and instances go, and their rows would stay for ever. On SQLite
/// also what earlier runs left. At most [`FORGET_MAX`] at once. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn forget(conn: &mut Conn) -> StoreResult<usize> {
    let now = now_sql(conn);
    // A holder that is only slow is not waited for.
    let lock = if matches!(conn, Conn::Pg(_)) { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text = format!(
        "DELETE FROM leases WHERE name IN (SELECT name FROM leases WHERE lease_until_us < {now} - {old} OR lease_until_us > {now} + {far} \
         LIMIT {FORGET_MAX} {lock})",
        old = FORGET_AFTER.as_micros(),
        far = TTL_MAX.as_micros(),
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text).execute(c))?)
}

fn set_until(conn: &mut Conn, lease: &Lease, until: &str) -> StoreResult<bool> {
    let text = format!("UPDATE leases SET lease_until_us = {until} WHERE name = $1 AND owner = $2 AND epoch = $3");
    let rows = on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<Text, _>(&lease.name)
        .bind::<Text, _>(&lease.owner)
        .bind::<BigInt, _>(lease.epoch)
        .execute(c))?;
    Ok(rows == 1)
}

/// Every lease that was ever taken, by name; at most `limit`.
///
/// # Errors
/// Those of the store.
pub fn list(conn: &mut Conn, limit: u32) -> StoreResult<Vec<LeaseRow>> {
    let live = live_sql(&now_sql(conn));
    let text = format!("SELECT name, owner, epoch, {live} AS live FROM leases ORDER BY name LIMIT {limit}");
    Ok(on_backend!(conn, |c| diesel::sql_query(text).load(c))?)
}
