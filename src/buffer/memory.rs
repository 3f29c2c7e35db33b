//! Tier memory: accepted readings wait in this process.
//!
//! In: batches. Out: frames, oldest first. A crash of the process loses what waits; an actor's panic does not, and an orderly stop
//! stores it first. At its bound (readings or bytes, whichever is hit first) a batch is refused whole and the sender comes again.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Account, Attached, Buffer, BufferStats, DrainOutcome, Frame, Gap, GapKind, Position, Work};
use crate::{
    domain::{
        ack::AckLevel,
        batch::{Batch, BatchBuilder},
        receipt::{Receipt, ReceiptState, StreamId},
    },
    protocol::{Accepted, Refusal, Reply},
};

/// What a frame costs beside its records: the frame, its place in the queue and the allocator's own.
const FRAME_BYTES: u64 = 128;
/// Small pushes that arrive within this time share a frame, so that single readings do not each cost one. Their `created_at_us`
/// is the first one's: audit times are exact to this window.
const GATHER_US: i64 = 10_000;
/// A frame is closed at this size, so that one drain does not take more than it asked for by much.
const GATHER_BYTES: usize = 16 * 1024;

/// The bounded queue in memory.
#[derive(Debug)]
pub struct MemoryBuffer {
    stream: StreamId,
    rows_bound: u64,
    bytes_bound: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    next_seq: u64,
    frames: VecDeque<Held>,
    /// The frame that small pushes are still being added to; its numbers follow those of `frames`.
    open: Option<Open>,
    /// Numbers that the database had stored and does not know any more, to be passed over first. They count as waiting until then.
    missing: Option<Gap>,
    bytes: u64,
    account: Account,
    /// Senders that wait for `store`, by the last number of their push, rising.
    waiters: VecDeque<(u64, oneshot::Sender<AckLevel>)>,
    closed: bool,
    /// Lost with the process.
    abandoned: u64,
}

#[derive(Debug)]
struct Held {
    frame: Frame,
    since: Instant,
}

#[derive(Debug)]
struct Open {
    first_seq: u64,
    received_at_us: i64,
    since: Instant,
    builder: BatchBuilder,
}

impl MemoryBuffer {
    /// An empty buffer with a new stream.
    pub fn new(rows_bound: u32, bytes_bound: u64) -> Self {
        let inner = Inner {
            next_seq: 1,
            frames: VecDeque::new(),
            open: None,
            missing: None,
            bytes: 0,
            account: Account::default(),
            waiters: VecDeque::new(),
            closed: false,
            abandoned: 0,
        };
        Self { stream: Uuid::now_v7(), rows_bound: u64::from(rows_bound), bytes_bound, inner: Mutex::new(inner) }
    }

    fn refuses_with(&self, inner: &Inner, batch: &Batch) -> Option<Refusal> {
        if inner.closed {
            return Some(Refusal::Stopping);
        }
        let full = inner.account.buffered + u64::from(batch.len()) > self.rows_bound
            || inner.bytes + batch.bytes().len() as u64 + FRAME_BYTES > self.bytes_bound;
        // One that is larger than the bound is taken alone: refused, it would come again for ever.
        (full && inner.account.buffered > 0).then_some(Refusal::Full)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that holds the lock can panic half-way through a change: see `Inner`.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(&mut self, batch: Batch, first_seq: u64) {
        let rows = u64::from(batch.len());
        self.account.accepted += rows;
        self.account.buffered += rows;
        self.bytes += batch.bytes().len() as u64;
        let fits = self.open.as_ref().is_some_and(|open| {
            (0..GATHER_US).contains(&(batch.received_at_us() - open.received_at_us))
                && open.builder.size_bytes() + batch.bytes().len() <= GATHER_BYTES
        });
        if !fits {
            self.seal();
            self.bytes += FRAME_BYTES;
            if batch.bytes().len() * 2 > GATHER_BYTES {
                self.frames.push_back(Held { frame: numbered(first_seq, batch), since: Instant::now() });
                return;
            }
            let received_at_us = batch.received_at_us();
            self.open = Some(Open { first_seq, received_at_us, since: Instant::now(), builder: BatchBuilder::default() });
        }
        if let Some(open) = &mut self.open {
            open.builder.append(&batch);
        }
    }

    /// Forgets what the database has; its waiters are given back to be told.
    fn settled_up_to(&mut self, last_seq: u64) -> Vec<oneshot::Sender<AckLevel>> {
        if self.open.as_ref().is_some_and(|open| open.first_seq <= last_seq) {
            self.seal();
        }
        if let Some(gap) = self.missing.take_if(|gap| gap.last_seq <= last_seq) {
            self.account.buffered -= gap.acknowledged;
        }
        while self.frames.front().is_some_and(|held| held.frame.last_seq() <= last_seq) {
            let Some(held) = self.frames.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(held.frame.batch.bytes().len() as u64 + FRAME_BYTES);
            self.account.buffered -= u64::from(held.frame.batch.len());
        }
        if self.frames.is_empty() && self.frames.capacity() > 1024 {
            // A queue that has been long once need not hold its memory for ever.
            self.frames.shrink_to(64);
        }
        let mut reached = Vec::new();
        while self.waiters.front().is_some_and(|(waits_for, _)| *waits_for <= last_seq) {
            reached.extend(self.waiters.pop_front().map(|(_, waiter)| waiter));
        }
        reached
    }

    fn seal(&mut self) {
        if let Some(open) = self.open.take() {
            let batch = open.builder.finish(open.received_at_us);
            self.frames.push_back(Held { frame: numbered(open.first_seq, batch), since: open.since });
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.frames.front().map(|held| held.since).or(self.open.as_ref().map(|open| open.since))
    }
}

fn tell(reached: Vec<oneshot::Sender<AckLevel>>) {
    for waiter in reached {
        // A sender that has gone needs no answer.
        let _ = waiter.send(AckLevel::Store);
    }
}

/// A stream of this tier begins with its process, so nobody else can have written other readings under its numbers: no chain.
fn numbered(first_seq: u64, batch: Batch) -> Frame {
    Frame { first_seq, batch, chain_before: 0, chain: 0 }
}

impl Buffer for MemoryBuffer {
    fn tier(&self) -> &'static str {
        "memory"
    }

    fn lanes(&self) -> usize {
        1
    }

    fn level(&self) -> AckLevel {
        AckLevel::Memory
    }

    fn stream(&self, _: usize) -> StreamId {
        self.stream
    }

    fn submit(&self, batch: Batch, ack: AckLevel, alerts: Option<oneshot::Receiver<()>>, reply: Reply) -> u64 {
        let rows = u64::from(batch.len());
        let mut inner = self.lock();
        if let Some(refusal) = self.refuses_with(&inner, &batch) {
            let waiting = inner.account.buffered;
            drop(inner);
            // A waiter that has gone away needs no answer.
            let _ = reply.send(Err(refusal));
            return waiting;
        }
        let first_seq = inner.next_seq;
        inner.next_seq += rows;
        let receipt = Receipt { stream: self.stream, first_seq, last_seq: first_seq + rows - 1 };
        inner.keep(batch, first_seq);
        let upgrade = (ack > AckLevel::Memory).then(|| {
            let (sender, receiver) = oneshot::channel();
            inner.waiters.push_back((receipt.last_seq, sender));
            receiver
        });
        let waiting = inner.account.buffered;
        drop(inner);
        let _ = reply.send(Ok(Accepted { receipt, level: AckLevel::Memory, upgrade, alerts }));
        waiting
    }

    fn refuses(&self, batch: &Batch) -> Option<Refusal> {
        self.refuses_with(&self.lock(), batch)
    }

    fn waiting(&self, _: usize) -> u64 {
        self.lock().account.buffered
    }

    fn attach(&self, _: usize, position: &Position) -> std::io::Result<Attached> {
        let mut inner = self.lock();
        let reached = inner.settled_up_to(position.cursor_seq);
        inner.account.set_totals(&position.totals);
        if let Some(gap) = inner.missing.take() {
            inner.account.buffered -= gap.acknowledged;
        }
        let missing = (inner.next_seq - inner.account.buffered).saturating_sub(position.cursor_seq + 1);
        if missing > 0 {
            let (first_seq, last_seq) = (position.cursor_seq + 1, position.cursor_seq + missing);
            inner.account.buffered += missing;
            inner.missing =
                Some(Gap { first_seq, last_seq, kind: GapKind::Lost, acknowledged: missing, chain_before: 0, chain: 0 });
        }
        drop(inner);
        tell(reached);
        Ok(if missing > 0 { Attached::StoreRestored { missing } } else { Attached::Resumed })
    }

    fn next(&self, _: usize, max_rows: u32) -> std::io::Result<Work> {
        let mut inner = self.lock();
        if let Some(gap) = inner.missing {
            return Ok(Work::Gap(gap));
        }
        let mut rows = 0;
        let mut frames = Vec::new();
        for held in &inner.frames {
            if rows >= max_rows {
                return Ok(Work::Frames(frames));
            }
            rows += held.frame.batch.len();
            frames.push(held.frame.clone());
        }
        if rows < max_rows && inner.open.is_some() {
            inner.seal();
            frames.extend(inner.frames.back().map(|held| held.frame.clone()));
        }
        Ok(if frames.is_empty() { Work::Nothing } else { Work::Frames(frames) })
    }

    fn settle(&self, _: usize, outcome: &DrainOutcome) {
        let mut inner = self.lock();
        let reached = inner.settled_up_to(outcome.last_seq);
        inner.account.settle(outcome);
        drop(inner);
        tell(reached);
    }

    fn close(&self) {
        self.lock().closed = true;
    }

    fn abandon(&self) -> u64 {
        let mut inner = self.lock();
        inner.closed = true;
        inner.open = None;
        inner.missing = None;
        inner.frames.clear();
        inner.bytes = 0;
        let lost = std::mem::take(&mut inner.account.buffered);
        inner.account.lost += lost;
        inner.abandoned += lost;
        lost
    }

    fn state_of(&self, stream: StreamId, seq: u64) -> Option<ReceiptState> {
        let inner = self.lock();
        if stream != self.stream {
            None
        } else if seq == 0 || seq >= inner.next_seq {
            Some(ReceiptState::Unknown)
        } else if seq >= inner.next_seq - inner.account.buffered {
            Some(ReceiptState::Buffered)
        } else {
            None
        }
    }

    fn is_filling(&self) -> bool {
        let inner = self.lock();
        inner.account.buffered >= self.rows_bound / 2 || inner.bytes >= self.bytes_bound / 2
    }

    fn stats(&self) -> BufferStats {
        let inner = self.lock();
        let oldest_age = inner.oldest().map_or(Duration::ZERO, |since| since.elapsed());
        let difference = inner.account.difference();
        BufferStats {
            tier: "memory",
            ack: AckLevel::Memory,
            may_lose_code: "memory",
            may_lose: "a crash or power cut loses the readings that wait here; ask for ack=store to wait for the database",
            streams: vec![self.stream],
            rows: inner.account.buffered,
            rows_bound: Some(self.rows_bound),
            bytes: inner.bytes,
            bytes_bound: self.bytes_bound,
            oldest_age_ms: u64::try_from(oldest_age.as_millis()).unwrap_or(u64::MAX),
            waiters: inner.waiters.len(),
            refuses: inner.account.buffered >= self.rows_bound || inner.bytes >= self.bytes_bound,
            failing: false,
            lost_ends: 0,
            account: inner.account,
            abandoned: inner.abandoned,
            difference: i64::try_from(difference).unwrap_or(if difference > 0 { i64::MAX } else { i64::MIN }),
        }
    }
}

#[cfg(test)]
mod tests;
