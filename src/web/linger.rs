//! The end of an HTTP/1 connection whose sender was refused before all of its body had come.
//!
//! In: the order to linger, given with the answer. Out: what the connection does next. A close with bytes unread is a reset, and a reset
//! takes the answer along that the sender has not read yet. So the answer goes out, then our side is closed, which ends the answer for
//! whoever reads up to the end; what still comes is read and forgotten, up to a bound of bytes and time; only then is all of it closed.
//! A crash loses the connection, as it would anyway.

use std::{cell::Cell, time::Duration};

/// What a connection is told, on the thread that serves it.
#[derive(Debug, Default)]
pub(super) struct Linger {
    stage: Cell<Stage>,
    left: Cell<usize>,
    patience: Cell<Duration>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// There is no such order.
    #[default]
    Serving,
    /// The answer is not out yet.
    Ordered,
    /// Part of it is.
    Answering,
    /// All of it is; our side is still open.
    Answered,
    /// Our side is closed.
    Closed,
}

/// What to do with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Read as always.
    Read,
    /// Close our side first. This is said until [`Linger::closed`] is called.
    Close,
    /// Read for no longer than this.
    Forget(Duration),
    /// Behave as if the sender had ended.
    End,
}

impl Linger {
    /// Closes after the next answer. Of what comes after it, at most `bytes` are read, for at most `patience`.
    pub(super) fn order(&self, bytes: usize, patience: Duration) {
        self.stage.set(Stage::Ordered);
        self.left.set(bytes);
        self.patience.set(patience);
    }

    /// Whether it was ordered.
    pub(super) fn is_ordered(&self) -> bool {
        self.stage.get() != Stage::Serving
    }

    /// Bytes were sent.
    pub(super) fn sent(&self) {
        if self.stage.get() == Stage::Ordered {
            self.stage.set(Stage::Answering);
        }
    }

    /// Everything that was to be sent is out.
    pub(super) fn flushed(&self) {
        if self.stage.get() == Stage::Answering {
            self.stage.set(Stage::Answered);
        }
    }

    /// Our side is closed.
    pub(super) fn closed(&self) {
        self.stage.set(Stage::Closed);
    }

    /// What to do with the next read.
    pub(super) fn next(&self) -> Next {
        match self.stage.get() {
            Stage::Serving | Stage::Ordered | Stage::Answering => Next::Read,
            Stage::Answered => Next::Close,
            Stage::Closed if self.left.get() == 0 => Next::End,
            Stage::Closed => Next::Forget(self.patience.get()),
        }
    }

    /// So many bytes were read to be forgotten.
    pub(super) fn forgot(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_sub(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    #[test]
    fn our_side_is_closed_only_behind_the_whole_answer() {
        let linger = Linger::default();
        linger.sent();
        linger.flushed();
        assert_eq!(linger.next(), Next::Read, "an answer like any other");
        linger.order(100, PATIENCE);
        linger.flushed();
        assert_eq!(linger.next(), Next::Read, "nothing of the answer is out");
        linger.sent();
        assert_eq!(linger.next(), Next::Read, "not all of it");
        linger.flushed();
        assert_eq!(linger.next(), Next::Close);
    }

    #[test]
    fn what_comes_after_it_is_forgotten_up_to_the_bound() {
        let linger = Linger::default();
        linger.order(100, PATIENCE);
        linger.sent();
        linger.flushed();
        linger.closed();
        assert_eq!(linger.next(), Next::Forget(PATIENCE));
        linger.forgot(60);
        assert_eq!(linger.next(), Next::Forget(PATIENCE));
        linger.forgot(60);
        assert_eq!(linger.next(), Next::End);
    }
}
