//! Over how many partitions an engine's readings were spread when it was first relayed. It stays with that number, so that more
//! partitions move no engine and its readings stay in order.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_types::{Integer, Text},
};

use crate::{
    on_backend,
    store::{Conn, StoreResult, schema::relay_engines},
};

/// Engines in one statement.
const CHUNK: usize = 1_000;

/// An engine and its number of partitions.
pub type Spread = (String, u32);

#[derive(Insertable)]
#[diesel(table_name = relay_engines, treat_none_as_default_value = false)]
struct NewEngine<'a> {
    topic: &'a str,
    engine_id: &'a str,
    partitions: i32,
}

/// Remembers `engines` with `partitions`, unless they are known already, and returns what holds for each of them. Call it in a writing
/// transaction.
///
/// # Errors
/// Those of the store.
pub fn remember(conn: &mut Conn, topic: &str, engines: &[&str], partitions: u32) -> StoreResult<Vec<Spread>> {
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let mut known: HashMap<String, i32> = HashMap::with_capacity(engines.len());
    for chunk in engines.chunks(CHUNK) {
        let mut sorted = chunk.to_vec();
        // One order, so that two writers never wait for each other in a circle.
        sorted.sort_unstable();
        sorted.dedup();
        let rows: Vec<NewEngine<'_>> = sorted.iter().map(|engine_id| NewEngine { topic, engine_id, partitions }).collect();
        on_backend!(conn, |c| diesel::insert_into(relay_engines::table).values(&rows).on_conflict_do_nothing().execute(c))?;
        let held: Vec<(String, i32)> = relay_engines::table
            .filter(relay_engines::topic.eq(topic))
            .filter(relay_engines::engine_id.eq_any(&sorted))
            .select((relay_engines::engine_id, relay_engines::partitions))
            .load(conn)?;
        known.extend(held);
    }
    Ok(known.into_iter().map(|(engine, held)| (engine, held.unsigned_abs())).collect())
}

/// How many engines of `topic` go by another number of partitions than `partitions`: they were there before it grew.
///
/// # Errors
/// Those of the store.
pub fn spread_otherwise(conn: &mut Conn, topic: &str, partitions: u32) -> StoreResult<u64> {
    let text = "SELECT COUNT(*) AS number FROM relay_engines WHERE topic = $1 AND partitions <> $2";
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let count: super::Number =
        on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(topic).bind::<Integer, _>(partitions).get_result(c))?;
    Ok(count.number.unsigned_abs())
}
