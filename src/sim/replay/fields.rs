//! The names of a reading's fields as INTERFACE spells them, and what a field's text or number may be; shared by CSV and NDJSON.

use std::sync::Arc;

use chrono::DateTime;

use super::Short;
use crate::{
    domain::reading::{EXTRA_MAX, STATUS_MAX_CHARS, is_name},
    sim::sample::Sample,
};

/// What a column or key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `engineId`, `engine_id`
    EngineId,
    /// `timestamp`
    Timestamp,
    /// `status`
    Status,
    /// `temperature`
    Temperature,
    /// `rpm`
    Rpm,
    /// `pressure`
    Pressure,
    /// `fuelFlow`, `fuel_flow`
    FuelFlow,
    /// Any other name: a further metric.
    Extra(Arc<str>),
}

impl Field {
    /// The field of this name; `None` where it cannot be the name of a metric either.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "engineId" | "engine_id" => Self::EngineId,
            "timestamp" => Self::Timestamp,
            "status" => Self::Status,
            "temperature" => Self::Temperature,
            "rpm" => Self::Rpm,
            "pressure" => Self::Pressure,
            "fuelFlow" | "fuel_flow" => Self::FuelFlow,
            other if is_name(other) => Self::Extra(other.into()),
            _ => return None,
        })
    }
}

/// The time in a text: RFC 3339, or milliseconds since the epoch; cut to microseconds.
pub fn time_from_text(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(millis) => time_from_millis(millis),
        Err(_) => DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros()),
    }
}

/// The time of milliseconds since the epoch; `None` beyond what a date can say.
pub(super) fn time_from_millis(millis: i64) -> Option<i64> {
    DateTime::from_timestamp_millis(millis).map(|time| time.timestamp_micros())
}

/// Puts a number where the field says.
///
/// # Errors
/// In words: the field holds no number, appears twice, or is one metric too many.
pub(super) fn set_number(sample: &mut Sample, field: &Field, value: f64) -> Result<(), String> {
    let slot = match field {
        Field::Temperature => &mut sample.temperature,
        Field::Rpm => &mut sample.rpm,
        Field::Pressure => &mut sample.pressure,
        Field::FuelFlow => &mut sample.fuel_flow,
        Field::Extra(name) => {
            if sample.extra.iter().any(|(have, _)| have == name) {
                return Err("appears twice".to_owned());
            }
            if sample.extra.len() == EXTRA_MAX {
                return Err(format!("is one too many: a reading has at most {EXTRA_MAX} further metrics"));
            }
            sample.extra.push((Arc::clone(name), value));
            return Ok(());
        }
        Field::EngineId | Field::Timestamp | Field::Status => return Err("is a text, not a number".to_owned()),
    };
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("appears twice".to_owned()),
    }
}

/// Puts an engine id in.
///
/// # Errors
/// In words: it is not an engine id, or there is one already.
pub(super) fn set_engine_id(sample: &mut Sample, text: &str) -> Result<(), String> {
    if !sample.engine_id.is_empty() {
        return Err("appears twice".to_owned());
    }
    if !is_name(text) {
        return Err(format!("{:?} is not an engine id (1 to 64 of letters, digits, . _ : -)", Short(text)));
    }
    sample.engine_id.push_str(text);
    Ok(())
}

/// Puts a status in.
///
/// # Errors
/// In words: it is too long, or there is one already.
pub(super) fn set_status(sample: &mut Sample, text: &str) -> Result<(), String> {
    if text.chars().nth(STATUS_MAX_CHARS).is_some() {
        return Err(format!("is longer than {STATUS_MAX_CHARS} characters"));
    }
    match sample.status.replace(text.to_owned()) {
        None => Ok(()),
        Some(_) => Err("appears twice".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        assert_eq!(time_from_text("2023-11-14T22:13:20.0000019Z"), Some(1_700_000_000_000_001));
        assert_eq!(time_from_text("2023-11-15T00:13:20+02:00"), Some(1_700_000_000_000_000));
        assert_eq!(time_from_text("1700000000000"), Some(1_700_000_000_000_000));
        assert_eq!(time_from_text("9223372036854775807"), None);
        assert_eq!(time_from_text("yesterday"), None);
    }

    #[test]
    fn both_spellings_of_a_field_at_once_are_one_field_twice() {
        let mut sample = Sample::default();
        for (name, fine) in [("fuelFlow", true), ("fuel_flow", false), ("oil", true), ("oil", false)] {
            let field = Field::from_name(name).expect("a field");
            assert_eq!(set_number(&mut sample, &field, 1.0).is_ok(), fine, "{name}");
        }
        assert!(Field::from_name("oil temperature").is_none());
    }
}
