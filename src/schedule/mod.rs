//! Periodic duties: what keeps the house in order without anybody asking.
//!
//! In: the clock, [`RunDuty`](crate::protocol::RunDuty). Out: old rows dropped, statistics on the [`ScheduleBoard`], databases
//! tidied. When each duty ran last is kept in the control store, so a run missed while the daemon was down is made up once. A crash
//! in the middle of a duty loses nothing: every duty works in slices that may be repeated.

mod actor;
mod board;
mod desk;
mod duties;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;

pub use self::{
    actor::ScheduleActor,
    board::{DutyStatus, Integrity, ScheduleBoard, Statistics},
    desk::{RaiseFn, ScheduleDesk, ScheduleParts},
};
use crate::{
    clock::SharedClock,
    config::Config,
    domain::alert::Transition,
    event::Metrics,
    store::{Conn, Store, StoreError, StoreResult, integrity::Held, leases::Lease, shared_duties, tokens::TokenBook},
};

/// Every duty. A new one is a file and a line here.
pub fn duties() -> Vec<Box<dyn Duty>> {
    vec![
        Box::new(duties::retention::Retention),
        Box::new(duties::history::History),
        Box::new(duties::statistics::StatisticsOfTheStore),
        Box::new(duties::token_use::TokenUse),
        Box::new(duties::cleanup::Cleanup),
        Box::new(duties::integrity::IntegrityCheck::default()),
        Box::new(duties::journal::JournalCheck::default()),
        Box::new(duties::redis::RedisCheck::default()),
    ]
}

/// When a duty is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rhythm {
    /// So long after the last run; at once where there was none.
    Every(Duration),
    /// Once a day at this minute after midnight, UTC; not before its next time where it never ran.
    DailyAtMinute(u32),
}

const DAY_US: i64 = 86_400_000_000;

impl Rhythm {
    /// When the run after the one at `last_us` is due; all in microseconds since the epoch. A run missed is due at once, and once only.
    pub fn due_us(self, last_us: Option<i64>, now_us: i64) -> i64 {
        // A last run in the future was written before the clock was set back; it counts as just now.
        let last_us = last_us.map(|last_us| last_us.min(now_us));
        match self {
            Self::Every(interval) => {
                let interval_us = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
                last_us.map_or(now_us, |last_us| last_us.saturating_add(interval_us))
            }
            Self::DailyAtMinute(minute) => {
                let after_us = last_us.unwrap_or(now_us);
                let today_us = after_us.div_euclid(DAY_US) * DAY_US + i64::from(minute) * 60_000_000;
                if today_us > after_us { today_us } else { today_us + DAY_US }
            }
        }
    }
}

/// What a duty works with.
pub struct DutyContext {
    /// The store.
    pub store: Store,
    /// The control store.
    pub control: Store,
    /// Tokens in use.
    pub tokens: Arc<TokenBook>,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Where statistics are shown.
    pub board: Arc<ScheduleBoard>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Set when the daemon stops: a duty ends after the slice at hand.
    pub stopping: Arc<AtomicBool>,
    /// What lies before the database.
    pub held: Arc<dyn Held>,
    /// The lease under which a shared duty runs.
    pub lease: Option<Lease>,
    /// Set when that lease was lost: the duty ends as if the daemon stopped.
    pub lost: AtomicBool,
}

impl fmt::Debug for DutyContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DutyContext").field("store", &self.store).finish_non_exhaustive()
    }
}

impl DutyContext {
    /// Whether to end early.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire) || self.lost.load(Ordering::Acquire)
    }

    /// Calls `f` on a store; a shared duty's writes are one transaction with the look whether its lease still holds.
    ///
    /// # Errors
    /// `Moved` where another instance has taken the duty over; those of `f` and of the store.
    pub async fn call<T, F>(&self, store: &Store, f: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Conn) -> StoreResult<T> + Send + 'static,
    {
        match self.lease.clone() {
            Some(lease) => store.call(move |conn| shared_duties::under(conn, &lease, f)).await,
            None => store.call(f).await,
        }
    }

    /// The moment `age` ago, microseconds since the epoch.
    pub fn ago_us(&self, age: Duration) -> i64 {
        self.clock.now_us().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
    }
}

/// What a run did: a word and a number each, for the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DutyReport {
    /// In the order in which it was done.
    pub counts: Vec<(&'static str, u64)>,
    /// What people have to be told, or not any more.
    pub conditions: Vec<Transition>,
    /// What the other instances show of a shared duty ([`Duty::adopt`]), as JSON.
    pub result: Option<String>,
}

impl DutyReport {
    /// A report of counts alone.
    pub fn of(counts: Vec<(&'static str, u64)>) -> Self {
        Self { counts, ..Self::default() }
    }
}

impl fmt::Display for DutyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (word, count)) in self.counts.iter().enumerate() {
            write!(f, "{}{word}={count}", if n == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// One periodic chore.
pub trait Duty: Send + Sync {
    /// The name for [`RunDuty`](crate::protocol::RunDuty), the log and the table of last runs.
    fn name(&self) -> &'static str;

    /// When it is due, by the configuration.
    fn rhythm(&self, config: &Config) -> Rhythm;

    /// Whether it works on the store and must wait while that is away.
    fn needs_store(&self) -> bool;

    /// Whether it is done once for all instances that share the store: one does it, under a lease.
    fn is_shared(&self) -> bool {
        false
    }

    /// Shows what another instance found ([`DutyReport::result`]); returns what people have to be told.
    fn adopt(&self, _context: &DutyContext, _result: &str) -> Vec<Transition> {
        Vec::new()
    }

    /// Takes up, at the start, what it kept over the restart. Blocks.
    ///
    /// # Errors
    /// Those of the control store; the duty begins anew then.
    fn recall(&self, _context: &DutyContext) -> StoreResult<()> {
        Ok(())
    }

    /// Does it once. Blocking work goes through [`Store::call`].
    fn run_once<'a>(&'a self, context: &'a DutyContext) -> BoxFuture<'a, Result<DutyReport, StoreError>>;
}
