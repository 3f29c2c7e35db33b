//! One reading as the value of a record: the JSON that `GET /api/readings` answers with, made without a detour over owned texts.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::{reading::ReadingRef, time::rfc3339_us};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    engine_id: &'a str,
    timestamp: &'a str,
    status: Option<&'a str>,
    temperature: Option<f64>,
    rpm: Option<f64>,
    pressure: Option<f64>,
    fuel_flow: Option<f64>,
    extra: Option<&'a RawValue>,
    created_at: &'a str,
    updated_at: Option<&'a str>,
}

/// Renders readings one after the other into one buffer.
#[derive(Debug, Default)]
pub struct Rendering {
    created_at_us: Option<i64>,
    created_at: String,
    bytes: Vec<u8>,
}

impl Rendering {
    /// The reading as JSON, until the next call.
    pub fn render(&mut self, reading: &ReadingRef<'_>, created_at_us: i64) -> &[u8] {
        if self.created_at_us != Some(created_at_us) {
            self.created_at = rfc3339_us(created_at_us);
            self.created_at_us = Some(created_at_us);
        }
        let wire = Wire {
            engine_id: reading.engine_id,
            timestamp: &rfc3339_us(reading.observed_at_us),
            status: reading.status,
            temperature: reading.temperature,
            rpm: reading.rpm,
            pressure: reading.pressure,
            fuel_flow: reading.fuel_flow,
            extra: reading.extra.and_then(|text| serde_json::from_str(text).ok()),
            created_at: &self.created_at,
            updated_at: None,
        };
        self.bytes.clear();
        // A struct of texts and finite numbers always has a JSON form, and memory takes it.
        let _ = serde_json::to_writer(&mut self.bytes, &wire);
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_rendered_whole_and_one_after_the_other() {
        let mut rendering = Rendering::default();
        let reading = ReadingRef {
            engine_id: "e1",
            observed_at_us: 1_700_000_000_000_001,
            status: Some("a \"b\""),
            temperature: Some(350.25),
            rpm: None,
            pressure: Some(-0.5),
            fuel_flow: None,
            extra: Some(r#"{"egt":1.10}"#),
        };
        let text = String::from_utf8(rendering.render(&reading, 1_700_000_000_000_002).to_vec()).expect("UTF-8");
        assert_eq!(
            text,
            r#"{"engineId":"e1","timestamp":"2023-11-14T22:13:20.000001Z","status":"a \"b\"","temperature":350.25,"rpm":null,"pressure":-0.5,"fuelFlow":null,"extra":{"egt":1.10},"createdAt":"2023-11-14T22:13:20.000002Z","updatedAt":null}"#
        );
        let again = rendering.render(&ReadingRef { engine_id: "e2", extra: None, ..reading }, 0).to_vec();
        assert!(String::from_utf8_lossy(&again).starts_with(r#"{"engineId":"e2""#));
        assert!(String::from_utf8_lossy(&again).contains(r#""createdAt":"1970-01-01T00:00:00.000000Z""#));
    }
}
