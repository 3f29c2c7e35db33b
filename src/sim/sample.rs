//! One simulated or replayed reading, and how it is written as JSON.

use std::{io::Write as _, sync::Arc};

use chrono::{DateTime, SecondsFormat};

/// A reading on its way out of the simulator. Metrics are finite; units are those of the model or of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// 1 to 64 of letters, digits, `.`, `_`, `:`, `-`.
    pub engine_id: String,
    /// Microseconds since the epoch, UTC.
    pub observed_at_us: i64,
    /// At most 32 characters.
    pub status: Option<String>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Revolutions a minute.
    pub rpm: Option<f64>,
    /// Bar from the model, the file's unit in a replay.
    pub pressure: Option<f64>,
    /// Kilograms an hour from the model, the file's unit in a replay.
    pub fuel_flow: Option<f64>,
    /// Further metrics; names are shared between samples.
    pub extra: Vec<(Arc<str>, f64)>,
}

impl Sample {
    /// Whether it carries no metric at all; such a reading would be refused.
    pub fn is_empty(&self) -> bool {
        self.extra.is_empty() && [self.temperature, self.rpm, self.pressure, self.fuel_flow].iter().all(Option::is_none)
    }

    /// Forgets everything but the room it has, so that a reader can fill the same sample again.
    pub fn clear(&mut self) {
        let (mut engine_id, mut extra) = (std::mem::take(&mut self.engine_id), std::mem::take(&mut self.extra));
        engine_id.clear();
        extra.clear();
        *self = Self { engine_id, extra, ..Self::default() };
    }

    /// Appends the reading as one JSON object. Numbers are written so that reading them gives the same 64-bit value again.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        // A timestamp outside of what chrono can say cannot be built by any reader or model here; it would be left out.
        out.extend_from_slice(b"{\"engineId\":\"");
        out.extend_from_slice(self.engine_id.as_bytes());
        out.push(b'"');
        if let Some(time) = DateTime::from_timestamp_micros(self.observed_at_us) {
            out.extend_from_slice(b",\"timestamp\":\"");
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{}", time.to_rfc3339_opts(SecondsFormat::Micros, true));
            out.push(b'"');
        }
        if let Some(status) = &self.status {
            out.extend_from_slice(b",\"status\":");
            let _ = serde_json::to_writer(&mut *out, status);
        }
        let named =
            [("temperature", self.temperature), ("rpm", self.rpm), ("pressure", self.pressure), ("fuelFlow", self.fuel_flow)];
        for (name, value) in named {
            if let Some(value) = value {
                write_number(out, name, value);
            }
        }
        for (name, value) in &self.extra {
            write_number(out, name, *value);
        }
        out.push(b'}');
    }
}

/// Names are checked where they come in (no character of them needs an escape).
fn write_number(out: &mut Vec<u8>, name: &str, value: f64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    let _ = serde_json::to_writer(out, &value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_json_object_with_its_exact_numbers() {
        let sample = Sample {
            engine_id: "unit-1".into(),
            observed_at_us: 1_700_000_000_000_001,
            status: Some("it \"runs\"".into()),
            temperature: Some((1400.60 - 491.67) * 5.0 / 9.0),
            fuel_flow: Some(0.1 + 0.2),
            extra: vec![("s1".into(), 518.67)],
            ..Sample::default()
        };
        let mut text = Vec::new();
        sample.write_json(&mut text);
        let value: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20.000001Z");
        assert_eq!(value["status"], "it \"runs\"");
        assert_eq!(value["temperature"].as_f64(), sample.temperature);
        assert_eq!(value["fuelFlow"].as_f64(), sample.fuel_flow);
        assert_eq!(value["s1"].as_f64(), Some(518.67));
        assert!(value.get("rpm").is_none());
    }

    #[test]
    fn a_cleared_sample_carries_nothing_over() {
        let mut sample = Sample { engine_id: "a".into(), rpm: Some(1.0), status: Some("x".into()), ..Sample::default() };
        assert!(!sample.is_empty());
        sample.clear();
        assert_eq!(sample, Sample::default());
        assert!(sample.is_empty());
    }
}
