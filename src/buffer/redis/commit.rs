//! The commit thread: everything that waits goes to Redis in one round trip, and is answered by what Redis said.
//!
//! In: submitted batches. Out: answers: `redis` (or `memory`, where Redis keeps nothing) once it has taken them; or the batches, unchanged, to
//! the journal, which answers. A crash loses what is in the queue and was not acknowledged; its senders come again. While one round trip
//! is under way the next group gathers by itself. Several entries go as one transaction, so that a group is taken whole or not at all: a
//! hole in the middle of a stream can only mean loss.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering, mpsc::SyncSender},
    thread,
};

use tokio::sync::oneshot;

use super::{
    core::{Core, lock},
    entry::{ENTRY_BYTES, add, chain},
    link::{Link, LinkError},
    send::add_all,
};
use crate::{
    buffer::Frame,
    domain::{
        ack::AckLevel,
        batch::{Batch, BatchBuilder},
        receipt::{Receipt, StreamId},
    },
    protocol::{Accepted, Reply},
};

/// Most readings in an entry that is put together of several pushes.
const ENTRY_ROWS: u32 = 4_096;
/// Most bytes in such an entry.
const ENTRY_MAX_BYTES: usize = 256 * 1024;
/// Most entries in one transaction: 4 MB at a time, so that one is answered well within the time-out.
const GROUP_ENTRIES: usize = 16;
/// Readings that wait for the database above which groups go to all lanes in turn.
const CATCH_UP_ROWS: u64 = 5_000;
/// How often the thread looks up without work.
const IDLE: std::time::Duration = std::time::Duration::from_millis(250);

/// What waits for the commit thread.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) submitted: Vec<Submitted>,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) orders: Vec<Order>,
    pub(super) ended: bool,
}

/// One push.
pub(super) struct Submitted {
    pub(super) batch: Batch,
    pub(super) ack: AckLevel,
    pub(super) alerts: Option<oneshot::Receiver<()>>,
    pub(super) reply: Reply,
}

/// What only the writer of the streams can do.
pub(super) enum Order {
    /// End what is written, unless Redis has been away since.
    GiveUp { generation: u64, cause: LinkError },
    /// Answer when everything that was queued before has gone its way.
    Flush { answer: SyncSender<()> },
}

/// Starts the thread.
pub(super) fn start(core: Arc<Core>) -> std::io::Result<thread::JoinHandle<()>> {
    let mut committer = Committer { core, link: None, lane: 0 };
    thread::Builder::new().name("redis-commit".into()).spawn(move || while committer.turn() {})
}

struct Committer {
    core: Arc<Core>,
    /// The connection to the node that holds this stream.
    link: Option<(StreamId, Link)>,
    lane: usize,
}

/// Pushes that share an entry.
struct Group {
    frame: Frame,
    pushes: Vec<Submitted>,
}

impl Committer {
    /// One round. `false` ends the thread.
    fn turn(&mut self) -> bool {
        let Some((submitted, orders)) = self.take() else { return false };
        if !submitted.is_empty() {
            self.commit(submitted);
        }
        for order in orders {
            match order {
                Order::GiveUp { generation, cause } => {
                    if lock(&self.core.health).generation == generation {
                        self.give_up(&cause);
                    }
                }
                Order::Flush { answer } => {
                    let _ = answer.send(());
                }
            }
        }
        true
    }

    fn take(&self) -> Option<(Vec<Submitted>, Vec<Order>)> {
        let mut queue = lock(&self.core.queue);
        while queue.submitted.is_empty() && queue.orders.is_empty() {
            if queue.ended {
                return None;
            }
            queue = self.core.wake.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner).0;
        }
        (queue.bytes, queue.rows) = (0, 0);
        // As much room as this group took, so that the next one does not grow step by step.
        let room = queue.submitted.len().min(1_024);
        let submitted = std::mem::replace(&mut queue.submitted, Vec::with_capacity(room));
        Some((submitted, std::mem::take(&mut queue.orders)))
    }

    fn commit(&mut self, submitted: Vec<Submitted>) {
        let mut submitted = submitted.into_iter().peekable();
        while submitted.peek().is_some() {
            let waiting = lock(&self.core.books).waiting_total();
            self.lane = if waiting > CATCH_UP_ROWS { (self.lane + 1) % self.core.settings.streams } else { 0 };
            let target = lock(&self.core.books).target(self.lane);
            let Some((stream, first_seq, before)) = target.filter(|_| self.core.is_up()) else {
                self.core.divert(submitted);
                return;
            };
            let groups = gather(&mut submitted, first_seq, before);
            match self.send(stream, &groups) {
                Ok(()) => self.taken(stream, groups),
                Err(cause) => {
                    self.give_up(&cause);
                    self.core.divert(groups.into_iter().flat_map(|group| group.pushes));
                }
            }
        }
    }

    /// One round trip: all of them are taken, or none counts.
    fn send(&mut self, stream: StreamId, groups: &[Group]) -> Result<(), LinkError> {
        let key = self.core.keys.stream(stream);
        let (stream_before, link) = match self.link.take() {
            Some((before, link)) if before == stream || !self.core.settings.server.is_cluster() => (before, link),
            _ => (stream, self.core.settings.server.connect(&key)?),
        };
        let (_, link) = self.link.insert((if stream_before == stream { stream_before } else { stream }, link));
        let adds = groups.iter().map(|group| add(&key, &group.frame)).collect();
        add_all(link, adds, self.core.settings.replicas)
    }

    fn taken(&mut self, stream: StreamId, groups: Vec<Group>) {
        let bytes = groups.iter().map(|group| group.frame.batch.bytes().len() as u64 + ENTRY_BYTES).sum();
        let Some(last) = groups.last().map(|group| (group.frame.last_seq(), group.frame.chain)) else { return };
        let level = lock(&self.core.health).facts.as_ref().map_or(AckLevel::Memory, super::facts::Facts::level);
        let mut books = lock(&self.core.books);
        if !books.taken(self.lane, stream, last.0, last.1, bytes) {
            drop(books);
            self.core.divert(groups.into_iter().flat_map(|group| group.pushes));
            return;
        }
        let mut answers = Vec::new();
        for group in groups {
            let mut next = group.frame.first_seq;
            for Submitted { batch, ack, alerts, reply } in group.pushes {
                let receipt = Receipt { stream, first_seq: next, last_seq: next + u64::from(batch.len()) - 1 };
                next = receipt.last_seq + 1;
                let upgrade = (ack > AckLevel::Redis).then(|| {
                    let (sender, receiver) = oneshot::channel();
                    books.wait_for_store(stream, receipt.last_seq, sender);
                    receiver
                });
                answers.push((reply, Accepted { receipt, level, upgrade, alerts }));
            }
        }
        let waiting = books.waiting_total();
        drop(books);
        if let Some(hook) = self.core.on_visible.get() {
            hook(waiting, answers.iter().any(|(_, accepted)| accepted.upgrade.is_some()));
        }
        for (reply, accepted) in answers {
            // A sender that has gone needs no answer.
            let _ = reply.send(Ok(accepted));
        }
    }

    /// Redis is left alone for a while; what it has acknowledged is the end of its streams.
    fn give_up(&mut self, cause: &LinkError) {
        self.link = None;
        self.core.up.store(false, Ordering::Release);
        if !cause.definite {
            self.core.readable.store(false, Ordering::Release);
        }
        lock(&self.core.books).end_all();
        lock(&self.core.health).failed(self.core.observer.as_ref(), &cause.message, &cause.code);
        self.core.wake_keeper();
    }
}

/// Puts pushes into entries, as many as go into one transaction.
fn gather(submitted: &mut std::iter::Peekable<std::vec::IntoIter<Submitted>>, mut next_seq: u64, mut before: u64) -> Vec<Group> {
    let mut groups = Vec::new();
    while groups.len() < GROUP_ENTRIES {
        let mut pushes: Vec<Submitted> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        while let Some(push) = submitted.peek() {
            let (more_rows, more_bytes) = (push.batch.len(), push.batch.bytes().len());
            if !pushes.is_empty() && (rows + more_rows > ENTRY_ROWS || bytes + more_bytes > ENTRY_MAX_BYTES) {
                break;
            }
            (rows, bytes) = (rows + more_rows, bytes + more_bytes);
            pushes.extend(submitted.next());
        }
        let Some(first) = pushes.first() else { break };
        let batch = if pushes.len() == 1 {
            first.batch.clone()
        } else {
            let mut builder = BatchBuilder::with_capacity(bytes);
            pushes.iter().for_each(|push| builder.append(&push.batch));
            builder.finish(first.batch.received_at_us())
        };
        let after = chain(before, next_seq, batch.len(), std::slice::from_ref(batch.bytes()));
        let frame = Frame { first_seq: next_seq, batch, chain_before: before, chain: after };
        (next_seq, before) = (frame.last_seq() + 1, after);
        groups.push(Group { frame, pushes });
    }
    groups
}
