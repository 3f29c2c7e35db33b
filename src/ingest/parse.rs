//! Duty: bytes of a push or a poll become a [`Batch`] and a list of refused items.
//!
//! Comes in: a body (already inflated) and a [`ParseContext`]. Goes out: [`Parsed`], or a [`BodyError`] where the body as a whole
//! is refused, and then nothing of it was taken. Pure apart from the arrival clock: a crash loses nothing.

mod extra;
mod field;
mod item;

use super::{
    json::{self, Scanner, Syntax},
    limits, ndjson,
    reason::{BodyError, Reason, Rejection},
};
use item::{Draft, Fault, ItemReader};

pub use field::FieldMap;

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
/// A faulty item of an array, or line of NDJSON, is refused by itself. JSON that is broken, a body that is cut, empty, too large or
/// not UTF-8 is refused as a whole, and so is NDJSON whose last line is cut: the sender repeats it.
///
/// # Errors
/// [`BodyError`] with one of: `body_too_large`, `empty_body` (also `[]`), `cut_body`, `bad_json`, `bad_encoding`, `too_deep`,
/// `too_many_items`.
pub fn parse_body(kind: BodyKind, body: &[u8], context: &ParseContext<'_>) -> Result<Parsed, BodyError> {
    if body.len() > context.max_bytes {
        return Err(BodyError::new(Reason::BodyTooLarge, format!("the body is larger than {} bytes", context.max_bytes)));
    }
    // A byte order mark is allowed to be ignored (RFC 8259, 8.1).
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut collector = Collector::new(context, body.len());
    match kind {
        BodyKind::Json => read_json(body, &mut collector)?,
        BodyKind::Ndjson => ndjson::read(body, &mut collector)?,
    }
    collector.finish()
}

fn read_json(body: &[u8], collector: &mut Collector<'_>) -> Result<(), BodyError> {
    let text = std::str::from_utf8(body).map_err(|error| match error.error_len() {
        None => BodyError::new(Reason::CutBody, format!("byte {}: the body ends inside a character", body.len())),
        Some(_) => BodyError::new(Reason::BadEncoding, format!("byte {}: not UTF-8", error.valid_up_to() + 1)),
    })?;
    let mut scanner = Scanner::new(text);
    let refuse = |syntax| {
        let (code, message) = describe(syntax, text);
        BodyError::new(code, message)
    };
    if scanner.peek().is_none() {
        return Ok(());
    }
    if scanner.take(b'[') {
        let mut more = !scanner.take(b']');
        while more {
            collector.begin_item()?;
            let item = collector.read(&mut scanner).map_err(refuse)?;
            collector.settle(item);
            more = scanner.take(b',');
            if !more && !scanner.take(b']') {
                return Err(refuse(scanner.wrong("a comma or ]")));
            }
        }
    } else {
        collector.begin_item()?;
        let item = collector.read(&mut scanner).map_err(refuse)?;
        collector.settle(item);
    }
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(refuse(scanner.wrong("the end of the body"))),
    }
}

/// Gathers the items of one body, good and bad.
#[derive(Debug)]
pub(super) struct Collector<'c> {
    context: &'c ParseContext<'c>,
    items: ItemReader<'c>,
    begun: u32,
    rejected: Vec<Rejection>,
    rejected_total: u32,
    rejected_by: ReasonCounts,
}

impl<'c> Collector<'c> {
    fn new(context: &'c ParseContext<'c>, body_bytes: usize) -> Self {
        Self {
            context,
            items: ItemReader::new(context, body_bytes),
            begun: 0,
            rejected: Vec::new(),
            rejected_total: 0,
            rejected_by: ReasonCounts::default(),
        }
    }

    /// Counts an item before it is read.
    pub(super) fn begin_item(&mut self) -> Result<(), BodyError> {
        if self.begun == self.context.max_items {
            return Err(BodyError::new(Reason::TooManyItems, format!("the body holds more than {} readings", self.begun)));
        }
        self.begun += 1;
        Ok(())
    }

    /// Reads an item to its end. It is taken or refused by [`Collector::settle`], once what stands behind it is right too.
    #[inline]
    pub(super) fn read<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<Result<Draft<'a>, Fault>, Syntax> {
        self.items.read(scanner)
    }

    /// Takes or refuses the item that was read last.
    #[inline]
    pub(super) fn settle(&mut self, item: Result<Draft<'_>, Fault>) {
        match item {
            Ok(draft) => self.items.take(&draft),
            Err(Fault { code, message }) => self.refuse(code, message),
        }
    }

    /// Refuses the item that was begun last.
    #[cold]
    pub(super) fn refuse(&mut self, code: Reason, message: String) {
        self.rejected_total += 1;
        self.rejected_by.add(code);
        if self.rejected.len() < limits::MAX_LISTED_REJECTIONS {
            self.rejected.push(Rejection { index: self.begun - 1, code, message });
        }
    }

    fn finish(self) -> Result<Parsed, BodyError> {
        if self.begun == 0 {
            return Err(BodyError::new(Reason::EmptyBody, "the body holds no reading"));
        }
        Ok(Parsed {
            batch: self.items.finish().finish(self.context.received_at_us),
            rejected: self.rejected,
            rejected_total: self.rejected_total,
            rejected_by: self.rejected_by,
        })
    }
}

/// The reason and the sentence for a syntax error in `text`.
pub(super) fn describe(syntax: Syntax, text: &str) -> (Reason, String) {
    let before = &text.as_bytes()[..syntax.at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    let place = if text.contains('\n') { format!("line {line}, byte {column}") } else { format!("byte {column}") };
    match syntax.fault {
        json::Fault::Cut => (Reason::CutBody, format!("{place}: the text ends inside a value")),
        json::Fault::TooDeep => (Reason::TooDeep, format!("{place}: nested deeper than {} levels", limits::MAX_DEPTH)),
        json::Fault::Expected(what) => {
            let found = text.get(syntax.at..).and_then(|rest| rest.chars().next());
            let found = found.map_or_else(|| "a broken character".to_owned(), |found| format!("{found:?}"));
            (Reason::BadJson, format!("{place}: expected {what}, found {found}"))
        }
    }
}

/// A sender's text for a message: in quotes, escaped, cut to [`limits::MAX_QUOTED_CHARS`].
fn quote(text: &str) -> String {
    let cut: String = text.chars().take(limits::MAX_QUOTED_CHARS).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

#[cfg(test)]
mod tests;
