//! Runs: which lanes have something to relay, what goes next, and the end of what was sent.

use diesel::{
    prelude::*,
    sql_types::{BigInt, Nullable, Text},
};

use super::{Body, BodyDamaged, Payload, SINK};
use crate::{
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{
        Conn, StoreResult,
        deliveries::{is_one_of, literals},
        schema::delivery_bodies,
    },
};

/// Deliveries looked at for one run.
const LOOK_ROWS: i64 = 256;

/// What there was to claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// This goes next.
    Run(Run),
    /// Nothing waits.
    Nothing,
    /// A run is being sent, and only its mark in Kafka tells what became of it ([`super::resolve`]).
    Unresolved,
}

/// Deliveries of one lane that go in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The stream.
    pub lane: String,
    /// Its mark.
    pub mark: String,
    /// In their order; never empty.
    pub deliveries: Vec<RunDelivery>,
}

impl Run {
    /// How many readings it holds.
    pub fn readings(&self) -> u64 {
        self.deliveries.iter().map(|one| one.readings).sum()
    }

    /// The highest number in it.
    pub fn last_seq(&self) -> u64 {
        self.deliveries.iter().map(|one| one.last_seq).max().unwrap_or(0)
    }
}

/// One delivery of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDelivery {
    /// Order within the lane.
    pub seq: i64,
    /// A UUID.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it was enqueued, microseconds since the epoch.
    pub created_at_us: i64,
    /// How many readings it holds.
    pub readings: u64,
    /// The lowest number in it.
    pub first_seq: u64,
    /// The highest number in it.
    pub last_seq: u64,
}

#[derive(QueryableByName)]
struct Candidate {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    state: String,
    #[diesel(sql_type = diesel::sql_types::Integer)]
    attempt: i32,
    #[diesel(sql_type = BigInt)]
    created_at_us: i64,
    #[diesel(sql_type = Nullable<BigInt>)]
    readings: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    first_seq: Option<i64>,
    #[diesel(sql_type = Nullable<BigInt>)]
    last_seq: Option<i64>,
    /// Only where its readings are gone: it says which they were.
    #[diesel(sql_type = Nullable<Text>)]
    payload: Option<String>,
}

impl Candidate {
    /// The lowest and the highest number; 0 where nothing tells them any more.
    fn numbers(&self) -> (u64, u64) {
        if let (Some(first), Some(last)) = (self.first_seq, self.last_seq) {
            return (first.unsigned_abs(), last.unsigned_abs());
        }
        let payload = self.payload.as_deref().and_then(|payload| serde_json::from_str::<Payload>(payload).ok());
        payload.map_or((0, 0), |payload| (payload.first_seq, payload.last_seq))
    }
}

#[derive(QueryableByName)]
struct Lane {
    #[diesel(sql_type = Nullable<Text>)]
    lane: Option<String>,
}

/// Lanes with deliveries that are not settled, at most `limit`.
///
/// # Errors
/// Those of the store.
pub fn lanes(conn: &mut Conn, limit: usize) -> StoreResult<Vec<String>> {
    // One step of each index for each lane, however many deliveries wait in it.
    let first =
        |condition: &str| format!("SELECT MIN(lane) AS lane FROM deliveries WHERE sink = '{SINK}' AND lane > $1 AND {condition}");
    let texts = [first("state = 'ready'"), first(&is_one_of("state", &DeliveryState::TAKEN))];
    let mut found: Vec<String> = Vec::new();
    while found.len() < limit {
        let after = found.last().cloned().unwrap_or_default();
        let mut next: Option<String> = None;
        for text in &texts {
            let lane: Lane = on_backend!(conn, |c| diesel::sql_query(text.as_str()).bind::<Text, _>(&after).get_result(c))?;
            next = next.into_iter().chain(lane.lane).min();
        }
        match next {
            Some(lane) => found.push(lane),
            None => break,
        }
    }
    Ok(found)
}

/// Claims what goes next in `lane` and notes that it is being sent: about `max_readings`, at least one delivery where there is any.
/// Moves them by `Due`, `Claim` and `BeginSend` in one statement. Nothing is claimed while a run of the lane is unresolved. Call it in
/// the transaction that has looked at the lane's lease.
///
/// # Errors
/// Those of the store.
pub fn claim_run(conn: &mut Conn, lane: &str, mark: &str, max_readings: u64, now_us: i64) -> StoreResult<Claimed> {
    // The first of each of the two indexes that share the lane.
    let piece = |condition: &str| {
        format!(
            "SELECT * FROM (SELECT seq, id, state, attempt, created_at_us, payload FROM deliveries \
             WHERE sink = '{SINK}' AND lane = $1 AND {condition} ORDER BY seq LIMIT {LOOK_ROWS}) AS piece"
        )
    };
    let text = format!(
        "SELECT d.seq, d.id, d.state, d.attempt, d.created_at_us, b.readings, b.first_seq, b.last_seq, \
         CASE WHEN b.delivery_id IS NULL THEN d.payload END AS payload FROM ({} UNION ALL {} ORDER BY seq LIMIT {LOOK_ROWS}) \
         AS d LEFT JOIN delivery_bodies AS b ON b.delivery_id = d.id ORDER BY d.seq",
        piece("state = 'ready'"),
        piece(&is_one_of("state", &DeliveryState::TAKEN))
    );
    let candidates: Vec<Candidate> = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(lane).load(c))?;
    let waits = |state: &str| state == DeliveryState::Ready.as_str() || state == DeliveryState::Retry.as_str();
    if candidates.iter().any(|row| !waits(&row.state)) {
        return Ok(Claimed::Unresolved);
    }
    let (mut deliveries, mut readings) = (Vec::new(), 0);
    for row in candidates {
        // A delivery whose readings are gone is claimed alone, to be rejected.
        let count = row.readings.unwrap_or(0).unsigned_abs();
        if !deliveries.is_empty() && readings + count > max_readings {
            break;
        }
        readings += count;
        let (first_seq, last_seq) = row.numbers();
        deliveries.push(RunDelivery {
            seq: row.seq,
            id: row.id,
            attempt: row.attempt.unsigned_abs() + 1,
            created_at_us: row.created_at_us,
            readings: count,
            first_seq,
            last_seq,
        });
    }
    if deliveries.is_empty() {
        return Ok(Claimed::Nothing);
    }
    let seqs: Vec<String> = deliveries.iter().map(|one| one.seq.to_string()).collect();
    let text = format!(
        "UPDATE deliveries SET state = '{}', attempt = attempt + 1, epoch = epoch + 1, claimed_by = $1, updated_at_us = $2 \
         WHERE seq IN ({}) AND state IN ('ready', 'retry')",
        Event::BeginSend.target(),
        seqs.join(", ")
    );
    let claimed = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(mark).bind::<BigInt, _>(now_us).execute(c))?;
    if claimed != deliveries.len() {
        return Err(crate::store::StoreError::conflict("deliveries were moved by someone else while they were claimed"));
    }
    Ok(Claimed::Run(Run { lane: lane.to_owned(), mark: mark.to_owned(), deliveries }))
}

/// The readings of one delivery; `None` where they are not there.
///
/// # Errors
/// Those of the store; the inner one where the bytes are damaged.
pub fn body(conn: &mut Conn, id: &str) -> StoreResult<Option<Result<Body, BodyDamaged>>> {
    let bytes: Option<Vec<u8>> = delivery_bodies::table.find(id).select(delivery_bodies::body).first(conn).optional()?;
    Ok(bytes.map(Body::decode))
}

#[derive(QueryableByName)]
struct Extent {
    #[diesel(sql_type = BigInt)]
    readings: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
}

/// How many readings a run holds that is not settled, and the highest number in it.
pub(super) fn extent(conn: &mut Conn, lane: &str, mark: &str) -> StoreResult<(u64, u64)> {
    let text = format!(
        "SELECT CAST(COALESCE(SUM(readings), 0) AS BIGINT) AS readings, COALESCE(MAX(last_seq), 0) AS last_seq FROM delivery_bodies \
         WHERE delivery_id IN (SELECT id FROM deliveries WHERE {})",
        ours()
    );
    let found: Extent = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(lane).bind::<Text, _>(mark).get_result(c))?;
    Ok((found.readings.unsigned_abs(), found.last_seq.unsigned_abs()))
}

/// The deliveries of a run: `$1` its lane, `$2` its mark.
fn ours() -> String {
    format!("sink = '{SINK}' AND lane = $1 AND claimed_by = $2 AND {}", sending())
}

/// Kafka has committed the run: its deliveries are sent and their readings are let go. Returns how many deliveries were still this
/// run's; fewer than it has: another worker has settled them. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn settle_run(conn: &mut Conn, lane: &str, mark: &str, now_us: i64) -> StoreResult<usize> {
    let text = format!("DELETE FROM delivery_bodies WHERE delivery_id IN (SELECT id FROM deliveries WHERE {})", ours());
    on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(lane).bind::<Text, _>(mark).execute(c))?;
    let text = format!(
        "UPDATE deliveries SET state = '{}', settled_at_us = $1, updated_at_us = $2, claimed_by = NULL, last_error = NULL, \
         last_error_type = NULL WHERE sink = '{SINK}' AND lane = $3 AND claimed_by = $4 AND {}",
        Event::SentOk.target(),
        sending()
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<BigInt, _>(now_us)
        .bind::<BigInt, _>(now_us)
        .bind::<Text, _>(lane)
        .bind::<Text, _>(mark)
        .execute(c))?)
}

/// One delivery of a run can never be sent; a person decides. Call it in a writing transaction.
///
/// # Errors
/// Those of the store.
pub fn reject(conn: &mut Conn, id: &str, (word, message): (&str, &str), now_us: i64) -> StoreResult<()> {
    let text = format!(
        "UPDATE deliveries SET state = '{}', updated_at_us = $1, claimed_by = NULL, last_error_type = $2, last_error = $3 \
         WHERE id = $4 AND sink = '{SINK}' AND state IN ({})",
        Event::Reject.target(),
        literals(Event::Reject.sources())
    );
    on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<BigInt, _>(now_us)
        .bind::<Text, _>(word)
        .bind::<Text, _>(message)
        .bind::<Text, _>(id)
        .execute(c))?;
    Ok(())
}

/// What a run under way is in, as a condition: the index of lanes by the words that it is made with, then the state.
pub(super) fn sending() -> String {
    format!("{} AND {}", is_one_of("state", &DeliveryState::TAKEN), is_one_of("state", Event::SentOk.sources()))
}
