//! What an alert does to issues: it opens one, adds to the one that is worked on, or says there that it is over.

use diesel::prelude::*;

use super::{Line, NewIssue, insert, write_line};
use crate::{
    domain::{alert::Level, issue::IssueState},
    store::{
        Conn, StoreResult,
        schema::{issue_events, issues},
    },
};

/// Issues of one rule or condition that are worked on, from which on further alerts of it are collected in one issue.
pub const COLLECT_FROM: i64 = 20;
/// The subject of an issue that collects.
const EVERYTHING: &str = "*";
/// Who opens issues for alerts.
const ALERT: &str = "alert";

/// What the outbox brings of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertNews {
    /// The delivery's id: one that comes again changes nothing.
    pub delivery_id: String,
    /// The alert.
    pub alert_id: String,
    /// Whether it is over.
    pub resolved: bool,
    /// Rule or system.
    pub kind: String,
    /// The rule's or condition's name.
    pub name: String,
    /// The engine id or the part of the system.
    pub subject: String,
    /// Its level.
    pub level: Level,
    /// Its sentence.
    pub text: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A new issue.
    Opened(String),
    /// A line of an issue that is worked on.
    Added(String),
    /// It had come before, or is the end of an alert that nobody works on.
    Nothing,
}

/// Takes an alert's news over.
///
/// # Errors
/// Those of the store; `Conflict` where another instance has just opened the issue: come again.
pub fn follow_alert(conn: &mut Conn, news: &AlertNews, now_us: i64) -> StoreResult<Followed> {
    conn.write(|conn| {
        let known: Option<i64> = issue_events::table
            .filter(issue_events::delivery_id.eq(&news.delivery_id))
            .select(issue_events::id)
            .first(conn)
            .optional()?;
        if known.is_some() {
            return Ok(Followed::Nothing);
        }
        let exact = worked_on(conn, &news.kind, &news.name, &news.subject)?;
        let found = match exact {
            Some(id) => Some(id),
            None => worked_on(conn, &news.kind, &news.name, EVERYTHING)?,
        };
        let line = Line {
            event: if news.resolved { "alert_resolved" } else { ALERT },
            actor: ALERT,
            text: Some(&news.text),
            alert_id: Some(&news.alert_id),
            delivery_id: Some(&news.delivery_id),
        };
        match found {
            Some(id) => {
                write_line(conn, &id, &line, now_us)?;
                diesel::update(issues::table.find(&id)).set(issues::updated_at_us.eq(now_us)).execute(conn)?;
                Ok(Followed::Added(id))
            }
            None if news.resolved => Ok(Followed::Nothing),
            None => {
                let collects = count_worked_on(conn, news)? >= COLLECT_FROM;
                let id = insert(conn, &issue_of(news, collects), now_us)?;
                write_line(conn, &id, &Line { event: "opened", ..line }, now_us)?;
                Ok(Followed::Opened(id))
            }
        }
    })
}

fn issue_of(news: &AlertNews, collects: bool) -> NewIssue {
    let subject = if collects { EVERYTHING } else { &news.subject };
    NewIssue {
        title: format!("{} {}", news.name, if collects { "(several)" } else { subject }),
        body: news.text.clone(),
        level: Some(news.level),
        kind: Some(news.kind.clone()),
        name: Some(news.name.clone()),
        subject: Some(subject.to_owned()),
        opened_by: ALERT.to_owned(),
    }
}

/// The issue that is worked on for a condition of a subject.
pub(super) fn worked_on(conn: &mut Conn, kind: &str, name: &str, subject: &str) -> StoreResult<Option<String>> {
    let id = issues::table
        .filter(issues::kind.eq(kind))
        .filter(issues::name.eq(name))
        .filter(issues::subject.eq(subject))
        .filter(issues::state.eq_any(IssueState::WORKED_ON.map(IssueState::as_str)))
        .select(issues::id);
    Ok(crate::on_backend!(conn, |c| id.first(c).optional())?)
}

fn count_worked_on(conn: &mut Conn, news: &AlertNews) -> StoreResult<i64> {
    let count = issues::table
        .filter(issues::kind.eq(&news.kind))
        .filter(issues::name.eq(&news.name))
        .filter(issues::state.eq_any(IssueState::WORKED_ON.map(IssueState::as_str)))
        .count();
    Ok(crate::on_backend!(conn, |c| count.get_result(c))?)
}
