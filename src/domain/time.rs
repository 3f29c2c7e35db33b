//! How moments are written for people and programs.

use chrono::{DateTime, SecondsFormat};

/// RFC 3339 in UTC with microseconds: `2026-11-20T18:00:00.000001Z`. A moment beyond the calendar's range reads as the epoch.
pub fn rfc3339_us(at_us: i64) -> String {
    DateTime::from_timestamp_micros(at_us).unwrap_or(DateTime::UNIX_EPOCH).to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_six_digits_and_end_in_z() {
        assert_eq!(rfc3339_us(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339_us(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
        assert_eq!(rfc3339_us(i64::MAX), "1970-01-01T00:00:00.000000Z");
    }
}
