//! The outbox table, in the control store and in the store alike: the only code that changes the state of a delivery.
//!
//! In: deliveries to be sent, and what became of attempts. Out: claims. Which moves are legal says
//! [`domain::delivery`](crate::domain::delivery); every statement here takes its states from there. A crash loses nothing: what
//! was claimed or being sent is found again by its lease, or at once when its worker restarts.

mod claim;
mod fold;
mod inbox;
mod people;
mod settle;
#[cfg(test)]
mod tests;

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Integer, Nullable, Text},
};

pub(super) use self::claim::PG_CLOCK_US;
pub(in crate::store) use self::fold::select;
pub use self::{
    claim::{Claim, Held, claim_due, mark_sending, next_due, promote_due, renew},
    fold::{call_off, refill, untouched},
    inbox::{Cause, Edit, FailureFilter, causes, edit, failures_where},
    people::{Count, act, act_at, counts, failures, get, prune},
    settle::{Outcome, Owner, Settlement, reclaim_expired, settle, take_back},
};
use super::{Conn, StoreResult, control::corrupt, control_schema::deliveries};
use crate::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    on_backend,
};

/// Rows of one insert statement; twelve parameters each stay far below both databases' limits.
const INSERT_ROWS: usize = 500;

/// A delivery to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// A UUID, made by the caller; the receiver can tell repeats by it.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// Deliveries of one sink and lane leave in the order in which they were enqueued.
    pub lane: String,
    /// What it is about: the id of the alert or message.
    pub subject: String,
    /// JSON text.
    pub payload: String,
    /// When it is due, microseconds since the epoch; what lies before now is ready at once.
    pub due_at_us: i64,
    /// Attempts before it is dead, at least 1.
    pub max_attempts: u32,
    /// What to do when an outcome is unknown.
    pub on_unknown: OnUnknown,
    /// To whom: an address, a room. Empty where the sink itself is the receiver.
    pub recipient: String,
}

/// One row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct DeliveryRow {
    /// Order within the lane, and the cursor of lists.
    #[diesel(sql_type = BigInt)]
    pub seq: i64,
    /// A UUID.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// The sink's name.
    #[diesel(sql_type = Text)]
    pub sink: String,
    /// Ordering key.
    #[diesel(sql_type = Text)]
    pub lane: String,
    /// What it is about.
    #[diesel(sql_type = Text)]
    pub subject: String,
    /// JSON text.
    #[diesel(sql_type = Text)]
    pub payload: String,
    #[diesel(sql_type = Text)]
    state: String,
    /// Attempts begun.
    #[diesel(sql_type = Integer)]
    pub attempt: i32,
    /// Attempts before it is dead.
    #[diesel(sql_type = Integer)]
    pub max_attempts: i32,
    /// When it was or is due, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub due_at_us: i64,
    /// Rises with every claim; whoever holds an older one changes nothing.
    #[diesel(sql_type = BigInt)]
    pub epoch: i64,
    /// The worker that holds it.
    #[diesel(sql_type = Nullable<Text>)]
    pub claimed_by: Option<String>,
    /// A fixed word for the last failure.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error_type: Option<String>,
    /// The last failure in a sentence.
    #[diesel(sql_type = Nullable<Text>)]
    pub last_error: Option<String>,
    #[diesel(sql_type = Text)]
    on_unknown: String,
    #[diesel(sql_type = Integer)]
    possible_repeat: i32,
    /// When it was enqueued, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub created_at_us: i64,
    /// When it changed last, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub updated_at_us: i64,
    /// When it reached a final state, microseconds since the epoch.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub settled_at_us: Option<i64>,
    /// To whom; empty where the sink itself is the receiver.
    #[diesel(sql_type = Text)]
    pub recipient: String,
    /// What the receiver answered when it took it.
    #[diesel(sql_type = Nullable<Text>)]
    pub answer: Option<String>,
}

/// The columns of [`DeliveryRow`].
const COLUMNS: &str = "seq, id, sink, lane, subject, payload, state, attempt, max_attempts, due_at_us, epoch, claimed_by, \
                       last_error_type, last_error, on_unknown, possible_repeat, created_at_us, updated_at_us, settled_at_us, \
                       recipient, answer";

impl DeliveryRow {
    /// Where it stands.
    ///
    /// # Errors
    /// `Corrupt` for a word that this build does not know.
    pub fn state(&self) -> StoreResult<DeliveryState> {
        self.state.parse().map_err(|_| corrupt("deliveries.state", &self.state))
    }

    /// What to do when an outcome is unknown; a person decides where the word is not understood.
    pub fn on_unknown(&self) -> OnUnknown {
        if self.on_unknown == "resend" { OnUnknown::Resend } else { OnUnknown::Review }
    }

    /// Whether an earlier attempt may have arrived.
    pub fn possible_repeat(&self) -> bool {
        self.possible_repeat != 0
    }

    /// Whether another attempt is allowed.
    pub fn may_retry(&self) -> bool {
        self.attempt < self.max_attempts
    }

    /// What identifies this claim.
    pub fn held(&self) -> Held {
        Held { id: self.id.clone(), epoch: self.epoch }
    }
}

#[derive(Insertable)]
#[diesel(table_name = deliveries, treat_none_as_default_value = false)]
struct InsertRow<'a> {
    id: &'a str,
    sink: &'a str,
    lane: &'a str,
    subject: &'a str,
    payload: &'a str,
    state: &'static str,
    max_attempts: i32,
    due_at_us: i64,
    on_unknown: &'static str,
    created_at_us: i64,
    updated_at_us: i64,
    recipient: &'a str,
}

/// Adds deliveries, in order. Call it in the transaction of what they tell about: committed together, delivered together.
///
/// # Errors
/// Those of the store; `Conflict` where an id is there already.
pub fn enqueue(conn: &mut Conn, new: &[NewDelivery], now_us: i64) -> StoreResult<()> {
    lock_lanes(conn, new)?;
    let rows: Vec<InsertRow<'_>> = new.iter().map(|delivery| insert_row(delivery, now_us)).collect();
    for chunk in rows.chunks(INSERT_ROWS) {
        on_backend!(conn, |c| diesel::insert_into(deliveries::table).values(chunk).execute(c))?;
    }
    Ok(())
}

fn insert_row(delivery: &NewDelivery, now_us: i64) -> InsertRow<'_> {
    let state = if delivery.due_at_us > now_us { DeliveryState::Scheduled } else { DeliveryState::Ready };
    InsertRow {
        id: &delivery.id,
        sink: &delivery.sink,
        lane: &delivery.lane,
        subject: &delivery.subject,
        payload: &delivery.payload,
        state: state.as_str(),
        max_attempts: i32::try_from(delivery.max_attempts.max(1)).unwrap_or(i32::MAX),
        due_at_us: delivery.due_at_us,
        on_unknown: match delivery.on_unknown {
            OnUnknown::Resend => "resend",
            OnUnknown::Review => "review",
        },
        created_at_us: now_us,
        updated_at_us: now_us,
        recipient: &delivery.recipient,
    }
}

/// PostgreSQL hands out numbers before commits, so two writers of one lane take turns; SQLite has one writer anyway.
fn lock_lanes(conn: &mut Conn, new: &[NewDelivery]) -> StoreResult<()> {
    let Conn::Pg(pg) = conn else { return Ok(()) };
    let mut lanes: Vec<String> = new.iter().map(|delivery| format!("{}/{}", delivery.sink, delivery.lane)).collect();
    lanes.sort_unstable();
    lanes.dedup();
    // Sorted by the key that is locked, so that two writers never wait for each other in a circle.
    diesel::sql_query(
        "SELECT pg_advisory_xact_lock(key) FROM (SELECT DISTINCT hashtextextended(lane, 0) AS key FROM unnest($1) AS lane ORDER BY 1) AS keys",
    )
    .bind::<Array<Text>, _>(lanes)
    .execute(pg)?;
    Ok(())
}

/// The states that `event` moves, as SQL literals: SQLite uses a partial index only for literals that equal its condition.
fn sources(event: Event) -> String {
    literals(event.sources())
}

/// States as SQL literals.
pub(in crate::store) fn literals(states: &[DeliveryState]) -> String {
    let words: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    words.join(", ")
}
