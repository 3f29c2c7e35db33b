//! Finding claims whose worker vanished, and freeing them.

use std::collections::HashSet;

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Text},
};

use super::{
    attempts::{self, Ended},
    claim::{self, Held, monotonic_us},
    claims::{self, ClaimRow},
    row::{COLUMNS, DeliveryRow},
    settle::{Made, Move, carry_out},
};
use crate::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    store::{Conn, StoreResult},
};

/// Deliveries that one pass over vanished workers frees, before it looks at no further claim.
const RECLAIM_ROWS: usize = 2_000;
/// Claims that it looks at.
const RECLAIM_CLAIMS: usize = 64;

/// Whose claims are void.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// Everybody's: an SQLite file has one process, and it has just started.
    Anyone,
    /// This worker's: it restarted.
    Worker(&'a str),
}

/// Frees the claims of a worker, except those in `keep`, which it still works on: all others of a worker that restarted, of which any
/// may have been sent; or those of one that never heard that it had claimed them, and has sent nothing. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn take_back(conn: &mut Conn, owner: Owner<'_>, keep: &[Held], may_be_sent: bool, now_us: i64) -> StoreResult<usize> {
    // A relay's runs are no claims: whoever holds the lane's lease finds out what Kafka made of them.
    let found = match owner {
        Owner::Anyone => claims::load(conn, "id >= 0", None)?,
        Owner::Worker(worker) => claims::load(conn, "worker = $1", Some(worker))?,
    };
    let keep = numbers(keep);
    let mut freed = 0;
    for claim in &found {
        freed += void(conn, claim, &keep, may_be_sent, now_us)?;
    }
    Ok(freed)
}

fn numbers(held: &[Held]) -> HashSet<(i64, i64)> {
    held.iter().map(|held| (held.seq, held.epoch)).collect()
}

/// Which leases have run out, as a condition: the clock is read once.
pub(super) fn expired_sql(is_pg: bool) -> String {
    let clock = if is_pg { format!("(SELECT {})", claim::PG_CLOCK_US) } else { monotonic_us().to_string() };
    format!("lease_until_us < {clock}")
}

/// Whether any lease has run out; takes no lock.
///
/// # Errors
/// Those of the store.
pub fn any_expired(conn: &mut Conn) -> StoreResult<bool> {
    let condition = format!("{} LIMIT 1", expired_sql(matches!(conn, Conn::Pg(_))));
    Ok(!claims::load(conn, &condition, None)?.is_empty())
}

/// Frees deliveries whose lease has run out, except those in `keep`, which the caller works on: a process that was halted finds its own
/// expired, and it alone knows that they are not lost. Returns how many. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn reclaim_expired(conn: &mut Conn, keep: &[Held], now_us: i64) -> StoreResult<usize> {
    let is_pg = matches!(conn, Conn::Pg(_));
    let skip = if is_pg { "FOR UPDATE SKIP LOCKED" } else { "" };
    let condition = format!("{} ORDER BY id LIMIT {RECLAIM_CLAIMS} {skip}", expired_sql(is_pg));
    let (found, keep) = (claims::load(conn, &condition, None)?, numbers(keep));
    let mut freed = 0;
    for claim in &found {
        freed += void(conn, claim, &keep, true, now_us)?;
        if freed >= RECLAIM_ROWS {
            break;
        }
    }
    Ok(freed)
}

/// Frees what a claim still holds, except what is in `keep`. Where nothing of it is left the claim is forgotten.
fn void(conn: &mut Conn, claim: &ClaimRow, keep: &HashSet<(i64, i64)>, may_be_sent: bool, now_us: i64) -> StoreResult<usize> {
    // Whoever writes down an end has locked the delivery, and waits for the claim that is locked here: it is left to him.
    let mut rows = still_held(conn, claim, "FOR UPDATE SKIP LOCKED")?;
    rows.retain(|row| !keep.contains(&(row.seq, row.epoch)));
    let freed = free(conn, &rows, may_be_sent, now_us)?;
    if still_held(conn, claim, "")?.is_empty() {
        claims::forget(conn, claim.id)?;
    }
    Ok(freed)
}

/// What a claim still holds, as it returned it; on PostgreSQL locked as `lock` says. For the words of the state see [`settle`](super::settle).
fn still_held(conn: &mut Conn, claim: &ClaimRow, lock: &str) -> StoreResult<Vec<DeliveryRow>> {
    let mut rows: Vec<DeliveryRow> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(held_sql(false)).bind::<Text, _>(serde_json::json!(claim.seqs).to_string()).load(c)?,
        Conn::Pg(c) => diesel::sql_query(format!("{} {lock}", held_sql(true))).bind::<Array<BigInt>, _>(&claim.seqs).load(c)?,
    };
    let pairs: HashSet<(i64, i64)> = claim.pairs().collect();
    rows.retain(|row| pairs.contains(&(row.seq, row.epoch)));
    rows.iter_mut().for_each(|row| row.begun(&claim.worker, claim.id, claim.claimed_at_us));
    Ok(rows)
}

pub(super) fn held_sql(is_pg: bool) -> String {
    let ready = DeliveryState::Ready;
    if is_pg {
        format!("SELECT {COLUMNS} FROM deliveries WHERE seq = ANY($1) AND COALESCE(state, '') = '{ready}'")
    } else {
        format!("SELECT {COLUMNS} FROM deliveries WHERE seq IN (SELECT value FROM json_each($1)) AND +state = '{ready}'")
    }
}

/// What was being sent and may have arrived takes the way its route wants; what was not goes back as it came.
fn free(conn: &mut Conn, rows: &[DeliveryRow], may_be_sent: bool, now_us: i64) -> StoreResult<usize> {
    const VANISHED: (&str, &str) = ("worker_vanished", "the worker vanished while it was sending; the delivery may have arrived");
    let held: Vec<Held> = rows.iter().map(DeliveryRow::held).collect();
    let mut moves = Vec::with_capacity(rows.len());
    let mut ended = Vec::new();
    for (row, held) in rows.iter().zip(&held) {
        let event = match row.on_unknown() {
            _ if !may_be_sent => Event::GiveBack,
            OnUnknown::Review => Event::OutcomeUnknown,
            OnUnknown::Resend if row.may_retry() => Event::Repeat,
            OnUnknown::Resend => Event::ExhaustedAttempts,
        };
        let mut one = Move::of(held, event);
        if event == Event::Repeat {
            (one.due_at_us, one.possible_repeat) = (Some(now_us), Some(1));
        }
        if event == Event::GiveBack {
            one.attempt = Some(row.attempt - 1);
        } else {
            one.error = Some(VANISHED);
            // When it was marked as being sent is the last that is known of it.
            let worker = row.claimed_by.as_deref().unwrap_or_default().into();
            let made = Made { worker, attempt: row.attempt.unsigned_abs(), began_at_us: row.updated_at_us, ended_at_us: now_us };
            ended.push(Ended { held, made, outcome: event.target().as_str(), error: Some(VANISHED), answer: None });
        }
        moves.push(one);
    }
    if moves.is_empty() {
        return Ok(0);
    }
    conn.write(|conn| {
        let fenced = carry_out(conn, &moves, now_us)?;
        ended.retain(|end| !fenced.contains(end.held));
        attempts::write(conn, &ended)?;
        Ok(moves.len() - fenced.len())
    })
}
