//! What a receiver gets: one notice, or a digest of many. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    alert::{Alert, Level},
    time,
};

/// Notices that a digest shows; the others are in its counts and in the history.
pub(super) const DIGEST_SHOWS: usize = 50;

/// The JSON that goes out. Receivers may rely on these names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    /// `firing`, `escalated`, `repeat` or `resolved`.
    event: &'a str,
    /// One line: level, name, subject, event.
    title: String,
    #[serde(flatten)]
    alert: &'a Alert,
    /// When this notice was made.
    sent_at: String,
}

/// One notice as JSON text.
pub(super) fn render(alert: &Alert, event: &str, now_us: i64) -> String {
    let title = format!("{} {} {}: {event}", alert.level, alert.name, alert.subject);
    let notice = Notice { event, title, alert, sent_at: time::rfc3339_us(now_us) };
    // Strings, numbers and plain words: this cannot fail; an empty object would still name the delivery in its headers.
    serde_json::to_string(&notice).unwrap_or_else(|_| "{}".to_owned())
}

/// Many notices in one message. Receivers may rely on these names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Digest {
    /// `digest`
    event: String,
    /// One line: the highest level and the counts.
    title: String,
    /// The highest level among them.
    level: Level,
    /// How many alerts it tells of.
    count: u64,
    /// How many of them fire.
    firing: u64,
    /// How many of them are over.
    resolved: u64,
    /// The first of them, as single notices have them.
    alerts: Vec<Value>,
    /// When it was filled last.
    sent_at: String,
}

impl Digest {
    /// A digest of nothing.
    pub(super) fn new() -> Self {
        Self {
            event: "digest".into(),
            title: String::new(),
            level: Level::Info,
            count: 0,
            firing: 0,
            resolved: 0,
            alerts: Vec::new(),
            sent_at: String::new(),
        }
    }

    /// Reads one back, also where it told of one alert alone.
    pub(super) fn read(payload: &str) -> Self {
        serde_json::from_str(payload).ok().filter(|digest: &Self| digest.event == "digest").unwrap_or_else(|| {
            let mut digest = Self::new();
            digest.fold(payload);
            digest
        })
    }

    /// Takes an alert in. `before` is what this digest says of it already.
    pub(super) fn add(&mut self, alert: &Alert, event: &str, before: Option<&str>, now_us: i64) {
        let notice = || serde_json::from_str(&render(alert, event, now_us)).unwrap_or_default();
        self.take(alert.level, &alert.id, event, before, notice);
    }

    /// Takes the notice of a delivery in that was to tell of an alert alone.
    pub(super) fn fold(&mut self, payload: &str) {
        let notice: Value = serde_json::from_str(payload).unwrap_or_default();
        let word = |name: &str| notice[name].as_str().unwrap_or_default().to_owned();
        let level = word("level").parse().unwrap_or(Level::Info);
        // Several of one alert may have waited.
        let before = self.alerts.iter().find(|known| known["id"] == notice["id"]).map(|known| known["event"].clone());
        let before = before.as_ref().and_then(Value::as_str);
        self.take(level, &word("id"), &word("event"), before, || notice.clone());
    }

    fn take(&mut self, level: Level, id: &str, event: &str, before: Option<&str>, notice: impl FnOnce() -> Value) {
        self.level = self.level.max(level);
        let is_over = |event: &str| event == "resolved";
        match before {
            None => self.count += 1,
            Some(before) if is_over(before) => self.resolved = self.resolved.saturating_sub(1),
            Some(_) => self.firing = self.firing.saturating_sub(1),
        }
        *if is_over(event) { &mut self.resolved } else { &mut self.firing } += 1;
        if let Some(shown) = self.alerts.iter_mut().find(|shown| before.is_some() && shown["id"] == *id) {
            *shown = notice();
        } else if before.is_none() && self.alerts.len() < DIGEST_SHOWS {
            self.alerts.push(notice());
        }
    }

    /// Whether it tells of nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// As JSON text; one alert alone as its own notice.
    pub(super) fn render(&mut self, now_us: i64) -> String {
        if let ([notice], 1) = (&self.alerts[..], self.count) {
            return notice.to_string();
        }
        let Self { level, count, firing, resolved, .. } = self;
        self.title = format!("{level} digest of {count} alerts: {firing} firing, {resolved} resolved");
        self.sent_at = time::rfc3339_us(now_us);
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// The payload of a copy for the fallback: the same, with where it could not be delivered and why.
pub(super) fn marked(payload: &str, sink: &str, delivery_id: &str, reason: &str) -> String {
    match serde_json::from_str(payload) {
        Ok(Value::Object(mut notice)) => {
            let from = serde_json::json!({ "sink": sink, "deliveryId": delivery_id, "reason": reason });
            notice.insert("fallbackFrom".into(), from);
            Value::Object(notice).to_string()
        }
        // Not of belayd's making: as it is.
        _ => payload.to_owned(),
    }
}
