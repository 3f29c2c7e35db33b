//! The ways out as named values.

use serde_json::{Value as Json, json};

use crate::config::{
    sinks::{BotConfig, ChatConfig, SinkSettings, SmtpConfig, TemplatesConfig, WebhookConfig},
    units::format_duration,
};

/// Adds what every sink has.
fn with(mut view: Json, settings: &SinkSettings) -> Json {
    view["concurrency"] = json!(settings.concurrency);
    view["per_minute"] = json!(settings.per_minute);
    view["fallback"] = json!(settings.fallback);
    view["breaker_failures"] = json!(settings.breaker.failures_max);
    view["breaker_pause"] = json!(format_duration(settings.breaker.open_base));
    view["breaker_pause_max"] = json!(format_duration(settings.breaker.open_max));
    view
}

pub(in crate::config) fn smtp(c: &SmtpConfig) -> Json {
    let view = json!({
        "host": c.host,
        "port": c.port,
        "tls": c.tls.as_str(),
        "ca": c.ca,
        "username": c.username,
        "password": c.password,
        "from": c.from,
        "reply_to": c.reply_to,
        "to": c.to,
        "hello": c.hello,
        "timeout": format_duration(c.timeout),
    });
    with(view, &c.settings)
}

pub(in crate::config) fn chat(c: &ChatConfig) -> Json {
    with(json!({"url": c.url, "timeout": format_duration(c.timeout)}), &c.settings)
}

pub(in crate::config) fn webhook(c: &WebhookConfig) -> Json {
    let view = json!({
        "name": c.name,
        "url": c.url,
        "secret": c.secret,
        "timeout": format_duration(c.timeout),
        "headers": c.headers,
        "allow_link_local": c.allow_link_local,
    });
    with(view, &c.settings)
}

pub(in crate::config) fn bot(c: &BotConfig) -> Json {
    let view = json!({
        "name": c.name,
        "url": c.url,
        "token": c.token,
        "room": c.room,
        "ca": c.ca,
        "timeout": format_duration(c.timeout),
        "allow_link_local": c.allow_link_local,
    });
    with(view, &c.settings)
}

pub(in crate::config) fn templates(c: &TemplatesConfig) -> Json {
    json!({"lang": c.lang, "dir": c.dir})
}
