//! One event as a value: what a line of the log, the ring and the live tail are made from.
//!
//! Everything is bounded here, once: a long text is cut, and fields beyond the limit are dropped and counted. Never log a token, a
//! password, an address list, a body or a URL that holds a secret: nothing below can tell them from other text.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use log::{
    Level, Record,
    kv::{self, Key, Value as KvValue, VisitSource, VisitValue},
};
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::Value;

/// Longest message or value, bytes.
const TEXT_BYTES: usize = 8 * 1_024;
/// Most fields of one event.
const MOST_FIELDS: usize = 32;
/// Names that every line has already; a field of such a name gets a `_` behind it.
const RESERVED: [&str; 5] = ["time", "level", "target", "msg", "message"];

/// Key-values in the order in which they were logged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Name and value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// One event. Serializes as `{"time", "level", "target", "message", "fields": {…}}`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Microseconds since the epoch, UTC; serialized as RFC 3339.
    pub time_us: i64,
    /// Serialized in lower case.
    pub level: Level,
    /// For example `belayd::outbox`.
    pub target: String,
    /// The sentence.
    pub message: String,
    /// Its key-values.
    pub fields: Fields,
}

impl LogEntry {
    /// Takes over what `record` says.
    pub fn new(record: &Record<'_>, time_us: i64) -> Self {
        let mut collector = Collector::default();
        // The collector never fails, and a source that does has given what it could.
        let _ = record.key_values().visit(&mut collector);
        if collector.dropped > 0 {
            collector.fields.push(("droppedFields".into(), collector.dropped.into()));
        }
        let message = match record.args().as_str() {
            Some(text) => cut(Cow::Borrowed(text)),
            None => cut(Cow::Owned(record.args().to_string())),
        };
        Self { time_us, level: record.level(), target: record.target().to_owned(), message, fields: Fields(collector.fields) }
    }

    /// The time as RFC 3339 with microseconds, UTC.
    pub fn time(&self) -> String {
        DateTime::from_timestamp_micros(self.time_us).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// The level in lower case.
    pub fn level_name(&self) -> &'static str {
        ["error", "warn", "info", "debug", "trace"][self.level as usize - 1]
    }

    /// About what it takes in memory, bytes.
    pub(super) fn size(&self) -> usize {
        let field = |(key, value): (&str, &Value)| key.len() + value.as_str().map_or(0, str::len) + size_of::<(String, Value)>();
        size_of::<Self>() + self.target.len() + self.message.len() + self.fields.iter().map(field).sum::<usize>()
    }
}

impl Serialize for LogEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("LogEntry", 5)?;
        out.serialize_field("time", &self.time())?;
        out.serialize_field("level", self.level_name())?;
        out.serialize_field("target", &self.target)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("fields", &self.fields)?;
        out.end()
    }
}

/// The same event flat, as a line of the JSON log: `{"time", "level", "target", "message", "deliveryId", …}`.
pub(super) struct Flat<'a>(pub(super) &'a LogEntry);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(entry) = self;
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("time", &entry.time())?;
        out.serialize_entry("level", entry.level_name())?;
        out.serialize_entry("target", &entry.target)?;
        out.serialize_entry("message", &entry.message)?;
        for (key, value) in entry.fields.iter() {
            out.serialize_entry(key, value)?;
        }
        out.end()
    }
}

/// Collects key-values; a repeated name replaces the earlier value, since JSON has each name once.
#[derive(Default)]
struct Collector {
    fields: Vec<(String, Value)>,
    dropped: u64,
}

impl<'kvs> VisitSource<'kvs> for Collector {
    fn visit_pair(&mut self, key: Key<'kvs>, value: KvValue<'kvs>) -> Result<(), kv::Error> {
        let mut name = cut(Cow::Borrowed(key.as_str()));
        if RESERVED.contains(&name.as_str()) {
            name.push('_');
        }
        let mut scalar = Scalar(Value::Null);
        value.visit(&mut scalar)?;
        match self.fields.iter().position(|(known, _)| *known == name) {
            Some(index) => self.fields[index].1 = scalar.0,
            None if self.fields.len() < MOST_FIELDS => self.fields.push((name, scalar.0)),
            None => self.dropped += 1,
        }
        Ok(())
    }
}

/// A value as JSON has it: numbers and booleans stay, all else is text.
struct Scalar(Value);

impl<'v> VisitValue<'v> for Scalar {
    fn visit_any(&mut self, value: KvValue<'_>) -> Result<(), kv::Error> {
        self.0 = cut(Cow::Owned(value.to_string())).into();
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Value::Null;
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        // NaN and the infinities are not numbers in JSON.
        self.0 = serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number);
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.0 = cut(Cow::Borrowed(value)).into();
        Ok(())
    }
}

/// At most [`TEXT_BYTES`], cut between characters, with a mark that says so.
fn cut(text: Cow<'_, str>) -> String {
    if text.len() <= TEXT_BYTES {
        return text.into_owned();
    }
    let end = text.floor_char_boundary(TEXT_BYTES);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str, pairs: &[(&str, KvValue<'_>)]) -> LogEntry {
        LogEntry::new(
            &Record::builder().args(format_args!("{message}")).level(Level::Warn).target("t").key_values(&pairs).build(),
            0,
        )
    }

    #[test]
    fn values_keep_their_kind_and_names_stay_unique() {
        let pairs: &[(&str, KvValue<'_>)] = &[
            ("attempt", 3_u32.into()),
            ("ratio", 0.5.into()),
            ("nan", f64::NAN.into()),
            ("ok", true.into()),
            ("level", "CRITICAL".into()),
            ("attempt", 4_u32.into()),
        ];
        let entry = entry("sent", pairs);
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            text,
            r#"{"time":"1970-01-01T00:00:00.000000Z","level":"warn","target":"t","message":"sent","fields":{"attempt":4,"ratio":0.5,"nan":"NaN","ok":true,"level_":"CRITICAL"}}"#
        );
    }

    #[test]
    fn long_text_and_many_fields_are_cut_and_counted() {
        let text = "ü".repeat(TEXT_BYTES);
        let names: Vec<String> = (0..MOST_FIELDS + 5).map(|index| format!("k{index}")).collect();
        let pairs: Vec<(&str, KvValue<'_>)> = names.iter().map(|name| (name.as_str(), 1.into())).collect();
        let entry = entry(&text, &pairs);
        assert!(entry.message.len() < TEXT_BYTES + 64 && entry.message.ends_with("bytes more)"));
        assert_eq!(entry.fields.get("droppedFields"), Some(&5.into()));
        assert_eq!(entry.fields.iter().count(), MOST_FIELDS + 1);
    }
}
