//! The ways out as configured: what each kind of sink needs, and one list of all of them, by which routes, messages, the outbox and the
//! page know a sink. Pure.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use lettre::{Address, message::Mailbox};

use super::model::Config;
use crate::domain::breaker::BreakerSettings;

/// The sink that is always there.
pub const LOG_SINK: &str = "log";

/// Most characters of a chat room's name.
const ROOM_MAX_CHARS: usize = 128;
/// Longest mail address that a server must take, bytes (RFC 5321).
const ADDRESS_MAX_BYTES: usize = 254;

/// What every sink's section has.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkSettings {
    /// Sends at once; `None`: as the outbox says.
    pub concurrency: Option<usize>,
    /// Most sends a minute; `None`: no limit.
    pub per_minute: Option<u32>,
    /// The sink that is told instead while this one stays down.
    pub fallback: Option<String>,
    /// Its circuit breaker.
    pub breaker: BreakerSettings,
}

impl SinkSettings {
    /// Where no section says anything.
    pub const DEFAULT: Self = Self { concurrency: None, per_minute: None, fallback: None, breaker: BreakerSettings::SINK };
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// In the clear at first, then TLS; without it nothing is sent.
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// In the clear.
    None,
}

impl SmtpTls {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Starttls, Self::Tls, Self::None];

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starttls => "starttls",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// The port that is usual for it.
    pub fn port(self) -> u16 {
        match self {
            Self::Starttls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

/// `[smtp]`
#[derive(Clone, PartialEq)]
pub struct SmtpConfig {
    /// The mail server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How it is spoken to.
    pub tls: SmtpTls,
    /// PEM file of a further certificate authority.
    pub ca: Option<PathBuf>,
    /// Who signs in.
    pub username: Option<String>,
    /// Never logged.
    pub password: Option<String>,
    /// The sender: an address, or `Name <address>`.
    pub from: String,
    /// Where answers go.
    pub reply_to: Option<String>,
    /// Whom mails go to that name no recipient.
    pub to: Option<String>,
    /// How belayd calls itself; `None`: the host's name.
    pub hello: Option<String>,
    /// For each step.
    pub timeout: Duration,
    /// What every sink has.
    pub settings: SinkSettings,
}

/// `[slack]` or `[discord]`: an incoming webhook of a chat.
#[derive(Clone, PartialEq)]
pub struct ChatConfig {
    /// The webhook; secret.
    pub url: String,
    /// For one whole answer.
    pub timeout: Duration,
    /// What every sink has.
    pub settings: SinkSettings,
}

/// One of `[[webhooks]]`
#[derive(Clone, PartialEq)]
pub struct WebhookConfig {
    /// Unique among the sinks; routes name it.
    pub name: String,
    /// Where the POST goes.
    pub url: String,
    /// What deliveries are signed with; never logged.
    pub secret: Option<String>,
    /// For one whole answer.
    pub timeout: Duration,
    /// Extra request headers.
    pub headers: BTreeMap<String, String>,
    /// Whether link-local and metadata addresses may be asked.
    pub allow_link_local: bool,
    /// What every sink has.
    pub settings: SinkSettings,
}

/// One of `[[bots]]`
#[derive(Clone, PartialEq)]
pub struct BotConfig {
    /// Unique among the sinks; routes name it.
    pub name: String,
    /// Where the POST goes.
    pub url: String,
    /// Bearer token; never logged.
    pub token: Option<String>,
    /// The room of deliveries that name none.
    pub room: Option<String>,
    /// PEM file of a further certificate authority.
    pub ca: Option<PathBuf>,
    /// For one whole answer.
    pub timeout: Duration,
    /// Whether link-local and metadata addresses may be asked.
    pub allow_link_local: bool,
    /// What every sink has.
    pub settings: SinkSettings,
}

/// `[templates]`
#[derive(Clone, Debug, PartialEq)]
pub struct TemplatesConfig {
    /// `en` or `ko`: the language of the built-in texts.
    pub lang: String,
    /// The folder of the user's own.
    pub dir: Option<PathBuf>,
    /// What is in it: text by file name. Read with the configuration, so that a reload sees a changed file.
    pub files: BTreeMap<String, String>,
}

/// What kind of receiver a sink is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Lines in the log.
    Log,
    /// Mail.
    Smtp,
    /// Slack's incoming webhook.
    Slack,
    /// Discord's webhook.
    Discord,
    /// JSON to any URL.
    Webhook,
    /// A chat bot over HTTP.
    Bot,
}

impl SinkKind {
    /// The word in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Smtp => "smtp",
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Webhook => "webhook",
            Self::Bot => "bot",
        }
    }

    /// Whether a delivery names to whom it goes: an address, a room.
    pub fn takes_recipients(self) -> bool {
        matches!(self, Self::Smtp | Self::Bot)
    }

    /// Whether files can go with a delivery. The log takes them as it takes everything, and shows none; incoming webhooks of chats take none.
    pub fn takes_files(self) -> bool {
        !matches!(self, Self::Slack | Self::Discord)
    }
}

/// A sink as configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SinkInfo<'a> {
    /// As routes and messages name it.
    pub name: &'a str,
    /// What it is.
    pub kind: SinkKind,
    /// What every sink has.
    pub settings: &'a SinkSettings,
    /// Whom it tells where a delivery names nobody.
    pub recipient: Option<&'a str>,
}

impl SinkInfo<'_> {
    /// Whether a delivery may go without naming a recipient.
    pub fn may_leave_out_recipient(&self) -> bool {
        self.kind != SinkKind::Smtp || self.recipient.is_some()
    }

    /// What is wrong with a recipient for this sink, in words; nothing where it is good.
    pub fn recipient_fault(&self, recipient: &str) -> Option<String> {
        match self.kind {
            SinkKind::Smtp => parse_mailbox(recipient).err().map(str::to_owned),
            SinkKind::Bot => {
                let good =
                    !recipient.is_empty() && recipient.chars().count() <= ROOM_MAX_CHARS && !recipient.contains(char::is_control);
                (!good).then(|| format!("must be a room: 1 to {ROOM_MAX_CHARS} characters without control characters"))
            }
            _ => Some(format!("the sink {} has one receiver and takes no recipient", self.name)),
        }
    }
}

impl Config {
    /// Every sink that routes and messages can name, in a fixed order: the log, mail, chats, webhooks, bots.
    pub fn sinks(&self) -> Vec<SinkInfo<'_>> {
        let one = |name, kind, settings| SinkInfo { name, kind, settings, recipient: None };
        let mut sinks = vec![one(LOG_SINK, SinkKind::Log, &SinkSettings::DEFAULT)];
        let smtp = self.smtp.iter();
        sinks.extend(smtp.map(|c| SinkInfo { recipient: c.to.as_deref(), ..one("smtp", SinkKind::Smtp, &c.settings) }));
        sinks.extend(self.slack.iter().map(|c| one("slack", SinkKind::Slack, &c.settings)));
        sinks.extend(self.discord.iter().map(|c| one("discord", SinkKind::Discord, &c.settings)));
        sinks.extend(self.webhooks.iter().map(|c| one(&c.name, SinkKind::Webhook, &c.settings)));
        let bots = self.bots.iter();
        sinks.extend(bots.map(|c| SinkInfo { recipient: c.room.as_deref(), ..one(&c.name, SinkKind::Bot, &c.settings) }));
        sinks
    }

    /// The sink of this name.
    pub fn sink(&self, name: &str) -> Option<SinkInfo<'_>> {
        self.sinks().into_iter().find(|sink| sink.name == name)
    }
}

/// A mailbox as people write it: `a@example.org` or `Name <a@example.org>`, one and nothing behind it.
///
/// # Errors
/// What is wrong; the text itself is not repeated, since it may be a person's address.
pub fn parse_mailbox(text: &str) -> Result<Mailbox, &'static str> {
    const WRONG: &str = "is not a mail address; write a@example.org or Name <a@example.org>";
    if text.contains(char::is_control) {
        return Err("has a control character");
    }
    let text = text.trim();
    let (name, address) = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (name.trim().trim_matches('"').trim(), address),
        None => ("", text),
    };
    // A quoted local part may hold whatever a header must not; nobody has one.
    if address.len() > ADDRESS_MAX_BYTES || address.contains(['"', '<', '>', ',', ';']) || name.contains(['<', '>', '"']) {
        return Err(WRONG);
    }
    let address: Address = address.parse().map_err(|_| WRONG)?;
    Ok(Mailbox::new((!name.is_empty()).then(|| name.to_owned()), address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_mailbox_is_one_address_and_nothing_behind_it() {
        for good in ["a@example.org", "A B <a@example.org>", "\"A, B\" <a@example.org>", "홍길동 <gildong@example.org>", " a@b.kr "]
        {
            assert!(parse_mailbox(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@example.org, b@example.org",
            "a@example.org\r\nBcc: b@example.org",
            "A\nB <a@example.org>",
            "a@example.org> x <b@example.org>",
            "\"a\r\nb\"@example.org",
            "<a@example.org",
            "a b@example.org",
        ] {
            assert!(parse_mailbox(bad).is_err(), "{bad:?}");
        }
        assert!(parse_mailbox(&format!("{}@example.org", "a".repeat(300))).is_err());
    }

    #[test]
    fn every_sink_is_known_with_what_it_takes() {
        let config = parse(
            "[smtp]\nhost = \"mail.example.org\"\nfrom = \"b@example.org\"\n[slack]\nurl = \"https://h/x\"\n[discord]\nurl = \"https://h/y\"\n\
             [[webhooks]]\nname = \"hook\"\nurl = \"https://h/z\"\n[[bots]]\nname = \"bot\"\nurl = \"https://h/b\"\nroom = \"ops\"\n",
        )
        .expect("no fault");
        let sinks = config.sinks();
        let known: Vec<_> = sinks.iter().map(|sink| (sink.name, sink.kind.as_str(), sink.kind.takes_recipients())).collect();
        let expected = [
            ("log", "log", false),
            ("smtp", "smtp", true),
            ("slack", "slack", false),
            ("discord", "discord", false),
            ("hook", "webhook", false),
            ("bot", "bot", true),
        ];
        assert_eq!(known, expected);
        let sink = |name| config.sink(name).expect("known");
        assert!(!sink("smtp").may_leave_out_recipient() && sink("bot").may_leave_out_recipient());
        assert_eq!(sink("smtp").recipient_fault("a@example.org"), None);
        assert!(sink("smtp").recipient_fault("ops").is_some() && sink("slack").recipient_fault("ops").is_some());
        assert_eq!(sink("bot").recipient_fault("운영 방"), None);
        assert!(sink("bot").recipient_fault("a\nb").is_some());
    }
}
