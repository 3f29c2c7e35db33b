//! Readings that were not stored, kept for a person: look, try again, or give up.
//!
//! In: conflicts and dead readings from the drain's transaction; decisions of people. Out: the rows, and by how much a decision
//! moves the account of the stream, so that the sums in memory can follow. Each decision is one transaction with the ledger.

use std::str::FromStr;

use diesel::prelude::*;
use serde::Serialize;
use serde_json::value::RawValue;

mod decide;

pub use decide::{Delta, Retried, discard, retry, retry_for};

use super::{Conn, StoreError, StoreResult, schema::reading_failures};
use crate::domain::ack::UnknownWord;

/// Why a reading was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// Another reading holds its engine and time, with other values.
    Conflict,
    /// The database can never take it.
    Dead,
}

impl FailureKind {
    /// The word in SQL, JSON and parameters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Dead => "dead",
        }
    }
}

impl FromStr for FailureKind {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "conflict" => Ok(Self::Conflict),
            "dead" => Ok(Self::Dead),
            _ => Err(UnknownWord::new(text, &["conflict", "dead"])),
        }
    }
}

/// What has been decided: `open -> retried` or `open -> discarded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureState {
    /// Nothing yet.
    Open,
    /// Tried again, and settled.
    Retried,
    /// Given up.
    Discarded,
}

impl FailureState {
    /// The word in SQL, JSON and parameters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retried => "retried",
            Self::Discarded => "discarded",
        }
    }
}

impl FromStr for FailureState {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "retried" => Ok(Self::Retried),
            "discarded" => Ok(Self::Discarded),
            _ => Err(UnknownWord::new(text, &["open", "retried", "discarded"])),
        }
    }
}

/// A row of `reading_failures` as people see it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadingFailure {
    /// Its name in the API.
    pub id: String,
    /// Why it was not stored.
    pub kind: FailureKind,
    /// What has been decided.
    pub state: FailureState,
    /// The stream that numbered the reading.
    pub stream: String,
    /// Its number.
    pub seq: i64,
    /// The engine.
    pub engine_id: String,
    /// When it was measured, microseconds since the epoch.
    pub observed_at_us: i64,
    /// The reading.
    pub payload: Box<RawValue>,
    /// The reading that holds the key, as it was then; conflicts only.
    pub existing: Option<Box<RawValue>>,
    /// The database's own code; dead ones only.
    pub error_code: Option<String>,
    /// What the database said.
    pub message: String,
    /// How often it was tried again.
    pub attempts: i32,
    /// Why it was last decided so.
    pub reason: Option<String>,
    /// Who decided.
    pub actor: Option<String>,
    /// When it failed, microseconds since the epoch.
    pub created_at_us: i64,
    /// When it last changed.
    pub updated_at_us: i64,
}

/// The columns of `reading_failures`.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = reading_failures)]
struct FailureRow {
    id: String,
    kind: String,
    state: String,
    stream: String,
    seq: i64,
    engine_id: String,
    observed_at_us: i64,
    payload: String,
    existing: Option<String>,
    error_code: Option<String>,
    message: String,
    attempts: i32,
    reason: Option<String>,
    actor: Option<String>,
    created_at_us: i64,
    updated_at_us: i64,
}

impl TryFrom<FailureRow> for ReadingFailure {
    type Error = StoreError;

    fn try_from(row: FailureRow) -> Result<Self, StoreError> {
        let damaged = || StoreError::new(super::StoreErrorKind::Corrupt, format!("the reading failure {} is damaged", row.id));
        let json = |text: &str| RawValue::from_string(text.to_owned()).map_err(|_| damaged());
        Ok(Self {
            kind: row.kind.parse().map_err(|_| damaged())?,
            state: row.state.parse().map_err(|_| damaged())?,
            payload: json(&row.payload)?,
            existing: row.existing.as_deref().map(json).transpose()?,
            id: row.id,
            stream: row.stream,
            seq: row.seq,
            engine_id: row.engine_id,
            observed_at_us: row.observed_at_us,
            error_code: row.error_code,
            message: row.message,
            attempts: row.attempts,
            reason: row.reason,
            actor: row.actor,
            created_at_us: row.created_at_us,
            updated_at_us: row.updated_at_us,
        })
    }
}

/// A failure about to be recorded, within the drain's transaction.
#[derive(Insertable)]
#[diesel(table_name = reading_failures, treat_none_as_default_value = false)]
pub(super) struct NewFailure<'a> {
    pub(super) id: String,
    pub(super) kind: &'a str,
    pub(super) state: &'a str,
    pub(super) stream: &'a str,
    pub(super) seq: i64,
    pub(super) engine_id: &'a str,
    pub(super) observed_at_us: i64,
    pub(super) payload: String,
    pub(super) existing: Option<String>,
    pub(super) error_code: Option<&'a str>,
    pub(super) message: &'a str,
    pub(super) attempts: i32,
    pub(super) created_at_us: i64,
    pub(super) updated_at_us: i64,
}

pub(super) fn record(conn: &mut Conn, failure: &NewFailure<'_>) -> StoreResult<()> {
    diesel::insert_into(reading_failures::table).values(failure).execute(conn)?;
    Ok(())
}

/// Which failures are wanted; what is left out matches all.
#[derive(Clone, Debug, Default)]
pub struct FailureFilter {
    /// Only of this kind.
    pub kind: Option<FailureKind>,
    /// Only in this state.
    pub state: Option<FailureState>,
    /// Only those older than the failure with this id: the `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many, 1 to 1,000.
    pub limit: u32,
}

/// Failures, newest first: their ids are UUIDs of version 7, which grow with time.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &mut Conn, filter: &FailureFilter) -> StoreResult<super::readings::Page<ReadingFailure>> {
    let limit = filter.limit.clamp(1, super::readings::PAGE_MAX);
    let mut query = reading_failures::table.select(FailureRow::as_select()).into_boxed();
    if let Some(kind) = filter.kind {
        query = query.filter(reading_failures::kind.eq(kind.as_str()));
    }
    if let Some(state) = filter.state {
        query = query.filter(reading_failures::state.eq(state.as_str()));
    }
    if let Some(cursor) = &filter.cursor {
        query = query.filter(reading_failures::id.lt(cursor.clone()));
    }
    let rows: Vec<FailureRow> = query.order(reading_failures::id.desc()).limit(i64::from(limit) + 1).load(conn)?;
    let more = rows.len() > limit as usize;
    let items: Vec<ReadingFailure> =
        rows.into_iter().take(limit as usize).map(ReadingFailure::try_from).collect::<StoreResult<_>>()?;
    let next_cursor = if more { items.last().map(|failure| failure.id.clone()) } else { None };
    Ok(super::readings::Page { items, next_cursor })
}

/// One failure.
///
/// # Errors
/// [`StoreErrorKind::NotFound`](super::StoreErrorKind::NotFound), or those of the database.
pub fn get(conn: &mut Conn, id: &str) -> StoreResult<ReadingFailure> {
    let row = reading_failures::table.find(id).select(FailureRow::as_select()).first(conn).optional()?;
    row.ok_or_else(|| unknown(id))?.try_into()
}

fn unknown(id: &str) -> StoreError {
    let id: String = id.chars().take(64).collect();
    StoreError::not_found(format!("there is no reading failure {id}"))
}

/// How many failures wait for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureCounts {
    /// Open conflicts.
    pub conflict: u64,
    /// Open dead readings.
    pub dead: u64,
}

/// Counts the open failures.
///
/// # Errors
/// Those of the database.
pub fn counts(conn: &mut Conn) -> StoreResult<FailureCounts> {
    let rows: Vec<(String, i64)> = reading_failures::table
        .filter(reading_failures::state.eq(FailureState::Open.as_str()))
        .group_by(reading_failures::kind)
        .select((reading_failures::kind, diesel::dsl::count_star()))
        .load(conn)?;
    let of = |kind: FailureKind| rows.iter().find(|(word, _)| word == kind.as_str()).map_or(0, |(_, count)| count.unsigned_abs());
    Ok(FailureCounts { conflict: of(FailureKind::Conflict), dead: of(FailureKind::Dead) })
}

/// Removes failures that were decided before `before_us`, at most `max_rows`, and returns how many. Open ones stay.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, max_rows: u32) -> StoreResult<u64> {
    let old: Vec<String> = reading_failures::table
        .filter(reading_failures::state.ne(FailureState::Open.as_str()))
        .filter(reading_failures::updated_at_us.lt(before_us))
        .order(reading_failures::id)
        .limit(i64::from(max_rows))
        .select(reading_failures::id)
        .load(conn)?;
    let mut removed = 0;
    // In slices: SQLite takes 32,766 parameters at most.
    for ids in old.chunks(1_000) {
        removed += conn.write(|conn| {
            let gone = diesel::delete(reading_failures::table.filter(reading_failures::id.eq_any(ids.to_vec())));
            Ok(crate::on_backend!(conn, |c| gone.execute(c))? as u64)
        })?;
    }
    Ok(removed)
}
