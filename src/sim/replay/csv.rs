//! CSV (RFC 4180): the header names the columns, in any order; every column that is not a field of a reading is a further metric.
//!
//! An empty cell is a metric that is missing. Records end with their line: a quoted line break is not supported, because no
//! field of a reading can hold one, and it bounds what a forgotten quote can swallow.

use csv_core::ReadRecordResult;

use super::{
    Mapping, Short,
    fields::{self, Field},
    lines::LINE_MAX_BYTES,
};
use crate::sim::sample::Sample;

/// Most columns: the seven fields and 32 further metrics, with room to say what is wrong.
const COLUMNS_MAX: usize = 64;

/// Turns lines into samples by the header it has read first.
pub(super) struct CsvLines {
    splitter: csv_core::Reader,
    columns: Vec<(Field, String)>,
    cells: Vec<u8>,
    ends: [usize; COLUMNS_MAX],
    has_time: bool,
}

impl std::fmt::Debug for CsvLines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvLines").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Default for CsvLines {
    fn default() -> Self {
        Self {
            splitter: csv_core::Reader::new(),
            columns: Vec::new(),
            cells: vec![0; LINE_MAX_BYTES],
            ends: [0; COLUMNS_MAX],
            has_time: false,
        }
    }
}

impl CsvLines {
    /// Whether the header has been read.
    pub(super) fn has_header(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Takes the first line.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn read_header(&mut self, line: &[u8]) -> Result<(), String> {
        let count = self.split(line)?;
        for index in 0..count {
            let name = self.cell(index).map_err(|()| format!("column {}: the name is not text", index + 1))?.trim();
            let field = Field::from_name(name).ok_or_else(|| {
                format!(
                    "column {}: {:?} cannot name a metric (1 to 64 of letters, digits, . _ : -); does the file lack its header row?",
                    index + 1,
                    Short(name)
                )
            })?;
            if self.columns.iter().any(|(have, _)| *have == field) {
                return Err(format!("column {}: {:?} appears twice", index + 1, Short(name)));
            }
            let name = name.to_owned();
            self.columns.push((field, name));
        }
        self.has_time = self.columns.iter().any(|(field, _)| *field == Field::Timestamp);
        if self.columns.iter().all(|(field, _)| *field != Field::EngineId) {
            return Err("no column engineId: the first line must name the columns".to_owned());
        }
        Ok(())
    }

    /// Fills `sample` from one line; `row` counts the readings from 0 and gives a file without times its times.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub(super) fn parse(&mut self, line: &[u8], row: u64, mapping: &Mapping, sample: &mut Sample) -> Result<(), String> {
        let count = self.split(line)?;
        if count != self.columns.len() {
            return Err(format!("{count} columns where the header names {}", self.columns.len()));
        }
        for (index, (field, name)) in self.columns.iter().enumerate() {
            let fault = |what: String| format!("column {} ({name}): {what}", index + 1);
            let cell = self.cell(index).map_err(|()| fault("not text".to_owned()))?.trim();
            if cell.is_empty() {
                continue;
            }
            match field {
                Field::EngineId => fields::set_engine_id(sample, cell).map_err(fault)?,
                Field::Status => fields::set_status(sample, cell).map_err(fault)?,
                Field::Timestamp => {
                    sample.observed_at_us = fields::time_from_text(cell)
                        .ok_or_else(|| fault(format!("{:?} is neither RFC 3339 nor milliseconds since the epoch", Short(cell))))?;
                }
                _ => {
                    let value = super::finite(cell)
                        .ok_or_else(|| fault(format!("{:?} is not a finite number (leave a missing one empty)", Short(cell))))?;
                    fields::set_number(sample, field, value).map_err(fault)?;
                }
            }
        }
        if !self.has_time {
            sample.observed_at_us = mapping.at_row(row)?;
        } else if self
            .columns
            .iter()
            .enumerate()
            .any(|(index, (field, _))| *field == Field::Timestamp && self.cell(index).is_ok_and(|cell| cell.trim().is_empty()))
        {
            return Err("the timestamp is empty".to_owned());
        }
        Ok(())
    }

    fn split(&mut self, line: &[u8]) -> Result<usize, String> {
        self.splitter.reset();
        let too_many = || format!("more than {COLUMNS_MAX} columns");
        let (mut input, mut filled, mut count) = (line, 0, 0);
        loop {
            // An empty input tells the splitter that the line is over.
            let (result, read, wrote, ended) = self.splitter.read_record(input, &mut self.cells[filled..], &mut self.ends[count..]);
            input = &input[read..];
            filled += wrote;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record | ReadRecordResult::End => return Ok(count),
                ReadRecordResult::OutputEndsFull => return Err(too_many()),
                ReadRecordResult::OutputFull => return Err("the line is too long".to_owned()),
            }
        }
    }

    fn cell(&self, index: usize) -> Result<&str, ()> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        std::str::from_utf8(&self.cells[start..self.ends[index]]).map_err(|_| ())
    }
}
