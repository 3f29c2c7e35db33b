//! The way from "restarting does not help" to a non-zero exit. In: the first cause. Out: a future that resolves with it.

use std::{fmt, time::Duration};

use tokio::sync::watch;

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An actor failed more often than `supervision.max_restarts` allows.
    TooManyRestarts {
        /// Its name.
        actor: &'static str,
        /// Failures within the window, the last included.
        failures: usize,
        /// The window.
        within: Duration,
    },
    /// A part that cannot be restarted has ended or cannot go on.
    Fatal {
        /// Its name.
        part: String,
        /// What happened.
        reason: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyRestarts { actor, failures, within } => {
                write!(f, "{actor} failed {failures} times within {within:?}: restarting does not help")
            }
            Self::Fatal { part, reason } => write!(f, "{part}: {reason}"),
        }
    }
}

/// A shared signal; cheap to clone. The first cause stays.
#[derive(Clone, Debug)]
pub struct Escalation(watch::Sender<Option<Cause>>);

impl Default for Escalation {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Escalation {
    /// Raises the signal; later causes are ignored.
    pub fn raise(&self, cause: Cause) {
        self.0.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(cause);
            }
            first
        });
    }

    /// Resolves once the signal is raised, at once where it has been.
    pub async fn wait(&self) -> Cause {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(cause) = receiver.borrow_and_update().clone() {
                return cause;
            }
            // Cannot fail: `self` holds a sender.
            let _ = receiver.changed().await;
        }
    }

    /// The cause where the signal has been raised.
    pub fn cause(&self) -> Option<Cause> {
        self.0.borrow().clone()
    }
}
