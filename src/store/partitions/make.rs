//! Making partitions: ahead of time, and where readings are that have none.

use std::time::Duration;

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    sql_types::{BigInt, Bool},
};

use super::{DAY_US, DEFAULT, HOUR_US, PARTITIONS_MAX, Partition, be_brief, list, list_pg, or_later};
use crate::store::{Conn, StoreError, StoreResult};

/// So far ahead there are partitions: the day by which clocks may be ahead by default, and one for a retention pass that fails.
const AHEAD_US: i64 = 2 * DAY_US;
/// So far back: what is on its way.
const BEHIND_US: i64 = HOUR_US;
/// Longest statement: what is looked through, and moved, is what lies in the default partition.
const LONGEST: Duration = Duration::from_secs(2);
/// Most rows that are moved out of the default partition with one partition: half a second of a small server, in which readers of all
/// times wait.
const MOVED_MAX: i64 = 50_000;
/// Under which instances and lanes make partitions one at a time (the letters "belayd" and a 2).
const LOCK: i64 = 0x0062_656c_6179_6402;
/// Times before 1970 and after 2200 get no partition: a clock that is so wrong does not decide what tables there are.
const TIMES_US: std::ops::Range<i64> = 0..230 * 365 * DAY_US;

/// Makes the partitions for now and the next two days that are missing. Returns how many.
///
/// # Errors
/// Those of the database; one that cannot be made now is none.
pub fn make_ahead(conn: &mut Conn, now_us: i64, width_us: i64) -> StoreResult<u64> {
    make(conn, now_us.saturating_sub(BEHIND_US), now_us.saturating_add(AHEAD_US), width_us)
}

/// Makes the partitions of `width_us` that are missing for the times from `from_us` to `to_us`. Returns how many.
///
/// # Errors
/// Those of the database; one that cannot be made now is none.
pub fn make(conn: &mut Conn, from_us: i64, to_us: i64, width_us: i64) -> StoreResult<u64> {
    if matches!(conn, Conn::Sqlite(_)) {
        return Ok(0);
    }
    let known = list(conn)?;
    let (mut at_us, mut made) = (from_us.max(TIMES_US.start), 0);
    while at_us <= to_us.min(TIMES_US.end) {
        let Some((begin_us, end_us)) = gap(&known, at_us, width_us) else {
            // It has one: on behind that.
            at_us = known.iter().find(|partition| partition.has(at_us)).map_or(i64::MAX, |partition| partition.to_us);
            continue;
        };
        if known.len() as u64 + made >= PARTITIONS_MAX as u64 {
            break;
        }
        made += u64::from(make_one(conn, begin_us, end_us)?);
        at_us = end_us;
    }
    Ok(made)
}

/// The partition that `at_us` lacks: its window of the width, less what others have of it. `None` where it has one.
pub(super) fn gap(known: &[Partition], at_us: i64, width_us: i64) -> Option<(i64, i64)> {
    if known.iter().any(|partition| partition.has(at_us)) || !TIMES_US.contains(&at_us) {
        return None;
    }
    let begin = at_us.div_euclid(width_us) * width_us;
    let end = begin.saturating_add(width_us);
    let begin = known.iter().map(|partition| partition.to_us).filter(|to_us| *to_us <= at_us).fold(begin, i64::max);
    let end = known.iter().filter_map(|partition| partition.from_us).filter(|from_us| *from_us > at_us).fold(end, i64::min);
    Some((begin, end))
}

#[derive(QueryableByName)]
struct Yes {
    #[diesel(sql_type = Bool)]
    yes: bool,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// `false`: not now.
pub(super) fn make_one(conn: &mut Conn, from_us: i64, to_us: i64) -> StoreResult<bool> {
    let name = name_of(from_us);
    let made = conn.write(|conn| {
        let Conn::Pg(pg) = conn else { return Ok(false) };
        be_brief(pg, LONGEST)?;
        let mine: Yes = diesel::sql_query(format!("SELECT pg_try_advisory_xact_lock({LOCK}) AS yes")).get_result(pg)?;
        if !mine.yes {
            return Ok(false);
        }
        if list_pg(pg)?.iter().any(|other| other.from_us.is_none_or(|begin| begin < to_us) && other.to_us > from_us) {
            return Ok(false);
        }
        // Nobody's inserts into other partitions wait for these locks.
        pg.batch_execute(&format!(
            "LOCK TABLE ONLY readings IN SHARE UPDATE EXCLUSIVE MODE; LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE;"
        ))?;
        create(pg, &name)?;
        move_rows(pg, &name, from_us, to_us)?;
        attach(pg, &name, Some(from_us), to_us)?;
        Ok(true)
    });
    or_later(made, "making", &name)
}

/// Makes the partitions that a backup had, in an empty table.
///
/// # Errors
/// Those of the database; ranges that overlap are one.
pub(in crate::store) fn make_as(pg: &mut PgConnection, ranges: &[(Option<i64>, i64)]) -> StoreResult<()> {
    for (from_us, to_us) in ranges {
        // As the migration calls it.
        let name = from_us.map_or_else(|| "readings_before".to_owned(), name_of);
        create(pg, &name)?;
        attach(pg, &name, *from_us, *to_us)?;
    }
    Ok(())
}

fn attach(pg: &mut PgConnection, name: &str, from_us: Option<i64>, to_us: i64) -> StoreResult<()> {
    let from = from_us.map_or_else(|| "MINVALUE".to_owned(), |from_us| from_us.to_string());
    Ok(pg.batch_execute(&format!("ALTER TABLE readings ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to_us})"))?)
}

fn create(pg: &mut PgConnection, name: &str) -> StoreResult<()> {
    Ok(pg.batch_execute(&format!(
        "CREATE TABLE {name} (LIKE readings INCLUDING ALL);
         CREATE TRIGGER readings_removed AFTER DELETE ON {name} REFERENCING OLD TABLE AS old_rows
             FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_removed();
         CREATE TRIGGER readings_truncated BEFORE TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_truncated();"
    ))?)
}

/// Rows of that time that lie in the default partition come along, in the same transaction: a key is never free in between.
fn move_rows(pg: &mut PgConnection, name: &str, from_us: i64, to_us: i64) -> StoreResult<()> {
    let here = format!("observed_at_us >= {from_us} AND observed_at_us < {to_us}");
    let rows: Number = diesel::sql_query(format!(
        "SELECT count(*) AS number FROM (SELECT 1 FROM {DEFAULT} WHERE {here} LIMIT {}) AS few",
        MOVED_MAX + 1
    ))
    .get_result(pg)?;
    match rows.number {
        0 => Ok(()),
        // They stay there until they are too old, and are deleted in slices.
        rows if rows > MOVED_MAX => Err(StoreError::other(format!("{DEFAULT} holds more than {MOVED_MAX} of its rows"))),
        _ => Ok(pg.batch_execute(&format!(
            "ALTER TABLE {DEFAULT} DISABLE TRIGGER readings_removed;
             WITH moved AS (DELETE FROM {DEFAULT} WHERE {here} RETURNING *) INSERT INTO {name} SELECT * FROM moved;
             ALTER TABLE {DEFAULT} ENABLE TRIGGER readings_removed;"
        ))?),
    }
}

/// The hour in which it begins, UTC.
fn name_of(from_us: i64) -> String {
    let begin = chrono::DateTime::from_timestamp_micros(from_us).unwrap_or_default();
    begin.format("readings_from_%Y_%m_%d_%H").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_leaves_out_what_other_partitions_have() {
        let part = |from_us, to_us| Partition { name: String::new(), from_us, to_us };
        let known = [part(None, 15), part(Some(30), 40), part(Some(47), 50)];
        assert_eq!(gap(&known, 3, 10), None, "it has one");
        assert_eq!(gap(&known, 16, 10), Some((15, 20)));
        assert_eq!(gap(&known, 20, 10), Some((20, 30)));
        assert_eq!(gap(&known, 45, 10), Some((40, 47)));
        assert_eq!(gap(&known, 50, 100), Some((50, 100)));
        assert_eq!(gap(&known, i64::MAX, 10), None, "no clock is right there");
    }

    #[test]
    fn a_name_says_when_it_begins() {
        assert_eq!(name_of(1_700_000_000_000_000 / HOUR_US * HOUR_US), "readings_from_2023_11_14_22");
    }
}
