//! What Redis holds of each stream that is known here, compared with the books: numbers without holes, from the first that must be there to
//! the last that was acknowledged or copied, each entry whole.
//!
//! In: entries, a page at a time, over a connection of its own. Out: numbers that are missing, and for copies the order to make one anew.
//! Appending, draining and trimming go on meanwhile: what the books say is asked after what Redis said, and a hole counts once a second look
//! finds it beside the entry before it. A crash loses the place.

use std::sync::Arc;

use super::{
    again::entries_from,
    core::{Core, lock},
    entry::Entry,
    link::{Link, LinkError},
};
use crate::{
    buffer::audit::{Absent, Audit, Audited},
    domain::receipt::StreamId,
};

/// Entries of one page.
const PAGE: u32 = 16;

/// What Redis must have of a stream, as the books say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// From here on: the first that was not trimmed; behind `end` where nothing must be there.
    pub(super) first: u64,
    /// The last number that was acknowledged, or copied.
    pub(super) end: u64,
    /// The last number that the database has.
    pub(super) settled: u64,
    /// Up to here the copy was gone when this process began, and the journal could not make it anew.
    pub(super) lacks: u64,
    /// It is a copy of what the journal numbers.
    pub(super) copy: bool,
}

/// What copies are made from (tier triple).
pub(in crate::buffer) trait Origin: Send + Sync {
    /// The last number that it has given in `stream`; `None` where the stream is none of its own.
    fn end(&self, stream: StreamId) -> Option<u64>;

    /// Has the copy of `stream`, which begins with `first` and lacks `missing`, made anew. `false` where it does not hold all of it any more.
    fn copy_anew(&self, stream: StreamId, first: u64, missing: u64) -> bool;
}

/// A stream on its way through.
struct Walk {
    stream: StreamId,
    /// `None` once it has rested: nobody keeps an idle connection open for an hour.
    link: Option<Link>,
    /// Its first entry's first number.
    first: Option<u64>,
    /// The number that comes next.
    next: u64,
    /// The last number that must be there, as it was at the beginning.
    end: u64,
}

/// See the module.
pub(in crate::buffer) struct RedisAudit {
    core: Arc<Core>,
    origin: Option<Arc<dyn Origin>>,
    todo: Vec<StreamId>,
    walk: Option<Walk>,
    found: Audited,
}

impl RedisAudit {
    pub(in crate::buffer) fn begin(core: Arc<Core>, origin: Option<Arc<dyn Origin>>) -> Self {
        let todo = lock(&core.books).in_redis();
        Self { core, origin, todo, walk: None, found: Audited::default() }
    }

    fn extent(&self, stream: StreamId) -> Option<Extent> {
        lock(&self.core.books).extent(stream)
    }

    /// One page of a stream. Returns whether there is more of it.
    fn page(&mut self, walk: &mut Walk) -> Result<bool, LinkError> {
        let key = self.core.keys.stream(walk.stream);
        let Some(link) = &mut walk.link else { return Ok(true) };
        let page = entries_from(link, &key, walk.next, PAGE)?;
        let full = page.len() == PAGE as usize;
        for entry in page {
            let (damaged, last) = (matches!(entry, Entry::Damaged { .. }), entry.last_seq());
            let first = if damaged && walk.first.is_some() { walk.next.min(last) } else { entry.first_seq() };
            let whole = match walk.first {
                None => {
                    walk.first = Some(first);
                    let from = self.extent(walk.stream).filter(|extent| extent.first < first && extent.first <= extent.end);
                    from.is_none_or(|extent| self.absent(walk, extent.first, extent.end.min(first - 1)))
                }
                Some(_) if first > walk.next => match self.hole(walk, &key)? {
                    Some((from, to)) => self.absent(walk, from, to),
                    None => true,
                },
                Some(_) => {
                    self.found.astray += walk.next.saturating_sub(first);
                    true
                }
            };
            if !whole || (damaged && !self.absent(walk, first, last)) {
                // Its copy is made anew.
                return Ok(false);
            }
            if let Entry::Whole(frame) = &entry {
                self.found.readings += u64::from(frame.batch.len());
            }
            walk.next = last.saturating_add(1);
        }
        // What has come since the beginning is not waited for: a stream that is written to would have no end.
        let over = walk.end > 0 && walk.next > walk.end;
        if !full || over {
            self.end(walk, &key)?;
        }
        Ok(full && !over)
    }

    /// The numbers that are missing between the last entry that was read and the one behind it, as Redis says now; `None` where there are
    /// none, or where that entry was trimmed meanwhile.
    fn hole(&self, walk: &mut Walk, key: &str) -> Result<Option<(u64, u64)>, LinkError> {
        let Some(link) = &mut walk.link else { return Ok(None) };
        let pair = entries_from(link, key, walk.next - 1, 2)?;
        if pair.first().is_none_or(|entry| entry.last_seq() != walk.next - 1) {
            return Ok(None);
        }
        let last = pair.get(1).map_or(walk.end, |entry| entry.first_seq().saturating_sub(1));
        Ok((last >= walk.next).then_some((walk.next, last)))
    }

    /// Whether what was acknowledged or copied last is there.
    fn end(&mut self, walk: &mut Walk, key: &str) -> Result<(), LinkError> {
        let Some(extent) = self.extent(walk.stream) else { return Ok(()) };
        // A copy that is being made anew has not come so far.
        walk.end = walk.end.min(extent.end);
        let missing = match walk.first {
            Some(_) if walk.next > walk.end => None,
            Some(_) => self.hole(walk, key)?,
            None => (extent.first <= walk.end).then_some((extent.first, walk.end)),
        };
        if let Some((first, last)) = missing {
            self.absent(walk, first, last);
        }
        let given = self.origin.as_ref().filter(|_| extent.copy).and_then(|origin| origin.end(walk.stream));
        // A copy without an entry has no number at all.
        self.found.astray += given.map_or(0, |given| walk.next.saturating_sub(given.saturating_add(1)));
        Ok(())
    }

    /// Numbers are not there. `false`: the copy is made anew.
    fn absent(&mut self, walk: &Walk, first: u64, last: u64) -> bool {
        let extent = self.extent(walk.stream);
        if let (Some(extent), Some(origin)) = (extent.filter(|extent| extent.copy), &self.origin) {
            let begins = walk.first.unwrap_or(first).min(first);
            if origin.copy_anew(walk.stream, begins, first) {
                self.found.copied_again += (extent.end + 1).saturating_sub(begins);
                return false;
            }
        }
        let waiting =
            extent.filter(|extent| !extent.copy).map_or(0, |extent| (last + 1).saturating_sub(first.max(extent.settled + 1)));
        self.found.add(Absent { stream: walk.stream, first, last, waiting, whole: walk.first.is_none() });
        true
    }

    fn begin_walk(&mut self, stream: StreamId) -> Result<Walk, LinkError> {
        let extent = self.extent(stream);
        let end = extent.map_or(0, |extent| extent.end);
        let link = Some(self.connect(stream)?);
        self.found.streams += 1;
        if let Some(last) = extent.map(|extent| extent.lacks).filter(|lacks| *lacks > 0) {
            self.found.add(Absent { stream, first: 1, last, waiting: 0, whole: true });
        }
        Ok(Walk { stream, link, first: None, next: 0, end })
    }

    fn connect(&self, stream: StreamId) -> Result<Link, LinkError> {
        self.core.settings.server.connect(&self.core.keys.stream(stream))
    }

    fn slice(&mut self) -> Result<bool, LinkError> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => match self.todo.pop() {
                Some(stream) => self.begin_walk(stream)?,
                None => return Ok(false),
            },
        };
        if walk.link.is_none() {
            walk.link = Some(self.connect(walk.stream)?);
        }
        if self.page(&mut walk)? {
            self.walk = Some(walk);
        }
        Ok(true)
    }
}

impl Audit for RedisAudit {
    fn step(&mut self) -> Result<Option<Audited>, String> {
        if !self.core.is_readable() {
            return Err("Redis cannot be read now".to_owned());
        }
        match self.slice() {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(std::mem::take(&mut self.found))),
            Err(cause) => Err(cause.message),
        }
    }

    fn rest(&mut self) {
        if let Some(walk) = &mut self.walk {
            walk.link = None;
        }
    }

    fn readings(&self) -> u64 {
        self.found.readings
    }
}
