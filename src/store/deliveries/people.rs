//! What people see of the outbox and do to it: counts, failures, redrive, discard, and the end of old rows.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};

use super::{
    claims, is_one_of, literals,
    row::{COLUMNS, DeliveryRow},
    settle,
};
use crate::{
    domain::delivery::{self, DeliveryState, Event},
    on_backend,
    store::{Conn, StoreError, StoreResult, relay},
};

/// How many deliveries of a sink stand in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The sink.
    pub sink: String,
    /// Never a final one: history is not counted.
    pub state: DeliveryState,
    /// How many.
    pub count: u64,
    /// When the oldest of them was due, microseconds since the epoch.
    pub oldest_due_at_us: Option<i64>,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    sink: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    oldest: Option<i64>,
}

/// The states of a partial index, and which of them are counted by it.
const COUNTED: [(&[DeliveryState], &[DeliveryState]); 4] = [
    (&[DeliveryState::Ready], &[DeliveryState::Ready]),
    (&DeliveryState::TAKEN, &DeliveryState::TAKEN),
    (&[DeliveryState::Scheduled, DeliveryState::Retry], &[DeliveryState::Scheduled]),
    (&DeliveryState::FAILED, &DeliveryState::FAILED),
];

/// Everything that is not settled, by sink and state. It takes as long as there is to count.
///
/// # Errors
/// Those of the store.
pub fn counts(conn: &mut Conn) -> StoreResult<Vec<Count>> {
    let mut all = Vec::new();
    // One statement for each partial index; what is in two of them is counted once.
    for text in counts_sql(matches!(conn, Conn::Pg(_))) {
        let rows: Vec<CountRow> = on_backend!(conn, |c| diesel::sql_query(text).load(c))?;
        for row in rows {
            let state = row.state.parse().map_err(|_| crate::store::control::corrupt("deliveries.state", &row.state))?;
            all.push(Count { sink: row.sink, state, count: row.number.unsigned_abs(), oldest_due_at_us: row.oldest });
        }
    }
    all.sort_unstable_by(|a, b| (&a.sink, a.state).cmp(&(&b.sink, b.state)));
    Ok(all)
}

/// What is held stands among what is ready, and counts as being sent.
pub(super) fn counts_sql(is_pg: bool) -> [String; 5] {
    let [ready, taken, scheduled, failed] = COUNTED.map(|(within, counted)| {
        let free =
            if counted == [DeliveryState::Ready] { format!(" AND seq NOT IN {}", claims::seqs_sql(is_pg)) } else { String::new() };
        format!(
            "SELECT sink, state, COUNT(*) AS number, MIN(due_at_us) AS oldest FROM deliveries \
             WHERE {} AND {}{free} GROUP BY sink, state",
            is_one_of("state", within),
            is_one_of("state", counted)
        )
    });
    let held = format!(
        "SELECT sink, '{}' AS state, COUNT(*) AS number, MIN(due_at_us) AS oldest FROM deliveries \
         WHERE state = '{}' AND seq IN {} GROUP BY sink",
        DeliveryState::Sending,
        DeliveryState::Ready,
        claims::seqs_sql(is_pg)
    );
    [ready, held, taken, scheduled, failed]
}

/// One delivery.
///
/// # Errors
/// Those of the store.
pub fn get(conn: &mut Conn, id: &str) -> StoreResult<Option<DeliveryRow>> {
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE id = $1");
    let mut row: Option<DeliveryRow> = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(id).get_result(c).optional())?;
    claims::show(conn, row.as_mut_slice())?;
    Ok(row)
}

/// What waits for a person (dead, uncertain), newest first; with `before`, those with a smaller `seq`.
///
/// # Errors
/// Those of the store.
pub fn failures(conn: &mut Conn, limit: u32, before: Option<i64>) -> StoreResult<Vec<DeliveryRow>> {
    let text = failures_sql();
    let before = before.unwrap_or(i64::MAX);
    Ok(on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(before).bind::<BigInt, _>(i64::from(limit)).load(c))?)
}

pub(super) fn failures_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM deliveries WHERE state IN ({}) AND seq < $1 ORDER BY seq DESC LIMIT $2",
        literals(&DeliveryState::FAILED)
    )
}

/// What a person does to one delivery: `Cancel`, `Redrive`, `MarkSent` or `Discard`. A redriven one has all its attempts again.
/// Call it in the transaction that also writes the audit row.
///
/// # Errors
/// `NotFound`; `Conflict` where the state machine has no such move, with the state in words; those of the store.
pub fn act(conn: &mut Conn, id: &str, event: Event, now_us: i64) -> StoreResult<DeliveryRow> {
    act_at(conn, id, event, now_us, now_us)
}

/// As [`act`]; what goes out again does so at `due_at_us`.
///
/// # Errors
/// As [`act`].
pub fn act_at(conn: &mut Conn, id: &str, event: Event, due_at_us: i64, now_us: i64) -> StoreResult<DeliveryRow> {
    let there = |conn: &mut Conn| get(conn, id)?.ok_or_else(|| StoreError::not_found(format!("there is no delivery {id}")));
    let mut found = there(conn)?;
    if event.sources().contains(&DeliveryState::Ready) {
        // Whether a worker has it is known for certain only while nobody can claim it.
        claims::take_turn(conn, &found.sink)?;
        found = there(conn)?;
    }
    delivery::next(found.state()?, event).map_err(|illegal| StoreError::conflict(illegal.to_string()))?;
    let mut patch = settle::Patch::of(event, now_us);
    if matches!(event, Event::Redrive | Event::RedriveLater) {
        patch.attempt = Some(0);
        patch.due_at_us = Some(due_at_us);
        patch.possible_repeat = Some(i32::from(found.possible_repeat() || found.state()? == DeliveryState::Uncertain));
    }
    if !settle::apply(conn, id, event.sources(), &patch)? {
        return Err(StoreError::conflict(format!("delivery {id} has just been moved by someone else; look again")));
    }
    relay::decided(conn, &found, event)?;
    there(conn)
}

/// Drops at most `limit` deliveries that were settled before `before_us`, with the history of their attempts; returns how many.
///
/// # Errors
/// Those of the store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<usize> {
    let old = prunable_sql();
    let limit = i64::from(limit);
    match conn {
        Conn::Sqlite(_) => conn.write(|conn| {
            let Conn::Sqlite(c) = conn else { return Ok(0) };
            let attempts = format!("DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM ({old}))");
            diesel::sql_query(attempts).bind::<BigInt, _>(before_us).bind::<BigInt, _>(limit).execute(c)?;
            let deliveries = format!("DELETE FROM deliveries WHERE seq IN (SELECT seq FROM ({old}))");
            Ok(diesel::sql_query(deliveries).bind::<BigInt, _>(before_us).bind::<BigInt, _>(limit).execute(c)?)
        }),
        Conn::Pg(c) => {
            let text = format!(
                "WITH old AS MATERIALIZED ({old}), attempts AS (DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM old)) \
                 DELETE FROM deliveries WHERE seq IN (SELECT seq FROM old)"
            );
            Ok(diesel::sql_query(text).bind::<BigInt, _>(before_us).bind::<BigInt, _>(limit).execute(c)?)
        }
    }
}

/// The slice that goes next, the same for both statements of one transaction.
pub(super) fn prunable_sql() -> String {
    format!(
        "SELECT seq, id FROM deliveries WHERE {} AND settled_at_us < $1 ORDER BY settled_at_us, seq LIMIT $2",
        is_one_of("state", &[DeliveryState::Sent, DeliveryState::Discarded, DeliveryState::Cancelled])
    )
}
