//! The deliveries to Kafka against the ledger: each ledger row whose readings are relayed has its delivery, no numbers have two, none
//! carries what the ledger does not have, and what waits has its readings.
//!
//! In: ledger rows on their way through a pass, and deliveries in their order, in slices. Out: faults. Settled deliveries that retention may
//! have dropped, as it says before it drops the first of them, are no fault. It reads and writes nothing; a crash loses nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::LedgerRow;
use crate::{
    domain::delivery::DeliveryState,
    store::{
        Conn, StoreResult,
        control_schema::deliveries,
        relay,
        schema::{batches, delivery_bodies, streams},
        shared_duties,
    },
};

/// Microseconds by which the clocks of instances, of which one stores and another drops, may differ, and with room to spare.
pub const CLOCKS_US: i64 = 2 * 3_600 * 1_000_000;

/// Deliveries of one slice, those of other sinks among them.
const SLICE_ROWS: i64 = 2_000;
/// Ids in one statement.
const CHUNK: usize = 500;

/// A delivery to Kafka.
type Found = (String, String, String, String);
/// What a ledger row says of the numbers of a delivery: its last number, and which delivery carries it.
type Owner = (i64, Option<String>);

/// Deliveries that were made before this moment, microseconds since the epoch, may have been dropped by a retention that has begun by now,
/// whichever instance does it; `None` where none ever did.
///
/// # Errors
/// Those of the database.
pub fn deliveries_from_us(conn: &mut Conn) -> StoreResult<Option<i64>> {
    let retention = shared_duties::last(conn, "retention")?;
    Ok(retention.map(|last| shared_duties::deliveries_dropped_before(&last).saturating_add(CLOCKS_US)))
}

/// Ledger rows of `stream` whose delivery is not there although it was made at or after `from_us`, or belongs elsewhere: a sentence each.
///
/// # Errors
/// Those of the database.
pub(super) fn absent(conn: &mut Conn, stream: &str, rows: &[LedgerRow], from_us: i64) -> StoreResult<(u64, Vec<String>)> {
    let relayed: Vec<(&LedgerRow, &String)> = rows.iter().filter_map(|row| Some((row, row.delivery.as_ref()?))).collect();
    let (mut faults, mut gone) = (Vec::new(), Vec::new());
    for chunk in relayed.chunks(CHUNK) {
        let ids: Vec<&String> = chunk.iter().map(|(_, id)| *id).collect();
        let there: Vec<(String, String, String)> = deliveries::table
            .filter(deliveries::id.eq_any(&ids))
            .select((deliveries::id, deliveries::sink, deliveries::lane))
            .load(conn)?;
        let there: HashMap<_, _> = there.into_iter().map(|(id, sink, lane)| (id, (sink, lane))).collect();
        for (row, id) in chunk {
            let (first, last) = (row.first, row.last);
            match there.get(*id) {
                Some((sink, lane)) if sink == relay::SINK && lane == stream => {}
                Some(_) => faults
                    .push(format!("the delivery {id} of stream {stream}, numbers {first} to {last}, is not to Kafka any more")),
                None if row.created_at_us < from_us => {}
                None => gone.push(*row),
            }
        }
    }
    if !gone.is_empty() {
        // Asked last: the retention of another instance may have begun since this run did, and says so before it drops anything.
        let from_us = deliveries_from_us(conn)?.map_or(from_us, |dropped_us| dropped_us.max(from_us));
        faults.extend(gone.into_iter().filter(|row| row.created_at_us >= from_us).map(|LedgerRow { first, last, .. }| {
            format!("the delivery to Kafka of stream {stream}, numbers {first} to {last}, is gone: look into the topic whether they are there")
        }));
    }
    Ok((relayed.len() as u64, faults))
}

/// All deliveries in their order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Walk {
    /// Looked at up to here.
    at: i64,
    /// The last one when the walk began.
    end: Option<i64>,
}

impl Walk {
    /// One slice more: its faults, a sentence each; `None` once there is nothing left.
    pub(super) fn step(&mut self, conn: &mut Conn) -> StoreResult<Option<Vec<String>>> {
        let end = match self.end {
            Some(end) => end,
            None => *self
                .end
                .insert(deliveries::table.select(diesel::dsl::max(deliveries::seq)).first::<Option<i64>>(conn)?.unwrap_or(0)),
        };
        let seqs: Vec<i64> = deliveries::table
            .filter(deliveries::seq.gt(self.at))
            .filter(deliveries::seq.le(end))
            .order(deliveries::seq)
            .limit(SLICE_ROWS)
            .select(deliveries::seq)
            .load(conn)?;
        let Some(to) = seqs.last().copied() else { return Ok(None) };
        let found: Vec<Found> = deliveries::table
            .filter(deliveries::seq.gt(self.at))
            .filter(deliveries::seq.le(to))
            .filter(deliveries::sink.eq(relay::SINK))
            .order(deliveries::seq)
            .select((deliveries::id, deliveries::lane, deliveries::payload, deliveries::state))
            .load(conn)?;
        self.at = to;
        let mut faults = without_readings(conn, &found)?;
        let mut lanes: BTreeMap<&str, Vec<(&str, relay::Payload)>> = BTreeMap::new();
        for (id, lane, payload, _) in &found {
            match serde_json::from_str::<relay::Payload>(payload) {
                // What a person retried lies within numbers that another delivery carries.
                Ok(payload) if payload.retried => {}
                Ok(payload) if payload.stream == *lane => lanes.entry(lane.as_str()).or_default().push((id.as_str(), payload)),
                _ => faults.push(format!("the delivery {id} does not say which numbers of stream {lane} it carries")),
            }
        }
        for (lane, carried) in lanes {
            disowned(conn, lane, &carried, &mut faults)?;
        }
        Ok(Some(faults))
    }
}

/// Deliveries of `lane` that the ledger does not know as the ones that carry their numbers.
fn disowned(conn: &mut Conn, lane: &str, carried: &[(&str, relay::Payload)], faults: &mut Vec<String>) -> StoreResult<()> {
    let mut owners: HashMap<i64, Owner> = HashMap::new();
    for chunk in carried.chunks(CHUNK) {
        let firsts: Vec<i64> = chunk.iter().map(|(_, payload)| payload.first_seq.cast_signed()).collect();
        let rows: Vec<(i64, i64, Option<String>)> = batches::table
            .filter(batches::stream.eq(lane))
            .filter(batches::first_seq.eq_any(&firsts))
            .select((batches::first_seq, batches::last_seq, batches::delivery))
            .load(conn)?;
        owners.extend(rows.into_iter().map(|(first, last, delivery)| (first, (last, delivery))));
    }
    for (id, payload) in carried {
        let (first, last) = (payload.first_seq.cast_signed(), payload.last_seq.cast_signed());
        let owner = match owners.remove(&first) {
            Some(owner) => Some(owner),
            // The first numbers of its ledger row were not stored, or it is not the first one that carries them.
            None => batches::table
                .filter(batches::stream.eq(lane))
                .filter(batches::first_seq.le(first))
                .order(batches::first_seq.desc())
                .select((batches::last_seq, batches::delivery))
                .first::<Owner>(conn)
                .optional()?,
        };
        match owner.filter(|(end, _)| *end >= last) {
            // Null: from before it was noted, or not relayed then.
            Some((_, delivery)) if delivery.as_deref().is_none_or(|carrier| carrier == *id) => {}
            Some((_, delivery)) => faults.push(format!(
                "numbers {first} to {last} of stream {lane} have two deliveries to Kafka, {} and {id}",
                delivery.unwrap_or_default()
            )),
            None => {
                // Asked last: what retention has dropped of the ledger meanwhile counts.
                let pruned: Option<i64> =
                    streams::table.filter(streams::stream.eq(lane)).select(streams::pruned_seq).first(conn).optional()?;
                if pruned.is_none_or(|pruned| pruned < first) {
                    faults.push(format!(
                        "the delivery {id} carries numbers {first} to {last} of stream {lane}, which are not in the ledger"
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Deliveries that wait, or that a person decides, whose readings are gone.
fn without_readings(conn: &mut Conn, found: &[Found]) -> StoreResult<Vec<String>> {
    let is_final = |state: &str| state.parse::<DeliveryState>().is_ok_and(DeliveryState::is_final);
    let waiting: Vec<&Found> = found.iter().filter(|(.., state)| !is_final(state)).collect();
    let mut faults = Vec::new();
    for chunk in waiting.chunks(CHUNK) {
        let ids: Vec<&String> = chunk.iter().map(|(id, ..)| id).collect();
        let held: Vec<String> = delivery_bodies::table
            .filter(delivery_bodies::delivery_id.eq_any(&ids))
            .select(delivery_bodies::delivery_id)
            .load(conn)?;
        let held: HashSet<String> = held.into_iter().collect();
        for (id, lane, _, _) in chunk.iter().filter(|(id, ..)| !held.contains(id)) {
            // It may have been sent since its state was read.
            let state: Option<String> =
                deliveries::table.filter(deliveries::id.eq(id)).select(deliveries::state).first(conn).optional()?;
            if state.is_some_and(|state| !is_final(&state)) {
                faults.push(format!("the delivery {id} of stream {lane} has lost its readings before they were sent"));
            }
        }
    }
    Ok(faults)
}
