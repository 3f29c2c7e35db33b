//! The journal's segments, held open so that they can be copied at leisure. See the module above for why in this order.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::buffer::journal::verify::whole_end;

/// The folder for what was damaged, below the journal's.
const QUARANTINE: &str = "quarantine";
/// How often a backup begins anew because segments came and went too fast.
pub(super) const ATTEMPTS: u32 = 5;

/// Open segments by number.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    dir: PathBuf,
    segments: BTreeMap<u64, (String, File)>,
    ends: BTreeMap<u64, u64>,
}

impl Pinned {
    /// Opens all that are there; none where there is no journal.
    pub(super) fn first(dir: &Path) -> io::Result<Self> {
        let mut pinned = Self { dir: dir.to_owned(), segments: BTreeMap::new(), ends: BTreeMap::new() };
        pinned.more()?;
        Ok(pinned)
    }

    /// Opens those that are new. Returns whether they follow the others without a gap; one that was there before is damage of old.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        let newest = self.segments.keys().next_back().copied();
        for name in names(&self.dir)? {
            let Some(number) = segment_number(&name) else { continue };
            if self.segments.contains_key(&number) {
                continue;
            }
            match File::open(self.dir.join(&name)) {
                Ok(file) if file.metadata()?.is_file() => {
                    self.segments.insert(number, (name, file));
                }
                Ok(_) => {}
                // Dropped between listing and opening: the database has it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let numbers: Vec<u64> = self.segments.range(newest.unwrap_or(0)..).map(|(number, _)| *number).collect();
        Ok(newest.is_none() || numbers.windows(2).all(|pair| pair[1] == pair[0] + 1))
    }

    /// The segments, oldest first: name, file, and up to where it is copied. One that was not begun when the ends were fixed is left
    /// out: by now it may be, and its header would say more of the one before than is copied.
    pub(super) fn segments(&self) -> impl Iterator<Item = (&str, &File, u64)> {
        let end = |number| self.ends.get(number).copied().unwrap_or(u64::MAX);
        let all = self.segments.iter().map(move |(number, (name, file))| (name.as_str(), file, end(number)));
        all.filter(|(_, _, end)| *end > 0)
    }

    /// Notes how far the newest ones are written: whole frames only, because the next one may be half there. Older ones are not
    /// written any more; the last but one may be where a newer one is only prepared.
    pub(super) fn fix_ends(&mut self) -> io::Result<()> {
        for (number, (_, file)) in self.segments.iter().rev().take(2) {
            self.ends.insert(*number, whole_end(file)?);
        }
        Ok(())
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.segments().filter_map(|(_, file, _)| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// What was put aside, by name below the journal's directory.
    pub(super) fn quarantined(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let dir = self.dir.join(QUARANTINE);
        Ok(names(&dir)?.into_iter().map(|name| (format!("{QUARANTINE}/{name}"), dir.join(&name))).collect())
    }
}

/// A file's first `end` bytes, then zeros up to `len`.
pub(super) fn up_to(file: &File, end: u64, len: u64) -> io::Result<impl Read> {
    use std::io::{Seek, SeekFrom};
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    // It may become shorter meanwhile, when the room behind its end is given back; zeros stood there.
    Ok(file.take(end.min(len)).chain(io::repeat(0)).take(len))
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // What has no plain name is none of ours.
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The number in `0000000007.seg`.
fn segment_number(name: &str) -> Option<u64> {
    let digits =
        name.strip_suffix(".seg").filter(|digits| digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_is_dropped_meanwhile_is_still_copied_and_one_that_came_and_went_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |number: u64| dir.path().join(format!("{number:010}.seg"));
        fs::write(file(7), "seven").expect("a file");
        fs::write(dir.path().join("0000000009.new"), "").expect("a file");
        let mut pinned = Pinned::first(dir.path()).expect("opens");
        fs::remove_file(file(7)).expect("removed");
        fs::write(file(8), "eight").expect("a file");
        assert!(pinned.more().expect("opens"), "7 and 8 follow each other");
        let mut text = String::new();
        for (_, file, _) in pinned.segments() {
            up_to(file, 4, 5).and_then(|mut content| content.read_to_string(&mut text)).expect("reads");
        }
        assert_eq!(text, "seve\0eigh\0");
        fs::write(file(10), "ten").expect("a file");
        assert!(!pinned.more().expect("opens"), "9 is missing");
    }

    #[test]
    fn a_segment_that_is_begun_while_the_others_are_copied_is_left_out() {
        use std::os::unix::fs::FileExt;
        let dir = tempfile::tempdir().expect("a directory");
        let prepared = dir.path().join("0000000002.seg");
        fs::write(dir.path().join("0000000001.seg"), "not a header").expect("a file");
        fs::write(&prepared, vec![0; 65_536]).expect("a file");
        let mut pinned = Pinned::first(dir.path()).expect("opens");
        pinned.fix_ends().expect("reads");
        File::options().write(true).open(&prepared).and_then(|file| file.write_all_at(b"begun", 0)).expect("written");
        let copied: Vec<_> = pinned.segments().map(|(name, _, end)| (name.to_owned(), end)).collect();
        assert_eq!(copied, [("0000000001.seg".to_owned(), 12)], "what is damaged is copied whole");
    }

    #[test]
    fn without_a_journal_there_is_nothing_to_copy() {
        let pinned = Pinned::first(Path::new("absent")).expect("no fault");
        assert_eq!((pinned.segments().count(), pinned.bytes()), (0, 0));
        assert!(pinned.quarantined().expect("no fault").is_empty());
    }
}
