//! NASA C-MAPSS text: 26 numbers a line, separated by blanks; one line is one flight cycle of one unit.
//!
//! Columns: unit, cycle, three operating settings, 21 sensors. A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation
//! Modeling for Aircraft Engine Run-to-Failure Simulation", PHM08, 2008, table 2 names the sensors.
//!
//! | reading | from |
//! |---|---|
//! | `engineId` | unit |
//! | `timestamp` | start + cycle * step |
//! | `temperature` | T50, LPT outlet: degrees Rankine to Celsius, (s4 - 491.67) * 5 / 9 |
//! | `rpm` | Nc, core speed: s9 |
//! | `pressure` | P30, HPC outlet: s7, psia |
//! | `fuelFlow` | phi * Ps30 = s12 * s11, pps |
//! | `cycle`, `setting1` to `setting3`, `s1` to `s21` without s7 and s9 | themselves |
//!
//! Nothing of a line is dropped: with the further metrics every column can be computed back from the store.

use std::sync::Arc;

use super::{Mapping, Short};
use crate::{domain::reading, sim::sample::Sample};

const COLUMNS: usize = 26;
const SETTINGS: usize = 3;
/// Index of s1 among the columns.
const FIRST_SENSOR: usize = 2 + SETTINGS;
/// 0 degrees Celsius in degrees Rankine.
const ICE_POINT_RANKINE: f64 = 491.67;

/// Turns lines into samples; holds the shared names.
#[derive(Debug)]
pub(super) struct CmapssLines {
    /// By column index; `None` where a named metric carries the value as it is.
    names: Vec<Option<Arc<str>>>,
}

impl Default for CmapssLines {
    fn default() -> Self {
        let names = (0..COLUMNS).map(|column| match column {
            0 => None,
            1 => Some("cycle".into()),
            _ if column < FIRST_SENSOR => Some(format!("setting{}", column - 1).into()),
            _ => match column - FIRST_SENSOR + 1 {
                7 | 9 => None,
                sensor => Some(format!("s{sensor}").into()),
            },
        });
        Self { names: names.collect() }
    }
}

impl CmapssLines {
    /// Fills `sample` from one line.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub(super) fn parse(&self, line: &[u8], mapping: &Mapping, sample: &mut Sample) -> Result<(), String> {
        let text =
            std::str::from_utf8(line).map_err(|_| "not text; C-MAPSS lines are 26 numbers separated by blanks".to_owned())?;
        let mut values = [0.0; COLUMNS];
        let mut count = 0;
        for word in text.split_ascii_whitespace() {
            if let Some(slot) = values.get_mut(count) {
                *slot =
                    super::finite(word).ok_or_else(|| format!("column {}: {:?} is not a finite number", count + 1, Short(word)))?;
            }
            if count == 0 {
                if !reading::is_name(word) {
                    return Err(format!("column 1: {:?} cannot be an engine id", Short(word)));
                }
                sample.engine_id.push_str(word);
            }
            count += 1;
        }
        if count != COLUMNS {
            return Err(format!("{count} columns; C-MAPSS lines have {COLUMNS}"));
        }
        let cycle = values[1];
        // 2^53: every whole number up to here is exact, and far beyond any engine's life.
        if cycle.fract() != 0.0 || !(0.0..=9_007_199_254_740_992.0).contains(&cycle) {
            return Err(format!("column 2: cycle {cycle} is not a whole number"));
        }
        sample.observed_at_us = mapping.at(cycle as i64).ok_or_else(|| format!("column 2: cycle {cycle} lies beyond all time"))?;
        let sensor = |number: usize| values[FIRST_SENSOR + number - 1];
        sample.temperature = Some((sensor(4) - ICE_POINT_RANKINE) * 5.0 / 9.0);
        sample.rpm = Some(sensor(9));
        sample.pressure = Some(sensor(7));
        sample.fuel_flow = Some(sensor(12) * sensor(11));
        if [sample.temperature, sample.fuel_flow].into_iter().flatten().any(|value| !value.is_finite()) {
            return Err("temperature or fuel flow computed from s4, s11 and s12 is not finite".to_owned());
        }
        for (name, value) in self.names.iter().zip(values) {
            if let Some(name) = name {
                sample.extra.push((Arc::clone(name), value));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made up, in the form of the real files (which end their lines with blanks).
    const LINE: &[u8] = b"7 3 0.5 -0.25 100.0 1 2 3 1391.67 5 6 555.5 8 9001.25 10 11.5 2.0 13 14 15 16 17 18 19 20 21  ";

    fn parse(line: &[u8]) -> Result<Sample, String> {
        let mut sample = Sample::default();
        CmapssLines::default().parse(line, &Mapping { start_us: 1_000_000, step_us: 2_000_000 }, &mut sample).map(|()| sample)
    }

    #[test]
    fn a_line_becomes_a_reading_with_every_column_kept() {
        let sample = parse(LINE).expect("a sample");
        assert_eq!(sample.engine_id, "7");
        assert_eq!(sample.observed_at_us, 1_000_000 + 3 * 2_000_000);
        assert_eq!(sample.temperature, Some((1391.67 - 491.67) * 5.0 / 9.0));
        assert_eq!((sample.rpm, sample.pressure, sample.fuel_flow), (Some(9001.25), Some(555.5), Some(2.0 * 11.5)));
        let extra: Vec<(&str, f64)> = sample.extra.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(extra.len(), 23);
        assert!(extra.contains(&("cycle", 3.0)) && extra.contains(&("setting2", -0.25)) && extra.contains(&("s21", 21.0)));
        assert!(!extra.iter().any(|(name, _)| matches!(*name, "s7" | "s9")));
    }

    #[test]
    fn a_bad_line_says_which_column_and_why() {
        for (line, part) in [
            (&b"1 2 3"[..], "3 columns"),
            (&LINE.repeat(2), "52 columns"),
            (b"1 x", "column 2: \"x\" is not a finite number"),
            (b"1 NaN", "column 2"),
            (b"\xff", "not text"),
        ] {
            let error = parse(line).expect_err("a fault");
            assert!(error.contains(part), "{error}");
        }
        let half = String::from_utf8_lossy(LINE).replacen(" 3 ", " 3.5 ", 1);
        assert!(parse(half.as_bytes()).expect_err("a fault").contains("whole number"));
        let far = String::from_utf8_lossy(LINE).replacen(" 3 ", " 9007199254740992 ", 1);
        assert!(parse(far.as_bytes()).expect_err("a fault").contains("beyond"));
    }
}
