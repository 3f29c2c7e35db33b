//! What became of a run whose end nobody saw, of a number that somebody asks about, and of a delivery that a person decides.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};

use super::{
    Number, Numbers, Payload, SINK,
    run::{extent, sending, settle_run},
};
use crate::{
    buffer::DrainOutcome,
    domain::{
        delivery::{DeliveryState, Event},
        receipt::StreamId,
    },
    on_backend,
    store::{
        Conn, StoreResult,
        deliveries::{DeliveryRow, is_one_of},
        ledger::Ranges,
        schema::{batches, delivery_bodies},
    },
};

/// Deliveries that wait for a person, looked at for the numbers that they hold.
const FAILED_MAX: usize = 1_000;

/// What was found of runs that were under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Deliveries that Kafka had committed.
    pub sent: usize,
    /// Readings in them.
    pub readings: u64,
    /// The highest number in them, 0 where there are none.
    pub last_seq: u64,
    /// Deliveries that it had not: they go again.
    pub again: usize,
    /// Deliveries of which Kafka knows nothing any more: a person decides.
    pub uncertain: usize,
    /// The numbers of what waits for a person in this lane, and of whatever lies between them: what comes behind goes without them.
    pub left_out: Option<Numbers>,
}

/// How many deliveries of `lane` were being sent when their worker ended.
///
/// # Errors
/// Those of the store.
pub fn unresolved(conn: &mut Conn, lane: &str) -> StoreResult<u64> {
    let text = format!("SELECT COUNT(*) AS number FROM deliveries WHERE sink = '{SINK}' AND lane = $1 AND {}", sending());
    let count: Number = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(lane).get_result(c))?;
    Ok(count.number.unsigned_abs())
}

/// Settles what was being sent in `lane`, after Kafka has ended whatever was under way there: `committed` is the mark of the last run
/// that it committed, `None` where it has none. Call it in the transaction that has looked at the lane's lease.
///
/// # Errors
/// Those of the store.
pub fn resolve(conn: &mut Conn, lane: &str, committed: Option<&str>, now_us: i64) -> StoreResult<Resolved> {
    let mut resolved = Resolved::default();
    if let Some(mark) = committed {
        (resolved.readings, resolved.last_seq) = extent(conn, lane, mark)?;
        resolved.sent = settle_run(conn, lane, mark, now_us)?;
        resolved.again =
            free(conn, lane, Event::Retry, ("not_committed", "the transaction was not committed; sent again"), now_us)?;
    } else {
        let message = "Kafka has forgotten what it last committed for this stream; whether these readings arrived is not known";
        resolved.uncertain = free(conn, lane, Event::OutcomeUnknown, ("outcome_forgotten", message), now_us)?;
    }
    // Not only those of now: the answer to an earlier try may have been lost, or another instance have had the lane meanwhile.
    resolved.left_out = failed_numbers(conn, lane)?;
    Ok(resolved)
}

#[derive(QueryableByName)]
struct Failed {
    #[diesel(sql_type = Nullable<BigInt>)]
    first_seq: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    last_seq: Option<i64>,
    /// Only where its readings are gone: it says which they were.
    #[diesel(sql_type = Nullable<Text>)]
    payload: Option<String>,
}

/// The numbers from the lowest to the highest of what waits for a person, of the newest [`FAILED_MAX`] deliveries: those who wait for their
/// readings wait for a moment, not for days.
fn failed_numbers(conn: &mut Conn, lane: &str) -> StoreResult<Option<Numbers>> {
    let text = format!(
        "SELECT b.first_seq, b.last_seq, CASE WHEN b.delivery_id IS NULL THEN d.payload END AS payload FROM ({} ORDER BY seq DESC \
         LIMIT {FAILED_MAX}) AS d LEFT JOIN delivery_bodies AS b ON b.delivery_id = d.id",
        failed("id, payload")
    );
    let rows: Vec<Failed> = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(lane).load(c))?;
    let numbers = rows.into_iter().filter_map(|row| {
        let payload = || serde_json::from_str::<Payload>(row.payload.as_deref()?).ok();
        match (row.first_seq, row.last_seq) {
            (Some(first), Some(last)) => Some((first.unsigned_abs(), last.unsigned_abs())),
            _ => payload().map(|payload| (payload.first_seq, payload.last_seq)),
        }
    });
    Ok(numbers.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1))))
}

/// Selects `what` of the deliveries that wait for a person in the lane `$1`.
fn failed(what: &str) -> String {
    let condition = is_one_of("state", &DeliveryState::FAILED);
    format!("SELECT {what} FROM deliveries WHERE sink = '{SINK}' AND {condition} AND lane = $1")
}

fn free(conn: &mut Conn, lane: &str, event: Event, (word, message): (&str, &str), now_us: i64) -> StoreResult<usize> {
    let text = format!(
        "UPDATE deliveries SET state = '{}', updated_at_us = $1, claimed_by = NULL, last_error_type = $2, last_error = $3 \
         WHERE sink = '{SINK}' AND lane = $4 AND {}",
        event.target(),
        sending()
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<BigInt, _>(now_us)
        .bind::<Text, _>(word)
        .bind::<Text, _>(message)
        .bind::<Text, _>(lane)
        .execute(c))?)
}

/// Whether a stored reading is in Kafka: its batch had a delivery, and no delivery that still waits holds it. Ask only of numbers that
/// are stored.
///
/// # Errors
/// Those of the store.
pub fn is_relayed(conn: &mut Conn, stream: StreamId, seq: u64) -> StoreResult<bool> {
    let (stream, seq) = (stream.to_string(), seq.cast_signed());
    let batch: Option<(i64, i32)> = batches::table
        .filter(batches::stream.eq(&stream))
        .filter(batches::first_seq.le(seq))
        .order(batches::first_seq.desc())
        .select((batches::last_seq, batches::relay))
        .first(conn)
        .optional()?;
    if !batch.is_some_and(|(last, relay)| seq <= last && relay != 0) {
        return Ok(false);
    }
    let waits: i64 = delivery_bodies::table
        .filter(delivery_bodies::lane.eq(&stream))
        .filter(delivery_bodies::last_seq.ge(seq))
        .filter(delivery_bodies::first_seq.le(seq))
        .count()
        .get_result(conn)?;
    Ok(waits == 0)
}

/// The lowest number of `stream` that waits for the relay; `None` where nothing does.
///
/// # Errors
/// Those of the store.
pub fn first_waiting(conn: &mut Conn, stream: StreamId) -> StoreResult<Option<u64>> {
    // Deliveries of a stream do not overlap, so the one that ends first begins first.
    let first: Option<i64> = delivery_bodies::table
        .filter(delivery_bodies::lane.eq(stream.to_string()))
        .order(delivery_bodies::last_seq)
        .select(delivery_bodies::first_seq)
        .first(conn)
        .optional()?;
    Ok(first.map(i64::unsigned_abs))
}

/// The highest number of `stream` that waits for the relay; `None` where nothing does.
///
/// # Errors
/// Those of the store.
pub fn last_waiting(conn: &mut Conn, stream: StreamId) -> StoreResult<Option<u64>> {
    let last: Option<i64> = delivery_bodies::table
        .filter(delivery_bodies::lane.eq(stream.to_string()))
        .order(delivery_bodies::last_seq.desc())
        .select(delivery_bodies::last_seq)
        .first(conn)
        .optional()?;
    Ok(last.map(i64::unsigned_abs))
}

/// The duplicates of a batch that is committed, where what they repeat may not be in Kafka yet: a delivery of another stream waits, or one
/// of this stream that does not go before the batch's own. Empty where all of them are, or go with the batch.
///
/// # Errors
/// Those of the store.
pub fn unsure(conn: &mut Conn, stream: StreamId, outcome: &DrainOutcome) -> StoreResult<Vec<Numbers>> {
    let lane = stream.to_string();
    if outcome.duplicate == 0 || !waits_beside(conn, &lane, outcome.stored > 0)? {
        return Ok(Vec::new());
    }
    let (first, last) = (outcome.first_seq, outcome.last_seq);
    let row: Option<Option<String>> = batches::table
        .filter(batches::stream.eq(&lane))
        .filter(batches::first_seq.eq(first.cast_signed()))
        .select(batches::exceptions)
        .first(conn)
        .optional()?;
    Ok(row.flatten().map_or_else(|| vec![(first, last)], |text| Ranges::parse(&text).numbers(first)))
}

/// Whether a delivery waits in another lane or for a person in this one; where the batch has none of its own (`goes`), whether any does:
/// nobody would know when that has gone.
fn waits_beside(conn: &mut Conn, lane: &str, goes: bool) -> StoreResult<bool> {
    let own = if goes { failed("1") } else { "SELECT 1 FROM delivery_bodies WHERE lane = $1".to_owned() };
    // Two conditions, each a step of the index; `<>` would be a walk through this lane's backlog.
    let text = format!(
        "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM delivery_bodies WHERE lane < $1) \
         OR EXISTS (SELECT 1 FROM delivery_bodies WHERE lane > $1) OR EXISTS ({own}) THEN 1 ELSE 0 END AS BIGINT) AS number"
    );
    let found: Number = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(lane).get_result(c))?;
    Ok(found.number != 0)
}

/// A person has decided about a delivery: readings that will not be sent any more are let go, and their batch says that they were not.
///
/// # Errors
/// Those of the store.
pub(in crate::store) fn decided(conn: &mut Conn, row: &DeliveryRow, event: Event) -> StoreResult<()> {
    if row.sink != SINK || !event.target().is_final() {
        return Ok(());
    }
    if event != Event::MarkSent {
        let text = "UPDATE batches SET relay = 0 WHERE stream = $1 AND first_seq <= (SELECT last_seq FROM delivery_bodies WHERE delivery_id = $2) \
                    AND last_seq >= (SELECT first_seq FROM delivery_bodies WHERE delivery_id = $3)";
        on_backend!(conn, |c| diesel::sql_query(text)
            .bind::<Text, _>(&row.lane)
            .bind::<Text, _>(&row.id)
            .bind::<Text, _>(&row.id)
            .execute(c))?;
    }
    diesel::delete(delivery_bodies::table.find(&row.id)).execute(conn)?;
    Ok(())
}
