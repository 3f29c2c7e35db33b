//! The comparison: what the oracle wrote down against what the database holds.
//!
//! Nothing acknowledged is missing, nothing is there that was not sent or with other values, the ledger covers every number once and says
//! of each what the table shows, and no reading that was sent once was drained twice.

use std::{collections::HashMap, fmt};

use serde_json::Value;

use super::{
    database::{Database, Look, Row},
    oracle::{ENGINES, Oracle, Record, Sent},
};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Readings acknowledged.
    pub acknowledged: u64,
    /// Readings in the table.
    pub stored: u64,
    /// Acknowledged and not in the table.
    pub missing: u64,
    /// In the table with other values, at another number, or never sent.
    pub wrong: u64,
    /// Drained a second time although sent once, or counted more than once.
    pub twice: u64,
    /// Numbers that the ledger says were given up.
    pub given_up: u64,
    /// Streams in the database.
    pub streams: u64,
    /// The first few of each kind, in words.
    pub evidence: Vec<String>,
}

impl Verdict {
    fn say(&mut self, what: String) {
        if self.evidence.len() < 12 {
            self.evidence.push(what);
        }
    }

    /// Whether nothing acknowledged is missing and nothing is there twice or wrong.
    pub fn is_clean(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.twice == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, stored, missing, wrong, twice, given_up, streams, evidence } = self;
        write!(
            f,
            "{missing} missing, {wrong} wrong, {twice} twice, {given_up} given up; {acknowledged} acknowledged, {stored} stored, \
             {streams} streams"
        )?;
        evidence.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Whether readings may stand at other numbers than their receipts said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// No.
    Kept,
    /// A damaged journal may give everything that waits new numbers, and drain again what was drained.
    MayChange,
}

/// Compares all of it.
///
/// # Errors
/// The database cannot be read.
pub fn compare(oracle: &Oracle, database: &Database, numbers: Numbers) -> Result<Verdict, String> {
    let mut look = database.look()?;
    let mut verdict = Verdict::default();
    let streams: HashMap<i64, String> = look.streams()?.into_iter().map(|stream| (stream.no, stream.stream)).collect();
    let records: Vec<Vec<Record>> = (0..oracle.senders()).map(|sender| oracle.records(sender)).collect();
    let mut found: Vec<Vec<u64>> = records.iter().map(|pushes| vec![0; pushes.len()]).collect();
    for engine in look.engines()? {
        let sender = sender_of(&engine).filter(|sender| *sender < oracle.senders());
        for row in look.rows(&engine)? {
            verdict.stored += 1;
            let place = sender.and_then(|sender| Some((sender, oracle.place(row.observed_at_us)?)));
            let Some((sender, (number, item))) = place else {
                verdict.wrong += 1;
                verdict.say(format!("never sent: {engine} {row:?}"));
                continue;
            };
            let Some(record) = records[sender].get(number as usize).filter(|record| item < record.rows) else {
                verdict.wrong += 1;
                verdict.say(format!("never sent: {engine} {row:?}"));
                continue;
            };
            found[sender][number as usize] += 1;
            let sent = oracle.values(sender, number, item);
            if oracle.key(sender, number, item).0 != engine || !same(&row, &sent) {
                verdict.wrong += 1;
                verdict.say(format!("other values than sent: {engine} {row:?}, sent {sent:?}"));
            }
            let once = |_: &&(String, u64)| record.unknown == 0 && numbers == Numbers::Kept;
            let Some((stream, first_seq)) = record.receipt.as_ref().filter(once) else { continue };
            if streams.get(&row.stream_no) != Some(stream) || row.seq != (first_seq + item).cast_signed() {
                verdict.wrong += 1;
                verdict.say(format!("at another number than its receipt {stream} {first_seq}+{item}: {engine} {row:?}"));
            }
        }
    }
    for (sender, pushes) in records.iter().enumerate() {
        for (number, record) in pushes.iter().enumerate().filter(|(_, record)| record.receipt.is_some()) {
            verdict.acknowledged += record.rows;
            let missing = record.rows.saturating_sub(found[sender][number]);
            if missing > 0 {
                verdict.missing += missing;
                verdict
                    .say(format!("acknowledged and missing: {missing} readings of push {number} of sender {sender}, {record:?}"));
            }
        }
    }
    ledger(&mut look, &records, numbers, &mut verdict)?;
    Ok(verdict)
}

fn sender_of(engine: &str) -> Option<usize> {
    let (sender, engine) = engine.strip_prefix('c')?.split_once('-')?;
    (engine.parse::<u64>().ok()? < ENGINES).then_some(())?;
    sender.parse().ok()
}

fn same(row: &Row, sent: &Sent) -> bool {
    let vibration = row.extra.as_deref().map(|text| serde_json::from_str::<Value>(text).unwrap_or(Value::Null));
    row.status == sent.status
        && row.temperature == Some(sent.temperature)
        && row.rpm == Some(sent.rpm)
        && row.pressure == sent.pressure
        && row.fuel_flow == Some(sent.fuel_flow)
        && vibration.map(|extra| extra["vibration"].as_f64()) == sent.vibration.map(Some)
}

/// The ledger against itself, the table, the cursors and the receipts.
fn ledger(look: &mut Look, records: &[Vec<Record>], numbers: Numbers, verdict: &mut Verdict) -> Result<(), String> {
    // Receipts of pushes that were sent once, by stream: first and last number.
    let mut once: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for record in records.iter().flatten().filter(|record| record.unknown == 0 && numbers == Numbers::Kept) {
        if let Some((stream, first)) = &record.receipt {
            once.entry(stream).or_default().push((*first, first + record.rows - 1));
        }
    }
    once.values_mut().for_each(|receipts| receipts.sort_unstable());
    let batches = look.batches()?;
    let (mut ends, mut sums): (HashMap<&str, i64>, HashMap<&str, i64>) = Default::default();
    for batch in &batches {
        let end = ends.entry(&batch.stream).or_default();
        if batch.first_seq != *end + 1 {
            verdict.twice += u64::from(batch.first_seq <= *end);
            verdict.wrong += u64::from(batch.first_seq > *end + 1);
            verdict.say(format!("the ledger jumps from {end} to {batch:?}"));
        }
        *end = batch.last_seq;
        *sums.entry(&batch.stream).or_default() += batch.stored;
        let width = batch.last_seq - batch.first_seq + 1;
        let given_up = width - batch.stored - batch.duplicate - batch.refused;
        verdict.given_up += u64::try_from(given_up).unwrap_or(0);
        if given_up < 0 || batch.refused > 0 {
            verdict.wrong += given_up.unsigned_abs() + batch.refused.unsigned_abs();
            verdict.say(format!("the ledger counts refused readings or too many: {batch:?}"));
        }
        let receipts = once.get(batch.stream.as_str()).map(Vec::as_slice).unwrap_or_default();
        for (from, to) in duplicates(batch.exceptions.as_deref().unwrap_or_default()) {
            let (from, to) = (batch.first_seq.unsigned_abs() + from, batch.first_seq.unsigned_abs() + to);
            let after = receipts.partition_point(|(first, _)| *first <= to);
            if let Some((first, last)) = receipts[..after].last().filter(|(_, last)| *last >= from) {
                verdict.twice += to.min(*last) - from.max(*first) + 1;
                verdict.say(format!("sent once, yet a duplicate: {from} to {to} in {batch:?}"));
            }
        }
    }
    for stream in look.streams()? {
        verdict.streams += 1;
        let (end, sum) =
            (ends.get(stream.stream.as_str()).copied().unwrap_or(0), sums.get(stream.stream.as_str()).copied().unwrap_or(0));
        if end != stream.cursor_seq || sum != stream.held {
            verdict.twice += (sum - stream.held).max(0).unsigned_abs();
            verdict.wrong += 1;
            verdict.say(format!("the ledger ends at {end} and counts {sum} stored: {stream:?}"));
        }
    }
    Ok(())
}

/// Offsets of duplicates as the ledger writes them.
fn duplicates(text: &str) -> Vec<(u64, u64)> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some((from.parse().ok()?, to.parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}
