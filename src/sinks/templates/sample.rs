//! Made-up contents on which templates are tried: with everything in them, with as little as there can be, and with what a template
//! must not trip over.

use serde_json::{Value as Json, json};

use crate::sinks::{
    Letter,
    content::{Content, Event},
};

/// Contents of this event, the one that is shown to people first.
pub(super) fn contents(event: Event) -> impl Iterator<Item = Content> {
    let payloads = match event {
        Event::Message => vec![message("Maintenance tonight", "Line 3 stops at 22:00.\nBack at 23:00."), message("", "")],
        Event::Digest => vec![digest(&[alert(Event::Firing), alert(Event::Resolved)]), digest(&[])],
        _ => vec![alert(event), bare(event)],
    };
    payloads.into_iter().enumerate().map(|(index, payload)| Content::read(&letter(&payload, index > 0)))
}

fn letter(payload: &Json, possible_repeat: bool) -> Letter {
    Letter {
        id: "01a1fa89-b3a4-74b0-8106-211d21c0fc2c".into(),
        sink: "sample".into(),
        recipient: String::new(),
        subject: "sample".into(),
        payload: payload.to_string().into(),
        attempt: 1,
        possible_repeat,
        attachments: Vec::new(),
    }
}

fn alert(event: Event) -> Json {
    let resolved = event == Event::Resolved;
    json!({
        "event": event.as_str(), "title": format!("CRITICAL overheat engine-1: {}", event.as_str()),
        "id": "01a1fa89-0000-7000-8000-000000000001", "kind": "rule", "name": "overheat", "subject": "engine-1", "level": "CRITICAL",
        "state": if resolved { "resolved" } else { "firing" }, "openedAt": "2026-01-02T03:04:05.000000Z",
        "acknowledgedAt": null, "acknowledgedBy": null, "resolvedAt": resolved.then_some("2026-01-02T03:14:05.000000Z"),
        "value": 361.5, "threshold": 350.0, "text": "temperature 361.5 > 350 & rising", "count": 12,
        "sentAt": "2026-01-02T03:04:05.100000Z",
    })
}

/// A condition of the daemon itself has no numbers.
fn bare(event: Event) -> Json {
    let mut bare = alert(event);
    for name in ["value", "threshold", "count", "openedAt", "resolvedAt"] {
        bare[name] = Json::Null;
    }
    bare["acknowledgedBy"] = json!("kim");
    bare
}

fn digest(alerts: &[Json]) -> Json {
    json!({
        "event": "digest", "title": "52 alerts", "level": "CRITICAL", "count": 52, "firing": 40, "resolved": 12, "alerts": alerts,
        "sentAt": "2026-01-02T03:04:05.100000Z",
    })
}

fn message(subject: &str, body: &str) -> Json {
    json!({"message": {"id": "01a1fa89-0000-7000-8000-000000000002", "subject": subject, "body": body, "createdAt": "2026-01-02T03:04:05Z"}})
}
