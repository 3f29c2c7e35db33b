//! What was in flight by mail when a fault came, read from the databases past the daemon: claimed, marked as being sent, its end not
//! written. Nothing else may become uncertain.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use diesel::{
    Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Text},
};

use crate::support::daemon::Daemon;

/// Longest wait until the database has ended what an instance had asked of it.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct InFlight {
    ids: HashSet<String>,
    /// All notes together; a delivery that met two faults counts twice.
    pub sum: u64,
}

impl InFlight {
    /// What one fault met, at most as much as may be sent at once.
    ///
    /// # Errors
    /// It is more than that.
    pub fn note(&mut self, ids: &[String], most: u64) -> Result<(), String> {
        self.sum += ids.len() as u64;
        self.ids.extend(ids.iter().cloned());
        if ids.len() as u64 > most {
            return Err(format!("{} mails were in flight, at most {most} may be: {ids:?}", ids.len()));
        }
        Ok(())
    }

    /// Whether a fault met this delivery.
    pub fn met(&self, id: &str) -> bool {
        self.ids.contains(id)
    }
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// How many PostgreSQL counts: `SELECT … AS n`.
pub fn number(url: &str, query: &str) -> Result<u64, String> {
    let mut conn = PgConnection::establish(url).map_err(|error| error.to_string())?;
    let count: Count = sql_query(query).get_result(&mut conn).map_err(|error| error.to_string())?;
    Ok(count.n.unsigned_abs())
}

/// Runs statements on PostgreSQL.
pub fn execute(url: &str, statements: &str) -> Result<(), String> {
    let mut conn = PgConnection::establish(url).map_err(|error| error.to_string())?;
    conn.batch_execute(statements).map_err(|error| error.to_string())
}

/// The control store of an instance, which may have been killed a moment ago.
pub fn control(daemon: &Daemon) -> Result<SqliteConnection, String> {
    let path = daemon.dir().join("data/control.db");
    let mut conn = SqliteConnection::establish(&path.display().to_string()).map_err(|error| error.to_string())?;
    sql_query("PRAGMA busy_timeout = 10000").execute(&mut conn).map_err(|error| error.to_string())?;
    Ok(conn)
}

fn words(found: diesel::QueryResult<Vec<Word>>) -> Result<Vec<String>, String> {
    Ok(found.map_err(|error| error.to_string())?.into_iter().map(|row| row.word).collect())
}

/// The name under which an instance claims.
pub fn worker(daemon: &Daemon) -> Result<String, String> {
    let found = words(sql_query("SELECT directory_id AS word FROM identity").load(&mut control(daemon)?))?;
    found.into_iter().next().ok_or_else(|| "the directory has no id".to_owned())
}

/// Messages in flight by mail, of one instance or of all: what is ready and stands in a claim beside the epoch that it has.
pub fn in_flight(url: &str, worker: Option<&str>) -> Result<Vec<String>, String> {
    let mut conn = PgConnection::establish(url).map_err(|error| error.to_string())?;
    let of = worker.map_or_else(String::new, |worker| format!(" AND c.worker = '{worker}'"));
    let sending = "SELECT d.id AS word FROM delivery_claims AS c CROSS JOIN LATERAL unnest(c.seqs, c.epochs) AS h(seq, epoch) \
                   JOIN deliveries AS d ON d.seq = h.seq AND d.epoch = h.epoch WHERE d.sink = 'smtp' AND d.state = 'ready'";
    words(sql_query(format!("{sending}{of}")).load(&mut conn))
}

/// Notices of alerts in flight by mail, of an instance that was killed or halted.
pub fn notices_in_flight(daemon: &Daemon) -> Result<Vec<String>, String> {
    let sending = "SELECT d.id AS word FROM delivery_claims AS c, json_each(c.seqs) AS s JOIN json_each(c.epochs) AS e ON e.key = s.key \
                   JOIN deliveries AS d ON d.seq = s.value AND d.epoch = e.value WHERE d.sink = 'smtp' AND d.state = 'ready'";
    words(sql_query(sending).load(&mut control(daemon)?))
}

/// Waits until the database has ended whatever an instance asked of it that was killed (`is_gone`) or halted: from then on what the
/// database says of its claims changes by others only.
pub fn quiet(url: &str, application: &str, is_gone: bool) -> Result<(), String> {
    let asks = if is_gone { "" } else { " AND state = 'active'" };
    let query = format!("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = '{application}'{asks}");
    let until = Instant::now() + QUIET;
    while number(url, &query)? > 0 {
        if Instant::now() > until {
            return Err(format!("the database is still at work for {application} after {QUIET:?}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
