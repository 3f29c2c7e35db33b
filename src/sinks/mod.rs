//! Ways out: one file a sink, one line each in [`build`].
//!
//! In: one delivery at a time from the outbox. Out: what the receiver said, with a verdict: the sink classifies, the outbox
//! decides. A sink keeps no state that a crash could lose.

mod bot;
pub mod content;
mod discord;
#[cfg(test)]
pub mod doubles;
mod escape;
mod http;
pub mod kafka;
pub mod log;
mod slack;
pub mod smtp;
pub mod templates;
mod webhook;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use self::templates::Templates;
pub use self::{bot::BotSink, discord::DiscordSink, log::LogSink, slack::SlackSink, smtp::SmtpSink, webhook::WebhookSink};
use crate::{
    config::{Config, SinkSettings},
    domain::channel,
};

/// The name of the daemon's own way from alerts to issues; no route and no message names it.
pub const ISSUES: &str = "issues";
/// The system condition that a sink takes nothing; its subject is the sink.
pub const SINK_DOWN: &str = "sink-down";
/// The system condition that deliveries to a sink wait for a person; its subject is the sink.
pub const DELIVERY_FAILED: &str = "delivery-failed";

/// What a sink gets to see of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The delivery's id: the receiver can tell repeats by it.
    pub id: String,
    /// The sink it is meant for.
    pub sink: String,
    /// To whom: an address, a room. Empty where the sink itself is the receiver.
    pub recipient: String,
    /// What it is about: the id of the alert or message.
    pub subject: String,
    /// JSON text.
    pub payload: Arc<str>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether an earlier attempt may have arrived.
    pub possible_repeat: bool,
    /// What goes with it, loaded just before the send.
    pub attachments: Vec<Attachment>,
}

/// A file that goes with a delivery.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, without a folder.
    pub name: String,
    /// Its media type.
    pub content_type: String,
    /// What is in it; shared by the attempts that are on their way.
    pub content: Arc<[u8]>,
}

impl fmt::Debug for Attachment {
    /// Without the content, which may be long and private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {} bytes)", self.name, self.content_type, self.content.len())
    }
}

/// How much a sink is asked to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Sends at once; `None`: as the outbox says.
    pub concurrency: Option<usize>,
    /// Most sends a minute; `None`: no limit.
    pub per_minute: Option<u32>,
}

/// What the receiver confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// What it answered, for a person: a status line.
    pub answer: String,
}

/// What the outbox should do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Try again, not before `after` where the receiver said so.
    Retry {
        /// The receiver's Retry-After.
        after: Option<Duration>,
    },
    /// This delivery will never be taken.
    Reject,
    /// The sink itself is set up wrongly: nothing will be taken until a person changes that, and what is to be sent waits for it. Its
    /// word is one of [`channel::FAULTS`].
    Fatal,
    /// The body went out and no answer came.
    Unknown,
}

/// A send that was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    /// The verdict.
    pub class: ErrorClass,
    /// A fixed word for metrics and logs: `connect`, `timeout`, `status_5xx`.
    pub error_type: &'static str,
    /// One sentence without secrets.
    pub message: String,
}

impl SendError {
    /// Whether it was the channel that failed, and nothing of the delivery can have arrived: another attempt does no harm.
    pub fn left_nothing(&self) -> bool {
        let is_setup = self.class == ErrorClass::Fatal;
        is_setup || (self.class == ErrorClass::Retry { after: None } && channel::FAULTS.contains(&self.error_type))
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl std::error::Error for SendError {}

/// A way out. Implementations bound the time of a send themselves.
pub trait Sink: Send + Sync + fmt::Debug {
    /// The name that routes use.
    fn name(&self) -> &str;

    /// How much it wants to be asked for.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Whether a delivery names to whom it goes; others have one receiver.
    fn takes_recipients(&self) -> bool {
        false
    }

    /// Whether it can take anything now. While it cannot its deliveries wait, without an attempt and without a fault of the sink.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether many deliveries may be marked as being sent before each has begun: its receiver can tell repeats by the delivery id, or a
    /// repeat does no harm. After a crash their outcome is unknown, so others are marked no more than they send at once.
    fn takes_batches(&self) -> bool {
        false
    }

    /// Sends one delivery and waits for the receiver's word.
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>>;
}

/// The names of every sink that routes and messages can name.
pub fn known(config: &Config) -> Vec<String> {
    config.sinks().into_iter().map(|sink| sink.name.to_owned()).collect()
}

/// Whether deliveries to the sink of this name say to whom they go.
pub fn takes_recipients(config: &Config, name: &str) -> bool {
    config.sink(name).is_some_and(|sink| sink.kind.takes_recipients())
}

/// Whether files can go with deliveries to the sink of this name.
pub fn takes_files(config: &Config, name: &str) -> bool {
    config.sink(name).is_some_and(|sink| sink.kind.takes_files())
}

fn limits_of(settings: &SinkSettings) -> Limits {
    Limits { concurrency: settings.concurrency, per_minute: settings.per_minute }
}

/// Every sink that the configuration asks for. A new kind of sink is one file, one line here and one in [`Config::sinks`].
pub fn build(config: &Config) -> Vec<Arc<dyn Sink>> {
    let texts = Arc::new(Templates::in_force(&config.templates));
    let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::new(LogSink)];
    let mut add = |sink: Arc<dyn Sink>| sinks.push(sink);
    config.smtp.iter().for_each(|smtp| add(Arc::new(SmtpSink::new(smtp, config.outbox.concurrency, texts.clone()))));
    config.slack.iter().for_each(|slack| add(Arc::new(SlackSink::new(slack, texts.clone()))));
    config.discord.iter().for_each(|discord| add(Arc::new(DiscordSink::new(discord, texts.clone()))));
    config.webhooks.iter().for_each(|webhook| add(Arc::new(WebhookSink::new(webhook))));
    config.bots.iter().for_each(|bot| add(Arc::new(BotSink::new(bot, texts.clone()))));
    sinks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_is_known_and_says_the_same_of_itself() {
        let config = crate::config::parse(
            "[smtp]\nhost = \"h\"\nfrom = \"a@b.c\"\nper_minute = 7\n[slack]\nurl = \"http://h/hunter2\"\n[discord]\nurl = \"http://h/hunter2\"\n\
             concurrency = 2\n[[webhooks]]\nname = \"w\"\nurl = \"http://h/hunter2\"\n[[bots]]\nname = \"b\"\nurl = \"http://h/hunter2\"\n",
        )
        .expect("no fault");
        let built = build(&config);
        assert_eq!(built.iter().map(|sink| sink.name().to_owned()).collect::<Vec<_>>(), known(&config));
        for sink in &built {
            assert_eq!(sink.takes_recipients(), takes_recipients(&config, sink.name()), "{sink:?}");
            assert!(!format!("{sink:?}").contains("hunter2"), "a URL may hold a secret: {sink:?}");
        }
        let limits: Vec<_> = built.iter().map(|sink| (sink.limits().concurrency, sink.limits().per_minute)).collect();
        assert_eq!(limits, [(None, None), (None, Some(7)), (None, None), (Some(2), None), (None, None), (None, None)]);
        assert!(!takes_recipients(&config, "nobody"));
    }
}
