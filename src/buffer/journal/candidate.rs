//! The files that may be segments, before anything is made of them.
//!
//! In: the directory. Out: everything that has a segment's name, with its header; what is of another log, of a newer version, or there
//! twice is set aside. A crash loses nothing: files only change their names.

use std::io;

use super::{
    disk::{Disk, DiskFile, QUARANTINE},
    patience::{Patience, PatientFile, is_of_the_medium},
    quarantine,
    scan::{Found, Scanner, read_full},
    segment::{BLOCK, Block, FRAMES_AT, Header, Void, number_of},
    shared::Damage,
};

/// A file that may be a segment. It is not held open: there may be more of them than descriptors.
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) named: u64,
    /// The disk gives it.
    pub(super) opens: bool,
    pub(super) len: u64,
    pub(super) block: Block,
    /// The first copy of the header is damaged, the second is whole.
    pub(super) first_copy_bad: bool,
}

impl Candidate {
    pub(super) fn header(&self) -> Option<&Header> {
        match &self.block {
            Block::Good(header) => Some(header),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.header().map_or(self.named, |header| header.number)
    }
}

/// Everything that has a segment's name, with its header; and the highest number that any name has.
pub(super) fn candidates<D: Disk>(
    disk: &D,
    patience: &Patience<'_, D>,
    damage: &mut Vec<Damage>,
) -> io::Result<(Vec<Candidate>, u64)> {
    let mut entries = disk.list()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let mut found = Vec::new();
    let mut highest = 0;
    for entry in entries {
        let name = entry.name;
        if name != QUARANTINE && name.ends_with(".new") && entry.plain && number_of(&name.replace(".new", ".seg")).is_some() {
            // Never finished, so never part of the log. What cannot be removed now is replaced when its number comes.
            let _ = disk.remove(&name);
            continue;
        }
        // Other names are none of ours and stay where they are.
        let Some(named) = number_of(&name) else { continue };
        highest = highest.max(named);
        if !entry.plain {
            damage.push(aside(disk, &name, named, 0, "not a file, but it has a segment's name"));
            continue;
        }
        let opened = patience.ask(|| disk.open(&name)).and_then(|file| {
            let file = PatientFile { file, patience };
            Ok((file.len()?, read_header(&file)))
        });
        match opened {
            Ok((len, (block, first_copy_bad))) => {
                found.push(Candidate { name, named, opens: true, len, block, first_copy_bad });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if is_of_the_medium(&error) => {
                let block = Block::Bad;
                found.push(Candidate { name, named, opens: false, len: u64::MAX, block, first_copy_bad: false });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((found, highest))
}

/// The header from whichever copy is whole, or from the sectors of both; and whether the first one is damaged.
pub(super) fn read_header<F: DiskFile>(file: &F) -> (Block, bool) {
    let read = |offset| {
        let mut bytes = vec![0; BLOCK];
        match read_full(file, &mut bytes, offset) {
            Ok(read) => bytes.truncate(read),
            // It is not empty, and nothing that was written: damage.
            Err(_) => bytes.fill(!0),
        }
        bytes
    };
    let first = read(0);
    let one = Header::decode(&first);
    if matches!(one, Block::Good(_) | Block::Newer(_)) {
        return (one, false);
    }
    let second = read(BLOCK as u64);
    match Header::decode(&second) {
        two @ (Block::Good(_) | Block::Newer(_)) => (two, one == Block::Bad),
        Block::Torn if one == Block::Torn => (Block::Torn, false),
        _ => (Header::from_both(&first, &second), true),
    }
}

/// The log that most segments belong to; of two as large, the one that was written last.
pub(super) fn choose_log(candidates: &[Candidate]) -> Option<u128> {
    let headers = || candidates.iter().filter_map(Candidate::header);
    headers()
        .map(|header| {
            let same = headers().filter(|other| other.log == header.log);
            (same.clone().count(), same.map(|other| other.number).max(), header.log)
        })
        .max()
        .map(|(_, _, log)| log)
}

/// Sets aside what is of another log, of a newer version, or there twice. Returns the highest number with a header.
pub(super) fn sort_out<D: Disk>(disk: &D, candidates: &mut Vec<Candidate>, log: Option<u128>, damage: &mut Vec<Damage>) -> u64 {
    // Of two that are the same segment, the one with the right name stays; a header goes before a name.
    candidates.sort_by_key(|candidate| {
        let header = candidate.header();
        (header.is_none(), header.is_some_and(|header| header.number != candidate.named), candidate.named)
    });
    let mut seen = Vec::new();
    candidates.retain(|candidate| {
        let what = match &candidate.block {
            Block::Newer(_) => "segment of a newer version",
            Block::Good(header) if Some(header.log) != log => "segment of another journal",
            _ if seen.contains(&candidate.number()) => "second file for one segment",
            _ => {
                seen.push(candidate.number());
                return true;
            }
        };
        damage.push(aside(disk, &candidate.name, candidate.number(), candidate.len, what));
        false
    });
    candidates.sort_by_key(Candidate::number);
    candidates.iter().filter(|candidate| candidate.header().is_some()).map(Candidate::number).max().unwrap_or(0)
}

/// Whether every frame in a segment has numbers that were given up. What cannot be read may hold others.
pub(super) fn holds_only<D: Disk>(disk: &D, name: &str, seed: u64, len: u64, voids: &[Void]) -> bool {
    let Ok(file) = disk.open_read(name) else { return false };
    let mut scanner = Scanner::new(file, seed, FRAMES_AT, len);
    let given_up = |lane, first, last| voids.iter().any(|void| void.lane == lane && void.first <= first && last <= void.last);
    while let Some(found) = scanner.step(None) {
        // What is not whole was cut short with the write that failed.
        if let Found::Frame { frame, .. } = found
            && !given_up(frame.lane, frame.first, frame.last())
        {
            return false;
        }
    }
    scanner.unreadable == 0
}

pub(super) fn aside<D: Disk>(disk: &D, name: &str, segment: u64, bytes: u64, what: &'static str) -> Damage {
    Damage { quarantine_file: quarantine::file(disk, name), ..whole(segment, bytes, what) }
}

pub(super) fn whole(segment: u64, bytes: u64, what: &'static str) -> Damage {
    Damage { segment, offset: 0, bytes, what, quarantine_file: None, readings: None }
}
