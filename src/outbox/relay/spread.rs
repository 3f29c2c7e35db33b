//! Which partition an engine goes to, kept in memory: the number of partitions that held when the engine was first relayed stands in the
//! store, so that growth of the topic moves no engine.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    sinks::kafka::partition_of,
    store::{Conn, StoreResult, relay},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Spread {
    known: Mutex<HashMap<Box<str>, u32>>,
    max: usize,
}

impl Spread {
    pub(super) fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max: max.max(1_000) }
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Box<str>, u32>) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of `engines` that are not in mind.
    pub(super) fn unknown<'e>(&self, engines: impl Iterator<Item = &'e str>) -> Vec<&'e str> {
        self.with(|known| {
            let mut unknown: Vec<&str> = engines.filter(|engine| !known.contains_key(*engine)).collect();
            unknown.sort_unstable();
            unknown.dedup();
            unknown
        })
    }

    /// Looks `engines` up in the store, where they are remembered with `partitions` unless they are there.
    pub(super) fn learn(&self, conn: &mut Conn, topic: &str, engines: &[&str], partitions: u32) -> StoreResult<()> {
        let learnt = conn.write(|conn| relay::remember(conn, topic, engines, partitions))?;
        self.with(|known| {
            if known.len() + learnt.len() > self.max {
                // They are learnt again when they are needed.
                known.clear();
                known.shrink_to(self.max);
            }
            known.extend(learnt.into_iter().map(|(engine, partitions)| (engine.into_boxed_str(), partitions)));
        });
        Ok(())
    }

    /// The partition of an engine, of a topic with `partitions` now. A topic that was made anew with fewer cannot keep the engine's.
    pub(super) fn partition(&self, engine: &str, partitions: u32) -> u32 {
        let first = self.with(|known| known.get(engine).copied()).unwrap_or(partitions);
        partition_of(engine, first.clamp(1, partitions.max(1)))
    }
}
