//! When each periodic duty of the shared store ran last, whichever instance did it.
//!
//! In: the end of a run, written under the duty's lease. Out: when, by whom and what was found, so that no other instance does it again
//! and each can show it.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};

use super::{
    Conn, StoreError, StoreResult,
    leases::{self, Lease},
};
use crate::on_backend;

/// The last run.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct SharedRun {
    /// Who did it.
    #[diesel(sql_type = Text)]
    pub instance: String,
    /// When it began, microseconds since the epoch, by that instance's clock.
    #[diesel(sql_type = BigInt)]
    pub last_run_at_us: i64,
    /// What it did, in words.
    #[diesel(sql_type = Text)]
    pub outcome: String,
    /// What it found, as JSON, where others show it too.
    #[diesel(sql_type = Nullable<Text>)]
    pub result: Option<String>,
}

/// The last run of a duty.
///
/// # Errors
/// Those of the store.
pub fn last(conn: &mut Conn, name: &str) -> StoreResult<Option<SharedRun>> {
    let text = "SELECT instance, last_run_at_us, outcome, result FROM duties WHERE name = $1";
    Ok(on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(name).get_result(c).optional())?)
}

/// The result of retention: deliveries that were settled before this moment, microseconds since the epoch, may have been dropped.
pub fn dropped_before(deliveries_us: i64) -> String {
    serde_json::json!({ "deliveriesBeforeUs": deliveries_us }).to_string()
}

/// The same read back; 0 where it is not known.
pub fn deliveries_dropped_before(retention: &SharedRun) -> i64 {
    let result = retention.result.as_deref().and_then(|result| serde_json::from_str::<serde_json::Value>(result).ok());
    result.and_then(|result| result["deliveriesBeforeUs"].as_i64()).unwrap_or(0)
}

/// Writes down a run, in one transaction with the look whether its lease still holds.
///
/// # Errors
/// `Moved` where the lease was lost; those of the store.
pub fn record(conn: &mut Conn, lease: &Lease, name: &str, run: &SharedRun) -> StoreResult<()> {
    under(conn, lease, |conn| {
        let text = "INSERT INTO duties (name, instance, last_run_at_us, outcome, result) VALUES ($1, $2, $3, $4, $5) \
                    ON CONFLICT (name) DO UPDATE SET instance = excluded.instance, last_run_at_us = excluded.last_run_at_us, \
                    outcome = excluded.outcome, result = COALESCE(excluded.result, duties.result)";
        on_backend!(conn, |c| diesel::sql_query(text)
            .bind::<Text, _>(name)
            .bind::<Text, _>(&run.instance)
            .bind::<BigInt, _>(run.last_run_at_us)
            .bind::<Text, _>(&run.outcome)
            .bind::<Nullable<Text>, _>(&run.result)
            .execute(c))?;
        Ok(())
    })
}

/// Keeps what a run will leave behind before it begins to do it: a run that fails half-way is not recorded, and others must know all the
/// same. When it last ran to its end stays as it is; a duty that never did is due. Call it under the duty's lease.
///
/// # Errors
/// Those of the store.
pub fn announce(conn: &mut Conn, name: &str, instance: &str, result: &str) -> StoreResult<()> {
    let text = "INSERT INTO duties (name, instance, last_run_at_us, outcome, result) VALUES ($1, $2, 0, 'begun', $3) \
                ON CONFLICT (name) DO UPDATE SET result = excluded.result";
    on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<Text, _>(name)
        .bind::<Text, _>(instance)
        .bind::<Text, _>(result)
        .execute(c))?;
    Ok(())
}

/// Runs `f` in a transaction that writes under a lease: nothing of it is written where another holds the lease by now.
///
/// # Errors
/// `Moved` where the lease was lost; those of `f` and of the store.
pub fn under<T>(conn: &mut Conn, lease: &Lease, f: impl FnOnce(&mut Conn) -> StoreResult<T>) -> StoreResult<T> {
    conn.write(|conn| {
        if !leases::still_held(conn, lease)? {
            return Err(StoreError::moved(format!(
                "the lease {} was taken over by another instance; nothing was written",
                lease.name
            )));
        }
        f(conn)
    })
}
