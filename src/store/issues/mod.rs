//! Issues: one row each, and what happened to them.
//!
//! In: decisions of people, and alerts that the outbox brings. Out: the rows, pages of them, their events. Each change is one
//! transaction with its event. A crash loses nothing that was committed; an alert's delivery that comes again changes nothing, and
//! at most one issue is worked on for what an alert is about, which the table itself enforces.

mod alert;
mod query;

use diesel::prelude::*;
use serde::{Serialize, Serializer};
use uuid::Uuid;

pub use self::{
    alert::{AlertNews, COLLECT_FROM, Followed, follow_alert},
    query::{IssueFilter, IssueLine, events, get, list, look, prune},
};
use super::{
    Conn, StoreError, StoreResult,
    control::corrupt,
    schema::{issue_events, issues},
};
use crate::domain::{
    alert::Level,
    issue::{self, IssueEvent, IssueState},
    time,
};

/// An issue.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// A UUID of version 7.
    pub id: String,
    /// One line.
    pub title: String,
    /// What it is about, in as many lines as it takes.
    pub body: String,
    /// Where it stands.
    pub state: IssueState,
    /// How much it matters.
    pub level: Option<Level>,
    /// Of the alert that opened it: rule or system.
    pub kind: Option<String>,
    /// Of that alert: the rule's or condition's name.
    pub name: Option<String>,
    /// The engine id or the part of the system; `*` where it collects several.
    pub subject: Option<String>,
    /// A token's name, or `alert`.
    pub opened_by: String,
    /// How often it was looked at.
    pub views: u64,
    /// How often people said something.
    pub comment_count: u64,
    /// When it was opened, microseconds since the epoch (RFC 3339 in JSON, as the others).
    #[serde(rename = "openedAt", serialize_with = "rfc3339")]
    pub created_at_us: i64,
    /// When anything happened to it last.
    #[serde(rename = "updatedAt", serialize_with = "rfc3339")]
    pub updated_at_us: i64,
    /// When it was mended last.
    #[serde(rename = "resolvedAt", serialize_with = "rfc3339_option")]
    pub resolved_at_us: Option<i64>,
    /// When it was closed last.
    #[serde(rename = "closedAt", serialize_with = "rfc3339_option")]
    pub closed_at_us: Option<i64>,
}

fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

fn rfc3339_option<S: Serializer>(at_us: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at_us.map(time::rfc3339_us).serialize(serializer)
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = issues)]
struct IssueRow {
    id: String,
    title: String,
    body: String,
    state: String,
    level: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    subject: Option<String>,
    opened_by: String,
    views: i64,
    comments: i64,
    created_at_us: i64,
    updated_at_us: i64,
    resolved_at_us: Option<i64>,
    closed_at_us: Option<i64>,
}

impl IssueRow {
    fn read(self) -> StoreResult<Issue> {
        Ok(Issue {
            state: self.state.parse().map_err(|_| corrupt("issues.state", &self.state))?,
            level: match &self.level {
                Some(level) => Some(level.parse().map_err(|_| corrupt("issues.level", level))?),
                None => None,
            },
            id: self.id,
            title: self.title,
            body: self.body,
            kind: self.kind,
            name: self.name,
            subject: self.subject,
            opened_by: self.opened_by,
            views: self.views.unsigned_abs(),
            comment_count: self.comments.unsigned_abs(),
            created_at_us: self.created_at_us,
            updated_at_us: self.updated_at_us,
            resolved_at_us: self.resolved_at_us,
            closed_at_us: self.closed_at_us,
        })
    }
}

/// An issue to be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewIssue {
    /// One line.
    pub title: String,
    /// What it is about.
    pub body: String,
    /// How much it matters.
    pub level: Option<Level>,
    /// Rule or system, where an alert opens it.
    pub kind: Option<String>,
    /// The rule or condition, where an alert opens it.
    pub name: Option<String>,
    /// The engine or part.
    pub subject: Option<String>,
    /// Who opens it.
    pub opened_by: String,
}

/// A line of an issue's history, about to be written.
#[derive(Default)]
struct Line<'a> {
    event: &'a str,
    actor: &'a str,
    text: Option<&'a str>,
    alert_id: Option<&'a str>,
    delivery_id: Option<&'a str>,
}

fn write_line(conn: &mut Conn, id: &str, line: &Line<'_>, now_us: i64) -> StoreResult<()> {
    let row = (
        issue_events::issue_id.eq(id),
        issue_events::at_us.eq(now_us),
        issue_events::event.eq(line.event),
        issue_events::actor.eq(line.actor),
        issue_events::text.eq(line.text),
        issue_events::alert_id.eq(line.alert_id),
        issue_events::delivery_id.eq(line.delivery_id),
    );
    diesel::insert_into(issue_events::table).values(row).execute(conn)?;
    Ok(())
}

/// A person opens an issue.
///
/// # Errors
/// Those of the store.
pub fn open(conn: &mut Conn, new: &NewIssue, now_us: i64) -> StoreResult<Issue> {
    conn.write(|conn| {
        let id = insert(conn, new, now_us)?;
        write_line(conn, &id, &Line { event: "opened", actor: &new.opened_by, ..Line::default() }, now_us)?;
        get(conn, &id)
    })
}

fn insert(conn: &mut Conn, new: &NewIssue, now_us: i64) -> StoreResult<String> {
    let id = Uuid::now_v7().to_string();
    let row = (
        issues::id.eq(&id),
        issues::title.eq(&new.title),
        issues::body.eq(&new.body),
        issues::state.eq(IssueState::Open.as_str()),
        issues::level.eq(new.level.map(Level::as_str)),
        issues::kind.eq(new.kind.as_deref()),
        issues::name.eq(new.name.as_deref()),
        issues::subject.eq(new.subject.as_deref()),
        issues::opened_by.eq(&new.opened_by),
        issues::created_at_us.eq(now_us),
        issues::updated_at_us.eq(now_us),
    );
    diesel::insert_into(issues::table).values(row).execute(conn)?;
    Ok(id)
}

/// A person says something.
///
/// # Errors
/// `NotFound`; those of the store.
pub fn comment(conn: &mut Conn, id: &str, by: &str, text: &str, now_us: i64) -> StoreResult<Issue> {
    conn.write(|conn| {
        let said = (issues::comments.eq(issues::comments + 1), issues::updated_at_us.eq(now_us));
        if diesel::update(issues::table.find(id)).set(said).execute(conn)? == 0 {
            return Err(unknown(id));
        }
        write_line(conn, id, &Line { event: "comment", actor: by, text: Some(text), ..Line::default() }, now_us)?;
        get(conn, id)
    })
}

/// A person moves an issue.
///
/// # Errors
/// `NotFound`; `Conflict` where the state machine has no such move, or where another issue of the same condition is worked on
/// already; those of the store.
pub fn act(conn: &mut Conn, id: &str, event: IssueEvent, by: &str, reason: &str, now_us: i64) -> StoreResult<Issue> {
    conn.write(|conn| {
        let found = get(conn, id)?;
        let to = issue::next(found.state, event).map_err(|illegal| StoreError::conflict(illegal.to_string()))?;
        if to == IssueState::Open
            && let (Some(kind), Some(name), Some(subject)) = (&found.kind, &found.name, &found.subject)
            && let Some(other) = alert::worked_on(conn, kind, name, subject)?.filter(|other| other != id)
        {
            return Err(StoreError::conflict(format!("issue {other} is worked on for the same condition; add to that one")));
        }
        let moved = (
            issues::state.eq(to.as_str()),
            issues::updated_at_us.eq(now_us),
            issues::resolved_at_us.eq(match to {
                IssueState::Resolved => Some(now_us),
                IssueState::Closed => found.resolved_at_us,
                IssueState::Open | IssueState::InProgress => None,
            }),
            issues::closed_at_us.eq((to == IssueState::Closed).then_some(now_us)),
        );
        // The state it was found in is the guard: two people who decide at once do not both win.
        let row = issues::table.find(id).filter(issues::state.eq(found.state.as_str()));
        if diesel::update(row).set(moved).execute(conn)? == 0 {
            return Err(StoreError::conflict(format!("issue {id} has just been moved by someone else; look again")));
        }
        write_line(conn, id, &Line { event: event.as_str(), actor: by, text: Some(reason), ..Line::default() }, now_us)?;
        get(conn, id)
    })
}

fn unknown(id: &str) -> StoreError {
    let id: String = id.chars().take(64).collect();
    StoreError::not_found(format!("there is no issue {id}"))
}
