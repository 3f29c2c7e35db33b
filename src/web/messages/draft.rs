//! What somebody wants to have sent, read out of a JSON body and checked field by field: every fault is told at once.
//!
//! In: plain bytes, the `Idempotency-Key` header, the sinks there are. Out: a [`Draft`], or 400 with one entry for each fault. No message
//! repeats what was sent beyond a name: it may be a person's address or words.

#[cfg(test)]
mod tests;
mod twice;

use std::{collections::HashSet, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ways::Way;
use crate::{
    domain::{
        address,
        message::{
            MAX_AHEAD_US, MAX_ATTACHMENT_BYTES, MAX_ATTACHMENTS, MAX_BODY_BYTES, MAX_RECIPIENT_CHARS, MAX_RECIPIENTS,
            MAX_SUBJECT_CHARS, MAX_TEXT_BYTES, key_fault, line_fault, media_type_fault, name_fault, text_fault,
        },
    },
    ingest::timestamp::from_rfc3339,
    store::messages::Attachment,
    web::{body, error::ApiError},
};

/// The fields of a message.
const FIELDS: [&str; 9] = ["to", "subject", "body", "html", "via", "sendAt", "idempotencyKey", "replyTo", "attachments"];
/// The fields of an attachment.
const ATTACHMENT_FIELDS: [&str; 3] = ["name", "contentType", "content"];
/// Most faults that are collected: a body can hold any number of them.
const MAX_FAULTS: usize = 100;

/// Standard base64, with its padding or without.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// A message that can be sent as it is.
#[derive(Debug)]
pub(super) struct Draft {
    /// Where it goes.
    pub(super) via: String,
    /// Whether each recipient is a lane of its own.
    pub(super) takes_recipients: bool,
    /// To whom; where the sink itself is the receiver it is told so, and decides by itself.
    pub(super) to: Vec<String>,
    /// One line.
    pub(super) subject: String,
    /// Plain text.
    pub(super) body: String,
    /// The same as HTML.
    pub(super) html: Option<String>,
    /// When, microseconds since the epoch.
    pub(super) send_at_us: Option<i64>,
    /// Where answers go.
    pub(super) reply_to: Option<String>,
    /// What goes with it.
    pub(super) attachments: Vec<Attachment>,
    /// What tells a repeat.
    pub(super) key: Option<String>,
}

impl Draft {
    /// A hash over everything that makes up the message: two with the same are the same.
    pub(super) fn fingerprint(&self) -> String {
        let attachments: Vec<_> = self.attachments.iter().map(|a| (&a.name, &a.content_type, &a.sha256)).collect();
        let all = (&self.via, &self.to, &self.subject, &self.body, &self.html, self.send_at_us, &self.reply_to, attachments);
        // Texts and numbers: this cannot fail, and JSON keeps each apart from its neighbours.
        hex::encode(Sha256::digest(serde_json::to_vec(&all).unwrap_or_default()))
    }
}

/// A JSON object as it was written: a field that stands twice is a fault, since two readers could take different ones.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(All)
    }
}

/// What is wrong, by field.
#[derive(Debug, Default)]
struct Faults {
    all: Vec<(String, String)>,
    /// Whether one of them is that there are too many bytes.
    too_large: bool,
}

impl Faults {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        if self.all.len() < MAX_FAULTS {
            self.all.push((field.into(), reason.into()));
        }
    }

    fn add_too_large(&mut self, field: &str, reason: String) {
        self.too_large = true;
        self.add(field, reason);
    }

    /// 413 where something has too many bytes, else 400; with every fault either way.
    fn told(&self) -> ApiError {
        if self.too_large { ApiError::too_large(&self.all) } else { ApiError::fields(&self.all) }
    }

    fn check(&mut self, field: &str, fault: Option<String>) {
        if let Some(fault) = fault {
            self.add(field, fault);
        }
    }
}

/// Reads and checks a message. `ways` are the sinks there are, the first of those with `is_default` the one that is meant where none is named.
///
/// # Errors
/// 400: text that is no JSON object, or every fault of its fields at once; 413 where one of them is too many bytes.
pub(super) fn read(plain: &[u8], header_key: Option<&str>, ways: &[Way], now_us: i64) -> Result<Draft, ApiError> {
    let Fields(fields) = body::parse(plain)?;
    let mut faults = Faults::default();
    let mut known: Vec<(&str, Value)> = Vec::new();
    for (name, value) in fields {
        match FIELDS.iter().find(|field| **field == name) {
            Some(field) if known.iter().any(|(had, _)| had == field) => faults.add(*field, "stands twice"),
            Some(field) => known.push((*field, value)),
            None => faults.add(shown(&name), format!("is not a field of a message; known are {}", FIELDS.join(", "))),
        }
    }
    // What is null counts as left out.
    let mut take =
        |name: &str| known.iter_mut().find(|(had, _)| *had == name).map(|(_, value)| value.take()).filter(|v| !v.is_null());

    let subject = text(take("subject"), "subject", &mut faults);
    let body = text(take("body"), "body", &mut faults);
    let html = take("html").map(|value| text(Some(value), "html", &mut faults));
    faults.check_texts(&subject, &body, html.as_deref());
    let way = way(take("via"), ways, &mut faults);
    let to = recipients(take("to"), way, &mut faults);
    let deliveries = if way.is_some_and(|way| way.takes_recipients) { to.len() } else { 1 };
    let text_bytes = (body.len() + html.as_ref().map_or(0, String::len)).saturating_mul(deliveries);
    if text_bytes > MAX_TEXT_BYTES {
        faults.add_too_large(
            "to",
            format!("body and html for all recipients together are longer than {MAX_TEXT_BYTES} bytes; send several messages"),
        );
    }
    let send_at_us = take("sendAt").and_then(|value| send_at(&value, now_us, &mut faults));
    let reply_to = take("replyTo").map(|value| text(Some(value), "replyTo", &mut faults));
    if let Some(fault) = reply_to.as_deref().filter(|text| !text.is_empty()).and_then(address::fault) {
        faults.add("replyTo", fault);
    }
    let attachments = take("attachments").map(|value| attachments(value, &mut faults)).unwrap_or_default();
    if !attachments.is_empty() {
        for (index, name) in twice::names(plain) {
            faults.add(format!("attachments[{index}].{}", shown(&name)), "stands twice");
        }
    }
    if let Some(way) = way.filter(|way| !way.takes_files && !attachments.is_empty()) {
        faults.add("attachments", format!("the sink {} takes no files; leave them out, or send them another way", way.name));
    }
    let key = key(take("idempotencyKey"), header_key, &mut faults);
    match way {
        Some(way) if faults.all.is_empty() => Ok(Draft {
            via: way.name.clone(),
            takes_recipients: way.takes_recipients,
            to,
            subject,
            body,
            html,
            send_at_us,
            reply_to,
            attachments,
            key,
        }),
        _ => Err(faults.told()),
    }
}

/// A name that somebody made up, short enough to be repeated.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// A text that must be there. An empty one stands for one that is wrong, which is told.
fn text(value: Option<Value>, field: &str, faults: &mut Faults) -> String {
    match value {
        Some(Value::String(text)) => {
            if text.is_empty() {
                faults.add(field, "is empty");
            }
            return text;
        }
        Some(_) => faults.add(field, "must be text"),
        None => faults.add(field, "is missing"),
    }
    String::new()
}

impl Faults {
    fn check_texts(&mut self, subject: &str, body: &str, html: Option<&str>) {
        let given = |text: &&str| !text.is_empty();
        self.check("subject", Some(subject).filter(given).and_then(|text| line_fault(text, MAX_SUBJECT_CHARS)));
        self.check("body", Some(body).filter(given).and_then(text_fault));
        self.check("html", html.filter(given).and_then(text_fault));
        let html_bytes = html.map_or(0, str::len);
        self.too_large |= body.len() > MAX_BODY_BYTES || html_bytes > MAX_BODY_BYTES;
        if body.len() <= MAX_BODY_BYTES && html_bytes <= MAX_BODY_BYTES && body.len() + html_bytes > MAX_BODY_BYTES {
            self.add_too_large("html", format!("together with body is longer than {MAX_BODY_BYTES} bytes"));
        }
    }
}

fn way<'a>(value: Option<Value>, ways: &'a [Way], faults: &mut Faults) -> Option<&'a Way> {
    let names = || ways.iter().map(|way| way.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(value) = value else {
        let default = ways.iter().find(|way| way.is_default);
        if default.is_none() {
            faults.add("via", format!("is missing, and no [smtp] is configured that it could mean; known are {}", names()));
        }
        return default;
    };
    let Value::String(name) = value else {
        faults.add("via", "must be text");
        return None;
    };
    let found = ways.iter().find(|way| way.name == name);
    if found.is_none() {
        faults.add("via", format!("there is no sink \"{}\"; known are {}", shown(&name), names()));
    }
    found
}

/// The recipients; without a way only their form is checked.
fn recipients(value: Option<Value>, way: Option<&Way>, faults: &mut Faults) -> Vec<String> {
    let items = match value {
        Some(Value::Array(items)) => items,
        Some(_) => {
            faults.add("to", "must be a list of recipients");
            return Vec::new();
        }
        None => Vec::new(),
    };
    if way.is_some_and(|way| way.takes_recipients) && items.is_empty() {
        faults.add("to", "is missing: name at least one recipient");
    }
    if items.len() > MAX_RECIPIENTS {
        faults.add("to", format!("has {} recipients; at most {MAX_RECIPIENTS} are taken", items.len()));
        return Vec::new();
    }
    let (mut to, mut seen) = (Vec::with_capacity(items.len()), HashSet::new());
    for (index, item) in items.into_iter().enumerate() {
        let field = format!("to[{index}]");
        let Value::String(recipient) = item else {
            faults.add(field, "must be text");
            continue;
        };
        if let Some(fault) = recipient_fault(&recipient, way) {
            faults.add(field, fault);
        } else if seen.insert(address::folded(&recipient)) {
            to.push(recipient);
        } else {
            faults.add(field, "stands in the list already");
        }
    }
    to
}

/// What is wrong with a recipient of this way, in words.
pub fn recipient_fault(recipient: &str, way: Option<&Way>) -> Option<String> {
    match way {
        Some(way) if way.takes_addresses => address::fault(recipient).map(str::to_owned),
        _ => line_fault(recipient, MAX_RECIPIENT_CHARS),
    }
}

fn send_at(value: &Value, now_us: i64, faults: &mut Faults) -> Option<i64> {
    let at_us = value.as_str().and_then(from_rfc3339);
    match at_us {
        None => faults.add("sendAt", "is no RFC 3339 time such as 2026-01-31T12:00:00Z"),
        Some(at_us) if at_us > now_us.saturating_add(MAX_AHEAD_US) => faults.add("sendAt", "lies more than a year ahead"),
        Some(_) => return at_us,
    }
    None
}

fn key(value: Option<Value>, header: Option<&str>, faults: &mut Faults) -> Option<String> {
    let field = value.map(|value| match value {
        Value::String(key) => key,
        _ => {
            faults.add("idempotencyKey", "must be text");
            "-".to_owned()
        }
    });
    let given = [(field.as_deref(), "idempotencyKey"), (header, "Idempotency-Key")];
    for (key, name) in given.iter().filter_map(|(key, name)| key.map(|key| (key, name))) {
        faults.check(name, key_fault(key));
    }
    if let (Some(field), Some(header)) = (field.as_deref(), header)
        && field != header
    {
        faults.add("idempotencyKey", "differs from the header Idempotency-Key; send one of them, or the same in both");
    }
    field.or_else(|| header.map(str::to_owned))
}

fn attachments(value: Value, faults: &mut Faults) -> Vec<Attachment> {
    let Value::Array(items) = value else {
        faults.add("attachments", "must be a list");
        return Vec::new();
    };
    if items.len() > MAX_ATTACHMENTS {
        faults.add("attachments", format!("has {} entries; at most {MAX_ATTACHMENTS} are taken", items.len()));
        return Vec::new();
    }
    let mut all = Vec::with_capacity(items.len());
    let mut bytes = 0;
    for (index, item) in items.into_iter().enumerate() {
        if let Some(attachment) = attachment(item, &format!("attachments[{index}]"), faults) {
            bytes += attachment.content.len();
            all.push(attachment);
        }
    }
    if bytes > MAX_ATTACHMENT_BYTES {
        faults.add_too_large("attachments", format!("are {bytes} bytes in all; at most {MAX_ATTACHMENT_BYTES} are taken"));
    }
    all
}

fn attachment(item: Value, path: &str, faults: &mut Faults) -> Option<Attachment> {
    let Value::Object(mut fields) = item else {
        faults.add(path, "must be an object with name, contentType and content");
        return None;
    };
    for name in fields.keys().filter(|name| !ATTACHMENT_FIELDS.contains(&name.as_str())) {
        faults.add(format!("{path}.{}", shown(name)), "is not a field of an attachment; known are name, contentType, content");
    }
    let before = faults.all.len();
    let mut take = |name: &str| text(fields.remove(name), &format!("{path}.{name}"), faults);
    let (name, content_type, encoded) = (take("name"), take("contentType"), take("content"));
    let given = |text: &&String| !text.is_empty();
    faults.check(&format!("{path}.name"), Some(&name).filter(given).and_then(|name| name_fault(name)));
    faults.check(&format!("{path}.contentType"), Some(&content_type).filter(given).and_then(|text| media_type_fault(text)));
    let content = BASE64.decode(&encoded);
    if content.is_err() {
        faults.add(format!("{path}.content"), "is no base64");
    }
    let content = content.ok().filter(|_| faults.all.len() == before)?;
    Some(Attachment { name, content_type, sha256: hex::encode(Sha256::digest(&content)), content })
}
