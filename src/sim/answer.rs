//! The answer to a poll: some readings, and the cursor that asks for what comes after them.

use bytes::Bytes;

use super::sample::Sample;

/// Most readings in one answer (one moment of a larger fleet is never split).
pub const ANSWER_MAX_ROWS: u64 = 5_000;
/// Size at which an answer is closed, in bytes.
pub const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Readings as one JSON array, from position `from` up to before `next`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Position of the first reading.
    pub from: u64,
    /// Position to ask for next.
    pub next: u64,
    /// How many readings there are.
    pub rows: u64,
    /// The array.
    pub body: Bytes,
}

/// Writes samples as the inside of a JSON array.
#[derive(Debug, Default)]
pub struct ArrayWriter {
    text: Vec<u8>,
    rows: u64,
}

impl ArrayWriter {
    /// Adds one.
    pub fn push(&mut self, sample: &Sample) {
        self.text.push(if self.rows == 0 { b'[' } else { b',' });
        sample.write_json(&mut self.text);
        self.rows += 1;
    }

    /// How many there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How long the text is, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The finished array; the writer is empty again.
    pub fn finish(&mut self) -> Bytes {
        if self.rows == 0 {
            self.text.push(b'[');
        }
        self.text.push(b']');
        self.rows = 0;
        // The next array will be about as long.
        let room = Vec::with_capacity(self.text.len());
        Bytes::from(std::mem::replace(&mut self.text, room))
    }
}

/// A cursor in the `X-Next` header: which run or file, and the position in it.
pub fn cursor_text(tag: u64, position: u64) -> String {
    format!("{tag:016x}-{position}")
}

/// The position in a cursor of this run or file; `None` for any other text, the empty one of a first poll included.
pub fn position_in(tag: u64, cursor: &str) -> Option<u64> {
    let (of, position) = cursor.split_once('-')?;
    (u64::from_str_radix(of, 16) == Ok(tag)).then(|| position.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_another_run_is_none() {
        assert_eq!(position_in(7, &cursor_text(7, 42)), Some(42));
        for other in [cursor_text(8, 42), String::new(), "42".into(), "x-1".into(), "7-".into(), "7--1".into()] {
            assert_eq!(position_in(7, &other), None, "{other}");
        }
    }

    #[test]
    fn an_array_is_json_whatever_its_length() {
        let mut writer = ArrayWriter::default();
        assert_eq!(&writer.finish()[..], b"[]");
        let sample = Sample { engine_id: "a".into(), rpm: Some(1.0), ..Sample::default() };
        writer.push(&sample);
        writer.push(&sample);
        let body = writer.finish();
        assert_eq!(serde_json::from_slice::<Vec<serde_json::Value>>(&body).map(|items| items.len()).ok(), Some(2));
        assert_eq!(&writer.finish()[..], b"[]");
    }
}
