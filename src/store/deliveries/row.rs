//! One row of the outbox, as statements return it.

use diesel::{
    backend::Backend,
    deserialize::{FromSql, QueryableByName, Result},
    row::{Field, NamedRow, Row},
    sql_types::{BigInt, Bool, Integer, Nullable, Text},
};

use super::Held;
use crate::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    store::{StoreResult, control::corrupt},
};

/// One row of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Order within the lane, and the cursor of lists.
    pub seq: i64,
    /// A UUID.
    pub id: String,
    /// The sink's name.
    pub sink: String,
    /// Ordering key.
    pub lane: String,
    /// What it is about.
    pub subject: String,
    /// JSON text.
    pub payload: String,
    state: String,
    /// Attempts begun.
    pub attempt: i32,
    /// Attempts before it is dead.
    pub max_attempts: i32,
    /// When it was or is due, microseconds since the epoch.
    pub due_at_us: i64,
    /// Rises with every claim; whoever holds an older one changes nothing.
    pub epoch: i64,
    /// The worker that holds it.
    pub claimed_by: Option<String>,
    /// The number of its claim; 0 where nobody holds it.
    pub(super) claim: i64,
    /// A fixed word for the last failure.
    pub last_error_type: Option<String>,
    /// The last failure in a sentence.
    pub last_error: Option<String>,
    on_unknown: String,
    possible_repeat: i32,
    /// When it was enqueued, microseconds since the epoch.
    pub created_at_us: i64,
    /// When it changed last, microseconds since the epoch.
    pub updated_at_us: i64,
    /// When it reached a final state, microseconds since the epoch.
    pub settled_at_us: Option<i64>,
    /// To whom; empty where the sink itself is the receiver.
    pub recipient: String,
    /// What the receiver answered when it took it.
    pub answer: Option<String>,
}

/// The columns of [`DeliveryRow`], in the order of its fields: rows are read by place.
pub(super) const COLUMNS: &str = "seq, id, sink, lane, subject, payload, state, attempt, max_attempts, due_at_us, epoch, claimed_by, \
                       last_error_type, last_error, on_unknown, possible_repeat, created_at_us, updated_at_us, settled_at_us, \
                       recipient, answer";

impl DeliveryRow {
    /// The message that it carries, where it is a message's and not an alert's: what a payload is, its first name says.
    pub fn message_id(&self) -> Option<&str> {
        self.payload.starts_with("{\"message\":{").then_some(self.subject.as_str())
    }

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
        Held { id: self.id.clone(), seq: self.seq, epoch: self.epoch, claim: self.claim }
    }

    /// As it stands while it is held: its attempt has begun.
    pub(super) fn begun(&mut self, worker: &str, claim: i64, claimed_at_us: i64) {
        Event::BeginSend.target().as_str().clone_into(&mut self.state);
        self.claimed_by = Some(worker.to_owned());
        self.claim = claim;
        self.epoch += 1;
        self.attempt += 1;
        self.updated_at_us = claimed_at_us;
    }
}

/// Looking each column up by its name would cost as much as all the rest of a claim.
fn next<'a, ST, T, DB>(row: &impl NamedRow<'a, DB>, at: &mut usize) -> Result<T>
where
    DB: Backend,
    T: FromSql<ST, DB>,
{
    let field = Row::get(row, *at).ok_or("a column of deliveries is missing")?;
    *at += 1;
    T::from_nullable_sql(field.value())
}

impl<DB> QueryableByName<DB> for DeliveryRow
where
    DB: Backend,
    i64: FromSql<BigInt, DB>,
    i32: FromSql<Integer, DB>,
    String: FromSql<Text, DB>,
    Option<i64>: FromSql<Nullable<BigInt>, DB>,
    Option<String>: FromSql<Nullable<Text>, DB>,
{
    fn build<'a>(row: &impl NamedRow<'a, DB>) -> Result<Self> {
        let mut at = 0;
        Ok(Self {
            seq: next::<BigInt, _, _>(row, &mut at)?,
            id: next::<Text, _, _>(row, &mut at)?,
            sink: next::<Text, _, _>(row, &mut at)?,
            lane: next::<Text, _, _>(row, &mut at)?,
            subject: next::<Text, _, _>(row, &mut at)?,
            payload: next::<Text, _, _>(row, &mut at)?,
            state: next::<Text, _, _>(row, &mut at)?,
            attempt: next::<Integer, _, _>(row, &mut at)?,
            max_attempts: next::<Integer, _, _>(row, &mut at)?,
            due_at_us: next::<BigInt, _, _>(row, &mut at)?,
            epoch: next::<BigInt, _, _>(row, &mut at)?,
            claimed_by: next::<Nullable<Text>, _, _>(row, &mut at)?,
            claim: 0,
            last_error_type: next::<Nullable<Text>, _, _>(row, &mut at)?,
            last_error: next::<Nullable<Text>, _, _>(row, &mut at)?,
            on_unknown: next::<Text, _, _>(row, &mut at)?,
            possible_repeat: next::<Integer, _, _>(row, &mut at)?,
            created_at_us: next::<BigInt, _, _>(row, &mut at)?,
            updated_at_us: next::<BigInt, _, _>(row, &mut at)?,
            settled_at_us: next::<Nullable<BigInt>, _, _>(row, &mut at)?,
            recipient: next::<Text, _, _>(row, &mut at)?,
            answer: next::<Nullable<Text>, _, _>(row, &mut at)?,
        })
    }
}

/// A row whose turn it is, how many were looked at for the whole claim, and the version of the sink's turn; `None` where it has none yet.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) row: DeliveryRow,
    pub(super) scanned: i64,
    pub(super) version: Option<i64>,
}

impl<DB> QueryableByName<DB> for Scanned
where
    DB: Backend,
    DeliveryRow: QueryableByName<DB>,
    i64: FromSql<BigInt, DB>,
    Option<i64>: FromSql<Nullable<BigInt>, DB>,
{
    fn build<'a>(row: &impl NamedRow<'a, DB>) -> Result<Self> {
        let mut last = COLUMNS_COUNT;
        let (scanned, version) = (next::<BigInt, _, _>(row, &mut last)?, next::<Nullable<BigInt>, _, _>(row, &mut last)?);
        Ok(Self { row: DeliveryRow::build(row)?, scanned, version })
    }
}

/// A row that was looked at, and whether something before it in its lane has to come again.
#[derive(Debug)]
pub(super) enum Place {
    Turn(Box<DeliveryRow>),
    HeldUp(String),
}

impl Place {
    pub(super) fn lane(&self) -> &str {
        match self {
            Self::Turn(row) => &row.lane,
            Self::HeldUp(lane) => lane,
        }
    }
}

impl<DB> QueryableByName<DB> for Place
where
    DB: Backend,
    DeliveryRow: QueryableByName<DB>,
    bool: FromSql<Bool, DB>,
    String: FromSql<Text, DB>,
{
    fn build<'a>(row: &impl NamedRow<'a, DB>) -> Result<Self> {
        if next::<Bool, _, _>(row, &mut COLUMNS_COUNT.clone())? {
            return Ok(Self::HeldUp(next::<Text, _, _>(row, &mut LANE_AT.clone())?));
        }
        Ok(Self::Turn(Box::new(DeliveryRow::build(row)?)))
    }
}

const COLUMNS_COUNT: usize = 21;
/// Where the lane stands among them.
const LANE_AT: usize = 3;
