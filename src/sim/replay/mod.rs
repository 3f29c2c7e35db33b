//! Recorded readings from a file, one at a time: CSV, NDJSON, NASA C-MAPSS text.
//!
//! In: any bytes. Out: [`Sample`]s in the file's order with the file's values, or the line and what is wrong with it; the first
//! fault ends the replay, because a recording that is played with holes would look like one that is whole. Memory stays constant
//! whatever the file's size. A crash loses nothing: the file is still there, and rows sent twice are duplicates.

mod cmapss;
mod csv;
mod fields;
mod lines;
mod ndjson;

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
};

pub use self::fields::time_from_text;
use self::lines::{LINE_MAX_BYTES, LineFault, Lines};
use super::sample::Sample;

/// How the file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Comma separated, the first line names the columns
    Csv,
    /// One JSON object a line
    Ndjson,
    /// NASA C-MAPSS turbofan text, 26 columns
    Cmapss,
}

/// Times for files that have none: the nth moment is start + n * step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Microseconds since the epoch, UTC.
    pub start_us: i64,
    /// Microseconds, above 0.
    pub step_us: i64,
}

impl Mapping {
    /// The nth moment; `None` beyond what 64 bits of microseconds can say.
    fn at(&self, n: i64) -> Option<i64> {
        self.step_us.checked_mul(n)?.checked_add(self.start_us)
    }

    fn at_row(&self, row: u64) -> Result<i64, String> {
        i64::try_from(row).ok().and_then(|row| self.at(row)).ok_or_else(|| "its time lies beyond all time".to_owned())
    }
}

/// Why a replay ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayError {
    /// The line, from 1; 0 where the file cannot be opened.
    pub line: u64,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ReplayError {}

/// Reads samples from bytes in one of the formats.
#[derive(Debug)]
pub struct ReplayReader<R> {
    lines: Lines<R>,
    parser: Parser,
    mapping: Mapping,
    rows: u64,
}

#[derive(Debug)]
enum Parser {
    Csv(Box<csv::CsvLines>),
    Ndjson,
    Cmapss(cmapss::CmapssLines),
}

impl<R: BufRead> ReplayReader<R> {
    /// Reads `input` as `format`.
    pub fn new(input: R, format: Format, mapping: Mapping) -> Self {
        let parser = match format {
            Format::Csv => Parser::Csv(Box::default()),
            Format::Ndjson => Parser::Ndjson,
            Format::Cmapss => Parser::Cmapss(cmapss::CmapssLines::default()),
        };
        Self { lines: Lines::new(input), parser, mapping, rows: 0 }
    }

    /// Readings given out so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the input used so far.
    pub fn bytes_read(&self) -> u64 {
        self.lines.bytes_read()
    }

    /// Fills `sample` with the next reading; `false` at the end of the input.
    ///
    /// # Errors
    /// [`ReplayError`] with the line; what comes after it is not to be trusted.
    pub fn read_into(&mut self, sample: &mut Sample) -> Result<bool, ReplayError> {
        loop {
            let more = self.lines.advance();
            let line = self.lines.number();
            let fault = |message| ReplayError { line, message };
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(LineFault::Io(error)) => return Err(fault(format!("the file cannot be read: {error}"))),
                Err(LineFault::TooLong) => {
                    return Err(fault(format!("longer than {LINE_MAX_BYTES} bytes; is this the right format?")));
                }
            }
            sample.clear();
            let text = self.lines.current();
            match &mut self.parser {
                Parser::Csv(parser) if !parser.has_header() => {
                    parser.read_header(text).map_err(fault)?;
                    continue;
                }
                Parser::Csv(parser) => parser.parse(text, self.rows, &self.mapping, sample),
                Parser::Ndjson => ndjson::parse(text, self.rows, &self.mapping, sample),
                Parser::Cmapss(parser) => parser.parse(text, &self.mapping, sample),
            }
            .map_err(fault)?;
            if sample.engine_id.is_empty() {
                return Err(fault("no engineId".to_owned()));
            }
            if sample.is_empty() {
                return Err(fault("no metric; a reading needs at least one".to_owned()));
            }
            self.rows += 1;
            return Ok(true);
        }
    }
}

/// A recording on disk: what is needed to read it, as often as needed, from the beginning.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The file.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
    /// Times where it has none.
    pub mapping: Mapping,
}

impl Recording {
    /// Opens the file at its beginning.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn open(&self) -> io::Result<ReplayReader<BufReader<File>>> {
        let input = BufReader::with_capacity(64 * 1024, File::open(&self.path)?);
        Ok(ReplayReader::new(input, self.format, self.mapping))
    }

    /// The file's name before an error in it.
    pub fn explain(&self, error: &ReplayError) -> String {
        format!("{}:{}: {}", self.path.display(), error.line, error.message)
    }
}

/// A finite number in the notation of Rust and JSON; words such as `inf` and `nan` are none.
fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A text cut to what a message can hold.
struct Short<'a>(&'a str);

impl fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARS: usize = 40;
        match self.0.char_indices().nth(MAX_CHARS) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

/// Reads `bytes` to their end or first fault and returns how many readings there were: the entry of the fuzz target. No input
/// panics, and every sample that comes out is one that the push interface takes.
pub fn count_readings(bytes: &[u8], format: Format) -> Result<u64, ReplayError> {
    let mut reader = ReplayReader::new(bytes, format, Mapping { start_us: 0, step_us: 1_000_000 });
    let (mut sample, mut json) = (Sample::default(), Vec::new());
    while reader.read_into(&mut sample)? {
        json.clear();
        sample.write_json(&mut json);
    }
    Ok(reader.rows())
}

#[cfg(test)]
mod tests;
