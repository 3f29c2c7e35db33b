//! A place for what is about to be stored: partitions of times that nobody foresaw, made before the transaction that needs them.
//!
//! In: the readings of one transaction. Out: partitions, as far as they are to be had at once; what has none lies in the default one. What
//! each drain thread knows of the partitions is asked anew once a minute. A crash forgets it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    Partition, list,
    make::{gap, make_one},
};
use crate::{
    buffer::Frame,
    store::{Conn, StoreResult},
};

/// How long what is known of the partitions holds; an attempt that failed is repeated no sooner.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Partitions that are made for one transaction. The rest goes into the default one.
const AT_ONCE: usize = 8;

#[derive(Default)]
struct Known {
    /// Tells one database from another.
    stream: String,
    looked_at: Option<Instant>,
    partitions: Vec<Partition>,
    /// Windows that were tried in vain, or left out.
    refused: BTreeSet<(i64, i64)>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

impl Known {
    /// The width of the newest partition; `None` where there is none to go by: whoever keeps the table has not made any.
    fn width_us(&self) -> Option<i64> {
        self.partitions.iter().rev().find_map(|newest| Some(newest.to_us - newest.from_us?))
    }

    fn look(&mut self, conn: &mut Conn, stream: &str) -> StoreResult<()> {
        *self =
            Self { stream: stream.to_owned(), looked_at: Some(Instant::now()), partitions: list(conn)?, refused: BTreeSet::new() };
        Ok(())
    }

    /// Windows of `frames` without a partition that have not been tried.
    fn missing(&self, frames: &[Frame], width_us: i64) -> BTreeSet<(i64, i64)> {
        let mut missing = BTreeSet::new();
        let mut last = 0..0;
        for reading in frames.iter().flat_map(|frame| frame.batch.iter()) {
            let at_us = reading.observed_at_us;
            if last.contains(&at_us) {
                continue;
            }
            match self.partitions.iter().find(|partition| partition.has(at_us)) {
                Some(partition) => last = partition.from_us.unwrap_or(i64::MIN)..partition.to_us,
                None => {
                    if let Some((from_us, to_us)) = gap(&self.partitions, at_us, width_us) {
                        last = from_us..to_us;
                        missing.insert((from_us, to_us));
                    }
                }
            }
        }
        missing.retain(|window| !self.refused.contains(window));
        missing
    }
}

/// Makes partitions for readings that have none. Call it outside the transaction that stores them: a lock is not to be held until its end.
/// What fails here is told, and is no failure: the readings have a place in any case.
pub(in crate::store) fn make_room(conn: &mut Conn, stream: &str, frames: &[Frame]) {
    // Within a transaction of somebody's the place is what it is.
    if matches!(conn, Conn::Sqlite(_)) || conn.is_in_transaction() {
        return;
    }
    KNOWN.with_borrow_mut(|known| {
        if let Err(error) = try_to(conn, known, stream, frames) {
            known.looked_at = None;
            log::debug!(target: "belayd::store", error:% = error; "partitions were not looked at");
        }
    });
}

fn try_to(conn: &mut Conn, known: &mut Known, stream: &str, frames: &[Frame]) -> StoreResult<()> {
    if known.stream != stream || known.looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
        known.look(conn, stream)?;
    }
    let Some(width_us) = known.width_us() else { return Ok(()) };
    let missing = known.missing(frames, width_us);
    if missing.is_empty() {
        return Ok(());
    }
    let mut refused: Vec<_> = missing.iter().skip(AT_ONCE).copied().collect();
    for (from_us, to_us) in missing.into_iter().take(AT_ONCE) {
        if known.partitions.len() >= super::PARTITIONS_MAX || !make_one(conn, from_us, to_us)? {
            refused.push((from_us, to_us));
        }
    }
    known.look(conn, stream)?;
    known.refused.extend(refused);
    Ok(())
}
