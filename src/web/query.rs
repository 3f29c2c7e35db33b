//! Questions about readings: rows, buckets, engines, receipts.
//!
//! In: query parameters. Out: JSON from the database, or from the engine table in memory, which answers while the database is away.

use actix_web::{
    HttpResponse,
    web::{Data, Path},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    auth::{Asker, Viewer},
    body::Query,
    error::ApiError,
    state::WebState,
};
use crate::{
    config::units::parse_duration,
    domain::{reading::is_name, receipt::ReceiptState, time::rfc3339_us},
    ingest::timestamp::from_rfc3339,
    monitor::{EngineItem, EnginesView},
    store::{
        Conn, ledger,
        readings::{self, Bucket, BucketMetric, ListFilter, PAGE_MAX, StoredReading},
        relay,
    },
};

/// Parameters of `GET /api/readings`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReadingsQuery {
    /// Only of this engine; required with `bucket`
    engine_id: Option<String>,
    /// At or after this time, RFC 3339
    from: Option<String>,
    /// Before this time, RFC 3339
    to: Option<String>,
    /// Length of a bucket, such as `1m`: min, mean and max instead of rows
    bucket: Option<String>,
    /// 1 to 1000
    limit: Option<u32>,
    /// `nextCursor` of the page before
    cursor: Option<String>,
}

/// One reading.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadingRow {
    engine_id: String,
    /// RFC 3339
    timestamp: String,
    status: Option<String>,
    temperature: Option<f64>,
    rpm: Option<f64>,
    pressure: Option<f64>,
    fuel_flow: Option<f64>,
    /// Further metrics by name
    #[schema(value_type = Option<Object>)]
    extra: Option<Box<serde_json::value::RawValue>>,
    /// When it arrived, RFC 3339
    created_at: String,
    /// When the row was changed, RFC 3339
    updated_at: Option<String>,
}

impl From<StoredReading> for ReadingRow {
    fn from(row: StoredReading) -> Self {
        Self {
            engine_id: row.engine_id,
            timestamp: rfc3339_us(row.observed_at_us),
            status: row.status,
            temperature: row.temperature,
            rpm: row.rpm,
            pressure: row.pressure,
            fuel_flow: row.fuel_flow,
            extra: row.extra.and_then(|text| serde_json::value::RawValue::from_string(text).ok()),
            created_at: rfc3339_us(row.created_at_us),
            updated_at: row.updated_at_us.map(rfc3339_us),
        }
    }
}

/// The readings of one engine in one stretch of time.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BucketRow {
    /// Where it begins, RFC 3339
    start: String,
    /// How many readings it holds
    count: i64,
    temperature: Option<MetricRow>,
    rpm: Option<MetricRow>,
    pressure: Option<MetricRow>,
    fuel_flow: Option<MetricRow>,
}

/// One metric within a bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetricRow {
    min: f64,
    mean: f64,
    max: f64,
    count: i64,
}

impl From<BucketMetric> for MetricRow {
    fn from(metric: BucketMetric) -> Self {
        Self { min: metric.min, mean: metric.mean, max: metric.max, count: metric.count }
    }
}

impl From<Bucket> for BucketRow {
    fn from(bucket: Bucket) -> Self {
        Self {
            start: rfc3339_us(bucket.start_us),
            count: bucket.count,
            temperature: bucket.temperature.map(Into::into),
            rpm: bucket.rpm.map(Into::into),
            pressure: bucket.pressure.map(Into::into),
            fuel_flow: bucket.fuel_flow.map(Into::into),
        }
    }
}

/// A list with its way on.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The items
    pub items: Vec<T>,
    /// Give it as `cursor` for the next page; null on the last
    pub next_cursor: Option<String>,
}

/// `limit` within its range.
///
/// # Errors
/// 400 outside 1 to 1000.
pub fn page_size(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit {
        None => Ok(100),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::query("limit", format!("{limit} is not within 1 to {PAGE_MAX}"))),
    }
}

/// A time of a query parameter.
///
/// # Errors
/// 400 where it is none.
pub fn moment(name: &str, text: Option<&str>) -> Result<Option<i64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    // A plus that was not escaped arrives as a blank.
    from_rfc3339(&text.replace(' ', "+"))
        .map(Some)
        .ok_or_else(|| ApiError::query(name, "not an RFC 3339 time such as 2026-01-31T12:00:00Z"))
}

/// `GET /api/readings`: what is stored, or with `bucket` its minimum, mean and maximum by time.
///
/// # Errors
/// 400 for parameters that mean nothing, 503 while the database is away.
#[utoipa::path(get, path = "/api/readings", tag = "readings", params(ReadingsQuery),
    responses((status = 200, description = "Rows; with `bucket` the items are buckets", body = List<ReadingRow>), super::openapi::Failure))]
pub async fn readings(_who: Viewer, query: Query<ReadingsQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let query = query.0;
    let limit = page_size(query.limit)?;
    let (from_us, to_us) = (moment("from", query.from.as_deref())?, moment("to", query.to.as_deref())?);
    if let (Some(from_us), Some(to_us)) = (from_us, to_us)
        && from_us > to_us
    {
        return Err(ApiError::query("from", "lies after to"));
    }
    if let Some(engine_id) = &query.engine_id
        && !is_name(engine_id)
    {
        return Err(ApiError::query("engineId", "1 to 64 of letters, digits, '.', '_', ':', '-'"));
    }
    if let Some(bucket) = &query.bucket {
        let bucket = parse_duration(bucket).map_err(|error| ApiError::query("bucket", error))?;
        let bucket_us = i64::try_from(bucket.as_micros()).map_err(|_| ApiError::query("bucket", "too long"))?;
        let Some(engine_id) = query.engine_id else { return Err(ApiError::query("engineId", "is required with bucket")) };
        if query.cursor.is_some() {
            return Err(ApiError::query("cursor", "buckets have none: go on with from"));
        }
        let (from_us, to_us) = (from_us.unwrap_or(0), to_us.unwrap_or(i64::MAX));
        let mut buckets = state.store.call(move |conn| readings::buckets(conn, &engine_id, from_us, to_us, bucket_us)).await?;
        buckets.truncate(limit as usize);
        return Ok(HttpResponse::Ok().json(List { items: buckets.into_iter().map(BucketRow::from).collect(), next_cursor: None }));
    }
    let filter = ListFilter { engine_id: query.engine_id, from_us, to_us, cursor: query.cursor, limit };
    let page = state.store.call(move |conn| readings::list(conn, &filter)).await?;
    Ok(HttpResponse::Ok()
        .json(List { items: page.items.into_iter().map(ReadingRow::from).collect(), next_cursor: page.next_cursor }))
}

/// Parameters of lists without a cursor.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LimitQuery {
    /// 1 to 1000
    limit: Option<u32>,
}

/// `GET /api/engines`: from memory, so it answers while the database is away.
///
/// # Errors
/// 400 for a limit that is none.
#[utoipa::path(get, path = "/api/engines", tag = "readings", params(LimitQuery),
    responses((status = 200, description = "Latest reading and alarm of each engine, the worst alarm first", body = super::openapi::Engines), super::openapi::Failure))]
pub async fn engines(_who: Viewer, query: Query<LimitQuery>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let engines = &state.views.engines;
    let items = engines.views(page_size(query.0.limit)? as usize).into_iter().map(EngineItem::from_view).collect();
    Ok(HttpResponse::Ok().json(EnginesView { total: engines.len(), alarmed: engines.alarmed(), items }))
}

/// What became of one reading.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiptAnswer {
    /// buffered, stored, duplicate, conflict, dead, discarded, quarantined, void, lost, settled or unknown
    #[schema(value_type = String)]
    state: ReceiptState,
    /// Whether the Kafka broker has acknowledged it; always false without a relay
    relayed: bool,
}

/// `GET /api/receipts/{stream}/{seq}`: what became of one accepted reading.
///
/// # Errors
/// 400 for a stream that is no UUID or a number that is none; 503 while the database is away and the buffer does not know.
#[utoipa::path(get, path = "/api/receipts/{stream}/{seq}", tag = "readings",
    params(("stream" = String, Path, description = "From the receipt"), ("seq" = u64, Path, description = "firstSeq + n for the nth accepted item")),
    responses((status = 200, description = "What became of it", body = ReceiptAnswer), super::openapi::Failure))]
pub async fn receipt(_who: Asker, path: Path<(String, String)>, state: Data<WebState>) -> Result<HttpResponse, ApiError> {
    let (stream, seq) = path.into_inner();
    let stream = Uuid::parse_str(&stream).map_err(|_| ApiError::field("stream", "is not a UUID"))?;
    let seq: u64 = seq.parse().map_err(|_| ApiError::field("seq", "is not a whole number"))?;
    let (stream, seq) = state.views.buffer.locate(stream, seq);
    let (known, relayed) = match state.views.buffer.state_of(stream, seq) {
        // What the medium knows is not in the database yet, or was never to be.
        Some(known) if known != ReceiptState::Stored => (known, false),
        _ => {
            let ask = move |conn: &mut Conn| {
                let known = ledger::receipt_state(conn, stream, seq)?;
                Ok((known, known == ReceiptState::Stored && relay::is_relayed(conn, stream, seq)?))
            };
            state.store.call(ask).await?
        }
    };
    Ok(HttpResponse::Ok().json(ReceiptAnswer { state: known, relayed }))
}
