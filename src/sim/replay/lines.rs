//! Lines of a file, one at a time, each of bounded length: garbage without a line end cannot fill the memory.

use std::io::{self, BufRead};

/// Longest line, in bytes without its end. A reading with 32 further metrics of the longest names takes about 4 KB.
pub(super) const LINE_MAX_BYTES: usize = 64 * 1024;

/// What stands in the way of a line.
#[derive(Debug)]
pub(super) enum LineFault {
    /// The file cannot be read on.
    Io(io::Error),
    /// Longer than [`LINE_MAX_BYTES`].
    TooLong,
}

/// Reads lines into one buffer that is used again and again.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
    bytes_read: u64,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `input`.
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), number: 0, bytes_read: 0 }
    }

    /// Number of the line that was read last; the first is 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes have been taken from the input.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The line that was read last.
    pub(super) fn current(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads the next line that holds more than blanks, without its end; `false` at the end of the input.
    ///
    /// # Errors
    /// [`LineFault`] where the input fails or the line is too long.
    pub(super) fn advance(&mut self) -> Result<bool, LineFault> {
        while self.read_line()? {
            if self.number == 1 && self.buffer.starts_with(b"\xef\xbb\xbf") {
                // Spreadsheets begin their files with a byte order mark.
                self.buffer.drain(..3);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_line(&mut self) -> Result<bool, LineFault> {
        self.buffer.clear();
        self.number += 1;
        loop {
            let chunk = match self.input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(LineFault::Io(error)),
            };
            if chunk.is_empty() {
                return Ok(!self.buffer.is_empty());
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.buffer.len() + part.len() > LINE_MAX_BYTES {
                return Err(LineFault::TooLong);
            }
            self.buffer.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.bytes_read += used as u64;
            if end.is_some() {
                if self.buffer.last() == Some(&b'\r') {
                    self.buffer.pop();
                }
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Lines::new(text);
        let mut got = Vec::new();
        while lines.advance().expect("lines") {
            got.push((lines.number(), lines.current().to_vec()));
        }
        assert_eq!(lines.bytes_read(), text.len() as u64);
        got
    }

    #[test]
    fn blank_lines_are_skipped_and_counted_and_the_last_needs_no_end() {
        assert_eq!(all(b"\xef\xbb\xbfa\r\n\n  \nb"), [(1, b"a".to_vec()), (4, b"b".to_vec())]);
        assert!(all(b"").is_empty());
        assert!(all(b"\n\n").is_empty());
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let endless = vec![b'x'; LINE_MAX_BYTES + 1];
        assert!(matches!(Lines::new(endless.as_slice()).advance(), Err(LineFault::TooLong)));
    }
}
