//! What the integrity check asks the database, and the one thing it repairs. The comparison itself is in `pass.rs`.
//!
//! In: slices of the ledger and of the readings, by their keys. Out: rows, and sums of streams set right. A crash loses nothing: it
//! reads, and what it writes is one transaction.

mod outbox;
mod pass;
mod refill;

use std::collections::HashMap;

use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool},
};

pub use self::{
    outbox::{CLOCKS_US, deliveries_from_us},
    pass::{Findings, Pass},
    refill::{Held, Hole, refill},
};
use super::{
    Conn, StoreResult,
    schema::{batches, reading_failures, readings, removed_readings, streams},
};
pub use crate::buffer::audit::{Absent, Audit, Audited, Medium};
use crate::domain::receipt::StreamId;

/// Numbers that are compared together, as the triggers of `readings` count deletions.
pub const PART: i64 = 65_536;

/// Sums in the order stored, duplicate, conflict, dead, discarded, missing (quarantined, void and lost).
type Sums = [i64; 6];

/// A stream at the beginning of a pass.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Stream {
    no: i64,
    name: String,
    cursor: i64,
    pruned: i64,
    watched_from: i64,
    sums: Sums,
}

fn all_streams(conn: &mut Conn) -> StoreResult<Vec<Stream>> {
    type Numbers = (i64, i64, i64, i64);
    type Counts = (i64, i64, i64, i64, i64, i64, i64, i64);
    let rows: Vec<(String, Numbers, Counts)> = streams::table
        .select((
            streams::stream,
            (streams::no, streams::cursor_seq, streams::pruned_seq, streams::watched_from),
            (
                streams::stored,
                streams::duplicate,
                streams::conflict,
                streams::dead,
                streams::discarded,
                streams::quarantined,
                streams::void,
                streams::lost,
            ),
        ))
        .order(streams::no)
        .load(conn)?;
    let stream = |(name, (no, cursor, pruned, watched_from), counts): (String, Numbers, Counts)| {
        let (stored, duplicate, conflict, dead, discarded, quarantined, void, lost) = counts;
        let sums = [stored, duplicate, conflict, dead, discarded, quarantined + void + lost];
        Stream { no, name, cursor, pruned, watched_from, sums }
    };
    Ok(rows.into_iter().map(stream).collect())
}

/// One row of the ledger.
#[derive(Clone, Debug)]
struct LedgerRow {
    first: i64,
    last: i64,
    is_gap: bool,
    sums: Sums,
    /// The delivery that carries it to Kafka, and when both were written.
    delivery: Option<String>,
    created_at_us: i64,
}

/// The ledger of a stream behind `after`, up to `end`, at most `limit` rows.
fn ledger_slice(conn: &mut Conn, stream: &str, after: i64, end: i64, limit: i64) -> StoreResult<Vec<LedgerRow>> {
    type Columns = (i64, i64, Option<String>, (i64, i64, i64, i64, i64, i64), (Option<String>, i64));
    let rows: Vec<Columns> = batches::table
        .filter(batches::stream.eq(stream))
        .filter(batches::first_seq.gt(after))
        .filter(batches::first_seq.le(end))
        .order(batches::first_seq)
        .limit(limit)
        .select((
            batches::first_seq,
            batches::last_seq,
            batches::gap,
            (batches::stored, batches::duplicate, batches::conflict, batches::dead, batches::discarded, batches::missing),
            (batches::delivery, batches::created_at_us),
        ))
        .load(conn)?;
    let row = |(first, last, gap, counts, (delivery, created_at_us)): Columns| {
        let (stored, duplicate, conflict, dead, discarded, missing) = counts;
        let sums = [stored, duplicate, conflict, dead, discarded, missing];
        LedgerRow { first, last, is_gap: gap.is_some(), sums, delivery, created_at_us }
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Key, stream number and number of the readings behind `after` in the order of their key, at most `limit`.
fn readings_slice(conn: &mut Conn, after: Option<&(String, i64)>, limit: i64) -> StoreResult<Vec<(String, i64, i64, i64)>> {
    let mut query = readings::table
        .select((readings::engine_id, readings::observed_at_us, readings::stream_no, readings::seq))
        .order((readings::engine_id, readings::observed_at_us))
        .limit(limit)
        .into_boxed();
    if let Some((engine, at_us)) = after {
        // A comparison of rows, which both databases answer from the key.
        query = query.filter(
            sql::<Bool>("(engine_id, observed_at_us) > (")
                .bind::<diesel::sql_types::Text, _>(engine.clone())
                .sql(", ")
                .bind::<BigInt, _>(*at_us)
                .sql(")"),
        );
    }
    Ok(query.load(conn)?)
}

/// What was deleted, by stream number and part. PostgreSQL's rows are folded on the way.
fn removed(conn: &mut Conn) -> StoreResult<HashMap<(i64, i64), i64>> {
    if let Conn::Pg(pg) = conn {
        diesel::sql_query(
            "WITH parts AS (DELETE FROM removed_readings RETURNING stream_no, part, gone) \
             INSERT INTO removed_readings (stream_no, part, gone) SELECT stream_no, part, sum(gone)::bigint FROM parts GROUP BY 1, 2",
        )
        .execute(pg)?;
    }
    let rows: Vec<(i64, i64, i64)> =
        removed_readings::table.select((removed_readings::stream_no, removed_readings::part, removed_readings::gone)).load(conn)?;
    let mut removed = HashMap::new();
    for (no, part, gone) in rows {
        *removed.entry((no, part)).or_insert(0) += gone;
    }
    Ok(removed)
}

/// Stream and number of the failures that people decided about since `since_us`.
fn decided(conn: &mut Conn, since_us: i64) -> StoreResult<Vec<(String, i64)>> {
    let rows = reading_failures::table
        .filter(reading_failures::updated_at_us.ge(since_us))
        .filter(reading_failures::state.ne("open"))
        .select((reading_failures::stream, reading_failures::seq))
        .load(conn)?;
    Ok(rows)
}

fn pruned_seq(conn: &mut Conn, no: i64) -> StoreResult<i64> {
    Ok(streams::table.find(no).select(streams::pruned_seq).first(conn)?)
}

/// Of the numbers from `first` to `last` of `stream`: how many the database has settled with a reading, and how many it has written off.
///
/// # Errors
/// Those of the database.
pub fn settled_readings(conn: &mut Conn, stream: StreamId, first: u64, last: u64) -> StoreResult<(u64, u64)> {
    let (stream, first) = (stream.to_string(), first.cast_signed());
    let cursor: Option<i64> =
        streams::table.filter(streams::stream.eq(&stream)).select(streams::cursor_seq).first(conn).optional()?;
    let last = last.cast_signed().min(cursor.unwrap_or(0));
    if last < first {
        return Ok((0, 0));
    }
    // The row that `first` lies in; none of those before it is looked at.
    let from: Option<i64> = batches::table
        .filter(batches::stream.eq(&stream))
        .filter(batches::first_seq.le(first))
        .order(batches::first_seq.desc())
        .select(batches::first_seq)
        .first(conn)
        .optional()?;
    let gaps: Vec<(i64, i64)> = batches::table
        .filter(batches::stream.eq(&stream))
        .filter(batches::first_seq.between(from.unwrap_or(first), last))
        .filter(batches::last_seq.ge(first))
        .filter(batches::gap.is_not_null())
        .select((batches::first_seq, batches::last_seq))
        .load(conn)?;
    let written_off: i64 = gaps.into_iter().map(|(from, to)| to.min(last) + 1 - from.max(first)).sum();
    Ok(((last + 1 - first - written_off).unsigned_abs(), written_off.unsigned_abs()))
}

/// The same, without those that are written off, of what was stored at `since_us`, microseconds since the epoch, or later. Nothing of streams
/// that were begun without Redis: what the journal had let go by the time that Redis came was never copied.
///
/// # Errors
/// Those of the database.
pub fn settled_since(conn: &mut Conn, stream: StreamId, (first, last): (u64, u64), since_us: i64) -> StoreResult<u64> {
    let name = stream.to_string();
    let tier: Option<String> = streams::table.filter(streams::stream.eq(&name)).select(streams::tier).first(conn).optional()?;
    if !tier.is_some_and(|tier| matches!(tier.as_str(), "redis" | "triple")) {
        return Ok(0);
    }
    let from: Option<i64> = batches::table
        .filter(batches::stream.eq(&name))
        .filter(batches::last_seq.ge(first.cast_signed()))
        .filter(batches::first_seq.le(last.cast_signed()))
        .filter(batches::created_at_us.ge(since_us))
        .select(diesel::dsl::min(batches::first_seq))
        .first(conn)?;
    let Some(from) = from else { return Ok(0) };
    Ok(settled_readings(conn, stream, first.max(from.unsigned_abs()), last)?.0)
}

/// Sets the sums of a stream whose ledger is whole to those of its ledger. Returns whether they differed.
fn repair_sums(conn: &mut Conn, stream: &Stream) -> StoreResult<bool> {
    #[derive(QueryableByName, PartialEq, Eq)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        stored: i64,
        #[diesel(sql_type = BigInt)]
        duplicate: i64,
        #[diesel(sql_type = BigInt)]
        conflict: i64,
        #[diesel(sql_type = BigInt)]
        dead: i64,
        #[diesel(sql_type = BigInt)]
        discarded: i64,
        #[diesel(sql_type = BigInt)]
        quarantined: i64,
        #[diesel(sql_type = BigInt)]
        void: i64,
        #[diesel(sql_type = BigInt)]
        lost: i64,
    }
    let sum = |what: &str| format!("CAST(coalesce(sum({what}), 0) AS bigint)");
    let gap = |kind: &str| sum(&format!("CASE WHEN gap = '{kind}' THEN missing ELSE 0 END"));
    let name = &stream.name;
    // A stream's name is a UUID that this daemon has read as one.
    super::ledger::parse_stream(name)?;
    let ledger = format!(
        "SELECT {} AS stored, {} AS duplicate, {} AS conflict, {} AS dead, {} AS discarded, {} AS quarantined, {} AS void, {} AS lost \
         FROM batches WHERE stream = '{name}'",
        sum("stored"),
        sum("duplicate"),
        sum("conflict"),
        sum("dead"),
        sum("discarded"),
        gap("quarantined"),
        gap("void"),
        gap("lost"),
    );
    let columns = "stored, duplicate, conflict, dead, discarded, quarantined, void, lost";
    conn.write(|conn| {
        // The drain waits for this row: what it adds to the ledger comes after.
        let lock = if matches!(conn, Conn::Pg(_)) { " FOR UPDATE" } else { "" };
        let now = format!("SELECT {columns} FROM streams WHERE no = {}{lock}", stream.no);
        let shown: Row = diesel::sql_query(now).get_result(conn)?;
        let right: Row = diesel::sql_query(ledger).get_result(conn)?;
        if shown == right {
            return Ok(false);
        }
        diesel::update(streams::table.find(stream.no))
            .set((
                streams::stored.eq(right.stored),
                streams::duplicate.eq(right.duplicate),
                streams::conflict.eq(right.conflict),
                streams::dead.eq(right.dead),
                streams::discarded.eq(right.discarded),
                streams::quarantined.eq(right.quarantined),
                streams::void.eq(right.void),
                streams::lost.eq(right.lost),
            ))
            .execute(conn)?;
        Ok(true)
    })
}
