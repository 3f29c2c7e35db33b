//! Looking at messages: pages, one in full, what goes with it.

use std::collections::HashMap;

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use super::{message_attachments, message_deliveries, message_events, messages};
use crate::{
    domain::{
        address::folded,
        delivery::DeliveryState,
        message::{MessageStatus, status},
    },
    on_backend,
    store::{Conn, StoreResult, control_schema::deliveries, deliveries::state_sql, readings::PAGE_MAX},
};

/// Messages that one page looks at before it is handed out short, with a cursor to go on from: a filter that hardly anything passes must not
/// read the whole table.
pub const SCAN_MAX: usize = 5_000;
/// Deliveries that one page looks at to tell how messages stand, before it is handed out short: they cost several times as much.
pub const STATUS_SCAN_MAX: u64 = 2_000;
/// Messages looked at in one statement.
const CHUNK: usize = 500;

/// A place in the list: when a message was handed in, microseconds since the epoch, and its id.
pub type Place = (i64, String);

/// Which messages are wanted; what is left out matches all.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only those that stand so.
    pub status: Option<MessageStatus>,
    /// Only to this sink.
    pub via: Option<String>,
    /// Only to this recipient, in any case of its letters.
    pub to: Option<String>,
    /// Only with this in the subject, in any case of its letters.
    pub text: Option<String>,
    /// Only those at or after this time, microseconds since the epoch.
    pub from_us: Option<i64>,
    /// Only those before this time.
    pub until_us: Option<i64>,
    /// Only those older than this place.
    pub before: Option<Place>,
}

/// A message as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What was asked for.
    pub head: Head,
    /// How it stands.
    pub status: MessageStatus,
    /// How many of its deliveries stand where.
    pub counts: Vec<(DeliveryState, u64)>,
}

/// A message without its text.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = messages)]
pub struct Head {
    /// A UUID.
    pub id: String,
    /// The sink.
    pub via: String,
    /// One line.
    pub subject: String,
    /// When it was to leave, microseconds since the epoch.
    pub send_at_us: Option<i64>,
    /// Who asked.
    pub created_by: String,
    /// When, microseconds since the epoch.
    pub created_at_us: i64,
}

/// A message in full.
#[derive(Clone, Debug)]
pub struct Message {
    /// What was asked for.
    pub head: Head,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// Plain text.
    pub body: String,
    /// The same as HTML.
    pub html: Option<String>,
    /// Name, media type, bytes and SHA-256 of what goes with it.
    pub attachments: Vec<(String, String, i64, String)>,
    /// One for each recipient.
    pub deliveries: Vec<MessageDelivery>,
    /// Who did what to it, oldest first.
    pub events: Vec<Event>,
}

impl Message {
    /// How it stands; `None` where retention has taken its deliveries and is about to take the rest.
    pub fn status(&self) -> Option<MessageStatus> {
        status(&self.deliveries.iter().filter_map(MessageDelivery::state).collect::<Vec<_>>())
    }
}

/// One line of a message's history.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = message_events)]
pub struct Event {
    /// When, microseconds since the epoch.
    pub at_us: i64,
    /// `created`, `cancelled`, `retried`, `edited`, `marked-sent` or `discarded`.
    pub event: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

/// A delivery of a message, without what it carries.
#[derive(Clone, Debug, PartialEq, Eq, QueryableByName)]
pub struct MessageDelivery {
    /// A UUID.
    #[diesel(sql_type = Text)]
    pub id: String,
    /// To whom.
    #[diesel(sql_type = Text)]
    pub recipient: String,
    #[diesel(sql_type = Text)]
    state: String,
    /// Attempts begun.
    #[diesel(sql_type = diesel::sql_types::Integer)]
    pub attempt: i32,
    /// Attempts before it is dead.
    #[diesel(sql_type = diesel::sql_types::Integer)]
    pub max_attempts: i32,
    /// When it was or is due, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub due_at_us: i64,
    /// What the receiver answered.
    #[diesel(sql_type = diesel::sql_types::Nullable<Text>)]
    pub answer: Option<String>,
    /// A fixed word for the last failure.
    #[diesel(sql_type = diesel::sql_types::Nullable<Text>)]
    pub last_error_type: Option<String>,
    /// The last failure in a sentence.
    #[diesel(sql_type = diesel::sql_types::Nullable<Text>)]
    pub last_error: Option<String>,
    #[diesel(sql_type = diesel::sql_types::Integer)]
    possible_repeat: i32,
    /// When it changed last, microseconds since the epoch.
    #[diesel(sql_type = BigInt)]
    pub updated_at_us: i64,
    /// When it reached a final state, microseconds since the epoch.
    #[diesel(sql_type = diesel::sql_types::Nullable<BigInt>)]
    pub settled_at_us: Option<i64>,
}

impl MessageDelivery {
    /// Where it stands; `None` for a word that this build does not know.
    pub fn state(&self) -> Option<DeliveryState> {
        self.state.parse().ok()
    }

    /// Whether an earlier attempt may have arrived.
    pub fn possible_repeat(&self) -> bool {
        self.possible_repeat != 0
    }
}

/// The deliveries of a message, in the order of its recipients.
pub(super) fn deliveries_of(conn: &mut Conn, id: &str) -> StoreResult<Vec<MessageDelivery>> {
    let state = state_sql("d", matches!(conn, Conn::Pg(_)));
    // What is held has begun one attempt more than its row says.
    let text = format!(
        "SELECT id, recipient, state, CASE WHEN state = stored THEN attempt ELSE attempt + 1 END AS attempt, max_attempts, due_at_us, \
         answer, last_error_type, last_error, possible_repeat, updated_at_us, settled_at_us FROM (SELECT d.id, d.recipient, {state} AS state, \
         d.state AS stored, d.attempt, d.max_attempts, d.due_at_us, d.answer, d.last_error_type, d.last_error, d.possible_repeat, \
         d.updated_at_us, d.settled_at_us, l.no FROM message_deliveries AS l JOIN deliveries AS d ON d.id = l.delivery_id \
         WHERE l.message_id = $1) AS shown ORDER BY no"
    );
    Ok(on_backend!(conn, |c| diesel::sql_query(text).bind::<Text, _>(id).load(c))?)
}

/// One message; `None` where there is none of this id.
///
/// # Errors
/// Those of the database.
pub fn get(conn: &mut Conn, id: &str) -> StoreResult<Option<Message>> {
    conn.read(|conn| {
        let row: Option<(Head, Option<String>, String, Option<String>)> = messages::table
            .find(id)
            .select((Head::as_select(), messages::reply_to, messages::body, messages::html))
            .first(conn)
            .optional()?;
        let Some((head, reply_to, body, html)) = row else { return Ok(None) };
        let attachments = message_attachments::table
            .filter(message_attachments::message_id.eq(id))
            .order(message_attachments::no)
            .select((
                message_attachments::name,
                message_attachments::content_type,
                message_attachments::bytes,
                message_attachments::sha256,
            ))
            .load(conn)?;
        let events = message_events::table
            .filter(message_events::message_id.eq(id))
            .order(message_events::no)
            .select(Event::as_select())
            .load(conn)?;
        Ok(Some(Message { head, reply_to, body, html, attachments, deliveries: deliveries_of(conn, id)?, events }))
    })
}

/// What goes with a message: name, media type and content, in their order.
///
/// # Errors
/// Those of the database.
pub fn attachments(conn: &mut Conn, id: &str) -> StoreResult<Vec<(String, String, Vec<u8>)>> {
    Ok(message_attachments::table
        .filter(message_attachments::message_id.eq(id))
        .order(message_attachments::no)
        .select((message_attachments::name, message_attachments::content_type, message_attachments::content))
        .load(conn)?)
}

/// Messages that match, newest first, at most `limit`, and where the next page begins. A page may be short and have a next one all the same:
/// see [`SCAN_MAX`] and [`STATUS_SCAN_MAX`].
///
/// # Errors
/// Those of the database.
pub fn list(conn: &mut Conn, filter: &ListFilter, limit: u32) -> StoreResult<(Vec<Item>, Option<Place>)> {
    let limit = limit.clamp(1, PAGE_MAX) as usize;
    let text = filter.text.as_deref().map(str::to_lowercase);
    let passes = |head: &Head| {
        filter.via.as_ref().is_none_or(|via| *via == head.via)
            && text.as_ref().is_none_or(|text| head.subject.to_lowercase().contains(text.as_str()))
    };
    // What every message passes needs no more than fills the page.
    let size = if filter.status.is_none() && text.is_none() { limit.min(CHUNK) } else { CHUNK };
    let (mut items, mut seen, mut looked) = (Vec::new(), 0, 0_u64);
    let mut before = filter.before.clone();
    loop {
        let (heads, more) = chunk(conn, filter, before.as_ref(), size)?;
        let wanted: Vec<&str> = heads.iter().filter(|head| passes(head)).map(|head| head.id.as_str()).collect();
        let mut counts = states(conn, &wanted)?;
        seen += heads.len();
        looked += counts.values().flatten().map(|(_, count)| *count).sum::<u64>();
        for head in heads {
            before = Some((head.created_at_us, head.id.clone()));
            let Some(counts) = counts.remove(&head.id) else { continue };
            let states: Vec<DeliveryState> = counts.iter().map(|(state, _)| *state).collect();
            let Some(status) = status(&states).filter(|status| filter.status.is_none_or(|wanted| wanted == *status)) else {
                continue;
            };
            items.push(Item { head, status, counts });
            if items.len() == limit {
                return Ok((items, before));
            }
        }
        if !more {
            return Ok((items, None));
        }
        if seen >= SCAN_MAX || looked >= STATUS_SCAN_MAX {
            return Ok((items, before));
        }
    }
}

/// The next messages behind a place, newest first, at most `size`, and whether there may be further ones.
fn chunk(conn: &mut Conn, filter: &ListFilter, before: Option<&Place>, size: usize) -> StoreResult<(Vec<Head>, bool)> {
    let from_us = filter.from_us.unwrap_or(i64::MIN);
    let until = (filter.until_us.unwrap_or(i64::MAX), String::new());
    let (at_us, id) = before.map_or(&until, |before| before.min(&until));
    let Some(to) = filter.to.as_deref().map(folded) else {
        let rows: Vec<Head> = on_backend!(conn, |c| {
            let mut page = messages::table
                // The bounds of the index's range; the place within one moment is told by the id.
                .filter(messages::created_at_us.ge(from_us))
                .filter(messages::created_at_us.le(at_us))
                .filter(messages::created_at_us.lt(at_us).or(messages::id.lt(id)))
                .order((messages::created_at_us.desc(), messages::id.desc()))
                .limit(size as i64)
                .select(Head::as_select())
                .into_boxed();
            if let Some(via) = &filter.via {
                page = page.filter(messages::via.eq(via));
            }
            page.load(c)
        })?;
        let more = rows.len() == size;
        return Ok((rows, more));
    };
    let ids: Vec<String> = on_backend!(conn, |c| message_deliveries::table
        .filter(message_deliveries::recipient.eq(&to))
        .filter(message_deliveries::created_at_us.ge(from_us))
        .filter(message_deliveries::created_at_us.le(at_us))
        .filter(message_deliveries::created_at_us.lt(at_us).or(message_deliveries::message_id.lt(id)))
        .order((message_deliveries::created_at_us.desc(), message_deliveries::message_id.desc()))
        .limit(size as i64)
        .select(message_deliveries::message_id)
        .load(c))?;
    let more = ids.len() == size;
    let rows = on_backend!(conn, |c| messages::table
        .filter(messages::id.eq_any(ids))
        .order((messages::created_at_us.desc(), messages::id.desc()))
        .select(Head::as_select())
        .load(c))?;
    Ok((rows, more))
}

/// How many deliveries of each message stand where.
///
/// # Errors
/// Those of the database.
pub fn states(conn: &mut Conn, ids: &[&str]) -> StoreResult<HashMap<String, Vec<(DeliveryState, u64)>>> {
    let mut all: HashMap<String, Vec<(DeliveryState, u64)>> = HashMap::new();
    let state = state_sql("deliveries", matches!(conn, Conn::Pg(_)));
    for slice in ids.chunks(CHUNK) {
        let rows: Vec<(String, String)> = on_backend!(conn, |c| message_deliveries::table
            .inner_join(deliveries::table.on(deliveries::id.eq(message_deliveries::delivery_id)))
            .filter(message_deliveries::message_id.eq_any(slice.to_vec()))
            .select((message_deliveries::message_id, diesel::dsl::sql::<Text>(&state)))
            .load(c))?;
        for (id, word) in rows {
            let Ok(state) = word.parse::<DeliveryState>() else { continue };
            let counts = all.entry(id).or_default();
            match counts.iter_mut().find(|(known, _)| *known == state) {
                Some((_, count)) => *count += 1,
                None => counts.push((state, 1)),
            }
        }
    }
    all.values_mut().for_each(|counts| counts.sort_unstable());
    Ok(all)
}
