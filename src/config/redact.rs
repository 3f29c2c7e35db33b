//! The configuration as it may be shown: header values, passwords, queries and the paths of webhooks are hidden. In: a
//! [`Config`] with its secrets. Out: JSON, URLs and debug text without them. Pure.

use serde_json::{Map, Value as Json};
use url::Url;

use super::{
    alerts::DeadmanConfig,
    keys::{Kind, Section, section},
    model::{Config, KafkaConfig, RedisConfig, SourceConfig, StoreConfig},
    sinks::{BotConfig, ChatConfig, SmtpConfig, WebhookConfig},
    view::{
        deadman, kafka, redis,
        sinks::{bot, chat, smtp, webhook},
        source, store, values,
    },
};

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Sections of receivers whose URL's path is the secret.
const RECEIVERS: [&str; 5] = ["slack", "discord", "webhooks", "bots", "deadman"];

impl Config {
    /// The configuration as JSON (camelCase) for people and for `/admin/config`: header values, passwords, queries and the
    /// paths of webhooks are hidden.
    pub fn redacted(&self) -> Json {
        let mut all = Map::new();
        for (section, tables) in values(self) {
            let mut tables: Vec<Json> = tables.into_iter().map(|table| Json::Object(hide(section, table))).collect();
            let value = if section.is_list() { Json::Array(tables) } else { tables.pop().unwrap_or_default() };
            all.insert(section.name.to_owned(), value);
        }
        Json::Object(all)
    }
}

/// The tables with secrets are shown to debuggers as to everybody else: a panic's message or a log line must not leak them.
macro_rules! debug_without_secrets {
    ($($type:ty, $section:literal, $view:ident;)+) => {
        $(impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match ($view(self), section($section)) {
                    (Json::Object(table), Some(section)) => write!(f, "{}", Json::Object(hide(section, table))),
                    _ => f.write_str(HIDDEN),
                }
            }
        })+
    };
}

debug_without_secrets! {
    StoreConfig, "store", store;
    RedisConfig, "redis", redis;
    SourceConfig, "sources", source;
    SmtpConfig, "smtp", smtp;
    ChatConfig, "slack", chat;
    WebhookConfig, "webhooks", webhook;
    BotConfig, "bots", bot;
    KafkaConfig, "kafka", kafka;
    DeadmanConfig, "deadman", deadman;
}

fn hide(section: &Section, table: Map<String, Json>) -> Map<String, Json> {
    let shown = |name: &str, value: Json| match section.key(name).map(|key| key.kind) {
        _ if value.is_null() => value,
        Some(Kind::RedisUrls) => {
            let urls = value.as_array().into_iter().flatten();
            urls.map(|url| redact_url(url.as_str().unwrap_or_default(), false)).collect()
        }
        Some(Kind::HttpUrl | Kind::StoreUrl | Kind::RedisUrl) => {
            Json::String(redact_url(value.as_str().unwrap_or_default(), RECEIVERS.contains(&section.name)))
        }
        Some(kind) if kind.is_secret() && !value.is_null() => value.as_object().map_or_else(
            || Json::String(HIDDEN.to_owned()),
            |map| Json::Object(map.keys().map(|name| (name.clone(), Json::String(HIDDEN.to_owned()))).collect()),
        ),
        _ => value,
    };
    table.into_iter().map(|(name, value)| (camel(&name), shown(&name, value))).collect()
}

fn camel(name: &str) -> String {
    let mut upper = false;
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            text.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    text
}

/// A URL that can be shown: without user, password, and the values of its query. `hide_path` is for receivers whose path is the
/// secret, as with most webhooks. SQLite's paths are shown as they are.
pub fn redact_url(text: &str, hide_path: bool) -> String {
    if text.starts_with("sqlite://") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else { return HIDDEN.to_owned() };
    let mut shown = format!("{}://", url.scheme());
    if !url.username().is_empty() || url.password().is_some() {
        shown.push_str(&format!("{HIDDEN}@"));
    }
    shown.push_str(url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        shown.push_str(&format!(":{port}"));
    }
    if hide_path {
        if url.path().len() > 1 || url.query().is_some() {
            shown.push_str(&format!("/{HIDDEN}"));
        }
        return shown;
    }
    let names: Vec<String> = url.query_pairs().map(|(name, _)| format!("{name}={HIDDEN}")).collect();
    url.set_query(None);
    shown.push_str(url.path());
    if !names.is_empty() {
        shown.push_str(&format!("?{}", names.join("&")));
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let text = r#"
            [store]
            url = "postgres://belayd:hunter2@db.local:5433/belayd?password=hunter2"
            [redis]
            cluster = ["rediss://belayd:hunter2@redis.local:6380/0", "redis://:hunter2@redis.local"]
            [[sources]]
            name = "s"
            url = "https://user:hunter2@host/engines?key=hunter2&after={after}"
            headers = { Authorization = "Bearer hunter2" }
            [[webhooks]]
            name = "w"
            url = "https://hooks.example.org/services/hunter2"
            headers = { X-Key = "hunter2" }
            secret = "hunter2hunter2hunter2"
            [smtp]
            host = "mail.local"
            username = "u"
            password = "hunter2"
            from = "belayd@mail.local"
            [slack]
            url = "https://hooks.slack.com/services/hunter2"
            [discord]
            url = "https://discord.com/api/webhooks/hunter2"
            [[bots]]
            name = "b"
            url = "https://bot.local/hunter2"
            token = "hunter2"
            [kafka]
            brokers = "localhost:9092"
            security = "sasl_plaintext"
            username = "u"
            password = "hunter2"
        "#;
        let config = crate::config::parse(text).expect("no fault");
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        let shown = config.redacted();
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
        assert_eq!(shown["store"]["url"], "postgres://***@db.local:5433/belayd?password=***");
        assert_eq!(shown["redis"]["cluster"][0], "rediss://***@redis.local:6380/0");
        assert_eq!(shown["sources"][0]["url"], "https://***@host/engines?key=***&after=***");
        assert_eq!(shown["sources"][0]["headers"]["authorization"], "***");
        assert_eq!(shown["webhooks"][0]["url"], "https://hooks.example.org/***");
        assert_eq!(shown["webhooks"][0]["secret"], "***");
        assert_eq!((&shown["smtp"]["password"], &shown["smtp"]["host"]), (&"***".into(), &"mail.local".into()));
        assert_eq!(shown["slack"]["url"], "https://hooks.slack.com/***");
        assert_eq!(shown["discord"]["url"], "https://discord.com/***");
        assert_eq!((&shown["bots"][0]["url"], &shown["bots"][0]["token"]), (&"https://bot.local/***".into(), &"***".into()));
        assert_eq!(shown["kafka"]["password"], "***");
        assert_eq!(shown["server"]["dataDir"], "belayd-data");
    }
}
