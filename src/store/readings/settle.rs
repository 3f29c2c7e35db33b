//! Frames become rows: rows, ledger row and cursor in one transaction.
//!
//! The cursor is moved first, by compare-and-set of number and chain. It locks the stream, so of two writers one waits and then finds
//! the cursor moved; and a repeat of what has been settled finds it moved too. The writer then asks for the position, which tells it
//! what is settled.

use std::cell::Cell;

use diesel::prelude::*;
use rustc_hash::FxHashMap;

use super::{
    Row, copy_all,
    task::{Care, LOOK_ROWS, Task, may_be_one_row},
};
use crate::{
    buffer::{DrainOutcome, Frame, Gap},
    domain::receipt::StreamId,
    on_backend,
    store::{
        Conn, StoreError, StoreResult,
        ledger::{self, NewBatch, Ranges},
        partitions, relay,
        schema::streams,
    },
};

/// Stores consecutive frames of one stream: rows, ledger row and cursor in one transaction, the cursor by compare-and-set; nothing is
/// stored twice. A row that the database can never take is set aside as dead, without its neighbours.
///
/// # Errors
/// - [`StoreErrorKind::Unavailable`] and other transient ones: nothing was stored, or the commit's outcome is unknown; call again
///   with the same frames.
/// - [`StoreErrorKind::NotFound`]: the stream is not registered ([`ledger::register_stream`]).
/// - [`StoreErrorKind::Moved`]: the cursor stands elsewhere, or stands there with another history ([`ledger::register_stream`] tells
///   where): these frames, or others under their numbers, were settled before.
/// - [`StoreErrorKind::Invalid`]: there are no frames, or their numbers have holes.
pub fn store_frames(conn: &mut Conn, stream: StreamId, frames: &[Frame], now_us: i64) -> StoreResult<DrainOutcome> {
    store_for(conn, stream, frames, now_us, Relaying::Off)
}

/// Whether what is stored is to be relayed too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relaying {
    /// It stays here.
    Off,
    /// A delivery to Kafka is committed with it.
    On,
}

/// [`store_frames`], and where `relaying` is on a delivery of what was stored, in the same transaction: committed together, relayed.
///
/// # Errors
/// As [`store_frames`].
pub fn store_for(
    conn: &mut Conn,
    stream: StreamId,
    frames: &[Frame],
    now_us: i64,
    relaying: Relaying,
) -> StoreResult<DrainOutcome> {
    check_numbers(frames)?;
    let stream = stream.to_string();
    #[cfg(feature = "fault-injection")]
    if std::env::var_os("BELAYD_FAULT").is_some_and(|fault| fault == "cursor-outside") {
        return settle_in_two_on_purpose(conn, &stream, frames, (now_us, relaying));
    }
    partitions::make_room(conn, &stream, frames);
    #[cfg(feature = "fault-injection")]
    let relaying = relay_before_the_commit_on_purpose(conn, &stream, frames, (now_us, relaying))?;
    let mut care = Care::Quick;
    loop {
        let failed = Cell::new(None);
        let settled = conn.write(|conn| settle(conn, &stream, frames, (now_us, relaying), care, &failed));
        match settled {
            Err(error) if may_be_one_row(&error) => match care.next(conn.backend(), frames, failed.get(), &error) {
                Some(next) => care = next,
                None => return Err(error),
            },
            settled => return settled,
        }
    }
}

fn check_numbers(frames: &[Frame]) -> StoreResult<()> {
    if frames.is_empty() || frames.iter().any(|frame| frame.batch.is_empty()) {
        return Err(StoreError::invalid("there are no readings to store"));
    }
    if frames.windows(2).any(|pair| pair[0].last_seq() + 1 != pair[1].first_seq) {
        return Err(StoreError::invalid("the numbers of the frames have holes"));
    }
    Ok(())
}

/// A sequence number as SQL keeps it. Streams end long before 2^63.
fn sql_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn settle(
    conn: &mut Conn,
    stream: &str,
    frames: &[Frame],
    (now_us, relaying): (i64, Relaying),
    care: Care,
    failed: &Cell<Option<usize>>,
) -> StoreResult<DrainOutcome> {
    let (first, end) = (&frames[0], &frames[frames.len() - 1]);
    let no = move_cursor(conn, stream, (first.first_seq - 1, first.chain_before), (end.last_seq(), end.chain))?;
    store_new(conn, stream, no, frames, (now_us, relaying), care, failed)
}

/// Writes down that numbers of a stream have no readings: ledger row and cursor in one transaction.
///
/// # Errors
/// As [`store_frames`].
pub fn pass_over(conn: &mut Conn, stream: StreamId, gap: &Gap, now_us: i64) -> StoreResult<DrainOutcome> {
    if gap.first_seq < 1 || gap.last_seq < gap.first_seq || gap.acknowledged > gap.last_seq + 1 - gap.first_seq {
        return Err(StoreError::invalid("the numbers of the gap are none"));
    }
    let stream = stream.to_string();
    let outcome = DrainOutcome::of_gap(gap);
    conn.write(|conn| {
        move_cursor(conn, &stream, (gap.first_seq - 1, gap.chain_before), (gap.last_seq, gap.chain))?;
        let batch = NewBatch {
            stream: &stream,
            outcome: &outcome,
            duplicates: Ranges::default(),
            gap: Some(gap.kind),
            relay: false,
            delivery: None,
            now_us,
        };
        batch.insert(conn)?;
        Ok(outcome)
    })
}

/// Compare-and-set of number and chain; returns the stream's number.
fn move_cursor(conn: &mut Conn, stream: &str, from: (u64, u64), to: (u64, u64)) -> StoreResult<i64> {
    let target = streams::table
        .filter(streams::stream.eq(stream))
        .filter(streams::cursor_seq.eq(sql_seq(from.0)))
        .filter(streams::cursor_chain.eq(from.1.cast_signed()));
    let moved = on_backend!(conn, |c| diesel::update(target)
        .set((streams::cursor_seq.eq(sql_seq(to.0)), streams::cursor_chain.eq(to.1.cast_signed())))
        .returning(streams::no)
        .get_result::<i64>(c)
        .optional())?;
    if let Some(no) = moved {
        return Ok(no);
    }
    let cursor = ledger::cursor(conn, stream)?;
    Err(StoreError::moved(format!("stream {stream} stands at {cursor}, the readings follow {}", from.0)))
}

/// The readings of `frames`, numbered, sorted by key: neighbours in the table are written together, writers take their locks in
/// one order, and of two readings with one key the first number wins.
fn sorted_rows(frames: &[Frame]) -> Vec<Row<'_>> {
    let total: usize = frames.iter().map(|frame| frame.batch.len() as usize).sum();
    let mut rows = Vec::with_capacity(total);
    for frame in frames {
        let created_at_us = frame.batch.received_at_us();
        let numbers = sql_seq(frame.first_seq)..;
        rows.extend(numbers.zip(frame.batch.iter()).map(|(seq, reading)| Row { reading, seq, created_at_us }));
    }
    // A row is large and its engine a text: comparing and moving them so often as a sort does took a tenth of all that is done for a row. Engines
    // are few beside readings, so they are sorted alone, and the rows by number and time.
    let ranks = ranks(&rows);
    rows.sort_by_cached_key(|row| (ranks.get(row.reading.engine_id).copied(), row.reading.observed_at_us));
    rows
}

/// The engines of `rows`, each with its place in their order.
fn ranks<'a>(rows: &[Row<'a>]) -> FxHashMap<&'a str, u32> {
    let mut ranks = FxHashMap::default();
    // One by one: collected, there would be room for as many engines as there are rows.
    for row in rows {
        ranks.insert(row.reading.engine_id, 0);
    }
    let mut engines: Vec<&str> = ranks.keys().copied().collect();
    engines.sort_unstable();
    for (rank, engine) in (0..).zip(engines) {
        ranks.insert(engine, rank);
    }
    ranks
}

fn store_new(
    conn: &mut Conn,
    stream: &str,
    stream_no: i64,
    frames: &[Frame],
    (now_us, relaying): (i64, Relaying),
    care: Care,
    failed: &Cell<Option<usize>>,
) -> StoreResult<DrainOutcome> {
    #[cfg_attr(not(feature = "fault-injection"), expect(unused_mut))]
    let mut rows = sorted_rows(frames);
    #[cfg(feature = "fault-injection")]
    drop_a_row_on_purpose(&mut rows);
    let mut task = Task::new(stream, stream_no, now_us, care);
    if care == Care::Quick && copy_all(conn, stream_no, &rows)? {
        task.all_stored(&rows);
    } else {
        for (slice, rows) in rows.chunks(LOOK_ROWS).enumerate() {
            task.store(conn, slice, rows).inspect_err(|_| failed.set(Some(slice)))?;
        }
    }
    let (mut outcome, duplicates, unstored) = task.finish(conn)?;
    outcome.first_seq = frames[0].first_seq;
    outcome.last_seq = frames[frames.len() - 1].last_seq();
    let delivery = (relaying == Relaying::On && outcome.stored > 0).then(relay::new_id);
    let batch = NewBatch {
        stream,
        outcome: &outcome,
        duplicates: Ranges::from_sorted(sql_seq(outcome.first_seq), &duplicates),
        gap: None,
        relay: relaying == Relaying::On,
        delivery: delivery.as_deref(),
        now_us,
    };
    batch.insert(conn)?;
    if let Some(id) = &delivery {
        outcome.relay_seq = relay::enqueue(conn, id, stream, &relay::Body::of_frames(frames, &unstored), now_us)?;
    }
    Ok(outcome)
}

/// The mutant that the conservation check must catch: one row of each transaction is lost without a word.
#[cfg(feature = "fault-injection")]
fn drop_a_row_on_purpose(rows: &mut Vec<Row<'_>>) {
    if std::env::var_os("BELAYD_FAULT").is_some_and(|fault| fault == "drop-row") {
        rows.pop();
    }
}

/// The mutant that kill -9 must find: the cursor is committed before the rows.
#[cfg(feature = "fault-injection")]
fn settle_in_two_on_purpose(conn: &mut Conn, stream: &str, frames: &[Frame], when: (i64, Relaying)) -> StoreResult<DrainOutcome> {
    let (first, end) = (&frames[0], &frames[frames.len() - 1]);
    let no =
        conn.write(|conn| move_cursor(conn, stream, (first.first_seq - 1, first.chain_before), (end.last_seq(), end.chain)))?;
    conn.write(|conn| store_new(conn, stream, no, frames, when, Care::Quick, &Cell::new(None)))
}

/// The mutant that transactions which are rolled back must find: the delivery is committed before the readings that it holds.
#[cfg(feature = "fault-injection")]
fn relay_before_the_commit_on_purpose(
    conn: &mut Conn,
    stream: &str,
    frames: &[Frame],
    (now_us, relaying): (i64, Relaying),
) -> StoreResult<Relaying> {
    if relaying == Relaying::Off || std::env::var_os("BELAYD_FAULT").is_none_or(|fault| fault != "relay-early") {
        return Ok(relaying);
    }
    conn.write(|conn| relay::enqueue(conn, &relay::new_id(), stream, &relay::Body::of_frames(frames, &[]), now_us))?;
    Ok(Relaying::Off)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{batch::BatchBuilder, reading::ReadingRef};

    fn frame(first_seq: u64, readings: &[(String, i64)]) -> Frame {
        let mut batch = BatchBuilder::default();
        for (engine_id, observed_at_us) in readings {
            let (engine_id, observed_at_us) = (engine_id.as_str(), *observed_at_us);
            batch.push(&ReadingRef {
                engine_id,
                observed_at_us,
                status: None,
                temperature: None,
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: None,
            });
        }
        Frame { first_seq, batch: batch.finish(7), chain_before: 0, chain: 0 }
    }

    proptest! {
        #[test]
        fn rows_are_in_the_order_of_their_keys_and_of_two_with_one_key_the_first_number_leads(
            readings in proptest::collection::vec(("[aZ9_.:-]{1,3}", -3..3_i64), 1..200), cut in 0..200_usize,
        ) {
            let (first, second) = readings.split_at(cut.min(readings.len() - 1));
            let mut frames = vec![frame(5, first), frame(5 + first.len() as u64, second)];
            frames.retain(|frame| !frame.batch.is_empty());
            let sorted = sorted_rows(&frames);
            let mut expected: Vec<(&str, i64, i64)> = readings.iter().zip(5..).map(|((engine, at), seq)| (engine.as_str(), *at, seq)).collect();
            expected.sort_unstable();
            let found: Vec<_> = sorted.iter().map(|row| (row.reading.engine_id, row.reading.observed_at_us, row.seq)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
