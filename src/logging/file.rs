//! A log file that is rotated by size: `belayd.log`, `belayd.log.1` (newest) to `.N` (oldest). In: whole lines. Out: files, 0600.
//! A full disk or a vanished directory costs log lines, said once on stderr, and never the daemon.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// See the module.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotate_bytes: u64,
    keep_files: u32,
    complained: bool,
}

impl RotatingFile {
    /// Opens or creates the file; `rotate_bytes` 0 never rotates.
    pub(super) fn open(path: &Path, rotate_bytes: u64, keep_files: u32) -> io::Result<Self> {
        let (file, bytes) = open(path)?;
        Ok(Self { path: path.to_owned(), file, bytes, rotate_bytes, keep_files, complained: false })
    }

    /// Oldest out, each one further, an empty file in front.
    fn rotate(&mut self) -> io::Result<()> {
        if self.keep_files == 0 {
            self.file.set_len(0)?;
            self.bytes = 0;
            return Ok(());
        }
        for index in (1..self.keep_files).rev() {
            match fs::rename(self.numbered(index), self.numbered(index + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match fs::rename(&self.path, self.numbered(1)) {
            // Somebody moved it away: begin a new one.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        (self.file, self.bytes) = open(&self.path)?;
        Ok(())
    }

    fn numbered(&self, index: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{index}"));
        name.into()
    }

    fn complain(&mut self, what: &str, error: &io::Error) {
        if !self.complained {
            self.complained = true;
            let _ = writeln!(io::stderr(), "belayd: log file {}: {what}: {error}", self.path.display());
        }
    }
}

/// Creates the directory too: one that was removed while the daemon runs comes back with the next rotation.
fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl Write for RotatingFile {
    /// Takes a whole line, always.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.rotate_bytes > 0 && self.bytes > 0 && self.bytes + length > self.rotate_bytes {
            // Where it cannot be rotated, the lines matter more than the size.
            match self.rotate() {
                Ok(()) => self.complained = false,
                Err(error) => self.complain("cannot be rotated, it grows", &error),
            }
        }
        match self.file.write_all(line) {
            Ok(()) => self.bytes += length,
            Err(error) => self.complain("cannot be written, lines are lost", &error),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_rotated_by_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("belayd.log");
        let mut log = RotatingFile::open(&path, 10, 2).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        assert_eq!(read("belayd.log").as_deref(), Some("fourth\n"));
        assert_eq!(read("belayd.log.1").as_deref(), Some("third\n"));
        assert_eq!(read("belayd.log.2").as_deref(), Some("second\n"));
        assert_eq!(read("belayd.log.3"), None);
        // A restart goes on where it was.
        drop(log);
        let mut log = RotatingFile::open(&path, 10, 2).unwrap();
        log.write_all(b"fifth\n").unwrap();
        assert_eq!(read("belayd.log.1").as_deref(), Some("fourth\n"));
    }

    #[test]
    fn a_vanished_directory_costs_lines_until_the_next_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/belayd.log");
        fs::create_dir(dir.path().join("logs")).unwrap();
        let mut log = RotatingFile::open(&path, 10, 2).unwrap();
        fs::remove_dir_all(dir.path().join("logs")).unwrap();
        for _ in 0..5 {
            log.write_all(b"a line\n").unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "a line\n");
    }
}
