//! Writing down what became of attempts.

use std::{collections::HashMap, sync::Arc};

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Integer, Nullable, Text},
};

use super::{
    attempts::{self, Ended},
    claim::{Claimed, Held},
    claims,
};
use crate::{
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{
        Conn, StoreResult,
        control_schema::deliveries,
        prepared::{Bind, Prepared},
    },
};

/// Longest error or answer that is kept, in characters.
const ERROR_MAX_CHARS: usize = 500;

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver confirmed it.
    Sent,
    /// Another attempt at `at_us`.
    Retry {
        /// When, microseconds since the epoch.
        at_us: i64,
    },
    /// The channel took nothing while it was known to be away: another attempt at `at_us`, or when it is back. It is not counted.
    Waits {
        /// When, microseconds since the epoch.
        at_us: i64,
        /// Attempts before this one.
        attempts: u32,
    },
    /// No answer; it goes out again at `at_us`, marked as a possible repeat.
    Repeat {
        /// When, microseconds since the epoch.
        at_us: i64,
    },
    /// No answer; a person decides.
    Uncertain,
    /// The receiver will never take it.
    Rejected,
    /// The last allowed attempt failed.
    Exhausted,
    /// The attempt was not made after all, and is not counted.
    GivenBack {
        /// Attempts before this one.
        attempts: u32,
    },
    /// The attempt was not made, because another instance may have told already; it is not counted, and asked again at `at_us`.
    Postponed {
        /// When, microseconds since the epoch.
        at_us: i64,
        /// Attempts before this one.
        attempts: u32,
    },
    /// Another instance has told the receiver.
    ToldByAnother,
}

impl Outcome {
    /// The event of the state machine.
    pub fn event(&self) -> Event {
        match self {
            Self::Sent | Self::ToldByAnother => Event::SentOk,
            Self::Retry { .. } | Self::Waits { .. } | Self::Postponed { .. } => Event::Retry,
            Self::Repeat { .. } => Event::Repeat,
            Self::Uncertain => Event::OutcomeUnknown,
            Self::Rejected => Event::Reject,
            Self::Exhausted => Event::ExhaustedAttempts,
            Self::GivenBack { .. } => Event::GiveBack,
        }
    }

    /// Whether anything was sent, or tried.
    fn is_attempt(&self) -> bool {
        !matches!(self, Self::GivenBack { .. } | Self::Postponed { .. } | Self::ToldByAnother)
    }
}

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The claim under which it was made.
    pub held: Held,
    /// What became of it.
    pub outcome: Outcome,
    /// A fixed word and a sentence, where it failed.
    pub error: Option<(String, String)>,
    /// What the receiver answered, where it took it.
    pub answer: Option<String>,
    /// The attempt that this was, for the history.
    pub made: Option<Made>,
}

/// Who made which attempt when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The worker.
    pub worker: Arc<str>,
    /// From 1.
    pub attempt: u32,
    /// When it began, microseconds since the epoch.
    pub began_at_us: i64,
    /// When it ended.
    pub ended_at_us: i64,
}

/// What a move that no worker makes changes beside the state; `None` leaves a column as it is.
#[derive(Default, AsChangeset)]
#[diesel(table_name = deliveries)]
pub(super) struct Patch<'a> {
    pub(super) state: &'static str,
    pub(super) updated_at_us: i64,
    pub(super) due_at_us: Option<i64>,
    pub(super) attempt: Option<i32>,
    pub(super) last_error_type: Option<&'a str>,
    pub(super) last_error: Option<&'a str>,
    pub(super) possible_repeat: Option<i32>,
    pub(super) settled_at_us: Option<i64>,
}

impl Patch<'_> {
    /// What every such move does.
    pub(super) fn of(event: Event, now_us: i64) -> Self {
        let target = event.target();
        Self {
            state: target.as_str(),
            updated_at_us: now_us,
            settled_at_us: target.is_final().then_some(now_us),
            ..Self::default()
        }
    }
}

/// Carries out one move of a delivery that nobody holds, if it stands in one of `from`. What is ready may be held: look for that first,
/// having taken the sink's turn.
pub(super) fn apply(conn: &mut Conn, id: &str, from: &[DeliveryState], patch: &Patch<'_>) -> StoreResult<bool> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let moved = on_backend!(conn, |c| {
        let row = deliveries::table.filter(deliveries::id.eq(id)).filter(deliveries::state.eq_any(from));
        diesel::update(row).set(patch).execute(c)
    })?;
    Ok(moved == 1)
}

/// One fenced move of many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move<'a> {
    held: &'a Held,
    event: Event,
    pub(super) due_at_us: Option<i64>,
    pub(super) attempt: Option<i32>,
    pub(super) possible_repeat: Option<i32>,
    pub(super) error: Option<(&'a str, &'a str)>,
    answer: Option<&'a str>,
}

impl<'a> Move<'a> {
    pub(super) fn of(held: &'a Held, event: Event) -> Self {
        debug_assert!(event.sources().contains(&DeliveryState::Sending), "{event:?} moves nothing that is held");
        Self { held, event, due_at_us: None, attempt: None, possible_repeat: None, error: None, answer: None }
    }

    fn end(end: &'a Settlement) -> Self {
        let counted = |attempts: u32| i32::try_from(attempts).ok();
        let (due_at_us, attempt, possible_repeat) = match end.outcome {
            Outcome::Retry { at_us } => (Some(at_us), None, None),
            Outcome::Repeat { at_us } => (Some(at_us), None, Some(1)),
            Outcome::Waits { at_us, attempts } | Outcome::Postponed { at_us, attempts } => (Some(at_us), counted(attempts), None),
            Outcome::GivenBack { attempts } => (None, counted(attempts), None),
            _ => (None, None, None),
        };
        let error = end.error.as_ref().map(|(word, text)| (word.as_str(), cut(text)));
        let answer = end.answer.as_deref().map(cut);
        Self { due_at_us, attempt, possible_repeat, error, answer, ..Self::of(&end.held, end.outcome.event()) }
    }

    /// Whether it changes nothing but what every success does.
    fn is_plain_success(&self) -> bool {
        self.event == Event::SentOk && self.error.is_none()
    }
}

/// Writes down the ends of attempts, all or none, and the history of those that did not succeed at the first go. Returns the claims that
/// no longer held: their deliveries belong to another worker and are left alone.
///
/// # Errors
/// Those of the store.
pub fn settle(conn: &mut Conn, settlements: &[Settlement], now_us: i64) -> StoreResult<Vec<Held>> {
    let moves: Vec<Move<'_>> = settlements.iter().map(Move::end).collect();
    let told: Vec<&Settlement> = settlements.iter().filter(|end| is_told(end)).collect();
    if told.is_empty() {
        return carry_out(conn, &moves, now_us);
    }
    conn.write_within(|conn| {
        let fenced = carry_out(conn, &moves, now_us)?;
        let ended: Vec<Ended<'_>> = told
            .iter()
            .filter(|end| !fenced.contains(&end.held))
            .filter_map(|end| {
                let error = end.error.as_ref().map(|(word, text)| (word.as_str(), cut(text)));
                let outcome = end.outcome.event().target().as_str();
                end.made.clone().map(|made| Ended { held: &end.held, made, outcome, error, answer: end.answer.as_deref().map(cut) })
            })
            .collect();
        attempts::write(conn, &ended)?;
        Ok(fenced)
    })
}

/// A success at the first go stands in the delivery itself.
fn is_told(end: &Settlement) -> bool {
    end.made.is_some() && end.outcome.is_attempt() && (end.outcome != Outcome::Sent || end.held.epoch > 1)
}

/// One statement for each kind of move on PostgreSQL, which is a transaction by itself where there is only one.
pub(super) fn carry_out(conn: &mut Conn, moves: &[Move<'_>], now_us: i64) -> StoreResult<Vec<Held>> {
    if matches!(conn, Conn::Sqlite(_)) {
        return conn.write_within(|conn| on_sqlite(conn, moves, now_us));
    }
    let kind = |of: &Move<'_>| (of.event, of.is_plain_success());
    let mut kinds: Vec<_> = moves.iter().map(kind).collect();
    kinds.sort_unstable_by_key(|(event, plain)| (*event as usize, *plain));
    kinds.dedup();
    let all = |conn: &mut Conn| {
        let mut fenced = Vec::new();
        for wanted in &kinds {
            let of_kind: Vec<&Move<'_>> = moves.iter().filter(|one| kind(one) == *wanted).collect();
            fenced.append(&mut all_of_a_kind(conn, *wanted, &of_kind, now_us)?);
        }
        Ok(fenced)
    };
    if kinds.len() > 1 { conn.write(all) } else { all(conn) }
}

/// One writer: successes of a kind in one statement, all else row by row.
fn on_sqlite(conn: &mut Conn, moves: &[Move<'_>], now_us: i64) -> StoreResult<Vec<Held>> {
    let Conn::Sqlite(c) = conn else { return Err(crate::store::StoreError::other("not an SQLite connection")) };
    let mut fenced = Vec::new();
    let (plain, others): (Vec<&Move<'_>>, Vec<&Move<'_>>) = moves.iter().partition(|one| one.is_plain_success());
    let mut alike: HashMap<(i64, Option<&str>), Vec<&Held>> = HashMap::new();
    for one in plain {
        alike.entry((one.held.epoch, one.answer)).or_default().push(one.held);
    }
    for ((epoch, answer), held) in alike {
        let lost = send_all(c, epoch, answer, &held, now_us)?;
        claims::reduce(c, held.into_iter().filter(|one| !lost.contains(one)))?;
        fenced.extend(lost);
    }
    for one in others {
        if end_one(c, one, now_us)? {
            claims::reduce(c, std::iter::once(one.held))?;
        } else {
            fenced.push(one.held.clone());
        }
    }
    Ok(fenced)
}

/// A move of what is held: it has the epoch of before its claim.
fn end_one(c: &mut SqliteConnection, one: &Move<'_>, now_us: i64) -> StoreResult<bool> {
    let settled = if one.event.target().is_final() { ", settled_at_us = $1" } else { "" };
    let text = format!(
        "UPDATE deliveries SET state = '{}', updated_at_us = $1{settled}, epoch = $2, attempt = COALESCE($3, attempt + 1), \
         due_at_us = COALESCE($4, due_at_us), possible_repeat = COALESCE($5, possible_repeat), \
         last_error_type = COALESCE($6, last_error_type), last_error = COALESCE($7, last_error), answer = COALESCE($8, answer) \
         WHERE seq = $9 AND epoch = $2 - 1 AND state = '{}'",
        one.event.target(),
        DeliveryState::Ready
    );
    let (word, message) = one.error.unzip();
    let moved = diesel::sql_query(text)
        .bind::<BigInt, _>(now_us)
        .bind::<BigInt, _>(one.held.epoch)
        .bind::<Nullable<Integer>, _>(one.attempt)
        .bind::<Nullable<BigInt>, _>(one.due_at_us)
        .bind::<Nullable<Integer>, _>(one.possible_repeat)
        .bind::<Nullable<Text>, _>(word)
        .bind::<Nullable<Text>, _>(message)
        .bind::<Nullable<Text>, _>(one.answer)
        .bind::<BigInt, _>(one.held.seq)
        .execute(c)?;
    Ok(moved == 1)
}

/// The move of nearly all. Returns those that it did not find. `OR FAIL`: see [`claim`](super::claim).
fn send_all(c: &mut SqliteConnection, epoch: i64, answer: Option<&str>, held: &[&Held], now_us: i64) -> StoreResult<Vec<Held>> {
    let seqs: Vec<i64> = held.iter().map(|held| held.seq).collect();
    let seqs = serde_json::json!(seqs).to_string();
    let text = format!(
        "UPDATE OR FAIL deliveries SET state = '{}', updated_at_us = $1, settled_at_us = $1, epoch = $2, attempt = attempt + 1, \
         answer = $3 WHERE seq IN (SELECT value FROM json_each($4)) AND epoch = $2 - 1 AND +state = '{}'",
        Event::SentOk.target(),
        DeliveryState::Ready
    );
    let moved = diesel::sql_query(text)
        .bind::<BigInt, _>(now_us)
        .bind::<BigInt, _>(epoch)
        .bind::<Nullable<Text>, _>(answer)
        .bind::<Text, _>(&seqs)
        .execute(c)?;
    if moved == held.len() {
        return Ok(Vec::new());
    }
    // Rare: a row that is sent under this claim is one that was moved just now, because a claim is settled once.
    let text = format!(
        "SELECT seq, epoch FROM deliveries WHERE seq IN (SELECT value FROM json_each($1)) AND epoch = $2 AND settled_at_us = $3 AND state = '{}'",
        Event::SentOk.target(),
    );
    let query = diesel::sql_query(text).bind::<Text, _>(&seqs).bind::<BigInt, _>(epoch).bind::<BigInt, _>(now_us);
    let moved: Vec<Claimed> = query.load(c)?;
    Ok(Claimed::among(&moved, held.iter().copied()).1)
}

fn all_of_a_kind(conn: &mut Conn, (event, is_plain): (Event, bool), moves: &[&Move<'_>], now_us: i64) -> StoreResult<Vec<Held>> {
    let Conn::Pg(pg) = conn else { return Err(crate::store::StoreError::other("not a PostgreSQL connection")) };
    let seqs: Vec<i64> = moves.iter().map(|one| one.held.seq).collect();
    let epochs: Vec<i64> = moves.iter().map(|one| one.held.epoch).collect();
    let claims: Vec<i64> = moves.iter().map(|one| one.held.claim).collect();
    let answers: Vec<Option<&str>> = moves.iter().map(|one| one.answer).collect();
    let text = move_sql(event, is_plain);
    let moved: Vec<Claimed> = if is_plain {
        let binds =
            vec![Bind::BigInt(now_us), Bind::BigInts(seqs), Bind::BigInts(epochs), Bind::BigInts(claims), Bind::Texts(answers)];
        Prepared::new(text, binds).load(pg)?
    } else {
        diesel::sql_query(text)
            .bind::<BigInt, _>(now_us)
            .bind::<Array<BigInt>, _>(seqs)
            .bind::<Array<BigInt>, _>(epochs)
            .bind::<Array<BigInt>, _>(claims)
            .bind::<Array<Nullable<Text>>, _>(answers)
            .bind::<Array<Nullable<BigInt>>, _>(moves.iter().map(|one| one.due_at_us).collect::<Vec<_>>())
            .bind::<Array<Nullable<Integer>>, _>(moves.iter().map(|one| one.attempt).collect::<Vec<_>>())
            .bind::<Array<Nullable<Integer>>, _>(moves.iter().map(|one| one.possible_repeat).collect::<Vec<_>>())
            .bind::<Array<Nullable<Text>>, _>(moves.iter().map(|one| one.error.map(|error| error.0)).collect::<Vec<_>>())
            .bind::<Array<Nullable<Text>>, _>(moves.iter().map(|one| one.error.map(|error| error.1)).collect::<Vec<_>>())
            .load(pg)?
    };
    if moved.len() == moves.len() {
        return Ok(Vec::new());
    }
    Ok(Claimed::among(&moved, moves.iter().map(|one| one.held)).1)
}

/// All moves of a kind in one statement: `$1` now, then arrays. What is held has the epoch of before its claim; claims of which nothing is
/// left go. The state is asked for in words that the index of what is ready does not have: a planner that knows little of a new table would
/// read the whole of it for each statement instead of looking the numbers up.
pub(super) fn move_sql(event: Event, is_plain: bool) -> String {
    let settled = if event.target().is_final() { ", settled_at_us = $1" } else { "" };
    let (more, arrays, names) = if is_plain {
        (", attempt = d.attempt + 1", "", "")
    } else {
        (
            ", due_at_us = COALESCE(u.due_at_us, d.due_at_us), attempt = COALESCE(u.attempt, d.attempt + 1), \
             possible_repeat = COALESCE(u.possible_repeat, d.possible_repeat), \
             last_error_type = COALESCE(u.error_type, d.last_error_type), last_error = COALESCE(u.error, d.last_error)",
            ", $6, $7, $8, $9, $10",
            ", due_at_us, attempt, possible_repeat, error_type, error",
        )
    };
    format!(
        "WITH moved AS (UPDATE deliveries AS d SET state = '{}', updated_at_us = $1{settled}, epoch = u.epoch, \
         answer = COALESCE(u.answer, d.answer){more} FROM unnest($2, $3, $4, $5{arrays}) AS u(seq, epoch, claim, answer{names}) \
         WHERE d.seq = u.seq AND d.epoch = u.epoch - 1 AND COALESCE(d.state, '') = '{}' RETURNING d.seq, d.epoch, u.claim), \
         ended AS (SELECT claim, count(*) AS number FROM moved GROUP BY claim), \
         gone AS (DELETE FROM delivery_claims AS c USING ended AS e WHERE c.id = e.claim AND c.remaining <= e.number), \
         less AS (UPDATE delivery_claims AS c SET remaining = c.remaining - e.number \
         FROM ended AS e JOIN delivery_claims AS seen ON seen.id = e.claim WHERE c.id = e.claim AND seen.remaining > e.number) \
         SELECT seq, epoch FROM moved",
        event.target(),
        DeliveryState::Ready
    )
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(ERROR_MAX_CHARS).map_or(text, |(end, _)| &text[..end])
}
