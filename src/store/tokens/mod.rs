//! Tokens: who may do what. The text of a token is shown once; kept is its SHA-256.
//!
//! Because a token is 32 random bytes, a plain hash is enough: there is nothing to guess, and an equal-time comparison of hashes
//! tells an attacker nothing about a text that hashes to them. [`TokenBook`] answers from memory, so that senders are let in while
//! the control store is busy.

mod book;
#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use diesel::prelude::*;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use self::book::{Principal, TokenBook};
use super::{Conn, StoreError, StoreErrorKind, StoreResult, control::corrupt, control_schema::tokens};
use crate::domain::{reading::is_name, role::Role, time};

/// What every token begins with, so that scanners for leaked secrets know one when they see it.
pub const PREFIX: &str = "bly_";
/// Characters of a token: the prefix and 32 bytes in base64url.
pub const TOKEN_CHARS: usize = PREFIX.len() + 43;

/// A token as it is listed: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenInfo {
    /// A UUID.
    pub id: String,
    /// Unique among tokens that are not revoked.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made: microseconds since the epoch (RFC 3339 in JSON).
    #[serde(rename = "createdAt", serialize_with = "rfc3339")]
    pub created_at_us: i64,
    /// When it ends by itself.
    #[serde(rename = "expiresAt", serialize_with = "rfc3339_option")]
    pub expires_at_us: Option<i64>,
    /// When it was revoked.
    #[serde(rename = "revokedAt", serialize_with = "rfc3339_option")]
    pub revoked_at_us: Option<i64>,
    /// When it was shown last; written down about once a minute.
    #[serde(rename = "lastUsedAt", serialize_with = "rfc3339_option")]
    pub last_used_at_us: Option<i64>,
}

fn rfc3339<S: Serializer>(at_us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time::rfc3339_us(*at_us))
}

fn rfc3339_option<S: Serializer>(at_us: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    at_us.map(time::rfc3339_us).serialize(serializer)
}

/// A fresh token: the only moment at which its text exists.
#[derive(Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What was kept.
    pub info: TokenInfo,
    /// The secret, to be shown once.
    pub text: String,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The SHA-256 of a secret.
pub(super) type Hash = [u8; 32];

pub(super) fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

/// 32 random bytes of the operating system as 43 characters of base64url, after `prefix`.
pub(super) fn secret(prefix: &str) -> StoreResult<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::other(format!("the system has no random numbers: {error}")))?;
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = tokens)]
struct TokenRow {
    id: String,
    name: String,
    role: String,
    sha256: String,
    created_at_us: i64,
    expires_at_us: Option<i64>,
    revoked_at_us: Option<i64>,
    last_used_at_us: Option<i64>,
}

impl TokenRow {
    fn read(self) -> StoreResult<(TokenInfo, Hash)> {
        let mut hash = Hash::default();
        hex::decode_to_slice(&self.sha256, &mut hash).map_err(|_| corrupt("tokens.sha256", "something that is no hash"))?;
        let info = TokenInfo {
            role: self.role.parse().map_err(|_| corrupt("tokens.role", &self.role))?,
            id: self.id,
            name: self.name,
            created_at_us: self.created_at_us,
            expires_at_us: self.expires_at_us,
            revoked_at_us: self.revoked_at_us,
            last_used_at_us: self.last_used_at_us,
        };
        Ok((info, hash))
    }
}

/// Makes a token and returns its text, which exists nowhere else. With the daemon running use [`TokenBook::create`].
///
/// # Errors
/// `Invalid` for a name that is not 1 to 64 of letters, digits, `.`, `_`, `:`, `-`, and for an end that is not ahead; `Conflict`
/// where a live token has the name.
pub fn create(conn: &mut Conn, name: &str, role: Role, expires_at_us: Option<i64>, now_us: i64) -> StoreResult<NewToken> {
    create_from(conn, name, role, expires_at_us, now_us, secret(PREFIX)?)
}

fn create_from(
    conn: &mut Conn,
    name: &str,
    role: Role,
    expires_at_us: Option<i64>,
    now_us: i64,
    text: String,
) -> StoreResult<NewToken> {
    if !is_name(name) {
        return Err(StoreError::invalid("a token's name is 1 to 64 of letters, digits, '.', '_', ':', '-'"));
    }
    if expires_at_us.is_some_and(|end_us| end_us <= now_us) {
        return Err(StoreError::invalid("a token must be good for some time: expires is longer than 0s"));
    }
    let info = TokenInfo {
        id: Uuid::now_v7().to_string(),
        name: name.to_owned(),
        role,
        created_at_us: now_us,
        expires_at_us,
        revoked_at_us: None,
        last_used_at_us: None,
    };
    let row = (
        tokens::id.eq(&info.id),
        tokens::name.eq(name),
        tokens::role.eq(role.as_str()),
        tokens::sha256.eq(hex::encode(hash(&text))),
        tokens::created_at_us.eq(now_us),
        tokens::expires_at_us.eq(expires_at_us),
    );
    diesel::insert_into(tokens::table).values(row).execute(conn).map_err(|error| match StoreError::from(error) {
        error if error.kind == StoreErrorKind::Conflict => {
            StoreError::conflict(format!("there is a live token named {name:?}; revoke it first or take another name"))
        }
        error => error,
    })?;
    Ok(NewToken { info, text })
}

/// Every token, newest first, the revoked ones included.
///
/// # Errors
/// Those of the control store.
pub fn list(conn: &mut Conn) -> StoreResult<Vec<TokenInfo>> {
    Ok(load(conn)?.into_iter().map(|(info, _)| info).collect())
}

fn load(conn: &mut Conn) -> StoreResult<Vec<(TokenInfo, Hash)>> {
    let rows: Vec<TokenRow> =
        tokens::table.order((tokens::created_at_us.desc(), tokens::id.desc())).select(TokenRow::as_select()).load(conn)?;
    rows.into_iter().map(TokenRow::read).collect()
}

/// Revokes the live token with this id or name. With the daemon running use [`TokenBook::revoke`].
///
/// # Errors
/// `NotFound` where no live token has this id or name.
pub fn revoke(conn: &mut Conn, id_or_name: &str, now_us: i64) -> StoreResult<TokenInfo> {
    let live = tokens::table
        .filter(tokens::id.eq(id_or_name).or(tokens::name.eq(id_or_name)))
        .filter(tokens::revoked_at_us.is_null())
        .select(TokenRow::as_select())
        .first(conn)
        .optional()?;
    let Some(row) = live else {
        return Err(StoreError::not_found(format!("no live token has the id or name {id_or_name:?}")));
    };
    let (mut info, _) = row.read()?;
    diesel::update(tokens::table.filter(tokens::id.eq(&info.id))).set(tokens::revoked_at_us.eq(now_us)).execute(conn)?;
    super::sessions::close_all_of(conn, &info.id)?;
    info.revoked_at_us = Some(now_us);
    Ok(info)
}

/// Drops tokens that were revoked or expired before `before_us`; returns how many.
///
/// # Errors
/// Those of the control store.
pub fn prune(conn: &mut Conn, before_us: i64) -> StoreResult<usize> {
    let gone = tokens::table.filter(tokens::revoked_at_us.lt(before_us).or(tokens::expires_at_us.lt(before_us)));
    Ok(diesel::delete(gone).execute(conn)?)
}

fn note_use(conn: &mut Conn, id: &str, at_us: i64) -> StoreResult<()> {
    diesel::update(tokens::table.filter(tokens::id.eq(id))).set(tokens::last_used_at_us.eq(at_us)).execute(conn)?;
    Ok(())
}
