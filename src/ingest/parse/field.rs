//! Duty: which reading field a key of the sender means. Pure.

use std::collections::BTreeMap;

use crate::domain::reading::{NAMED_METRICS, is_name};

/// A field of a reading that has its own place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Field {
    /// The named metrics come first and in the order of `NAMED_METRICS`, so that their number is their index.
    Temperature,
    Rpm,
    Pressure,
    FuelFlow,
    EngineId,
    Timestamp,
    Status,
}

impl Field {
    /// The field by its name in the contract.
    #[inline]
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "temperature" => Self::Temperature,
            "rpm" => Self::Rpm,
            "pressure" => Self::Pressure,
            "fuelFlow" | "fuel_flow" => Self::FuelFlow,
            "engineId" | "engine_id" => Self::EngineId,
            "timestamp" => Self::Timestamp,
            "status" => Self::Status,
            _ => return None,
        })
    }

    /// The spelling that messages use.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::Rpm => "rpm",
            Self::Pressure => "pressure",
            Self::FuelFlow => "fuelFlow",
            Self::EngineId => "engineId",
            Self::Timestamp => "timestamp",
            Self::Status => "status",
        }
    }

    /// The place among [`NAMED_METRICS`], where it is one.
    #[inline]
    pub(super) fn metric(self) -> Option<usize> {
        Some(self as usize).filter(|index| *index < NAMED_METRICS.len())
    }

    /// A bit of its own.
    #[inline]
    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Where the value of a source's field goes.
#[derive(Clone, Debug, PartialEq)]
enum Target {
    Field(Field),
    /// A further metric of this name.
    Extra(String),
}

/// Other names for fields, for a source that has its own. A field keeps its own name beside the other; both at once are a
/// duplicate key, as two spellings of a push are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldMap {
    by_source_name: BTreeMap<String, Target>,
}

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Meaning<'a> {
    Field(Field),
    Extra(&'a str),
}

impl FieldMap {
    /// From `[sources.fields]`: the source's field name by reading field (`temperature = "egt"`). A name that is no reading field
    /// names a further metric (`oil = "Oil temp."`), and is left out where it cannot be one.
    pub fn new(fields: &BTreeMap<String, String>) -> Self {
        let target = |name: &String| match Field::of(name) {
            Some(field) => Some(Target::Field(field)),
            None => is_name(name).then(|| Target::Extra(name.clone())),
        };
        Self { by_source_name: fields.iter().filter_map(|(name, source)| Some((source.clone(), target(name)?))).collect() }
    }

    /// Whether every field keeps its name.
    pub fn is_empty(&self) -> bool {
        self.by_source_name.is_empty()
    }

    /// What the source means by `key`.
    pub(super) fn meaning<'a>(&'a self, key: &'a str) -> Meaning<'a> {
        match self.by_source_name.get(key) {
            Some(Target::Field(field)) => Meaning::Field(*field),
            Some(Target::Extra(name)) => Meaning::Extra(name),
            None => meaning(key),
        }
    }
}

/// What `key` stands for in the contract.
#[inline]
pub(super) fn meaning(key: &str) -> Meaning<'_> {
    match Field::of(key) {
        Some(field) => Meaning::Field(field),
        None => Meaning::Extra(key),
    }
}
