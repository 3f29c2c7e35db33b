//! The ways out, from resolved tables to typed values.

use std::collections::BTreeMap;

use super::{Missing, breaker};
use crate::config::{
    alerts::RouteConfig,
    model::Config,
    resolve::Entry,
    sinks::{BotConfig, ChatConfig, SinkSettings, SmtpConfig, SmtpTls, TemplatesConfig, WebhookConfig},
};

fn settings(e: &Entry) -> Result<SinkSettings, Missing> {
    Ok(SinkSettings {
        concurrency: e.option("concurrency"),
        per_minute: e.option("per_minute"),
        fallback: e.option("fallback"),
        breaker: breaker(e)?,
    })
}

pub(super) fn smtp(e: &Entry) -> Result<Option<SmtpConfig>, Missing> {
    let Some(host) = e.option("host") else { return Ok(None) };
    let word: String = e.get("tls")?;
    let tls = SmtpTls::ALL.into_iter().find(|way| way.as_str() == word).ok_or_else(|| e.key_path("tls"))?;
    Ok(Some(SmtpConfig {
        host,
        port: e.option("port").unwrap_or_else(|| tls.port()),
        tls,
        ca: e.option("ca"),
        username: e.option("username"),
        password: e.option("password"),
        from: e.get("from")?,
        reply_to: e.option("reply_to"),
        to: e.option("to"),
        hello: e.option("hello"),
        timeout: e.get("timeout")?,
        settings: settings(e)?,
    }))
}

pub(super) fn chat(e: &Entry) -> Result<Option<ChatConfig>, Missing> {
    let Some(url) = e.option("url") else { return Ok(None) };
    Ok(Some(ChatConfig { url, timeout: e.get("timeout")?, settings: settings(e)? }))
}

pub(super) fn webhook(e: &Entry) -> Result<WebhookConfig, Missing> {
    Ok(WebhookConfig {
        name: e.get("name")?,
        url: e.get("url")?,
        secret: e.option("secret"),
        timeout: e.get("timeout")?,
        headers: e.option("headers").unwrap_or_default(),
        allow_link_local: e.get("allow_link_local")?,
        settings: settings(e)?,
    })
}

pub(super) fn bot(e: &Entry) -> Result<BotConfig, Missing> {
    Ok(BotConfig {
        name: e.get("name")?,
        url: e.get("url")?,
        token: e.option("token"),
        room: e.option("room"),
        ca: e.option("ca"),
        timeout: e.get("timeout")?,
        allow_link_local: e.get("allow_link_local")?,
        settings: settings(e)?,
    })
}

pub(super) fn templates(e: &Entry, files: BTreeMap<String, String>) -> Result<TemplatesConfig, Missing> {
    Ok(TemplatesConfig { lang: e.get("lang")?, dir: e.option("dir"), files })
}

/// The route that holds where none is given: a receiver that somebody set up is meant to be told.
pub(super) fn everything_everywhere(config: &Config) -> RouteConfig {
    let sinks = config.sinks();
    RouteConfig::to(sinks.iter().filter(|sink| sink.may_leave_out_recipient()).map(|sink| sink.name.to_owned()).collect())
}
