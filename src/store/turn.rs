//! Whose turn it is to write to a SQLite file: within this process, whoever asked first.
//!
//! SQLite has one writer at a time, and has the others look again after a while, in the end every 100 ms. Beside one that begins anew as
//! soon as it has committed, as the drain does while it catches up, such a look hardly ever finds the file free, and after
//! `store.connect_timeout` it is an error. So writers queue here before they ask SQLite. Another process still waits as SQLite has it.
//!
//! [`Place`](super::place::Place) says for each call whose file it is about, [`Conn::write`](super::Conn::write) queues: between the two lies
//! diesel's connection, which has no place for it.

use std::{cell::RefCell, sync::Arc, time::Duration};

use parking_lot::FairMutex;

/// The queue before one file.
#[derive(Debug, Default)]
pub(super) struct Turn(FairMutex<()>);

/// A queue, and how long to stand in it.
type Queue = (Arc<Turn>, Duration);

thread_local! {
    static OF_THIS_CALL: RefCell<Option<Queue>> = const { RefCell::new(None) };
}

/// While it lives, what this thread writes is about the file of that queue.
pub(super) struct Call(Option<Queue>);

impl Call {
    /// Nobody stands in the queue for longer than `patience`: then SQLite itself is asked, and says what is wrong.
    pub(super) fn about(turn: Arc<Turn>, patience: Duration) -> Self {
        Self(OF_THIS_CALL.replace(Some((turn, patience))))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        OF_THIS_CALL.set(self.0.take());
    }
}

/// Calls `write` when this thread's turn has come.
pub(super) fn in_turn<T>(write: impl FnOnce() -> T) -> T {
    let queue = OF_THIS_CALL.with_borrow(Clone::clone);
    let _turn = queue.as_ref().and_then(|(turn, patience)| turn.0.try_lock_for(*patience));
    write()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicU32, Ordering},
        thread,
    };

    use diesel::connection::SimpleConnection;

    use super::*;
    use crate::{
        config::{Config, StoreConfig},
        store::{Conn, Store, StoreResult},
    };

    fn add(conn: &mut Conn, pause: Duration) -> StoreResult<()> {
        conn.write(|conn| {
            if let Conn::Sqlite(conn) = conn {
                conn.batch_execute("INSERT INTO written VALUES (1)")?;
            }
            thread::sleep(pause);
            Ok(())
        })
    }

    #[test]
    fn whoever_writes_now_and_then_waits_for_one_of_those_who_never_rest_and_not_for_luck() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite://{}", dir.path().join("belayd.db").display());
        let store = Store::open(&StoreConfig { url, ..Config::default().store }).expect("a store");
        let (stop, large) = (AtomicBool::new(false), AtomicU32::new(0));
        let mut most = 0;
        store
            .with(|conn| {
                if let Conn::Sqlite(conn) = conn {
                    conn.batch_execute("CREATE TABLE written (n INTEGER)")?;
                }
                Ok(())
            })
            .expect("a table");
        thread::scope(|scope| {
            let mut writer = store.writer();
            let (stop, large) = (&stop, &large);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    writer.with(|conn| add(conn, Duration::from_millis(20))).expect("it is written");
                    large.fetch_add(1, Ordering::AcqRel);
                }
            });
            while large.load(Ordering::Acquire) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            for _ in 0..20 {
                let before = large.load(Ordering::Acquire);
                let written = store.with(|conn| add(conn, Duration::ZERO));
                most = most.max(large.load(Ordering::Acquire) - before);
                if written.is_err() {
                    most = u32::MAX;
                }
            }
            stop.store(true, Ordering::Release);
        });
        // The one that has begun, and perhaps one more before the thread that asks gets to the queue.
        assert!(most <= 3, "{most} large ones went before a small one");
    }
}
