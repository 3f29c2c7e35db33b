//! What goes to a bot and what its answers mean; a real HTTP server is asked in the suite.

use super::*;
use crate::{config::TemplatesConfig, sinks::doubles::letter};

fn texts() -> Templates {
    Templates::in_force(&TemplatesConfig { lang: "en".into(), dir: None, files: Default::default() })
}

#[test]
fn a_bot_gets_room_text_and_images() {
    let mut letter = letter(r#"{"message":{"id":"m","subject":"s\n2","body":"b <i>"}}"#);
    let file = |name: &str, kind: &str| Attachment { name: name.into(), content_type: kind.into(), content: [1, 2, 3][..].into() };
    letter.attachments = vec![file("p.png", "image/png"), file("t.csv", "text/csv")];
    let expected = json!({
        "deliveryId": letter.id, "possibleRepeat": true, "room": "ops", "event": "message", "level": null, "title": "s 2",
        "text": "b <i>\n\nThis may have reached you before.",
        "images": [{"name": "p.png", "contentType": "image/png", "base64": "AQID"}],
        "attachments": [{"name": "t.csv", "contentType": "text/csv", "bytes": 3, "base64": "AQID"}],
    });
    let sent = |letter: &Letter, room| payload(&texts(), letter, room).expect("rendered");
    assert_eq!(sent(&letter, Some("ops")), expected);
    letter.recipient = "night".into();
    assert_eq!(sent(&letter, Some("ops"))["room"], "night");
    letter.recipient.clear();
    assert!(sent(&letter, None)["room"].is_null());
}

#[test]
fn every_answer_has_its_verdict() {
    let answer = |status| Answer { status, headers: HeaderMap::new(), body: "room closed".into() };
    for status in [200, 202, 409] {
        assert!(judge(&answer(status)).is_ok(), "{status}");
    }
    let class = |status| judge(&answer(status)).expect_err("refused").class;
    assert_eq!((class(401), class(403)), (ErrorClass::Fatal, ErrorClass::Fatal));
    assert_eq!((class(404), class(413)), (ErrorClass::Reject, ErrorClass::Reject));
    assert_eq!((class(429), class(500)), (ErrorClass::Retry { after: None }, ErrorClass::Retry { after: None }));
    assert_eq!(judge(&answer(404)).expect_err("refused").message, "the receiver answered HTTP 404 room closed");
}
