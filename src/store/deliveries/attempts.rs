//! The history of a delivery's attempts, for the person who has to decide about it.
//!
//! In: ends of attempts, in the transaction that writes them down. Out: a list. A success at the first go has no row: all there is to say
//! of it stands in the delivery.

use diesel::prelude::*;

use super::{claim::Held, settle::Made};
use crate::{
    on_backend,
    store::{Conn, StoreResult, control_schema::delivery_attempts},
};

/// Attempts that are kept of one delivery, the newest.
pub const ATTEMPTS_KEPT: u32 = 50;
/// Rows of one insert statement; ten parameters each stay far below both databases' limits.
const INSERT_ROWS: usize = 500;

/// One attempt, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct AttemptRow {
    /// The delivery.
    pub delivery_id: String,
    /// The fencing number of the claim that it was made under; it tells attempts apart also where a person had the delivery sent anew.
    pub epoch: i64,
    /// Which attempt it was, from 1.
    pub attempt: i32,
    /// The instance that made it.
    pub worker: String,
    /// When it began, microseconds since the epoch.
    pub began_at_us: i64,
    /// When it ended, or was found to have no end.
    pub ended_at_us: i64,
    /// The state that the delivery came to: `sent`, `retry`, `uncertain`, `dead`.
    pub outcome: String,
    /// A fixed word for the failure.
    pub error_type: Option<String>,
    /// The failure in a sentence.
    pub error: Option<String>,
    /// What the receiver answered when it took it.
    pub answer: Option<String>,
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended<'a> {
    pub(super) held: &'a Held,
    pub(super) made: Made,
    pub(super) outcome: &'static str,
    pub(super) error: Option<(&'a str, &'a str)>,
    pub(super) answer: Option<&'a str>,
}

#[derive(Insertable)]
#[diesel(table_name = delivery_attempts, treat_none_as_default_value = false)]
struct InsertAttempt<'a> {
    delivery_id: &'a str,
    epoch: i64,
    attempt: i32,
    worker: &'a str,
    began_at_us: i64,
    ended_at_us: i64,
    outcome: &'a str,
    error_type: Option<&'a str>,
    error: Option<&'a str>,
    answer: Option<&'a str>,
}

/// The attempts of a delivery that did not succeed at the first go, oldest first, at most [`ATTEMPTS_KEPT`].
///
/// # Errors
/// Those of the store.
pub fn attempts(conn: &mut Conn, delivery_id: &str) -> StoreResult<Vec<AttemptRow>> {
    let of_delivery = delivery_attempts::table.filter(delivery_attempts::delivery_id.eq(delivery_id));
    Ok(of_delivery.order(delivery_attempts::epoch).load(conn)?)
}

/// Adds attempts, and drops what is too many of a delivery. Epochs rise with every claim, so those within [`ATTEMPTS_KEPT`] of the last
/// are at most so many.
pub(super) fn write(conn: &mut Conn, ended: &[Ended<'_>]) -> StoreResult<()> {
    let rows: Vec<InsertAttempt<'_>> = ended
        .iter()
        .map(|end| InsertAttempt {
            delivery_id: &end.held.id,
            epoch: end.held.epoch,
            attempt: i32::try_from(end.made.attempt).unwrap_or(i32::MAX),
            worker: &end.made.worker,
            began_at_us: end.made.began_at_us,
            ended_at_us: end.made.ended_at_us,
            outcome: end.outcome,
            error_type: end.error.map(|error| error.0),
            error: end.error.map(|error| error.1),
            answer: end.answer,
        })
        .collect();
    for chunk in rows.chunks(INSERT_ROWS) {
        on_backend!(conn, |c| diesel::insert_into(delivery_attempts::table).values(chunk).execute(c))?;
    }
    for end in ended.iter().filter(|end| end.held.epoch > i64::from(ATTEMPTS_KEPT)) {
        let too_old = delivery_attempts::table
            .filter(delivery_attempts::delivery_id.eq(&end.held.id))
            .filter(delivery_attempts::epoch.le(end.held.epoch - i64::from(ATTEMPTS_KEPT)));
        diesel::delete(too_old).execute(conn)?;
    }
    Ok(())
}
