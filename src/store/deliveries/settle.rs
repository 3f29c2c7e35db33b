//! Writing down what became of attempts, and finding those whose worker vanished.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use super::{COLUMNS, DeliveryRow, claim, literals};
use crate::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{Conn, StoreResult, control_schema::deliveries, relay},
};

/// Longest error or answer that is kept, in characters.
const ERROR_MAX_CHARS: usize = 500;
/// Rows looked at in one pass over vanished workers.
const RECLAIM_ROWS: i64 = 500;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver confirmed it.
    Sent,
    /// Another attempt at `at_us`.
    Retry {
        /// When, microseconds since the epoch.
        at_us: i64,
    },
    /// No answer; it goes out again at `at_us`, marked as a possible repeat.
    Repeat {
        /// When, microseconds since the epoch.
        at_us: i64,
    },
    /// No answer; a person decides.
    Uncertain,
    /// The receiver will never take it.
    Rejected,
    /// The last allowed attempt failed.
    Exhausted,
    /// The attempt was not made after all.
    GivenBack,
    /// The attempt was not made, because another instance may have told already; it is not counted, and asked again at `at_us`.
    Postponed {
        /// When, microseconds since the epoch.
        at_us: i64,
        /// Attempts before this one.
        attempts: u32,
    },
    /// Another instance has told the receiver.
    ToldByAnother,
}

impl Outcome {
    /// The event of the state machine.
    pub fn event(&self) -> Event {
        match self {
            Self::Sent | Self::ToldByAnother => Event::SentOk,
            Self::Retry { .. } | Self::Postponed { .. } => Event::Retry,
            Self::Repeat { .. } => Event::Repeat,
            Self::Uncertain => Event::OutcomeUnknown,
            Self::Rejected => Event::Reject,
            Self::Exhausted => Event::ExhaustedAttempts,
            Self::GivenBack => Event::GiveBack,
        }
    }
}

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The claim under which it was made.
    pub held: claim::Held,
    /// What became of it.
    pub outcome: Outcome,
    /// A fixed word and a sentence, where it failed.
    pub error: Option<(String, String)>,
    /// What the receiver answered, where it took it.
    pub answer: Option<String>,
}

/// What a move changes beside the state; `None` leaves a column as it is.
#[derive(Default, AsChangeset)]
#[diesel(table_name = deliveries)]
pub(super) struct Patch<'a> {
    pub(super) state: &'static str,
    pub(super) updated_at_us: i64,
    pub(super) due_at_us: Option<i64>,
    pub(super) attempt: Option<i32>,
    pub(super) last_error_type: Option<&'a str>,
    pub(super) last_error: Option<&'a str>,
    pub(super) answer: Option<&'a str>,
    pub(super) possible_repeat: Option<i32>,
    pub(super) settled_at_us: Option<i64>,
    pub(super) lease_until_us: Option<Option<i64>>,
    pub(super) claimed_by: Option<Option<&'a str>>,
}

impl Patch<'_> {
    /// What every move out of a worker's hands or by a person's does.
    pub(super) fn of(event: Event, now_us: i64) -> Self {
        let target = event.target();
        Self {
            state: target.as_str(),
            updated_at_us: now_us,
            settled_at_us: target.is_final().then_some(now_us),
            lease_until_us: Some(None),
            claimed_by: Some(None),
            ..Self::default()
        }
    }
}

/// Carries out one move, if the delivery stands where the move starts and, with a fence, the claim still holds.
pub(super) fn apply(conn: &mut Conn, id: &str, fence: Option<i64>, event: Event, patch: &Patch<'_>) -> StoreResult<bool> {
    let from: Vec<&str> = event.sources().iter().map(|state| state.as_str()).collect();
    let moved = on_backend!(conn, |c| {
        let row = deliveries::table.filter(deliveries::id.eq(id)).filter(deliveries::state.eq_any(from));
        match fence {
            Some(epoch) => diesel::update(row.filter(deliveries::epoch.eq(epoch))).set(patch).execute(c),
            None => diesel::update(row).set(patch).execute(c),
        }
    })?;
    Ok(moved == 1)
}

/// Writes down the ends of attempts. Returns the claims that no longer held: their deliveries belong to another worker and are
/// left alone. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn settle(conn: &mut Conn, settlements: &[Settlement], now_us: i64) -> StoreResult<Vec<claim::Held>> {
    let mut fenced = Vec::new();
    for settlement in settlements {
        let event = settlement.outcome.event();
        let mut patch = Patch::of(event, now_us);
        let error = settlement.error.as_ref().map(|(word, text)| (word.as_str(), cut(text)));
        if let Some((word, text)) = error {
            patch.last_error_type = Some(word);
            patch.last_error = Some(text);
        }
        patch.answer = settlement.answer.as_deref().map(cut);
        match settlement.outcome {
            Outcome::Retry { at_us } => patch.due_at_us = Some(at_us),
            Outcome::Postponed { at_us, attempts } => {
                patch.due_at_us = Some(at_us);
                patch.attempt = Some(i32::try_from(attempts).unwrap_or(i32::MAX));
            }
            Outcome::Repeat { at_us } => {
                patch.due_at_us = Some(at_us);
                patch.possible_repeat = Some(1);
            }
            _ => {}
        }
        if !apply(conn, &settlement.held.id, Some(settlement.held.epoch), event, &patch)? {
            fenced.push(settlement.held.clone());
        }
    }
    Ok(fenced)
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(ERROR_MAX_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// Whose claims are void.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// Everybody's: an SQLite file has one process, and it has just started.
    Anyone,
    /// This worker's: it restarted.
    Worker(&'a str),
}

/// Frees the claims of a worker that restarted, except those in `keep`, which it still works on. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn take_back(conn: &mut Conn, owner: Owner<'_>, keep: &[claim::Held], now_us: i64) -> StoreResult<usize> {
    let states = literals(&[DeliveryState::Claimed, DeliveryState::Sending]);
    // A relay's runs have no lease of their own: whoever holds the lane's finds out what Kafka made of them.
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE state IN ({states}) AND sink <> '{}'", relay::SINK);
    let rows: Vec<DeliveryRow> = match owner {
        Owner::Anyone => on_backend!(conn, |c| diesel::sql_query(text).load(c))?,
        Owner::Worker(worker) => {
            on_backend!(conn, |c| diesel::sql_query(format!("{text} AND claimed_by = $1")).bind::<Text, _>(worker).load(c))?
        }
    };
    let lost: Vec<DeliveryRow> = rows.into_iter().filter(|row| !keep.contains(&row.held())).collect();
    free(conn, &lost, Event::GiveBack, now_us)
}

/// Frees deliveries whose lease has run out. Returns how many. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn reclaim_expired(conn: &mut Conn, now_us: i64) -> StoreResult<usize> {
    let states = literals(&[DeliveryState::Claimed, DeliveryState::Sending]);
    let rows: Vec<DeliveryRow> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(format!(
            "SELECT {COLUMNS} FROM deliveries WHERE state IN ({states}) AND lease_until_us < $1 LIMIT {RECLAIM_ROWS}"
        ))
        .bind::<BigInt, _>(claim::monotonic_us())
        .load(c)?,
        Conn::Pg(c) => diesel::sql_query(format!(
            "SELECT {COLUMNS} FROM deliveries WHERE state IN ({states}) AND lease_until_us < {} LIMIT {RECLAIM_ROWS} \
             FOR UPDATE SKIP LOCKED",
            claim::PG_CLOCK_US
        ))
        .load(c)?,
    };
    free(conn, &rows, Event::LeaseExpired, now_us)
}

/// `unsent` moves what was claimed only; what was being sent may have arrived and takes the way its route wants.
fn free(conn: &mut Conn, rows: &[DeliveryRow], unsent: Event, now_us: i64) -> StoreResult<usize> {
    let mut freed = 0;
    for row in rows {
        let event = match (row.state()?, row.on_unknown()) {
            (DeliveryState::Claimed, _) => unsent,
            (_, OnUnknown::Review) => Event::OutcomeUnknown,
            (_, OnUnknown::Resend) if row.may_retry() => Event::Repeat,
            (_, OnUnknown::Resend) => Event::ExhaustedAttempts,
        };
        let mut patch = Patch::of(event, now_us);
        if event != unsent {
            patch.last_error_type = Some("worker_vanished");
            patch.last_error = Some("the worker vanished while it was sending; the delivery may have arrived");
        }
        if event == Event::Repeat {
            patch.due_at_us = Some(now_us);
            patch.possible_repeat = Some(1);
        }
        freed += usize::from(apply(conn, &row.id, Some(row.epoch), event, &patch)?);
    }
    Ok(freed)
}
