//! Duty: the stable table of reasons for which a reading or a whole body is refused: code, HTTP status, hint.
//! Comes in: nothing. Goes out: [`Reason`], [`Rejection`] (one item) and [`BodyError`] (the whole body). A crash loses nothing.
//!
//! Codes are part of the outer contract: senders and dashboards select by them, so a code is never renamed or reused.

use std::fmt;

use serde::{Serialize, Serializer};

/// Why a reading, or a whole body, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the table below says what each means
pub enum Reason {
    MissingEngineId,
    BadEngineId,
    MissingMetric,
    DuplicateKey,
    WrongType,
    NotFinite,
    OutOfRange,
    BadTimestamp,
    TooFarAhead,
    TooOld,
    BadStatus,
    TooManyExtra,
    BadExtraName,
    NotAnObject,
    TooDeep,
    TooManyItems,
    EmptyBody,
    CutBody,
    BadJson,
    BadEncoding,
    BodyTooLarge,
    NothingValid,
    BadGzip,
    GzipBomb,
    UnsupportedCoding,
    UnsupportedMediaType,
}

/// One row of the table: what is fixed about a reason.
struct Row {
    reason: Reason,
    code: &'static str,
    /// HTTP status where the whole body is refused for it.
    status: u16,
    hint: &'static str,
}

const fn row(reason: Reason, code: &'static str, status: u16, hint: &'static str) -> Row {
    Row { reason, code, status, hint }
}

/// In the order of [`Reason`]; a test holds the two together.
const TABLE: [Row; 26] = [
    row(Reason::MissingEngineId, "missing_engine_id", 400, "give every reading \"engineId\""),
    row(Reason::BadEngineId, "bad_engine_id", 400, "use 1 to 64 of the characters A-Z a-z 0-9 . _ : -"),
    row(
        Reason::MissingMetric,
        "missing_metric",
        400,
        "give at least one of temperature, rpm, pressure, fuelFlow, or another numeric field",
    ),
    row(Reason::DuplicateKey, "duplicate_key", 400, "send each field once, in one spelling"),
    row(
        Reason::WrongType,
        "wrong_type",
        400,
        "metrics are JSON numbers (no quotes); only engineId, status and timestamp may be text; a reading is flat",
    ),
    row(Reason::NotFinite, "not_finite", 400, "leave the metric out when there is no finite value"),
    row(Reason::OutOfRange, "out_of_range", 400, "check the sensor, or widen the range in [readings.ranges]"),
    row(
        Reason::BadTimestamp,
        "bad_timestamp",
        400,
        "use RFC 3339 with an offset (2026-01-31T12:00:00.000001Z) or milliseconds since the epoch as a number",
    ),
    row(
        Reason::TooFarAhead,
        "too_far_ahead",
        400,
        "check the sender's clock and its unit (milliseconds), or raise readings.max_ahead",
    ),
    row(
        Reason::TooOld,
        "too_old",
        400,
        "check the sender's clock and its unit (milliseconds), or raise readings.max_behind and retention.readings",
    ),
    row(Reason::BadStatus, "bad_status", 400, "use at most 32 characters, none of them control characters"),
    row(Reason::TooManyExtra, "too_many_extra", 400, "send at most 32 further metrics in one reading"),
    row(Reason::BadExtraName, "bad_extra_name", 400, "name further metrics with 1 to 64 of the characters A-Z a-z 0-9 . _ : -"),
    row(Reason::NotAnObject, "not_an_object", 400, "a reading is a JSON object: {\"engineId\": \"e1\", \"rpm\": 5000}"),
    row(Reason::TooDeep, "too_deep", 400, "a reading is flat: send no nested objects or arrays"),
    row(Reason::TooManyItems, "too_many_items", 413, "split the readings over several requests"),
    row(Reason::EmptyBody, "empty_body", 400, "send one reading, an array of readings, or NDJSON"),
    row(Reason::CutBody, "cut_body", 400, "the body ends too early; send the whole body again, nothing of it was taken"),
    row(
        Reason::BadJson,
        "bad_json",
        400,
        "mend the JSON at the named place; several readings one after another are application/x-ndjson",
    ),
    row(Reason::BadEncoding, "bad_encoding", 400, "send UTF-8"),
    row(Reason::BodyTooLarge, "body_too_large", 413, "send less in one request; readings can be split over several"),
    row(Reason::NothingValid, "nothing_valid", 400, "every reading was refused; see details for each reason"),
    row(Reason::BadGzip, "bad_gzip", 400, "send a complete gzip stream, or leave Content-Encoding out"),
    row(Reason::GzipBomb, "gzip_bomb", 413, "send less in one request; readings can be split over several"),
    row(Reason::UnsupportedCoding, "unsupported_coding", 415, "use Content-Encoding: gzip, or none"),
    row(Reason::UnsupportedMediaType, "unsupported_media_type", 415, "use Content-Type: application/json or application/x-ndjson"),
];

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = TABLE.len();

    /// Every reason, in the order of the table.
    pub fn all() -> impl Iterator<Item = Reason> {
        TABLE.iter().map(|row| row.reason)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The stable code, also the `reason` label of `belayd_readings_rejected_total`.
    pub fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The HTTP status where a whole body is refused for this.
    pub fn status(self) -> u16 {
        self.row().status
    }

    /// What the sender can do about it.
    pub fn hint(self) -> &'static str {
        self.row().hint
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One item that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejection {
    /// Which item of the body, from 0; blank lines of NDJSON do not count.
    pub index: u32,
    /// Why.
    pub code: Reason,
    /// One English sentence that names the field.
    pub message: String,
}

/// A body that is refused as a whole: nothing of it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyError {
    /// Why.
    pub code: Reason,
    /// One English sentence that names the place.
    pub message: String,
}

impl BodyError {
    /// A refusal for `code`, told by `message`.
    pub fn new(code: Reason, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// What the sender can do about it.
    pub fn hint(&self) -> &'static str {
        self.code.hint()
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_place_with_a_code_and_a_hint_of_its_own() {
        for (place, reason) in Reason::all().enumerate() {
            assert_eq!(reason as usize, place, "{reason}");
            assert!(!reason.hint().is_empty());
            assert!((400..500).contains(&reason.status()));
        }
        let mut codes: Vec<_> = Reason::all().map(Reason::as_str).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::COUNT);
    }
}
