//! What waits for a person, looked at from several sides: filtered, grouped by cause; and set right before it goes out again.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};

use super::{
    literals,
    row::{COLUMNS, DeliveryRow},
};
use crate::{
    domain::delivery::DeliveryState,
    on_backend,
    store::{Conn, StoreError, StoreResult, control::corrupt, control_schema::deliveries},
};

/// Which failures are wanted; what is left out matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureFilter {
    /// Only of this sink.
    pub sink: Option<String>,
    /// Only with this word for the last failure.
    pub error_type: Option<String>,
    /// Only in this state, which is one of those that wait for a person.
    pub state: Option<DeliveryState>,
    /// Only those that came to stand so at or after this time, microseconds since the epoch.
    pub since_us: Option<i64>,
}

impl FailureFilter {
    /// The states as a condition: the first part is the partial index's own, so that SQLite uses it.
    fn states(&self) -> String {
        let all = format!("state IN ({})", literals(&DeliveryState::FAILED));
        self.state.map_or(all.clone(), |one| format!("{all} AND state = '{one}'"))
    }
}

/// What waits for a person (dead, uncertain) and matches, newest first; with `before`, those with a smaller `seq`.
///
/// # Errors
/// Those of the store.
pub fn failures_where(conn: &mut Conn, filter: &FailureFilter, limit: u32, before: Option<i64>) -> StoreResult<Vec<DeliveryRow>> {
    // What is not asked for is left out of the conditions, so that an index serves those that are there.
    let equal = |column: &str, parameter: &str, wanted: bool| {
        if wanted { format!("{column} = {parameter}") } else { format!("{parameter} = ''") }
    };
    let text = format!(
        "SELECT {COLUMNS} FROM deliveries WHERE {} AND seq < $1 AND updated_at_us >= $2 AND {} AND {} ORDER BY seq DESC LIMIT $5",
        filter.states(),
        equal("sink", "$3", filter.sink.is_some()),
        equal("last_error_type", "$4", filter.error_type.is_some()),
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<BigInt, _>(before.unwrap_or(i64::MAX))
        .bind::<BigInt, _>(filter.since_us.unwrap_or(i64::MIN))
        .bind::<Text, _>(filter.sink.as_deref().unwrap_or_default())
        .bind::<Text, _>(filter.error_type.as_deref().unwrap_or_default())
        .bind::<BigInt, _>(i64::from(limit))
        .load(c))?)
}

/// Deliveries that failed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The sink.
    pub sink: String,
    /// A fixed word for the last failure.
    pub error_type: Option<String>,
    /// Dead or uncertain.
    pub state: DeliveryState,
    /// How many.
    pub count: u64,
    /// When the first of them came to stand so, microseconds since the epoch.
    pub oldest_at_us: i64,
    /// When the last did.
    pub newest_at_us: i64,
    /// The newest of them.
    pub sample: DeliveryRow,
}

#[derive(QueryableByName)]
struct CauseRow {
    #[diesel(sql_type = Text)]
    sink: String,
    #[diesel(sql_type = Nullable<Text>)]
    last_error_type: Option<String>,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
    #[diesel(sql_type = BigInt)]
    oldest: i64,
    #[diesel(sql_type = BigInt)]
    newest: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
}

/// What waits for a person by sink, kind of failure and state, the most first; at most `limit` of them.
///
/// # Errors
/// Those of the store.
pub fn causes(conn: &mut Conn, limit: u32) -> StoreResult<Vec<Cause>> {
    let text = format!(
        "SELECT sink, last_error_type, state, COUNT(*) AS number, MIN(updated_at_us) AS oldest, MAX(updated_at_us) AS newest, \
         MAX(seq) AS last_seq FROM deliveries WHERE {} GROUP BY sink, last_error_type, state ORDER BY 4 DESC, 1, 2 LIMIT $1",
        FailureFilter::default().states()
    );
    let rows: Vec<CauseRow> = on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(i64::from(limit)).load(c))?;
    let mut causes = Vec::with_capacity(rows.len());
    for row in rows {
        let text = format!("SELECT {COLUMNS} FROM deliveries WHERE seq = $1");
        let sample: Option<DeliveryRow> =
            on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(row.last_seq).get_result(c).optional())?;
        // Decided and pruned in between: the next look shows what is left.
        let Some(sample) = sample else { continue };
        causes.push(Cause {
            state: row.state.parse().map_err(|_| corrupt("deliveries.state", &row.state))?,
            sink: row.sink,
            error_type: row.last_error_type,
            count: row.number.unsigned_abs(),
            oldest_at_us: row.oldest,
            newest_at_us: row.newest,
            sample,
        });
    }
    Ok(causes)
}

/// What a person changes of a delivery that waits for a decision; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = deliveries)]
pub struct Edit {
    /// To whom.
    pub recipient: Option<String>,
    /// The lane that follows from it.
    pub lane: Option<String>,
    /// JSON text.
    pub payload: Option<String>,
}

impl Edit {
    fn is_empty(&self) -> bool {
        self.recipient.is_none() && self.lane.is_none() && self.payload.is_none()
    }
}

/// Changes a delivery that waits for a person. Its state stays; call it in the transaction of the decision that sends it again.
///
/// # Errors
/// `Conflict` where it does not wait for a person any more; those of the store.
pub fn edit(conn: &mut Conn, id: &str, edit: &Edit) -> StoreResult<()> {
    if edit.is_empty() {
        return Ok(());
    }
    let failed: Vec<&str> = DeliveryState::FAILED.iter().map(|state| state.as_str()).collect();
    let row = deliveries::table.filter(deliveries::id.eq(id)).filter(deliveries::state.eq_any(failed));
    let changed = on_backend!(conn, |c| diesel::update(row).set(edit).execute(c))?;
    if changed == 1 {
        return Ok(());
    }
    Err(StoreError::conflict(format!("delivery {id} does not wait for a decision any more; look again")))
}
