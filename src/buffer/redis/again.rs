//! Reads from Redis beside the lanes: for the integrity check, and to fill what another medium lacks.
//!
//! In: numbers of a stream. Out: the frames that Redis has of them. Nothing is changed, and a crash loses nothing. Each call has a connection
//! of its own, which is rare enough.

use redis::cmd;

use super::{
    core::Core,
    entry::{Entry, entries},
    link::{Link, LinkError},
};
use crate::{buffer::Frame, domain::receipt::StreamId};

/// Entries that are asked for at once.
const COUNT: u32 = 64;

impl Core {
    /// First and last number of `stream` in Redis; `None` where it has none of it, or cannot be read now.
    pub(in crate::buffer) fn span(&self, stream: StreamId) -> Result<Option<(u64, u64)>, LinkError> {
        if !self.is_readable() {
            return Ok(None);
        }
        let key = self.keys.stream(stream);
        let mut link = self.settings.server.connect(&key)?;
        let first = entries(link.ask(cmd("XRANGE").arg(&key).arg("-").arg("+").arg("COUNT").arg(1))?);
        let newest = entries(link.ask(cmd("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(2))?);
        let newest = newest.iter().find(|entry| !matches!(entry, Entry::Seal)).map(Entry::last_seq);
        let first = first.first().filter(|entry| !matches!(entry, Entry::Seal)).map(Entry::first_seq);
        Ok(first.zip(newest))
    }

    /// The whole frames of `stream` that have a number from `first` to `last`.
    pub(in crate::buffer) fn read_range(&self, stream: StreamId, first: u64, last: u64) -> Result<Vec<Frame>, LinkError> {
        if !self.is_readable() {
            return Ok(Vec::new());
        }
        let key = self.keys.stream(stream);
        let mut link = self.settings.server.connect(&key)?;
        let (mut frames, mut from) = (Vec::new(), first);
        while from <= last {
            let page = entries_from(&mut link, &key, from, COUNT)?;
            let full = page.len() == COUNT as usize;
            for entry in page {
                if entry.first_seq() > last {
                    return Ok(frames);
                }
                from = entry.last_seq().saturating_add(1);
                if let Entry::Whole(frame) = entry {
                    frames.push(frame);
                }
            }
            if !full {
                break;
            }
        }
        Ok(frames)
    }
}

/// Entries of a stream with the number `from` and behind, in order, at most `count`, without the seal.
pub(in crate::buffer) fn entries_from(link: &mut Link, key: &str, from: u64, count: u32) -> Result<Vec<Entry>, LinkError> {
    // An id is the last number of its entry.
    let answer = link.ask(cmd("XRANGE").arg(key).arg(format!("{from}-0")).arg("+").arg("COUNT").arg(count))?;
    Ok(entries(answer).into_iter().filter(|entry| !matches!(entry, Entry::Seal)).collect())
}

/// The numbers from `first` to `last` that no frame has; `frames` are in order.
pub(super) fn missing(frames: &[Frame], first: u64, last: u64) -> Vec<(u64, u64)> {
    let (mut missing, mut next) = (Vec::new(), first);
    for frame in frames {
        if frame.first_seq > next {
            missing.push((next, (frame.first_seq - 1).min(last)));
        }
        next = next.max(frame.last_seq() + 1);
    }
    if next <= last {
        missing.push((next, last));
    }
    missing
}
