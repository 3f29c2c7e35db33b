//! `BatchBufferActor`: puts batches into the buffer and decides when they are written.
//!
//! In: [`Append`] from `IngestActor`. Out: orders to the drain. It flushes when a batch is full, when the oldest reading has waited
//! for the flush interval, and at once where a sender waits for `store`. The buffer lives outside, so a panic here loses the message
//! in hand only, whose sender sees a closed channel and comes again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;

use super::{
    Buffer,
    drain::{DrainHandle, UNPACED_ROWS},
};
use crate::{
    domain::ack::AckLevel,
    protocol::{Append, Drain, Reconfigure, Visible},
    supervise::service,
};

/// Messages that may wait for this actor; as many as may wait for `IngestActor`, which alone sends them.
const MAILBOX: usize = 4_096;
/// How often an orderly stop looks whether everything is written.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How long a stop waits for a database that takes nothing, where what waits outlives the process.
const DURABLE_PATIENCE: Duration = Duration::from_secs(1);

/// What the actor works with; it outlives every restart.
#[derive(Debug)]
pub struct BufferParts {
    /// The medium.
    buffer: Arc<dyn Buffer>,
    /// The thread that writes.
    drain: DrainHandle,
    /// Rows that make a batch.
    batch_rows: u32,
    /// Longest wait of a reading before it is written.
    flush_interval: Duration,
    /// Whether a timed flush is on its way. It is set and cleared by the actor, and read by whoever makes readings visible: a timer that
    /// finds nothing ends, though a push may be on its way to the disk.
    armed: AtomicBool,
}

impl BufferParts {
    /// Batches of `batch_rows`, or what there is after `flush_interval`.
    pub fn new(buffer: Arc<dyn Buffer>, drain: DrainHandle, batch_rows: u32, flush_interval: Duration) -> Self {
        Self { buffer, drain, batch_rows, flush_interval, armed: AtomicBool::new(false) }
    }

    /// Orders what waits to be written: now, where somebody waits for it, much does, or the medium is filling; at the drain's pace, where a batch
    /// is full.
    fn order(&self, waiting: u64, urgent: bool) {
        if urgent || waiting >= UNPACED_ROWS.max(u64::from(self.batch_rows)) {
            self.drain.flush();
        } else if waiting >= u64::from(self.batch_rows) {
            if self.buffer.is_filling() { self.drain.flush() } else { self.drain.full() }
        }
    }

    /// Readings have become visible to the drain: `waiting` of them, and whether a sender waits for the database. Returns whether
    /// [`Visible`] is to be sent, because no timer runs.
    pub fn became_visible(&self, waiting: u64, urgent: bool) -> bool {
        self.order(waiting, urgent);
        waiting > 0 && !self.armed.load(Ordering::SeqCst)
    }
}

/// See the module.
pub struct BatchBufferActor {
    parts: Arc<BufferParts>,
}

service!(BatchBufferActor, "BatchBufferActor", MAILBOX);

impl BatchBufferActor {
    /// A fresh actor over parts that stay.
    pub fn new(parts: Arc<BufferParts>) -> Self {
        // A timer of an earlier life died with it.
        parts.armed.store(false, Ordering::SeqCst);
        Self { parts }
    }

    /// Sees to it that what waits now is written within the flush interval.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        if self.parts.armed.swap(true, Ordering::SeqCst) {
            return;
        }
        let stats = self.parts.buffer.stats();
        let left = self.parts.flush_interval.saturating_sub(Duration::from_millis(stats.oldest_age_ms));
        ctx.run_later(left, |this, ctx| {
            // Before the look: what becomes visible behind it finds no timer and says so.
            this.parts.armed.store(false, Ordering::SeqCst);
            let stats = this.parts.buffer.stats();
            if u128::from(stats.oldest_age_ms) + 1 >= this.parts.flush_interval.as_millis() {
                this.parts.drain.flush();
            }
            if stats.rows > 0 {
                // Re-armed at the end of the tick, by the age of what waits now.
                this.arm_after(ctx);
            }
        });
    }

    /// Like [`Self::arm`], but never at once: what is overdue has just been ordered to be written.
    fn arm_after(&mut self, ctx: &mut Context<Self>) {
        self.parts.armed.store(true, Ordering::SeqCst);
        let step = (self.parts.flush_interval / 10).max(Duration::from_millis(10));
        ctx.run_later(step, |this, ctx| {
            this.parts.armed.store(false, Ordering::SeqCst);
            if this.parts.buffer.stats().rows > 0 {
                this.arm(ctx);
            }
        });
    }
}

impl Actor for BatchBufferActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // An earlier life may have left readings whose timer died with it.
        if self.parts.buffer.stats().rows > 0 {
            self.parts.drain.flush();
            self.arm(ctx);
        }
    }
}

impl Handler<Append> for BatchBufferActor {
    type Result = ();

    fn handle(&mut self, append: Append, ctx: &mut Self::Context) {
        let Append { batch, ack, reply, alerts, permit } = append;
        let waiting = self.parts.buffer.submit(batch, ack, alerts, reply);
        drop(permit);
        self.parts.order(waiting, ack >= AckLevel::Store);
        if waiting > 0 {
            self.arm(ctx);
        }
    }
}

impl Handler<Visible> for BatchBufferActor {
    type Result = ();

    fn handle(&mut self, _: Visible, ctx: &mut Self::Context) {
        self.arm(ctx);
    }
}

impl Handler<Reconfigure> for BatchBufferActor {
    type Result = ();

    /// Nothing of the buffer changes while the daemon runs: see `config::diff`.
    fn handle(&mut self, _: Reconfigure, _: &mut Self::Context) {}
}

impl Handler<Drain> for BatchBufferActor {
    type Result = ();

    fn handle(&mut self, drain: Drain, ctx: &mut Self::Context) {
        self.parts.buffer.close();
        self.parts.drain.flush();
        let parts = self.parts.clone();
        let wait = async move {
            let (mut left, mut moved) = (parts.buffer.stats().rows, std::time::Instant::now());
            while left > 0 && std::time::Instant::now() < drain.deadline {
                // What outlives the process may wait for the next start, so a database that takes nothing does not hold up the stop.
                if parts.buffer.outlives_process() && moved.elapsed() > DURABLE_PATIENCE {
                    break;
                }
                tokio::time::sleep(DRAIN_LOOK).await;
                parts.drain.flush();
                let now_left = parts.buffer.stats().rows;
                if now_left < left {
                    moved = std::time::Instant::now();
                }
                left = now_left;
            }
            if left == 0 || parts.buffer.outlives_process() {
                // Nobody listens where the deadline has passed; the daemon looks at the buffer itself then.
                let _ = drain.done.send(());
            }
        };
        ctx.spawn(actix::fut::wrap_future(wait));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        buffer::{
            Attached, DrainOutcome, Frame, Gap, Position,
            drain::{DrainSettings, Observer, WriteFailed, Writer, outage::HealthChange},
            memory::MemoryBuffer,
        },
        domain::{
            batch::{Batch, BatchBuilder},
            breaker::CircuitState,
            reading::ReadingRef,
            receipt::StreamId,
        },
        ingest::admission::Admission,
        protocol::{Accepted, Refusal},
    };

    struct Always;

    impl Writer for Always {
        fn open(&mut self, _: StreamId) -> Result<Position, WriteFailed> {
            Ok(Position::default())
        }

        fn pass_over(&mut self, _: StreamId, gap: &Gap) -> Result<DrainOutcome, WriteFailed> {
            Ok(DrainOutcome::of_gap(gap))
        }

        fn write(&mut self, _: StreamId, frames: &[Frame]) -> Result<DrainOutcome, WriteFailed> {
            let rows = frames.iter().map(|frame| u64::from(frame.batch.len())).sum();
            let last_seq = frames.last().map_or(0, Frame::last_seq);
            Ok(DrainOutcome { first_seq: frames[0].first_seq, last_seq, stored: rows, ..Default::default() })
        }
    }

    #[derive(Default)]
    struct Sizes {
        stored: Mutex<Vec<u64>>,
        up: AtomicBool,
    }

    impl Observer for Sizes {
        fn alive(&self, _: usize) {}
        fn attached(&self, _: usize, _: StreamId, _: &Attached) {}
        fn medium_failed(&self, _: usize, _: u32, _: Duration, _: &std::io::Error) {}
        fn medium_silent(&self, _: usize, _: Duration) {}
        fn medium_works(&self, _: usize) {}
        fn circuit(&self, _: CircuitState, _: &str) {}
        fn settled(&self, outcome: &DrainOutcome, _: Duration) {
            self.stored.lock().expect("no panic here").push(outcome.stored);
        }
        fn health(&self, change: &HealthChange) {
            self.up.store(matches!(change, HealthChange::Up { .. }), Ordering::Release);
        }
    }

    fn batch(rows: u32) -> Batch {
        let mut builder = BatchBuilder::default();
        for n in 0..rows {
            let metrics = (Some(1.0), None, None, None);
            builder.push(&ReadingRef {
                engine_id: "e",
                observed_at_us: i64::from(n),
                status: None,
                temperature: metrics.0,
                rpm: metrics.1,
                pressure: metrics.2,
                fuel_flow: metrics.3,
                extra: None,
            });
        }
        builder.finish(0)
    }

    fn set_up(flush_interval: Duration) -> (Addr<BatchBufferActor>, Arc<MemoryBuffer>, Arc<Sizes>) {
        let buffer = Arc::new(MemoryBuffer::new(10_000, 1_000_000));
        let sizes = Arc::new(Sizes::default());
        let settings = DrainSettings { batch_rows: 100, breaker: crate::domain::breaker::BreakerSettings::STORE };
        let (drain, _) = DrainHandle::start(buffer.clone(), |_| Box::new(Always), sizes.clone(), settings).expect("a thread");
        let parts = Arc::new(BufferParts::new(buffer.clone(), drain, 100, flush_interval));
        (BatchBufferActor::new(parts).start(), buffer, sizes)
    }

    async fn append(addr: &Addr<BatchBufferActor>, rows: u32, ack: AckLevel) -> Accepted {
        let (reply, answer) = oneshot::channel::<Result<Accepted, Refusal>>();
        let permit = Admission::new(1).try_admit(1).expect("room");
        addr.send(Append { batch: batch(rows), ack, reply, alerts: None, permit }).await.expect("alive");
        answer.await.expect("answered").expect("taken")
    }

    async fn until(mut done: impl FnMut() -> bool) {
        for _ in 0..6_000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(done(), "not within 60 s");
    }

    #[actix::test]
    async fn a_full_batch_is_written_at_once_and_a_small_one_waits() {
        let (addr, buffer, sizes) = set_up(Duration::from_secs(60));
        // The drain's first look takes whatever is there.
        until(|| sizes.up.load(Ordering::Acquire)).await;
        append(&addr, 99, AckLevel::Memory).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(buffer.stats().rows, 99);
        append(&addr, 1, AckLevel::Memory).await;
        until(|| buffer.stats().rows == 0).await;
        assert_eq!(sizes.stored.lock().expect("no panic").iter().sum::<u64>(), 100);
    }

    #[actix::test]
    async fn a_small_batch_is_written_when_its_time_has_come() {
        let (addr, buffer, _) = set_up(Duration::from_millis(200));
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..3 {
            append(&addr, 1, AckLevel::Memory).await;
            until(|| buffer.stats().rows == 0).await;
        }
        assert_eq!(buffer.stats().account.stored, 3);
    }

    #[actix::test]
    async fn what_becomes_visible_behind_the_last_timer_is_written_too() {
        let buffer = Arc::new(MemoryBuffer::new(10_000, 1_000_000));
        let settings = DrainSettings { batch_rows: 100, breaker: crate::domain::breaker::BreakerSettings::STORE };
        let (drain, _) =
            DrainHandle::start(buffer.clone(), |_| Box::new(Always), Arc::new(Sizes::default()), settings).expect("a thread");
        let parts = Arc::new(BufferParts::new(buffer.clone(), drain, 100, Duration::from_millis(200)));
        let addr = BatchBufferActor::new(parts.clone()).start();
        // Its first look at an empty database is over.
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..2 {
            let (reply, _answer) = oneshot::channel();
            buffer.submit(batch(1), AckLevel::Memory, None, reply);
            assert!(parts.became_visible(1, false), "no timer runs");
            addr.send(Visible).await.expect("alive");
            assert!(!parts.became_visible(1, false), "one runs now");
            until(|| buffer.stats().rows == 0).await;
            until(|| !parts.armed.load(Ordering::SeqCst)).await;
        }
    }

    #[actix::test]
    async fn a_sender_that_waits_for_the_store_does_not_wait_for_the_timer() {
        let (addr, _, _) = set_up(Duration::from_secs(60));
        let upgrade = append(&addr, 1, AckLevel::Store).await.upgrade.expect("a waiter");
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), upgrade).await.expect("soon"), Ok(AckLevel::Store));
    }

    #[actix::test]
    async fn a_stop_writes_what_waits_and_takes_nothing_more() {
        let (addr, buffer, _) = set_up(Duration::from_secs(60));
        append(&addr, 7, AckLevel::Memory).await;
        let (done, finished) = oneshot::channel();
        addr.send(Drain { deadline: std::time::Instant::now() + Duration::from_secs(5), done }).await.expect("alive");
        finished.await.expect("everything is written");
        assert_eq!(buffer.stats().account.stored, 7);
    }
}
