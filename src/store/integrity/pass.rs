//! One comparison of everything: the ledger of each stream with its deliveries to Kafka, those deliveries with the ledger, then all readings,
//! then what ledger and readings say of each range of numbers.
//!
//! In: slices, one a [`Pass::step`]. Out: [`Findings`], and on the way a note of the place, from which [`Pass::resume`] goes on. What is
//! compared is fixed at the beginning: each stream up to its cursor then. A crash loses what was compared since the last note.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    Hole, LedgerRow, PART, Stream, Sums, all_streams, decided, ledger_slice, outbox, pruned_seq, readings_slice, removed,
    repair_sums,
};
use crate::store::{Conn, StoreResult, partitions};

/// Rows of one slice.
const SLICE_ROWS: i64 = 5_000;
/// Ranges that are looked for in the journal in one pass; the next one finds what is left.
const HOLES_MAX: usize = 64;
/// Faults that are told in words.
const FAULTS_TOLD: usize = 5;

/// What a whole pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Streams that were compared.
    pub streams: u64,
    /// Ledger rows that were compared.
    pub ledger_rows: u64,
    /// Readings that were compared.
    pub rows: u64,
    /// Readings that the ledger says are stored, and that are not there.
    pub missing: u64,
    /// Readings that are there beyond what the ledger says: stored twice.
    pub twice: u64,
    /// Ranges of numbers that changed while they were compared, left for the next pass.
    pub unsettled: u64,
    /// Holes, overlaps and wrong sums in the ledger, the repaired ones among them.
    pub ledger_faults: u64,
    /// Streams whose sums were set right.
    pub repaired: u64,
    /// Missing readings that were stored again, because the journal still had them; they do not count as missing any more.
    pub restored: u64,
    /// Ledger rows whose delivery to Kafka was looked for.
    pub deliveries: u64,
    /// Deliveries to Kafka that are gone, are there twice, carry what the ledger does not have, or have lost their readings.
    pub delivery_faults: u64,
    /// Where readings are missing of which none was deleted, at most [`HOLES_MAX`].
    pub holes: Vec<Hole>,
    /// The first faults, one sentence each.
    pub words: Vec<String>,
}

impl Findings {
    /// Whether a person has to know.
    pub fn is_fault(&self) -> bool {
        self.missing + self.twice + self.ledger_faults + self.delivery_faults > 0
    }

    fn tell(&mut self, words: String) {
        if self.words.len() < FAULTS_TOLD {
            self.words.push(words);
        }
    }

    fn add_delivery_faults(&mut self, all: Vec<String>) {
        self.delivery_faults += all.len() as u64;
        all.into_iter().for_each(|words| self.tell(words));
    }

    fn ledger_fault(&mut self, words: String) {
        self.ledger_faults += 1;
        self.tell(words);
    }
}

/// One stream's ledger on its way through.
#[derive(Debug, Serialize, Deserialize)]
struct Walk {
    stream: Stream,
    /// Number of the last ledger row's first and last reading.
    at: (i64, i64),
    sums: Sums,
    /// Faults found before this stream.
    faults_before: u64,
}

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pass {
    since_us: i64,
    todo: Vec<Stream>,
    walk: Option<Walk>,
    /// Deliveries that were made before may have been dropped by retention.
    deliveries_from_us: i64,
    outbox: Option<outbox::Walk>,
    /// Streams whose readings are compared: cursor, and the part below which all is compared as one.
    limits: HashMap<i64, (i64, i64)>,
    names: HashMap<String, i64>,
    #[serde(with = "pairs")]
    expected: BTreeMap<(i64, i64), i64>,
    /// Streams whose first range holds numbers from before deletions were counted.
    old: HashSet<i64>,
    /// Parts that are compared together with the next.
    joined: BTreeSet<(i64, i64)>,
    #[serde(with = "pairs")]
    actual: HashMap<(i64, i64), i64>,
    #[serde(with = "pairs")]
    removed: HashMap<(i64, i64), i64>,
    key: Option<(String, i64)>,
    found: Findings,
}

impl Pass {
    /// Begins one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn begin(conn: &mut Conn, now_us: i64) -> StoreResult<Self> {
        partitions::finish_gone(conn)?;
        let removed = removed(conn)?;
        let mut todo = all_streams(conn)?;
        todo.reverse();
        let names = todo.iter().map(|stream| (stream.name.clone(), stream.no)).collect();
        Ok(Self {
            since_us: now_us,
            todo,
            walk: None,
            deliveries_from_us: 0,
            outbox: Some(outbox::Walk::default()),
            limits: HashMap::new(),
            names,
            expected: BTreeMap::new(),
            old: HashSet::new(),
            joined: BTreeSet::new(),
            actual: HashMap::new(),
            removed,
            key: None,
            found: Findings::default(),
        })
    }

    /// Where it stands, to go on from after a restart: some 50 bytes for each range of [`PART`] numbers.
    pub fn note(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Goes on from a note. `None` where the database is not the one that the pass began on, or an older state of it, or another build
    /// wrote the note: a new pass sees one state then.
    ///
    /// # Errors
    /// Those of the database.
    pub fn resume(conn: &mut Conn, note: &str, now_us: i64) -> StoreResult<Option<Self>> {
        let Some(pass) = serde_json::from_str::<Self>(note).ok().filter(|pass| pass.since_us <= now_us) else { return Ok(None) };
        let now: HashMap<i64, Stream> = all_streams(conn)?.into_iter().map(|stream| (stream.no, stream)).collect();
        let ahead = pass.todo.iter().chain(pass.walk.as_ref().map(|walk| &walk.stream)).map(|stream| (stream.no, stream.cursor));
        let compared = pass.limits.iter().map(|(no, (cursor, _))| (*no, *cursor));
        let named = pass.names.iter().all(|(name, no)| now.get(no).is_some_and(|stream| stream.name == *name));
        let reached = ahead.chain(compared).all(|(no, cursor)| now.get(&no).is_some_and(|stream| stream.cursor >= cursor));
        Ok((named && reached).then_some(pass))
    }

    /// When it began, microseconds since the epoch.
    pub fn since_us(&self) -> i64 {
        self.since_us
    }

    /// Readings compared so far.
    pub fn rows(&self) -> u64 {
        self.found.rows
    }

    /// Deliveries that were made before this moment, microseconds since the epoch, may have been sent and dropped: they are not looked for.
    pub fn look_for_deliveries_from(&mut self, from_us: i64) {
        self.deliveries_from_us = self.deliveries_from_us.max(from_us);
    }

    /// One slice more; the findings once there is none.
    ///
    /// # Errors
    /// Those of the database; the pass is not to be gone on with.
    pub fn step(&mut self, conn: &mut Conn) -> StoreResult<Option<Findings>> {
        if let Some(walk) = self.walk.take() {
            self.walk_on(conn, walk)?;
            return Ok(None);
        }
        if let Some(stream) = self.todo.pop() {
            let at = (stream.pruned, stream.pruned);
            let faults_before = self.found.ledger_faults;
            self.walk_on(conn, Walk { stream, at, sums: [0; 6], faults_before })?;
            return Ok(None);
        }
        if let Some(walk) = &mut self.outbox {
            match walk.step(conn)? {
                Some(faults) => self.found.add_delivery_faults(faults),
                None => self.outbox = None,
            }
            return Ok(None);
        }
        let rows = readings_slice(conn, self.key.as_ref(), SLICE_ROWS)?;
        for (_, _, no, seq) in &rows {
            if let Some((limit, base)) = self.limits.get(no)
                && seq <= limit
            {
                *self.actual.entry((*no, (seq / PART).max(*base))).or_insert(0) += 1;
                self.found.rows += 1;
            }
        }
        let more = rows.len() as i64 == SLICE_ROWS;
        self.key = rows.into_iter().next_back().map(|(engine, at_us, ..)| (engine, at_us));
        if more {
            return Ok(None);
        }
        self.compare(conn)?;
        Ok(Some(std::mem::take(&mut self.found)))
    }

    fn walk_on(&mut self, conn: &mut Conn, mut walk: Walk) -> StoreResult<()> {
        let rows = ledger_slice(conn, &walk.stream.name, walk.at.0, walk.stream.cursor, SLICE_ROWS)?;
        for row in &rows {
            self.take(&mut walk, row);
        }
        self.found.ledger_rows += rows.len() as u64;
        let (deliveries, faults) = outbox::absent(conn, &walk.stream.name, &rows, self.deliveries_from_us)?;
        self.found.deliveries += deliveries;
        self.found.add_delivery_faults(faults);
        if rows.len() as i64 == SLICE_ROWS {
            self.walk = Some(walk);
            return Ok(());
        }
        self.end_walk(conn, walk)
    }

    fn take(&mut self, walk: &mut Walk, row: &LedgerRow) {
        let (name, no) = (&walk.stream.name, walk.stream.no);
        if row.first != walk.at.1 + 1 {
            let what = if row.first > walk.at.1 { "a hole" } else { "an overlap" };
            self.found.ledger_fault(format!("the ledger of stream {name} has {what} before number {}", row.first));
        }
        let (width, sum) = (row.last + 1 - row.first, row.sums.iter().sum::<i64>());
        if width < 1 || (row.is_gap && sum > width) || (!row.is_gap && sum != width) {
            self.found
                .ledger_fault(format!("the ledger of stream {name} accounts for {sum} of the {width} numbers from {}", row.first));
        }
        for (all, one) in walk.sums.iter_mut().zip(row.sums) {
            *all += one;
        }
        walk.at = (row.first, row.last.max(walk.at.1));
        let (from, to) = (row.first / PART, row.last / PART);
        let stored = row.sums[0];
        if stored == width {
            for part in from..=to {
                let count = row.last.min((part + 1) * PART - 1) + 1 - row.first.max(part * PART);
                *self.expected.entry((no, part)).or_insert(0) += count;
            }
        } else {
            // Which of its numbers were stored is not looked up: the ranges that it touches are compared together.
            *self.expected.entry((no, from)).or_insert(0) += stored;
            self.joined.extend((from..to).map(|part| (no, part)));
        }
    }

    fn end_walk(&mut self, conn: &mut Conn, walk: Walk) -> StoreResult<()> {
        let Walk { stream, at, sums, faults_before } = walk;
        if pruned_seq(conn, stream.no)? != stream.pruned {
            // Retention has passed: the next pass sees one state.
            self.found.unsettled += 1;
            self.found.ledger_faults = faults_before;
            return Ok(());
        }
        self.found.streams += 1;
        if at.1 != stream.cursor {
            self.found.ledger_fault(format!(
                "the ledger of stream {} ends with number {}, its cursor stands at {}",
                stream.name, at.1, stream.cursor
            ));
        }
        let whole = self.found.ledger_faults == faults_before;
        let pruned: Vec<i64> = stream.sums.iter().zip(sums).map(|(all, kept)| all - kept).collect();
        let decided = decided(conn, self.since_us)?.iter().any(|(name, _)| *name == stream.name);
        let wrong = if stream.pruned == 0 { pruned.iter().any(|left| *left != 0) } else { pruned.iter().any(|left| *left < 0) };
        if wrong && !decided {
            if whole && stream.pruned == 0 {
                if repair_sums(conn, &stream)? {
                    self.found.repaired += 1;
                    self.found.ledger_fault(format!("the sums of stream {} were not those of its ledger; set right", stream.name));
                }
            } else {
                self.found.ledger_fault(format!("the sums of stream {} are not those of its ledger", stream.name));
            }
        }
        let base = if stream.pruned > 0 { stream.pruned / PART } else { 0 };
        if stream.pruned > 0 {
            *self.expected.entry((stream.no, base)).or_insert(0) += pruned[0];
        }
        if stream.cursor > stream.watched_from {
            // Numbers from before deletions were counted are in no range that is compared.
            let base = if stream.watched_from > 0 { base.max(stream.watched_from / PART) } else { base };
            self.limits.insert(stream.no, (stream.cursor, base));
            if stream.watched_from > 0 {
                self.old.insert(stream.no);
            }
        }
        Ok(())
    }

    fn compare(&mut self, conn: &mut Conn) -> StoreResult<()> {
        // A partition that was taken out meanwhile counts as removed, not as lost.
        partitions::finish_gone(conn)?;
        let removed_now = removed(conn)?;
        let mut touched: HashSet<(i64, i64)> = HashSet::new();
        for (name, seq) in decided(conn, self.since_us)? {
            touched.extend(self.names.get(&name).map(|no| (*no, seq / PART)));
        }
        let moved = |part: &(i64, i64)| removed_now.get(part) != self.removed.get(part);
        touched.extend(removed_now.keys().filter(|part| moved(part)));
        let mut limits: Vec<_> = self.limits.iter().map(|(no, (cursor, base))| (*no, *cursor, *base)).collect();
        limits.sort_unstable();
        for (no, cursor, base) in limits {
            // Everything below the first range belongs to it.
            let gone_below: i64 =
                removed_now.iter().filter(|((of, part), _)| *of == no && *part < base).map(|(_, gone)| gone).sum();
            let expected_below: i64 = self.expected.range((no, i64::MIN)..(no, base)).map(|(_, count)| count).sum();
            let (mut expected, mut actual, mut gone) = (expected_below, 0, gone_below);
            let mut changed = touched.iter().any(|(of, part)| *of == no && *part < base);
            let mut from = base;
            for part in base..=cursor / PART {
                let here = (no, part);
                expected += self.expected.get(&here).unwrap_or(&0);
                actual += self.actual.get(&here).unwrap_or(&0);
                gone += removed_now.get(&here).unwrap_or(&0);
                changed |= touched.contains(&here);
                if self.joined.contains(&here) && part < cursor / PART {
                    continue;
                }
                let unwatched = from == base && self.old.contains(&no);
                if changed {
                    self.found.unsettled += 1;
                } else if !unwatched {
                    self.judge(no, (from, part), expected - gone, actual, gone == 0);
                }
                (expected, actual, gone, changed, from) = (0, 0, 0, false, part + 1);
            }
        }
        Ok(())
    }

    fn judge(&mut self, no: i64, (from, to): (i64, i64), expected: i64, actual: i64, nothing_deleted: bool) {
        let (first, last) = (from * PART, (to + 1) * PART - 1);
        if actual < expected {
            self.found.missing += (expected - actual).unsigned_abs();
            let name = self.names.iter().find(|(_, of)| **of == no).map(|(name, _)| name.clone());
            if let Some(stream) = name.filter(|_| nothing_deleted && self.found.holes.len() < HOLES_MAX) {
                self.found.holes.push(Hole { stream, stream_no: no, numbers: (first.max(1), last) });
            }
            self.found.tell(format!(
                "{} of {expected} readings are missing of stream {no}, numbers {first} to {last}",
                expected - actual
            ));
        } else if actual > expected {
            self.found.twice += (actual - expected).unsigned_abs();
            self.found.tell(format!("{} readings too many are there of stream {no}, numbers {first} to {last}", actual - expected));
        }
    }
}

/// Maps whose keys are no text, as lists of pairs.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<'a, M, K, V, S>(map: &'a M, serializer: S) -> Result<S::Ok, S::Error>
    where
        &'a M: IntoIterator<Item = (&'a K, &'a V)>,
        K: Serialize + 'a,
        V: Serialize + 'a,
        S: Serializer,
    {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, M, K, V, D>(deserializer: D) -> Result<M, D::Error>
    where
        M: FromIterator<(K, V)> + IntoIterator<Item = (K, V)>,
        K: Deserialize<'de>,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
