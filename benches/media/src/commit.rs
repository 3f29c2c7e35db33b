//! Group commit as the daemon does it: one thread commits what has come in the meantime, everybody who waits is told.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::{BACKLOG_BYTES, READING_BYTES, media::Medium};

/// Most bytes of one commit.
const COMMIT_BYTES: usize = 1 << 20;

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) readings: u64,
    pub(crate) commits: u64,
    pub(crate) took: Duration,
    /// Microseconds from push to acknowledgement.
    pub(crate) latency: Histogram<u64>,
}

/// Bytes that look like `rows` readings: names repeat, the low bytes of numbers do not. Each `seed` gives others, since a library that
/// compresses would make little of pushes that are all the same.
pub(crate) fn payload(rows: usize, seed: u64) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * seed + 1);
    let byte = |at: usize| {
        if at % READING_BYTES < 24 {
            b"engine-00042 ok engine-0"[at % READING_BYTES]
        } else {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        }
    };
    (0..rows * READING_BYTES).map(byte).collect()
}

struct Waiting {
    blob: Bytes,
    rows: u32,
    thread: Thread,
    done: Arc<AtomicBool>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    came: Condvar,
    stop: AtomicBool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `waiters` threads push `push` readings each and wait, again and again, for `length`.
pub(crate) fn run(medium: Box<dyn Medium>, waiters: usize, push: usize, length: Duration) -> Outcome {
    let queue = Arc::new(Queue::default());
    let committer = {
        let queue = queue.clone();
        thread::spawn(move || commit_all(medium, &queue))
    };
    let started = Instant::now();
    let senders: Vec<_> = (0..waiters)
        .map(|sender| {
            let queue = queue.clone();
            thread::spawn(move || send_all(&queue, &payload(push, sender as u64), push as u32, started + length))
        })
        .collect();
    let mut latency = histogram();
    for sender in senders {
        latency.add(sender.join().expect("a sender failed")).expect("same digits");
    }
    let took = started.elapsed();
    queue.stop.store(true, Ordering::Release);
    drop(queue.lock());
    queue.came.notify_one();
    let (readings, commits) = committer.join().expect("the medium failed");
    Outcome { readings, commits, took, latency }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("three digits up to a minute are allowed")
}

fn send_all(queue: &Queue, blob: &Bytes, rows: u32, until: Instant) -> Histogram<u64> {
    let done = Arc::new(AtomicBool::new(false));
    let mut latency = histogram();
    loop {
        let begin = Instant::now();
        if begin >= until {
            return latency;
        }
        done.store(false, Ordering::Relaxed);
        let waiting = Waiting { blob: blob.clone(), rows, thread: thread::current(), done: done.clone() };
        queue.lock().push(waiting);
        queue.came.notify_one();
        while !done.load(Ordering::Acquire) {
            thread::park();
        }
        latency.saturating_record(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

fn commit_all(mut medium: Box<dyn Medium>, queue: &Queue) -> (u64, u64) {
    let (mut next_seq, mut commits) = (medium.next_seq(), 0);
    let first = next_seq;
    let mut group: Vec<Waiting> = Vec::new();
    loop {
        let mut waiting = queue.lock();
        while waiting.is_empty() {
            if queue.stop.load(Ordering::Acquire) {
                return (next_seq - first, commits);
            }
            waiting = queue.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let fits = waiting.iter().position(|one| {
            bytes += one.blob.len();
            bytes > COMMIT_BYTES
        });
        let count = fits.unwrap_or(waiting.len()).max(1);
        group.extend(waiting.drain(..count));
        drop(waiting);
        let blobs: Vec<_> = group.iter().map(|one| one.blob.clone()).collect();
        let rows: u32 = group.iter().map(|one| one.rows).sum();
        let keep_from = next_seq.saturating_sub(BACKLOG_BYTES / READING_BYTES as u64);
        medium.commit(next_seq, rows, &blobs, keep_from).expect("the disk takes it");
        next_seq += u64::from(rows);
        commits += 1;
        for one in group.drain(..) {
            one.done.store(true, Ordering::Release);
            one.thread.unpark();
        }
    }
}
