//! Why an alert was told, to whom and with which delivery, or why it was not: one row each.
//!
//! In: what the alert side decided, in the transaction of the deliveries themselves. Out: the same for people, with what became of
//! each delivery. A crash loses nothing that was committed.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};
use serde::Serialize;

use super::query::rfc3339;
use crate::store::{
    Conn, StoreResult,
    control_schema::{alert_notices, deliveries},
    deliveries::state_sql,
};

/// Most rows of one alert that are shown.
const SHOWN_MAX: i64 = 1_000;
/// Repeats of one alert that are kept, the newest.
pub const REPEATS_KEPT: i64 = 500;

/// What was decided about one receiver of one notice.
#[derive(Clone, Copy, Debug)]
pub struct NewNotice<'a> {
    /// The alert.
    pub alert_id: &'a str,
    /// When it was decided, microseconds since the epoch.
    pub at_us: i64,
    /// `firing`, `escalated`, `repeat` or `resolved`.
    pub event: &'a str,
    /// The sink; empty where it was not decided for one alone.
    pub sink: &'a str,
    /// To whom at that sink.
    pub recipient: &'a str,
    /// With which delivery it is told; `None` where it is not.
    pub delivery_id: Option<&'a str>,
    /// A fixed word.
    pub reason: &'a str,
    /// More of it: the silence's id, the other alert's id, the person's name.
    pub detail: Option<&'a str>,
}

/// One row, as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// When it was decided.
    #[serde(rename = "at", serialize_with = "rfc3339")]
    pub at_us: i64,
    /// `firing`, `escalated`, `repeat` or `resolved`.
    pub event: String,
    /// The sink; empty where it was not decided for one alone.
    pub sink: String,
    /// To whom at that sink.
    pub recipient: String,
    /// With which delivery it was told; null where it was not.
    pub delivery_id: Option<String>,
    /// Why it was told, or why not.
    pub reason: String,
    /// More of it.
    pub detail: Option<String>,
    /// Where the delivery stands; null where there is none, or it has been deleted by age.
    pub state: Option<String>,
    /// What the receiver answered.
    pub answer: Option<String>,
    /// What went wrong with the delivery last.
    pub error: Option<String>,
}

/// Writes one down.
///
/// # Errors
/// Those of the control store.
pub fn note(conn: &mut Conn, notice: &NewNotice<'_>) -> StoreResult<()> {
    let row = (
        alert_notices::alert_id.eq(notice.alert_id),
        alert_notices::at_us.eq(notice.at_us),
        alert_notices::event.eq(notice.event),
        alert_notices::sink.eq(notice.sink),
        alert_notices::recipient.eq(notice.recipient),
        alert_notices::delivery_id.eq(notice.delivery_id),
        alert_notices::reason.eq(notice.reason),
        alert_notices::detail.eq(notice.detail),
    );
    diesel::insert_into(alert_notices::table).values(row).execute(conn)?;
    Ok(())
}

/// What was decided about one alert, oldest first; at most 1,000 rows.
///
/// # Errors
/// Those of the control store.
pub fn of_alert(conn: &mut Conn, alert_id: &str) -> StoreResult<Vec<Notice>> {
    let columns = (
        alert_notices::at_us,
        alert_notices::event,
        alert_notices::sink,
        alert_notices::recipient,
        alert_notices::delivery_id,
        alert_notices::reason,
        alert_notices::detail,
        diesel::dsl::sql::<Nullable<Text>>(&state_sql("deliveries", false)),
        deliveries::answer.nullable(),
        deliveries::last_error.nullable(),
    );
    let rows = alert_notices::table
        .left_join(deliveries::table.on(deliveries::id.nullable().eq(alert_notices::delivery_id)))
        .filter(alert_notices::alert_id.eq(alert_id))
        .order(alert_notices::id.asc())
        .limit(SHOWN_MAX)
        .select(columns)
        .load(conn)?;
    Ok(rows)
}

/// Who was told that an alert fires, and when last.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct Told {
    /// The sink.
    #[diesel(sql_type = Text)]
    pub sink: String,
    /// To whom at that sink.
    #[diesel(sql_type = Text)]
    pub recipient: String,
    /// When last, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub at_us: i64,
    /// The number of the last decision to tell.
    #[diesel(sql_type = BigInt)]
    pub last_id: i64,
}

/// Who was told that this alert fires.
///
/// # Errors
/// Those of the control store.
pub fn told(conn: &mut Conn, alert_id: &str) -> StoreResult<Vec<Told>> {
    let text = "SELECT sink, recipient, MAX(at_us) AS at_us, MAX(id) AS last_id FROM alert_notices \
                WHERE alert_id = $1 AND delivery_id IS NOT NULL AND event <> 'resolved' GROUP BY sink, recipient ORDER BY MIN(id)";
    Ok(diesel::sql_query(text).bind::<Text, _>(alert_id).load(conn)?)
}

/// The number of the last decision to tell nobody that this alert has risen to a higher level.
///
/// # Errors
/// Those of the control store.
pub fn escalation_held_back(conn: &mut Conn, alert_id: &str) -> StoreResult<Option<i64>> {
    let held = alert_notices::table
        .filter(alert_notices::alert_id.eq(alert_id))
        .filter(alert_notices::event.eq("escalated"))
        .filter(alert_notices::delivery_id.is_null());
    Ok(held.order(alert_notices::id.desc()).select(alert_notices::id).first(conn).optional()?)
}

/// Forgets repeats of an alert beyond the newest [`REPEATS_KEPT`]: one that fires for months must not fill the control store.
///
/// # Errors
/// Those of the control store.
pub fn forget_repeats(conn: &mut Conn, alert_id: &str) -> StoreResult<usize> {
    let text = "DELETE FROM alert_notices WHERE alert_id = $1 AND event = 'repeat' AND id <= (SELECT id FROM alert_notices \
                WHERE alert_id = $2 AND event = 'repeat' ORDER BY id DESC LIMIT 1 OFFSET $3)";
    Ok(diesel::sql_query(text).bind::<Text, _>(alert_id).bind::<Text, _>(alert_id).bind::<BigInt, _>(REPEATS_KEPT).execute(conn)?)
}

/// Whether it was opened by an older belayd, which wrote down nobody who was told.
///
/// # Errors
/// Those of the control store.
pub fn is_earlier(conn: &mut Conn, alert_id: &str) -> StoreResult<bool> {
    let query = alert_notices::table.filter(alert_notices::alert_id.eq(alert_id)).filter(alert_notices::reason.eq("earlier"));
    Ok(query.select(alert_notices::id).limit(1).first::<i64>(conn).optional()?.is_some())
}

/// The last event of this alert that this delivery tells, where it tells one.
///
/// # Errors
/// Those of the control store.
pub fn told_with(conn: &mut Conn, alert_id: &str, delivery_id: &str) -> StoreResult<Option<String>> {
    // Not by the delivery as well: a digest has thousands of rows, an alert a few, and the planner does not know.
    let rows: Vec<(Option<String>, String)> = alert_notices::table
        .filter(alert_notices::alert_id.eq(alert_id))
        .order(alert_notices::id.desc())
        .select((alert_notices::delivery_id, alert_notices::event))
        .load(conn)?;
    Ok(rows.into_iter().find(|(delivery, _)| delivery.as_deref() == Some(delivery_id)).map(|(_, event)| event))
}

/// What `from` was to tell is told with the digest `into`. Returns how many notices that were.
///
/// # Errors
/// Those of the control store.
pub fn fold(conn: &mut Conn, from: &str, into: &str) -> StoreResult<usize> {
    let rows = alert_notices::table.filter(alert_notices::delivery_id.eq(from));
    let told = (alert_notices::delivery_id.eq(into), alert_notices::reason.eq("digest"), alert_notices::detail.eq(from));
    Ok(diesel::update(rows).set(told).execute(conn)?)
}
