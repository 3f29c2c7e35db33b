//! The way of transitions to `AlertActor`: in order, together, and again until they are committed.
//!
//! In: transitions from the rules and from the daemon's own conditions. Out: one [`Raise`] at a time. It is a task outside every
//! actor, so that a panic on either side loses no transition; a crash of the process loses those that were not committed yet, and
//! their senders have not been answered.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::{domain::alert::Transition, protocol::Raise, supervise::Courier};

/// Transitions that may wait. At the bound [`Raiser::has_room`] says no and ingest refuses readings (503) rather than forget alerts.
pub const QUEUE_MAX: usize = 10_000;
/// Most transitions in one commit.
const COMMIT_MAX: usize = 1_000;
/// Pause before transitions that were not committed are raised again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

struct Waiting {
    transitions: Vec<Transition>,
    committed: oneshot::Sender<()>,
}

/// The near end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Raiser {
    queue: mpsc::UnboundedSender<Waiting>,
    waiting: Arc<AtomicUsize>,
}

impl Raiser {
    /// Starts the task on the current runtime.
    pub fn start(alerts: Courier<Raise>) -> Self {
        let (queue, incoming) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        actix::spawn(pump(alerts, incoming, waiting.clone()));
        Self { queue, waiting }
    }

    /// Whether further transitions may be raised. Ask before the step that makes them.
    pub fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < QUEUE_MAX
    }

    /// Transitions that are not committed yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Hands transitions on; the receiver resolves when they are committed.
    pub fn raise(&self, transitions: Vec<Transition>) -> oneshot::Receiver<()> {
        let (committed, receiver) = oneshot::channel();
        self.waiting.fetch_add(transitions.len(), Ordering::AcqRel);
        // The task ends only with the process; then nobody waits for the receiver either.
        let _ = self.queue.send(Waiting { transitions, committed });
        receiver
    }
}

async fn pump(alerts: Courier<Raise>, mut incoming: mpsc::UnboundedReceiver<Waiting>, waiting: Arc<AtomicUsize>) {
    while let Some(first) = incoming.recv().await {
        let mut transitions = first.transitions;
        let mut waiters = vec![first.committed];
        while transitions.len() < COMMIT_MAX
            && let Ok(next) = incoming.try_recv()
        {
            transitions.extend(next.transitions);
            waiters.push(next.committed);
        }
        let count = transitions.len();
        while !raise_once(&alerts, &transitions).await {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        waiting.fetch_sub(count, Ordering::AcqRel);
        for waiter in waiters {
            let _ = waiter.send(());
        }
    }
}

/// Whether the transitions were committed. A repeat after a commit whose word was lost is harmless: episodes are told apart by rule
/// and subject, and one that is open already is not opened again.
async fn raise_once(alerts: &Courier<Raise>, transitions: &[Transition]) -> bool {
    let (committed, receiver) = oneshot::channel();
    let raise = Raise { transitions: transitions.to_vec(), committed: Some(committed) };
    alerts.send(raise).await.is_ok() && receiver.await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert::{AlertKind, Level};

    fn transition(n: i64) -> Transition {
        Transition {
            kind: AlertKind::Rule,
            name: "r".into(),
            subject: "e".into(),
            level: Level::Info,
            firing: n % 2 == 0,
            observed_at_us: n,
            arrived_at_us: n,
            value: None,
            threshold: None,
            text: String::new(),
        }
    }

    #[actix::test]
    async fn what_was_not_committed_is_raised_again_in_order() {
        let (alerts, mut probe) = Courier::probe(4);
        let raiser = Raiser::start(alerts);
        let first = raiser.raise(vec![transition(0)]);
        let second = raiser.raise(vec![transition(1), transition(2)]);
        let refused = probe.recv().await.expect("raised");
        drop(refused);
        let again = probe.recv().await.expect("raised again");
        assert_eq!(again.transitions.first().map(|t| t.observed_at_us), Some(0));
        let mut seen: Vec<i64> = again.transitions.iter().map(|t| t.observed_at_us).collect();
        again.committed.expect("someone waits").send(()).expect("and still does");
        first.await.expect("committed");
        if seen.len() < 3 {
            let rest = probe.recv().await.expect("the rest");
            seen.extend(rest.transitions.iter().map(|t| t.observed_at_us));
            rest.committed.expect("someone waits").send(()).expect("and still does");
        }
        second.await.expect("committed");
        assert_eq!(seen, [0, 1, 2]);
        assert_eq!(raiser.waiting(), 0);
    }
}
