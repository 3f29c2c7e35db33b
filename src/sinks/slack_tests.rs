//! What goes to Slack and what its answers mean; a real HTTP server is asked in the suite.

use super::*;
use crate::{
    config::TemplatesConfig,
    sinks::{Attachment, doubles::letter},
};

fn texts() -> Templates {
    Templates::in_force(&TemplatesConfig { lang: "en".into(), dir: None, files: Default::default() })
}

fn answer(status: u16, body: &str, headers: &[(&'static str, &'static str)]) -> Answer {
    let pairs = headers.iter().map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
    Answer { status, headers: pairs.collect(), body: body.to_owned().into() }
}

#[test]
fn nobody_is_called_by_what_an_alert_says() {
    let evil = r#"{"event":"firing","title":"t","level":"CRITICAL","name":"<!channel>","subject":"a & b","text":"<http://evil|here> *x*","value":1,"threshold":2,"openedAt":"now"}"#;
    let payload = payload(&texts(), &letter(evil)).expect("rendered");
    assert_eq!(payload["blocks"][0]["text"]["type"], "plain_text");
    assert_eq!(payload["blocks"][0]["text"]["text"], "[CRITICAL] <!channel> a & b: firing");
    assert_eq!(payload["text"], "[CRITICAL] &lt;!channel&gt; a &amp; b: firing");
    let section = payload["blocks"][1]["text"]["text"].as_str().expect("text");
    assert!(section.starts_with("&lt;http://evil|here&gt; *x*\n*Value* 1 (limit 2)\n*Since* now"), "{section}");
    assert_eq!((&payload["unfurl_links"], &payload["blocks"][1]["text"]["verbatim"]), (&json!(false), &json!(true)));
}

#[test]
fn what_is_too_long_is_cut_into_what_slack_takes() {
    let body = "한글과 <b> & 글자\n".repeat(4_000);
    let long = json!({"message": {"id": "m", "subject": "s".repeat(500), "body": body}}).to_string();
    let mut letter = letter(&long);
    letter.attachments = vec![Attachment { name: "a<b>.png".into(), content_type: "image/png".into(), content: [1][..].into() }];
    let payload = payload(&texts(), &letter).expect("rendered");
    let blocks = payload["blocks"].as_array().expect("blocks");
    assert_eq!(blocks.len(), 1 + SECTIONS_MAX);
    assert!(blocks[0]["text"]["text"].as_str().is_some_and(|text| text.chars().count() <= HEADER_MAX_CHARS));
    for block in &blocks[1..] {
        let text = block["text"]["text"].as_str().expect("text");
        assert!(text.chars().count() <= SECTION_MAX_CHARS && !text.is_empty());
    }
}

#[test]
fn every_answer_has_its_verdict() {
    assert_eq!(judge(&answer(200, "ok", &[])).expect("taken").answer, "HTTP 200 ok");
    assert!(judge(&answer(200, r#"{"success":true}"#, &[])).is_ok());
    let class =
        |status, body, headers: &[(&'static str, &'static str)]| judge(&answer(status, body, headers)).expect_err("refused").class;
    assert_eq!(class(200, "<html>sign in", &[]), ErrorClass::Fatal);
    assert_eq!(class(400, "invalid_payload", &[]), ErrorClass::Reject);
    assert_eq!(class(404, "no_service", &[]), ErrorClass::Fatal);
    assert_eq!(class(302, "", &[]), ErrorClass::Reject);
    assert_eq!(class(429, "", &[("retry-after", "30")]), ErrorClass::Retry { after: Some(Duration::from_secs(30)) });
    assert_eq!(class(503, "", &[]), ErrorClass::Retry { after: None });
    let error = judge(&answer(410, "channel_is_archived", &[])).expect_err("refused");
    assert_eq!(error.message, "the receiver answered HTTP 410 channel_is_archived");
}
