//! A reading: what one engine measured at one moment.

/// Longest engine id and metric name, in bytes (both are ASCII).
pub const NAME_MAX_BYTES: usize = 64;
/// Longest status, in characters.
pub const STATUS_MAX_CHARS: usize = 32;
/// Most metrics beyond the four named ones.
pub const EXTRA_MAX: usize = 32;
/// The four metrics that have columns of their own, in their SQL spelling.
pub const NAMED_METRICS: [&str; 4] = ["temperature", "rpm", "pressure", "fuel_flow"];

/// A valid reading, borrowed from the bytes it came in or is kept in.
///
/// Metrics are finite. Temperatures are in degrees Celsius, speeds in revolutions a minute; pressure and fuel flow are in
/// whatever unit the source measures in: belayd compares, it does not convert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadingRef<'a> {
    /// 1 to 64 of letters, digits, `.`, `_`, `:`, `-`.
    pub engine_id: &'a str,
    /// Microseconds since the epoch, UTC.
    pub observed_at_us: i64,
    /// At most 32 characters.
    pub status: Option<&'a str>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Revolutions a minute.
    pub rpm: Option<f64>,
    /// Unit of the source.
    pub pressure: Option<f64>,
    /// Unit of the source.
    pub fuel_flow: Option<f64>,
    /// Further metrics as the text of one JSON object, keys sorted, finite numbers only; `None` where there are none.
    pub extra: Option<&'a str>,
}

impl ReadingRef<'_> {
    /// The value of a metric by its SQL name (`fuel_flow`), or of one in `extra`; `None` where the reading lacks it.
    pub fn metric(&self, name: &str) -> Option<f64> {
        match name {
            "temperature" => self.temperature,
            "rpm" => self.rpm,
            "pressure" => self.pressure,
            "fuel_flow" => self.fuel_flow,
            other => extra_metric(self.extra?, other),
        }
    }
}

/// Finds one number in the text of a flat JSON object of numbers. `extra` is short (at most 32 entries), so a scan is enough.
fn extra_metric(extra: &str, name: &str) -> Option<f64> {
    let mut rest = extra.strip_prefix('{')?.strip_suffix('}')?;
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix('"')?.split_once("\":")?;
        let (value, tail) = after.split_once(',').unwrap_or((after, ""));
        if key == name {
            return value.parse().ok();
        }
        rest = tail;
    }
    None
}

/// Whether `text` may name an engine or a metric: 1 to 64 of letters, digits, `.`, `_`, `:`, `-`.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_name_wherever_it_is_kept() {
        let reading = ReadingRef {
            engine_id: "e1",
            observed_at_us: 0,
            status: None,
            temperature: Some(1.0),
            rpm: None,
            pressure: None,
            fuel_flow: Some(2.0),
            extra: Some(r#"{"oil":3.5,"vibration":-4e-3}"#),
        };
        assert_eq!(reading.metric("temperature"), Some(1.0));
        assert_eq!(reading.metric("rpm"), None);
        assert_eq!(reading.metric("fuel_flow"), Some(2.0));
        assert_eq!(reading.metric("oil"), Some(3.5));
        assert_eq!(reading.metric("vibration"), Some(-4e-3));
        assert_eq!(reading.metric("oi"), None);
    }

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("CFM56-7B:left.1_a"));
        assert!(!is_name(""));
        assert!(!is_name("a b"));
        assert!(!is_name("é"));
        assert!(!is_name(&"x".repeat(65)));
    }
}
