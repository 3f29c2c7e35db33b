//! Deliveries that wait for their channel: which sinks have any, and making them ready before their time.
//!
//! In: a sink that takes something again, or one that is to be tried. Out: deliveries that are ready. Only those whose last failure was
//! one of the channel ([`domain::channel`](crate::domain::channel)) are touched; each statement reads a bounded piece of the index of what
//! is taken, by lane. A crash loses nothing: what is ready is claimed by whoever comes next.

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Text},
};

use super::is_one_of;
use crate::{
    domain::{
        channel,
        delivery::{DeliveryState, Event},
    },
    on_backend,
    store::{Conn, StoreResult},
};

/// Rows that are made ready in one statement.
pub const FORWARD_ROWS: usize = 1_000;
/// The first so many, by lane, take turns in trying the channel: one that is refused for its own sake must not be the only one.
const TAKE_TURNS: usize = 100;

#[derive(QueryableByName)]
struct Waiting {
    #[diesel(sql_type = Text)]
    sink: String,
}

fn words(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    words.join(", ")
}

/// What waits for its channel. The first part is the partial index's own condition, so that SQLite uses it.
fn waits() -> String {
    let (taken, retry) = (is_one_of("state", &DeliveryState::TAKEN), DeliveryState::Retry);
    format!("{taken} AND state = '{retry}' AND last_error_type IN ({})", words(&channel::FAULTS))
}

/// Which of these sinks have any that wait for their channel. Writes nothing.
///
/// # Errors
/// Those of the store.
pub fn waiting_sinks(conn: &mut Conn, sinks: &[String]) -> StoreResult<Vec<String>> {
    let text = waiting_sql(matches!(conn, Conn::Pg(_)));
    let found: Vec<Waiting> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(text).bind::<Text, _>(serde_json::json!(sinks).to_string()).load(c)?,
        Conn::Pg(c) => diesel::sql_query(text).bind::<Array<Text>, _>(sinks).load(c)?,
    };
    Ok(found.into_iter().map(|waiting| waiting.sink).collect())
}

pub(super) fn waiting_sql(is_pg: bool) -> String {
    let list = if is_pg { "unnest($1) AS s(sink)" } else { "(SELECT value AS sink FROM json_each($1)) AS s" };
    // As what is ready is looked for (`ready_sql`).
    format!(
        "SELECT s.sink FROM {list} WHERE \
         (SELECT d.seq FROM deliveries AS d WHERE d.sink = s.sink AND {} ORDER BY d.lane, d.seq LIMIT 1) IS NOT NULL",
        waits()
    )
}

/// The channel is back: what waits for it is ready now, at most [`FORWARD_ROWS`]. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn forward(conn: &mut Conn, sink: &str, now_us: i64) -> StoreResult<usize> {
    make_ready(conn, forward_sql(matches!(conn, Conn::Pg(_))), sink, now_us)
}

pub(super) fn forward_sql(is_pg: bool) -> String {
    // What another instance is moving just now, it brings forward itself.
    let skip = if is_pg { "FOR UPDATE SKIP LOCKED" } else { "" };
    let rows = format!("SELECT seq FROM deliveries WHERE sink = $3 AND {} ORDER BY lane, seq LIMIT {FORWARD_ROWS} {skip}", waits());
    format!("{} WHERE seq IN ({rows})", update())
}

/// One of those that wait is ready, to try the channel: the one that has been claimed least often. One that may have arrived is not used
/// for that. Returns whether there was any.
///
/// # Errors
/// Those of the store.
pub fn forward_one(conn: &mut Conn, sink: &str, now_us: i64) -> StoreResult<bool> {
    Ok(make_ready(conn, forward_one_sql(), sink, now_us)? > 0)
}

pub(super) fn forward_one_sql() -> String {
    let unheard = words(&channel::UNHEARD);
    let some = format!(
        "SELECT seq, epoch FROM deliveries WHERE sink = $3 AND {} AND (possible_repeat = 0 OR last_error_type NOT IN ({unheard})) \
         ORDER BY lane, seq LIMIT {TAKE_TURNS}",
        waits()
    );
    // Another instance may have moved it since this statement looked.
    format!(
        "{} WHERE seq = (SELECT seq FROM ({some}) AS waiting ORDER BY epoch, seq LIMIT 1) AND state = '{}'",
        update(),
        DeliveryState::Retry
    )
}

fn update() -> String {
    format!("UPDATE deliveries SET state = '{}', due_at_us = $1, updated_at_us = $2", Event::Due.target())
}

fn make_ready(conn: &mut Conn, text: String, sink: &str, now_us: i64) -> StoreResult<usize> {
    Ok(on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<BigInt, _>(now_us)
        .bind::<BigInt, _>(now_us)
        .bind::<Text, _>(sink)
        .execute(c))?)
}
