//! The ledger: which numbers of which stream became what, as the database counted them.
//!
//! In: one row for each transaction that drained readings, written within it. Out: sums for the conservation check and answers to
//! receipts. `streams` keeps the running sums, so that they outlive the rows that retention removes.

use diesel::prelude::*;
use serde::Serialize;

mod batch;
mod ranges;
mod receipt;

pub use receipt::receipt_state;

pub(super) use {
    batch::{NewBatch, cursor},
    ranges::Ranges,
};

use super::{
    Conn, StoreError, StoreResult,
    schema::{batches, streams},
};
pub use crate::buffer::Totals;
use crate::{buffer::Position, domain::receipt::StreamId, on_backend};

/// Tiers of streams that the journal numbers. A stream keeps the one under which it was begun.
const ON_DISK: [&str; 2] = ["journal", "triple"];

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Everything that was accepted has been settled.
    Drained,
    /// The process ended while readings were only in its memory: numbers beyond the cursor are lost.
    Cut,
    /// What waited went on under a new stream, because the database knew another history of this one.
    Forked,
}

impl Closing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Cut => "cut",
            Self::Forked => "forked",
        }
    }
}

/// One stream with its sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamTotals {
    /// The stream.
    pub stream: StreamId,
    /// The medium that numbered its readings.
    pub tier: String,
    /// The daemon that wrote it.
    pub instance: String,
    /// Number of the last settled reading.
    pub cursor_seq: u64,
    /// When it was registered, microseconds since the epoch.
    pub opened_at_us: i64,
    /// When it ended.
    pub closed_at_us: Option<i64>,
    /// Its sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Makes a stream known, once, and says where it stands: again and after a reconnection it changes nothing, but that a stream of the journal
/// which was missing is open again. Streams of tier `memory` that the same instance
/// left open are closed as cut: what they held went with their process.
///
/// # Errors
/// Those of the database.
pub fn register_stream(conn: &mut Conn, stream: StreamId, tier: &str, instance: &str, now_us: i64) -> StoreResult<Position> {
    let text = stream.to_string();
    conn.write(|conn| {
        let new =
            (streams::stream.eq(&text), streams::tier.eq(tier), streams::instance.eq(instance), streams::opened_at_us.eq(now_us));
        let inserted = on_backend!(conn, |c| diesel::insert_into(streams::table)
            .values(new)
            .on_conflict(streams::stream)
            .do_nothing()
            .execute(c))?;
        if inserted == 1 && tier == "memory" {
            let left_open = streams::table
                .filter(streams::instance.eq(instance))
                .filter(streams::tier.eq(tier))
                .filter(streams::stream.ne(&text))
                .filter(streams::closed_at_us.is_null());
            diesel::update(left_open)
                .set((streams::closed_at_us.eq(now_us), streams::closing.eq(Closing::Cut.as_str())))
                .execute(conn)?;
        }
        if inserted == 0 {
            // It was gone, and told, and somebody has put its journal back.
            let back = streams::table
                .filter(streams::stream.eq(&text))
                .filter(streams::tier.eq_any(ON_DISK))
                .filter(streams::closing.eq(Closing::Cut.as_str()));
            diesel::update(back).set((streams::closed_at_us.eq(None::<i64>), streams::closing.eq(None::<String>))).execute(conn)?;
        }
        let (cursor, chain) = streams::table
            .filter(streams::stream.eq(&text))
            .select((streams::cursor_seq, streams::cursor_chain))
            .first::<(i64, i64)>(conn)?;
        let sums: Sums = streams::table.filter(streams::stream.eq(&text)).select(SUMS).first(conn)?;
        Ok(Position { cursor_seq: cursor.unsigned_abs(), cursor_chain: chain.cast_unsigned(), totals: totals_of(sums) })
    })
}

type Sums = (i64, i64, i64, i64, i64, i64, i64, i64);

/// The sums of a stream, in the order of [`Totals`].
const SUMS: (
    streams::stored,
    streams::duplicate,
    streams::conflict,
    streams::dead,
    streams::discarded,
    streams::quarantined,
    streams::void,
    streams::lost,
) = (
    streams::stored,
    streams::duplicate,
    streams::conflict,
    streams::dead,
    streams::discarded,
    streams::quarantined,
    streams::void,
    streams::lost,
);

fn totals_of((stored, duplicate, conflict, dead, discarded, quarantined, void, lost): Sums) -> Totals {
    let count = i64::unsigned_abs;
    Totals {
        stored: count(stored),
        duplicate: count(duplicate),
        conflict: count(conflict),
        dead: count(dead),
        discarded: count(discarded),
        quarantined: count(quarantined),
        void: count(void),
        lost: count(lost),
    }
}

/// Every stream that is still written, or whose journal is missing and may be put back, with the number of its last settled reading. Works with
/// every schema since the first.
///
/// # Errors
/// Those of the database.
pub fn cursors(conn: &mut Conn) -> StoreResult<Vec<(String, i64)>> {
    let missing = streams::tier.eq_any(ON_DISK).and(streams::closing.eq(Closing::Cut.as_str()));
    let open = streams::table.filter(streams::closed_at_us.is_null().or(missing));
    Ok(open.select((streams::stream, streams::cursor_seq)).load(conn)?)
}

/// Whether an instance has ever registered a stream here.
///
/// # Errors
/// Those of the database.
pub fn knows_instance(conn: &mut Conn, instance: &str) -> StoreResult<bool> {
    let one = streams::table.filter(streams::instance.eq(instance)).select(streams::no).first::<i64>(conn).optional()?;
    Ok(one.is_some())
}

/// Streams of one tier that an instance has begun and not ended.
///
/// # Errors
/// Those of the database.
pub fn open_streams(conn: &mut Conn, instance: &str, tier: &str) -> StoreResult<Vec<StreamId>> {
    let open = streams::table
        .filter(streams::instance.eq(instance))
        .filter(streams::tier.eq(tier))
        .filter(streams::closed_at_us.is_null());
    let names: Vec<String> = open.select(streams::stream).load(conn)?;
    names.iter().map(|name| parse_stream(name)).collect()
}

/// Streams of these tiers that an instance has begun and not ended, oldest first, each with its cursor.
///
/// # Errors
/// Those of the database.
pub fn at_work(conn: &mut Conn, instance: &str, tiers: &[&str]) -> StoreResult<Vec<(StreamId, u64)>> {
    let open = streams::table
        .filter(streams::instance.eq(instance))
        .filter(streams::tier.eq_any(tiers))
        .filter(streams::closed_at_us.is_null());
    let rows: Vec<(String, i64)> = open.order(streams::no).select((streams::stream, streams::cursor_seq)).load(conn)?;
    rows.iter().map(|(name, cursor)| Ok((parse_stream(name)?, cursor.unsigned_abs()))).collect()
}

/// Records how a stream ended; a stream that has ended stays as it is.
///
/// # Errors
/// Those of the database.
pub fn close_stream(conn: &mut Conn, stream: StreamId, closing: Closing, now_us: i64) -> StoreResult<()> {
    let open = streams::table.filter(streams::stream.eq(stream.to_string())).filter(streams::closed_at_us.is_null());
    diesel::update(open).set((streams::closed_at_us.eq(now_us), streams::closing.eq(closing.as_str()))).execute(conn)?;
    Ok(())
}

/// The sums over all streams, also over what retention has removed.
///
/// # Errors
/// Those of the database.
pub fn totals(conn: &mut Conn) -> StoreResult<Totals> {
    let mut sum = Totals::default();
    for stream in stream_totals(conn, i64::MAX)? {
        sum.add(&stream.totals);
    }
    Ok(sum)
}

/// The newest streams with their sums, newest first, at most `limit`. A stream is one start (tier memory) or one directory, so
/// there are few.
///
/// # Errors
/// Those of the database.
pub fn stream_totals(conn: &mut Conn, limit: i64) -> StoreResult<Vec<StreamTotals>> {
    type Columns = (String, String, String, i64, i64, Option<i64>, Sums);
    let rows: Vec<Columns> = streams::table
        .select((
            streams::stream,
            streams::tier,
            streams::instance,
            streams::cursor_seq,
            streams::opened_at_us,
            streams::closed_at_us,
            SUMS,
        ))
        .order(streams::no.desc())
        .limit(limit)
        .load(conn)?;
    let stream = |(stream, tier, instance, cursor, opened_at_us, closed_at_us, sums): Columns| {
        Ok(StreamTotals {
            stream: parse_stream(&stream)?,
            tier,
            instance,
            cursor_seq: cursor.unsigned_abs(),
            opened_at_us,
            closed_at_us,
            totals: totals_of(sums),
        })
    };
    rows.into_iter().map(stream).collect()
}

pub(super) fn parse_stream(text: &str) -> StoreResult<StreamId> {
    StreamId::parse_str(text).map_err(|_| StoreError::new(super::StoreErrorKind::Corrupt, "a stream's name is not a UUID"))
}

/// Removes the oldest ledger rows made before `before_us`, about `max_rows` of them, and returns how many. Their numbers are
/// `settled` from then on; the sums stay.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, max_rows: u32) -> StoreResult<u64> {
    conn.write(|conn| {
        let oldest: Vec<(String, i64)> = batches::table
            .filter(batches::created_at_us.lt(before_us))
            .order(batches::created_at_us)
            .limit(i64::from(max_rows))
            .select((batches::stream, batches::last_seq))
            .load(conn)?;
        let mut ends = std::collections::BTreeMap::<String, i64>::new();
        for (stream, last) in oldest {
            let end = ends.entry(stream).or_insert(last);
            *end = last.max(*end);
        }
        let mut removed = 0;
        for (stream, end) in ends {
            let gone = batches::table.filter(batches::stream.eq(&stream)).filter(batches::last_seq.le(end));
            removed += diesel::delete(gone).execute(conn)? as u64;
            diesel::update(streams::table.filter(streams::stream.eq(&stream)).filter(streams::pruned_seq.lt(end)))
                .set(streams::pruned_seq.eq(end))
                .execute(conn)?;
        }
        Ok(removed)
    })
}
