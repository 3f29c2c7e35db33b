//! The scrub: older segments are read through one by one, so that damage is found while its readings can still be asked for again.
//!
//! In: the segments that are held. Out: damage, told as readers tell it. It runs on a thread of its own and in steps with pauses, because
//! one segment takes tens of milliseconds, on a slow disk seconds, and no push may wait behind it. What the disk does not give is asked
//! for again, [`TRIES`] times in all, before it counts as damage: it may be away for a moment. A crash loses the place: the next life
//! begins with the oldest segment.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{Shared, disk::Disk, scan::Found, tier::JournalObserver};

/// From the end of one segment to the beginning of the next.
const EVERY: Duration = Duration::from_secs(10);
/// Bytes that are read without a pause: about 0.1 ms of processor where they lie in memory.
const STEP_BYTES: u64 = 256 * 1024;
/// The pause: at most 50 MB/s are read, which leaves a disk to its syncs.
const PAUSE: Duration = Duration::from_millis(5);

/// How often a segment that cannot be read whole is begun with before its gaps are told as damage: for a minute.
const TRIES: u32 = 6;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Number of the last segment that was read through.
    done: u64,
    /// How often the next one was not given whole.
    tries: u32,
}

/// The thread. Dropped, it ends after the step at hand.
pub(super) struct Scrub {
    end: Arc<End>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The wish that it ends.
#[derive(Default)]
pub(super) struct End {
    wished: Mutex<bool>,
    wake: Condvar,
}

impl End {
    /// Waits for so long, or until the end is wished; whether it is.
    fn within(&self, pause: Duration) -> bool {
        let wished = self.wished.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(wished, pause, |wished| !*wished);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Scrub {
    /// Starts it.
    ///
    /// # Errors
    /// No thread could be had.
    pub(super) fn start<D: Disk>(shared: Arc<Shared<D>>, observer: Arc<dyn JournalObserver>) -> io::Result<Self> {
        Self::start_every(EVERY, shared, observer)
    }

    fn start_every<D: Disk>(every: Duration, shared: Arc<Shared<D>>, observer: Arc<dyn JournalObserver>) -> io::Result<Self> {
        let end = Arc::new(End::default());
        let wished = end.clone();
        let run = move || {
            let mut place = Place::default();
            while !wished.within(every) {
                next(&shared, &mut place, &wished);
                let damage = shared.take_damage();
                if !damage.is_empty() {
                    observer.damaged(&damage);
                }
            }
        };
        let thread = thread::Builder::new().name("journal-scrub".into()).spawn(run)?;
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        *self.end.wished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.end.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the oldest segment behind the place that is not being written; where there is none it begins again.
pub(super) fn next<D: Disk>(shared: &Shared<D>, place: &mut Place, end: &End) {
    let segments = shared.segments();
    let older = segments.split_last().map_or(&[][..], |(_, older)| older);
    let Some(number) = older.iter().copied().find(|number| *number > place.done) else {
        *place = Place::default();
        return;
    };
    let mut paused_at = 0;
    let seen = shared.look_through(number, place.tries + 1 < TRIES, &mut |found| {
        let at = match found {
            Found::Frame { offset, frame, .. } => offset + frame.extent(),
            Found::Bad(bad) => bad.offset + bad.bytes,
        };
        if at < paused_at + STEP_BYTES {
            return ControlFlow::Continue(());
        }
        paused_at = at;
        if end.within(PAUSE) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if seen.left {
        place.tries += 1;
    } else {
        *place = Place { done: number, tries: 0 };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Instant,
    };

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::buffer::journal::{Damage, Log, LogSettings, flat::FlatDisk, open, tier::Room};

    #[derive(Default)]
    struct Told(AtomicU64);

    impl JournalObserver for Told {
        fn alive(&self, _: u64) {}
        fn room(&self, _: Room) {}
        fn sync_failed(&self, _: &io::Error, _: u64, _: u64) {}
        fn damaged(&self, damage: &[Damage]) {
            self.0.fetch_add(damage.len() as u64, Ordering::Relaxed);
        }
    }

    const SETTINGS: LogSettings = LogSettings { segment_bytes: 1 << 20, total_bytes: 64 << 20 };

    /// Three segments of 1 MiB, with one flipped bit in the second.
    fn damaged() -> (FlatDisk, Log<FlatDisk>) {
        let disk = FlatDisk::default();
        let (mut log, _) = open(disk.clone(), SETTINGS, &mut Uuid::now_v7, 1).expect("it opens");
        for turn in 0..24_u8 {
            log.append(0, 1, 1, &[Bytes::from(vec![turn | 1; 100_000])]).expect("room");
            log.sync().expect("synced");
        }
        drop(log);
        let mut files = disk.content();
        files.get_mut("0000000002.seg").expect("there are three")[500_000] ^= 1;
        let disk = FlatDisk::with(&files);
        let (log, recovered) = open(disk.clone(), SETTINGS, &mut Uuid::now_v7, 1).expect("it opens");
        assert!(recovered.damage.is_empty() && recovered.segments >= 3, "{recovered:?}");
        (disk, log)
    }

    #[test]
    fn damage_in_an_older_segment_is_told_once_without_anybody_reading_it() {
        let (_disk, log) = damaged();
        let told = Arc::new(Told::default());
        let _scrub = Scrub::start_every(Duration::from_millis(1), log.shared(), told.clone()).expect("a thread");
        let until = Instant::now() + Duration::from_secs(60);
        while told.0.load(Ordering::Relaxed) == 0 {
            assert!(Instant::now() < until, "nothing is told");
            thread::sleep(Duration::from_millis(5));
        }
        drop(_scrub);
        assert_eq!(told.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn whoever_ends_it_waits_for_a_step_and_not_for_a_segment() {
        let (_disk, log) = damaged();
        let end = End { wished: Mutex::new(true), wake: Condvar::new() };
        let mut seen = 0;
        let shared = log.shared();
        // The same walk as in `next`, with the wish there from the beginning: it goes no further than a step and the frame that ends it.
        let mut place = Place::default();
        next(&shared, &mut place, &end);
        assert_eq!(place.done, 1);
        shared.scrub_with(1, &mut |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(seen, 3, "it ends where it is told to");
        next(&shared, &mut place, &end);
        assert_eq!(place.done, 2);
        assert!(shared.take_damage().is_empty(), "the damage lies behind the first step");
    }
}
