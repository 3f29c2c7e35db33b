//! Readiness, host, process and actors.

use serde_json::Value;

use super::{
    super::{
        format::{Say, fixed, items, number, text},
        template::Row,
    },
    fact, icon, tone_of,
};

/// What `/readyz` says, as a person reads it.
pub(super) fn readiness(snapshot: &Value, say: Say) -> Row {
    let state = text(snapshot, "/readiness");
    let tone = tone_of(state);
    vec![("key", "ready".to_owned()), ("tone", tone.to_owned()), ("icon", icon(tone)), ("label", say.word("readiness", state))]
}

/// CPU, memory and disk with the limits at which an alert is raised.
pub(super) fn system(snapshot: &Value, say: Say) -> Vec<Row> {
    ["cpu", "memory", "disk"]
        .into_iter()
        .map(|part| {
            let figure = snapshot.pointer(&format!("/system/{part}")).unwrap_or(&Value::Null);
            let percent = number(figure, "/percent");
            let limit = number(figure, "/limit");
            let alarm = limit.map(|limit| say.fill("limit", &[("n", &say.count(Some(limit)))]));
            let used = number(figure, "/totalBytes").map(|total| {
                let used = say.bytes(number(figure, "/usedBytes"));
                say.fill("used", &[("used", &used), ("total", &say.bytes(Some(total)))])
            });
            let tone = match (percent, limit) {
                (Some(percent), Some(limit)) if percent >= limit => "bad",
                (Some(percent), Some(limit)) if percent >= limit * 0.9 => "warn",
                _ => "",
            };
            vec![
                ("key", part.to_owned()),
                ("label", say.text(part)),
                ("value", format!("{} %", say.number(percent, 1))),
                ("note", [used, alarm].into_iter().flatten().collect::<Vec<_>>().join(" · ")),
                ("tone", tone.to_owned()),
                ("fill", fixed(percent.unwrap_or_default().clamp(0.0, 100.0), 1)),
                ("limit", limit.map_or_else(String::new, |limit| format!("M{} 0V6", fixed(limit.clamp(0.0, 100.0), 1)))),
            ]
        })
        .collect()
}

/// belayd's own process.
pub(super) fn process(snapshot: &Value, say: Say) -> Vec<Row> {
    vec![
        fact("private", say.text("process.private"), say.bytes(number(snapshot, "/system/process/privateBytes")), ""),
        fact("rss", say.text("process.rss"), say.bytes(number(snapshot, "/system/process/rssBytes")), ""),
    ]
}

/// The actors in flow order, as the snapshot has them.
pub(super) fn actors(snapshot: &Value, say: Say) -> Vec<Row> {
    items(snapshot, "/actors")
        .iter()
        .map(|actor| {
            let state = text(actor, "/state");
            let tone = tone_of(state);
            let depth = number(actor, "/mailboxDepth");
            let bound = number(actor, "/mailboxBound");
            let share = 100.0 * depth.unwrap_or_default() / bound.unwrap_or_default().max(1.0);
            vec![
                ("key", text(actor, "/name").to_owned()),
                ("name", text(actor, "/name").to_owned()),
                ("tone", tone.to_owned()),
                ("icon", icon(tone)),
                ("state", say.word("actor", state)),
                ("restarts", say.count(number(actor, "/restarts"))),
                ("mailbox", format!("{} / {}", say.count(depth), say.count(bound))),
                ("fill", fixed(share.clamp(0.0, 100.0), 1)),
                ("progress", number(actor, "/lastProgressMs").map_or_else(|| say.text("unknown"), |ms| say.span(ms))),
            ]
        })
        .collect()
}

/// The restarts of all actors together.
pub(super) fn actors_note(snapshot: &Value, say: Say) -> String {
    let restarts = items(snapshot, "/actors").iter().filter_map(|actor| number(actor, "/restarts")).sum();
    say.fill("actors.note", &[("n", &say.count(Some(restarts)))])
}
