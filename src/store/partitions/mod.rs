//! PostgreSQL keeps readings in partitions by the time at which they were observed, so that what is too old goes as a whole table and not
//! row by row. SQLite has none: every function here does nothing there.
//!
//! In: times that need a place, and the time before which nothing is kept. Out: tables that are made, taken out of `readings`, counted and
//! dropped. Whatever has no partition lies in `readings_default`, so that none of this stands between a reading and its row: where a lock is
//! not to be had within [`LOCK_WAIT`] it is left for later. A crash loses nothing: making one is one transaction, taking one out is one, and
//! a table that was taken out and not counted yet keeps its name until the next run or the next integrity check has counted and dropped it.

mod gone;
mod make;
mod room;

use std::time::Duration;

use diesel::{connection::SimpleConnection, prelude::*, sql_types::Text};

pub(super) use self::{gone::is_any_gone, make::make_as, room::make_room};
pub use self::{
    gone::{detach, finish_gone},
    make::{make, make_ahead},
};
use super::{Conn, StoreError, StoreResult, deliveries::PG_CLOCK_US};

/// Rows without a partition of their own.
pub const DEFAULT: &str = "readings_default";
/// Longest wait for a lock. Whoever writes readings waits behind this wait, so it is the most that a change of partitions costs ingest.
const LOCK_WAIT: Duration = Duration::from_millis(50);
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// Widths of partitions. Each begins at a multiple of its width.
const WIDTHS_US: [i64; 6] = [HOUR_US, 6 * HOUR_US, DAY_US, 7 * DAY_US, 30 * DAY_US, 365 * DAY_US];
/// Most partitions over the time for which readings are kept: a query without bounds in time opens all of them.
const PARTITIONS_KEPT: i64 = 128;
/// Most partitions in all; beyond it rows go into [`DEFAULT`].
const PARTITIONS_MAX: usize = 512;

/// A partition of `readings`, other than [`DEFAULT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The table's name.
    pub name: String,
    /// The first time in it, microseconds since the epoch; `None` where it has no beginning.
    pub from_us: Option<i64>,
    /// The first time behind it.
    pub to_us: i64,
}

impl Partition {
    fn has(&self, at_us: i64) -> bool {
        self.from_us.is_none_or(|from_us| from_us <= at_us) && at_us < self.to_us
    }

    /// Whether it is wider than those that are made now, so that waiting until all of it is too old would keep readings for long.
    pub fn is_wider(&self, width_us: i64) -> bool {
        self.from_us.is_none_or(|from_us| self.to_us.saturating_sub(from_us) > width_us)
    }
}

/// How wide partitions are where readings are kept for `keep`: the narrowest of 1 h, 6 h, 1, 7, 30 and 365 days that makes at most
/// 128 of them. So a reading stays for at most an hour, or a tenth of `keep`, longer than asked for.
pub fn width_us(keep: Duration) -> i64 {
    let keep_us = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let fits = |width: &&i64| keep_us / **width <= PARTITIONS_KEPT;
    WIDTHS_US.iter().find(fits).copied().unwrap_or(WIDTHS_US[WIDTHS_US.len() - 1])
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    name: String,
    /// Null where another instance has dropped it since the statement began: this is looked up now, the name was of then.
    #[diesel(sql_type = diesel::sql_types::Nullable<Text>)]
    bound: Option<String>,
}

/// The partitions of `readings` without [`DEFAULT`], by time.
///
/// # Errors
/// Those of the database.
pub fn list(conn: &mut Conn) -> StoreResult<Vec<Partition>> {
    match conn {
        Conn::Sqlite(_) => Ok(Vec::new()),
        Conn::Pg(pg) => list_pg(pg),
    }
}

fn list_pg(pg: &mut PgConnection) -> StoreResult<Vec<Partition>> {
    let found: Vec<Found> = diesel::sql_query(
        "SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound FROM pg_inherits AS i \
         JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('readings') AND c.relpartbound IS NOT NULL",
    )
    .load(pg)?;
    let mut partitions: Vec<Partition> = found
        .into_iter()
        .filter_map(|Found { name, bound }| parse(&bound?).map(|(from_us, to_us)| Partition { name, from_us, to_us }))
        .collect();
    partitions.sort_by_key(|partition| partition.to_us);
    Ok(partitions)
}

/// `FOR VALUES FROM ('1') TO ('2')`, with MINVALUE or MAXVALUE in the place of a number; `None` for `DEFAULT`.
fn parse(bound: &str) -> Option<(Option<i64>, i64)> {
    let (from, to) = bound.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?.split_once(") TO (")?;
    let number = |text: &str| text.trim_matches('\'').parse::<i64>().ok();
    let to_us = if to == "MAXVALUE" { i64::MAX } else { number(to)? };
    Some((if from == "MINVALUE" { None } else { Some(number(from)?) }, to_us))
}

#[derive(QueryableByName)]
struct Now {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    now_us: i64,
}

/// Now by PostgreSQL's clock, microseconds since the epoch; SQLite has none of its own and answers with the end of time.
///
/// # Errors
/// Those of the database.
pub fn clock_us(conn: &mut Conn) -> StoreResult<i64> {
    let Conn::Pg(pg) = conn else { return Ok(i64::MAX) };
    let now: Now = diesel::sql_query(format!("SELECT {PG_CLOCK_US} AS now_us")).get_result(pg)?;
    Ok(now.now_us)
}

/// Bounds what the statements of this transaction wait for.
fn be_brief(pg: &mut PgConnection, longest: Duration) -> StoreResult<()> {
    let (lock, statement) = (LOCK_WAIT.as_millis(), longest.as_millis());
    Ok(pg.batch_execute(&format!("SET LOCAL lock_timeout = {lock}; SET LOCAL statement_timeout = {statement}"))?)
}

/// A change that was not to be had now is left for later; a connection that broke is a failure.
fn or_later(result: StoreResult<bool>, doing: &str, name: &str) -> StoreResult<bool> {
    let broken = |error: &StoreError| error.code.as_deref().is_some_and(|code| code.starts_with("08") || code.starts_with("57P"));
    match result {
        Err(error) if !broken(&error) => {
            log::info!(target: "belayd::store", partition = name, error:% = error; "{doing} a partition is left for later");
            Ok(false)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_partitions_is_bounded_whatever_is_kept() {
        for hours in [1_u64, 24, 128, 129, 720, 24 * 365, 24 * 3_650, 24 * 36_500] {
            let keep = Duration::from_secs(hours * 3_600);
            let width = width_us(keep);
            assert!(keep.as_micros() as i64 / width <= PARTITIONS_KEPT, "{hours} h");
            let longer = width as f64 / keep.as_micros() as f64;
            assert!(width == HOUR_US || longer <= 1.0 / 10.0, "{hours} h are kept {longer} longer");
        }
        assert_eq!(width_us(Duration::from_secs(3_650 * 86_400)), 30 * DAY_US);
    }

    #[test]
    fn bounds_are_read_as_postgresql_prints_them() {
        assert_eq!(parse("FOR VALUES FROM ('-5') TO ('7')"), Some((Some(-5), 7)));
        assert_eq!(parse("FOR VALUES FROM (MINVALUE) TO ('7')"), Some((None, 7)));
        assert_eq!(parse("FOR VALUES FROM ('5') TO (MAXVALUE)"), Some((Some(5), i64::MAX)));
        assert_eq!(parse("DEFAULT"), None);
    }
}
