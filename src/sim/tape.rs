//! A recording as a source: it moves on only as the poller does.
//!
//! A position is a row of the file. Asking for a position again gives the same rows (the last answer is kept, an older one is read
//! again from the file), asking for the next one takes the answer before as received. So nothing is lost when an answer is cut, and
//! a simulator that was restarted with the same file goes on where the poller was.

use std::{
    fs::File,
    hash::{Hash, Hasher},
    io::BufReader,
    time::Instant,
};

use rustc_hash::FxHasher;

use super::{
    answer::{ANSWER_MAX_BYTES, ANSWER_MAX_ROWS, Answer, ArrayWriter},
    pace::{Pacer, Speed},
    replay::{Recording, ReplayError, ReplayReader},
    sample::Sample,
};

/// One poller's place in a recording.
#[derive(Debug)]
pub struct Tape {
    recording: Recording,
    speed: Speed,
    reader: Option<OpenTape>,
    last: Option<Answer>,
}

#[derive(Debug)]
struct OpenTape {
    reader: ReplayReader<BufReader<File>>,
    /// Position of the next row to hand out.
    position: u64,
    /// The row at `position` where it has been read already.
    ahead: Option<Sample>,
    pacer: Pacer,
    /// The time at which the pacer's zero is.
    zero: Instant,
    ended: bool,
    /// What is wrong with the file at `position`: it stays wrong, however often it is asked for.
    fault: Option<ReplayError>,
}

impl Tape {
    /// A tape at its beginning; the file is opened when it is first asked for.
    pub fn new(recording: Recording, speed: Speed) -> Self {
        Self { recording, speed, reader: None, last: None }
    }

    /// A number that tells this recording, with these times, from others.
    pub fn tag(&self) -> u64 {
        let mut hasher = FxHasher::default();
        self.recording.path.hash(&mut hasher);
        (self.recording.mapping.start_us, self.recording.mapping.step_us).hash(&mut hasher);
        if let Ok(meta) = std::fs::metadata(&self.recording.path) {
            (meta.len(), meta.modified().ok()).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether every row has been handed out and the end of the file has been seen.
    pub fn is_finished(&self) -> bool {
        self.reader.as_ref().is_some_and(|open| open.ended && open.ahead.is_none())
    }

    /// The rows from `position` that are due, or `Err` with the file, the line and what is wrong there once it has been reached.
    pub fn after(&mut self, position: u64, now: Instant) -> Result<Answer, String> {
        if let Some(last) = self.last.as_ref().filter(|last| last.from == position && last.rows > 0) {
            return Ok(last.clone());
        }
        let mut open = match self.reader.take() {
            Some(open) if open.position <= position => open,
            _ => self.open(now)?,
        };
        let answer = open.skip_to(position, now).and_then(|()| open.collect(now)).map_err(|error| self.recording.explain(&error));
        self.reader = Some(open);
        let answer = answer?;
        self.last = Some(answer.clone());
        Ok(answer)
    }

    fn open(&self, now: Instant) -> Result<OpenTape, String> {
        let reader = self.recording.open().map_err(|error| format!("{}: {error}", self.recording.path.display()))?;
        Ok(OpenTape { reader, position: 0, ahead: None, pacer: Pacer::new(self.speed), zero: now, ended: false, fault: None })
    }
}

type ReadResult<T> = Result<T, ReplayError>;

impl OpenTape {
    /// Makes sure that the next row is in `ahead`; `false` at the end.
    fn look_ahead(&mut self) -> ReadResult<bool> {
        if self.ahead.is_none() && !self.ended {
            let mut sample = Sample::default();
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            match self.reader.read_into(&mut sample) {
                Ok(true) => self.ahead = Some(sample),
                Ok(false) => self.ended = true,
                Err(fault) => return Err(self.fault.insert(fault).clone()),
            }
        }
        Ok(self.ahead.is_some())
    }

    /// Leaves out rows that the poller has already; the recording's time goes on from there.
    fn skip_to(&mut self, position: u64, now: Instant) -> ReadResult<()> {
        if self.position < position {
            while self.position < position && self.look_ahead()? {
                self.ahead = None;
                self.position += 1;
            }
            self.pacer.restart();
            self.zero = now;
        }
        Ok(())
    }

    fn collect(&mut self, now: Instant) -> ReadResult<Answer> {
        let from = self.position;
        let mut writer = ArrayWriter::default();
        while writer.rows() < ANSWER_MAX_ROWS && writer.bytes() < ANSWER_MAX_BYTES {
            match self.look_ahead() {
                Ok(true) => {}
                Ok(false) => break,
                // Good rows before a bad line go out first; the fault is told when it stands at the head.
                Err(_) if writer.rows() > 0 => break,
                Err(error) => return Err(error),
            }
            let Some(sample) = self.ahead.take() else { break };
            if self.pacer.due(sample.observed_at_us) > now.saturating_duration_since(self.zero) {
                self.ahead = Some(sample);
                break;
            }
            writer.push(&sample);
            self.position += 1;
        }
        let rows = writer.rows();
        Ok(Answer { from, next: self.position, rows, body: writer.finish() })
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, time::Duration};

    use super::*;
    use crate::sim::replay::{Format, Mapping};

    fn recording(rows: usize, tail: &str) -> (tempfile::NamedTempFile, Recording) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        for row in 0..rows {
            writeln!(file, "{{\"engineId\":\"e{}\",\"rpm\":{row}}}", row % 7).expect("written");
        }
        write!(file, "{tail}").expect("written");
        let mapping = Mapping { start_us: 0, step_us: 1_000_000 };
        let recording = Recording { path: file.path().to_owned(), format: Format::Ndjson, mapping };
        (file, recording)
    }

    fn values(answer: &Answer) -> Vec<f64> {
        let items: Vec<serde_json::Value> = serde_json::from_slice(&answer.body).expect("an array");
        items.iter().filter_map(|item| item["rpm"].as_f64()).collect()
    }

    #[test]
    fn every_row_is_handed_out_once_however_often_answers_are_asked_for_again() {
        let (_file, recording) = recording(12_345, "");
        let mut tape = Tape::new(recording, Speed::Max);
        let (mut position, mut got, now) = (0, Vec::new(), Instant::now());
        while !tape.is_finished() {
            let cut = tape.after(position, now).expect("rows");
            let again = tape.after(position, now).expect("rows");
            assert_eq!(cut, again);
            got.extend(values(&again));
            position = again.next;
        }
        assert_eq!(got, (0..12_345).map(f64::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_restarted_simulator_goes_on_at_the_pollers_cursor_and_an_old_cursor_is_read_again() {
        let (_file, recording) = recording(100, "");
        let now = Instant::now();
        let mut tape = Tape::new(recording.clone(), Speed::Max);
        assert_eq!(tape.tag(), Tape::new(recording.clone(), Speed::Max).tag());
        assert_eq!(values(&tape.after(90, now).expect("rows")).first(), Some(&90.0));
        assert_eq!(values(&tape.after(10, now).expect("rows")).len(), 90);
        let end = tape.after(1_000, now).expect("rows");
        assert_eq!((end.rows, end.next), (0, 100));
        let later = Recording { mapping: Mapping { start_us: 5, step_us: 1_000_000 }, ..recording };
        assert_ne!(tape.tag(), Tape::new(later, Speed::Max).tag());
    }

    #[test]
    fn rows_before_a_bad_line_are_handed_out_and_the_line_is_named_every_time() {
        let (_file, recording) = recording(3, "{\"engineId\":\"e\",\"rpm\":\"fast\"}\n{\"engineId\":\"e\",\"rpm\":4}\n");
        let mut tape = Tape::new(recording.clone(), Speed::Max);
        let now = Instant::now();
        assert_eq!(tape.after(0, now).expect("rows").rows, 3);
        for _ in 0..2 {
            let error = tape.after(3, now).expect_err("a fault");
            assert!(error.contains(":4: ") && error.contains("rpm"), "{error}");
        }
    }

    #[test]
    fn a_paced_tape_hands_out_what_is_due() {
        let (_file, recording) = recording(100, "");
        let mut tape = Tape::new(recording, Speed::Times(2.0));
        let start = Instant::now();
        assert_eq!(tape.after(0, start).expect("rows").rows, 1);
        assert_eq!(tape.after(1, start + Duration::from_secs(5)).expect("rows").rows, 10);
        assert_eq!(tape.after(11, start + Duration::from_secs(5)).expect("rows").rows, 0);
        assert_eq!(tape.after(11, start + Duration::from_secs(600)).expect("rows").rows, 89);
    }

    #[test]
    fn a_missing_file_is_named() {
        let (file, recording) = recording(1, "");
        drop(file);
        let name = recording.path.display().to_string();
        assert!(Tape::new(recording, Speed::Max).after(0, Instant::now()).expect_err("no file").contains(&name));
    }
}
