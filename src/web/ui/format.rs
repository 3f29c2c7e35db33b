//! Numbers, times and words as the page writes them. `format.js` does the same for the live page, rule by rule: change
//! both or neither. A browser test compares what they make of one snapshot.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::lang::Lang;

/// A way to write for one visitor at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Say {
    pub(super) lang: Lang,
    /// The moment the snapshot was taken: ages are counted to it. Milliseconds since the epoch.
    pub(super) now_ms: i64,
}

/// The number at a JSON pointer.
pub(super) fn number(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer)?.as_f64()
}

/// The text at a JSON pointer; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the array at a JSON pointer.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Milliseconds since the epoch of an RFC 3339 time.
pub(super) fn instant_ms(rfc3339: &str) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(rfc3339).ok()?.timestamp_millis())
}

/// `value` with at most 2 `digits` decimals, as JavaScript's `toFixed` writes it: by the exact binary value, and a tie goes
/// away from zero, where Rust's own formatting goes to the even digit.
pub(super) fn fixed(value: f64, digits: u8) -> String {
    let places = usize::from(digits);
    // Only a multiple of 2^-(digits + 1) can lie exactly between two decimals, and its product with 10^digits is exact.
    let tie_grid = f64::from(2_u32 << digits);
    if (value * tie_grid).fract() == 0.0 {
        let scale = 10_f64.powi(i32::from(digits));
        return format!("{:.places$}", (value * scale).round() / scale);
    }
    format!("{value:.places$}")
}

impl Say {
    /// The text of `key` with its slots filled.
    pub(super) fn fill(self, key: &str, slots: &[(&str, &str)]) -> String {
        slots.iter().fold(self.lang.text(key).to_owned(), |text, (slot, value)| text.replace(&format!("{{{slot}}}"), value))
    }

    /// The text of `key`.
    pub(super) fn text(self, key: &str) -> String {
        self.lang.text(key).to_owned()
    }

    /// A word of the wire (`half-open`) in the visitor's language; the word itself where the table lacks it.
    pub(super) fn word(self, prefix: &str, word: &str) -> String {
        let key = format!("{prefix}.{word}");
        let text = self.lang.text(&key);
        if text == key { word.to_owned() } else { text.to_owned() }
    }

    /// `value` with `digits` decimals and commas between thousands.
    pub(super) fn number(self, value: Option<f64>, digits: u8) -> String {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return self.text("unknown");
        };
        let plain = fixed(value, digits);
        let (whole, decimals) = plain.split_once('.').map_or((plain.as_str(), None), |(whole, decimals)| (whole, Some(decimals)));
        let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
        let mut out = String::from(sign);
        for (i, digit) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        if let Some(decimals) = decimals {
            out.push('.');
            out.push_str(decimals);
        }
        out
    }

    /// A count.
    pub(super) fn count(self, value: Option<f64>) -> String {
        self.number(value, 0)
    }

    /// A size in bytes, by thousands.
    pub(super) fn bytes(self, value: Option<f64>) -> String {
        let Some(mut size) = value else { return self.text("unknown") };
        let mut unit = "B";
        for larger in ["kB", "MB", "GB", "TB"] {
            if size < 1_000.0 {
                break;
            }
            size /= 1_000.0;
            unit = larger;
        }
        let digits = u8::from(unit != "B" && size < 100.0);
        format!("{} {unit}", self.number(Some(size), digits))
    }

    /// A length of time, in its largest whole unit.
    pub(super) fn span(self, ms: f64) -> String {
        let ms = ms.max(0.0);
        let (unit, n) = match ms {
            ms if ms < 1_000.0 => ("unit.ms", ms),
            ms if ms < 60_000.0 => ("unit.s", ms / 1_000.0),
            ms if ms < 3_600_000.0 => ("unit.min", ms / 60_000.0),
            ms if ms < 172_800_000.0 => ("unit.h", ms / 3_600_000.0),
            ms => ("unit.d", ms / 86_400_000.0),
        };
        self.fill(unit, &[("n", &self.count(Some(n.floor())))])
    }

    /// How long ago a time is, in its largest whole unit, at least a second.
    pub(super) fn since(self, rfc3339: &str) -> String {
        match instant_ms(rfc3339) {
            #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds is far below 2^53")]
            Some(then) => self.span(((self.now_ms - then) as f64).max(1_000.0)),
            None => self.text("unknown"),
        }
    }

    /// `3 s ago`, or that it is just now.
    pub(super) fn ago(self, rfc3339: &str) -> String {
        match instant_ms(rfc3339) {
            Some(then) if self.now_ms - then < 2_000 => self.text("now"),
            Some(_) => self.fill("ago", &[("time", &self.since(rfc3339))]),
            None => self.text("unknown"),
        }
    }

    /// The time of day, with the date where it is not within a day of now. The script writes it in the visitor's own time
    /// zone, which only the browser knows.
    pub(super) fn clock(self, rfc3339: &str) -> String {
        let Some(at) = instant_ms(rfc3339).and_then(DateTime::<Utc>::from_timestamp_millis) else {
            return self.text("unknown");
        };
        let format = if (self.now_ms - at.timestamp_millis()).abs() < 86_400_000 { "%H:%M:%S UTC" } else { "%m-%d %H:%M UTC" };
        at.format(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sizes_and_spans_read_as_a_person_writes_them() {
        let say = Say { lang: Lang::En, now_ms: instant_ms("2026-01-02T03:04:05Z").unwrap() };
        assert_eq!(say.number(Some(1234567.25), 1), "1,234,567.3");
        assert_eq!(say.number(Some(-999.0), 0), "-999");
        assert_eq!(say.number(Some(309.65), 1), "309.6");
        assert_eq!(say.number(Some(-0.125), 2), "-0.13");
        assert_eq!(say.number(Some(2.5), 0), "3");
        assert_eq!(say.number(Some(f64::NAN), 0), "–");
        assert_eq!(say.number(None, 0), "–");
        assert_eq!(say.bytes(Some(999.0)), "999 B");
        assert_eq!(say.bytes(Some(10_000_000.0)), "10.0 MB");
        assert_eq!(say.bytes(Some(512_300_000.0)), "512 MB");
        assert_eq!(say.span(59_999.0), "59 s");
        assert_eq!(say.span(3_600_000.0), "1 h");
        assert_eq!(say.ago("2026-01-02T03:04:04.5Z"), "just now");
        assert_eq!(say.ago("2026-01-02T03:00:04Z"), "4 min ago");
        assert_eq!(say.ago("yesterday"), "–");
        assert_eq!(say.clock("2026-01-01T23:59:01Z"), "23:59:01 UTC");
        assert_eq!(say.clock("2025-12-24T18:00:00Z"), "12-24 18:00 UTC");
    }
}
