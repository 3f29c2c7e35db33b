//! The ordered stop: each actor in turn finishes what it holds, all within one deadline.
//! In: names in the order of the data flow. Out: who finished and who did not. A crash of an actor meanwhile: it is asked again.

use std::time::{Duration, Instant};

use tokio::{sync::oneshot, time::timeout_at};

use super::{registry::Entry, supervisor::Supervisor, vitals::ActorState};
use crate::protocol::Drain;

/// How the ordered stop went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Who said that nothing is left, and how long it took.
    pub finished: Vec<(String, Duration)>,
    /// Who did not, or has stopped before; what these hold is what their own module says a crash loses.
    pub unfinished: Vec<String>,
}

impl DrainReport {
    /// Whether everyone finished.
    pub fn is_complete(&self) -> bool {
        self.unfinished.is_empty()
    }
}

impl Supervisor {
    /// Asks the named actors, one after the other, to finish what they hold. An actor that uses up the deadline takes it from those
    /// behind it: they are still asked, and reported where they do not answer at once. From here on the overseer restarts no hung
    /// actor any more, because a long drain looks like one, and the deadline rules.
    pub async fn drain(&self, order: &[&str], deadline: Instant) -> DrainReport {
        self.registry().begin_drain();
        let mut report = DrainReport::default();
        for name in order {
            let began = Instant::now();
            let finished = match self.registry().find(name) {
                Some(entry) => drain_one(&entry, deadline).await,
                None => false,
            };
            if finished {
                report.finished.push((name.to_string(), began.elapsed()));
            } else {
                log::warn!(target: "belayd::supervise", actor = name; "actor did not finish before the deadline of the stop");
                report.unfinished.push(name.to_string());
            }
        }
        report
    }
}

/// True once the actor says that nothing is left.
async fn drain_one(entry: &Entry, deadline: Instant) -> bool {
    entry.vitals.retire();
    // Ready answers must count even where the deadline has passed already.
    let until = deadline.max(Instant::now() + Duration::from_millis(5));
    loop {
        if entry.vitals.state() == ActorState::Stopped {
            return false;
        }
        let (done, answer) = oneshot::channel();
        entry.send_drain(Drain { deadline, done });
        match timeout_at(until.into(), answer).await {
            Ok(Ok(())) => return true,
            Err(_) => return false,
            // It failed while it drained, and begins a fresh life: ask again.
            Ok(Err(_)) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(5)).await,
            Ok(Err(_)) => return false,
        }
    }
}
