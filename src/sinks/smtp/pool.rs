//! Connections to the mail server that wait for the next mail. In: connections on which all is said. Out: the one used last. At most
//! `most` are kept, each for at most [`IDLE_MAX`]; what is beyond is hung up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lettre::transport::smtp::client::AsyncSmtpConnection;

/// How long a connection may wait: shorter than servers' patience, which is five minutes by the standard and less with many.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Pool {
    most: usize,
    /// Oldest first.
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
    swept: AtomicBool,
}

impl Pool {
    pub(super) fn of(most: usize) -> Arc<Self> {
        Arc::new(Self { most, idle: Mutex::default(), swept: AtomicBool::new(false) })
    }

    /// The connection that was used last.
    pub(super) fn take(&self) -> Option<AsyncSmtpConnection> {
        let (conn, since) = self.idle().pop()?;
        (since.elapsed() < IDLE_MAX).then_some(conn)
    }

    /// Keeps a connection, or hangs it up where there are enough.
    pub(super) fn park(self: &Arc<Self>, conn: AsyncSmtpConnection) {
        let mut idle = self.idle();
        if conn.has_broken() || idle.len() >= self.most {
            return;
        }
        idle.push((conn, Instant::now()));
        drop(idle);
        if !self.swept.swap(true, Ordering::AcqRel) {
            let pool = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(IDLE_MAX).await;
                    let Some(pool) = pool.upgrade() else { return };
                    if pool.sweep() {
                        return;
                    }
                }
            });
        }
    }

    /// Hangs up what has waited for too long; whether nothing is left to be watched.
    fn sweep(&self) -> bool {
        let mut idle = self.idle();
        idle.retain(|(_, since)| since.elapsed() < IDLE_MAX);
        // Under the lock: whoever parks next sees it.
        if idle.is_empty() {
            self.swept.store(false, Ordering::Release);
        }
        idle.is_empty()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(AsyncSmtpConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
