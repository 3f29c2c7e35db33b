//! Duty: one JSON value becomes one valid reading, or the first reason why it does not.
//!
//! A fault of meaning does not end the scan: the value is read to its end, so that the next item of the body is found.

use std::borrow::Cow;

use super::{
    ParseContext,
    extra::{Extras, NotAdded},
    field::{Field, Meaning, meaning},
    quote,
};
use crate::{
    domain::{
        batch::BatchBuilder,
        reading::{EXTRA_MAX, NAMED_METRICS, ReadingRef, STATUS_MAX_CHARS, is_name},
    },
    ingest::{
        json::{Number, Scanner, Syntax, Value},
        reason::Reason,
        timestamp,
    },
};

/// Why an item is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Reason,
    pub(crate) message: String,
}

impl Fault {
    #[cold]
    pub(crate) fn new(code: Reason, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A valid reading that is not yet taken. Its further metrics wait in the [`ItemReader`].
#[derive(Debug, Default)]
pub(crate) struct Draft<'a> {
    engine_id: Option<Cow<'a, str>>,
    observed_at_us: Option<i64>,
    status: Option<Cow<'a, str>>,
    metrics: [Option<f64>; NAMED_METRICS.len()],
    seen: u8,
}

/// Reads the items of one body, one after another.
#[derive(Debug)]
pub(crate) struct ItemReader<'c> {
    context: &'c ParseContext<'c>,
    oldest_us: i64,
    newest_us: i64,
    ranges: [Option<(f64, f64)>; NAMED_METRICS.len()],
    has_extra_ranges: bool,
    extras: Extras,
    builder: BatchBuilder,
}

impl<'c> ItemReader<'c> {
    /// A reader that has room for the readings of `body_bytes`.
    pub(crate) fn new(context: &'c ParseContext<'c>, body_bytes: usize) -> Self {
        let us = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let limits = context.limits;
        let ranges = NAMED_METRICS.map(|name| limits.ranges.get(name).copied());
        Self {
            context,
            oldest_us: context.received_at_us.saturating_sub(us(limits.max_behind)),
            newest_us: context.received_at_us.saturating_add(us(limits.max_ahead)),
            ranges,
            has_extra_ranges: limits.ranges.len() > ranges.iter().flatten().count(),
            extras: Extras::default(),
            // A record takes less than half of what its JSON takes; see `domain::batch`.
            builder: BatchBuilder::with_capacity(body_bytes / 2),
        }
    }

    /// Reads one value of any kind to its end.
    pub(crate) fn read<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<Result<Draft<'a>, Fault>, Syntax> {
        if scanner.peek() != Some(b'{') {
            let kind = scanner.value()?.kind();
            return Ok(Err(Fault::new(Reason::NotAnObject, format!("the reading is {kind}, not an object"))));
        }
        self.extras.clear();
        let mut draft = Draft::default();
        let mut fault = None;
        scanner.take(b'{');
        let mut more = !scanner.take(b'}');
        while more {
            let key = scanner.key()?.unescape();
            let value = scanner.value()?;
            if let Err(found) = self.member(&mut draft, &key, value) {
                fault.get_or_insert(found);
            }
            more = scanner.take(b',');
            if !more && !scanner.take(b'}') {
                return Err(scanner.wrong("a comma or }"));
            }
        }
        Ok(match fault {
            Some(fault) => Err(fault),
            None => self.complete(draft),
        })
    }

    /// Takes the reading that [`ItemReader::read`] returned last.
    pub(crate) fn take(&mut self, draft: &Draft<'_>) {
        let [temperature, rpm, pressure, fuel_flow] = draft.metrics;
        self.builder.push(&ReadingRef {
            engine_id: draft.engine_id.as_deref().unwrap_or_default(),
            observed_at_us: draft.observed_at_us.unwrap_or_else(|| self.context.arrival.reserve_us(1)),
            status: draft.status.as_deref(),
            temperature,
            rpm,
            pressure,
            fuel_flow,
            extra: self.extras.json(),
        });
    }

    /// The readings taken.
    pub(crate) fn finish(self) -> BatchBuilder {
        self.builder
    }

    #[inline]
    fn complete<'a>(&self, draft: Draft<'a>) -> Result<Draft<'a>, Fault> {
        if draft.engine_id.is_none() {
            return Err(Fault::new(Reason::MissingEngineId, "the reading has no \"engineId\""));
        }
        if draft.metrics.iter().all(Option::is_none) && self.extras.is_empty() {
            return Err(Fault::new(Reason::MissingMetric, "the reading has no metric"));
        }
        Ok(draft)
    }

    #[inline]
    fn member<'a>(&mut self, draft: &mut Draft<'a>, key: &str, value: Value<'a>) -> Result<(), Fault> {
        let meaning = match self.context.fields {
            Some(fields) => fields.meaning(key),
            None => meaning(key),
        };
        match meaning {
            Meaning::Field(field) => self.field(draft, key, field, value),
            Meaning::Extra(name) => self.extra(name, value),
        }
    }

    #[inline]
    fn field<'a>(&self, draft: &mut Draft<'a>, key: &str, field: Field, value: Value<'a>) -> Result<(), Fault> {
        if draft.seen & field.bit() != 0 {
            let message = format!("{} gives {} a second time", quote(key), field.as_str());
            return Err(Fault::new(Reason::DuplicateKey, message));
        }
        draft.seen |= field.bit();
        // A field without a value is a field left out.
        if value == Value::Null {
            return Ok(());
        }
        if let Some(index) = field.metric() {
            let number = finite(key, value)?;
            if let Some(range) = self.ranges[index] {
                in_range(key, number, range)?;
            }
            draft.metrics[index] = Some(number);
            return Ok(());
        }
        match field {
            Field::EngineId => draft.engine_id = Some(engine_id(key, value)?),
            Field::Status => draft.status = Some(status(key, value)?),
            _ => draft.observed_at_us = Some(self.timestamp(key, value)?),
        }
        Ok(())
    }

    fn timestamp(&self, key: &str, value: Value<'_>) -> Result<i64, Fault> {
        let (us, given) = match value {
            Value::Text(text) => {
                let text = text.unescape();
                (timestamp::from_rfc3339(&text), text)
            }
            Value::Number(Number { raw, value }) => (timestamp::from_millis(raw, value), Cow::Borrowed(raw)),
            other => return Err(wrong_type(key, other, "a time as text or number")),
        };
        let fault = |code, what| Fault::new(code, format!("{} {} {what}", quote(key), quote(&given)));
        let us = us.ok_or_else(|| fault(Reason::BadTimestamp, "is no time"))?;
        if us > self.newest_us {
            return Err(fault(Reason::TooFarAhead, "lies further ahead of now than is accepted"));
        }
        if us < self.oldest_us {
            return Err(fault(Reason::TooOld, "lies further behind now than is accepted"));
        }
        Ok(us)
    }

    fn extra(&mut self, name: &str, value: Value<'_>) -> Result<(), Fault> {
        if !is_name(name) {
            return Err(Fault::new(Reason::BadExtraName, format!("{} cannot name a metric", quote(name))));
        }
        let number = finite(name, value)?;
        if self.has_extra_ranges
            && let Some(range) = self.context.limits.ranges.get(name)
        {
            in_range(name, number, *range)?;
        }
        self.extras.add(name, number).map_err(|why| match why {
            NotAdded::Duplicate => Fault::new(Reason::DuplicateKey, format!("{} is given a second time", quote(name))),
            NotAdded::TooMany => {
                Fault::new(Reason::TooManyExtra, format!("{} is one more than {EXTRA_MAX} further metrics", quote(name)))
            }
        })
    }
}

#[inline]
fn engine_id<'a>(key: &str, value: Value<'a>) -> Result<Cow<'a, str>, Fault> {
    let Value::Text(text) = value else { return Err(wrong_type(key, value, "text")) };
    let id = text.unescape();
    if is_name(&id) { Ok(id) } else { Err(Fault::new(Reason::BadEngineId, format!("{} cannot name an engine", quote(&id)))) }
}

fn status<'a>(key: &str, value: Value<'a>) -> Result<Cow<'a, str>, Fault> {
    let Value::Text(text) = value else { return Err(wrong_type(key, value, "text")) };
    let status = text.unescape();
    // Fewer bytes than that are never more characters.
    if status.len() > STATUS_MAX_CHARS && status.chars().count() > STATUS_MAX_CHARS {
        return Err(Fault::new(
            Reason::BadStatus,
            format!("status {} is longer than {STATUS_MAX_CHARS} characters", quote(&status)),
        ));
    }
    // PostgreSQL cannot keep a NUL, and a terminal should not meet the others.
    if status.chars().any(char::is_control) {
        return Err(Fault::new(Reason::BadStatus, format!("status {} holds a control character", quote(&status))));
    }
    Ok(status)
}

/// The number, with minus zero as zero: two zeros would be a conflict that no person can see.
#[inline]
fn finite(key: &str, value: Value<'_>) -> Result<f64, Fault> {
    match value {
        Value::Number(number) if number.value.is_finite() => Ok(number.value + 0.0),
        Value::Number(number) => {
            Err(Fault::new(Reason::NotFinite, format!("{} {} is not a finite number", quote(key), quote(number.raw))))
        }
        other => Err(wrong_type(key, other, "a number")),
    }
}

#[inline]
fn in_range(key: &str, number: f64, (low, high): (f64, f64)) -> Result<(), Fault> {
    if (low..=high).contains(&number) {
        return Ok(());
    }
    Err(Fault::new(Reason::OutOfRange, format!("{} {number} is outside {low} to {high}", quote(key))))
}

#[cold]
fn wrong_type(key: &str, value: Value<'_>, expected: &str) -> Fault {
    Fault::new(Reason::WrongType, format!("{} is {}, not {expected}", quote(key), value.kind()))
}
