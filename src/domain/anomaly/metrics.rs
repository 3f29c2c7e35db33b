//! The metrics of a reading as numbers in places: names are looked at as little as possible.
//!
//! The four named metrics have the first four places; those of `extra` follow in the order in which they were first seen. Engines of
//! one kind bring the same names, so that one list of names serves them all.

use std::sync::Arc;

use crate::domain::reading::{EXTRA_MAX, NAMED_METRICS, ReadingRef};

/// Most metrics of one engine that are looked at: the named ones and as many further ones as a reading may bring.
pub const METRICS_MAX: usize = NAMED_METRICS.len() + EXTRA_MAX;
/// Most lists of names that are shared between engines. Beyond it an engine keeps a list of its own.
const LISTS_MAX: usize = 256;

/// Values by place; `NaN` where the reading lacks the metric.
pub(super) type Values = [f64; METRICS_MAX];

/// Lists of names, shared by the engines that bring the same metrics.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<Arc<[Box<str>]>>);

impl Names {
    /// The shared list that equals `names`.
    pub(super) fn share(&mut self, names: &[Box<str>]) -> Arc<[Box<str>]> {
        if let Some(known) = self.0.iter().find(|known| ***known == *names) {
            return known.clone();
        }
        let new: Arc<[Box<str>]> = names.into();
        if self.0.len() < LISTS_MAX {
            self.0.push(new.clone());
        }
        new
    }
}

/// The pairs of `extra`: the text of one flat JSON object of numbers whose names need no escapes.
pub(super) fn extras<'a>(reading: &ReadingRef<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let mut rest = reading.extra.and_then(|text| text.strip_prefix('{')?.strip_suffix('}')).unwrap_or_default();
    std::iter::from_fn(move || {
        let (name, after) = rest.strip_prefix('"')?.split_once("\":")?;
        let (value, tail) = after.split_once(',').unwrap_or((after, ""));
        rest = tail;
        Some((name, value))
    })
}

/// Puts the reading's numbers into the places that `names` (those beyond the named ones) give them, and tells how many had none.
pub(super) fn place(reading: &ReadingRef<'_>, names: &[Box<str>], values: &mut Values) -> usize {
    let named = [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow];
    for (value, metric) in values.iter_mut().zip(named) {
        *value = metric.unwrap_or(f64::NAN);
    }
    let places = &mut values[NAMED_METRICS.len()..][..names.len()];
    places.fill(f64::NAN);
    let (mut next, mut strangers) = (0, 0);
    for (name, number) in extras(reading) {
        // Nearly always the names come in the order in which they were learned.
        let found = match names.get(next) {
            Some(expected) if **expected == *name => Some(next),
            _ => names.iter().position(|known| **known == *name),
        };
        match found {
            Some(at) => {
                places[at] = number.parse().unwrap_or(f64::NAN);
                next = at + 1;
            }
            None => strangers += 1,
        }
    }
    strangers
}

/// The name of a place.
pub(super) fn name_of(place: usize, names: &[Box<str>]) -> &str {
    match NAMED_METRICS.get(place) {
        Some(name) => name,
        None => names.get(place - NAMED_METRICS.len()).map_or("", |name| name),
    }
}
