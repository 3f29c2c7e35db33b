//! The rows of one transaction on their way into the table: what became of each is counted as the database reports it, and a row that
//! it can never take is set aside without its neighbours.
//!
//! In: slices of rows within the transaction that settles them. Out: counts for the ledger, failures recorded. A crash loses nothing
//! here: all of it is within that transaction.
//!
//! SQLite's statements fail alone, so the bad row is found within the statement that failed, by halves. PostgreSQL gives the whole
//! transaction up; it is begun again and the server itself tries the rows of the slice that failed one by one (`dead.rs`), in one
//! statement. Either way one bad row in a hundred costs at most 8 statements more.

use diesel::prelude::*;
use uuid::Uuid;

use super::{
    Row,
    compare::{holders, same_values},
    dead::{judged, probe, triggers_words},
    insert::{Progress, insert_at_once, insert_noting},
    insert_rows,
    one::{Fate, insert_one},
    row::Payload,
};
use crate::{
    buffer::{DrainOutcome, Frame},
    store::{
        Backend, Conn, StoreError, StoreErrorKind, StoreResult,
        failures::{FailureKind, NewFailure, record},
    },
};

/// Rows that are inserted before the counts are compared: where some of them were taken, only these are looked at.
pub(super) const LOOK_ROWS: usize = 1_024;
/// Names the primary key in PostgreSQL's message about a key that is taken: no row is bad then.
const PRIMARY_KEY: &str = "readings_pkey";

/// How a transaction is tried, PostgreSQL only: each failure that may be one row's is followed by a more careful try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// No savepoints: the common case.
    Quick,
    /// The server tries the rows of a slice that fails one by one; which one failed before, where it is known.
    Probe(Option<usize>),
    /// Halves under savepoints: for what refuses rows only together.
    Bisect,
}

impl Care {
    /// What to do after `error`, which came from slice `failed`; `None` where more care does not help.
    pub(super) fn next(self, backend: Backend, frames: &[Frame], failed: Option<usize>, error: &StoreError) -> Option<Self> {
        if backend == Backend::Sqlite {
            return None;
        }
        match self {
            Self::Quick => {
                let rows: u64 = frames.iter().map(|frame| u64::from(frame.batch.len())).sum();
                let only = (rows <= LOOK_ROWS as u64 && !error.message.contains(PRIMARY_KEY)).then_some(0);
                Some(Self::Probe(failed.or(only)))
            }
            Self::Probe(_) => Some(Self::Bisect),
            Self::Bisect => None,
        }
    }
}

/// Whether a failure may be handled by finding the row that caused it.
pub(super) fn may_be_one_row(error: &StoreError) -> bool {
    // A code is what the database said of a statement; our own refusals have none.
    !error.is_transient()
        && match error.kind {
            StoreErrorKind::Invalid | StoreErrorKind::Conflict => error.code.is_some(),
            StoreErrorKind::Other => true,
            _ => false,
        }
}

/// See the module.
pub(super) struct Task<'t> {
    stream: &'t str,
    stream_no: i64,
    now_us: i64,
    care: Care,
    outcome: DrainOutcome,
    duplicates: Vec<i64>,
    /// Every number that did not become a row, duplicates included.
    unstored: Vec<i64>,
    /// Refused by a SQLite trigger in words of its own: believed once a neighbour was taken.
    suspects: Vec<(Row<'t>, StoreError)>,
}

impl<'t> Task<'t> {
    pub(super) fn new(stream: &'t str, stream_no: i64, now_us: i64, care: Care) -> Self {
        let (outcome, duplicates, unstored, suspects) = (DrainOutcome::default(), Vec::new(), Vec::new(), Vec::new());
        Self { stream, stream_no, now_us, care, outcome, duplicates, unstored, suspects }
    }

    /// All of them went in by another way.
    pub(super) fn all_stored(&mut self, rows: &[Row<'t>]) {
        self.outcome.stored += rows.len() as u64;
    }

    /// Stores the rows of one slice.
    pub(super) fn store(&mut self, conn: &mut Conn, slice: usize, rows: &[Row<'t>]) -> StoreResult<()> {
        match (conn.backend(), self.care) {
            (Backend::Sqlite, _) => self.store_piecewise(conn, rows),
            (_, Care::Quick) => {
                let inserted = insert_rows(conn, self.stream_no, rows)?;
                self.account(conn, rows, inserted)
            }
            (_, Care::Probe(failed)) => {
                if failed != Some(slice) {
                    match conn.savepoint(|conn| insert_rows(conn, self.stream_no, rows)) {
                        Ok(inserted) => return self.account(conn, rows, inserted),
                        Err(error) if !may_be_one_row(&error) => return Err(error),
                        Err(_) => {}
                    }
                }
                self.store_probed(conn, rows)
            }
            (_, Care::Bisect) => self.bisect(conn, rows),
        }
    }

    /// The counts, the numbers of the duplicates, and the numbers of everything that did not become a row; both in order.
    pub(super) fn finish(mut self, conn: &mut Conn) -> StoreResult<(DrainOutcome, Vec<i64>, Vec<i64>)> {
        let taken = self.outcome.stored + self.outcome.duplicate + self.outcome.conflict > 0;
        for (row, error) in std::mem::take(&mut self.suspects) {
            if !taken {
                return Err(error);
            }
            self.bury(conn, &row, &error)?;
        }
        self.duplicates.sort_unstable();
        self.unstored.extend_from_slice(&self.duplicates);
        self.unstored.sort_unstable();
        Ok((self.outcome, self.duplicates, self.unstored))
    }

    /// SQLite: what the failed statement held is searched by halves, and the rest goes on.
    fn store_piecewise(&mut self, conn: &mut Conn, rows: &[Row<'t>]) -> StoreResult<()> {
        let Conn::Sqlite(sqlite) = conn else { return Err(StoreError::other("only SQLite's statements fail alone")) };
        let (mut refused, mut inserted, mut from) = (Vec::new(), 0, 0);
        while from < rows.len() {
            let mut progress = Progress::default();
            let failed = insert_noting(sqlite, self.stream_no, &rows[from..], &mut progress);
            inserted += progress.inserted;
            from += progress.done;
            let Err(error) = failed else { break };
            let end = from + progress.tried;
            let mut error = one_row(error.into())?;
            while from < end {
                let (place, blamed) = search(sqlite, self.stream_no, &rows[from..end], error, &mut inserted)?;
                refused.push((rows[from + place], blamed));
                from += place + 1;
                match insert_rest(sqlite, self.stream_no, &rows[from..end]) {
                    Ok(more) => {
                        inserted += more;
                        break;
                    }
                    Err(again) => error = one_row(again)?,
                }
            }
            from = end;
        }
        self.settle_refused(conn, rows, refused, |_| Ok(inserted))
    }

    /// PostgreSQL: the server has said which of them it refuses.
    fn store_probed(&mut self, conn: &mut Conn, rows: &[Row<'t>]) -> StoreResult<()> {
        let refused = probe(conn, rows)?.into_iter().map(|(place, error)| (rows[place], error)).collect();
        let stream_no = self.stream_no;
        self.settle_refused(conn, rows, refused, |(conn, good)| insert_rows(conn, stream_no, good))
    }

    /// Sets `refused` aside, and takes the others of `rows` into account after `insert`.
    fn settle_refused(
        &mut self,
        conn: &mut Conn,
        rows: &[Row<'t>],
        refused: Vec<(Row<'t>, StoreError)>,
        insert: impl FnOnce((&mut Conn, &[Row<'t>])) -> StoreResult<u64>,
    ) -> StoreResult<()> {
        if refused.is_empty() {
            let inserted = insert((conn, rows))?;
            return self.account(conn, rows, inserted);
        }
        let bad: std::collections::HashSet<i64> = refused.iter().map(|(row, _)| row.seq).collect();
        let good: Vec<Row<'t>> = rows.iter().filter(|row| !bad.contains(&row.seq)).copied().collect();
        let inserted = insert((conn, &good))?;
        self.account(conn, &good, inserted)?;
        for (row, error) in refused {
            match triggers_words(conn.backend(), &error) {
                Some(error) => self.suspects.push((row, error)),
                None => self.bury(conn, &row, &judged(error)?)?,
            }
        }
        Ok(())
    }

    fn bisect(&mut self, conn: &mut Conn, rows: &[Row<'t>]) -> StoreResult<()> {
        match conn.savepoint(|conn| insert_rows(conn, self.stream_no, rows)) {
            Ok(inserted) => self.account(conn, rows, inserted),
            Err(error) if !may_be_one_row(&error) => Err(error),
            Err(_) if rows.len() == 1 => match probe(conn, rows)?.pop() {
                Some((_, error)) => self.bury(conn, &rows[0], &judged(error)?),
                None => Err(StoreError::from_code("40001", "a reading that was refused is taken now")),
            },
            Err(_) => {
                let (left, right) = rows.split_at(rows.len() / 2);
                self.bisect(conn, left)?;
                self.bisect(conn, right)
            }
        }
    }

    /// Tells stored, duplicate and conflict apart. Our own rows are known by their number.
    fn account(&mut self, conn: &mut Conn, rows: &[Row<'_>], inserted: u64) -> StoreResult<()> {
        self.outcome.stored += inserted;
        if inserted == rows.len() as u64 {
            return Ok(());
        }
        let mut ours = 0;
        for (row, holder) in rows.iter().zip(holders(conn, rows)?) {
            let Some(holder) = holder else {
                self.store_left_out(conn, row)?;
                continue;
            };
            if holder.stream_no == self.stream_no && holder.seq == row.seq {
                ours += 1;
            } else if same_values(&row.reading, &holder.as_ref()) {
                self.outcome.duplicate += 1;
                self.duplicates.push(row.seq);
            } else {
                self.outcome.conflict += 1;
                self.unstored.push(row.seq);
                let existing = Payload::new(&holder.as_ref(), holder.created_at_us).text();
                self.fail(conn, row, FailureKind::Conflict, Some(existing), None, "another reading holds this engine and time")?;
            }
        }
        if ours == inserted {
            return Ok(());
        }
        Err(StoreError::other(format!("the database reported {inserted} inserted rows, {ours} are there")))
    }

    /// A row that was not inserted although its key is free: either the one that held the key was deleted between two statements of
    /// ours, or a trigger leaves it out, again and again.
    fn store_left_out(&mut self, conn: &mut Conn, row: &Row<'_>) -> StoreResult<()> {
        match insert_one(conn, self.stream_no, row)? {
            Fate::Stored => self.outcome.stored += 1,
            Fate::Refused(error) => self.bury(conn, row, &error)?,
            // Its key was taken meanwhile, on PostgreSQL only. The next try decides.
            Fate::Duplicate | Fate::Conflict => {
                return Err(StoreError::from_code("40001", "another reading came while this one was compared"));
            }
        }
        Ok(())
    }

    /// Sets a row aside that the database can never take.
    fn bury(&mut self, conn: &mut Conn, row: &Row<'_>, error: &StoreError) -> StoreResult<()> {
        self.outcome.dead += 1;
        self.unstored.push(row.seq);
        self.fail(conn, row, FailureKind::Dead, None, error.code.as_deref(), &error.message)
    }

    fn fail(
        &self,
        conn: &mut Conn,
        row: &Row<'_>,
        kind: FailureKind,
        existing: Option<String>,
        error_code: Option<&str>,
        message: &str,
    ) -> StoreResult<()> {
        record(
            conn,
            &NewFailure {
                id: Uuid::now_v7().to_string(),
                kind: kind.as_str(),
                state: "open",
                stream: self.stream,
                seq: row.seq,
                engine_id: row.reading.engine_id,
                observed_at_us: row.reading.observed_at_us,
                payload: Payload::new(&row.reading, row.created_at_us).text(),
                existing,
                error_code,
                message,
                attempts: 0,
                created_at_us: self.now_us,
                updated_at_us: self.now_us,
            },
        )
    }
}

/// The failure, where it may be one row's.
fn one_row(error: StoreError) -> StoreResult<StoreError> {
    if may_be_one_row(&error) { Ok(error) } else { Err(error) }
}

fn insert_rest(conn: &mut SqliteConnection, stream_no: i64, rows: &[Row<'_>]) -> StoreResult<u64> {
    if rows.is_empty() { Ok(0) } else { Ok(insert_at_once(conn, stream_no, rows)?) }
}

/// The first row of `rows` that SQLite refuses, one of which it does: those before it are in afterwards, those behind it untried.
fn search(
    conn: &mut SqliteConnection,
    stream_no: i64,
    rows: &[Row<'_>],
    mut error: StoreError,
    inserted: &mut u64,
) -> StoreResult<(usize, StoreError)> {
    let (mut low, mut high) = (0, rows.len());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match insert_at_once(conn, stream_no, &rows[low..middle]) {
            Ok(more) => {
                *inserted += more;
                low = middle;
            }
            Err(failed) => {
                error = one_row(failed.into())?;
                high = middle;
            }
        }
    }
    Ok((low, error))
}
