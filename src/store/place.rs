//! A place for one connection: opened when first used, tried before it is used again, and opened anew after it broke.
//!
//! In: calls. Out: their results. PostgreSQL's connections are watched from outside while they are in a call ([`super::watch`]). What a
//! connection that broke leaves on its server, a session in the middle of a transaction that waits for a client who is gone, would hold
//! its locks for as long as the server believes in the client: the next call through the same database sends it away. A crash leaves
//! such sessions to the server's own time-outs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use diesel::{
    RunQueryDsl,
    connection::TransactionManager,
    r2d2::R2D2Connection,
    sql_types::{Array, Bool, Text},
};

use super::{
    Backend, Conn, StoreError, StoreErrorKind, StoreResult,
    conn::Settings,
    socket::{Mark, Socket},
    turn::{Call, Turn},
    url::{Target, user_timeout_ms},
    watch::{GRACE, watched},
};

/// Idle for less than this, a connection whose socket cannot be looked at is used untried.
const TRUST_FOR: Duration = Duration::from_secs(1);
/// Sessions left behind that are remembered; beyond it the oldest is left to the server's time-outs.
const LEFT_MAX: usize = 64;

/// What the places of one pool share.
#[derive(Debug)]
pub(super) struct Database {
    target: Target,
    /// Who writes next, on SQLite.
    turn: Arc<Turn>,
    /// Sessions that connections left behind when they broke.
    left: Mutex<Vec<String>>,
}

impl Database {
    pub(super) fn new(target: Target) -> Self {
        Self { target, turn: Arc::default(), left: Mutex::new(Vec::new()) }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    fn remember(&self, session: String) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() >= LEFT_MAX {
            left.remove(0);
        }
        left.push(session);
    }

    /// Ends sessions left behind that wait for their client. One that waits for anything else, a commit for its replica perhaps, comes to
    /// its end and is looked at again.
    fn send_away(&self, conn: &mut Conn) -> StoreResult<()> {
        let Conn::Pg(pg) = conn else { return Ok(()) };
        let sessions = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        if sessions.is_empty() {
            return Ok(());
        }
        let found = diesel::sql_query(format!(
            "SELECT {SESSION} AS session, CASE WHEN wait_event_type = 'Client' THEN pg_terminate_backend(pid) ELSE false END AS gone \
             FROM pg_stat_activity WHERE {SESSION} = ANY($1)"
        ))
        .bind::<Array<Text>, _>(&sessions)
        .load::<Left>(pg);
        let (stay, result) = match found {
            Ok(found) => (found.into_iter().filter(|left| !left.gone).map(|left| left.session).collect(), Ok(())),
            Err(error) => (sessions, Err(error.into())),
        };
        stay.into_iter().for_each(|session| self.remember(session));
        result
    }
}

/// Names a session: process ids are used again.
const SESSION: &str = "pid || '@' || extract(epoch from backend_start)";

#[derive(diesel::QueryableByName)]
struct Left {
    #[diesel(sql_type = Text)]
    session: String,
    #[diesel(sql_type = Bool)]
    gone: bool,
}

#[derive(diesel::QueryableByName)]
struct Own {
    #[diesel(sql_type = Text)]
    session: String,
}

/// An open connection to PostgreSQL beyond what libpq shows.
#[derive(Debug)]
struct Line {
    mark: Arc<Mark>,
    /// `None` over a Unix socket.
    socket: Option<Socket>,
    session: Option<String>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Place {
    open: Option<(Conn, Option<Line>)>,
    used_at: Option<Instant>,
}

impl Place {
    /// Whether it held a connection that is gone.
    pub(super) fn has_broken(&self) -> bool {
        self.open.is_none() && self.used_at.is_some()
    }

    /// Calls `f` with its connection.
    pub(super) fn with<T>(
        &mut self,
        database: &Database,
        settings: Settings,
        f: impl FnOnce(&mut Conn) -> StoreResult<T>,
    ) -> StoreResult<T> {
        // Taken out while in use: a panic in `f` drops the connection with whatever transaction it left open.
        let (mut conn, line) = match self.open.take().and_then(|(conn, line)| alive(conn, line, self.used_at, settings)) {
            Some(open) => open,
            None => open(database.target(), settings)?,
        };
        let silence = settings.statement_timeout + GRACE;
        let (result, given_up) = match &line {
            Some(line) => watched(&line.mark, silence, || {
                database.send_away(&mut conn)?;
                f(&mut conn)
            }),
            None => {
                let _call = Call::about(database.turn.clone(), settings.connect_timeout);
                (f(&mut conn), false)
            }
        };
        let broken = given_up
            || matches!(&result, Err(error) if error.kind == StoreErrorKind::Unavailable && conn.backend() == Backend::Postgres)
            || <Conn as diesel::Connection>::TransactionManager::is_broken_transaction_manager(&mut conn);
        if broken {
            line.and_then(|line| line.session).into_iter().for_each(|session| database.remember(session));
        } else {
            self.open = Some((conn, line));
            self.used_at = Some(Instant::now());
        }
        if given_up { result.map_err(|_| hung(silence)) } else { result }
    }
}

fn hung(silence: Duration) -> StoreError {
    let message = format!(
        "the database said nothing for {} s while its connection stood; the connection was given up (look at what lies between: a proxy, \
         a firewall)",
        silence.as_secs_f64().round()
    );
    StoreError::from_code("08006", message)
}

/// How long opening and trying a connection may be silent.
fn short(settings: Settings) -> Duration {
    // libpq bounds connecting itself, at 2 s or more; what it asks right after is not bounded by anything else.
    settings.connect_timeout.max(Duration::from_secs(2)) + Duration::from_secs(1)
}

fn open(target: &Target, settings: Settings) -> StoreResult<(Conn, Option<Line>)> {
    let Target::Postgres(url) = target else { return Ok((Conn::open(target, settings, None)?, None)) };
    let mark = Arc::new(Mark::take(user_timeout_ms(url, settings.statement_timeout)));
    let silence = short(settings);
    let (opened, given_up) = watched(&mark, silence, || {
        let mut conn = Conn::open(target, settings, Some(&mark))?;
        let Conn::Pg(pg) = &mut conn else { return Err(StoreError::other("not a PostgreSQL connection")) };
        let own = format!("SELECT {SESSION} AS session FROM pg_stat_activity WHERE pid = pg_backend_pid()");
        let session = diesel::sql_query(own).load::<Own>(pg)?.pop().map(|own| own.session);
        Ok((conn, session))
    });
    let (conn, session) = if given_up { opened.map_err(|_| hung(silence))? } else { opened? };
    let socket = mark.find();
    Ok((conn, Some(Line { mark, socket, session })))
}

/// The connection, where its server has not closed it in the meantime (a restart, an idle time-out of a firewall). One that said
/// something unasked, and one whose socket cannot be looked at, is asked.
fn alive(mut conn: Conn, line: Option<Line>, used_at: Option<Instant>, settings: Settings) -> Option<(Conn, Option<Line>)> {
    let Some(line) = line else { return Some((conn, None)) };
    let fresh = used_at.is_some_and(|at| at.elapsed() < TRUST_FOR);
    let trusted = fresh && line.socket.as_ref().is_none_or(Socket::is_quiet);
    let answers = trusted || matches!(watched(&line.mark, short(settings), || R2D2Connection::ping(&mut conn)), (Ok(()), false));
    answers.then_some((conn, Some(line)))
}
