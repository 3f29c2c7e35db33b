//! Redis as it is shown: to the page, to `GET /admin/buffer`, to `belayd status`.

use serde::Serialize;

use super::facts::Facts;

/// Redis as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisView {
    /// Without user and password.
    pub address: String,
    /// `up`; `down`: batches go to the journal; `full`: up, and batches go to the journal until room was made.
    pub state: &'static str,
    /// Its circuit breaker: `closed`, `open` or `half-open`.
    pub circuit: &'static str,
    /// Why it is down.
    pub cause: Option<String>,
    /// How long it has been down, milliseconds.
    pub down_ms: Option<u64>,
    /// What it says of itself.
    pub facts: Option<Facts>,
    /// Bytes of entries in it, about, those that are kept included.
    pub bytes: u64,
    /// Most of them.
    pub bytes_bound: u64,
    /// Of what the database has, bytes that were removed since the start before `redis.keep` had passed or their readings were relayed,
    /// because `redis.stream_bytes` (or Redis' memory) was reached.
    pub removed_early_bytes: u64,
    /// Of these, bytes that were removed before their readings were relayed.
    pub removed_unrelayed_bytes: u64,
    /// Streams that are written or drained.
    pub streams: usize,
    /// Readings in them that wait for the database.
    pub rows: u64,
    /// Tier triple: readings that the journal has and Redis has not, yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncopied: Option<u64>,
    /// Tier triple: bytes that the journal dropped for want of room before Redis had them, since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uncopied_dropped_bytes: Option<u64>,
    /// Whether streams of earlier runs have been looked for: until then they are not among the above.
    pub looked_back: bool,
}
