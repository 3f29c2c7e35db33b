//! Looking at issues: one, pages of them, what happened to one, and the end of old ones.

use diesel::prelude::*;
use serde::Serialize;

use super::{Issue, IssueRow, rfc3339, unknown};
use crate::{
    domain::issue::IssueState,
    store::{
        Conn, StoreResult,
        readings::{PAGE_MAX, Page},
        schema::{issue_events, issues},
    },
};

/// Most lines of one issue that are shown: the newest.
const LINES_MAX: i64 = 1_000;

/// Which issues are wanted; what is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssueFilter {
    /// Only those that stand there.
    pub state: Option<IssueState>,
    /// Only those older than the issue with this id: the `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: u32,
}

/// One line of an issue's history.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Serialize)]
#[diesel(table_name = issue_events)]
#[serde(rename_all = "camelCase")]
pub struct IssueLine {
    /// When, microseconds since the epoch (RFC 3339 in JSON).
    #[serde(rename = "at", serialize_with = "rfc3339")]
    pub at_us: i64,
    /// `opened`, `comment`, `alert`, `alert_resolved`, or what a person did: `start`, `resolve`, `close`, `reopen`.
    pub event: String,
    /// A token's name, or `alert`.
    pub actor: String,
    /// What was said, or why.
    pub text: Option<String>,
    /// The alert that it is about.
    pub alert_id: Option<String>,
}

/// Issues, newest first: their ids are UUIDs of version 7, which grow with time.
///
/// # Errors
/// Those of the store.
pub fn list(conn: &mut Conn, filter: &IssueFilter) -> StoreResult<Page<Issue>> {
    let limit = filter.limit.clamp(1, PAGE_MAX);
    let mut query = issues::table.select(IssueRow::as_select()).into_boxed();
    if let Some(state) = filter.state {
        query = query.filter(issues::state.eq(state.as_str()));
    }
    if let Some(cursor) = &filter.cursor {
        query = query.filter(issues::id.lt(cursor.clone()));
    }
    let rows: Vec<IssueRow> = query.order(issues::id.desc()).limit(i64::from(limit) + 1).load(conn)?;
    let more = rows.len() > limit as usize;
    let items: Vec<Issue> = rows.into_iter().take(limit as usize).map(IssueRow::read).collect::<StoreResult<_>>()?;
    let next_cursor = if more { items.last().map(|issue| issue.id.clone()) } else { None };
    Ok(Page { items, next_cursor })
}

/// One issue.
///
/// # Errors
/// `NotFound`; those of the store.
pub fn get(conn: &mut Conn, id: &str) -> StoreResult<Issue> {
    let row = issues::table.find(id).select(IssueRow::as_select()).first(conn).optional()?;
    row.ok_or_else(|| unknown(id))?.read()
}

/// One issue for a person to look at, which is counted where it is a look of its own.
///
/// # Errors
/// `NotFound`; those of the store.
pub fn look(conn: &mut Conn, id: &str, is_counted: bool) -> StoreResult<(Issue, Vec<IssueLine>)> {
    if is_counted {
        diesel::update(issues::table.find(id)).set(issues::views.eq(issues::views + 1)).execute(conn)?;
    }
    Ok((get(conn, id)?, events(conn, id)?))
}

/// What happened to one issue, oldest first; the newest 1,000 lines.
///
/// # Errors
/// Those of the store.
pub fn events(conn: &mut Conn, id: &str) -> StoreResult<Vec<IssueLine>> {
    let mut lines = issue_events::table
        .filter(issue_events::issue_id.eq(id))
        .order(issue_events::id.desc())
        .limit(LINES_MAX)
        .select(IssueLine::as_select())
        .load(conn)?;
    lines.reverse();
    Ok(lines)
}

/// Drops at most `limit` issues that were closed before `before_us`, with their lines; returns how many.
///
/// # Errors
/// Those of the store.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<u64> {
    let old: Vec<String> = issues::table
        // As a word of the statement: that of the partial index.
        .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state = 'CLOSED'"))
        .filter(issues::closed_at_us.lt(before_us))
        .limit(i64::from(limit))
        .select(issues::id)
        .load(conn)?;
    let mut dropped = 0;
    for ids in old.chunks(500) {
        dropped += conn.write(|conn| {
            let lines = diesel::delete(issue_events::table.filter(issue_events::issue_id.eq_any(ids.to_vec())));
            crate::on_backend!(conn, |c| lines.execute(c))?;
            let gone = diesel::delete(issues::table.filter(issues::id.eq_any(ids.to_vec())));
            Ok(crate::on_backend!(conn, |c| gone.execute(c))? as u64)
        })?;
    }
    Ok(dropped)
}
