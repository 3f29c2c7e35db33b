//! What goes to Discord and what its answers mean; a real HTTP server is asked in the suite.

use super::*;
use crate::{config::TemplatesConfig, sinks::doubles::letter};

fn texts() -> Templates {
    Templates::in_force(&TemplatesConfig { lang: "ko".into(), dir: None, files: Default::default() })
}

fn class(status: u16, body: &str, headers: &[(&'static str, &'static str)]) -> ErrorClass {
    let pairs = headers.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
    let answer = Answer { status, headers: pairs.collect(), body: body.to_owned().into() };
    judge(&answer).expect_err("refused").class
}

#[test]
fn nobody_is_mentioned_and_nothing_is_formatted_by_what_an_alert_says() {
    let evil = r#"{"event":"resolved","title":"t","level":"CRITICAL","name":"*n*","subject":"@everyone","text":"[x](http://evil) <@1>\n# h","resolvedAt":"now"}"#;
    let payload = payload(&texts(), &letter(evil)).expect("rendered");
    assert_eq!(payload["allowed_mentions"], json!({"parse": []}));
    assert_eq!(payload["embeds"][0]["title"], "\\[심각\\] \\*n\\* \\@everyone 해소");
    let text = payload["embeds"][0]["description"].as_str().expect("text");
    assert!(text.starts_with("\\[x\\]\\(http://evil\\) \\<\\@1\\>\n\\# h\n**해소 시각** now"), "{text}");
    assert_eq!(payload["embeds"][0]["color"], 0x1b_6e_3c);
}

#[test]
fn what_is_too_long_is_cut() {
    let long = json!({"message": {"id": "m", "subject": "*".repeat(400), "body": "글".repeat(9_000)}}).to_string();
    let payload = payload(&texts(), &letter(&long)).expect("rendered");
    let count = |name: &str| payload["embeds"][0][name].as_str().map_or(0, |text| text.chars().count());
    assert_eq!((count("title"), count("description")), (TITLE_MAX_CHARS, DESCRIPTION_MAX_CHARS));
}

#[test]
fn every_answer_has_its_verdict() {
    let taken = Answer { status: 200, headers: HeaderMap::new(), body: r#"{"id":"77"}"#.into() };
    assert_eq!(judge(&taken).expect("taken").answer, "HTTP 200 message 77");
    let after = |millis| ErrorClass::Retry { after: Some(Duration::from_millis(millis)) };
    assert_eq!(class(429, r#"{"retry_after":1.25,"global":false}"#, &[("retry-after", "2")]), after(1_250));
    assert_eq!(class(429, "slow down", &[("retry-after", "2")]), after(2_000));
    assert_eq!(class(404, r#"{"message":"Unknown Webhook","code":10015}"#, &[]), ErrorClass::Fatal);
    assert_eq!(class(400, "", &[]), ErrorClass::Reject);
    assert_eq!(class(502, "", &[]), ErrorClass::Retry { after: None });
}

#[test]
fn discord_is_asked_to_answer_when_the_message_is_made() {
    assert_eq!(&*waiting("https://d/api/webhooks/1/x"), "https://d/api/webhooks/1/x?wait=true");
    assert_eq!(&*waiting("https://d/x?thread_id=5"), "https://d/x?thread_id=5&wait=true");
    assert_eq!(&*waiting("https://d/x?wait=false"), "https://d/x?wait=false");
}
