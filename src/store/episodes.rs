//! Which instances have an alert open that several of them see, and which of them has told its sink: three instances, one notice.
//!
//! In: a delivery of an alert about to leave, and its end. Out: whether to send it, to let it rest because another has told, or to wait.
//! Whatever is doubtful is sent: a repeat beats silence. So only rows of instances that are alive and have the alert open count, and one
//! that is told of by another rests only after [`SETTLE`], in which the other may find its own alert over.

use std::time::Duration;

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use super::{Conn, StoreResult, deliveries::PG_CLOCK_US, instances::alive_sql};
use crate::on_backend;

/// How long a delivery waits before it rests: longer than an instance takes to say that its alert is over.
pub const SETTLE: Duration = Duration::from_secs(7);

/// How long a delivery waits for another instance that has not told yet; its sink may be out of that one's reach.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Values of `told`: not told; told by this instance; told by one whose alert was over before this one's.
const UNTOLD: i64 = 0;
const TOLD: i64 = 1;
const TOLD_FOR: i64 = 2;

/// An alert at one sink, as one instance sees it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Kind, name and subject.
    pub episode: &'a str,
    /// Whom to tell.
    pub sink: &'a str,
    /// Who asks.
    pub instance: &'a str,
}

/// What to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Tell,
    /// Another instance has told.
    Told,
    /// Another one is about to, or has told just now: ask again.
    Wait,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    instance: String,
    #[diesel(sql_type = BigInt)]
    told: i64,
    #[diesel(sql_type = BigInt)]
    since_us: i64,
    /// Since it entered, microseconds.
    #[diesel(sql_type = BigInt)]
    age_us: i64,
}

fn clock(conn: &Conn, now_us: i64) -> String {
    if matches!(conn, Conn::Pg(_)) { PG_CLOCK_US.to_owned() } else { now_us.to_string() }
}

/// Those who have it open and are alive, and `place`'s own row.
fn rows(conn: &mut Conn, place: Place<'_>, now_us: i64) -> StoreResult<Vec<Row>> {
    let text = format!(
        "SELECT e.instance, e.told, e.since_us, {} - e.since_us AS age_us FROM episodes AS e \
         LEFT JOIN instances AS i ON i.instance = e.instance \
         WHERE e.episode = $1 AND e.sink = $2 AND (e.instance = $3 OR (e.open = 1 AND {})) ORDER BY e.since_us, e.instance",
        clock(conn, now_us),
        alive_sql(conn, now_us)
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<Text, _>(place.episode)
        .bind::<Text, _>(place.sink)
        .bind::<Text, _>(place.instance)
        .load(c))?)
}

/// One at a time decides about an alert at a sink.
fn lock(conn: &mut Conn, place: Place<'_>) -> StoreResult<()> {
    if let Conn::Pg(pg) = conn {
        diesel::sql_query("SELECT pg_advisory_xact_lock(hashtextextended('episode/' || $1 || '/' || $2, 0))")
            .bind::<Text, _>(place.episode)
            .bind::<Text, _>(place.sink)
            .execute(pg)?;
    }
    Ok(())
}

fn execute(conn: &mut Conn, text: &str, place: Place<'_>) -> StoreResult<usize> {
    Ok(on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<Text, _>(place.episode)
        .bind::<Text, _>(place.sink)
        .bind::<Text, _>(place.instance)
        .execute(c))?)
}

/// An instance wants to tell that an alert began.
///
/// # Errors
/// Those of the store; send it then.
pub fn enter(conn: &mut Conn, place: Place<'_>, now_us: i64) -> StoreResult<Verdict> {
    conn.write(|conn| {
        lock(conn, place)?;
        let text = format!(
            "INSERT INTO episodes (episode, sink, instance, since_us) VALUES ($1, $2, $3, {}) \
             ON CONFLICT (episode, sink, instance) DO UPDATE SET open = 1",
            clock(conn, now_us)
        );
        execute(conn, &text, place)?;
        let rows = rows(conn, place, now_us)?;
        let Some(mine) = rows.iter().find(|row| row.instance == place.instance) else { return Ok(Verdict::Tell) };
        match mine.told {
            TOLD => return Ok(Verdict::Tell),
            TOLD_FOR => return Ok(Verdict::Told),
            _ => {}
        }
        let others = || rows.iter().filter(|row| row.instance != place.instance);
        let younger = |age: Duration| mine.age_us < i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        Ok(if others().any(|row| row.told != UNTOLD) {
            if younger(SETTLE) { Verdict::Wait } else { Verdict::Told }
        } else if younger(WAIT_MAX) && others().any(|row| (row.since_us, &row.instance) < (mine.since_us, &mine.instance)) {
            Verdict::Wait
        } else {
            Verdict::Tell
        })
    })
}

/// The sink has confirmed that the alert began.
///
/// # Errors
/// Those of the store; another instance may then tell as well.
pub fn told(conn: &mut Conn, place: Place<'_>) -> StoreResult<()> {
    note(conn, place, TOLD)
}

fn note(conn: &mut Conn, place: Place<'_>, told: i64) -> StoreResult<()> {
    let text = format!("UPDATE episodes SET told = {told} WHERE episode = $1 AND sink = $2 AND instance = $3");
    execute(conn, &text, place).map(drop)
}

/// An instance wants to tell that its alert is over: the last one that has it open does. Never `Wait`.
///
/// # Errors
/// Those of the store; send it then.
pub fn leave(conn: &mut Conn, place: Place<'_>, now_us: i64) -> StoreResult<Verdict> {
    conn.write(|conn| {
        lock(conn, place)?;
        let rows = rows(conn, place, now_us)?;
        let was_told = rows.iter().any(|row| row.told != UNTOLD);
        execute(conn, "DELETE FROM episodes WHERE episode = $1 AND sink = $2 AND instance = $3", place)?;
        let Some(next) = rows.iter().find(|row| row.instance != place.instance) else { return Ok(Verdict::Tell) };
        if was_told {
            // What was told stands for those who still have it open; the last of them tells the end.
            note(conn, Place { instance: &next.instance, ..place }, if next.told == TOLD { TOLD } else { TOLD_FOR })?;
        }
        Ok(Verdict::Told)
    })
}

/// Says which alerts an instance has open now: rows of the others do not count any more, and are dropped after an hour.
///
/// # Errors
/// Those of the store.
pub fn reconcile(conn: &mut Conn, instance: &str, open: &[String], now_us: i64) -> StoreResult<()> {
    #[derive(QueryableByName)]
    struct Known {
        #[diesel(sql_type = Text)]
        episode: String,
        #[diesel(sql_type = BigInt)]
        open: i64,
    }
    let text = "SELECT DISTINCT episode, open FROM episodes WHERE instance = $1";
    let known: Vec<Known> = on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(instance).load(c))?;
    for row in known {
        let is_open = i64::from(open.contains(&row.episode));
        if is_open != row.open {
            let text = format!("UPDATE episodes SET open = {is_open} WHERE instance = $1 AND episode = $2");
            on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(instance).bind::<Text, _>(&row.episode).execute(c))?;
        }
    }
    let text = format!("DELETE FROM episodes WHERE instance = $1 AND open = 0 AND since_us < {} - 3600000000", clock(conn, now_us));
    on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(instance).execute(c))?;
    Ok(())
}
