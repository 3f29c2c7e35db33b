//! Duty: times as readings give them, as microseconds since the epoch, UTC. Digits beyond the microsecond are cut, not rounded.
//! Comes in: text or a number. Goes out: microseconds. Pure: a crash loses nothing.

const US_PER_S: i64 = 1_000_000;

/// Reads an RFC 3339 time with its offset: `2026-01-31T12:00:00.123456+01:00`. `t`, `z` and a space for `T` are understood.
///
/// The second 60 is taken at 23:59 UTC only, where leap seconds happen, and counts as the first second of the next day, as POSIX
/// time has it. `None` where the text is no such time.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    let (head, rest) = text.as_bytes().split_first_chunk::<19>()?;
    if head[4] != b'-' || head[7] != b'-' || head[13] != b':' || head[16] != b':' || !matches!(head[10], b'T' | b't' | b' ') {
        return None;
    }
    let pair = |at: usize| Some(digit(head[at])? * 10 + digit(head[at + 1])?);
    let year = pair(0)? * 100 + pair(2)?;
    let (month, day, hour, minute, second) = (pair(5)?, pair(8)?, pair(11)?, pair(14)?, pair(17)?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_us, rest) = fraction(rest)?;
    let minutes = days_since_epoch(year, month, day) * 1_440 + hour * 60 + minute - offset_min(rest)?;
    if second == 60 && minutes.rem_euclid(1_440) != 1_439 {
        return None;
    }
    Some((minutes * 60 + second) * US_PER_S + fraction_us)
}

/// Reads a JSON number as milliseconds since the epoch; `value` is the same number as f64, which serves for those with an exponent.
/// `None` where it is beyond what microseconds can say.
pub fn from_millis(raw: &str, value: f64) -> Option<i64> {
    let (negative, unsigned) = raw.strip_prefix('-').map_or((false, raw), |rest| (true, rest));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if !unsigned.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let us = (value * 1_000.0).floor();
        return (us.abs() < i64::MAX as f64).then_some(us as i64);
    }
    let mut us = whole.parse::<i64>().ok()?;
    let digits = fraction.bytes().map(|b| i64::from(b - b'0'));
    for digit in digits.clone().chain(std::iter::repeat(0)).take(3) {
        us = us.checked_mul(10)?.checked_add(digit)?;
    }
    // Cutting goes towards the past, before the epoch too.
    let cut = digits.skip(3).any(|digit| digit != 0);
    Some(if negative { -us - i64::from(cut) } else { us })
}

#[inline]
fn digit(byte: u8) -> Option<i64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(i64::from(digit))
}

/// The fraction of a second in microseconds, and what follows it.
#[inline]
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = rest else { return Some((0, rest)) };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let six = digits[..count].iter().chain(std::iter::repeat(&b'0')).take(6);
    let us = six.fold(0, |us, digit| us * 10 + i64::from(digit - b'0'));
    Some((us, &digits[count..]))
}

/// The offset in minutes east of UTC; it must be all that is left.
#[inline]
fn offset_min(rest: &[u8]) -> Option<i64> {
    match rest {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digit(*h1)? * 10 + digit(*h2)?, digit(*m1)? * 10 + digit(*m2)?);
            let offset = hours * 60 + minutes;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

#[inline]
fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, after Howard Hinnant's `days_from_civil`: the year begins in March,
/// so that the leap day is its last.
#[inline]
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, SecondsFormat};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn offsets_fractions_and_spellings_name_the_same_moment() {
        let noon = 1_769_860_800_000_000;
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31 12:00:00.000000000000Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T06:30:00.0-05:30",
            "2026-01-31T12:00:00-00:00",
        ] {
            assert_eq!(from_rfc3339(text), Some(noon), "{text}");
        }
        assert_eq!(from_rfc3339("2026-01-31T12:00:00.1234567Z"), Some(noon + 123_456));
        assert_eq!(from_rfc3339("1969-12-31T23:59:59.9999999Z"), Some(-1));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-02-29T12:00:00Z",
            "1900-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:60Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "2026-01-31T12:00:00ZZ",
            "2026-01-31T12:00:00.5",
            " 2026-01-31T12:00:00Z",
            "2026-01-31X12:00:00Z",
            "+2026-01-31T12:00:00Z",
            "２026-01-31T12:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_the_first_second_of_the_next_day() {
        let next_day = from_rfc3339("2017-01-01T00:00:00.25Z");
        assert_eq!(from_rfc3339("2016-12-31T23:59:60.25Z"), next_day);
        assert_eq!(from_rfc3339("2017-01-01T00:59:60.25+01:00"), next_day);
        assert_eq!(from_rfc3339("2016-12-31T23:59:60+01:00"), None);
    }

    #[test]
    fn milliseconds_are_cut_exactly_where_a_float_would_round() {
        for (raw, us) in [
            ("1700000000000", Some(1_700_000_000_000_000)),
            ("1700000000000.124", Some(1_700_000_000_000_124)),
            ("1700000000000.1249999", Some(1_700_000_000_000_124)),
            ("1700000000000.5", Some(1_700_000_000_000_500)),
            ("1.7e12", Some(1_700_000_000_000_000)),
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-1.0001", Some(-1_001)),
            ("-1.5", Some(-1_500)),
            ("9300000000000000", None),
            ("99999999999999999999", None),
            ("1e300", None),
        ] {
            assert_eq!(from_millis(raw, raw.parse().unwrap_or(f64::NAN)), us, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_read_as_chrono_writes_it(us in -62_135_596_800_000_000i64..253_402_300_799_999_999, offset_min in -1439i32..1439) {
            let Some(utc) = DateTime::from_timestamp_micros(us) else { return Ok(()) };
            prop_assert_eq!(from_rfc3339(&utc.to_rfc3339_opts(SecondsFormat::Micros, true)), Some(us));
            let Some(offset) = chrono::FixedOffset::east_opt(offset_min * 60) else { return Ok(()) };
            let local = utc.with_timezone(&offset).to_rfc3339();
            if local.as_bytes()[4] == b'-' && local.as_bytes()[0] != b'-' {
                prop_assert_eq!(from_rfc3339(&local), Some(us), "{}", local);
            }
        }

        #[test]
        fn any_text_is_judged_as_chrono_judges_it(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-6][0-9])") {
            let theirs = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_micros());
            prop_assert_eq!(from_rfc3339(&text), theirs, "{}", text);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            from_rfc3339(&text);
            from_millis(&text.chars().filter(char::is_ascii_digit).collect::<String>(), 0.0);
        }
    }
}
