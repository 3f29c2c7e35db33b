//! Bodies of readings, plain and packed: no bytes panic, what is taken can be read back and keeps its bounds, and what is taken as
//! JSON is JSON in the eyes of serde_json too.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use belayd::{
    clock::{ArrivalClock, ManualClock},
    config::ReadingsConfig,
    domain::{
        batch::Batch,
        reading::{STATUS_MAX_CHARS, is_name},
    },
    ingest::{
        gzip::Coding,
        parse::{BodyKind, FieldMap, ParseContext, Parsed, parse_body},
        reason::{BodyError, Reason},
    },
};
use libfuzzer_sys::fuzz_target;

const NOW_US: i64 = 1_795_197_600_000_000;
const MAX_BYTES: usize = 1 << 20;

static LIMITS: LazyLock<ReadingsConfig> = LazyLock::new(|| ReadingsConfig {
    max_ahead: Duration::from_secs(86_400),
    max_behind: Duration::from_secs(315_360_000),
    ranges: [("rpm".to_owned(), (0.0, 1e6))].into(),
    max_engines: 10,
});
static FIELDS: LazyLock<FieldMap> =
    LazyLock::new(|| FieldMap::new(&[("temperature".to_owned(), "egt".to_owned()), ("oil".to_owned(), "Oil".to_owned())].into()));

fn parse(kind: BodyKind, body: &[u8], fields: Option<&FieldMap>) -> Result<Parsed, BodyError> {
    let arrival = ArrivalClock::new(ManualClock::at(NOW_US));
    let context = ParseContext { fields, max_items: 100, max_bytes: MAX_BYTES, ..ParseContext::new(&LIMITS, &arrival) };
    let outcome = parse_body(kind, body, &context);
    match &outcome {
        Ok(parsed) => check(parsed),
        Err(error) => assert!(error.message.len() < 1_000),
    }
    outcome
}

fn check(parsed: &Parsed) {
    let bytes = parsed.batch.bytes().clone();
    assert_eq!(Batch::from_bytes(NOW_US, parsed.batch.len(), bytes).as_ref(), Ok(&parsed.batch));
    for reading in parsed.batch.iter() {
        assert!(is_name(reading.engine_id));
        assert!(reading.status.is_none_or(|status| status.chars().count() <= STATUS_MAX_CHARS));
        let named = [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow];
        assert!(named.iter().flatten().all(|value| value.is_finite()));
        assert!(reading.extra.is_some() || named.iter().any(Option::is_some));
        if let Some(extra) = reading.extra {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(extra).expect("an object");
            assert!(object.iter().all(|(name, value)| is_name(name) && reading.metric(name) == value.as_f64()));
        }
    }
    let refused: u32 = parsed.rejected_by.iter().map(|(_, count)| count).sum();
    assert_eq!(refused, parsed.rejected_total);
    assert!(parsed.rejected.iter().all(|rejection| rejection.message.len() < 1_000));
    assert_eq!(parsed.refusal().is_some(), parsed.batch.is_empty());
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, body)) = data.split_first() else { return };
    match mode % 4 {
        0 => {
            let outcome = parse(BodyKind::Json, body, None);
            let theirs = serde_json::from_slice::<serde_json::Value>(body);
            match (outcome, theirs) {
                // Numbers beyond f64, and the words for them, cost one reading here and the whole document there.
                (Ok(parsed), Err(error)) => {
                    let text = String::from_utf8_lossy(body);
                    let beyond = error.to_string().contains("out of range") || text.contains("NaN") || text.contains("Infinity");
                    let marked = body.starts_with(b"\xef\xbb\xbf");
                    assert!(marked || beyond && parsed.rejected_total > 0, "taken, but no JSON: {error}");
                }
                (Err(error), Ok(_)) => assert!(
                    matches!(error.code, Reason::EmptyBody | Reason::TooDeep | Reason::TooManyItems),
                    "JSON, but refused: {error}"
                ),
                _ => {}
            }
        }
        1 => drop(parse(BodyKind::Ndjson, body, None)),
        2 => drop(parse(BodyKind::Json, body, Some(&FIELDS))),
        _ => {
            if let Ok(plain) = Coding::Gzip.decode(body, MAX_BYTES) {
                assert!(plain.len() <= MAX_BYTES);
                let _ = parse(BodyKind::Ndjson, &plain, None);
            }
        }
    }
});
