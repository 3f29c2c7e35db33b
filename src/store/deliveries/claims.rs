//! The table of claims: what workers hold, one row for all that was claimed together.
//!
//! In: claims, ends of attempts, renewed leases. Out: which delivery is held by whom, as a condition of statements, as a set, and in the
//! rows that people see. A delivery is held where its number stands in a claim beside the epoch that the delivery has: each end of an
//! attempt gives it the next epoch, so that it leaves the claim in the statement that moves it, and `remaining` only says when the whole row
//! can go. A claim that is forgotten (its worker died) runs out and is found by its lease.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Text},
};

use super::{
    claim::{self, Claimed, Held},
    row::DeliveryRow,
};
use crate::{
    domain::delivery::DeliveryState,
    on_backend,
    store::{Conn, StoreResult, control::corrupt, relay},
};

/// How long PostgreSQL lets a transaction that has a sink's turn stand still before it ends it, milliseconds.
const HALTED_MAX_MS: u32 = 5_000;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimRow {
    pub(super) id: i64,
    pub(super) worker: String,
    pub(super) claimed_at_us: i64,
    /// What was claimed: numbers, and the epochs from before.
    pub(super) seqs: Vec<i64>,
    pub(super) epochs: Vec<i64>,
}

impl ClaimRow {
    pub(super) fn pairs(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        self.seqs.iter().copied().zip(self.epochs.iter().copied())
    }
}

#[derive(QueryableByName)]
struct SqliteRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    worker: String,
    #[diesel(sql_type = BigInt)]
    claimed_at_us: i64,
    #[diesel(sql_type = Text)]
    seqs: String,
    #[diesel(sql_type = Text)]
    epochs: String,
}

#[derive(QueryableByName)]
struct PgRow {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = Text)]
    worker: String,
    #[diesel(sql_type = BigInt)]
    claimed_at_us: i64,
    #[diesel(sql_type = Array<BigInt>)]
    seqs: Vec<i64>,
    #[diesel(sql_type = Array<BigInt>)]
    epochs: Vec<i64>,
}

/// Claims that fit `condition`, the first bound to `$1` where there is a value.
pub(super) fn load(conn: &mut Conn, condition: &str, value: Option<&str>) -> StoreResult<Vec<ClaimRow>> {
    let text = format!("SELECT id, worker, claimed_at_us, seqs, epochs FROM delivery_claims WHERE {condition}");
    match conn {
        Conn::Sqlite(c) => of_sqlite(c, text, value),
        Conn::Pg(c) => {
            let rows: Vec<PgRow> = match value {
                Some(value) => diesel::sql_query(text).bind::<Text, _>(value).load(c)?,
                None => diesel::sql_query(text).load(c)?,
            };
            let row = |row: PgRow| ClaimRow {
                id: row.id,
                worker: row.worker,
                claimed_at_us: row.claimed_at_us,
                seqs: row.seqs,
                epochs: row.epochs,
            };
            Ok(rows.into_iter().map(row).collect())
        }
    }
}

fn of_sqlite(c: &mut SqliteConnection, text: String, value: Option<&str>) -> StoreResult<Vec<ClaimRow>> {
    let rows: Vec<SqliteRow> = match value {
        Some(value) => diesel::sql_query(text).bind::<Text, _>(value).load(c)?,
        None => diesel::sql_query(text).load(c)?,
    };
    let numbers = |column: &str, text: &str| serde_json::from_str(text).map_err(|_| corrupt(column, text));
    rows.into_iter()
        .map(|row| {
            Ok(ClaimRow {
                id: row.id,
                worker: row.worker,
                claimed_at_us: row.claimed_at_us,
                seqs: numbers("delivery_claims.seqs", &row.seqs)?,
                epochs: numbers("delivery_claims.epochs", &row.epochs)?,
            })
        })
        .collect()
}

/// What is held of a sink, for the one writer of an SQLite file.
pub(super) fn held_of(c: &mut SqliteConnection, sink: &str) -> StoreResult<HashSet<(i64, i64)>> {
    let text = "SELECT id, worker, claimed_at_us, seqs, epochs FROM delivery_claims WHERE sink = $1".to_owned();
    let claims = of_sqlite(c, text, Some(sink))?;
    Ok(claims.iter().flat_map(ClaimRow::pairs).collect())
}

/// The numbers that stand in any claim, as a subquery. It leaves epochs aside: what came back from a claim that is not over counts as
/// held until it is. That is good enough to show; nothing may be sent or left unsent, called off or not, because of it.
pub(in crate::store) fn seqs_sql(is_pg: bool) -> &'static str {
    if is_pg {
        "(SELECT unnest(c.seqs) FROM delivery_claims AS c)"
    } else {
        "(SELECT h.value FROM delivery_claims AS c, json_each(c.seqs) AS h)"
    }
}

/// The state of the deliveries that are called `row`, for people: what is held is being sent.
pub(in crate::store) fn state_sql(row: &str, is_pg: bool) -> String {
    format!(
        "CASE WHEN {row}.state = '{}' AND {row}.seq IN {} THEN '{}' ELSE {row}.state END",
        DeliveryState::Ready,
        seqs_sql(is_pg),
        DeliveryState::Sending
    )
}

/// Shows in rows of the table which of them are held, as their claim returned them.
pub(super) fn show(conn: &mut Conn, rows: &mut [DeliveryRow]) -> StoreResult<()> {
    let of_a_worker = |row: &DeliveryRow| row.state() == Ok(DeliveryState::Ready) && row.sink != relay::SINK;
    let mut by_sink: HashMap<String, Vec<&mut DeliveryRow>> = HashMap::new();
    for row in rows.iter_mut().filter(|row| of_a_worker(row)) {
        by_sink.entry(row.sink.clone()).or_default().push(row);
    }
    for (sink, mut rows) in by_sink {
        for claim in load(conn, "sink = $1", Some(&sink))? {
            let held: HashSet<(i64, i64)> = claim.pairs().collect();
            for row in rows.iter_mut().filter(|row| row.claim == 0 && held.contains(&(row.seq, row.epoch))) {
                row.begun(&claim.worker, claim.id, claim.claimed_at_us);
            }
        }
    }
    Ok(())
}

/// So many of each claim have ended. Call it in the transaction that moved them.
pub(super) fn reduce<'a>(c: &mut SqliteConnection, ended: impl Iterator<Item = &'a Held>) -> StoreResult<()> {
    let mut counts: HashMap<i64, i64> = HashMap::new();
    for held in ended {
        *counts.entry(held.claim).or_default() += 1;
    }
    for (claim, count) in counts {
        let over = diesel::sql_query("DELETE FROM delivery_claims WHERE id = $1 AND remaining <= $2")
            .bind::<BigInt, _>(claim)
            .bind::<BigInt, _>(count)
            .execute(c)?;
        if over == 0 {
            diesel::sql_query("UPDATE delivery_claims SET remaining = remaining - $1 WHERE id = $2")
                .bind::<BigInt, _>(count)
                .bind::<BigInt, _>(claim)
                .execute(c)?;
        }
    }
    Ok(())
}

/// A claim that was written.
#[derive(QueryableByName)]
pub(super) struct Made {
    #[diesel(sql_type = BigInt)]
    pub(super) id: i64,
}

/// Prolongs leases. Returns what is still held; the workers of the others must stop. On PostgreSQL call it outside a transaction.
///
/// # Errors
/// Those of the store.
pub fn renew(conn: &mut Conn, held: &[Held], lease: Duration) -> StoreResult<Vec<Held>> {
    let mut ids: Vec<i64> = held.iter().map(|one| one.claim).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut kept: Vec<Made> = Vec::new();
    match conn {
        Conn::Sqlite(c) => {
            kept = diesel::sql_query(
                "UPDATE delivery_claims SET lease_until_us = $1 WHERE id IN (SELECT value FROM json_each($2)) RETURNING id",
            )
            .bind::<BigInt, _>(claim::monotonic_us() + claim::lease_us(lease))
            .bind::<Text, _>(serde_json::json!(ids).to_string())
            .load(c)?
        }
        // One after the other: who writes down ends has claims locked in an order of his own.
        Conn::Pg(c) => {
            let text =
                format!("UPDATE delivery_claims SET lease_until_us = {} + $1 WHERE id = $2 RETURNING id", claim::PG_CLOCK_US);
            for id in ids {
                let query = diesel::sql_query(text.as_str()).bind::<BigInt, _>(claim::lease_us(lease)).bind::<BigInt, _>(id);
                kept.extend(query.get_result::<Made>(c).optional()?);
            }
        }
    }
    let kept: HashSet<i64> = kept.into_iter().map(|made| made.id).collect();
    let standing: Vec<&Held> = held.iter().filter(|one| kept.contains(&one.claim)).collect();
    // Of a claim that stands, another worker may have freed a part while the lease was over.
    let seqs: Vec<i64> = standing.iter().map(|one| one.seq).collect();
    let text = "SELECT seq, epoch + 1 AS epoch FROM deliveries WHERE";
    let ready = DeliveryState::Ready;
    let ours: Vec<Claimed> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(format!("{text} seq IN (SELECT value FROM json_each($1)) AND +state = '{ready}'"))
            .bind::<Text, _>(serde_json::json!(seqs).to_string())
            .load(c)?,
        Conn::Pg(c) => diesel::sql_query(format!("{text} seq = ANY($1) AND COALESCE(state, '') = '{ready}'"))
            .bind::<Array<BigInt>, _>(seqs)
            .load(c)?,
    };
    Ok(Claimed::among(&ours, standing).0)
}

/// Nothing of it is held any more.
pub(super) fn forget(conn: &mut Conn, claim: i64) -> StoreResult<()> {
    let text = "DELETE FROM delivery_claims WHERE id = $1";
    on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(claim).execute(c))?;
    Ok(())
}

/// From here to the end of the transaction nobody claims of this sink, and a claim that is under way begins again: whoever takes something
/// out of what is ready sees who holds it. One who is halted meanwhile holds the others up for [`HALTED_MAX_MS`]. SQLite's transaction holds
/// the only write lock.
pub(super) fn take_turn(conn: &mut Conn, sink: &str) -> StoreResult<()> {
    let Conn::Pg(c) = conn else { return Ok(()) };
    diesel::sql_query(format!("SET LOCAL idle_in_transaction_session_timeout = {HALTED_MAX_MS}")).execute(c)?;
    let text = "INSERT INTO delivery_turns (sink, version) VALUES ($1, 1) \
                ON CONFLICT (sink) DO UPDATE SET version = delivery_turns.version + 1";
    diesel::sql_query(text).bind::<Text, _>(sink).execute(c)?;
    Ok(())
}
