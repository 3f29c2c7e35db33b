//! What is taken, and what is told about the rest.

use serde_json::json;

use super::*;

fn ways() -> Vec<Way> {
    let way = |name: &str, takes_recipients, takes_addresses| Way {
        name: name.into(),
        takes_recipients,
        takes_files: name != "chat",
        takes_addresses,
        is_default: takes_addresses,
    };
    vec![way("log", false, false), way("smtp", true, true), way("room", true, false), way("chat", false, false)]
}

fn good() -> Value {
    json!({"to": ["a@example.com"], "subject": "s", "body": "b"})
}

fn fields(body: &Value) -> Vec<String> {
    let error = read(body.to_string().as_bytes(), None, &ways(), 0).expect_err("refused");
    assert_eq!((error.status.as_u16(), error.code), (400, "invalid_field"));
    error.details.iter().filter_map(|detail| detail["field"].as_str().map(str::to_owned)).collect()
}

/// The fields of what is refused for its size.
fn too_large(body: &Value) -> Vec<String> {
    let error = read(body.to_string().as_bytes(), None, &ways(), 0).expect_err("refused");
    assert_eq!((error.status.as_u16(), error.code), (413, "body_too_large"));
    error.details.iter().filter_map(|detail| detail["field"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_plain_message_is_taken_and_what_is_null_counts_as_left_out() {
    let mut body = good();
    body["html"] = Value::Null;
    body["sendAt"] = json!("1970-01-01T00:00:01Z");
    body["attachments"] = json!([{"name": "a.txt", "contentType": "text/plain", "content": "aGk"}]);
    let draft = read(body.to_string().as_bytes(), Some("k-1"), &ways(), 0).expect("good");
    assert_eq!((draft.via.as_str(), draft.send_at_us, draft.key.as_deref()), ("smtp", Some(1_000_000), Some("k-1")));
    assert_eq!((draft.attachments[0].content.as_slice(), draft.html), (b"hi".as_slice(), None));
}

#[test]
fn every_fault_is_told_at_once_with_its_field() {
    let body = json!({
        "to": ["nobody", "a@example.com", "A@EXAMPLE.com", 7], "subject": "a\r\nBcc: x@example.com", "body": "\u{0}", "html": 1,
        "sendAt": "tomorrow", "idempotencyKey": "a b", "replyTo": "x", "cc": [],
        "attachments": [{"name": "../x", "contentType": "text", "content": "*", "size": 1}, 3],
    });
    assert_eq!(
        fields(&body),
        [
            "cc",
            "html",
            "subject",
            "body",
            "to[0]",
            "to[2]",
            "to[3]",
            "sendAt",
            "replyTo",
            "attachments[0].size",
            "attachments[0].name",
            "attachments[0].contentType",
            "attachments[0].content",
            "attachments[1]",
            "idempotencyKey"
        ]
    );
}

#[test]
fn ways_decide_about_recipients() {
    let with = |via: &str, to: Value| json!({"via": via, "to": to, "subject": "s", "body": "b"});
    assert_eq!(fields(&with("log", json!(["a@example.com", "a\nb", "A@example.com"]))), ["to[1]", "to[2]"]);
    assert_eq!(fields(&with("smtp", json!([]))), ["to"]);
    assert_eq!(fields(&with("nowhere", json!(["a@example.com"]))), ["via"]);
    let read = |body: &Value| read(body.to_string().as_bytes(), None, &ways(), 0);
    assert!(read(&with("room", json!(["지점 1"]))).is_ok() && read(&with("log", json!([]))).is_ok());
    let none = read(&json!({"subject": "s", "body": "b", "via": "log"})).expect("the sink is the receiver");
    assert!(none.to.is_empty());
    let told = read(&with("log", json!(["a@example.com"]))).expect("to is information there");
    assert_eq!((told.to.as_slice(), told.takes_recipients), (["a@example.com".to_owned()].as_slice(), false));
}

#[test]
fn files_go_only_where_they_can_be_had() {
    let with = |via: &str| {
        json!({"via": via, "to": ["a@example.com"], "subject": "s", "body": "b",
            "attachments": [{"name": "a.txt", "contentType": "text/plain", "content": "aGk="}]})
    };
    assert_eq!(fields(&with("chat")), ["attachments"]);
    for via in ["smtp", "room", "log"] {
        assert!(read(with(via).to_string().as_bytes(), None, &ways(), 0).is_ok(), "{via}");
    }
}

#[test]
fn bounds_hold_to_the_item() {
    let mut many = good();
    many["to"] = (0..=MAX_RECIPIENTS).map(|n| json!(format!("a{n}@example.com"))).collect();
    assert_eq!(fields(&many), ["to"]);
    let mut long = good();
    long["body"] = json!("x".repeat(600_000));
    long["html"] = json!("x".repeat(600_000));
    assert_eq!(too_large(&long), ["html"]);
    long["html"] = json!("x".repeat(MAX_BODY_BYTES + 1));
    long["subject"] = Value::Null;
    assert_eq!(too_large(&long), ["subject", "html"], "every fault all the same");
    let mut broad = good();
    broad["body"] = json!("x".repeat(900_000));
    broad["to"] = (0..20).map(|n| json!(format!("a{n}@example.com"))).collect();
    assert_eq!(too_large(&broad), ["to"]);
    let mut heavy = good();
    heavy["attachments"] = json!([{"name": "a", "contentType": "a/b", "content": "A".repeat(6_666_672)}]);
    assert_eq!(too_large(&heavy), ["attachments"]);
    let mut odd = good();
    odd["sendAt"] = json!("1972-01-01T00:00:00Z");
    assert_eq!(fields(&odd), ["sendAt"]);
}

#[test]
fn keys_of_field_and_header_must_agree() {
    let mut body = good();
    body["idempotencyKey"] = json!("one");
    let read = |header| read(body.to_string().as_bytes(), header, &ways(), 0).map(|draft| draft.key);
    assert_eq!(read(Some("one")).expect("agree"), Some("one".to_owned()));
    assert!(read(Some("two")).is_err());
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    let error = read(br#"{"to":["a@example.com"],"subject":"s","body":"b","body":"c"}"#, None, &ways(), 0).expect_err("refused");
    assert_eq!(error.details[0]["field"], "body");
    let twice =
        br#"{"to":["a@example.com"],"subject":"s","body":"b","attachments":[{"name":"a","contentType":"a/b","content":"aGk="},
        {"name":"a.txt","contentType":"a/b","content":"aGk=","name":"b.exe","name":"c"}]}"#;
    let error = read(twice, None, &ways(), 0).expect_err("refused");
    assert_eq!((&error.details[0]["field"], error.details.len()), (&json!("attachments[1].name"), 2));
}

#[test]
fn the_fingerprint_sees_every_field_and_not_the_key() {
    let of = |change: &dyn Fn(&mut Value)| {
        let mut body = good();
        change(&mut body);
        read(body.to_string().as_bytes(), None, &ways(), 0).expect("good").fingerprint()
    };
    let base = of(&|_| {});
    assert_eq!(base, of(&|body| body["idempotencyKey"] = json!("k")));
    let mut all = vec![base];
    all.push(of(&|body| body["subject"] = json!("t")));
    all.push(of(&|body| body["body"] = json!("c")));
    all.push(of(&|body| body["html"] = json!("c")));
    all.push(of(&|body| body["to"] = json!(["a@example.com", "b@example.com"])));
    all.push(of(&|body| body["sendAt"] = json!("1970-01-02T00:00:00Z")));
    all.push(of(&|body| body["replyTo"] = json!("c@example.com")));
    all.push(of(&|body| body["attachments"] = json!([{"name": "a", "contentType": "a/b", "content": "aGk="}])));
    let distinct: HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}
