//! Keys and entries in Redis: their names, their fields, and the commands on them.
//!
//! ```text
//!   PREFIX:streams               hash: stream -> "INSTANCE STATE SINCE_US", STATE = open | done
//!   PREFIX:{STREAM}              stream: an entry a batch, its id is LAST_SEQ-0, group "belayd"
//!     f first number   n readings   p chain before   c chain after   t received_at_us   b readings as bytes
//!     s shift          only in a copy of a journal's frame: what the journal counts more than the stream, which the chain is made of
//!   an entry with v instead      numbers from v on that were given up: the journal's disk had not taken them, and nobody was told
//!   id 18446744073709551615-0    the seal: Redis itself refuses every later entry
//! ```
//! Ids are numbers of readings and not times: a repeat or a straggler is refused by Redis ("equal or smaller"), the database's cursor is
//! a place in the stream, and a seal makes the end of a stream certain.

use bytes::Bytes;
use redis::{Cmd, Value, cmd};

use super::link::{Link, LinkError, text};
use crate::{
    buffer::{Frame, journal::frame::chain_of_parts},
    domain::{batch::Batch, receipt::StreamId},
};

/// The consumer group.
pub(in crate::buffer) const GROUP: &str = "belayd";
/// The id that seals a stream.
pub(in crate::buffer) const SEAL: &str = "18446744073709551615-0";
/// What an entry costs beside its readings, about.
pub(in crate::buffer) const ENTRY_BYTES: u64 = 200;

/// Names of keys.
#[derive(Clone, Debug)]
pub(in crate::buffer) struct Keys {
    prefix: String,
}

impl Keys {
    pub(in crate::buffer) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The list of streams.
    pub(in crate::buffer) fn registry(&self) -> String {
        format!("{}:streams", self.prefix)
    }

    /// One stream; the braces keep what belongs to it in one slot of a cluster.
    pub(in crate::buffer) fn stream(&self, stream: StreamId) -> String {
        format!("{}:{{{stream}}}", self.prefix)
    }
}

/// One line of the list of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct Registered {
    pub(in crate::buffer) stream: StreamId,
    pub(in crate::buffer) instance: String,
    /// Everything in it is settled; it may be removed.
    pub(in crate::buffer) done: bool,
}

impl Registered {
    pub(in crate::buffer) fn value(instance: &str, done: bool, now_us: i64) -> String {
        format!("{instance} {} {now_us}", if done { "done" } else { "open" })
    }

    pub(in crate::buffer) fn parse(stream: &str, value: &str) -> Option<Self> {
        let mut words = value.split(' ');
        let (instance, state) = (words.next()?, words.next()?);
        Some(Self { stream: stream.parse().ok()?, instance: instance.to_owned(), done: state == "done" })
    }
}

/// The chain after a batch.
pub(in crate::buffer) fn chain(before: u64, first_seq: u64, rows: u32, parts: &[Bytes]) -> u64 {
    let (first, rows) = (first_seq.to_le_bytes(), rows.to_le_bytes());
    chain_of_parts(before, parts.iter().map(|part| &part[..]).chain([&first[..], &rows[..]]))
}

/// Adds a batch to a stream that must be there: one that is gone was destroyed, and must not begin anew in its middle.
pub(in crate::buffer) fn add(key: &str, frame: &Frame) -> Cmd {
    add_copy(key, frame, 0)
}

/// The same for a frame of the journal, whose chain is made of positions that are by `shift` higher than the numbers.
pub(in crate::buffer) fn add_copy(key: &str, frame: &Frame, shift: u64) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(key).arg("NOMKSTREAM").arg(format!("{}-0", frame.last_seq()));
    add.arg("f").arg(frame.first_seq).arg("n").arg(frame.batch.len());
    add.arg("p").arg(format!("{:016x}", frame.chain_before)).arg("c").arg(format!("{:016x}", frame.chain));
    if shift > 0 {
        add.arg("s").arg(shift);
    }
    add.arg("t").arg(frame.batch.received_at_us()).arg("b").arg(&frame.batch.bytes()[..]);
    add
}

/// Notes that numbers were given up.
pub(in crate::buffer) fn add_void(key: &str, first_seq: u64, last_seq: u64) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(key).arg("NOMKSTREAM").arg(format!("{last_seq}-0")).arg("v").arg(first_seq);
    add
}

/// Ends a stream for good.
pub(in crate::buffer) fn seal(key: &str) -> Cmd {
    let mut seal = cmd("XADD");
    seal.arg(key).arg("NOMKSTREAM").arg(SEAL).arg("end").arg(1);
    seal
}

/// What was read.
#[derive(Clone, Debug)]
pub(in crate::buffer) enum Entry {
    /// A whole batch.
    Whole(Frame),
    /// An entry whose readings are not what was written; its last number is known from its id.
    Damaged { last_seq: u64 },
    /// Numbers that were given up.
    Void { first_seq: u64, last_seq: u64 },
    /// The seal.
    Seal,
}

impl Entry {
    /// Its first number; of a damaged one the last, which alone is known.
    pub(in crate::buffer) fn first_seq(&self) -> u64 {
        match self {
            Self::Whole(frame) => frame.first_seq,
            Self::Void { first_seq, .. } => *first_seq,
            Self::Damaged { .. } | Self::Seal => self.last_seq(),
        }
    }

    pub(in crate::buffer) fn last_seq(&self) -> u64 {
        match self {
            Self::Whole(frame) => frame.last_seq(),
            Self::Damaged { last_seq } | Self::Void { last_seq, .. } => *last_seq,
            Self::Seal => u64::MAX,
        }
    }
}

/// The number in an id.
pub(in crate::buffer) fn seq_of(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

/// The last id of a stream, also where its entries were trimmed; `None` where there is no such key.
pub(in crate::buffer) fn last_id(link: &mut Link, key: &str) -> Result<Option<u64>, LinkError> {
    let fields = match link.ask(cmd("XINFO").arg("STREAM").arg(key)) {
        Ok(Value::Array(fields)) => fields,
        Ok(_) => return Err(LinkError::ours("error", "XINFO STREAM was not answered with fields")),
        // "no such key"
        Err(refused) if refused.definite && refused.code == "ERR" => return Ok(None),
        Err(failed) => return Err(failed),
    };
    let id = fields.chunks(2).find(|pair| pair.first().and_then(text) == Some("last-generated-id"));
    let id = id.and_then(|pair| pair.get(1)).and_then(text).and_then(seq_of);
    id.map(Some).ok_or_else(|| LinkError::ours("error", "XINFO STREAM names no last id"))
}

/// Entries of XRANGE, of one stream.
pub(in crate::buffer) fn entries(answer: Value) -> Vec<Entry> {
    let Value::Array(list) = answer else { return Vec::new() };
    list.into_iter().filter_map(entry).collect()
}

/// Entries of XREADGROUP on one stream.
pub(super) fn read_entries(answer: Value) -> Vec<Entry> {
    let Value::Array(mut streams) = answer else { return Vec::new() };
    let Some(Value::Array(mut pair)) = streams.pop() else { return Vec::new() };
    pair.pop().map(entries).unwrap_or_default()
}

fn entry(value: Value) -> Option<Entry> {
    let Value::Array(pair) = value else { return None };
    let mut pair = pair.into_iter();
    let id = pair.next()?;
    let last_seq = seq_of(text(&id)?)?;
    if last_seq == u64::MAX {
        return Some(Entry::Seal);
    }
    let frame = match pair.next() {
        Some(Value::Array(fields)) => {
            if let [name, first] = fields.as_slice()
                && text(name) == Some("v")
            {
                let first_seq = text(first)?.parse().ok().filter(|first| (1..=last_seq).contains(first))?;
                return Some(Entry::Void { first_seq, last_seq });
            }
            frame(last_seq, fields)
        }
        _ => None,
    };
    Some(frame.map_or(Entry::Damaged { last_seq }, Entry::Whole))
}

fn frame(last_seq: u64, fields: Vec<Value>) -> Option<Frame> {
    let (mut first, mut rows, mut before, mut after, mut received, mut bytes) = (None, None, None, None, None, None);
    let mut shift = Some(0);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let Some(name) = text(&name) else { continue };
        if name == "b" {
            let Value::BulkString(readings) = value else { return None };
            bytes = Some(Bytes::from(readings));
            continue;
        }
        let value = text(&value)?;
        match name {
            "f" => first = value.parse::<u64>().ok(),
            "s" => shift = value.parse::<u64>().ok(),
            "n" => rows = value.parse::<u32>().ok(),
            "p" => before = u64::from_str_radix(value, 16).ok(),
            "c" => after = u64::from_str_radix(value, 16).ok(),
            "t" => received = value.parse::<i64>().ok(),
            _ => {}
        }
    }
    let (first_seq, rows, bytes) = (first?, rows?, bytes?);
    let whole = first_seq.checked_add(u64::from(rows))?.checked_sub(1)? == last_seq
        && chain(before?, first_seq.checked_add(shift?)?, rows, std::slice::from_ref(&bytes)) == after?;
    let batch = Batch::from_bytes(received?, rows, bytes).ok().filter(|_| whole && rows > 0)?;
    Some(Frame { first_seq, batch, chain_before: before?, chain: after? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{batch::BatchBuilder, reading::ReadingRef};

    fn sample() -> Frame {
        let mut builder = BatchBuilder::default();
        for n in 0..3 {
            builder.push(&ReadingRef {
                engine_id: "e1",
                observed_at_us: n,
                status: None,
                temperature: Some(1.5),
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: None,
            });
        }
        let batch = builder.finish(7);
        let after = chain(9, 5, 3, &[batch.bytes().clone()]);
        Frame { first_seq: 5, batch, chain_before: 9, chain: after }
    }

    fn as_answered(frame: &Frame) -> Value {
        let bulk = |text: String| Value::BulkString(text.into_bytes());
        let mut fields = Vec::new();
        for (name, value) in [
            ("f", frame.first_seq.to_string()),
            ("n", frame.batch.len().to_string()),
            ("p", format!("{:016x}", frame.chain_before)),
            ("c", format!("{:016x}", frame.chain)),
            ("t", frame.batch.received_at_us().to_string()),
        ] {
            fields.extend([bulk(name.into()), bulk(value)]);
        }
        fields.extend([bulk("b".into()), Value::BulkString(frame.batch.bytes().to_vec())]);
        Value::Array(vec![bulk(format!("{}-0", frame.last_seq())), Value::Array(fields)])
    }

    #[test]
    fn an_entry_comes_back_as_it_was_and_any_changed_byte_is_noticed() {
        let frame = sample();
        let answer = as_answered(&frame);
        let [Entry::Whole(read)] = &entries(Value::Array(vec![answer.clone()]))[..] else { panic!("whole") };
        assert_eq!((read.first_seq, read.chain, &read.batch), (5, frame.chain, &frame.batch));
        let Value::Array(pair) = &answer else { panic!("a pair") };
        let Value::Array(fields) = &pair[1] else { panic!("fields") };
        for at in 0..frame.batch.bytes().len() {
            let mut fields = fields.clone();
            let Some(Value::BulkString(readings)) = fields.last_mut() else { panic!("readings") };
            readings[at] ^= 1;
            let changed = Value::Array(vec![pair[0].clone(), Value::Array(fields)]);
            assert!(matches!(entries(Value::Array(vec![changed]))[..], [Entry::Damaged { last_seq: 7 }]), "byte {at}");
        }
    }

    #[test]
    fn a_copy_of_a_renumbered_frame_and_numbers_given_up_come_back() {
        let plain = sample();
        let after = chain(9, 5 + 100, 3, &[plain.batch.bytes().clone()]);
        let frame = Frame { chain: after, ..plain };
        let mut answer = as_answered(&frame);
        assert!(matches!(entries(Value::Array(vec![answer.clone()]))[..], [Entry::Damaged { .. }]), "without its shift");
        let Value::Array(pair) = &mut answer else { panic!("a pair") };
        let Value::Array(fields) = &mut pair[1] else { panic!("fields") };
        fields.splice(0..0, ["s", "100"].map(|word| Value::BulkString(word.into())));
        assert!(matches!(&entries(Value::Array(vec![answer]))[..], [Entry::Whole(read)] if read.first_seq == 5));
        let bulk = |text: &str| Value::BulkString(text.into());
        let void = Value::Array(vec![bulk("9-0"), Value::Array(vec![bulk("v"), bulk("8")])]);
        assert!(matches!(entries(Value::Array(vec![void]))[..], [Entry::Void { first_seq: 8, last_seq: 9 }]));
    }

    #[test]
    fn the_list_of_streams_is_read_as_it_is_written() {
        let stream = StreamId::now_v7();
        let value = Registered::value("me", true, 5);
        let read = Registered::parse(&stream.to_string(), &value).expect("a line");
        assert_eq!(read, Registered { stream, instance: "me".into(), done: true });
        assert_eq!(Registered::parse("x", &value), None);
    }
}
