//! Sessions: signed-in pages. The cookie is a secret of its own; a session is as good as the token it was opened with and ends
//! with it.

use diesel::prelude::*;

use super::{
    Conn, StoreResult,
    control::corrupt,
    control_schema::{sessions, tokens},
    tokens::{Hash, hash, secret},
};

/// Most sessions at once; beyond that the oldest ends.
const SESSIONS_MAX: i64 = 1_000;

/// A session that has been opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) hash: Hash,
    pub(super) token_id: String,
    pub(super) expires_at_us: i64,
}

/// Opens a session and returns the text of its cookie. With the daemon running use `TokenBook::open_session`.
pub(super) fn open(conn: &mut Conn, token_id: &str, expires_at_us: i64, now_us: i64) -> StoreResult<(String, SessionRow)> {
    let text = secret("")?;
    let row = SessionRow { hash: hash(&text), token_id: token_id.to_owned(), expires_at_us };
    conn.write(|conn| {
        make_room(conn)?;
        diesel::insert_into(sessions::table)
            .values((
                sessions::sha256.eq(hex::encode(row.hash)),
                sessions::token_id.eq(token_id),
                sessions::created_at_us.eq(now_us),
                sessions::expires_at_us.eq(expires_at_us),
            ))
            .execute(conn)?;
        Ok(())
    })?;
    Ok((text, row))
}

fn make_room(conn: &mut Conn) -> StoreResult<()> {
    let oldest: Vec<String> = sessions::table
        .order(sessions::created_at_us.desc())
        .offset(SESSIONS_MAX - 1)
        .limit(SESSIONS_MAX)
        .select(sessions::sha256)
        .load(conn)?;
    for sha256 in oldest {
        diesel::delete(sessions::table.filter(sessions::sha256.eq(sha256))).execute(conn)?;
    }
    Ok(())
}

/// Every session whose token is not revoked.
pub(super) fn load(conn: &mut Conn) -> StoreResult<Vec<SessionRow>> {
    let rows: Vec<(String, String, i64)> = sessions::table
        .inner_join(tokens::table.on(tokens::id.eq(sessions::token_id)))
        .filter(tokens::revoked_at_us.is_null())
        .select((sessions::sha256, sessions::token_id, sessions::expires_at_us))
        .load(conn)?;
    rows.into_iter()
        .map(|(sha256, token_id, expires_at_us)| {
            let mut hash = Hash::default();
            hex::decode_to_slice(&sha256, &mut hash).map_err(|_| corrupt("sessions.sha256", "something that is no hash"))?;
            Ok(SessionRow { hash, token_id, expires_at_us })
        })
        .collect()
}

/// Ends one session. One that is not there is ended already.
pub(super) fn close(conn: &mut Conn, hash: &Hash) -> StoreResult<()> {
    diesel::delete(sessions::table.filter(sessions::sha256.eq(hex::encode(hash)))).execute(conn)?;
    Ok(())
}

/// Ends every session of a token; returns how many.
pub(super) fn close_all_of(conn: &mut Conn, token_id: &str) -> StoreResult<usize> {
    Ok(diesel::delete(sessions::table.filter(sessions::token_id.eq(token_id))).execute(conn)?)
}

/// Drops sessions that expired before `now_us`; returns how many.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, now_us: i64) -> StoreResult<usize> {
    Ok(diesel::delete(sessions::table.filter(sessions::expires_at_us.lt(now_us))).execute(conn)?)
}
