//! A reading on its way into the database, and one that came out of it.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{domain::reading::ReadingRef, store::schema::readings};

/// A reading about to be stored: borrowed from its frame, with its number.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Row<'a> {
    /// What was measured.
    pub(in crate::store) reading: ReadingRef<'a>,
    /// Number in the stream.
    pub(in crate::store) seq: i64,
    /// When it arrived, microseconds since the epoch.
    pub(in crate::store) created_at_us: i64,
}

/// A row of `readings`.
#[derive(Clone, Debug, PartialEq, Queryable, QueryableByName, Selectable)]
#[diesel(table_name = readings)]
pub struct StoredReading {
    /// The engine.
    pub engine_id: String,
    /// When it was measured, microseconds since the epoch, UTC.
    pub observed_at_us: i64,
    /// The source's word for its state.
    pub status: Option<String>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Revolutions a minute.
    pub rpm: Option<f64>,
    /// Unit of the source.
    pub pressure: Option<f64>,
    /// Unit of the source.
    pub fuel_flow: Option<f64>,
    /// Further metrics: the text of one JSON object of numbers.
    pub extra: Option<String>,
    /// Which of the `streams` numbered it.
    pub stream_no: i64,
    /// Its number there.
    pub seq: i64,
    /// When it arrived, microseconds since the epoch.
    pub created_at_us: i64,
    /// When the row was changed; `None` while it is as created.
    pub updated_at_us: Option<i64>,
}

impl StoredReading {
    /// The measured part.
    pub fn as_ref(&self) -> ReadingRef<'_> {
        ReadingRef {
            engine_id: &self.engine_id,
            observed_at_us: self.observed_at_us,
            status: self.status.as_deref(),
            temperature: self.temperature,
            rpm: self.rpm,
            pressure: self.pressure,
            fuel_flow: self.fuel_flow,
            extra: self.extra.as_deref(),
        }
    }
}

/// A reading as the text that is kept with a failure. Numbers pass through their own text, so that none changes by a bit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::store) struct Payload {
    pub(in crate::store) engine_id: String,
    pub(in crate::store) observed_at_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store) status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exact")]
    pub(in crate::store) temperature: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exact")]
    pub(in crate::store) rpm: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exact")]
    pub(in crate::store) pressure: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "exact")]
    pub(in crate::store) fuel_flow: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::store) extra: Option<Box<RawValue>>,
    #[serde(default)]
    pub(in crate::store) received_at_us: i64,
}

/// Reads a number by Rust's own parser, which is exact; serde_json's is fast and may be off in the last place.
fn exact<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let text = Option::<Box<RawValue>>::deserialize(deserializer)?;
    text.map(|text| text.get().parse().map_err(serde::de::Error::custom)).transpose()
}

impl Payload {
    pub(in crate::store) fn new(reading: &ReadingRef<'_>, received_at_us: i64) -> Self {
        Self {
            engine_id: reading.engine_id.to_owned(),
            observed_at_us: reading.observed_at_us,
            status: reading.status.map(str::to_owned),
            temperature: reading.temperature,
            rpm: reading.rpm,
            pressure: reading.pressure,
            fuel_flow: reading.fuel_flow,
            extra: reading.extra.and_then(|text| RawValue::from_string(text.to_owned()).ok()),
            received_at_us,
        }
    }

    pub(in crate::store) fn text(&self) -> String {
        // A struct of texts and numbers always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(in crate::store) fn row(&self, seq: i64) -> Row<'_> {
        let reading = ReadingRef {
            engine_id: &self.engine_id,
            observed_at_us: self.observed_at_us,
            status: self.status.as_deref(),
            temperature: self.temperature,
            rpm: self.rpm,
            pressure: self.pressure,
            fuel_flow: self.fuel_flow,
            extra: self.extra.as_deref().map(RawValue::get),
        };
        Row { reading, seq, created_at_us: self.received_at_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_gives_the_reading_back_to_the_bit() {
        let reading = ReadingRef {
            engine_id: "e1",
            observed_at_us: 1_700_000_000_000_001,
            status: Some("a \"b\"\u{0}"),
            temperature: Some(0.1 + 0.2),
            rpm: Some(f64::MAX),
            pressure: Some(5e-324),
            fuel_flow: None,
            extra: Some(r#"{"a":1.10,"b":-4e-3}"#),
        };
        let text = Payload::new(&reading, 7).text();
        let back: Payload = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back.row(1).reading, reading);
        assert_eq!(back.received_at_us, 7);
    }
}
