//! What is told to whom: routes pick the sinks, the notice is what they get.

use serde::Serialize;
use uuid::Uuid;

use crate::{
    config::{Config, OnUnknown, RouteConfig},
    domain::{
        alert::{Alert, AlertKind},
        time,
    },
    sinks,
    store::{alerts::Change, deliveries::NewDelivery},
};

/// The JSON that goes out. Receivers may rely on these names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notice<'a> {
    /// `firing`, `escalated` or `resolved`.
    event: &'static str,
    /// One line: level, name, subject, event.
    title: String,
    #[serde(flatten)]
    alert: &'a Alert,
    /// When this notice was made.
    sent_at: String,
}

/// The deliveries that a change of an alert asks for: one for each sink that a route names, each sink once.
pub(super) fn deliveries(config: &Config, alert: &Alert, change: Change, due_at_us: i64, now_us: i64) -> Vec<NewDelivery> {
    if change == Change::Repeated {
        return Vec::new();
    }
    let mut payload = None;
    targets(config, alert, change)
        .into_iter()
        .map(|(sink, on_unknown)| NewDelivery {
            id: Uuid::now_v7().to_string(),
            sink,
            lane: alert.episode(),
            subject: alert.id.clone(),
            payload: payload.get_or_insert_with(|| render(alert, change, now_us)).clone(),
            due_at_us,
            max_attempts: config.outbox.max_attempts,
            on_unknown,
            recipient: String::new(),
        })
        .collect()
}

pub(super) fn render(alert: &Alert, change: Change, now_us: i64) -> String {
    let event = change.as_str();
    let title = format!("{} {} {}: {event}", alert.level, alert.name, alert.subject);
    let notice = Notice { event, title, alert, sent_at: time::rfc3339_us(now_us) };
    // Strings, numbers and plain words: this cannot fail; an empty object would still name the delivery in its headers.
    serde_json::to_string(&notice).unwrap_or_else(|_| "{}".to_owned())
}

/// Sinks by the routes, or, with no route configured, all of them. The first route that names a sink decides about it.
fn targets(config: &Config, alert: &Alert, change: Change) -> Vec<(String, OnUnknown)> {
    let resolved = change == Change::Resolved;
    let mut targets: Vec<(String, OnUnknown)> = Vec::new();
    if config.routes.is_empty() {
        targets.push((sinks::log::NAME.to_owned(), OnUnknown::Resend));
        targets.extend(config.webhooks.iter().map(|webhook| (webhook.name.clone(), OnUnknown::Resend)));
    }
    for route in config.routes.iter().filter(|route| matches(route, alert) && (route.notify_resolved || !resolved)) {
        for sink in &route.sinks {
            if !targets.iter().any(|(known, _)| known == sink) {
                targets.push((sink.clone(), route.on_unknown));
            }
        }
    }
    // A sink is not told about itself; the log always is.
    if alert.kind == AlertKind::System && [sinks::SINK_DOWN, sinks::DELIVERY_FAILED].contains(&alert.name.as_str()) {
        targets.retain(|(sink, _)| *sink != alert.subject);
        if !targets.iter().any(|(sink, _)| sink == sinks::log::NAME) {
            targets.push((sinks::log::NAME.to_owned(), OnUnknown::Resend));
        }
    }
    targets
}

fn matches(route: &RouteConfig, alert: &Alert) -> bool {
    fn any<T: PartialEq>(wanted: &[T], is: &T) -> bool {
        wanted.is_empty() || wanted.contains(is)
    }
    any(&route.levels, &alert.level)
        && any(&route.kinds, &alert.kind)
        && any(&route.names, &alert.name)
        && any(&route.subjects, &alert.subject)
}
