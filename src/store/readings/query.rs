//! Reading the readings: pages, time buckets, the newest of each engine, and retention.
//!
//! There is one index, the key (engine, time): a second one would cost the hot path a third of its speed. So whatever spans
//! engines goes from engine to engine, each step one look into that index.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Double, Nullable, Text},
};
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

/// Minimum, mean and maximum of one metric within a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BucketMetric {
    /// Lowest value.
    pub min: f64,
    /// Mean value.
    pub mean: f64,
    /// Highest value.
    pub max: f64,
    /// How many readings had it.
    pub count: i64,
}

/// The readings of one engine in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Where it begins, microseconds since the epoch; a multiple of the bucket's length.
    pub start_us: i64,
    /// How many readings it holds.
    pub count: i64,
    /// Degrees Celsius.
    pub temperature: Option<BucketMetric>,
    /// Revolutions a minute.
    pub rpm: Option<BucketMetric>,
    /// Unit of the source.
    pub pressure: Option<BucketMetric>,
    /// Unit of the source.
    pub fuel_flow: Option<BucketMetric>,
}

macro_rules! bucket_row {
    ($($metric:ident: $min:ident $mean:ident $max:ident $count:ident),*) => {
        #[derive(QueryableByName)]
        struct BucketRow {
            #[diesel(sql_type = BigInt)]
            start_us: i64,
            #[diesel(sql_type = BigInt)]
            count: i64,
            $(
                #[diesel(sql_type = Nullable<Double>)]
                $min: Option<f64>,
                #[diesel(sql_type = Nullable<Double>)]
                $mean: Option<f64>,
                #[diesel(sql_type = Nullable<Double>)]
                $max: Option<f64>,
                #[diesel(sql_type = BigInt)]
                $count: i64,
            )*
        }

        const BUCKET_COLUMNS: &str = concat!($(
            ", min(", stringify!($metric), ") AS ", stringify!($min),
            ", avg(", stringify!($metric), ") AS ", stringify!($mean),
            ", max(", stringify!($metric), ") AS ", stringify!($max),
            ", count(", stringify!($metric), ") AS ", stringify!($count),
        )*);

        impl From<BucketRow> for Bucket {
            fn from(row: BucketRow) -> Self {
                let metric = |min: Option<f64>, mean: Option<f64>, max: Option<f64>, count| {
                    Some(BucketMetric { min: min?, mean: mean?, max: max?, count })
                };
                Self {
                    start_us: row.start_us,
                    count: row.count,
                    $($metric: metric(row.$min, row.$mean, row.$max, row.$count),)*
                }
            }
        }
    };
}

bucket_row!(
    temperature: temperature_min temperature_mean temperature_max temperature_count,
    rpm: rpm_min rpm_mean rpm_max rpm_count,
    pressure: pressure_min pressure_mean pressure_max pressure_count,
    fuel_flow: fuel_flow_min fuel_flow_mean fuel_flow_max fuel_flow_count
);

/// The readings of one engine from `from_us` until before `to_us` in buckets of `bucket_us`, oldest first, empty ones left out.
/// At most [`PAGE_MAX`]; where there are more the caller goes on from the last one's end.
///
/// # Errors
/// [`StoreErrorKind::Invalid`](crate::store::StoreErrorKind::Invalid) for a bucket shorter than 1 ms; those of the database.
pub fn buckets(conn: &mut Conn, engine_id: &str, from_us: i64, to_us: i64, bucket_us: i64) -> StoreResult<Vec<Bucket>> {
    if bucket_us < 1_000 {
        return Err(StoreError::invalid("a bucket is at least 1ms long"));
    }
    // Bounds are in the order of their first appearance: SQLite numbers `$1` by that.
    let query = diesel::sql_query(format!(
        "SELECT observed_at_us - observed_at_us % $1 AS start_us, count(*) AS count{BUCKET_COLUMNS} FROM readings \
         WHERE engine_id = $2 AND observed_at_us >= $3 AND observed_at_us < $4 \
         GROUP BY 1 ORDER BY 1 LIMIT {PAGE_MAX}"
    ))
    .bind::<BigInt, _>(bucket_us)
    .bind::<Text, _>(engine_id)
    .bind::<BigInt, _>(from_us)
    .bind::<BigInt, _>(to_us);
    let rows: Vec<BucketRow> = on_backend!(conn, |c| query.load(c))?;
    Ok(rows.into_iter().map(Bucket::from).collect())
}

/// Removes readings measured before `before_us`, at most `max_rows`, in one transaction, and returns how many. Fewer than asked
/// for means that nothing is left to remove.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, max_rows: u32) -> StoreResult<u64> {
    conn.write(|conn| {
        let mut removed = 0;
        let mut engine = next_engine(conn, "")?;
        while let Some(current) = engine {
            let room = i64::from(max_rows) - removed;
            // The first row that does not fit any more, where there is one.
            let cut: Option<i64> = readings::table
                .filter(readings::engine_id.eq(&current))
                .filter(readings::observed_at_us.lt(before_us))
                .order(readings::observed_at_us)
                .offset(room)
                .limit(1)
                .select(readings::observed_at_us)
                .first(conn)
                .optional()?;
            let gone = readings::table
                .filter(readings::engine_id.eq(&current))
                .filter(readings::observed_at_us.lt(cut.unwrap_or(before_us)));
            removed += diesel::delete(gone).execute(conn)? as i64;
            if removed >= i64::from(max_rows) {
                break;
            }
            engine = next_engine(conn, &current)?;
        }
        Ok(removed.unsigned_abs())
    })
}

/// How many readings there are. It counts them one by one: ask seldom.
///
/// # Errors
/// Those of the database.
pub fn count(conn: &mut Conn) -> StoreResult<u64> {
    let count: i64 = readings::table.count().get_result(conn)?;
    Ok(count.unsigned_abs())
}

#[derive(QueryableByName)]
struct Size {
    #[diesel(sql_type = BigInt)]
    bytes: i64,
}

/// How many bytes the database takes on its disk, without SQLite's write-ahead log.
///
/// # Errors
/// Those of the database.
pub fn size_bytes(conn: &mut Conn) -> StoreResult<u64> {
    let size: Size = match conn {
        Conn::Sqlite(conn) => {
            diesel::sql_query("SELECT page_count * page_size AS bytes FROM pragma_page_count(), pragma_page_size()")
                .get_result(conn)?
        }
        Conn::Pg(conn) => diesel::sql_query("SELECT pg_database_size(current_database()) AS bytes").get_result(conn)?,
    };
    Ok(size.bytes.unsigned_abs())
}
