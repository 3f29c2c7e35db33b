//! Keys of the ways out: mail, chats, webhooks, bots, and the texts that go there.

use super::{
    Absent::{Example, Fault, Is},
    Key,
    Kind::{
        Credential, Duration, Headers, Host, HttpUrl, InputDir, InputFile, Int, MailAddress, Name, Secret, SigningSecret, Text,
        Word,
    },
    Section, breaker_failures, breaker_pause_max,
    flow::{ALLOW_LINK_LOCAL, URL_CREDENTIAL, URL_FILE},
    key, sink_breaker_pause,
};

const CONCURRENCY: Key = key("concurrency", Int(1, 256), Example("2"), "Sends at once. Left out: outbox.concurrency.").live();
const PER_MINUTE: Key =
    key("per_minute", Int(1, 1_000_000), Example("60"), "Most sends a minute; what is beyond waits. Left out: no limit.").live();
const FALLBACK: Key = key(
    "fallback",
    Name,
    Example(r#""log""#),
    "The sink that is told instead while this one stays down. Left out: what it misses waits for it.",
)
.live();

pub(super) static SMTP: Section = Section {
    name: "smtp",
    most: 0,
    doc: "Mail. It is on where host is given; the sink is called \"smtp\" (docs/SINKS.md).",
    restart: "",
    default_entries: "",
    keys: &[
        key("host", Host, Example(r#""mail.example.org""#), "The mail server. Left out: no mail is sent.").live(),
        key("port", Int(1, 65_535), Example("587"), "Its port. Left out: 587 with starttls, 465 with tls, 25 with none.").live(),
        key(
            "tls",
            Word(&["starttls", "tls", "none"]),
            Is(r#""starttls""#),
            "starttls: in the clear at first, then TLS, and nothing is sent without it. tls: from the first byte. none: in the clear, without a password unless the server is on this host.",
        )
        .live(),
        key("ca", InputFile, Example(r#""ca.pem""#), "PEM file of a further certificate authority.").live(),
        key("username", Text, Example(r#""belayd""#), "Who signs in (AUTH PLAIN or LOGIN). Left out: nobody.").live(),
        key("password", Secret, Example(r#""secret""#), "Its password; never shown.").live(),
        key("password_file", InputFile, Example(r#""smtp-password""#), "File whose first line is the password, instead of password.").live(),
        key(
            "password_credential",
            Credential,
            Example(r#""smtp-password""#),
            "systemd credential (LoadCredential=) that holds the password, instead of password.",
        )
        .live(),
        key("from", MailAddress, Example(r#""belayd <belayd@example.org>""#), "The sender; must be given with host. Message-IDs end in its domain.").live(),
        key("reply_to", MailAddress, Example(r#""ops@example.org""#), "Where answers go. Left out: to the sender.").live(),
        key("to", MailAddress, Example(r#""ops@example.org""#), "Whom mails go to that name no recipient.").live(),
        key("hello", Host, Example(r#""belayd.example.org""#), "How belayd calls itself to the server. Left out: the name of this host.").live(),
        key(
            "timeout",
            Duration("100ms", "45s"),
            Is(r#""30s""#),
            "For each step: connecting and signing in; each command; the mail and the server's word on it.",
        )
        .live(),
        CONCURRENCY,
        PER_MINUTE,
        FALLBACK,
        breaker_failures("5").live(),
        sink_breaker_pause(r#""1s""#).live(),
        breaker_pause_max(r#""30s""#).live(),
    ],
};

pub(super) static SLACK: Section = Section {
    name: "slack",
    most: 0,
    doc: "Slack, by an incoming webhook. It is on where a URL is given; the sink is called \"slack\".",
    restart: "",
    default_entries: "",
    keys: &[
        key(
            "url",
            HttpUrl,
            Example(r#""https://hooks.slack.com/services/T000/B000/XXX""#),
            "The incoming webhook; or url_file, or url_credential. Its path is the secret and is never shown.",
        )
        .live(),
        URL_FILE,
        URL_CREDENTIAL,
        key("timeout", Duration("10ms", "10m"), Is(r#""10s""#), "For one whole answer.").live(),
        CONCURRENCY,
        PER_MINUTE,
        FALLBACK,
        breaker_failures("5").live(),
        sink_breaker_pause(r#""1s""#).live(),
        breaker_pause_max(r#""30s""#).live(),
    ],
};

pub(super) static DISCORD: Section = Section {
    name: "discord",
    most: 0,
    doc: "Discord, by a webhook. It is on where a URL is given; the sink is called \"discord\".",
    restart: "",
    default_entries: "",
    keys: &[
        key(
            "url",
            HttpUrl,
            Example(r#""https://discord.com/api/webhooks/000/XXX""#),
            "The webhook; or url_file, or url_credential. Its path is the secret and is never shown.",
        )
        .live(),
        URL_FILE,
        URL_CREDENTIAL,
        key("timeout", Duration("10ms", "10m"), Is(r#""10s""#), "For one whole answer.").live(),
        CONCURRENCY,
        PER_MINUTE,
        FALLBACK,
        breaker_failures("5").live(),
        sink_breaker_pause(r#""1s""#).live(),
        breaker_pause_max(r#""30s""#).live(),
    ],
};

pub(super) static WEBHOOKS: Section = Section {
    name: "webhooks",
    most: 100,
    doc: "Receivers of alerts and messages by HTTP POST (docs/SINKS.md).",
    restart: "",
    default_entries: "",
    keys: &[
        key("name", Name, Fault(r#""on-call""#), "Unique among the sinks; routes name it.").live(),
        key(
            "url",
            HttpUrl,
            Example(r#""https://example.org/hook""#),
            "Where the POST goes; url, url_file or url_credential must be given.",
        )
        .live(),
        URL_FILE,
        URL_CREDENTIAL,
        key(
            "secret",
            SigningSecret,
            Example(r#""whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw""#),
            "What each POST is signed with, by Standard Webhooks: whsec_ and base64, or any text of 16 characters and more. Left out: not signed.",
        )
        .live(),
        key("secret_file", InputFile, Example(r#""hook-secret""#), "File whose first line is the secret, instead of secret.").live(),
        key(
            "secret_credential",
            Credential,
            Example(r#""hook-secret""#),
            "systemd credential (LoadCredential=) that holds the secret, instead of secret.",
        )
        .live(),
        key("timeout", Duration("10ms", "10m"), Is(r#""10s""#), "For one whole answer.").live(),
        key(
            "headers",
            Headers,
            Example(r#"{ Authorization = "Bearer …" }"#),
            "Extra request headers; their values are never shown.",
        )
        .live(),
        ALLOW_LINK_LOCAL,
        CONCURRENCY,
        PER_MINUTE,
        FALLBACK,
        breaker_failures("5").live(),
        sink_breaker_pause(r#""1s""#).live(),
        breaker_pause_max(r#""30s""#).live(),
    ],
};

pub(super) static BOTS: Section = Section {
    name: "bots",
    most: 100,
    doc: "Chat bots over HTTP: text and images to rooms (docs/SINKS.md has the contract).",
    restart: "",
    default_entries: "",
    keys: &[
        key("name", Name, Fault(r#""messenger""#), "Unique among the sinks; routes name it.").live(),
        key(
            "url",
            HttpUrl,
            Example(r#""https://bot.example.org/send""#),
            "Where the POST goes; url, url_file or url_credential must be given.",
        )
        .live(),
        URL_FILE,
        URL_CREDENTIAL,
        key("token", Secret, Example(r#""secret""#), "Sent as Authorization: Bearer; never shown. Left out: none is sent.").live(),
        key("token_file", InputFile, Example(r#""bot-token""#), "File whose first line is the token, instead of token.").live(),
        key(
            "token_credential",
            Credential,
            Example(r#""bot-token""#),
            "systemd credential (LoadCredential=) that holds the token, instead of token.",
        )
        .live(),
        key("room", Text, Example(r#""ops""#), "The room of deliveries that name none. Left out: the bot decides.").live(),
        key("ca", InputFile, Example(r#""ca.pem""#), "PEM file of a further certificate authority.").live(),
        key("timeout", Duration("10ms", "10m"), Is(r#""10s""#), "For one whole answer.").live(),
        ALLOW_LINK_LOCAL,
        CONCURRENCY,
        PER_MINUTE,
        FALLBACK,
        breaker_failures("5").live(),
        sink_breaker_pause(r#""1s""#).live(),
        breaker_pause_max(r#""30s""#).live(),
    ],
};

pub(super) static TEMPLATES: Section = Section {
    name: "templates",
    most: 0,
    doc: "The texts of mails and chats. `belayd check` prints a sample of each of your own, and of the built-in ones the subjects, with `--verbose` every part (docs/SINKS.md).",
    restart: "",
    default_entries: "",
    keys: &[
        key("lang", Word(&["en", "ko"]), Is(r#""en""#), "The language of the built-in texts.").live(),
        key(
            "dir",
            InputDir,
            Example(r#""templates""#),
            "Folder of your own texts: alert.subject.jinja, digest.html.jinja and so on go before the built-in ones. SIGHUP reads it again.",
        )
        .live(),
    ],
};
