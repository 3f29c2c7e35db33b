//! The ordered stop: the way in first, the way out last, all before one deadline.

use std::{process::ExitCode, time::Duration};

use super::{Daemon, deadline};
use crate::{
    cli::exit,
    monitor::Stage,
    store::{self, ledger::Closing},
};

/// Actors in the order of the flow. Each is asked to finish what it holds before the one behind it.
const ORDER: [&str; 6] = ["IngestActor", "BatchBufferActor", "AlertActor", "OutboxActor", "ScheduleActor", "MonitorActor"];
/// How long arbiter threads get to end after their actors have drained.
const THREADS_END: Duration = Duration::from_millis(500);

/// How long the file of a database may take to be made whole.
const CHECKPOINT: Duration = Duration::from_secs(5);

/// After an orderly stop the files of SQLite are whole without their `-wal`, for whoever copies them. Where that does not succeed in time
/// nothing is lost: the next start reads the `-wal`.
async fn checkpoint(name: &str, store: store::Store) {
    let error = match tokio::time::timeout(CHECKPOINT, store.call(store::conn::checkpoint)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it takes too long".to_owned(),
    };
    log::info!(target: "belayd::store", database = name, error = error; "the -wal file is left as it is");
}

impl Daemon {
    /// Stops everything and returns `code`, or 1 where readings were lost.
    pub(super) async fn stop(self, code: u8) -> ExitCode {
        let timeout = self.config.load().server.stop_timeout;
        let until = deadline(timeout);
        self.notifier.stopping("stopping: storing what waits");
        log::info!(target: "belayd", timeoutMs = timeout.as_millis() as u64; "stopping");
        // From here on pushes are answered with 503 and /readyz says so, while what is in flight is finished.
        self.board.reach(Stage::Stopping);
        let report = self.supervisor.drain(&ORDER, until).await;
        self.drain.stop();
        if let Some(relay) = self.relay.clone() {
            // What it does not end is in the database, and the next start finds out what became of it.
            let _ = tokio::task::spawn_blocking(move || relay.stop()).await;
        }
        self.web.stop(false).await;
        let lost = self.settle_account().await;
        let at_rest = self.journal_rests();
        // After the last write under a lease, so that nobody else begins before.
        self.heartbeat.stop(THREADS_END).await;
        let stuck = self.supervisor.stop(THREADS_END).await;
        if stuck.is_empty() {
            // The drain looks at its orders several times a second; a thread inside a hung statement is left to the process's end.
            let threads = self.drain_threads;
            let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
            let _ = tokio::time::timeout(THREADS_END, joined).await;
        }
        drop(self.overseer);
        for (name, store) in [("store", self.store.clone()), ("control store", self.control.clone())] {
            checkpoint(name, store).await;
        }
        // Nobody listens there any more; a socket left behind would only be removed at the next start.
        let _ = std::fs::remove_file(&self.control_socket);
        self.directory.end_run(at_rest);
        let code = if lost > 0 { exit::FAILED } else { code };
        log::info!(target: "belayd", unfinished = report.unfinished.join(","), lost = lost; "stopped");
        log::logger().flush();
        ExitCode::from(code)
    }

    /// Whether nothing waits in the journal. Tier memory has not touched it: it is as it was left.
    fn journal_rests(&self) -> bool {
        let on_disk = |lane: &usize| ["journal", "triple"].contains(&self.buffer.lane_tier(*lane));
        let mut lanes = (0..self.buffer.lanes()).filter(on_disk).peekable();
        if lanes.peek().is_none() { self.directory.left_at_rest() } else { lanes.all(|lane| self.buffer.waiting(lane) == 0) }
    }

    /// What still waits in a medium that ends with the process is lost, and said so; the stream's account is closed.
    async fn settle_account(&self) -> u64 {
        let lost = self.buffer.abandon();
        if lost > 0 {
            log::error!(target: "belayd::buffer", readings = lost, reason = "stop"; "readings lost: the database did not take them before the stop");
        }
        if self.buffer.outlives_process() {
            // Its streams go on at the next start.
            return lost;
        }
        let streams: Vec<_> = (0..self.buffer.lanes()).map(|lane| self.buffer.stream(lane)).collect();
        let now_us = self.clock.now_us();
        let closing = if lost > 0 { Closing::Cut } else { Closing::Drained };
        let closed = self.store.call(move |conn| {
            streams.into_iter().try_for_each(|stream| store::ledger::close_stream(conn, stream, closing, now_us))
        });
        match tokio::time::timeout(Duration::from_secs(2), closed).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                log::warn!(target: "belayd::buffer", error:% = error; "the account of this run could not be closed in the database")
            }
            Err(_) => log::warn!(target: "belayd::buffer", "the account of this run could not be closed in the database in time"),
        }
        lost
    }
}
