//! The one table of keys: what `belayd.toml` may say, what each key means, its default and its range. The loader, the example,
//! the reference, the hints for misspelt keys and the rules of reloading all read this table and nothing else.

mod alerts;
mod daemon;
mod flow;
mod messages;
mod redis;
mod sinks;

/// What a key's value may be, and how it is written.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds, both inclusive.
    Int(i64, i64),
    /// A finite number within bounds, both inclusive.
    Float(f64, f64),
    /// A duration within bounds, both inclusive, written as in the file.
    Duration(&'static str, &'static str),
    /// A size within bounds, both inclusive, written as in the file.
    Size(&'static str, &'static str),
    /// Text without control characters, at least one character.
    Text,
    /// 1 to 64 of letters, digits, `.`, `_`, `:`, `-`.
    Name,
    /// A metric: one of the four named ones in either spelling, or a name of an extra one.
    Metric,
    /// A path that belayd writes to; relative ones count from where they stand.
    Path,
    /// A path to a file that must be there; relative ones count from where they stand.
    InputFile,
    /// A path to a folder that must be there; relative ones count from where they stand.
    InputDir,
    /// The name of a systemd credential.
    Credential,
    /// `ADDRESS:PORT`
    Socket,
    /// `http://…` or `https://…`; a secret.
    HttpUrl,
    /// `sqlite://PATH` or `postgres://…`; a secret.
    StoreUrl,
    /// Text that is never shown.
    Secret,
    /// What webhooks are signed with; never shown.
    SigningSecret,
    /// `a@example.org`, or `Name <a@example.org>`.
    MailAddress,
    /// One host name or address without port.
    Host,
    /// `HOST:PORT`, several separated by commas.
    Brokers,
    /// `redis://…` or `rediss://…`; a secret.
    RedisUrl,
    /// A list of them; secrets.
    RedisUrls,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Some of these words: a list, or one alone.
    Words(&'static [&'static str]),
    /// Names: a list, or one alone.
    Names,
    /// Addresses or rooms: a list, or one alone.
    Recipients,
    /// Host names or addresses without port.
    Hosts,
    /// IP addresses.
    Addresses,
    /// Request headers by name; the values are secrets.
    Headers,
    /// The source's field name by reading field.
    Fields,
    /// Labels of alerts: text by name.
    Labels,
    /// `[lowest, highest]` by metric.
    Ranges,
    /// A log level, or filter directives.
    Filter,
    /// `HH:MM`, UTC.
    TimeOfDay,
}

impl Kind {
    /// Whether the value must not be shown.
    pub fn is_secret(self) -> bool {
        matches!(
            self,
            Self::HttpUrl | Self::StoreUrl | Self::RedisUrl | Self::RedisUrls | Self::Headers | Self::Secret | Self::SigningSecret
        )
    }

    /// What may be written, in words, for faults and the reference.
    pub fn describe(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int(min, max) => format!("whole number, {min} to {max}"),
            Self::Float(min, max) if min == f64::MIN && max == f64::MAX => "number".to_owned(),
            Self::Float(min, max) => format!("number, {min} to {max}"),
            Self::Duration(min, max) => format!("duration, \"{min}\" to \"{max}\""),
            Self::Size(min, max) => format!("size, \"{min}\" to \"{max}\""),
            Self::Text => "text".to_owned(),
            Self::Name => "name: 1 to 64 of letters, digits, `.`, `_`, `:`, `-`".to_owned(),
            Self::Metric => "metric: temperature, rpm, pressure, fuel_flow, or the name of an extra one".to_owned(),
            Self::Path => "path".to_owned(),
            Self::InputFile => "path of a file that exists".to_owned(),
            Self::InputDir => "path of a folder that exists".to_owned(),
            Self::Credential => "name of a systemd credential".to_owned(),
            Self::Socket => "ADDRESS:PORT".to_owned(),
            Self::HttpUrl => "URL, http:// or https://".to_owned(),
            Self::Secret => "text, never shown".to_owned(),
            Self::SigningSecret => "whsec_ and base64, or text of at least 16 characters; never shown".to_owned(),
            Self::MailAddress => "mail address, with or without a name before it".to_owned(),
            Self::Host => "host name or address, without port".to_owned(),
            Self::Brokers => "HOST:PORT, or several separated by commas".to_owned(),
            Self::RedisUrl => "URL, redis:// or rediss:// (TLS)".to_owned(),
            Self::RedisUrls => "list of URLs, redis:// or rediss:// (TLS)".to_owned(),
            Self::StoreUrl => "URL, sqlite://PATH or postgres://…".to_owned(),
            Self::Word(words) => format!("one of {}", quoted(words)),
            Self::Words(words) => format!("one or a list of {}", quoted(words)),
            Self::Names => "name or list of names".to_owned(),
            Self::Recipients => "address or room, or a list of them".to_owned(),
            Self::Hosts => "list of host names or addresses, without port".to_owned(),
            Self::Addresses => "list of IP addresses".to_owned(),
            Self::Headers => "table of header name = value".to_owned(),
            Self::Fields => "table of reading field = name in the source".to_owned(),
            Self::Labels => "table of label = text".to_owned(),
            Self::Ranges => "table of metric = [lowest, highest]".to_owned(),
            Self::Filter => {
                "error, warn, info, debug, trace or off, or directives such as \"info,belayd::outbox=debug\"".to_owned()
            }
            Self::TimeOfDay => "HH:MM, UTC".to_owned(),
        }
    }
}

/// `"a", "b"`
pub(super) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// What holds when a key is left out.
#[derive(Clone, Copy, Debug)]
pub enum Absent {
    /// This value, written as in the file.
    Is(&'static str),
    /// Something that `doc` describes; the text is an example of a value.
    Example(&'static str),
    /// A fault; the text is an example of a value.
    Fault(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// Another accepted spelling (`level` for `levels`).
    pub alias: Option<&'static str>,
    /// What it may be.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// What it means, in sentences.
    pub doc: &'static str,
    /// Whether a reload (SIGHUP) applies it.
    pub live: bool,
}

/// One table, or one list of tables.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// `buffer` for `[buffer]`, `sources` for `[[sources]]`.
    pub name: &'static str,
    /// The most entries where it is a list of tables; 0 where it is one table.
    pub most: usize,
    /// What it is about.
    pub doc: &'static str,
    /// Why a change needs a restart, for the keys that do.
    pub restart: &'static str,
    /// The entries that hold when a list is left out altogether, as in the file.
    pub default_entries: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Section {
    /// Whether it is a list of tables.
    pub fn is_list(&self) -> bool {
        self.most > 0
    }

    /// The key of this name or alias.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name || key.alias == Some(name))
    }
}

/// Every section, in the order of the example.
pub static SECTIONS: [&Section; 26] = [
    &daemon::SERVER,
    &daemon::STORE,
    &flow::BUFFER,
    &redis::REDIS,
    &flow::READINGS,
    &flow::SOURCES,
    &flow::RULES,
    &sinks::SMTP,
    &sinks::SLACK,
    &sinks::DISCORD,
    &sinks::WEBHOOKS,
    &sinks::BOTS,
    &sinks::TEMPLATES,
    &alerts::ROUTES,
    &alerts::ALERTS,
    &alerts::DEADMAN,
    &messages::MESSAGES,
    &messages::LIMITS,
    &flow::OUTBOX,
    &flow::KAFKA,
    &daemon::RETENTION,
    &daemon::SCHEDULE,
    &daemon::MONITOR,
    &daemon::RECOVERY,
    &daemon::SUPERVISION,
    &daemon::LOG,
];

/// The section of this name.
pub fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.into_iter().find(|section| section.name == name)
}

/// Sections and keys of belayd that this build cannot serve, and what to do instead. They are faults of their own kind: the
/// name is right, the build is not.
pub static NOT_SERVED: &[(&str, &str)] = &[
    ("schedules", "schedules of your own are not built yet: let cron or a systemd timer call `belayd send` or the HTTP interface"),
    ("jobs", "batch jobs are not built yet: let cron or a systemd timer start them"),
    ("batch", "batch jobs are not built yet: let cron or a systemd timer start them"),
];

const fn key(name: &'static str, kind: Kind, absent: Absent, doc: &'static str) -> Key {
    Key { name, alias: None, kind, absent, doc, live: false }
}

/// The keys of a party's circuit breaker, in the party's own section.
const fn breaker_failures(default: &'static str) -> Key {
    key(
        "breaker_failures",
        Kind::Int(1, 1_000),
        Absent::Is(default),
        "Circuit breaker: failures in a row after which it is left alone for a while (open); then one attempt tries again (half-open).",
    )
}

const fn breaker_pause(default: &'static str) -> Key {
    key(
        "breaker_pause",
        Kind::Duration("10ms", "1h"),
        Absent::Is(default),
        "Circuit breaker: first pause while it is open; it doubles with each attempt that fails.",
    )
}

/// As [`breaker_pause`], for a sink.
const fn sink_breaker_pause(default: &'static str) -> Key {
    key(
        "breaker_pause",
        Kind::Duration("10ms", "1h"),
        Absent::Is(default),
        "Circuit breaker: first pause while it is open, up to half of it less by chance. It doubles with each attempt that fails and was \
         refused or may have arrived; while nothing can be taken (no connection, 5xx) it stays, so that the sink's return is seen soon.",
    )
}

const fn breaker_pause_max(default: &'static str) -> Key {
    key("breaker_pause_max", Kind::Duration("10ms", "1h"), Absent::Is(default), "Circuit breaker: longest pause while it is open.")
}

impl Key {
    const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    const fn or(mut self, alias: &'static str) -> Self {
        self.alias = Some(alias);
        self
    }
}
