//! Taking deliveries under a lease: whose turn it is, in batches that keep the order of each lane.
//!
//! A look reads a bounded piece of the index of what is ready, by lane: it takes the first of each lane, up to so many of one, and the next
//! look goes on behind the last lane. So the cost of a look does not depend on how long a lane is, a lane that is held up or hot
//! costs one piece a round, and every other lane has its turn within the round.

use std::{
    collections::HashSet,
    sync::OnceLock,
    time::{Duration, Instant},
};

use diesel::{
    connection::DefaultLoadingMode,
    prelude::*,
    sql_types::{Array, BigInt, Nullable, Text},
};

use super::{
    is_one_of, literals,
    row::{COLUMNS, DeliveryRow, Place, Scanned},
    sources,
};
use crate::{
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{Conn, StoreResult, control_schema::deliveries},
};

/// Rows made ready in one statement.
const PROMOTE_ROWS: i64 = 1_000;
/// Fewest rows of the index that one look reads: a lane that is held up is passed in one look where it has fewer.
const WINDOW_MIN: i64 = 16;
/// Rows of one lane that are passed over on SQLite before the look goes to the next lane by the index, which costs as much as some rows.
const PASSED_MAX: u32 = 8;
/// Bytes of payloads after which a claim takes no more; a single one may be longer.
const CLAIM_BYTES: i64 = 2 * 1024 * 1024;
/// The database's clock, for leases that several instances read.
pub(in crate::store) const PG_CLOCK_US: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Who claims how much of what.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Only this sink's deliveries.
    pub sink: &'a str,
    /// The worker; it takes its claims back under this name when it restarts.
    pub worker: &'a str,
    /// At most so many.
    pub limit: u32,
    /// At most so many of one lane, at least 1. They must be sent one after the other, and what follows one that has to come again must
    /// be given back.
    pub per_lane: u32,
    /// Only lanes behind this one, by their bytes.
    pub after: Option<&'a str>,
    /// How long before another worker may take over, unless renewed.
    pub lease: Duration,
    /// Now, by the injected clock.
    pub now_us: i64,
}

/// What a look brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Claimed and marked as being sent, by `seq`.
    pub rows: Vec<DeliveryRow>,
    /// The last lane that was looked at, where there may be more behind it; `None` where all were.
    pub resume: Option<String>,
}

/// A claim: what is written under it carries its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The delivery.
    pub id: String,
    /// Its number.
    pub seq: i64,
    /// The epoch of the claim.
    pub epoch: i64,
}

/// The clock of leases on SQLite, where one process has the file: monotonic, so that a step of the wall clock expires nothing.
/// After a restart it means nothing, which is why [`super::take_back`] frees all of them then.
pub(super) fn monotonic_us() -> i64 {
    static START: OnceLock<Instant> = OnceLock::new();
    i64::try_from(START.get_or_init(Instant::now).elapsed().as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn lease_us(lease: Duration) -> i64 {
    i64::try_from(lease.as_micros()).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// Makes ready what has become due. Returns how many.
///
/// # Errors
/// Those of the store.
pub fn promote_due(conn: &mut Conn, now_us: i64) -> StoreResult<usize> {
    let text = promote_sql(matches!(conn, Conn::Pg(_)));
    Ok(on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(now_us).bind::<BigInt, _>(now_us).execute(c))?)
}

pub(super) fn promote_sql(is_pg: bool) -> String {
    format!(
        "UPDATE {} deliveries SET state = '{}', updated_at_us = $1 WHERE seq IN (SELECT seq FROM deliveries \
         WHERE state IN ({}) AND due_at_us <= $2 ORDER BY due_at_us LIMIT {PROMOTE_ROWS} {})",
        if is_pg { "" } else { "OR FAIL" },
        Event::Due.target(),
        sources(Event::Due),
        if is_pg { "FOR UPDATE SKIP LOCKED" } else { "" },
    )
}

/// When the next scheduled or retried delivery is due, microseconds since the epoch.
///
/// # Errors
/// Those of the store.
pub fn next_due(conn: &mut Conn) -> StoreResult<Option<i64>> {
    let row: NextDue = on_backend!(conn, |c| diesel::sql_query(next_due_sql()).get_result(c))?;
    Ok(row.due_at_us)
}

pub(super) fn next_due_sql() -> String {
    format!("SELECT MIN(due_at_us) AS due_at_us FROM deliveries WHERE state IN ({})", sources(Event::Due))
}

#[derive(QueryableByName)]
struct NextDue {
    #[diesel(sql_type = Nullable<BigInt>)]
    due_at_us: Option<i64>,
}

#[derive(QueryableByName)]
struct Ready {
    #[diesel(sql_type = Text)]
    sink: String,
}

/// Which of these sinks have anything that is ready, be its lane held up or not. Writes nothing, so that a look which finds nothing costs
/// next to nothing.
///
/// # Errors
/// Those of the store.
pub fn ready_sinks(conn: &mut Conn, sinks: &[String]) -> StoreResult<Vec<String>> {
    let text = ready_sql(matches!(conn, Conn::Pg(_)));
    let found: Vec<Ready> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(text).bind::<Text, _>(serde_json::json!(sinks).to_string()).load(c)?,
        Conn::Pg(c) => diesel::sql_query(text).bind::<Array<Text>, _>(sinks).load(c)?,
    };
    Ok(found.into_iter().map(|ready| ready.sink).collect())
}

pub(super) fn ready_sql(is_pg: bool) -> String {
    let list = if is_pg { "unnest($1) AS s(sink)" } else { "(SELECT value AS sink FROM json_each($1)) AS s" };
    format!("SELECT s.sink FROM {list} WHERE EXISTS (SELECT 1 FROM deliveries AS d WHERE d.sink = s.sink AND d.state = 'ready')")
}

/// Claims deliveries whose turn it is and notes that their attempts begin, counting them: `Claim` and `BeginSend` in one statement. It
/// must be committed before the first byte leaves. On SQLite call it in a writing transaction; on PostgreSQL it is one by itself, so that a
/// worker that is halted holds no lock.
///
/// # Errors
/// Those of the store.
pub fn claim_due(conn: &mut Conn, claim: &Claim<'_>) -> StoreResult<Taken> {
    match conn {
        Conn::Sqlite(c) => claim_sqlite(c, claim),
        Conn::Pg(c) => claim_pg(c, claim),
    }
}

/// Rows of the index that one claim reads at most: no more than it may take, unless that is very few.
fn window(claim: &Claim<'_>) -> i64 {
    i64::from(claim.limit).max(WINDOW_MIN)
}

/// The piece of the index that a look reads: `$1` the sink, `$2` the lane behind which it begins.
fn window_sql(columns: &str, claim: &Claim<'_>) -> String {
    format!(
        "SELECT {columns} FROM deliveries AS d WHERE d.sink = $1 AND d.state = 'ready' AND d.lane {} $2 ORDER BY d.lane, d.seq",
        if claim.after.is_some() { ">" } else { ">=" },
    )
}

/// Whether something before `d` in its lane is on its way or has to come again.
fn held_up_sql(row: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM deliveries AS b WHERE b.sink = $1 AND b.lane = {row}.lane AND b.seq < {row}.seq AND {})",
        is_one_of("b.state", &DeliveryState::TAKEN)
    )
}

#[derive(QueryableByName)]
struct Lane {
    #[diesel(sql_type = Text)]
    lane: String,
}

/// A look on SQLite: `$1` the sink, `$2` the lane behind which it begins, `$3` how many rows at most.
pub(super) fn places_sql(claim: &Claim<'_>) -> String {
    format!("{} LIMIT $3", window_sql(&format!("{COLUMNS}, {} AS held_up", held_up_sql("d")), claim))
}

/// What a claim on SQLite has picked so far.
#[derive(Default)]
struct Picked {
    rows: Vec<DeliveryRow>,
    bytes: i64,
    /// Rows looked at.
    scanned: i64,
    /// The last lane that was looked at, how many of it were picked, and how many were not.
    lane: String,
    of_lane: u32,
    passed: u32,
}

/// What comes after a row.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Next,
    /// It is not the turn of what is left of this lane.
    NextLane,
    Enough,
}

impl Picked {
    /// From behind `claim.after` on; `None` where the last row was reached.
    fn look(&mut self, c: &mut SqliteConnection, claim: &Claim<'_>) -> StoreResult<Option<Step>> {
        let left = window(claim) - self.scanned;
        // Row by row: what is not asked for is not read.
        let places = diesel::sql_query(places_sql(claim))
            .bind::<Text, _>(claim.sink)
            .bind::<Text, _>(claim.after.unwrap_or_default())
            .bind::<BigInt, _>(left)
            .load_iter::<Place, DefaultLoadingMode>(c)?;
        for place in places {
            let step = self.pick(place?, claim);
            if step != Step::Next {
                return Ok(Some(step));
            }
        }
        Ok((self.scanned >= window(claim)).then_some(Step::Enough))
    }

    fn pick(&mut self, place: Place, claim: &Claim<'_>) -> Step {
        self.scanned += 1;
        if *place.lane() != self.lane {
            place.lane().clone_into(&mut self.lane);
            (self.of_lane, self.passed) = (0, 0);
        }
        match place {
            Place::Turn(row) if self.of_lane < claim.per_lane.max(1) => {
                let bytes = i64::try_from(row.payload.len()).unwrap_or(i64::MAX / 4);
                if let Some(last) = self.rows.last()
                    && self.bytes.saturating_add(bytes) > CLAIM_BYTES
                {
                    // The next look goes on with this row.
                    last.lane.clone_into(&mut self.lane);
                    return Step::Enough;
                }
                self.bytes = self.bytes.saturating_add(bytes);
                self.of_lane += 1;
                self.rows.push(*row);
                if self.rows.len() >= claim.limit as usize { Step::Enough } else { Step::Next }
            }
            _ => {
                self.passed += 1;
                if self.passed < PASSED_MAX { Step::Next } else { Step::NextLane }
            }
        }
    }
}

/// There is one writer, so whose turn it is can be found out first and written then. `OR FAIL`: what a failure of the statement leaves is
/// undone with the transaction, so SQLite need not keep a copy of each page to undo the statement alone.
fn claim_sqlite(c: &mut SqliteConnection, claim: &Claim<'_>) -> StoreResult<Taken> {
    let mut picked = Picked::default();
    let mut step = picked.look(c, claim)?;
    while step == Some(Step::NextLane) && picked.scanned < window(claim) {
        let lane = picked.lane.clone();
        step = picked.look(c, &Claim { after: Some(&lane), ..*claim })?;
    }
    let Picked { mut rows, lane, .. } = picked;
    let resume = step.is_some().then_some(lane);
    if rows.is_empty() {
        return Ok(Taken { rows, resume });
    }
    rows.sort_unstable_by_key(|row| row.seq);
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    let state = Event::BeginSend.target();
    diesel::sql_query(format!(
        "UPDATE OR FAIL deliveries SET state = '{state}', epoch = epoch + 1, attempt = attempt + 1, claimed_by = $1, lease_until_us = $2, \
         updated_at_us = $3 WHERE seq IN (SELECT value FROM json_each($4))"
    ))
    .bind::<Text, _>(claim.worker)
    .bind::<BigInt, _>(monotonic_us() + lease_us(claim.lease))
    .bind::<BigInt, _>(claim.now_us)
    .bind::<Text, _>(serde_json::json!(seqs).to_string())
    .execute(c)?;
    rows.iter_mut().for_each(|row| row.begun(state.as_str(), claim.worker, claim.now_us));
    Ok(Taken { rows, resume })
}

/// The statement of a claim on PostgreSQL: `$1` sink, `$2` lane behind which it begins, `$3` worker, `$4` lease in microseconds, `$5` now.
///
/// What is held up takes nothing of the bytes that a claim may have. All that is to be taken is locked, or passed over where another
/// worker has it; and of a lane nothing is taken behind what could not be locked. Two workers may see different firsts of one lane, since
/// an earlier row becomes ready between their looks: who holds the first would otherwise jump over what the other has. What another worker
/// has moved between this statement's snapshot and the lock is looked at again by PostgreSQL (`state = 'ready'`); a row that was moved and
/// came back has another place in the table and counts as not locked.
///
/// Rows are locked and written at the places where they were found (`ctid`, which holds for as long as this statement's snapshot), so that
/// no row is looked up in an index a second time. Lists are arrays, and membership is kept from becoming a join (`IS TRUE`): PostgreSQL
/// cannot know how many there are, and what it takes for one row would be a loop over loops for a thousand.
pub(super) fn claim_sql(claim: &Claim<'_>) -> String {
    let columns = COLUMNS.split(", ").map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ");
    format!(
        "WITH found AS MATERIALIZED ({} LIMIT {}), \
         placed AS (SELECT seq, lane, spot, bytes, row_number() OVER in_lane AS place, first_value(seq) OVER in_lane AS head \
         FROM found WINDOW in_lane AS (PARTITION BY lane ORDER BY seq)), \
         free AS (SELECT p.seq, p.head, p.spot, sum(p.bytes) OVER (ORDER BY p.lane, p.seq) - p.bytes AS before FROM placed AS p \
         WHERE p.place <= {} AND NOT {} ORDER BY p.lane, p.seq LIMIT {}), \
         turns AS MATERIALIZED (SELECT seq, head, spot FROM free WHERE before < {CLAIM_BYTES}), \
         locked AS MATERIALIZED (SELECT d.ctid AS spot FROM deliveries AS d WHERE d.ctid = ANY(ARRAY(SELECT spot FROM turns)) \
         AND d.state = 'ready' FOR UPDATE SKIP LOCKED), \
         mine AS (SELECT spot, bool_and((spot IN (SELECT locked.spot FROM locked)) IS TRUE) OVER (PARTITION BY head ORDER BY seq) AS whole \
         FROM turns) \
         UPDATE deliveries AS t SET state = '{}', epoch = t.epoch + 1, attempt = t.attempt + 1, claimed_by = $3, \
         lease_until_us = {PG_CLOCK_US} + $4, updated_at_us = $5 WHERE t.ctid = ANY(ARRAY(SELECT mine.spot FROM mine WHERE mine.whole)) \
         AND t.state = 'ready' RETURNING {columns}, (SELECT count(*) FROM found)",
        window_sql("d.seq, d.lane, d.ctid AS spot, octet_length(d.payload) AS bytes", claim),
        window(claim),
        claim.per_lane.max(1),
        held_up_sql("p"),
        claim.limit,
        Event::BeginSend.target(),
    )
}

fn claim_pg(c: &mut PgConnection, claim: &Claim<'_>) -> StoreResult<Taken> {
    let found: Vec<Scanned> = diesel::sql_query(claim_sql(claim))
        .bind::<Text, _>(claim.sink)
        .bind::<Text, _>(claim.after.unwrap_or_default())
        .bind::<Text, _>(claim.worker)
        .bind::<BigInt, _>(lease_us(claim.lease))
        .bind::<BigInt, _>(claim.now_us)
        .load(c)?;
    let is_full = found.first().is_none_or(|found| found.scanned >= window(claim));
    let mut rows: Vec<DeliveryRow> = found.into_iter().map(|found| found.row).collect();
    let bytes: i64 = rows.iter().map(|row| i64::try_from(row.payload.len()).unwrap_or(i64::MAX / 4)).sum();
    let was_cut = rows.len() >= claim.limit as usize || bytes >= CLAIM_BYTES / 2;
    let resume = match rows.iter().map(|row| &row.lane).max() {
        Some(last) => (was_cut || is_full).then(|| last.clone()),
        // Every lane of the piece may be held up; then no row tells where it ended.
        None => end_of_window(c, claim)?,
    };
    rows.sort_unstable_by_key(|row| row.seq);
    Ok(Taken { rows, resume })
}

/// The lane in which the piece ends; `None` where it holds the last.
fn end_of_window(c: &mut PgConnection, claim: &Claim<'_>) -> StoreResult<Option<String>> {
    let text = format!("{} LIMIT 1 OFFSET {}", window_sql("d.lane", claim), window(claim) - 1);
    let end: Option<Lane> = diesel::sql_query(text)
        .bind::<Text, _>(claim.sink)
        .bind::<Text, _>(claim.after.unwrap_or_default())
        .get_result(c)
        .optional()?;
    Ok(end.map(|end| end.lane))
}

/// Prolongs leases. Returns the claims that still hold; the workers of the others must stop.
///
/// # Errors
/// Those of the store.
pub fn renew(conn: &mut Conn, held: &[Held], lease: Duration) -> StoreResult<Vec<Held>> {
    let states = literals(&[DeliveryState::Claimed, DeliveryState::Sending]);
    match conn {
        Conn::Sqlite(c) => {
            let until = monotonic_us() + lease_us(lease);
            let mut kept = Vec::with_capacity(held.len());
            for one in held {
                let row = deliveries::table.filter(deliveries::seq.eq(one.seq)).filter(deliveries::epoch.eq(one.epoch));
                let row = row.filter(deliveries::settled_at_us.is_null()).filter(deliveries::claimed_by.is_not_null());
                if diesel::update(row).set(deliveries::lease_until_us.eq(until)).execute(c)? == 1 {
                    kept.push(one.clone());
                }
            }
            Ok(kept)
        }
        Conn::Pg(c) => {
            let (seqs, epochs): (Vec<i64>, Vec<i64>) = held.iter().map(|one| (one.seq, one.epoch)).unzip();
            let text = format!(
                "UPDATE deliveries AS d SET lease_until_us = {PG_CLOCK_US} + {} FROM unnest($1, $2) AS u(seq, epoch) \
                 WHERE d.seq = u.seq AND d.epoch = u.epoch AND d.state IN ({states}) RETURNING d.seq, d.epoch",
                lease_us(lease)
            );
            let kept: Vec<Claimed> =
                diesel::sql_query(text).bind::<Array<BigInt>, _>(seqs).bind::<Array<BigInt>, _>(epochs).load(c)?;
            Ok(Claimed::among(&kept, held).0)
        }
    }
}

/// A number that a statement returns.
#[derive(QueryableByName)]
pub(super) struct Seq {
    #[diesel(sql_type = BigInt)]
    #[allow(dead_code, reason = "that there is one is all that is asked")]
    pub(super) seq: i64,
}

/// A claim that a statement has written to.
#[derive(QueryableByName)]
pub(super) struct Claimed {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
}

impl Claimed {
    /// Which of `held` are among them, and which are not.
    pub(super) fn among<'a>(found: &[Self], held: impl IntoIterator<Item = &'a Held>) -> (Vec<Held>, Vec<Held>) {
        let found: HashSet<(i64, i64)> = found.iter().map(|one| (one.seq, one.epoch)).collect();
        held.into_iter().cloned().partition(|one| found.contains(&(one.seq, one.epoch)))
    }
}
