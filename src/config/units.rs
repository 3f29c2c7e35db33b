//! Durations (`"10s"`) and sizes (`"10MB"`) as people write them. Pure.

use std::time::Duration;

/// Units of a duration, smallest first, in microseconds.
const DURATION_UNITS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Units of a size in bytes: decimal ones first, then binary ones.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Longest duration that can be written: 100 years. It keeps every sum of times inside 64 bits of microseconds.
const DURATION_MAX_US: f64 = 100.0 * 365.25 * 86_400e6;

/// Largest size that can be written: 1 PB, exact in a float.
const SIZE_MAX_BYTES: f64 = 1e15;

/// Reads `"250us"`, `"100ms"`, `"10s"`, `"5m"`, `"1.5h"`, `"7d"`; a bare `0` needs no unit.
///
/// # Errors
/// A sentence that says how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let us = scale(text, &DURATION_UNITS)
        .filter(|us| *us <= DURATION_MAX_US)
        .ok_or("not a duration; write a number and a unit (us, ms, s, m, h, d), for example \"10s\" or \"1.5h\"")?;
    Ok(Duration::from_micros(us.round() as u64))
}

/// Reads `"512kB"`, `"10MB"` (10,000,000 bytes), `"2GB"`, `"16MiB"` (16 × 1,048,576 bytes), `"100B"`; a bare `0` needs no unit.
///
/// # Errors
/// A sentence that says how to write it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let bytes = scale(text, &SIZE_UNITS)
        .filter(|bytes| *bytes <= SIZE_MAX_BYTES)
        .ok_or("not a size; write a number and a unit (B, kB, MB, GB, TB, KiB, MiB, GiB), for example \"10MB\"")?;
    Ok(bytes.round() as u64)
}

/// The shortest text that [`parse_duration`] reads back as the same duration (whole microseconds).
pub fn format_duration(duration: Duration) -> String {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    format_whole(us, &DURATION_UNITS, "0s")
}

/// The shortest text with a decimal unit that [`parse_size`] reads back as the same size.
pub fn format_size(bytes: u64) -> String {
    let units: Vec<_> = SIZE_UNITS.iter().copied().filter(|(unit, _)| !unit.contains('i') && *unit != "KB").collect();
    format_whole(bytes, &units, "0B")
}

fn format_whole(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    if amount == 0 {
        return zero.to_owned();
    }
    units
        .iter()
        .rev()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .map_or_else(String::new, |(unit, factor)| format!("{}{unit}", amount / factor))
}

/// The number before the unit times the unit; `None` for anything but plain decimal digits with at most one point.
fn scale(text: &str, units: &[(&str, u64)]) -> Option<f64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(number.parse::<f64>().ok()? * *factor as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, us) in [
            ("0", 0),
            ("250us", 250),
            ("100ms", 100_000),
            ("10s", 10_000_000),
            ("0.5s", 500_000),
            ("5m", 300_000_000),
            ("1.5h", 5_400_000_000),
            ("7d", 604_800_000_000),
            (" 7 d ", 604_800_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.2.3s", "10 sec", "1e3s", "inf s", ".5s", "1000000d", "10S", "∞"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("100B", 100),
            ("1kB", 1_000),
            ("1KB", 1_000),
            ("10MB", 10_000_000),
            ("1.5GB", 1_500_000_000),
            ("1MiB", 1_048_576),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "10", "MB", "-1MB", "10mb", "9999999TB", "1 Mo"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_formatted_is_read_back_as_the_same() {
        for us in [0, 1, 999, 1_000, 1_500_000, 60_000_000, 5_400_000_000, 86_400_000_000 * 3650] {
            let duration = Duration::from_micros(us);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1_000, 1_048_576, 10_000_000, 2_000_000_000] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_duration(Duration::from_secs(5400)), "90m");
        assert_eq!(format_size(10_000_000), "10MB");
    }
}
