//! The instances that use one database: who runs where, and who was heard of when.
//!
//! In: a sign of life of each every few seconds. Out: the list, and the news that another process runs under the same id. A crash loses
//! nothing: an instance that is not heard of any more is dead after [`DEAD_AFTER`]. PostgreSQL's clock decides; on SQLite, where one
//! process has the file, the caller's.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_types::{BigInt, Bool, Nullable, Text},
};

use super::{Conn, StoreResult, deliveries::PG_CLOCK_US};
use crate::on_backend;

/// Silence after which an instance counts as dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(15);

/// A process and its data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The id of the data directory; a copied one has the same.
    pub instance: String,
    /// The id of this start.
    pub run: String,
    /// The host's name.
    pub host: String,
    /// The process id there.
    pub pid: u32,
    /// Of belayd.
    pub version: String,
    /// Where its page is.
    pub url: String,
    /// The tier of its buffer.
    pub tier: String,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct InstanceRow {
    /// The id of the data directory.
    #[diesel(sql_type = Text)]
    pub instance: String,
    /// The id of the start.
    #[diesel(sql_type = Text)]
    pub run: String,
    /// The host's name.
    #[diesel(sql_type = Text)]
    pub host: String,
    /// The process id there.
    #[diesel(sql_type = BigInt)]
    pub pid: i64,
    /// Of belayd.
    #[diesel(sql_type = Text)]
    pub version: String,
    /// Where its page is.
    #[diesel(sql_type = Text)]
    pub url: String,
    /// The tier of its buffer.
    #[diesel(sql_type = Text)]
    pub tier: String,
    /// When it started, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub started_at_us: i64,
    /// When it was heard of last, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub heartbeat_at_us: i64,
    /// When it stopped in order.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub stopped_at_us: Option<i64>,
    /// Whether it was heard of within [`DEAD_AFTER`] and has not stopped.
    #[diesel(sql_type = Bool)]
    pub alive: bool,
}

fn now_sql(conn: &Conn, now_us: i64) -> String {
    if matches!(conn, Conn::Pg(_)) { PG_CLOCK_US.to_owned() } else { now_us.to_string() }
}

/// Whether the row `i` of `instances` is alive, as SQL.
pub(super) fn alive_sql(conn: &Conn, now_us: i64) -> String {
    format!("(i.stopped_at_us IS NULL AND i.heartbeat_at_us > {} - {})", now_sql(conn, now_us), DEAD_AFTER.as_micros())
}

const COLUMNS: &str =
    "i.instance, i.run, i.host, i.pid, i.version, i.url, i.tier, i.started_at_us, i.heartbeat_at_us, i.stopped_at_us";

/// Gives a sign of life. Returns who had the row before, where that was another start of this directory: an earlier life of it, or a
/// copy that runs elsewhere. Whoever finds that out although it has had the row itself knows that both are alive.
///
/// # Errors
/// Those of the store.
pub fn beat(conn: &mut Conn, me: &Instance, now_us: i64) -> StoreResult<Option<InstanceRow>> {
    conn.write(|conn| {
        let before = get(conn, &me.instance, now_us)?.filter(|row| row.run != me.run);
        let now = now_sql(conn, now_us);
        let text = format!(
            "INSERT INTO instances (instance, run, host, pid, version, url, tier, started_at_us, heartbeat_at_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, {now}, {now}) ON CONFLICT (instance) DO UPDATE SET \
             started_at_us = CASE WHEN instances.run = excluded.run THEN instances.started_at_us ELSE excluded.started_at_us END, \
             run = excluded.run, host = excluded.host, pid = excluded.pid, version = excluded.version, url = excluded.url, \
             tier = excluded.tier, heartbeat_at_us = excluded.heartbeat_at_us, stopped_at_us = NULL"
        );
        on_backend!(conn, |c| diesel::sql_query(text)
            .bind::<Text, _>(&me.instance)
            .bind::<Text, _>(&me.run)
            .bind::<Text, _>(&me.host)
            .bind::<BigInt, _>(i64::from(me.pid))
            .bind::<Text, _>(&me.version)
            .bind::<Text, _>(&me.url)
            .bind::<Text, _>(&me.tier)
            .execute(c))?;
        Ok(before)
    })
}

fn get(conn: &mut Conn, instance: &str, now_us: i64) -> StoreResult<Option<InstanceRow>> {
    let lock = if matches!(conn, Conn::Pg(_)) { "FOR UPDATE" } else { "" };
    let text = format!("SELECT {COLUMNS}, {} AS alive FROM instances AS i WHERE i.instance = $1 {lock}", alive_sql(conn, now_us));
    Ok(on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(instance).get_result(c).optional())?)
}

/// Notes that an instance has stopped in order, unless another start has its row.
///
/// # Errors
/// Those of the store.
pub fn stopped(conn: &mut Conn, me: &Instance, now_us: i64) -> StoreResult<()> {
    let text = format!("UPDATE instances SET stopped_at_us = {} WHERE instance = $1 AND run = $2", now_sql(conn, now_us));
    on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(&me.instance).bind::<Text, _>(&me.run).execute(c))?;
    Ok(())
}

/// Every instance, the one that started last first; at most `limit`.
///
/// # Errors
/// Those of the store.
pub fn list(conn: &mut Conn, limit: u32, now_us: i64) -> StoreResult<Vec<InstanceRow>> {
    let text = format!(
        "SELECT {COLUMNS}, {} AS alive FROM instances AS i ORDER BY i.started_at_us DESC, i.instance LIMIT {limit}",
        alive_sql(conn, now_us)
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text).load(c))?)
}

/// Forgets instances that nobody has heard of for `age`. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn forget(conn: &mut Conn, age: Duration, now_us: i64) -> StoreResult<usize> {
    let text = format!("DELETE FROM instances WHERE heartbeat_at_us < {} - {}", now_sql(conn, now_us), age.as_micros());
    Ok(on_backend!(conn, |c| diesel::sql_query(text).execute(c))?)
}
