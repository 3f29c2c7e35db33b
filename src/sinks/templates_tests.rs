//! Templates: what is built in, what a user puts before it, and what is refused.

use std::collections::BTreeMap;

use super::*;
use crate::sinks::doubles::letter;

/// What a delivery says in one place.
fn said(templates: &Templates, content: &Content, part: Part) -> String {
    templates.render(content, part).expect("rendered")
}

fn config(lang: &str, files: &[(&str, &str)]) -> TemplatesConfig {
    let files: BTreeMap<_, _> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    TemplatesConfig { lang: lang.into(), dir: Some("texts".into()), files }
}

fn faults(files: &[(&str, &str)]) -> Vec<String> {
    Templates::load(&config("en", files)).expect_err("refused").0.iter().map(ToString::to_string).collect()
}

const EVIL: &str = r#"{"event":"firing","title":"t","level":"CRITICAL","name":"{{ 7 * 7 }}","subject":"<script>alert(1)</script>","text":"\"'&<b>","id":"{% raw %}","value":1}"#;

#[test]
fn every_built_in_text_says_something_in_both_languages() {
    for lang in ["en", "ko"] {
        let samples = Templates::load(&config(lang, &[])).expect("no fault").samples();
        assert_eq!(samples.len(), Event::ALL.len() * Part::ALL.len());
        for sample in &samples {
            assert!(!sample.text.is_empty() && sample.source == "built in", "{lang} {}", sample.name);
            assert!(!sample.text.contains("none") && !sample.text.contains("{{"), "{lang} {}: {}", sample.name, sample.text);
        }
        let subject = |name: &str| samples.iter().find(|sample| sample.name == name).map(|sample| sample.text.as_str());
        let expected = if lang == "en" { "[CRITICAL] overheat engine-1: resolved" } else { "[심각] overheat engine-1 해소" };
        assert_eq!(subject("resolved.subject"), Some(expected));
    }
}

#[test]
fn what_people_wrote_is_never_run_and_never_markup() {
    for lang in ["en", "ko"] {
        let templates = Templates::load(&config(lang, &[])).expect("no fault");
        let content = Content::read(&letter(EVIL));
        let html = said(&templates, &content, Part::Html);
        assert!(
            html.contains("{{ 7 * 7 }}") && !html.contains("<script") && !html.contains("<b>\"") && html.contains("&lt;script&gt;"),
            "{html}"
        );
        assert!(html.contains("&quot;&#x27;&amp;&lt;b&gt;"), "{html}");
        let text = said(&templates, &content, Part::Text);
        assert!(text.contains("<script>alert(1)</script>") && text.contains("{% raw %}"), "{text}");
        assert!(!said(&templates, &content, Part::Slack).contains("<b>"));
        assert!(said(&templates, &content, Part::Discord).contains("\\<b\\>"));
    }
    let templates = Templates::load(&config("en", &[])).expect("no fault");
    let message = Content::read(&letter(r#"{"message":{"subject":"a\r\nBcc: x","body":"<img src=x onerror=y>"}}"#));
    assert_eq!(said(&templates, &message, Part::Subject), "a Bcc: x");
    assert!(said(&templates, &message, Part::Html).contains("&lt;img"));
    let written = Content::read(&letter(r#"{"message":{"subject":"a","body":"b","html":"<b>meant</b>"}}"#));
    assert_eq!(said(&templates, &written, Part::Html), "<b>meant</b>\n<p>This may have reached you before.</p>");
}

#[test]
fn a_users_text_goes_before_the_built_in_one_and_the_narrower_one_before_the_wider() {
    let files = [
        ("alert.subject.jinja", "{{ name }}!\n"),
        ("resolved.subject.jinja", "over: {{ name }}"),
        ("alert.html.jinja", "<i>{{ subject }}</i>"),
    ];
    let templates = Templates::load(&config("en", &files)).expect("no fault");
    let content = |event: &str| Content::read(&letter(&EVIL.replace("firing", event)));
    assert_eq!(said(&templates, &content("firing"), Part::Subject), "{{ 7 * 7 }}!");
    assert_eq!(said(&templates, &content("resolved"), Part::Subject), "over: {{ 7 * 7 }}");
    assert_eq!(said(&templates, &content("repeat"), Part::Html), "<i>&lt;script&gt;alert(1)&lt;&#x2f;script&gt;</i>");
    let source = |name: &str| templates.samples().into_iter().find(|sample| sample.name == name).map(|sample| sample.source);
    assert_eq!(source("resolved.subject").as_deref(), Some("resolved.subject.jinja"));
    assert_eq!(source("firing.subject").as_deref(), Some("alert.subject.jinja"));
    assert_eq!(source("firing.text").as_deref(), Some("built in"));
}

#[test]
fn a_broken_text_is_told_with_file_and_line() {
    let told = faults(&[("alert.text.jinja", "one\n{% if %}\n")]);
    assert!(told[0].starts_with("texts/alert.text.jinja:2:1: syntax error: "), "{told:?}");
    let told = faults(&[("alert.text.jinja", "\n\n{{ nmae }}")]);
    assert!(told[0].starts_with("texts/alert.text.jinja:3:1: undefined value") && told[0].contains("docs/SINKS.md"), "{told:?}");
    let told = faults(&[("alarm.text.jinja", "x"), ("alert.txt.jinja", "x")]);
    assert!(
        told.len() == 2
            && told[0].starts_with("texts/alarm.text.jinja: no text has this name; the names are EVENT.PART.jinja: firing.subject"),
        "{told:?}"
    );
    let told =
        faults(&[("digest.text.jinja", "{% for a in range(9000) %}{% for b in range(9000) %}{{ a }}{% endfor %}{% endfor %}")]);
    assert!(told[0].contains("engine ran out of fuel"), "{told:?}");
    let told = faults(&[("message.text.jinja", "{{ 'x' * 9000000 }}")]);
    assert!(told.len() == 1, "{told:?}");
}

#[test]
fn a_text_that_fails_on_a_real_delivery_gives_way_to_the_built_in_one() {
    let templates = Templates::load(&config("en", &[("alert.text.jinja", "{{ 10 // (count or 1) }}")])).expect("good on samples");
    let odd = Content::read(&letter(&EVIL.replace("\"value\":1", "\"value\":1,\"count\":\"many\"")));
    assert!(
        said(&templates, &odd, Part::Text).starts_with("CRITICAL: {{ 7 * 7 }} on <script>"),
        "{}",
        said(&templates, &odd, Part::Text)
    );
}

#[test]
fn a_digest_of_the_largest_size_is_rendered_whole() {
    let templates = Templates::load(&config("ko", &[])).expect("no fault");
    let one = r#"{"event":"firing","level":"WARNING","name":"n","subject":"engine-1","text":"x"}"#;
    let payload = format!(
        r#"{{"event":"digest","title":"t","level":"WARNING","count":9999,"firing":9990,"resolved":9,"alerts":[{}]}}"#,
        [one; 50].join(",")
    );
    let content = Content::read(&letter(&payload));
    for part in Part::ALL {
        let text = said(&templates, &content, part);
        assert!(part == Part::Subject || text.matches("engine-1").count() == 50, "{part:?}: {text}");
    }
    assert!(said(&templates, &content, Part::Text).contains("모든 경보는 화면에서"));
}

#[test]
fn belayds_own_alerts_are_korean_in_every_part_and_what_a_rule_found_stays_as_it_is() {
    let templates = Templates::load(&config("ko", &[("repeat.subject.jinja", "{{ name }}, {{ label }}")])).expect("no fault");
    let notice = |event: &str, kind: &str| {
        serde_json::json!({"event": event, "title": "t", "kind": kind, "name": "journal-disk-full", "subject": "journal", "level": "CRITICAL",
            "id": "a1", "text": "the file system of the journal has room again"})
    };
    let text = "저널의 파일 시스템에 다시 공간이 생겼습니다.";
    for part in Part::ALL {
        let own = said(&templates, &Content::read(&letter(&notice("resolved", "system").to_string())), part);
        let digest = serde_json::json!({"event": "digest", "title": "t", "level": "CRITICAL", "count": 2, "firing": 1, "resolved": 1,
            "alerts": [notice("resolved", "system"), notice("firing", "rule")]});
        let many = said(&templates, &Content::read(&letter(&digest.to_string())), part);
        if part == Part::Subject {
            assert_eq!(own, "[심각] 저널 디스크 가득 참(journal-disk-full) journal 해소");
        } else {
            assert!(own.contains(text) && !own.contains("room again"), "{part:?}: {own}");
            assert!(many.contains(text) && many.matches("room again").count() == 1, "{part:?}: {many}");
        }
    }
    let own = Content::read(&letter(&notice("repeat", "system").to_string()));
    assert_eq!(said(&templates, &own, Part::Subject), "journal-disk-full, 저널 디스크 가득 참(journal-disk-full)");
    let english = Templates::load(&config("en", &[("repeat.subject.jinja", "{{ label }}: {{ text }}")])).expect("no fault");
    assert_eq!(said(&english, &own, Part::Subject), "journal-disk-full: the file system of the journal has room again");
}

#[test]
fn a_message_of_the_largest_size_is_rendered_whole_and_whatever_is_escaped_in_it() {
    let templates = Templates::load(&config("en", &[])).expect("no fault");
    for (c, parts) in [("<", "&lt;"), ("/", "&#x2f;"), ("\"", "&quot;"), ("*", "*"), ("가", "가")] {
        let many = MAX_BODY_BYTES / c.len();
        let body = c.repeat(many);
        let content = Content::read(&letter(&serde_json::json!({"message": {"subject": "s", "body": body}}).to_string()));
        assert!(said(&templates, &content, Part::Text).starts_with(&body), "{c}");
        assert_eq!(said(&templates, &content, Part::Html).matches(parts).count(), many, "{c}");
        assert!(
            said(&templates, &content, Part::Slack).len() > body.len()
                && said(&templates, &content, Part::Discord).len() > body.len()
        );
        let html = serde_json::json!({"message": {"subject": "s", "body": "b", "html": body}}).to_string();
        assert!(said(&templates, &Content::read(&letter(&html)), Part::Html).starts_with(&body), "{c}");
    }
}

#[test]
fn a_message_that_cannot_be_rendered_is_refused_and_of_an_alert_the_headline_is_told() {
    let templates = Templates { env: Environment::new(), own: BTreeSet::new(), korean: false };
    let message = Content::read(&letter(r#"{"message":{"subject":"s","body":"b"}}"#));
    let refused = templates.render(&message, Part::Text).expect_err("no text at all");
    assert_eq!((refused.class, refused.error_type), (ErrorClass::Reject, "unrenderable"));
    assert_eq!(said(&templates, &Content::read(&letter(EVIL)), Part::Text), "t");
}

#[test]
fn what_may_be_a_repeat_says_so_in_every_place_and_what_is_none_does_not() {
    let mut one = letter(r#"{"message":{"subject":"s","body":"b"}}"#);
    for (lang, sentence) in [("en", "This may have reached you before."), ("ko", "이미 받으신 메시지일 수 있습니다.")]
    {
        let templates = Templates::load(&config(lang, &[])).expect("no fault");
        for repeat in [true, false] {
            one.possible_repeat = repeat;
            let content = Content::read(&one);
            for part in [Part::Text, Part::Html, Part::Slack, Part::Discord] {
                let text = said(&templates, &content, part);
                assert_eq!((text.contains(sentence), text.contains('b')), (repeat, true), "{lang} {part:?}: {text}");
            }
            assert_eq!(said(&templates, &content, Part::Subject), "s");
        }
    }
}
