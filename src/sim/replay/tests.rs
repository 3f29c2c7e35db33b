//! What the three formats have in common, and CSV and NDJSON line by line.

use proptest::prelude::*;

use super::*;

const MAPPING: Mapping = Mapping { start_us: 1_000_000, step_us: 500_000 };

fn read(text: &str, format: Format) -> Result<Vec<Sample>, ReplayError> {
    let mut reader = ReplayReader::new(text.as_bytes(), format, MAPPING);
    let (mut sample, mut samples) = (Sample::default(), Vec::new());
    while reader.read_into(&mut sample)? {
        samples.push(sample.clone());
    }
    assert_eq!(reader.bytes_read(), text.len() as u64);
    Ok(samples)
}

#[test]
fn csv_columns_come_in_any_order_and_unknown_ones_are_further_metrics() {
    let text = "rpm,oil,timestamp,\"engineId\",fuel_flow,status\r\n\
                6000.5,,2023-11-14T22:13:20Z,e-1,1e-3,\"in, \"\"flight\"\"\"\r\n\
                \n7,8.25,1700000000001,e-2,,\r\n";
    let samples = read(text, Format::Csv).expect("samples");
    let first = Sample {
        engine_id: "e-1".into(),
        observed_at_us: 1_700_000_000_000_000,
        status: Some("in, \"flight\"".into()),
        rpm: Some(6000.5),
        fuel_flow: Some(0.001),
        ..Sample::default()
    };
    let second = Sample {
        engine_id: "e-2".into(),
        observed_at_us: 1_700_000_000_001_000,
        rpm: Some(7.0),
        extra: vec![("oil".into(), 8.25)],
        ..Sample::default()
    };
    assert_eq!(samples, [first, second]);
}

#[test]
fn rows_without_a_time_get_one_step_after_the_other() {
    let csv = read("engineId,rpm\na,1\nb,2\n", Format::Csv).expect("samples");
    let ndjson = read("{\"engineId\":\"a\",\"rpm\":1}\n{\"engineId\":\"b\",\"rpm\":2}", Format::Ndjson).expect("samples");
    assert_eq!(csv, ndjson);
    assert_eq!(csv.iter().map(|sample| sample.observed_at_us).collect::<Vec<_>>(), [1_000_000, 1_500_000]);
}

#[test]
fn ndjson_takes_what_the_push_interface_takes() {
    let line = r#"{"engine_id":"a","timestamp":1700000000001,"status":"ok","temperature":-1.5,"rpm":null,"fuelFlow":3,"v.1":2e0}"#;
    let samples = read(line, Format::Ndjson).expect("samples");
    let want = Sample {
        engine_id: "a".into(),
        observed_at_us: 1_700_000_000_001_000,
        status: Some("ok".into()),
        temperature: Some(-1.5),
        fuel_flow: Some(3.0),
        extra: vec![("v.1".into(), 2.0)],
        ..Sample::default()
    };
    assert_eq!(samples, [want]);
}

#[test]
fn a_bad_line_is_named_with_what_is_wrong() {
    let csv = |rows: &str| format!("engineId,timestamp,rpm\n{rows}");
    let cases = [
        (Format::Csv, "a,b\n1,2\n".to_owned(), 1, "no column engineId"),
        (Format::Csv, "engineId,a b\n".to_owned(), 1, "column 2"),
        (Format::Csv, "engineId,rpm,rpm\n".to_owned(), 1, "appears twice"),
        (Format::Csv, "engineId,fuelFlow,fuel_flow\n".to_owned(), 1, "appears twice"),
        (Format::Csv, csv("\na,1700000000000\n"), 3, "2 columns where the header names 3"),
        (Format::Csv, csv("a,1700000000000,fast\n"), 2, "column 3 (rpm): \"fast\" is not a finite number"),
        (Format::Csv, csv("a,1700000000000,inf\n"), 2, "finite"),
        (Format::Csv, csv("a,soon,1\n"), 2, "neither RFC 3339"),
        (Format::Csv, csv("a,,1\n"), 2, "timestamp is empty"),
        (Format::Csv, csv("a b,1700000000000,1\n"), 2, "not an engine id"),
        (Format::Csv, csv(",1700000000000,1\n"), 2, "no engineId"),
        (Format::Csv, csv("a,1700000000000,\n"), 2, "no metric"),
        (Format::Csv, csv(&"x,".repeat(70)), 2, "more than 64 columns"),
        (Format::Ndjson, "\n\n{\"engineId\":\"a\"".to_owned(), 3, "EOF"),
        (Format::Ndjson, "[1]".to_owned(), 1, "one reading as a JSON object"),
        (Format::Ndjson, r#"{"engineId":"a","rpm":1} 2"#.to_owned(), 1, "trailing"),
        (Format::Ndjson, r#"{"engineId":"a","rpm":"1"}"#.to_owned(), 1, "\"rpm\" holds a value of the wrong type"),
        (Format::Ndjson, r#"{"engineId":"a","rpm":[{"a":[1]}]}"#.to_owned(), 1, "wrong type"),
        (Format::Ndjson, r#"{"engineId":"a","engine_id":"b","rpm":1}"#.to_owned(), 1, "appears twice"),
        (Format::Ndjson, r#"{"engineId":"a","rpm":1,"rpm":2}"#.to_owned(), 1, "appears twice"),
        (Format::Ndjson, r#"{"engineId":"a","timestamp":true,"rpm":2}"#.to_owned(), 1, "neither RFC 3339"),
        (Format::Ndjson, r#"{"engineId":7,"rpm":2}"#.to_owned(), 1, "text, not a number"),
        (Format::Ndjson, r#"{"engineId":"a","rpm":1e999}"#.to_owned(), 1, "out of range"),
        (Format::Cmapss, "1 2 3\n".to_owned(), 1, "3 columns"),
    ];
    for (format, text, line, part) in cases {
        let error = read(&text, format).expect_err(&text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for format in [Format::Csv, Format::Ndjson, Format::Cmapss] {
            let _ = count_readings(&bytes, format);
        }
    }

    #[test]
    fn no_text_that_looks_like_csv_panics(text in "engineId,[a-z]{1,3}(,timestamp)?(\r?\n[-a-z0-9.,\"]{0,20}){0,6}") {
        let _ = count_readings(text.as_bytes(), Format::Csv);
    }

    #[test]
    fn what_is_written_is_read_back(id in "[a-zA-Z0-9._:-]{1,64}", at in 0i64..4_000_000_000_000_000, rpm in proptest::num::f64::NORMAL) {
        let sample = Sample { engine_id: id, observed_at_us: at, rpm: Some(rpm), extra: vec![("x".into(), -rpm)], ..Sample::default() };
        let mut json = Vec::new();
        sample.write_json(&mut json);
        prop_assert_eq!(read(std::str::from_utf8(&json).expect("text"), Format::Ndjson), Ok(vec![sample]));
    }
}
