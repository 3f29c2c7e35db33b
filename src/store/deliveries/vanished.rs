//! Finding claims whose worker vanished, and freeing them.

use std::collections::HashSet;

use diesel::{prelude::*, sql_types::Text};

use super::{
    attempts::{self, Ended},
    claim::{self, Held, Seq},
    literals,
    row::{COLUMNS, DeliveryRow},
    settle::{Made, Move, carry_out},
};
use crate::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{Conn, StoreResult, relay},
};

/// Rows looked at in one pass over vanished workers.
const RECLAIM_ROWS: i64 = 2_000;

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
    let states = literals(&[DeliveryState::Claimed, DeliveryState::Sending]);
    // A relay's runs have no lease of their own: whoever holds the lane's finds out what Kafka made of them.
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE state IN ({states}) AND sink <> '{}'", relay::SINK);
    let rows: Vec<DeliveryRow> = match owner {
        Owner::Anyone => on_backend!(conn, |c| diesel::sql_query(text).load(c))?,
        Owner::Worker(worker) => {
            on_backend!(conn, |c| diesel::sql_query(format!("{text} AND claimed_by = $1")).bind::<Text, _>(worker).load(c))?
        }
    };
    free(conn, &without(rows, keep), Event::GiveBack, may_be_sent, now_us)
}

fn without(rows: Vec<DeliveryRow>, keep: &[Held]) -> Vec<DeliveryRow> {
    let keep: HashSet<(i64, i64)> = keep.iter().map(|held| (held.seq, held.epoch)).collect();
    rows.into_iter().filter(|row| !keep.contains(&(row.seq, row.epoch))).collect()
}

/// Which leases have run out, as a condition that an index serves: the clock is read once.
pub(super) fn expired_sql(is_pg: bool) -> String {
    let clock = if is_pg { format!("(SELECT {})", claim::PG_CLOCK_US) } else { claim::monotonic_us().to_string() };
    format!("state IN ({}) AND lease_until_us < {clock}", literals(&[DeliveryState::Claimed, DeliveryState::Sending]))
}

/// Whether any lease has run out; takes no lock.
///
/// # Errors
/// Those of the store.
pub fn any_expired(conn: &mut Conn) -> StoreResult<bool> {
    let text = format!("SELECT seq FROM deliveries WHERE {} LIMIT 1", expired_sql(matches!(conn, Conn::Pg(_))));
    let found: Option<Seq> = on_backend!(conn, |c| diesel::sql_query(text).get_result(c).optional())?;
    Ok(found.is_some())
}

/// Frees deliveries whose lease has run out, except those in `keep`, which the caller works on: a process that was halted finds its own
/// expired, and it alone knows that they are not lost. Returns how many. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn reclaim_expired(conn: &mut Conn, keep: &[Held], now_us: i64) -> StoreResult<usize> {
    let is_pg = matches!(conn, Conn::Pg(_));
    let skip = if is_pg { "FOR UPDATE SKIP LOCKED" } else { "" };
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE {} LIMIT {RECLAIM_ROWS} {skip}", expired_sql(is_pg));
    let rows: Vec<DeliveryRow> = on_backend!(conn, |c| diesel::sql_query(text).load(c))?;
    free(conn, &without(rows, keep), Event::LeaseExpired, true, now_us)
}

/// `unsent` moves what was claimed only; what was being sent and may have arrived takes the way its route wants.
fn free(conn: &mut Conn, rows: &[DeliveryRow], unsent: Event, may_be_sent: bool, now_us: i64) -> StoreResult<usize> {
    const VANISHED: (&str, &str) = ("worker_vanished", "the worker vanished while it was sending; the delivery may have arrived");
    let held: Vec<Held> = rows.iter().map(DeliveryRow::held).collect();
    let mut moves = Vec::with_capacity(rows.len());
    let mut ended = Vec::new();
    for (row, held) in rows.iter().zip(&held) {
        let event = match (row.state()?, row.on_unknown()) {
            (DeliveryState::Claimed, _) => unsent,
            _ if !may_be_sent => Event::GiveBack,
            (_, OnUnknown::Review) => Event::OutcomeUnknown,
            (_, OnUnknown::Resend) if row.may_retry() => Event::Repeat,
            (_, OnUnknown::Resend) => Event::ExhaustedAttempts,
        };
        let mut one = Move::of(held, event);
        if event == Event::Repeat {
            (one.due_at_us, one.possible_repeat) = (Some(now_us), Some(1));
        }
        if !may_be_sent && row.state()? == DeliveryState::Sending {
            one.attempt = Some(row.attempt - 1);
        }
        if event != unsent && event != Event::GiveBack {
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
