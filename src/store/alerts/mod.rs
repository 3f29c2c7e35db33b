//! Alerts: one row an episode, and the history of what happened to it.
//!
//! In: transitions and acknowledgements, inside the transaction that also writes deliveries and rule state. Out: open alerts,
//! lists, histories, and what was told of each to whom. A crash loses nothing that was committed; at most one episode is open for each
//! (kind, name, subject), which the table itself enforces. Which moves are legal says [`domain::alert`](crate::domain::alert).

pub mod fallbacks;
pub mod groups;
pub mod looks;
pub mod notices;
mod query;
#[cfg(test)]
mod tests;

use diesel::prelude::*;
use uuid::Uuid;

pub use self::query::{AlertEvent, AlertFilter, Meant, Place, SCAN_MAX, history, list, meant, newest, open, prune};
use super::{
    Conn, StoreError, StoreResult,
    control::corrupt,
    control_schema::{alert_events, alerts},
};
use crate::domain::alert::{self, Alert, AlertState, Event, Labels, Transition};

/// What a transition did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new episode began.
    Opened,
    /// The open episode was raised again at a higher level.
    Escalated,
    /// The open episode was raised again; nobody needs to be told.
    Repeated,
    /// The episode is over.
    Resolved,
}

impl Change {
    /// The word in the history, in notices and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "firing",
            Self::Escalated => "escalated",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
        }
    }
}

/// What became of a wish to acknowledge.
#[derive(Clone, Debug, PartialEq)]
pub enum Acknowledged {
    /// It is acknowledged now, or was already.
    Yes(Box<Alert>),
    /// It is over; there is nothing to take on.
    Resolved,
    /// No alert has this id.
    NotFound,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = alerts)]
struct AlertRow {
    id: String,
    kind: String,
    name: String,
    subject: String,
    level: String,
    state: String,
    text: String,
    value: Option<f64>,
    threshold: Option<f64>,
    count: i64,
    opened_at_us: i64,
    acknowledged_at_us: Option<i64>,
    acknowledged_by: Option<String>,
    resolved_at_us: Option<i64>,
    labels: String,
}

impl AlertRow {
    fn read(self) -> StoreResult<Alert> {
        Ok(Alert {
            kind: self.kind.parse().map_err(|_| corrupt("alerts.kind", &self.kind))?,
            level: self.level.parse().map_err(|_| corrupt("alerts.level", &self.level))?,
            state: self.state.parse().map_err(|_| corrupt("alerts.state", &self.state))?,
            labels: serde_json::from_str(&self.labels).map_err(|_| corrupt("alerts.labels", &self.labels))?,
            id: self.id,
            name: self.name,
            subject: self.subject,
            opened_at_us: self.opened_at_us,
            acknowledged_at_us: self.acknowledged_at_us,
            acknowledged_by: self.acknowledged_by,
            resolved_at_us: self.resolved_at_us,
            value: self.value,
            threshold: self.threshold,
            text: self.text,
            count: self.count.unsigned_abs(),
        })
    }
}

/// Takes one transition over: opens, updates or resolves the episode of its (kind, name, subject), which keeps the labels that it was
/// opened with. `None` where it resolves nothing. Call it in a writing transaction.
///
/// # Errors
/// Those of the control store.
pub fn take_over(conn: &mut Conn, transition: &Transition, labels: &Labels, now_us: i64) -> StoreResult<Option<(Alert, Change)>> {
    let open = find_open(conn, transition)?;
    let (alert, change) = match (open, transition.firing) {
        (None, false) => return Ok(None),
        (None, true) => (begin(transition, labels), Change::Opened),
        (Some(alert), true) => repeat(alert, transition)?,
        (Some(alert), false) => (end(alert, transition)?, Change::Resolved),
    };
    write(conn, &alert, change, now_us)?;
    if change != Change::Repeated {
        let event = (
            alert_events::alert_id.eq(&alert.id),
            alert_events::at_us.eq(transition.observed_at_us),
            alert_events::event.eq(change.as_str()),
            alert_events::level.eq(alert.level.as_str()),
            alert_events::value.eq(transition.value),
            alert_events::text.eq(&transition.text),
        );
        diesel::insert_into(alert_events::table).values(event).execute(conn)?;
    }
    Ok(Some((alert, change)))
}

fn find_open(conn: &mut Conn, transition: &Transition) -> StoreResult<Option<Alert>> {
    alerts::table
        .filter(alerts::kind.eq(transition.kind.as_str()))
        .filter(alerts::name.eq(&transition.name))
        .filter(alerts::subject.eq(&transition.subject))
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state <> 'resolved'"))
        .select(AlertRow::as_select())
        .first(conn)
        .optional()?
        .map(AlertRow::read)
        .transpose()
}

fn begin(transition: &Transition, labels: &Labels) -> Alert {
    Alert {
        id: Uuid::now_v7().to_string(),
        kind: transition.kind,
        name: transition.name.clone(),
        subject: transition.subject.clone(),
        level: transition.level,
        state: AlertState::Firing,
        opened_at_us: transition.observed_at_us,
        acknowledged_at_us: None,
        acknowledged_by: None,
        resolved_at_us: None,
        value: transition.value,
        threshold: transition.threshold,
        text: transition.text.clone(),
        count: 1,
        labels: labels.clone(),
    }
}

/// Where the alert goes by the table of moves; what the table does not have is a conflict.
fn moved(alert: &Alert, event: Event) -> StoreResult<AlertState> {
    alert::next(alert.state, event).map_err(|illegal| StoreError::conflict(illegal.to_string()))
}

fn repeat(alert: Alert, transition: &Transition) -> StoreResult<(Alert, Change)> {
    let (change, event) =
        if transition.level > alert.level { (Change::Escalated, Event::Escalate) } else { (Change::Repeated, Event::Repeat) };
    let alert = Alert {
        state: moved(&alert, event)?,
        level: alert.level.max(transition.level),
        value: transition.value.or(alert.value),
        threshold: transition.threshold.or(alert.threshold),
        text: transition.text.clone(),
        count: alert.count.saturating_add(1),
        ..alert
    };
    Ok((alert, change))
}

fn end(alert: Alert, transition: &Transition) -> StoreResult<Alert> {
    let state = moved(&alert, Event::Resolve)?;
    // A reading's time may lie before the episode's begin; an episode never ends before it began.
    let resolved_at_us = Some(transition.observed_at_us.max(alert.opened_at_us));
    // Text and value speak of the same moment; how it began stands in the history.
    let text = if transition.text.is_empty() { alert.text } else { transition.text.clone() };
    Ok(Alert { state, resolved_at_us, value: transition.value.or(alert.value), text, ..alert })
}

fn write(conn: &mut Conn, alert: &Alert, change: Change, now_us: i64) -> StoreResult<()> {
    let moving = (
        alerts::level.eq(alert.level.as_str()),
        alerts::state.eq(alert.state.as_str()),
        alerts::text.eq(&alert.text),
        alerts::value.eq(alert.value),
        alerts::threshold.eq(alert.threshold),
        alerts::count.eq(i64::try_from(alert.count).unwrap_or(i64::MAX)),
        alerts::updated_at_us.eq(now_us),
        alerts::resolved_at_us.eq(alert.resolved_at_us),
    );
    if change != Change::Opened {
        diesel::update(alerts::table.filter(alerts::id.eq(&alert.id))).set(moving).execute(conn)?;
        return Ok(());
    }
    let fixed = (
        alerts::id.eq(&alert.id),
        alerts::kind.eq(alert.kind.as_str()),
        alerts::name.eq(&alert.name),
        alerts::subject.eq(&alert.subject),
        alerts::opened_at_us.eq(alert.opened_at_us),
        alerts::labels.eq(encode_labels(&alert.labels)),
    );
    diesel::insert_into(alerts::table).values((fixed, moving)).execute(conn)?;
    Ok(())
}

fn encode_labels(labels: &Labels) -> String {
    // Texts by text: this cannot fail.
    serde_json::to_string(labels).unwrap_or_else(|_| "{}".to_owned())
}

/// A person takes an alert on. Call it in a writing transaction, with the audit row.
///
/// # Errors
/// Those of the control store.
pub fn acknowledge(conn: &mut Conn, id: &str, by: &str, reason: Option<&str>, now_us: i64) -> StoreResult<Acknowledged> {
    let found = alerts::table.filter(alerts::id.eq(id)).select(AlertRow::as_select()).first(conn).optional()?;
    let Some(alert) = found.map(AlertRow::read).transpose()? else { return Ok(Acknowledged::NotFound) };
    let Ok(state) = alert::next(alert.state, Event::Acknowledge) else { return Ok(Acknowledged::Resolved) };
    if alert.state == state {
        return Ok(Acknowledged::Yes(Box::new(alert)));
    }
    let alert = Alert { state, acknowledged_at_us: Some(now_us), acknowledged_by: Some(by.to_owned()), ..alert };
    diesel::update(alerts::table.filter(alerts::id.eq(id)))
        .set((
            alerts::state.eq(alert.state.as_str()),
            alerts::acknowledged_at_us.eq(alert.acknowledged_at_us),
            alerts::acknowledged_by.eq(by),
            alerts::updated_at_us.eq(now_us),
        ))
        .execute(conn)?;
    let event = (
        alert_events::alert_id.eq(id),
        alert_events::at_us.eq(now_us),
        alert_events::event.eq("acknowledged"),
        alert_events::level.eq(alert.level.as_str()),
        alert_events::actor.eq(by),
        alert_events::reason.eq(reason),
    );
    diesel::insert_into(alert_events::table).values(event).execute(conn)?;
    Ok(Acknowledged::Yes(Box::new(alert)))
}

/// One alert.
///
/// # Errors
/// `NotFound`; those of the control store.
pub fn get(conn: &mut Conn, id: &str) -> StoreResult<Alert> {
    let found = alerts::table.filter(alerts::id.eq(id)).select(AlertRow::as_select()).first(conn).optional()?;
    found.ok_or_else(|| StoreError::not_found(format!("there is no alert {id}")))?.read()
}
