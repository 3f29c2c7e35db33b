//! Messages that are refused: each with its status, its code and the field; none is a 500, none is half taken, and nothing of them shows in
//! a header or in the log.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{fields, flow::count, plain, ready, send, sent, stands};
use crate::support::daemon::Setup;

/// A body, its headers, and the status and code of the answer.
type Raw<'a> = (&'a [u8], Vec<(&'a str, &'a str)>, u16, &'a str);

/// A message to the log with one field changed.
fn with(field: &str, value: Value) -> Value {
    let mut message = plain("log", "s");
    message[field] = value;
    message
}

fn file(field: &str, value: Value) -> Value {
    let mut one = json!({"name": "a.txt", "contentType": "text/plain", "content": "aGk="});
    one[field] = value;
    with("attachments", json!([one]))
}

#[test]
fn whatever_is_wrong_is_told_with_its_field() {
    let daemon = ready(&Setup::with("[limits]\nmessages_per_minute = 0\n"));
    let far = "2099-01-01T00:00:00Z";
    let file_of = |bytes: usize| json!({"name": "a", "contentType": "a/b", "content": "A".repeat(bytes.div_ceil(3) * 4)});
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({}), &["subject", "body", "via"]),
        (json!({"via": "log"}), &["subject", "body"]),
        (with("subject", json!("")), &["subject"]),
        (with("subject", json!("   ")), &["subject"]),
        (with("subject", json!(7)), &["subject"]),
        (with("subject", json!(null)), &["subject"]),
        (with("subject", json!("x".repeat(201))), &["subject"]),
        (with("subject", json!("a\r\nBcc: victim@example.com")), &["subject"]),
        (with("subject", json!("a\nX-Evil: 1")), &["subject"]),
        (with("subject", json!("a\u{0}b")), &["subject"]),
        (with("subject", json!("\u{1b}]0;title\u{7}")), &["subject"]),
        (with("subject", json!("a\u{85}b")), &["subject"]),
        (with("subject", json!("a\u{2028}b")), &["subject"]),
        (with("body", json!("")), &["body"]),
        (with("body", json!(["x"])), &["body"]),
        (with("body", json!("a\u{0}b")), &["body"]),
        (with("body", json!("\u{8}")), &["body"]),
        (with("html", json!(true)), &["html"]),
        (with("html", json!("<p>\u{0}</p>")), &["html"]),
        (with("via", json!("smoke-signals")), &["via"]),
        (with("via", json!("log\u{0}")), &["via"]),
        (with("via", json!(1)), &["via"]),
        (with("via", json!("kafka")), &["via"]),
        (with("to", json!(["a\r\nb", "victim@example.com"])), &["to[0]"]),
        (with("to", json!("a@example.com")), &["to"]),
        (with("to", json!({"a": 1})), &["to"]),
        (with("sendAt", json!("tomorrow")), &["sendAt"]),
        (with("sendAt", json!(1_700_000_000)), &["sendAt"]),
        (with("sendAt", json!("2026-02-30T00:00:00Z")), &["sendAt"]),
        (with("sendAt", json!(far)), &["sendAt"]),
        (with("replyTo", json!("nobody")), &["replyTo"]),
        (with("replyTo", json!("a@example.com\r\nBcc: b@example.com")), &["replyTo"]),
        (with("replyTo", json!("\"a\"@example.com")), &["replyTo"]),
        (with("idempotencyKey", json!("")), &["idempotencyKey"]),
        (with("idempotencyKey", json!("a b")), &["idempotencyKey"]),
        (with("idempotencyKey", json!("k".repeat(256))), &["idempotencyKey"]),
        (with("idempotencyKey", json!(7)), &["idempotencyKey"]),
        (with("cc", json!(["a@example.com"])), &["cc"]),
        (with("Subject", json!("x")), &["Subject"]),
        (with("attachments", json!("a")), &["attachments"]),
        (with("attachments", json!(["a"])), &["attachments[0]"]),
        (with("attachments", json!(vec![file_of(3); 11])), &["attachments"]),
        (file("name", json!("../../etc/passwd")), &["attachments[0].name"]),
        (file("name", json!("C:\\x")), &["attachments[0].name"]),
        (file("name", json!("a\r\nX: y")), &["attachments[0].name"]),
        (file("name", json!(null)), &["attachments[0].name"]),
        (file("contentType", json!("text/plain\r\nX: y")), &["attachments[0].contentType"]),
        (file("contentType", json!("text")), &["attachments[0].contentType"]),
        (file("content", json!("no base64!")), &["attachments[0].content"]),
        (file("content", json!("")), &["attachments[0].content"]),
        (file("contentType", json!("multipart/mixed")), &["attachments[0].contentType"]),
        (file("contentType", json!("message/rfc822")), &["attachments[0].contentType"]),
        (file("size", json!(2)), &["attachments[0].size"]),
    ];
    for (message, expected) in &cases {
        let answer = send(&daemon, message);
        let what = message.to_string().chars().take(120).collect::<String>();
        assert_eq!((answer.status, answer.code()), (400, "invalid_field".into()), "{what}: {answer:?}");
        assert_eq!(fields(&answer), *expected, "{what}: {answer:?}");
        assert!(!answer.head.contains("bcc:") && !answer.head.contains("x-evil"), "{what}: {answer:?}");
    }
    assert!(cases.len() > 50);
    let large: [(Value, &str); 3] = [
        (with("body", json!("x".repeat(1_000_001))), "body"),
        (with("html", json!("x".repeat(999_999))), "html"),
        (with("attachments", json!([file_of(2_600_000), file_of(2_600_000)])), "attachments"),
    ];
    for (message, expected) in &large {
        let answer = send(&daemon, message);
        assert_eq!((answer.status, answer.code(), fields(&answer)), (413, "body_too_large".into(), vec![(*expected).to_owned()]));
        assert!(!answer.body.contains("readings over"), "{answer:?}");
    }
    assert_eq!((count(&daemon, "sqlite:", "messages"), count(&daemon, "sqlite:", "deliveries")), (0, 0), "nothing was half taken");
    let log = daemon.log();
    for word in ["victim", "example.com", "smoke-signals", "passwd"] {
        assert!(!log.contains(word), "{word} is in the log");
    }
}

#[test]
fn bodies_that_are_no_json_object_are_refused_with_their_own_code() {
    let daemon = ready(&Setup::default());
    let good = plain("log", "s").to_string();
    let pack = |plain: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let packed = pack(good.as_bytes());
    let large = vec![b' '; 8_000_001];
    let bomb = pack(&vec![b' '; 50_000_000]);
    let deep = format!("{{\"attachments\":{}", "[".repeat(100_000));
    let json = ("Content-Type", "application/json");
    let gzip = ("Content-Encoding", "gzip");
    let cases: Vec<Raw<'_>> = vec![
        (b"", vec![json], 400, "empty_body"),
        (b"[]", vec![json], 400, "invalid_field"),
        (b"7", vec![json], 400, "invalid_field"),
        (b"null", vec![json], 400, "invalid_field"),
        (b"{", vec![json], 400, "cut_body"),
        (b"{\"to\":[", vec![json], 400, "cut_body"),
        (b"{} {}", vec![json], 400, "bad_json"),
        (b"{'to': 1}", vec![json], 400, "bad_json"),
        (b"{\"subject\":\"\xff\xfe\"}", vec![json], 400, "bad_json"),
        (b"{\"subject\":\"\xc0\xaf\"}", vec![json], 400, "bad_json"),
        (b"{\"subject\":\"\xed\xa0\x80\"}", vec![json], 400, "bad_json"),
        (b"{\"subject\":\"\\ud800\"}", vec![json], 400, "bad_json"),
        (b"{\"subject\":\"\\udc00x\"}", vec![json], 400, "bad_json"),
        (b"\xef\xbb\xbf{}", vec![json], 400, "bad_json"),
        (&utf16, vec![json], 400, "bad_json"),
        (deep.as_bytes(), vec![json], 400, "bad_json"),
        (&large, vec![json], 413, "body_too_large"),
        (good.as_bytes(), vec![], 415, "unsupported_media_type"),
        (good.as_bytes(), vec![("Content-Type", "text/plain")], 415, "unsupported_media_type"),
        (good.as_bytes(), vec![("Content-Type", "application/x-www-form-urlencoded")], 415, "unsupported_media_type"),
        (good.as_bytes(), vec![("Content-Type", "application/json; charset=utf-16")], 415, "unsupported_media_type"),
        (good.as_bytes(), vec![("Content-Type", "application/json;CHARSET=\"iso-8859-1\"")], 415, "unsupported_media_type"),
        (good.as_bytes(), vec![json, ("Content-Encoding", "br")], 415, "unsupported_coding"),
        (good.as_bytes(), vec![json, gzip], 400, "bad_gzip"),
        (&packed[..packed.len() / 2], vec![json, gzip], 400, "cut_body"),
        (&bomb, vec![json, gzip], 413, "gzip_bomb"),
        (good.as_bytes(), vec![json, ("Idempotency-Key", "a b")], 400, "invalid_field"),
        (good.as_bytes(), vec![json, ("Idempotency-Key", "schl\u{fc}ssel")], 400, "invalid_field"),
    ];
    let bearer = format!("Bearer {}", daemon.token);
    for (body, headers, status, code) in &cases {
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let answer = daemon.raw("POST", "/api/messages", &all, body);
        let what = format!("{} {headers:?}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{what}: {answer:?}");
        assert!(answer.head.contains("ratelimit-remaining: "), "{what}: {answer:?}");
    }
    let taken = daemon.raw("POST", "/api/messages", &[("Authorization", bearer.as_str()), json, gzip], &packed);
    assert_eq!(taken.status, 202, "gzip as it should be: {taken:?}");
    for media in ["application/json; charset=UTF-8", "application/json;charset=\"utf-8\"", "Application/JSON; x=y"] {
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", media)];
        assert_eq!(daemon.raw("POST", "/api/messages", &headers, good.as_bytes()).status, 202, "{media}");
    }
    assert_eq!(count(&daemon, "sqlite:", "messages"), 4);
}

#[test]
fn what_looks_like_a_template_or_markup_is_carried_as_it_is() {
    let daemon = ready(&Setup::default());
    for text in [
        "{{ 7 * 7 }}",
        "{% for x in y %}",
        "${jndi:ldap://x}",
        "%s%n",
        "<script>alert(1)</script>",
        "'; DROP TABLE messages; --",
        "=1+1",
    ] {
        let id = sent(&daemon, &json!({"via": "log", "subject": text, "body": text}));
        stands(&daemon, &id, "sent");
        let seen = super::show(&daemon, &id);
        assert_eq!((&seen["subject"], &seen["body"]), (&json!(text), &json!(text)));
    }
}

#[test]
fn without_the_database_it_is_503_with_a_time_to_come_again() {
    let setup = Setup::default().store("postgres://belayd@127.0.0.1:1/none");
    let daemon = setup.start();
    let answer = send(&daemon, &plain("log", "s"));
    assert_eq!((answer.status, answer.code()), (503, "store_unavailable".into()), "{answer:?}");
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
}
