use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::{clock::ManualClock, domain::reading::ReadingRef};

/// 2026-11-20T18:00:00Z
const NOW_US: i64 = 1_795_197_600_000_000;

fn limits() -> ReadingsConfig {
    ReadingsConfig {
        max_ahead: Duration::from_secs(86_400),
        max_behind: Duration::from_secs(10 * 365 * 86_400),
        ranges: [("rpm".to_owned(), (0.0, 100_000.0)), ("oil".to_owned(), (-10.0, 10.0))].into(),
        max_engines: 1_000,
    }
}

fn parse_with(kind: BodyKind, body: &[u8], fields: Option<&FieldMap>) -> Result<Parsed, BodyError> {
    let arrival = ArrivalClock::new(ManualClock::at(NOW_US));
    let limits = limits();
    parse_body(kind, body, &ParseContext { fields, ..ParseContext::new(&limits, &arrival) })
}

fn json_body(body: impl AsRef<[u8]>) -> Result<Parsed, BodyError> {
    parse_with(BodyKind::Json, body.as_ref(), None)
}

fn ndjson_body(body: impl AsRef<[u8]>) -> Result<Parsed, BodyError> {
    parse_with(BodyKind::Ndjson, body.as_ref(), None)
}

/// The code and message with which a body of no valid reading is answered.
fn refusal(outcome: Result<Parsed, BodyError>) -> BodyError {
    outcome.map_or_else(|error| error, |parsed| parsed.refusal().expect("nothing is valid"))
}

#[test]
fn every_malformed_body_gets_its_code_message_and_hint() {
    let engine = |rest: &str| format!(r#"{{"engineId":"e1",{rest}}}"#);
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let many_extra = (0..33).map(|n| format!("\"m{n}\":{n}")).collect::<Vec<_>>().join(",");
    let table: &[(&str, String, &str)] = &[
        ("missing_engine_id", r#"{"rpm":1}"#.into(), "engineId"),
        ("missing_engine_id", r#"{"engineId":null,"rpm":1}"#.into(), "engineId"),
        ("missing_engine_id", "{}".into(), "engineId"),
        ("bad_engine_id", r#"{"engineId":"","rpm":1}"#.into(), "\"\""),
        ("bad_engine_id", r#"{"engineId":"a b","rpm":1}"#.into(), "a b"),
        ("bad_engine_id", r#"{"engineId":"a\u0000","rpm":1}"#.into(), r"a\0"),
        ("bad_engine_id", format!(r#"{{"engineId":"{}","rpm":1}}"#, "x".repeat(65)), "xxx"),
        ("wrong_type", r#"{"engineId":7,"rpm":1}"#.into(), "a number, not text"),
        ("missing_metric", r#"{"engineId":"e1"}"#.into(), "no metric"),
        ("missing_metric", engine(r#""status":"ok","rpm":null"#), "no metric"),
        ("duplicate_key", engine(r#""rpm":1,"rpm":1"#), "rpm"),
        ("duplicate_key", engine(r#""engine_id":"e1","rpm":1"#), "engine_id"),
        ("duplicate_key", engine(r#""fuelFlow":1,"fuel_flow":1"#), "fuel_flow"),
        ("duplicate_key", engine(r#""rpm":null,"rpm":1"#), "rpm"),
        ("duplicate_key", engine(r#""oil":1,"oil":1"#), "oil"),
        ("duplicate_key", engine(r#""rpm":1,"\u0072pm":1"#), "rpm"),
        ("wrong_type", engine(r#""temperature":"300""#), "\"temperature\" is text, not a number"),
        ("wrong_type", engine(r#""temperature":true"#), "a boolean"),
        ("wrong_type", engine(r#""rpm":1,"oil":{"a":1}"#), "\"oil\" is an object"),
        ("wrong_type", engine(r#""rpm":1,"oil":[1]"#), "\"oil\" is an array"),
        ("wrong_type", engine(r#""rpm":1,"oil":null"#), "\"oil\" is null"),
        ("wrong_type", engine(r#""rpm":1,"note":"hot""#), "\"note\" is text"),
        ("wrong_type", engine(r#""rpm":1,"status":5"#), "status"),
        ("wrong_type", engine(r#""rpm":1,"timestamp":true"#), "timestamp"),
        ("not_finite", engine(r#""rpm":1e999"#), "1e999"),
        ("not_finite", engine(r#""oil":-1e999"#), "-1e999"),
        ("not_finite", engine(r#""rpm":NaN"#), "NaN"),
        ("not_finite", engine(r#""rpm":-Infinity"#), "-Infinity"),
        ("out_of_range", engine(r#""rpm":-1"#), "-1 is outside 0 to 100000"),
        ("out_of_range", engine(r#""oil":11"#), "\"oil\" 11"),
        ("bad_timestamp", engine(r#""rpm":1,"timestamp":"yesterday""#), "yesterday"),
        ("bad_timestamp", engine(r#""rpm":1,"timestamp":"2026-11-20T18:00:00""#), "2026-11-20T18:00:00"),
        ("bad_timestamp", engine(r#""rpm":1,"timestamp":1e300"#), "1e300"),
        ("too_far_ahead", engine(r#""rpm":1,"timestamp":"2026-11-21T18:00:00.000001Z""#), "ahead"),
        ("too_far_ahead", engine(r#""rpm":1,"timestamp":1795197600000000"#), "ahead"),
        ("too_old", engine(r#""rpm":1,"timestamp":1795197600"#), "behind"),
        ("too_old", engine(r#""rpm":1,"timestamp":"2016-01-01T00:00:00Z""#), "behind"),
        ("bad_status", engine(&format!(r#""rpm":1,"status":"{}""#, "é".repeat(33))), "longer than 32"),
        ("bad_status", engine(r#""rpm":1,"status":"a\u0000b""#), "control"),
        ("too_many_extra", engine(&many_extra), "m32"),
        ("bad_extra_name", engine(r#""rpm":1,"oil temp":1"#), "oil temp"),
        ("bad_extra_name", engine(r#""rpm":1,"":1"#), "\"\""),
        ("not_an_object", "7".into(), "a number, not an object"),
        ("not_an_object", "null".into(), "null"),
        ("not_an_object", "[[1,{\"a\":[]}]]".into(), "an array"),
        ("too_deep", deep.clone(), "64 levels"),
        ("too_deep", engine(&format!(r#""rpm":1,"oil":{deep}"#)), "64 levels"),
        ("too_deep", "{\"a\":".repeat(1_000_000), "64 levels"),
        ("empty_body", "".into(), "no reading"),
        ("empty_body", " \r\n\t".into(), "no reading"),
        ("empty_body", "[]".into(), "no reading"),
        ("cut_body", r#"{"engineId":"e1","rpm":1"#.into(), "byte 25"),
        ("cut_body", r#"[{"engineId":"e1","rpm":1},"#.into(), "ends inside"),
        ("cut_body", r#"[{"engineId":"e1","rpm":1}"#.into(), "ends inside"),
        ("cut_body", r#"{"engineId":"e"#.into(), "ends inside"),
        ("cut_body", r#"{"engineId":"e\"#.into(), "ends inside"),
        ("cut_body", r#"{"engineId":"e1","rpm":-"#.into(), "ends inside"),
        ("cut_body", r#"{"engineId":"e1","rpm":1.5e"#.into(), "ends inside"),
        ("cut_body", r#"{"engineId":nul"#.into(), "ends inside"),
        ("bad_json", r#"{"engineId":"e1","rpm":1,}"#.into(), "found '}'"),
        ("bad_json", r#"[{"engineId":"e1","rpm":1},]"#.into(), "expected a value, found ']'"),
        ("bad_json", r#"{"engineId":"e1" "rpm":1}"#.into(), "a comma or }"),
        ("bad_json", r#"{engineId:"e1"}"#.into(), "a key in quotes"),
        ("bad_json", r#"{'engineId':'e1'}"#.into(), "a key in quotes"),
        ("bad_json", r#"{"engineId":"e1","rpm":01}"#.into(), "found '1'"),
        ("bad_json", r#"{"engineId":"e1","rpm":.5}"#.into(), "a value"),
        ("bad_json", r#"{"engineId":"e1","rpm":1.}"#.into(), "a digit"),
        ("bad_json", r#"{"engineId":"e1","rpm":+1}"#.into(), "a value"),
        ("bad_json", r#"{"engineId":"e1","rpm":0x10}"#.into(), "found 'x'"),
        ("bad_json", r#"{"engineId":"e1","rpm":True}"#.into(), "found 'T'"),
        ("bad_json", "{\"engineId\":\"e1\n\",\"rpm\":1}".into(), "line 1, byte 16"),
        ("bad_json", r#"{"engineId":"\ud800","rpm":1}"#.into(), "surrogate"),
        ("bad_json", r#"{"engineId":"\x41","rpm":1}"#.into(), "escapes"),
        ("bad_json", "{\"engineId\":\"e1\",\"rpm\":1}\n{\"engineId\":\"e2\",\"rpm\":1}".into(), "line 2, byte 1: expected the end"),
        ("bad_json", "engine,rpm\ne1,5".into(), "found 'e'"),
        ("bad_json", "<reading/>".into(), "found '<'"),
    ];
    for (code, body, part) in table {
        let error = refusal(json_body(body));
        let shown: String = body.chars().take(80).collect();
        assert_eq!(error.code.as_str(), *code, "{shown}: {error}");
        assert!(error.message.contains(part), "{shown}: {error}");
        assert!(!error.hint().is_empty() && error.status() >= 400);
        assert!(error.message.len() < 300, "a message never repeats a body: {error}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_by_their_place() {
    assert_eq!(refusal(json_body(b"{\"engineId\":\"\xff\"}")).code, Reason::BadEncoding);
    assert_eq!(refusal(json_body(b"{\"engineId\":\"\xe2\x82")).code, Reason::CutBody);
    assert_eq!(refusal(ndjson_body(b"{\"engineId\":\"\xe2\x82")).code, Reason::CutBody);
    assert_eq!(refusal(ndjson_body(b"{\"engineId\":\"\xff\",\"rpm\":1}\n")).code, Reason::BadEncoding);
}

#[test]
fn bodies_beyond_the_bounds_are_refused_as_a_whole() {
    assert_eq!(refusal(json_body(vec![b' '; limits::MAX_BODY_BYTES + 1])).code, Reason::BodyTooLarge);
    let item = r#"{"engineId":"e1","rpm":1}"#;
    let most = vec![item; limits::MAX_ITEMS as usize];
    assert_eq!(json_body(format!("[{}]", most.join(","))).map(|parsed| parsed.batch.len()), Ok(limits::MAX_ITEMS));
    assert_eq!(refusal(json_body(format!("[{},{item}]", most.join(",")))).code, Reason::TooManyItems);
    assert_eq!(refusal(ndjson_body(format!("{}\n{item}", most.join("\n")))).code, Reason::TooManyItems);
}

#[test]
fn a_faulty_item_spoils_no_other() {
    let body = r#"[{"engineId":"a","rpm":1},{"engineId":"b","rpm":1e999,"x":[{}]},7,{"engineId":"c","oil":2}, {"rpm":3}]"#;
    let parsed = json_body(body).expect("two are valid");
    let engines: Vec<_> = parsed.batch.iter().map(|reading| reading.engine_id.to_owned()).collect();
    assert_eq!(engines, ["a", "c"]);
    let rejected: Vec<_> = parsed.rejected.iter().map(|rejection| (rejection.index, rejection.code)).collect();
    assert_eq!(rejected, [(1, Reason::NotFinite), (2, Reason::NotAnObject), (4, Reason::MissingEngineId)]);
    assert_eq!(parsed.rejected_total, 3);
    assert_eq!(parsed.rejected_by.iter().count(), 3);
    assert_eq!(parsed.refusal(), None);
    assert_eq!(
        serde_json::to_value(&parsed.rejected[1]).ok(),
        Some(json!({"index": 2, "code": "not_an_object", "message": "the reading is a number, not an object"}))
    );
}

#[test]
fn a_broken_line_of_ndjson_spoils_no_other() {
    let body =
        "{\"engineId\":\"a\",\"rpm\":1}\r\n\n{\"engineId\":\n[]\n{\"engineId\":\"b\",\"rpm\":1} 1\n{\"engineId\":\"c\",\"rpm\":1}";
    let parsed = ndjson_body(body).expect("two are valid");
    assert_eq!(parsed.batch.len(), 2);
    let rejected: Vec<_> = parsed.rejected.iter().map(|rejection| (rejection.index, rejection.code)).collect();
    assert_eq!(rejected, [(1, Reason::BadJson), (2, Reason::NotAnObject), (3, Reason::BadJson)]);
    assert!(parsed.rejected[0].message.starts_with("line 3:"), "{}", parsed.rejected[0].message);
    assert!(parsed.rejected[2].message.starts_with("line 5, byte 26:"), "{}", parsed.rejected[2].message);
}

#[test]
fn ndjson_whose_last_line_is_cut_is_refused_as_a_whole() {
    let whole = "{\"engineId\":\"a\",\"rpm\":1}\n{\"engineId\":\"b\",\"status\":\"é\",\"rpm\":1}";
    for cut in 26..whole.len() {
        assert_eq!(refusal(ndjson_body(&whole.as_bytes()[..cut])).code, Reason::CutBody, "cut at {cut}");
    }
    assert_eq!(ndjson_body(whole).map(|parsed| parsed.batch.len()), Ok(2));
}

#[test]
fn json_that_is_cut_anywhere_is_refused_as_a_whole() {
    let whole = r#"[{"engineId":"a","timestamp":"2026-11-20T18:00:00Z","rpm":-1.5e3,"x":null},{"engineId":"\u00e9","rpm":1}]"#;
    for cut in 1..whole.len() {
        assert_eq!(refusal(json_body(&whole[..cut])).code, Reason::CutBody, "cut at {cut}");
    }
}

#[test]
fn rejections_are_listed_up_to_a_bound_and_counted_beyond_it() {
    let body = format!("[{}]", vec!["1"; 5_000].join(","));
    let parsed = json_body(body).expect("an array");
    assert_eq!(parsed.rejected.len(), limits::MAX_LISTED_REJECTIONS);
    assert_eq!(parsed.rejected_total, 5_000);
    assert_eq!(parsed.rejected_by.iter().collect::<Vec<_>>(), [(Reason::NotAnObject, 5_000)]);
    let refusal = parsed.refusal().expect("nothing is valid");
    assert_eq!(refusal.code, Reason::NothingValid);
    assert!(refusal.message.contains("none of the 5000"), "{refusal}");
}

#[test]
fn readings_without_a_timestamp_get_times_of_their_own() {
    let parsed = json_body(format!("[{}]", vec![r#"{"engineId":"a","rpm":1}"#; 1_000].join(","))).expect("valid");
    let times: Vec<_> = parsed.batch.iter().map(|reading| reading.observed_at_us).collect();
    assert_eq!(times, (NOW_US..NOW_US + 1_000).collect::<Vec<_>>());
}

#[test]
fn a_reading_in_full_is_kept_in_full() {
    let body = r#" {"engine_id":"CFM56:1","timestamp":"2026-11-20T18:00:00.1234569+01:00","status":"l\u00e4uft \ud83d\ude80",
        "temperature":-0.0,"rpm":5000,"pressure":1.0e1,"fuel_flow":0.1,"z":2,"a.b":1e-7}"#;
    let parsed = json_body(body).expect("valid");
    let expected = ReadingRef {
        engine_id: "CFM56:1",
        observed_at_us: NOW_US - 3_600_000_000 + 123_456,
        status: Some("läuft 🚀"),
        temperature: Some(0.0),
        rpm: Some(5000.0),
        pressure: Some(10.0),
        fuel_flow: Some(0.1),
        extra: Some(r#"{"a.b":1e-7,"z":2.0}"#),
    };
    assert_eq!(parsed.batch.iter().collect::<Vec<_>>(), [expected]);
    let zero = parsed.batch.iter().next().and_then(|reading| reading.temperature).map(f64::to_bits);
    assert_eq!(zero, Some(0.0f64.to_bits()), "minus zero is zero");
    assert_eq!(parsed.batch.received_at_us(), NOW_US);
}

#[test]
fn a_source_may_have_names_of_its_own() {
    let fields = [("temperature", "egt"), ("engineId", "unit"), ("oil", "Oil temp.")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let fields = FieldMap::new(&fields.into());
    let parse = |body: &str| parse_with(BodyKind::Json, body.as_bytes(), Some(&fields));
    let parsed = parse(r#"{"unit":"a","egt":300,"Oil temp.":5,"rpm":1}"#).expect("valid");
    let reading = parsed.batch.iter().next().expect("one");
    assert_eq!((reading.engine_id, reading.temperature, reading.extra), ("a", Some(300.0), Some(r#"{"oil":5.0}"#)));
    assert_eq!(refusal(parse(r#"{"unit":"a","egt":300,"temperature":300}"#)).code, Reason::DuplicateKey);
    assert_eq!(refusal(parse(r#"{"unit":"a","Oil temp.":5,"oil":5}"#)).code, Reason::DuplicateKey);
}

#[test]
fn content_types_are_told_apart() {
    let kind = |text| BodyKind::from_content_type(text).map_err(|error| error.status());
    assert_eq!(kind(Some("application/json")), Ok(BodyKind::Json));
    assert_eq!(kind(Some("Application/JSON; charset=utf-8")), Ok(BodyKind::Json));
    assert_eq!(kind(Some("application/x-ndjson")), Ok(BodyKind::Ndjson));
    assert_eq!(kind(Some("text/plain")), Err(415));
    assert_eq!(kind(None), Err(415));
}

/// The values of a reading as serde_json sees them; the parser under test shares no code with this.
fn oracle(item: &Json) -> Vec<(String, Json)> {
    let object = item.as_object().expect("an object");
    let mut out: Vec<_> = object.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn as_oracle(reading: &ReadingRef<'_>) -> Vec<(String, Json)> {
    let mut object: Map<String, Json> = match reading.extra.map(serde_json::from_str) {
        Some(Ok(Json::Object(extra))) => extra,
        Some(other) => panic!("extra is no object: {other:?}"),
        None => Map::new(),
    };
    let metrics = [
        ("temperature", reading.temperature),
        ("rpm", reading.rpm),
        ("pressure", reading.pressure),
        ("fuelFlow", reading.fuel_flow),
    ];
    object.insert("engineId".into(), reading.engine_id.into());
    object.insert("timestamp".into(), (reading.observed_at_us / 1_000).into());
    object.extend(reading.status.map(|status| ("status".into(), status.into())));
    object.extend(metrics.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into()))));
    oracle(&Json::Object(object))
}

prop_compose! {
    fn valid_reading()(
        engine in "[A-Za-z0-9._:-]{1,64}",
        at_ms in 1_700_000_000_000i64..1_795_197_600_000,
        status in proptest::option::of("[^\\p{Cc}]{0,32}"),
        temperature in proptest::option::of(any::<f64>().prop_filter("finite", |v| v.is_finite() && *v != 0.0)),
        rpm in 0.0f64..100_000.0,
        fuel_flow in proptest::option::of(-1e6f64..1e6),
        extra in proptest::collection::btree_map("x[a-z._:-]{0,10}", -1e12f64..1e12, 0..8),
    ) -> Json {
        let mut object = Map::new();
        object.insert("engineId".into(), engine.into());
        object.insert("timestamp".into(), at_ms.into());
        object.extend(status.map(|status| ("status".to_owned(), Json::from(status))));
        object.extend(temperature.map(|value| ("temperature".to_owned(), Json::from(value))));
        object.insert("rpm".into(), rpm.into());
        object.extend(fuel_flow.map(|value| ("fuelFlow".to_owned(), Json::from(value))));
        object.extend(extra.into_iter().map(|(name, value)| (name, Json::from(value))));
        Json::Object(object)
    }
}

proptest! {
    #[test]
    fn valid_readings_come_out_as_they_went_in(items in proptest::collection::vec(valid_reading(), 1..20)) {
        let expected: Vec<_> = items.iter().map(oracle).collect();
        let lines: Vec<_> = items.iter().map(Json::to_string).collect();
        let pretty = serde_json::to_string_pretty(&items).expect("json");
        let outcomes = [json_body(format!("[{}]", lines.join(","))), json_body(pretty), ndjson_body(lines.join("\n"))];
        for outcome in outcomes {
            let parsed = outcome.expect("valid");
            prop_assert_eq!(&parsed.rejected, &[]);
            let got: Vec<_> = parsed.batch.iter().map(|reading| as_oracle(&reading)).collect();
            prop_assert_eq!(&got, &expected);
        }
    }

    #[test]
    fn numbers_are_read_to_the_last_bit(bits in any::<u64>(), short in -1_000_000_000i64..1_000_000_000, places in 0usize..12) {
        let value = f64::from_bits(bits);
        let decimal = format!("{}{:.places$}", if short < 0 { "-" } else { "" }, short.unsigned_abs() as f64 / 1e6);
        let texts = [format!("{value:e}"), format!("{value}"), decimal, short.to_string()];
        for text in texts.iter().filter(|text| text.parse::<f64>().is_ok_and(f64::is_finite)) {
            let parsed = json_body(format!(r#"{{"engineId":"e","temperature":{text}}}"#)).expect("valid");
            let got = parsed.batch.iter().next().and_then(|reading| reading.temperature);
            prop_assert_eq!(got, text.parse().ok(), "{}", text);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = json_body(&bytes);
        let _ = ndjson_body(&bytes);
    }

    #[test]
    fn no_text_of_json_marks_panics_and_serde_json_agrees_on_what_is_json(text in r#"([\[\]{}:, ]|"[a-z\\"]{0,3}"|-?[0-9]{1,2}(\.[0-9]{1,2})?|[eE+.0-]|true|null|\\u[0-9a-f]{4}|"\\[a-z0]"|\n){0,24}"#) {
        let ours = json_body(&text);
        let theirs = serde_json::from_str::<Json>(&text);
        match &ours {
            Err(error) if error.code == Reason::EmptyBody => prop_assert!(theirs.is_ok() || text.trim().is_empty()),
            Err(error) => prop_assert!(theirs.is_err(), "{}: {}", text, error),
            Ok(_) => prop_assert!(theirs.is_ok(), "{}", text),
        }
        let _ = ndjson_body(&text);
    }

    #[test]
    fn a_changed_byte_never_lets_a_broken_body_pass(item in valid_reading(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut body = item.to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let theirs = serde_json::from_slice::<Json>(&body);
        match json_body(&body) {
            Ok(_) => prop_assert!(theirs.is_ok() || theirs.is_err_and(|error| error.to_string().contains("out of range"))),
            Err(error) => prop_assert!(theirs.is_err(), "{}", error),
        }
    }
}
