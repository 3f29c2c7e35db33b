//! Reading the readings: pages, and the newest of each engine.
//!
//! There is one index, the key (engine, time): a second one would cost the hot path a third of its speed. So whatever spans
//! engines goes from engine to engine, each step one look into that index.

use diesel::{prelude::*, sql_types::BigInt};
use serde::Serialize;

use super::StoredReading;
use crate::{
    on_backend,
    store::{Conn, StoreError, StoreResult, schema::readings},
};

/// Most items on a page.
pub const PAGE_MAX: u32 = 1_000;
/// Engines without a single hit that one page steps over before it is handed out short, with a cursor to go on from.
const EMPTY_ENGINES_MAX: u32 = 1_000;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
}

/// Which readings are wanted.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only of this engine.
    pub engine_id: Option<String>,
    /// Only those at or after this time, microseconds since the epoch.
    pub from_us: Option<i64>,
    /// Only those before this time.
    pub to_us: Option<i64>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many, 1 to [`PAGE_MAX`].
    pub limit: u32,
}

/// Readings by engine, and of each engine by time, ascending.
///
/// # Errors
/// [`StoreErrorKind::Invalid`](crate::store::StoreErrorKind::Invalid) for a cursor that is none; those of the database.
pub fn list(conn: &mut Conn, filter: &ListFilter) -> StoreResult<Page<StoredReading>> {
    let limit = filter.limit.clamp(1, PAGE_MAX) as usize;
    let from_us = filter.from_us.unwrap_or(i64::MIN);
    let to_us = filter.to_us.unwrap_or(i64::MAX);
    let (mut engine, mut after_us) = match &filter.cursor {
        Some(cursor) => {
            let (engine, time) = parse_cursor(cursor)?;
            (Some(engine), Some(time))
        }
        None => (None, None),
    };
    if let Some(wanted) = &filter.engine_id {
        if engine.as_ref().is_some_and(|engine| engine != wanted) {
            return Err(not_a_cursor());
        }
        engine = Some(wanted.clone());
    } else if engine.is_none() {
        engine = next_engine(conn, "")?;
    }
    let mut items: Vec<StoredReading> = Vec::new();
    let mut empty = 0;
    while let Some(current) = engine {
        let found = of_engine(conn, &current, after_us, from_us, to_us, limit - items.len())?;
        empty = if found.is_empty() { empty + 1 } else { 0 };
        items.extend(found);
        if items.len() >= limit {
            let next_cursor = items.last().map(|last| format!("{}@{}", last.observed_at_us, last.engine_id));
            return Ok(Page { items, next_cursor });
        }
        if filter.engine_id.is_some() {
            break;
        }
        if empty >= EMPTY_ENGINES_MAX {
            return Ok(Page { items, next_cursor: Some(format!("{}@{current}", i64::MAX)) });
        }
        engine = next_engine(conn, &current)?;
        after_us = None;
    }
    Ok(Page { items, next_cursor: None })
}

fn parse_cursor(cursor: &str) -> StoreResult<(String, i64)> {
    let (time, engine) = cursor.split_once('@').ok_or_else(not_a_cursor)?;
    Ok((engine.to_owned(), time.parse().map_err(|_| not_a_cursor())?))
}

fn not_a_cursor() -> StoreError {
    StoreError::invalid("the cursor does not belong to this list; start again without it")
}

fn next_engine(conn: &mut Conn, after: &str) -> StoreResult<Option<String>> {
    let engine = readings::table
        .filter(readings::engine_id.gt(after))
        .order((readings::engine_id, readings::observed_at_us))
        .select(readings::engine_id)
        .first(conn)
        .optional()?;
    Ok(engine)
}

fn of_engine(
    conn: &mut Conn,
    engine: &str,
    after_us: Option<i64>,
    from_us: i64,
    to_us: i64,
    limit: usize,
) -> StoreResult<Vec<StoredReading>> {
    // One lower bound: two would leave the planner to choose.
    let from_us = after_us.map_or(from_us, |after| from_us.max(after.saturating_add(1)));
    let found = readings::table
        .filter(readings::engine_id.eq(engine))
        .filter(readings::observed_at_us.ge(from_us))
        .filter(readings::observed_at_us.lt(to_us))
        .order(readings::observed_at_us)
        .limit(limit as i64)
        .select(StoredReading::as_select())
        .load(conn)?;
    Ok(found)
}

/// The newest reading of each engine, by engine id, at most `limit`.
///
/// # Errors
/// Those of the database.
pub fn latest_per_engine(conn: &mut Conn, limit: u32) -> StoreResult<Vec<StoredReading>> {
    // diesel has no recursive queries. The text holds on both databases; each step is one look into the key.
    let query = diesel::sql_query(
        "WITH RECURSIVE engines(engine_id) AS ( \
           SELECT min(engine_id) FROM readings \
           UNION ALL \
           SELECT (SELECT min(r.engine_id) FROM readings r WHERE r.engine_id > engines.engine_id) \
           FROM engines WHERE engines.engine_id IS NOT NULL) \
         SELECT r.* FROM engines JOIN readings r ON r.engine_id = engines.engine_id AND r.observed_at_us = \
           (SELECT max(m.observed_at_us) FROM readings m WHERE m.engine_id = engines.engine_id) \
         LIMIT $1",
    )
    .bind::<BigInt, _>(i64::from(limit));
    Ok(on_backend!(conn, |c| query.load(c))?)
}
