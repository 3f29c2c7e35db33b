//! The tokens and sessions in memory, so that a request needs no query.
//!
//! In: tokens and cookies as they are shown. Out: who that is. What is created or revoked through the book is written first and
//! takes effect at once; what the command line did while the daemon was stopped is read at the start. A crash loses at most a
//! minute of `last_used_at_us`.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::{Hash, NewToken, PREFIX, TOKEN_CHARS, TokenInfo, create_from, hash, load, note_use, revoke, secret};
use crate::{
    clock::SharedClock,
    domain::role::Role,
    store::{
        Store, StoreError, StoreResult,
        sessions::{self, SessionRow},
    },
};

/// The holder of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's id.
    pub token_id: String,
    /// The token's name: the "who" of the audit.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When the token ends by itself, microseconds since the epoch.
    pub expires_at_us: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    principal: Arc<Principal>,
    hash: Hash,
    last_used_at_us: AtomicI64,
    noted_at_us: AtomicI64,
}

#[derive(Debug, Default)]
struct Pages {
    by_hash: HashMap<Hash, Arc<Entry>>,
    sessions: HashMap<Hash, SessionRow>,
}

/// Every live token and session. Made once, shared in an `Arc`.
#[derive(Debug)]
pub struct TokenBook {
    store: Store,
    clock: SharedClock,
    pages: RwLock<Pages>,
    changes: watch::Sender<u64>,
}

impl TokenBook {
    /// Reads all tokens and sessions of the control store. Blocks; called at the start.
    ///
    /// # Errors
    /// Those of the control store.
    pub fn open(store: Store, clock: SharedClock) -> StoreResult<Self> {
        let (rows, sessions) = store.with(|conn| Ok((load(conn)?, sessions::load(conn)?)))?;
        let mut pages = Pages::default();
        for (info, hash) in rows.into_iter().filter(|(info, _)| info.revoked_at_us.is_none()) {
            pages.by_hash.insert(hash, Arc::new(Entry::new(&info, hash)));
        }
        pages.sessions = sessions.into_iter().map(|row| (row.hash, row)).collect();
        Ok(Self { store, clock, pages: RwLock::new(pages), changes: watch::Sender::new(0) })
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token this is; `None` for one that is unknown, revoked or expired. Asks memory only.
    pub fn verify(&self, text: &str) -> Option<Arc<Principal>> {
        if text.len() != TOKEN_CHARS || !text.starts_with(PREFIX) {
            return None;
        }
        let shown = hash(text);
        let entry = self.read().by_hash.get(&shown).cloned()?;
        // The map has found it by hash already; the comparison in equal time costs nothing and needs no argument.
        bool::from(entry.hash.ct_eq(&shown)).then_some(())?;
        self.admit(&entry)
    }

    /// Whose signed-in page this cookie is; `None` for one that is unknown, ended or expired, or whose token is.
    pub fn verify_session(&self, cookie: &str) -> Option<Arc<Principal>> {
        let pages = self.read();
        let session = pages.sessions.get(&hash(cookie))?;
        if session.expires_at_us <= self.clock.now_us() {
            return None;
        }
        let entry = pages.by_hash.values().find(|entry| entry.principal.token_id == session.token_id)?;
        self.admit(entry)
    }

    fn admit(&self, entry: &Entry) -> Option<Arc<Principal>> {
        let now_us = self.clock.now_us();
        if entry.principal.expires_at_us.is_some_and(|end_us| end_us <= now_us) {
            return None;
        }
        entry.last_used_at_us.fetch_max(now_us, Ordering::Relaxed);
        Some(entry.principal.clone())
    }

    /// Whether a token is still good; long-lived streams ask this after [`TokenBook::changes`] moved.
    pub fn is_live(&self, token_id: &str) -> bool {
        let now_us = self.clock.now_us();
        self.read()
            .by_hash
            .values()
            .any(|entry| entry.principal.token_id == token_id && entry.principal.expires_at_us.is_none_or(|end_us| end_us > now_us))
    }

    /// Moves whenever a token was revoked or a session ended.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes a token that is good at once. `lifetime` counts from now.
    ///
    /// # Errors
    /// As [`super::create`].
    pub async fn create(&self, name: &str, role: Role, lifetime: Option<Duration>) -> StoreResult<NewToken> {
        self.create_with(name, role, lifetime, secret(PREFIX)?).await
    }

    async fn create_with(&self, name: &str, role: Role, lifetime: Option<Duration>, text: String) -> StoreResult<NewToken> {
        let now_us = self.clock.now_us();
        let expires_at_us = lifetime.map(|lifetime| now_us.saturating_add(micros(lifetime)));
        let name = name.to_owned();
        let made = self.store.call(move |conn| create_from(conn, &name, role, expires_at_us, now_us, text)).await?;
        let hash = hash(&made.text);
        self.write().by_hash.insert(hash, Arc::new(Entry::new(&made.info, hash)));
        Ok(made)
    }

    /// Revokes the live token with this id or name, and ends its sessions.
    ///
    /// # Errors
    /// `NotFound` where no live token has this id or name.
    pub async fn revoke(&self, id_or_name: &str) -> StoreResult<TokenInfo> {
        let (wanted, now_us) = (id_or_name.to_owned(), self.clock.now_us());
        let info = self.store.call(move |conn| conn.write(|conn| revoke(conn, &wanted, now_us))).await?;
        {
            let mut pages = self.write();
            pages.by_hash.retain(|_, entry| entry.principal.token_id != info.id);
            pages.sessions.retain(|_, session| session.token_id != info.id);
        }
        self.changes.send_modify(|count| *count += 1);
        Ok(info)
    }

    /// Every token of the control store, the revoked ones included, newest first.
    ///
    /// # Errors
    /// Those of the control store.
    pub async fn list(&self) -> StoreResult<Vec<TokenInfo>> {
        self.store.call(super::list).await
    }

    /// Opens a session for a token and returns the text of its cookie.
    ///
    /// # Errors
    /// `NotFound` where the token is not live; those of the control store.
    pub async fn open_session(&self, token_id: &str, lifetime: Duration) -> StoreResult<String> {
        if !self.is_live(token_id) {
            return Err(StoreError::not_found("the token is not live any more"));
        }
        let now_us = self.clock.now_us();
        let (id, expires_at_us) = (token_id.to_owned(), now_us.saturating_add(micros(lifetime)));
        let (text, row) = self.store.call(move |conn| sessions::open(conn, &id, expires_at_us, now_us)).await?;
        let mut pages = self.write();
        pages.sessions.retain(|_, session| session.expires_at_us > now_us);
        pages.sessions.insert(row.hash, row);
        Ok(text)
    }

    /// Ends a session; one that is unknown is ended already.
    ///
    /// # Errors
    /// Those of the control store; the session is ended in memory all the same.
    pub async fn close_session(&self, cookie: &str) -> StoreResult<()> {
        let hash = hash(cookie);
        self.write().sessions.remove(&hash);
        self.changes.send_modify(|count| *count += 1);
        self.store.call(move |conn| sessions::close(conn, &hash)).await
    }

    /// Writes down when tokens were used last. Called about once a minute by a periodic duty; returns how many were written.
    ///
    /// # Errors
    /// Those of the control store; nothing is lost then, the next call writes them.
    pub async fn note_uses(&self) -> StoreResult<usize> {
        let used: Vec<(Arc<Entry>, i64)> = self
            .read()
            .by_hash
            .values()
            .map(|entry| (entry.clone(), entry.last_used_at_us.load(Ordering::Relaxed)))
            .filter(|(entry, at_us)| *at_us > entry.noted_at_us.load(Ordering::Relaxed))
            .collect();
        if used.is_empty() {
            return Ok(0);
        }
        let rows: Vec<(String, i64)> = used.iter().map(|(entry, at_us)| (entry.principal.token_id.clone(), *at_us)).collect();
        self.store.call(move |conn| conn.write(|conn| rows.iter().try_for_each(|(id, at_us)| note_use(conn, id, *at_us)))).await?;
        for (entry, at_us) in &used {
            entry.noted_at_us.store(*at_us, Ordering::Relaxed);
        }
        Ok(used.len())
    }
}

impl Entry {
    fn new(info: &TokenInfo, hash: Hash) -> Self {
        let principal =
            Principal { token_id: info.id.clone(), name: info.name.clone(), role: info.role, expires_at_us: info.expires_at_us };
        let last_us = info.last_used_at_us.unwrap_or(0);
        Self {
            principal: Arc::new(principal),
            hash,
            last_used_at_us: AtomicI64::new(last_us),
            noted_at_us: AtomicI64::new(last_us),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
