//! Walks through the frames of a segment file, over damage to the next good frame.
//!
//! In: an open file, the seed of its segment, from where and to where. Out: frames that are whole, and stretches that are not, with
//! what can still be said about them. A block that cannot be read is damage of that block. It writes nothing; a crash loses nothing.
//!
//! A disk may take many seconds to refuse a block. So a block that was refused is not asked for again until the caller says so, what is
//! only read ahead is never insisted upon, and a caller that would rather come again has no second block asked for in the same step.

use std::{collections::BTreeSet, io};

use super::{
    disk::DiskFile,
    frame::{ALIGN, EDGE, FOOT, Frame, HEAD, empty_pieces, foot_payload, padding, place, u64_at},
};

/// What is read at once.
const WINDOW: usize = 256 * 1024;
/// What is given up at once where the disk cannot read.
const UNREADABLE: u64 = 4096;
/// Stands for bytes that could not be read; no magic contains it and it is not empty.
const FILLER: u8 = 0xee;

/// From the magic in a footer, which has the least behind it, to the end of the frame.
const MAGIC_TO_END: u64 = EDGE as u64 - 16;

/// Something in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A frame that is whole, or of another lane and not looked into.
    Frame {
        /// Where it begins.
        offset: u64,
        /// What it says.
        frame: Frame,
        /// Whether header or footer was damaged (not only cut short); the payload is whole.
        repaired: bool,
    },
    /// No frame stands here.
    Bad(Bad),
}

/// A stretch without a good frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where it begins.
    pub offset: u64,
    /// Its length. Up to the next good frame, the end of the damaged one where that is known, or the end.
    pub bytes: u64,
    /// What a whole header or footer in it says of the damaged frame.
    pub frame: Option<Frame>,
}

/// See the module.
#[derive(Debug)]
pub struct Scanner<F> {
    file: F,
    seed: u64,
    /// Where the next frame is expected.
    offset: u64,
    /// Nothing is read from here on.
    end: u64,
    /// Bytes of the file from `base` on.
    window: Vec<u8>,
    base: u64,
    /// Bytes read from the file so far.
    pub read_bytes: u64,
    /// Pieces of [`UNREADABLE`] bytes that could not be read. Whoever must not take that for damage looks here after each step.
    pub unreadable: u64,
    /// What the disk said last instead of giving bytes.
    pub said: Option<io::Error>,
    /// Numbers of the blocks that were refused: at most those of one segment.
    refused: BTreeSet<u64>,
    /// Whoever asks comes again: see [`Scanner::be_brief`].
    brief: bool,
    /// A block was refused in this step.
    refused_now: bool,
}

impl<F: DiskFile> Scanner<F> {
    /// From `offset` to `end`.
    pub fn new(file: F, seed: u64, offset: u64, end: u64) -> Self {
        let (window, refused) = (Vec::new(), BTreeSet::new());
        Self {
            file,
            seed,
            offset,
            end,
            window,
            base: 0,
            read_bytes: 0,
            unreadable: 0,
            said: None,
            refused,
            brief: false,
            refused_now: false,
        }
    }

    /// Whether a step ends with the first block that is refused: what else it needs is not asked for, and stands there as if it could not be
    /// read either. For whoever will not take it for damage yet.
    pub fn be_brief(&mut self, brief: bool) {
        self.brief = brief;
    }

    /// Where the next frame is expected.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes on at another frame's beginning.
    pub fn seek(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Everything is read again, from `offset` on.
    pub fn restart(&mut self, offset: u64) {
        self.window.clear();
        self.offset = offset;
    }

    /// What was refused may be there now: it is asked for again.
    pub fn forget_refusals(&mut self) {
        self.refused.clear();
    }

    /// More may be read now. What is held lies before the old end and stays true.
    pub fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// The file.
    pub fn file(&self) -> &F {
        &self.file
    }

    /// The bytes of a part of the file, fewer where it ends. They are valid until the next call.
    pub fn bytes(&mut self, offset: u64, len: usize) -> &[u8] {
        let len = (self.end.saturating_sub(offset)).min(len as u64) as usize;
        let held = offset >= self.base && offset + len as u64 <= self.base + self.window.len() as u64;
        if !held {
            self.fill(offset, len);
        }
        let from = (offset - self.base) as usize;
        &self.window[from.min(self.window.len())..(from + len).min(self.window.len())]
    }

    /// The payload of a frame at `offset`.
    pub fn payload(&mut self, offset: u64, frame: &Frame) -> &[u8] {
        self.bytes(offset + frame.payload_at() as u64, frame.payload as usize)
    }

    /// The next thing, or `None` at the end. Where `only` names a lane, the payloads of the others are not looked into.
    pub fn step(&mut self, only: Option<u8>) -> Option<Found> {
        self.refused_now = false;
        if self.offset + 2 * EDGE as u64 > self.end {
            return self.rest();
        }
        let (offset, seed) = (self.offset, place(self.seed, self.offset));
        let Some(frame) = Frame::from_head(self.bytes(offset, EDGE), seed) else { return self.resync() };
        let next = offset + frame.extent();
        if next > self.end {
            // The file was cut; the header is whole, and says what is missing.
            self.offset = self.end;
            return Some(Found::Bad(Bad { offset, bytes: self.end - offset, frame: Some(frame) }));
        }
        self.offset = next;
        if only.is_some_and(|lane| lane != frame.lane) {
            return Some(Found::Frame { offset, frame, repaired: false });
        }
        let whole = self.bytes(offset, frame.extent() as usize);
        let foot = whole.len() - EDGE;
        let holds = frame.holds(&whole[frame.payload_at()..foot]);
        let repaired = holds && Frame::from_foot(&whole[foot..], seed) != Some(frame) && all_there(whole, offset, &frame);
        Some(if holds {
            Found::Frame { offset, frame, repaired }
        } else {
            Found::Bad(Bad { offset, bytes: next - offset, frame: Some(frame) })
        })
    }

    /// Too little is left for a frame: damage, where it is not empty.
    fn rest(&mut self) -> Option<Found> {
        let (offset, len) = (self.offset, self.end.saturating_sub(self.offset));
        self.offset = self.end;
        let empty = self.bytes(offset, len as usize).iter().all(|byte| *byte == 0);
        (!empty).then_some(Found::Bad(Bad { offset, bytes: len, frame: None }))
    }

    /// The next place at which a header or a footer is whole; nothing before it is a frame.
    fn resync(&mut self) -> Option<Found> {
        let from = self.offset;
        let mut at = from;
        let mut empty = true;
        while at + MAGIC_TO_END <= self.end {
            let held = at >= self.base && at + MAGIC_TO_END <= self.base + self.window.len() as u64;
            if !held {
                let data = self.file.next_data(at).min(self.end);
                if data >= at + ALIGN as u64 {
                    // A hole in the file reads as zeros.
                    at = data - (data - from) % ALIGN as u64;
                    continue;
                }
                self.fill(at, MAGIC_TO_END as usize);
                if at + MAGIC_TO_END > self.base + self.window.len() as u64 {
                    break;
                }
            }
            // Word by word through what is held.
            let start = (at - self.base) as usize;
            let stop = self.window.len() + 1 - MAGIC_TO_END as usize;
            let mut hit = None;
            for (index, word) in self.window[start..].chunks_exact(ALIGN).enumerate() {
                let place = start + index * ALIGN;
                if place >= stop {
                    break;
                }
                let value = u64_at(word, 0);
                empty &= value == 0;
                if value == HEAD || (value == FOOT && self.base + place as u64 >= from + 16) {
                    hit = Some(place);
                    break;
                }
            }
            let Some(hit) = hit else {
                // The last bytes may begin a footer whose magic is yet to come.
                let scanned = (stop - start).next_multiple_of(ALIGN);
                at += scanned as u64;
                continue;
            };
            let hit_at = self.base + hit as u64;
            if let Some(found) = self.examine(from, hit_at) {
                return Some(found);
            }
            // `examine` may have moved the window.
            at = hit_at + ALIGN as u64;
        }
        let tail = self.end.saturating_sub(at.min(self.end));
        empty &= self.bytes(self.end - tail, tail as usize).iter().all(|byte| *byte == 0);
        self.offset = self.end;
        (!empty).then(|| Found::Bad(Bad { offset: from, bytes: self.end - from, frame: None }))
    }

    /// A magic stands at `at`. Whether it belongs to a frame that begins at or behind `from`.
    fn examine(&mut self, from: u64, at: u64) -> Option<Found> {
        let seed = self.seed;
        if Frame::from_head(self.bytes(at, EDGE), place(seed, at)).is_some() {
            self.offset = at;
            return Some(Found::Bad(Bad { offset: from, bytes: at - from, frame: None })).filter(|_| at > from);
        }
        let foot_at = at.checked_sub(16)?;
        let len = foot_payload(self.bytes(foot_at, EDGE))?;
        let begin = foot_at.checked_sub((EDGE + padding(len) + len) as u64).filter(|begin| *begin >= from)?;
        let frame = Frame::from_foot(self.bytes(foot_at, EDGE), place(seed, begin))?;
        let holds = frame.holds(self.bytes(begin + frame.payload_at() as u64, len));
        let next = foot_at + EDGE as u64;
        if begin > from {
            // First the stretch before it; it is found again from its own beginning.
            self.offset = begin;
            return Some(Found::Bad(Bad { offset: from, bytes: begin - from, frame: None }));
        }
        self.offset = next;
        let repaired = all_there(self.bytes(begin, frame.extent() as usize), begin, &frame);
        Some(if holds {
            Found::Frame { offset: begin, frame, repaired }
        } else {
            Found::Bad(Bad { offset: begin, bytes: next - begin, frame: Some(frame) })
        })
    }

    /// Holds at least `len` bytes from `offset` on, where the file has them.
    fn fill(&mut self, offset: u64, len: usize) {
        let left = self.end.saturating_sub(offset);
        let (need, want) = (left.min(len as u64) as usize, left.min(len.max(WINDOW) as u64) as usize);
        let held = offset.checked_sub(self.base).filter(|skip| *skip < self.window.len() as u64);
        let mut done = 0;
        if let Some(skip) = held {
            // What is held already is not read again.
            self.window.copy_within(skip as usize.., 0);
            done = (self.window.len() - skip as usize).min(want);
        }
        self.base = offset;
        self.window.resize(want, 0);
        if self.window.capacity() > 4 * WINDOW && want <= WINDOW {
            // One large frame need not be paid for ever.
            self.window.shrink_to(WINDOW);
        }
        while done < want {
            let block = (offset + done as u64) / UNREADABLE;
            if self.refused.contains(&block) || self.brief && self.refused_now {
                if done >= need {
                    break;
                }
                done = self.stand_in(offset, done);
                continue;
            }
            // Up to the next of which it is known that it is refused.
            let next = self.refused.range(block..).next().map_or(want as u64, |next| next * UNREADABLE - offset);
            let stop = want.min(next as usize);
            match self.file.read_at(&mut self.window[done..stop], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => {
                    done += read;
                    self.read_bytes += read as u64;
                }
                Err(_) if done >= need => break,
                Err(_) => done = self.block_by_block(offset, done),
            }
        }
        self.window.truncate(done);
    }

    /// Where the block ends that `done` lies in, as a place in the window.
    fn end_of_block(&self, offset: u64, done: usize) -> usize {
        let at = offset + done as u64;
        ((at / UNREADABLE + 1) * UNREADABLE - offset).min(self.window.len() as u64) as usize
    }

    /// Filler up to the end of the block; returns how far that went.
    fn stand_in(&mut self, offset: u64, done: usize) -> usize {
        let stop = self.end_of_block(offset, done);
        self.window[done..stop].fill(FILLER);
        self.unreadable += 1;
        stop
    }

    /// The disk could not read all of it: what it can, and filler for the rest. Returns how far that went: one block.
    fn block_by_block(&mut self, offset: u64, done: usize) -> usize {
        let at = offset + done as u64;
        let stop = self.end_of_block(offset, done);
        let block = &mut self.window[done..stop];
        // Once more, because a time-out of the disk is no damage.
        match self.file.read_at(block, at) {
            Ok(read) if read > 0 => {
                self.read_bytes += read as u64;
                done + read
            }
            Ok(_) => stop,
            Err(error) => {
                self.said = Some(error);
                self.refused.insert(at / UNREADABLE);
                self.refused_now = true;
                self.stand_in(offset, done)
            }
        }
    }
}

/// Whether every piece of a frame was written. One whose payload was, and of whose header or footer a crash kept a part back, is as
/// good as any: that is no damage.
fn all_there(bytes: &[u8], offset: u64, frame: &Frame) -> bool {
    empty_pieces(bytes, offset) <= u64::from(frame.empty)
}

/// Reads all of `bytes.len()` bytes, or as many as the file has.
pub fn read_full<F: DiskFile>(file: &F, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
