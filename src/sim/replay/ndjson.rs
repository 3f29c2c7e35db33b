//! NDJSON: one reading a line, in the form in which it is pushed.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    Mapping, Short,
    fields::{self, Field},
};
use crate::sim::sample::Sample;

/// Fills `sample` from one line; `row` counts the readings from 0 and gives a reading without a time its time.
///
/// # Errors
/// What is wrong with the line, in words.
pub(super) fn parse(line: &[u8], row: u64, mapping: &Mapping, sample: &mut Sample) -> Result<(), String> {
    let mut has_time = false;
    let mut parser = serde_json::Deserializer::from_slice(line);
    ReadingSeed { sample, has_time: &mut has_time }.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| {
        let text = error.to_string();
        // Its own line count is always 1 here and would mislead.
        format!("column {}: {}", error.column(), text.split(" at line ").next().unwrap_or(&text))
    })?;
    if !has_time {
        sample.observed_at_us = mapping.at_row(row)?;
    }
    Ok(())
}

struct ReadingSeed<'s> {
    sample: &'s mut Sample,
    has_time: &'s mut bool,
}

impl<'de> DeserializeSeed<'de> for ReadingSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ReadingSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one reading as a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let fault = |what: String| A::Error::custom(format!("{:?} {what}", Short(&key)));
            let field = Field::from_name(&key)
                .ok_or_else(|| fault("cannot name a metric (1 to 64 of letters, digits, . _ : -)".to_owned()))?;
            match (&field, map.next_value::<Scalar<'de>>()?) {
                (_, Scalar::Null) => {}
                (Field::EngineId, Scalar::Text(text)) => fields::set_engine_id(self.sample, &text).map_err(fault)?,
                (Field::Status, Scalar::Text(text)) => fields::set_status(self.sample, &text).map_err(fault)?,
                (Field::Timestamp, _) if *self.has_time => return Err(fault("appears twice".to_owned())),
                (Field::Timestamp, value) => {
                    let time = match value {
                        Scalar::Text(text) => chrono::DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_micros()),
                        Scalar::Whole(millis) => fields::time_from_millis(millis),
                        _ => None,
                    };
                    self.sample.observed_at_us =
                        time.ok_or_else(|| fault("is neither RFC 3339 nor milliseconds since the epoch".to_owned()))?;
                    *self.has_time = true;
                }
                (_, Scalar::Whole(value)) => fields::set_number(self.sample, &field, value as f64).map_err(fault)?,
                (_, Scalar::Number(value)) => fields::set_number(self.sample, &field, value).map_err(fault)?,
                (_, Scalar::Text(_) | Scalar::Other) => return Err(fault("holds a value of the wrong type".to_owned())),
            }
        }
        Ok(())
    }
}

/// A value that a reading may hold.
enum Scalar<'de> {
    Null,
    Whole(i64),
    Number(f64),
    Text(Cow<'de, str>),
    Other,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Whole(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Scalar::Number(value as f64), Scalar::Whole))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
