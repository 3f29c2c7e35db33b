//! Two writers on one stream, as a copied directory makes them, with crashes at random moments: nothing is stored twice, the loser is told.

use std::sync::{
    Barrier,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use belayd::{
    buffer::{Frame, Position},
    domain::receipt::StreamId,
    store::{
        Backend, Store, StoreErrorKind, Writer,
        ledger::{self, Closing, close_stream, register_stream},
        readings::{self, store_frames},
    },
};
use diesel::{Connection, PgConnection, RunQueryDsl};

use super::{TestStore, chain, frame, on_both, reading};

on_both!(two_copies_of_a_directory_store_every_reading_once_whatever_dies);

const SHARED_FRAMES: u64 = 40;
const OWN_FRAMES: u64 = 60;
const ROWS: u64 = 5;

/// A small xorshift: the same seed, the same run, as far as two threads allow.
struct Dice(u64);

impl Dice {
    fn one_in(&mut self, n: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(n)
    }
}

/// A directory with its frames: the first are shared with its copy, the others are its own.
struct Directory {
    stream: StreamId,
    frames: Vec<Frame>,
    moved: u64,
}

impl Directory {
    fn new(stream: StreamId, salt: u64) -> Self {
        let mut frames: Vec<Frame> = Vec::new();
        for n in 0..SHARED_FRAMES + OWN_FRAMES {
            let own = n >= SHARED_FRAMES;
            let engine = if own { format!("own-{salt}") } else { "shared".to_owned() };
            let first = n * ROWS + 1;
            let readings: Vec<_> = (first..first + ROWS).map(|seq| reading(&engine, seq as i64, 1.0)).collect();
            let mut frame = frame(first, &readings);
            frame.chain_before = frames.last().map_or(0, |before| before.chain);
            frame.chain = chain(frame.last_seq()) ^ if own { salt } else { 0 };
            frames.push(frame);
        }
        Self { stream, frames, moved: 0 }
    }

    /// As the journal does: go on behind the frame that the database knows, or renumber what is left under a new stream.
    fn attach(&mut self, position: &Position) {
        let known = |frame: &Frame| frame.last_seq() == position.cursor_seq && frame.chain == position.cursor_chain;
        let first = self.frames.first().map(|frame| (frame.first_seq - 1, frame.chain_before));
        if let Some(at) = self.frames.iter().position(known) {
            self.frames.drain(..=at);
        } else if first.is_some_and(|first| first != (position.cursor_seq, position.cursor_chain)) {
            self.stream = StreamId::now_v7();
            let (mut seq, mut before) = (1, 0);
            for frame in &mut self.frames {
                (frame.first_seq, frame.chain_before) = (seq, before);
                (seq, before) = (frame.last_seq() + 1, chain(frame.last_seq()));
                frame.chain = before;
            }
        }
    }
}

/// Drains a directory until nothing is left; dies now and then, and forgets what it knew.
fn drain(store: &Store, mut directory: Directory, mut dice: Dice, together: &Barrier) -> u64 {
    together.wait();
    let mut writer: Writer = store.writer();
    'opening: loop {
        let before = directory.stream;
        let opened = writer.with(|conn| register_stream(conn, directory.stream, "journal", "copy", 1));
        let Ok(position) = opened else { continue };
        directory.attach(&position);
        if directory.stream != before {
            let _ = writer.with(|conn| close_stream(conn, before, Closing::Forked, 2));
            continue;
        }
        while !directory.frames.is_empty() {
            let count = if dice.one_in(2) { 1 } else { 3.min(directory.frames.len()) };
            let written = writer.with(|conn| store_frames(conn, directory.stream, &directory.frames[..count], 3));
            // The other one's turn.
            std::thread::sleep(std::time::Duration::from_micros(300));
            if dice.one_in(7) {
                // Dead before it heard the answer.
                writer = store.writer();
                continue 'opening;
            }
            match written {
                Ok(_) => drop(directory.frames.drain(..count)),
                Err(error) => {
                    assert!(error.kind == StoreErrorKind::Moved || error.is_transient(), "{error:?}");
                    directory.moved += u64::from(error.kind == StoreErrorKind::Moved);
                    continue 'opening;
                }
            }
        }
        return directory.moved;
    }
}

fn two_copies_of_a_directory_store_every_reading_once_whatever_dies(store: &TestStore) {
    let mut moved = 0;
    for round in 0..8_u64 {
        let stream = StreamId::now_v7();
        // A connection of its own each time: the pool's have been killed.
        let mut look = store.writer();
        look.with(|conn| readings::prune(conn, i64::MAX, 100_000)).expect("emptied");
        let totals_before = look.with(ledger::totals).expect("totals");
        let (done, losses, together) = (AtomicBool::new(false), AtomicU64::new(0), Barrier::new(2));
        std::thread::scope(|scope| {
            if store.backend() == Backend::Postgres {
                scope.spawn(|| {
                    let mut admin = PgConnection::establish(&store.url()).expect("an answer");
                    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                                WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1";
                    while !done.load(Relaxed) {
                        diesel::sql_query(kill).execute(&mut admin).expect("killed");
                        std::thread::sleep(std::time::Duration::from_millis(15));
                    }
                });
            }
            let writers = [1, 2].map(|salt| {
                let (directory, dice) = (Directory::new(stream, salt), Dice(0x9e37_79b9 + round * 17 + salt));
                let (losses, together) = (&losses, &together);
                scope.spawn(move || losses.fetch_add(drain(store, directory, dice, together), Relaxed))
            });
            for writer in writers {
                writer.join().expect("it drains to its end");
            }
            done.store(true, Relaxed);
        });
        moved += losses.load(Relaxed);
        let wanted = (SHARED_FRAMES + 2 * OWN_FRAMES) * ROWS;
        let mut look = store.writer();
        assert_eq!(look.with(readings::count).expect("a count"), wanted, "round {round}: each once");
        let totals = look.with(ledger::totals).expect("totals");
        assert_eq!(totals.stored - totals_before.stored, wanted, "round {round}: and counted once");
        assert_eq!((totals.conflict, totals.dead), (0, 0));
    }
    assert!(moved > 0, "the loser was told");
}
