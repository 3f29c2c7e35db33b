//! From a value as written to what its key's [`Kind`] makes of it. Pure, but for the files that a key names.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    alerts::ALERT_FIELDS,
    fault::Place,
    keys::{Kind, quoted},
    node::{Item, Node},
    sinks::parse_mailbox,
    texts::{
        brokers_fault, field_name, header_fault, host_fault, http_url_fault, metric_name, nearest, redis_url_fault,
        signing_secret_fault, store_url_fault, time_of_day,
    },
    units::{parse_duration, parse_size},
};
use crate::domain::reading::is_name;

/// Most entries of one list or table in a value.
const ENTRIES_MAX: usize = 1_000;
/// Longest text, in bytes.
const TEXT_MAX_BYTES: usize = 4_096;

/// A value of the right kind and within its range.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Duration(Duration),
    Size(u64),
    Text(String),
    Path(PathBuf),
    Socket(SocketAddr),
    Texts(Vec<String>),
    Addresses(Vec<IpAddr>),
    Map(BTreeMap<String, String>),
    Ranges(BTreeMap<String, (f64, f64)>),
}

/// What is wrong with a value: the sentence, the hint, and the place where it is narrower than the whole value.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl<T: Into<String>> From<T> for Wrong {
    fn from(message: T) -> Self {
        Self { message: message.into(), hint: None }
    }
}

impl Wrong {
    pub(super) fn hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Makes a value of `item`, or says what is wrong.
pub(super) fn convert(kind: Kind, item: &Item) -> Result<Value, Wrong> {
    match kind {
        Kind::Bool => match item.node {
            Node::Bool(flag) => Ok(Value::Bool(flag)),
            _ => Err(mismatch(kind, item)),
        },
        Kind::Int(min, max) => match item.node {
            Node::Int(number) if (min..=max).contains(&number) => Ok(Value::Int(number)),
            Node::Int(number) => Err(format!("{number} is out of range: {min} to {max}").into()),
            _ => Err(mismatch(kind, item)),
        },
        Kind::Float(min, max) => {
            let number = number(kind, item)?;
            if (min..=max).contains(&number) {
                Ok(Value::Float(number))
            } else {
                Err(format!("{number} is out of range: {min} to {max}").into())
            }
        }
        Kind::Duration(min, max) => bounded(text(kind, item)?, parse_duration, min, max).map(Value::Duration),
        Kind::Size(min, max) => bounded(text(kind, item)?, parse_size, min, max).map(Value::Size),
        Kind::Path | Kind::InputFile | Kind::InputDir => Ok(Value::Path(PathBuf::from(text(kind, item)?))),
        Kind::Socket => socket(text(kind, item)?).map(Value::Socket),
        Kind::Words(words) => {
            texts(kind, item)?.into_iter().map(|given| word(words, given)).collect::<Result<_, _>>().map(Value::Texts)
        }
        Kind::Names => texts(kind, item)?.into_iter().map(name).collect::<Result<_, _>>().map(Value::Texts),
        Kind::RedisUrls => {
            let url = |text: &str| redis_url_fault(text).map_or_else(|| Ok(text.to_owned()), Err);
            texts(kind, item)?.into_iter().map(url).collect::<Result<_, _>>().map(Value::Texts)
        }
        Kind::Hosts => texts(kind, item)?.into_iter().map(host).collect::<Result<_, _>>().map(Value::Texts),
        Kind::Addresses => texts(kind, item)?.into_iter().map(address).collect::<Result<_, _>>().map(Value::Addresses),
        Kind::Recipients => texts(kind, item)?.into_iter().map(recipient).collect::<Result<_, _>>().map(Value::Texts),
        Kind::Headers => headers(kind, item),
        Kind::Fields => fields(kind, item),
        Kind::Labels => labels(kind, item),
        Kind::Ranges => ranges(kind, item),
        _ => scalar_text(kind, text(kind, item)?),
    }
}

/// The kinds that are one text of a certain form.
fn scalar_text(kind: Kind, text: &str) -> Result<Value, Wrong> {
    let checked = match kind {
        Kind::Name => name(text)?,
        Kind::Metric => metric_name(text).ok_or_else(|| Wrong::from(format!("{text:?} is not a {}", kind.describe())))?,
        Kind::Word(words) => word(words, text)?,
        Kind::Filter => filter(text)?,
        Kind::TimeOfDay => return time_of_day(text).map(|minutes| Value::Int(minutes.into())).map_err(Wrong::from),
        Kind::HttpUrl => http_url_fault(text).map_or_else(|| Ok(text.to_owned()), Err)?,
        Kind::Brokers => brokers_fault(text).map_or_else(|| Ok(text.to_owned()), Err)?,
        Kind::RedisUrl => redis_url_fault(text).map_or_else(|| Ok(text.to_owned()), Err)?,
        Kind::StoreUrl => store_url_fault(text).map_or_else(|| Ok(text.to_owned()), Err)?,
        Kind::SigningSecret => signing_secret_fault(text).map_or_else(|| Ok(text.to_owned()), Err)?,
        Kind::MailAddress => parse_mailbox(text).map(|_| text.to_owned()).map_err(Wrong::from)?,
        Kind::Host => host(text)?,
        _ => text.to_owned(),
    };
    Ok(Value::Text(checked))
}

fn mismatch(kind: Kind, item: &Item) -> Wrong {
    let hint = match (kind, &item.node) {
        (Kind::Duration(..), Node::Int(number)) => Some(format!("did you mean \"{number}s\"?")),
        (Kind::Size(..), Node::Int(number)) => Some(format!("did you mean \"{number}B\"?")),
        (Kind::Int(..) | Kind::Float(..) | Kind::Bool, Node::Text(_)) if matches!(item.place, Place::File { .. }) => {
            Some("write it without quotes".to_owned())
        }
        _ => None,
    };
    Wrong { message: format!("expected {}, found {}", kind.describe(), item.node.describe()), hint }
}

fn number(kind: Kind, item: &Item) -> Result<f64, Wrong> {
    match item.node {
        Node::Int(number) => Ok(number as f64),
        Node::Float(number) if number.is_finite() => Ok(number),
        Node::Float(_) => Err("must be a finite number".into()),
        _ => Err(mismatch(kind, item)),
    }
}

fn text(kind: Kind, item: &Item) -> Result<&str, Wrong> {
    let Node::Text(text) = &item.node else { return Err(mismatch(kind, item)) };
    plain(text).map(|()| text.as_str())
}

fn plain(text: &str) -> Result<(), Wrong> {
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if text.len() > TEXT_MAX_BYTES {
        return Err(format!("is longer than {TEXT_MAX_BYTES} bytes").into());
    }
    if text.chars().any(char::is_control) { Err("must not contain control characters".into()) } else { Ok(()) }
}

/// A list of texts; one alone stands for a list of one.
fn texts(kind: Kind, item: &Item) -> Result<Vec<&str>, Wrong> {
    match &item.node {
        Node::Text(_) => Ok(vec![text(kind, item)?]),
        Node::List(items) if items.len() > ENTRIES_MAX => Err(format!("has more than {ENTRIES_MAX} entries").into()),
        Node::List(items) => items.iter().map(|item| text(kind, item)).collect(),
        _ => Err(mismatch(kind, item)),
    }
}

fn bounded<T: PartialOrd>(text: &str, parse: fn(&str) -> Result<T, String>, min: &str, max: &str) -> Result<T, Wrong> {
    let value = parse(text).map_err(|error| Wrong::from(format!("{text:?} is {error}")))?;
    // The bounds stand in the table of keys, where a test reads each of them.
    let inside = parse(min).is_ok_and(|min| value >= min) && parse(max).is_ok_and(|max| value <= max);
    if inside { Ok(value) } else { Err(format!("{text:?} is out of range: \"{min}\" to \"{max}\"").into()) }
}

fn word(words: &[&str], given: &str) -> Result<String, Wrong> {
    if words.contains(&given) {
        return Ok(given.to_owned());
    }
    let hint = nearest(given, words.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
    Err(Wrong { message: format!("unknown value {given:?}, expected one of {}", quoted(words)), hint })
}

fn name(text: &str) -> Result<String, Wrong> {
    if is_name(text) { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a {}", Kind::Name.describe()).into()) }
}

fn host(text: &str) -> Result<String, Wrong> {
    host_fault(text).map_or_else(|| Ok(text.to_ascii_lowercase()), Err)
}

fn address(text: &str) -> Result<IpAddr, Wrong> {
    text.parse().map_err(|_| Wrong::hint(format!("{text:?} is not an IP address"), "write for example \"10.0.0.1\""))
}

fn socket(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::hint(
            format!("{text:?} is not ADDRESS:PORT"),
            "write an IP address and a port, for example \"127.0.0.1:7070\" or \"[::1]:7070\"",
        )
    })
}

fn filter(text: &str) -> Result<String, Wrong> {
    let known = ["error", "warn", "info", "debug", "trace", "off"];
    if !text.contains(['=', ',', ':']) && !known.contains(&text.to_ascii_lowercase().as_str()) {
        // A bare word that is no level would be read as a target that logs everything: never what was meant.
        return word(&known, text);
    }
    env_filter::Builder::new().try_parse(text).map(|_| text.to_owned()).map_err(|_| {
        Wrong::hint(format!("{text:?} is not a log filter"), "write a level or directives such as \"info,belayd::outbox=debug\"")
    })
}

fn entries(kind: Kind, item: &Item) -> Result<Vec<(&str, &Item)>, Wrong> {
    match &item.node {
        Node::Table(table) if table.fields.len() > ENTRIES_MAX => Err(format!("has more than {ENTRIES_MAX} entries").into()),
        Node::Table(table) => Ok(table.fields.iter().map(|field| (field.name.as_str(), &field.item)).collect()),
        _ => Err(mismatch(kind, item)),
    }
}

fn headers(kind: Kind, item: &Item) -> Result<Value, Wrong> {
    let mut map = BTreeMap::new();
    for (name, item) in entries(kind, item)? {
        let Node::Text(value) = &item.node else { return Err(format!("header {name:?} must be text").into()) };
        if let Some(wrong) = header_fault(name, value) {
            return Err(wrong);
        }
        if map.insert(name.to_ascii_lowercase(), value.clone()).is_some() {
            return Err(format!("header {name:?} is given twice").into());
        }
    }
    Ok(Value::Map(map))
}

fn fields(kind: Kind, item: &Item) -> Result<Value, Wrong> {
    let mut map = BTreeMap::new();
    for (name, item) in entries(kind, item)? {
        let reading = field_name(name).ok_or_else(|| Wrong::from(format!("{name:?} cannot be a field of a reading")))?;
        let source = text(Kind::Text, item).map_err(|wrong| Wrong { message: format!("{name}: {}", wrong.message), ..wrong })?;
        if map.values().any(|other: &String| other == source) {
            return Err(format!("{source:?} in the source is taken for two fields").into());
        }
        if map.insert(reading, source.to_owned()).is_some() {
            return Err(format!("field {name:?} is given twice, in both spellings").into());
        }
    }
    Ok(Value::Map(map))
}

/// Labels of one rule or route.
const LABELS_MAX: usize = 16;
/// Longest value of a label, in characters.
const LABEL_MAX_CHARS: usize = 200;
/// Longest recipient, in characters: what a mail address may have.
const RECIPIENT_MAX_CHARS: usize = 320;

fn labels(kind: Kind, item: &Item) -> Result<Value, Wrong> {
    let mut map = BTreeMap::new();
    for (name, item) in entries(kind, item)? {
        if !is_name(name) {
            return Err(format!("{name:?} is not a {}", Kind::Name.describe()).into());
        }
        if ALERT_FIELDS.contains(&name) {
            let hint = "choose another name; routes and silences have a key of their own for that";
            return Err(Wrong::hint(format!("{name:?} is what every alert has"), hint));
        }
        let value = text(Kind::Text, item).map_err(|wrong| Wrong { message: format!("{name}: {}", wrong.message), ..wrong })?;
        if value.chars().count() > LABEL_MAX_CHARS {
            return Err(format!("{name}: is longer than {LABEL_MAX_CHARS} characters").into());
        }
        map.insert(name.to_owned(), value.to_owned());
    }
    if map.len() > LABELS_MAX { Err(format!("has more than {LABELS_MAX} labels").into()) } else { Ok(Value::Map(map)) }
}

fn recipient(text: &str) -> Result<String, Wrong> {
    if text.chars().count() > RECIPIENT_MAX_CHARS {
        return Err(format!("is longer than {RECIPIENT_MAX_CHARS} characters").into());
    }
    if text.trim() != text { Err(format!("{text:?} begins or ends with a blank").into()) } else { Ok(text.to_owned()) }
}

fn ranges(kind: Kind, item: &Item) -> Result<Value, Wrong> {
    let mut map = BTreeMap::new();
    for (name, item) in entries(kind, item)? {
        let metric = metric_name(name).ok_or_else(|| Wrong::from(format!("{name:?} cannot be a metric")))?;
        let Node::List(pair) = &item.node else { return Err(format!("{name}: expected [lowest, highest]").into()) };
        let [low, high] = pair.as_slice() else { return Err(format!("{name}: expected [lowest, highest]").into()) };
        let (low, high) = (number(Kind::Float(f64::MIN, f64::MAX), low)?, number(Kind::Float(f64::MIN, f64::MAX), high)?);
        if low > high {
            return Err(format!("{name}: the lowest value {low} is above the highest {high}").into());
        }
        if map.insert(metric, (low, high)).is_some() {
            return Err(format!("metric {name:?} is given twice, in both spellings").into());
        }
    }
    Ok(Value::Ranges(map))
}
