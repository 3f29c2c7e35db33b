//! Readings in stretches of time.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Double, Nullable, Text},
};
use serde::Serialize;

use super::PAGE_MAX;
use crate::{
    on_backend,
    store::{Conn, StoreError, StoreResult},
};

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
