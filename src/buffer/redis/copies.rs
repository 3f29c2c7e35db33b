//! The books of copies: streams of the journal that Redis has as well (tier triple).
//!
//! In: what the copier has put into Redis, what the database has taken, what the relay has sent. Out: what of it may go. A crash loses these
//! books; Redis says again how far it has each stream.

use std::time::Instant;

use super::{
    audit::Extent,
    chunks::{Chunks, Reached, Trim},
};
use crate::domain::receipt::StreamId;

/// One copy.
#[derive(Debug)]
struct Copy {
    stream: StreamId,
    /// First number that is still there, as far as this process knows.
    first: u64,
    /// Last number.
    end: u64,
    settled: u64,
    relayed: u64,
    /// Whether the database was asked how far it is relayed.
    asked: bool,
    /// Up to here Redis had nothing of it when it was begun, and the journal no more.
    lacks: u64,
    chunks: Chunks,
}

impl Copy {
    fn reached(&self) -> Reached {
        Reached { settled: self.settled, relayed: self.relayed, asked: self.asked }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::buffer) struct Copies(Vec<Copy>);

impl Copies {
    fn of(&mut self, stream: StreamId) -> Option<&mut Copy> {
        self.0.iter_mut().find(|copy| copy.stream == stream)
    }

    /// Redis has `stream` from `first` to `end`, in about so many bytes. What was known of it before is forgotten, but for what the
    /// database has.
    pub(in crate::buffer) fn found(&mut self, stream: StreamId, first: u64, end: u64, bytes: u64) {
        let (settled, relayed, asked, lacks) =
            self.of(stream).map_or((0, 0, false, 0), |copy| (copy.settled, copy.relayed, copy.asked, copy.lacks));
        self.forget(stream);
        self.0.push(Copy { stream, first, end, settled, relayed, asked, lacks, chunks: Chunks::found(end, bytes) });
    }

    /// There was no such stream in Redis when this process looked for the first time: what it holds begins behind `lacks`.
    pub(in crate::buffer) fn began_behind(&mut self, stream: StreamId, lacks: u64) {
        if let Some(copy) = self.of(stream) {
            copy.lacks = lacks;
        }
    }

    /// This process has asked Redis for it before.
    pub(in crate::buffer) fn knows(&self, stream: StreamId) -> bool {
        self.0.iter().any(|copy| copy.stream == stream)
    }

    /// The stream is none of the journal's any more.
    pub(in crate::buffer) fn forget(&mut self, stream: StreamId) {
        self.0.retain(|copy| copy.stream != stream);
    }

    /// First and last number that Redis has of `stream`.
    pub(in crate::buffer) fn span(&self, stream: StreamId) -> Option<(u64, u64)> {
        let copy = self.0.iter().find(|copy| copy.stream == stream)?;
        (copy.first <= copy.end).then_some((copy.first, copy.end))
    }

    pub(super) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.0.iter().map(|copy| copy.stream)
    }

    pub(super) fn extent(&self, stream: StreamId) -> Option<Extent> {
        let copy = self.0.iter().find(|copy| copy.stream == stream)?;
        Some(Extent { first: copy.first, end: copy.end, settled: copy.settled, lacks: copy.lacks, copy: true })
    }

    /// Redis has taken everything up to `end`.
    pub(in crate::buffer) fn taken(&mut self, stream: StreamId, end: u64, bytes: u64) {
        if let Some(copy) = self.of(stream) {
            copy.end = end;
            copy.chunks.take(end, bytes, Instant::now());
        }
    }

    /// The database has everything up to `settled`, and not more.
    pub(in crate::buffer) fn settled(&mut self, stream: StreamId, settled: u64) {
        if let Some(copy) = self.of(stream) {
            copy.settled = settled;
            copy.relayed = copy.relayed.min(settled);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|copy| copy.chunks.bytes()).sum()
    }

    pub(super) fn unrelayed(&self) -> impl Iterator<Item = (StreamId, u64)> {
        self.0.iter().filter(|copy| copy.relayed < copy.settled).map(|copy| (copy.stream, copy.settled))
    }

    pub(super) fn relayed(&mut self, stream: StreamId, last_seq: u64) {
        if let Some(copy) = self.of(stream) {
            (copy.relayed, copy.asked) = (last_seq, true);
        }
    }

    /// Whether what would go next of any is for certain not relayed.
    pub(super) fn begin_unrelayed(&self) -> bool {
        self.0.iter().any(|copy| copy.chunks.begins_unrelayed(copy.reached()))
    }

    pub(super) fn trim(&mut self, trim: &mut Trim) -> Vec<(StreamId, u64)> {
        let mut cuts = Vec::new();
        for copy in &mut self.0 {
            if let Some(first) = copy.chunks.trim(copy.reached(), trim) {
                copy.first = copy.first.max(first);
                cuts.push((copy.stream, first));
            }
        }
        cuts
    }
}
