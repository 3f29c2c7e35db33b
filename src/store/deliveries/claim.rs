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
    sql_types::{BigInt, Nullable, Text},
};

use super::{
    claims::{self, Made},
    is_one_of,
    row::{COLUMNS, DeliveryRow, Place, Scanned},
    sources,
};
use crate::{
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{
        Conn, StoreResult,
        prepared::{Bind, Prepared},
    },
};

/// Rows made ready in one statement.
const PROMOTE_ROWS: i64 = 1_000;
/// Fewest rows of the index that one look reads: a lane that is held up is passed in one look where it has fewer.
const WINDOW_MIN: i64 = 16;
/// Rows of one lane that are passed over on SQLite before the look goes to the next lane by the index, which costs as much as some rows.
const PASSED_MAX: u32 = 8;
/// Claims of one sink that may come in between before this round gives the sink up.
const TURNS_MAX: usize = 16;
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
    /// Claimed, as being sent, by `seq`.
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
    /// The epoch of the claim: the one after that which the delivery had.
    pub epoch: i64,
    /// The number of the claim.
    pub claim: i64,
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

/// Which of these sinks have anything that is ready, be its lane held up or it itself held or not. Writes nothing, so that a look which finds
/// nothing costs next to nothing.
///
/// # Errors
/// Those of the store.
pub fn ready_sinks(conn: &mut Conn, sinks: &[String]) -> StoreResult<Vec<String>> {
    let text = ready_sql(matches!(conn, Conn::Pg(_)));
    let found: Vec<Ready> = match conn {
        Conn::Sqlite(c) => diesel::sql_query(text).bind::<Text, _>(serde_json::json!(sinks).to_string()).load(c)?,
        Conn::Pg(c) => Prepared::new(text, vec![Bind::Texts(sinks.iter().map(|sink| Some(sink.as_str())).collect())]).load(c)?,
    };
    Ok(found.into_iter().map(|ready| ready.sink).collect())
}

/// The first of each sink in the order of the index, and not `EXISTS`: with many ready PostgreSQL would look for one by reading the table.
pub(super) fn ready_sql(is_pg: bool) -> String {
    let list = if is_pg { "unnest($1) AS s(sink)" } else { "(SELECT value AS sink FROM json_each($1)) AS s" };
    format!(
        "SELECT s.sink FROM {list} WHERE \
         (SELECT d.seq FROM deliveries AS d WHERE d.sink = s.sink AND d.state = 'ready' ORDER BY d.lane, d.seq LIMIT 1) IS NOT NULL"
    )
}

/// Claims deliveries whose turn it is and notes that their attempts begin: `Claim` and `BeginSend` in one row of
/// [`claims`]. It must be committed before the first byte leaves. On SQLite call it in a writing transaction; on PostgreSQL its statements
/// are transactions by themselves, so that a worker that is halted holds no lock.
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

/// Whether something before `d` in its lane has to come again.
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
    /// The last lane that was looked at, how many of it were picked, how many were not, and whether one that somebody holds was among them.
    lane: String,
    of_lane: u32,
    passed: u32,
    behind: bool,
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
    fn look(&mut self, c: &mut SqliteConnection, claim: &Claim<'_>, held: &HashSet<(i64, i64)>) -> StoreResult<Option<Step>> {
        let left = window(claim) - self.scanned;
        // Row by row: what is not asked for is not read.
        let places = diesel::sql_query(places_sql(claim))
            .bind::<Text, _>(claim.sink)
            .bind::<Text, _>(claim.after.unwrap_or_default())
            .bind::<BigInt, _>(left)
            .load_iter::<Place, DefaultLoadingMode>(c)?;
        for place in places {
            let step = self.pick(place?, claim, held);
            if step != Step::Next {
                return Ok(Some(step));
            }
        }
        Ok((self.scanned >= window(claim)).then_some(Step::Enough))
    }

    fn pick(&mut self, place: Place, claim: &Claim<'_>, held: &HashSet<(i64, i64)>) -> Step {
        self.scanned += 1;
        if *place.lane() != self.lane {
            place.lane().clone_into(&mut self.lane);
            (self.of_lane, self.passed, self.behind) = (0, 0, false);
        }
        if let Place::Turn(row) = &place {
            self.behind |= held.contains(&(row.seq, row.epoch));
        }
        match place {
            Place::Turn(row) if !self.behind && self.of_lane < claim.per_lane.max(1) => {
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
    let held = claims::held_of(c, claim.sink)?;
    let mut picked = Picked::default();
    let mut step = picked.look(c, claim, &held)?;
    while step == Some(Step::NextLane) && picked.scanned < window(claim) {
        let lane = picked.lane.clone();
        step = picked.look(c, &Claim { after: Some(&lane), ..*claim }, &held)?;
    }
    let Picked { mut rows, lane, .. } = picked;
    let resume = step.is_some().then_some(lane);
    if rows.is_empty() {
        return Ok(Taken { rows, resume });
    }
    rows.sort_unstable_by_key(|row| row.seq);
    let (seqs, epochs): (Vec<i64>, Vec<i64>) = rows.iter().map(|row| (row.seq, row.epoch)).unzip();
    let made: Made = diesel::sql_query(
        "INSERT OR FAIL INTO delivery_claims (sink, worker, claimed_at_us, lease_until_us, remaining, seqs, epochs) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
    )
    .bind::<Text, _>(claim.sink)
    .bind::<Text, _>(claim.worker)
    .bind::<BigInt, _>(claim.now_us)
    .bind::<BigInt, _>(monotonic_us() + lease_us(claim.lease))
    .bind::<BigInt, _>(i64::try_from(rows.len()).unwrap_or(i64::MAX))
    .bind::<Text, _>(serde_json::json!(seqs).to_string())
    .bind::<Text, _>(serde_json::json!(epochs).to_string())
    .get_result(c)?;
    rows.iter_mut().for_each(|row| row.begun(claim.worker, made.id, claim.now_us));
    Ok(Taken { rows, resume })
}

/// What a claim on PostgreSQL looks for: `$1` sink, `$2` lane behind which it begins, `$3` rows looked at, `$4` most of a lane, `$5` most of all.
/// Beside each row it says how many were looked at, and the version of the sink's turn, all of one moment.
///
/// Whoever else claims of the sink, or takes something out of what is ready ([`claims::take_turn`]), gives the turn another version; the
/// claim is written ([`CLAIM`]) only where the version is still the one that was seen, and otherwise looked for again. So no row is locked
/// while what was found is on its way to here, and none is written but those of turn and claim. What another worker settles meanwhile leaves
/// what is ready and what is held in one transaction.
///
/// What is held up takes nothing of the bytes that a claim may have; of a lane nothing is taken behind what somebody holds.
pub(super) fn claim_sql(claim: &Claim<'_>) -> String {
    format!(
        "WITH held AS MATERIALIZED (SELECT h.seq, h.epoch FROM delivery_claims AS c, unnest(c.seqs, c.epochs) AS h(seq, epoch) \
         WHERE c.sink = $1), \
         found AS MATERIALIZED ({} LIMIT $3), \
         placed AS (SELECT f.*, row_number() OVER in_lane AS place, bool_or(f.is_held) OVER in_lane AS behind \
         FROM found AS f WINDOW in_lane AS (PARTITION BY lane ORDER BY seq)), \
         free AS (SELECT p.*, sum(octet_length(p.payload)) OVER (ORDER BY p.lane, p.seq) - octet_length(p.payload) AS before \
         FROM placed AS p WHERE p.place <= $4 AND NOT p.behind AND NOT {} ORDER BY p.lane, p.seq LIMIT $5) \
         SELECT {COLUMNS}, (SELECT count(*) FROM found), (SELECT version FROM delivery_turns WHERE sink = $1) FROM free WHERE before < {CLAIM_BYTES}",
        window_sql(&format!("{COLUMNS}, (d.seq, d.epoch) IN (SELECT seq, epoch FROM held) AS is_held"), claim),
        held_up_sql("p"),
    )
}

/// Takes the turn and writes the claim, or neither: one statement with a small answer, so that a worker that is halted holds no lock.
const CLAIM: &str = "WITH turn AS (UPDATE delivery_turns SET version = version + 1 WHERE sink = $1 AND version = $2 RETURNING version) \
                     INSERT INTO delivery_claims (sink, worker, claimed_at_us, lease_until_us, remaining, seqs, epochs) \
                     SELECT $1, $3, $4, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $5, cardinality($6), $6, $7 FROM turn RETURNING id";

fn claim_pg(c: &mut PgConnection, claim: &Claim<'_>) -> StoreResult<Taken> {
    for _ in 0..TURNS_MAX {
        let binds = vec![
            Bind::Text(claim.sink),
            Bind::Text(claim.after.unwrap_or_default()),
            Bind::BigInt(window(claim)),
            Bind::BigInt(i64::from(claim.per_lane.max(1))),
            Bind::BigInt(i64::from(claim.limit)),
        ];
        let found: Vec<Scanned> = Prepared::new(claim_sql(claim), binds).load(c)?;
        // Every lane of the piece may be held up; then no row tells where it ended.
        let Some(first) = found.first() else { return Ok(Taken { rows: Vec::new(), resume: end_of_window(c, claim)? }) };
        let Some(version) = first.version else {
            let text = "INSERT INTO delivery_turns (sink, version) VALUES ($1, 0) ON CONFLICT (sink) DO NOTHING";
            diesel::sql_query(text).bind::<Text, _>(claim.sink).execute(c)?;
            continue;
        };
        let (seqs, epochs): (Vec<i64>, Vec<i64>) = found.iter().map(|found| (found.row.seq, found.row.epoch)).unzip();
        let binds = vec![
            Bind::Text(claim.sink),
            Bind::BigInt(version),
            Bind::Text(claim.worker),
            Bind::BigInt(claim.now_us),
            Bind::BigInt(lease_us(claim.lease)),
            Bind::BigInts(seqs),
            Bind::BigInts(epochs),
        ];
        let made: Option<Made> = Prepared::new(CLAIM, binds).get_result(c).optional()?;
        if let Some(made) = made {
            return Ok(taken(found, made.id, claim));
        }
    }
    // The others claim all there is; the next round looks again from here.
    Ok(Taken { rows: Vec::new(), resume: claim.after.map(str::to_owned) })
}

fn taken(found: Vec<Scanned>, id: i64, claim: &Claim<'_>) -> Taken {
    let is_full = found.first().is_none_or(|found| found.scanned >= window(claim));
    let mut rows: Vec<DeliveryRow> = found.into_iter().map(|found| found.row).collect();
    let bytes: i64 = rows.iter().map(|row| i64::try_from(row.payload.len()).unwrap_or(i64::MAX / 4)).sum();
    let was_cut = rows.len() >= claim.limit as usize || bytes >= CLAIM_BYTES / 2;
    let last = rows.iter().map(|row| &row.lane).max();
    let resume = last.filter(|_| was_cut || is_full).cloned();
    rows.sort_unstable_by_key(|row| row.seq);
    rows.iter_mut().for_each(|row| row.begun(claim.worker, id, claim.now_us));
    Taken { rows, resume }
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
