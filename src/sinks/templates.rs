//! The texts of mails and chats: built in, in English and Korean, and a user's own before them.
//!
//! In: [`Content`] and the part that a sink wants of it. Out: text, escaped for the place where it is shown; which place that is, the
//! template's name says: `alert.html` is HTML, `alert.slack` is mrkdwn, `alert.discord` is Markdown, `alert.text` and `alert.subject` are
//! plain. Templates are looked up by what happened (`resolved.html`), then by what it is about (`alert.html`), the user's before the
//! built-in ones. All are parsed and tried on samples before they count ([`Templates::load`]); one that fails on a real delivery all the
//! same is replaced by the built-in one for that delivery, because an alert in the wrong words beats none.

mod builtin;
pub mod korean;
mod sample;

use std::{borrow::Cow, collections::BTreeSet, fmt, io};

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, syntax::SyntaxConfig, value::Serde,
};
use serde_json::Value as Json;

use super::{
    ErrorClass, SendError,
    content::{Content, Event},
    escape,
};
use crate::{
    config::{Fault, Faults, Place, TEMPLATE_ENDING, TemplatesConfig},
    domain::{alert::AlertKind, message::MAX_BODY_BYTES},
};

/// Steps that one rendering may take: a digest of 50 alerts takes some 2,000.
const FUEL: u64 = 50_000;
/// Most bytes that one rendering of an alert or digest may write.
const OUTPUT_MAX_BYTES: usize = 512 * 1024;
/// Most bytes that one rendering of a message may write: the longest body of which every byte is escaped as HTML (`&quot;`), and what
/// stands around it.
const MESSAGE_MAX_BYTES: usize = 6 * MAX_BODY_BYTES + 64 * 1024;
/// What user's templates are called inside, so that they stand beside the built-in ones.
const USER: &str = "user/";
/// Where a text is from that nobody has replaced.
pub const BUILT_IN: &str = "built in";

/// What a sink wants of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// One line: a mail's subject, a chat's headline.
    Subject,
    /// Plain text.
    Text,
    /// HTML of a mail.
    Html,
    /// Slack's mrkdwn.
    Slack,
    /// Discord's Markdown.
    Discord,
}

impl Part {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Subject, Self::Text, Self::Html, Self::Slack, Self::Discord];

    /// The word in template names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Text => "text",
            Self::Html => "html",
            Self::Slack => "slack",
            Self::Discord => "discord",
        }
    }
}

/// One part of one event, rendered from a made-up content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `firing.subject`
    pub name: String,
    /// The template that made it: a file of the user's, or `built in`.
    pub source: String,
    /// What came out.
    pub text: String,
}

/// See the module.
pub struct Templates {
    env: Environment<'static>,
    /// Names of the user's, without the ending.
    own: BTreeSet<String>,
    /// Whether belayd's own alerts are told in Korean.
    korean: bool,
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Templates").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Templates {
    /// The built-in ones alone, in the language of the configuration.
    ///
    /// # Errors
    /// Only where this build's own templates are broken, which a test rules out.
    pub fn built_in(lang: &str) -> Result<Self, Error> {
        let mut env = Environment::new();
        env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_fuel(Some(FUEL));
        env.set_auto_escape_callback(escape_of);
        env.set_formatter(format);
        for (name, text) in builtin::of(lang) {
            env.add_template(name, text)?;
        }
        Ok(Self { env, own: BTreeSet::new(), korean: lang == "ko" })
    }

    /// What is rendered with while the daemon runs. The configuration was refused where it has faults; where it went another way (a demo, a
    /// test), the built-in texts serve.
    pub fn in_force(config: &TemplatesConfig) -> Self {
        Self::load(config).unwrap_or_else(|faults| {
            log::error!(target: "belayd::sinks", faults:% = faults; "texts of your own are left out");
            // With no template at all the headline of a delivery is still told.
            Self::built_in(&config.lang).unwrap_or_else(|_| Self { env: Environment::new(), own: BTreeSet::new(), korean: false })
        })
    }

    /// The built-in ones and the user's, each parsed and tried.
    ///
    /// # Errors
    /// Every fault of the user's, with file and line.
    pub fn load(config: &TemplatesConfig) -> Result<Self, Faults> {
        let dir = config.dir.as_ref();
        let file = |name: &str| dir.map_or_else(|| name.to_owned(), |dir| dir.join(name).display().to_string());
        let fault = |name: &str, line: Option<usize>, message: String, hint: Option<String>| {
            let place = line.map_or(Place::Nowhere, |line| Place::File { line, column: 1 });
            Fault { file: file(name), place, key: String::new(), message, hint }
        };
        let mut templates =
            Self::built_in(&config.lang).map_err(|error| Faults(vec![fault("built in", error.line(), told(&error), None)]))?;
        let mut faults = Vec::new();
        for (file_name, text) in &config.files {
            let name = file_name.strip_suffix(TEMPLATE_ENDING).unwrap_or(file_name);
            if !names().any(|known| known == name) {
                let hint = format!("the names are EVENT.PART{TEMPLATE_ENDING}: {}", names().collect::<Vec<_>>().join(", "));
                faults.push(fault(file_name, None, "no text has this name".to_owned(), Some(hint)));
            } else if let Err(error) = templates.env.add_template_owned(format!("{USER}{name}"), text.clone()) {
                faults.push(fault(file_name, error.line(), told(&error), None));
            } else {
                templates.own.insert(name.to_owned());
            }
        }
        let own: Vec<String> = templates.own.iter().cloned().collect();
        for name in own {
            // What is wrong with one event is wrong with all that the file serves; the first one tells.
            let tried = Event::ALL.into_iter().filter(|event| name.starts_with(event.as_str()) || name.starts_with(event.group()));
            let broken =
                tried.flat_map(sample::contents).find_map(|content| templates.run(&format!("{USER}{name}"), &content).err());
            if let Some(error) = broken {
                faults.push(fault(&format!("{name}{TEMPLATE_ENDING}"), error.line(), told(&error), Some(hint_for(&error))));
            }
        }
        if faults.is_empty() { Ok(templates) } else { Err(Faults(faults)) }
    }

    /// A part of what a delivery says.
    ///
    /// # Errors
    /// A rejection where a message cannot be rendered: in other words than its own it must not count as sent. Of an alert that cannot be
    /// rendered the headline is told.
    pub fn render(&self, content: &Content, part: Part) -> Result<String, SendError> {
        let wanted = [content.event.as_str(), content.event.group()].map(|event| format!("{event}.{}", part.as_str()));
        if let Some(name) = wanted.iter().find(|name| self.own.contains(*name)) {
            match self.run(&format!("{USER}{name}"), content) {
                Ok(text) => return Ok(finish(part, text)),
                Err(error) => {
                    log::warn!(target: "belayd::sinks", template = name.as_str(), line = error.line(), error:% = told(&error);
                    "a text of your own failed; the built-in one went out instead")
                }
            }
        }
        let [_, name] = wanted;
        let text = match self.run(&name, content) {
            Ok(text) => text,
            Err(error) => {
                log::error!(target: "belayd::sinks", template = name.as_str(), error:% = told(&error); "a built-in text failed; please report it");
                if content.event == Event::Message {
                    let message = format!("the message cannot be written out ({}); edit the delivery, or discard it", told(&error));
                    return Err(SendError { class: ErrorClass::Reject, error_type: "unrenderable", message });
                }
                escape_text(part, &content.title)
            }
        };
        Ok(finish(part, text))
    }

    /// Every part of every event from made-up contents, in the order of [`Event::ALL`].
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for event in Event::ALL {
            let Some(content) = sample::contents(event).next() else { continue };
            for part in Part::ALL {
                let wanted = [event.as_str(), event.group()].map(|event| format!("{event}.{}", part.as_str()));
                let own = wanted.iter().find(|name| self.own.contains(*name));
                samples.push(Sample {
                    name: format!("{}.{}", event.as_str(), part.as_str()),
                    source: own.map_or_else(|| BUILT_IN.to_owned(), |name| format!("{name}{TEMPLATE_ENDING}")),
                    text: self.render(&content, part).unwrap_or_else(|error| error.to_string()),
                });
            }
        }
        samples
    }

    /// What templates see of a content.
    fn shown<'a>(&self, content: &'a Content) -> Cow<'a, Json> {
        if content.event == Event::Message {
            return Cow::Borrowed(&content.context);
        }
        let mut shown = content.context.clone();
        shown["alerts"].as_array_mut().into_iter().flatten().for_each(|alert| put_into_words(alert, self.korean));
        put_into_words(&mut shown, self.korean);
        Cow::Owned(shown)
    }

    fn run(&self, name: &str, content: &Content) -> Result<String, Error> {
        let room = if content.event == Event::Message { MESSAGE_MAX_BYTES } else { OUTPUT_MAX_BYTES };
        let mut out = Bounded { bytes: Vec::new(), room };
        self.env.get_template(name)?.render_captured_to(Value::from(Serde(self.shown(content).as_ref())), &mut out)?;
        String::from_utf8(out.bytes).map_err(|error| Error::new(ErrorKind::WriteFailure, error.to_string()))
    }
}

/// What an alert is called and told with: belayd's own are stored in English, since machines read them too.
fn put_into_words(alert: &mut Json, korean: bool) {
    let Some(alert) = alert.as_object_mut() else { return };
    let word = |name: &str| alert.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let (name, text, is_own) = (word("name"), word("text"), korean && word("kind") == AlertKind::System.as_str());
    let (label, text) = if is_own { (korean::label(&name), korean::sentence(&name, &text)) } else { (name, text) };
    alert.insert("label".into(), label.into());
    alert.insert("text".into(), text.into());
}

/// Every name that a template may have.
fn names() -> impl Iterator<Item = String> {
    let events = Event::ALL.into_iter().map(Event::as_str).chain(["alert"]);
    events.flat_map(|event| Part::ALL.map(|part| format!("{event}.{}", part.as_str())))
}

fn told(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn hint_for(error: &Error) -> String {
    match error.kind() {
        ErrorKind::UndefinedError => {
            "the names that there are stand in docs/SINKS.md; write NAME | default(\"\") for one that may be missing"
        }
        ErrorKind::OutOfFuel => "it takes too many steps; shorten its loops",
        ErrorKind::WriteFailure => "it writes too much",
        _ => "compare it with the built-in ones in docs/SINKS.md",
    }
    .to_owned()
}

/// By the last part of the name.
fn escape_of(name: &str) -> AutoEscape {
    match name.rsplit('.').next() {
        Some("html") => AutoEscape::Html,
        Some("slack") => AutoEscape::Custom("slack".into()),
        Some("discord") => AutoEscape::Custom("discord".into()),
        _ => AutoEscape::None,
    }
}

fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let place = match state.auto_escape() {
        AutoEscape::Custom(place) if !value.is_safe() => place.to_string(),
        AutoEscape::Custom(_) => return Ok(out.write_str(&value.to_string())?),
        _ => return minijinja::escape_formatter(out, state, value),
    };
    let text = value.to_string();
    Ok(out.write_str(&if place == "slack" { escape::mrkdwn(&text) } else { escape::markdown(&text) })?)
}

fn escape_text(part: Part, text: &str) -> String {
    match part {
        Part::Subject | Part::Text => text.to_owned(),
        // The same three characters and the quotes, which stand in no attribute here.
        Part::Html | Part::Slack => escape::mrkdwn(text),
        Part::Discord => escape::markdown(text),
    }
}

/// A subject is one line whatever the template wrote; nothing else ends in blank lines.
fn finish(part: Part, text: String) -> String {
    match part {
        Part::Subject => escape::one_line(&text, escape::SUBJECT_MAX_CHARS),
        _ => text.trim().to_owned(),
    }
}

/// Takes at most so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    room: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.room {
            return Err(io::Error::other(format!("more than {} bytes", self.room)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "templates_tests.rs"]
mod tests;
