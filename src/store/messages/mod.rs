//! Messages to people: what was asked for, in the store, beside the deliveries that carry it out.
//!
//! In: a message that has been checked, with its deliveries; a cancellation; the age at which messages go. Out: what became of it. A
//! message, its deliveries, its attachments, its idempotency key and the line that says who asked are one transaction: a crash leaves all
//! of it or nothing. How a message stands is not stored: its deliveries tell
//! ([`domain::message`](crate::domain::message)).

mod cancel;
mod keys;
mod made;
mod query;

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

pub use self::{
    cancel::{Cancelled, cancel},
    keys::{IdempotencyKey, prune as prune_keys},
    made::{HandedIn, handed_in},
    query::{
        Event, Head, Item, ListFilter, Message, MessageDelivery, Place, SCAN_MAX, STATUS_SCAN_MAX, attachments, get, list, states,
    },
};
use super::{
    Conn, StoreResult,
    deliveries::{self, NewDelivery},
    schema::{idempotency_keys, message_attachments, message_deliveries, message_events, messages},
};
use crate::{
    domain::{address::folded, delivery::DeliveryState},
    on_backend,
};

/// A message that has been checked.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// A UUID, made by the caller; newer ones are greater.
    pub id: String,
    /// The sink.
    pub via: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// The same as HTML.
    pub html: Option<String>,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// When it is to leave, microseconds since the epoch; at once where it is left out or over.
    pub send_at_us: Option<i64>,
    /// Who asked.
    pub created_by: String,
    /// What goes with it.
    pub attachments: Vec<Attachment>,
    /// One for each recipient, in their order.
    pub deliveries: Vec<NewDelivery>,
    /// What tells a repeat, where the caller gave one.
    pub key: Option<IdempotencyKey>,
}

/// Something that goes with a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Of the file, without a path.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// SHA-256 of the content, in hex.
    pub sha256: String,
    /// What is in it.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never what is in it.
        f.debug_struct("Attachment").field("bytes", &self.content.len()).field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// What became of a new message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is there.
    New,
    /// The key made this message before, of the same content.
    Repeated(String),
    /// The key made this message before, of another content.
    OtherContent(String),
}

#[derive(Insertable)]
#[diesel(table_name = message_deliveries, treat_none_as_default_value = false)]
struct LinkRow<'a> {
    message_id: &'a str,
    no: i64,
    delivery_id: &'a str,
    recipient: String,
    created_at_us: i64,
}

/// Adds a message with its deliveries, or finds the one that its key made.
///
/// # Errors
/// Those of the database. Where the commit's answer never came the outcome is unknown: the same key tells.
pub fn create(conn: &mut Conn, new: &NewMessage, now_us: i64) -> StoreResult<Made> {
    conn.write(|conn| {
        if let Some(key) = &new.key
            && let Some(made) = keys::take(conn, key, new, now_us)?
        {
            return Ok(made);
        }
        diesel::insert_into(messages::table)
            .values((
                messages::id.eq(&new.id),
                messages::via.eq(&new.via),
                messages::subject.eq(&new.subject),
                messages::send_at_us.eq(new.send_at_us),
                messages::created_by.eq(&new.created_by),
                messages::created_at_us.eq(now_us),
                messages::reply_to.eq(new.reply_to.as_deref()),
                messages::body.eq(&new.body),
                messages::html.eq(new.html.as_deref()),
            ))
            .execute(conn)?;
        for (no, attachment) in (0_i64..).zip(&new.attachments) {
            diesel::insert_into(message_attachments::table)
                .values((
                    message_attachments::message_id.eq(&new.id),
                    message_attachments::no.eq(no),
                    message_attachments::name.eq(&attachment.name),
                    message_attachments::content_type.eq(&attachment.content_type),
                    message_attachments::bytes.eq(i64::try_from(attachment.content.len()).unwrap_or(i64::MAX)),
                    message_attachments::sha256.eq(&attachment.sha256),
                    message_attachments::content.eq(&attachment.content),
                ))
                .execute(conn)?;
        }
        let links: Vec<LinkRow<'_>> = (0_i64..)
            .zip(&new.deliveries)
            .map(|(no, delivery)| LinkRow {
                message_id: &new.id,
                no,
                delivery_id: &delivery.id,
                recipient: folded(&delivery.recipient),
                created_at_us: now_us,
            })
            .collect();
        on_backend!(conn, |c| diesel::insert_into(message_deliveries::table).values(&links).execute(c))?;
        deliveries::enqueue(conn, &new.deliveries, now_us)?;
        tell(conn, &new.id, ("created", &new.created_by, None), now_us)?;
        Ok(Made::New)
    })
}

/// A delivery of a message goes to another recipient from now on. Call it in the transaction that changes the delivery.
///
/// # Errors
/// Those of the database.
pub fn readdress(conn: &mut Conn, message_id: &str, delivery_id: &str, recipient: &str) -> StoreResult<()> {
    let link = message_deliveries::table
        .filter(message_deliveries::message_id.eq(message_id))
        .filter(message_deliveries::delivery_id.eq(delivery_id));
    on_backend!(conn, |c| diesel::update(link).set(message_deliveries::recipient.eq(folded(recipient))).execute(c))?;
    Ok(())
}

/// What a person decided about a delivery of a message, for its history; where there is no such message, nothing. Call it in the
/// transaction of the decision.
///
/// # Errors
/// Those of the database.
pub fn tell_decision(
    conn: &mut Conn,
    message_id: &str,
    delivery_id: &str,
    told: (&str, &str, Option<&str>),
    now_us: i64,
) -> StoreResult<()> {
    let of: Option<String> = message_deliveries::table
        .filter(message_deliveries::message_id.eq(message_id))
        .filter(message_deliveries::delivery_id.eq(delivery_id))
        .select(message_deliveries::message_id)
        .first(conn)
        .optional()?;
    of.map_or(Ok(()), |id| tell(conn, &id, told, now_us))
}

/// Another text goes out in place of what was handed in. With one recipient that is the message from now on; with several each delivery has
/// its own, and the message stays what the others get.
///
/// # Errors
/// Those of the database.
pub fn reword(conn: &mut Conn, message_id: &str, payload: &str) -> StoreResult<()> {
    let Ok(Worded { message }) = serde_json::from_str(payload) else { return Ok(()) };
    let deliveries: i64 =
        message_deliveries::table.filter(message_deliveries::message_id.eq(message_id)).count().get_result(conn)?;
    if deliveries == 1 {
        let Words { subject, body, html } = &message;
        let words = (messages::subject.eq(subject), messages::body.eq(body), messages::html.eq(html.as_deref()));
        on_backend!(conn, |c| diesel::update(messages::table.find(message_id)).set(words).execute(c))?;
    }
    Ok(())
}

/// What of a delivery's payload is the message's own.
#[derive(serde::Deserialize)]
struct Worded {
    message: Words,
}

#[derive(serde::Deserialize)]
struct Words {
    subject: String,
    body: String,
    html: Option<String>,
}

/// Writes down what happened to a message. Call it in the transaction of the act itself.
fn tell(conn: &mut Conn, id: &str, (event, actor, reason): (&str, &str, Option<&str>), now_us: i64) -> StoreResult<()> {
    let last: Option<i64> =
        message_events::table.filter(message_events::message_id.eq(id)).select(diesel::dsl::max(message_events::no)).first(conn)?;
    diesel::insert_into(message_events::table)
        .values((
            message_events::message_id.eq(id),
            message_events::no.eq(last.map_or(0, |last| last + 1)),
            message_events::at_us.eq(now_us),
            message_events::event.eq(event),
            message_events::actor.eq(actor),
            message_events::reason.eq(reason),
        ))
        .execute(conn)?;
    Ok(())
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = Text)]
    id: String,
}

/// Drops at most `limit` messages of which every delivery was settled before `before_us`, with all that belongs to them but the
/// deliveries, which go by their own age. Call it before those are pruned, with the same time. Returns how many.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<u64> {
    let settled = deliveries::literals(&[DeliveryState::Sent, DeliveryState::Discarded, DeliveryState::Cancelled]);
    let text = format!(
        "SELECT m.id FROM messages AS m WHERE m.created_at_us < $1 AND NOT EXISTS (SELECT 1 FROM message_deliveries AS l \
         JOIN deliveries AS d ON d.id = l.delivery_id WHERE l.message_id = m.id \
         AND (d.state NOT IN ({settled}) OR d.settled_at_us >= $2)) ORDER BY m.created_at_us LIMIT $3"
    );
    let old: Vec<Id> = on_backend!(conn, |c| diesel::sql_query(text)
        .bind::<BigInt, _>(before_us)
        .bind::<BigInt, _>(before_us)
        .bind::<BigInt, _>(i64::from(limit))
        .load(c))?;
    let mut removed = 0;
    // In slices: SQLite takes 32,766 parameters at most.
    for slice in old.chunks(500) {
        let ids: Vec<&str> = slice.iter().map(|row| row.id.as_str()).collect();
        removed += conn.write(|conn| {
            on_backend!(conn, |c| {
                diesel::delete(message_attachments::table.filter(message_attachments::message_id.eq_any(ids.clone())))
                    .execute(c)?;
                diesel::delete(message_deliveries::table.filter(message_deliveries::message_id.eq_any(ids.clone()))).execute(c)?;
                diesel::delete(message_events::table.filter(message_events::message_id.eq_any(ids.clone()))).execute(c)?;
                let gone = diesel::delete(messages::table.filter(messages::id.eq_any(ids.clone()))).execute(c)?;
                Ok(gone as u64)
            })
        })?;
    }
    Ok(removed)
}
