//! Looking at alerts: the open ones, the newest, pages of them, their history, and the end of old ones.

use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool, Text},
};
use serde::{Serialize, Serializer};

use super::AlertRow;
use crate::{
    domain::{
        alert::{Alert, AlertKind, AlertState, Level},
        silence::Matchers,
        time,
    },
    store::{
        Conn, StoreResult,
        control_schema::{alert_events, alert_notices, alerts},
    },
};

/// Alerts of the index that one page looks at before it is handed out short, with a place to go on from: what hardly any alert has must not
/// make a page read all of them.
pub const SCAN_MAX: i64 = 5_000;

/// A place in the list: when an alert was opened, microseconds since the epoch, and its id.
pub type Place = (i64, String);

/// Which alerts to list; `None` takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertFilter {
    /// Only those that stand there.
    pub state: Option<AlertState>,
    /// Only that level.
    pub level: Option<Level>,
    /// Only that kind.
    pub kind: Option<AlertKind>,
    /// Only that rule or condition.
    pub name: Option<String>,
    /// Only that subject.
    pub subject: Option<String>,
    /// Only those with this label of this value.
    pub label: Option<(String, String)>,
    /// Only those older than this place, which the page before gave.
    pub before: Option<Place>,
}

/// One line of an alert's history.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Serialize)]
#[diesel(table_name = alert_events)]
#[serde(rename_all = "camelCase")]
pub struct AlertEvent {
    /// When.
    #[serde(rename = "at", serialize_with = "rfc3339")]
    pub at_us: i64,
    /// `firing`, `escalated`, `acknowledged` or `resolved`.
    pub event: String,
    /// The level after it.
    pub level: String,
    /// What was measured.
    pub value: Option<f64>,
    /// Who, where a person did it.
    pub actor: Option<String>,
    /// Why, in that person's words.
    pub reason: Option<String>,
    /// What was said.
    pub text: Option<String>,
}

pub(super) fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

/// Every open alert, newest first.
///
/// # Errors
/// Those of the control store.
pub fn open(conn: &mut Conn) -> StoreResult<Vec<Alert>> {
    let rows: Vec<AlertRow> = alerts::table
        .filter(sql::<Bool>("state <> 'resolved'"))
        .order((alerts::opened_at_us.desc(), alerts::id.desc()))
        .select(AlertRow::as_select())
        .load(conn)?;
    rows.into_iter().map(AlertRow::read).collect()
}

/// The newest alerts, open or not, newest first.
///
/// # Errors
/// Those of the control store.
pub fn newest(conn: &mut Conn, limit: u32) -> StoreResult<Vec<Alert>> {
    Ok(list(conn, &AlertFilter::default(), limit)?.0)
}

/// At most `limit` alerts that match, newest first, and where the next page begins. A page may be short and have a next one all the same:
/// see [`SCAN_MAX`].
///
/// # Errors
/// Those of the control store.
pub fn list(conn: &mut Conn, filter: &AlertFilter, limit: u32) -> StoreResult<(Vec<Alert>, Option<Place>)> {
    let end: Option<Place> = piece(filter)
        .order((alerts::opened_at_us.desc(), alerts::id.desc()))
        .offset(SCAN_MAX - 1)
        .limit(1)
        .select((alerts::opened_at_us, alerts::id))
        .first(conn)
        .optional()?;
    let mut query = piece(filter).select(AlertRow::as_select()).limit(i64::from(limit));
    if let Some((at_us, id)) = &end {
        query = query.filter(
            sql::<Bool>("(opened_at_us, id) >= (").bind::<BigInt, _>(*at_us).sql(", ").bind::<Text, _>(id.clone()).sql(")"),
        );
    }
    if let Some(state) = filter.state {
        query = query.filter(alerts::state.eq(state.as_str()));
    }
    if let Some(level) = filter.level {
        query = query.filter(alerts::level.eq(level.as_str()));
    }
    if let Some(kind) = filter.kind {
        query = query.filter(alerts::kind.eq(kind.as_str()));
    }
    if let Some(name) = &filter.name {
        query = query.filter(alerts::name.eq(name.clone()));
    }
    if let Some((name, value)) = &filter.label {
        // Names of labels hold no quotes: configuration and HTTP surface see to it.
        let path = format!("$.\"{name}\"");
        let label = sql::<Bool>("json_extract(labels, ").bind::<Text, _>(path);
        query = query.filter(label.sql(") = ").bind::<Text, _>(value.clone()));
    }
    let rows: Vec<AlertRow> = query.order((alerts::opened_at_us.desc(), alerts::id.desc())).load(conn)?;
    let last = rows.last().filter(|_| rows.len() == limit as usize).map(|last| (last.opened_at_us, last.id.clone()));
    let items: Vec<Alert> = rows.into_iter().map(AlertRow::read).collect::<StoreResult<_>>()?;
    Ok((items, last.or(end)))
}

/// The piece of one index that a page is taken from, as far as equal values and the place before it bound it.
fn piece(filter: &AlertFilter) -> alerts::BoxedQuery<'static, <Conn as Connection>::Backend> {
    let mut query = alerts::table.into_boxed();
    if let Some(subject) = &filter.subject {
        query = query.filter(alerts::subject.eq(subject.clone()));
    } else if matches!(filter.state, Some(AlertState::Firing | AlertState::Acknowledged)) {
        query = query.filter(sql::<Bool>("state <> 'resolved'"));
    } else if let Some(name) = &filter.name {
        query = query.filter(alerts::name.eq(name.clone()));
    }
    if let Some((at_us, id)) = &filter.before {
        query = query
            .filter(sql::<Bool>("(opened_at_us, id) < (").bind::<BigInt, _>(*at_us).sql(", ").bind::<Text, _>(id.clone()).sql(")"));
    }
    query
}

/// What happened to one alert, oldest first; at most 1,000 lines.
///
/// # Errors
/// Those of the control store.
pub fn history(conn: &mut Conn, alert_id: &str) -> StoreResult<Vec<AlertEvent>> {
    let rows = alert_events::table
        .filter(alert_events::alert_id.eq(alert_id))
        .order(alert_events::id.asc())
        .limit(1_000)
        .select(AlertEvent::as_select())
        .load(conn)?;
    Ok(rows)
}

/// Which alerts a silence would mean: those that are open, and those that were opened at or after `since_us`; of each kind how many, and the
/// newest `limit`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meant {
    /// How many are open.
    pub open: u64,
    /// How many were opened since.
    pub recent: u64,
    /// Whether not all that were opened since could be looked at.
    pub cut: bool,
    /// The newest of the open ones.
    pub open_items: Vec<Alert>,
    /// The newest of those opened since.
    pub recent_items: Vec<Alert>,
}

/// Most alerts that a preview looks at.
const MEANT_MAX: i64 = 50_000;
/// Alerts looked at in one query: so many are in memory.
const MEANT_PAGE: u32 = 1_000;

/// What a silence would mean.
///
/// # Errors
/// Those of the control store.
pub fn meant(conn: &mut Conn, matchers: &Matchers, since_us: i64, limit: usize) -> StoreResult<Meant> {
    let mut meant = Meant::default();
    for alert in open(conn)?.into_iter().filter(|alert| matchers.matches(alert)) {
        meant.open += 1;
        if meant.open_items.len() < limit {
            meant.open_items.push(alert);
        }
    }
    let (mut filter, mut looked) = (AlertFilter::default(), 0);
    loop {
        let (page, last) = list(conn, &filter, MEANT_PAGE)?;
        looked += page.len() as i64;
        for alert in page.into_iter().filter(|alert| alert.opened_at_us >= since_us && matchers.matches(alert)) {
            meant.recent += 1;
            if meant.recent_items.len() < limit {
                meant.recent_items.push(alert);
            }
        }
        meant.cut = looked >= MEANT_MAX;
        if meant.cut || last.as_ref().is_none_or(|(at_us, _)| *at_us < since_us) {
            return Ok(meant);
        }
        filter.before = last;
    }
}

/// Drops at most `limit` alerts that were resolved before `before_us`, with their history; returns how many.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<usize> {
    let old: Vec<String> = alerts::table
        .filter(sql::<Bool>("state = 'resolved'"))
        .filter(alerts::resolved_at_us.lt(before_us))
        .limit(i64::from(limit))
        .select(alerts::id)
        .load(conn)?;
    conn.write(|conn| {
        let mut dropped = 0;
        for id in &old {
            diesel::delete(alert_events::table.filter(alert_events::alert_id.eq(id))).execute(conn)?;
            diesel::delete(alert_notices::table.filter(alert_notices::alert_id.eq(id))).execute(conn)?;
            dropped += diesel::delete(alerts::table.filter(alerts::id.eq(id))).execute(conn)?;
        }
        Ok(dropped)
    })
}
