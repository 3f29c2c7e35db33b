//! Idempotency keys: the same key of the same caller makes one message, whichever instance is asked, and however often at once.

use diesel::{prelude::*, sql_types::BigInt};

use super::{Made, NewMessage, idempotency_keys};
use crate::{
    on_backend,
    store::{Conn, StoreResult},
};

/// What tells a repeat of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The caller's word.
    pub key: String,
    /// A hash over everything that makes up the message.
    pub content: String,
    /// What is older than this moment, microseconds since the epoch, counts no more.
    pub valid_from_us: i64,
}

/// Takes the key for this message; `None` where it is the first to have it. The row is written before the message, so that of two at once
/// the second waits for the first one's commit, and finds it.
pub(super) fn take(conn: &mut Conn, key: &IdempotencyKey, new: &NewMessage, now_us: i64) -> StoreResult<Option<Made>> {
    let ours =
        idempotency_keys::table.filter(idempotency_keys::owner.eq(&new.created_by)).filter(idempotency_keys::key.eq(&key.key));
    let over = ours.filter(idempotency_keys::created_at_us.lt(key.valid_from_us));
    on_backend!(conn, |c| diesel::delete(over).execute(c))?;
    let row = (
        idempotency_keys::owner.eq(&new.created_by),
        idempotency_keys::key.eq(&key.key),
        idempotency_keys::content.eq(&key.content),
        idempotency_keys::message_id.eq(&new.id),
        idempotency_keys::created_at_us.eq(now_us),
    );
    let first =
        on_backend!(conn, |c| diesel::insert_into(idempotency_keys::table).values(row).on_conflict_do_nothing().execute(c))? == 1;
    if first {
        return Ok(None);
    }
    let (content, id): (String, String) = ours.select((idempotency_keys::content, idempotency_keys::message_id)).first(conn)?;
    Ok(Some(if content == key.content { Made::Repeated(id) } else { Made::OtherContent(id) }))
}

/// Drops at most `limit` keys from before `before_us`; returns how many.
///
/// # Errors
/// Those of the database.
pub fn prune(conn: &mut Conn, before_us: i64, limit: u32) -> StoreResult<u64> {
    let text = "DELETE FROM idempotency_keys WHERE (owner, key) IN (SELECT owner, key FROM idempotency_keys \
                WHERE created_at_us < $1 ORDER BY created_at_us LIMIT $2)";
    let gone =
        on_backend!(conn, |c| diesel::sql_query(text).bind::<BigInt, _>(before_us).bind::<BigInt, _>(i64::from(limit)).execute(c))?;
    Ok(gone as u64)
}
