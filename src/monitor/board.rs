//! The board: where the latest snapshot lies, and how ready the daemon is. Written by `MonitorActor` and the daemon's start and
//! stop, read by the page, `/readyz` and the systemd status.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::sync::watch;

/// What `/readyz` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Buffer or listener is not open yet.
    Starting,
    /// Readings are taken and stored.
    Ready,
    /// Readings are taken; the database is away.
    Buffering,
    /// The buffer's bound is reached: pushes get 503.
    Full,
    /// The buffer's disk does not take readings, for another reason than room: pushes get 503.
    Failing,
    /// An orderly stop has begun.
    Stopping,
}

impl Readiness {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Buffering => "buffering",
            Self::Full => "full",
            Self::Failing => "failing",
            Self::Stopping => "stopping",
        }
    }

    /// Whether senders are let in.
    pub fn takes_readings(self) -> bool {
        matches!(self, Self::Ready | Self::Buffering)
    }
}

/// Where the daemon is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// From the start until buffer and listener are open.
    Starting,
    /// From then until the stop.
    Running,
    /// From the first SIGTERM on.
    Stopping,
}

/// Shared; cheap to read.
#[derive(Debug)]
pub struct Board {
    stage: AtomicU8,
    snapshot: watch::Sender<Arc<str>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { stage: AtomicU8::new(Stage::Starting as u8), snapshot: watch::Sender::new(Arc::from("{}")) }
    }
}

impl Board {
    /// The stage has been reached. It only moves forward: a late `Running` does not undo a stop.
    pub fn reach(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Where the daemon is in its life.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Running,
            _ => Stage::Stopping,
        }
    }

    /// Publishes a snapshot, as JSON.
    pub fn publish(&self, json: Arc<str>) {
        self.snapshot.send_replace(json);
    }

    /// Follows the snapshots from now on.
    pub fn watch(&self) -> watch::Receiver<Arc<str>> {
        self.snapshot.subscribe()
    }

    /// How many follow them.
    pub fn watchers(&self) -> usize {
        self.snapshot.receiver_count()
    }

    /// The readiness, from the stage and from what the buffer and the database look like.
    pub fn readiness(&self, store_up: bool, buffer_full: bool, buffer_failing: bool) -> Readiness {
        match self.stage() {
            Stage::Starting => Readiness::Starting,
            Stage::Stopping => Readiness::Stopping,
            Stage::Running if buffer_failing => Readiness::Failing,
            Stage::Running if buffer_full => Readiness::Full,
            Stage::Running if store_up => Readiness::Ready,
            Stage::Running => Readiness::Buffering,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_stage_buffer_and_store() {
        let board = Board::default();
        assert_eq!(board.readiness(true, false, false), Readiness::Starting);
        board.reach(Stage::Running);
        assert_eq!(board.readiness(true, false, false), Readiness::Ready);
        assert_eq!(board.readiness(false, false, false), Readiness::Buffering);
        assert_eq!(board.readiness(false, true, false), Readiness::Full);
        assert_eq!(board.readiness(true, true, true), Readiness::Failing);
        assert!(!Readiness::Failing.takes_readings());
        board.reach(Stage::Stopping);
        board.reach(Stage::Running);
        assert_eq!(board.readiness(true, false, false), Readiness::Stopping);
    }
}
