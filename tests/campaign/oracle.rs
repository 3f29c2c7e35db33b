//! The oracle: what was sent, and what the daemon has said of it.
//!
//! In: each push before it is sent, and again when it is acknowledged. Out: the same to a file (evidence that outlives everything) and
//! to the comparison with the database. It lives in another process than the daemon, so nothing that kills the daemon touches it. The
//! values of a reading follow from its place alone, so that they need not be kept.

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::dice::mix;

/// Engines of one sender.
pub const ENGINES: u64 = 8;
/// Pushes of one sender are this far apart in time; an item adds a microsecond.
pub const PUSH_US: i64 = 1_000;
/// Sizes of pushes; small ones most often.
const SIZES: [u64; 10] = [1, 1, 1, 2, 5, 20, 20, 100, 100, 400];

/// What is known of one push.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Readings in it.
    pub rows: u64,
    /// Sends whose outcome is unknown: each may have been accepted once.
    pub unknown: u32,
    /// The receipt, once it was acknowledged.
    pub receipt: Option<(String, u64)>,
}

/// One reading as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// `status`
    pub status: Option<String>,
    /// `temperature`
    pub temperature: f64,
    /// `rpm`
    pub rpm: f64,
    /// `pressure`, in every second reading
    pub pressure: Option<f64>,
    /// `fuelFlow`
    pub fuel_flow: f64,
    /// `extra.vibration`, in every third reading
    pub vibration: Option<f64>,
}

/// See the module.
#[derive(Debug)]
pub struct Oracle {
    seed: u64,
    /// Time of the first reading, microseconds since the epoch.
    pub base_us: i64,
    senders: Vec<Mutex<Vec<Record>>>,
    kept: AtomicUsize,
    file: Mutex<BufWriter<File>>,
    /// Readings sent for the first time.
    pub sent: AtomicU64,
    /// Readings acknowledged.
    pub acknowledged: AtomicU64,
    /// Pushes sent again.
    pub repeats: AtomicU64,
    /// Answers that no sender should ever get.
    pub refusals: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Oracle {
    /// An oracle for `senders` senders whose notes go to `file`.
    pub fn new(seed: u64, senders: usize, file: &Path) -> Self {
        // An hour and more ago: a clock that is put back by an hour does not make these readings lie too far ahead.
        let base_us = chrono::Utc::now().timestamp_micros() / 1_000_000 * 1_000_000 - 7_200_000_000;
        Self {
            seed,
            base_us,
            senders: (0..senders).map(|_| Mutex::default()).collect(),
            file: Mutex::new(BufWriter::with_capacity(4096, File::create(file).expect("a file for the oracle's notes"))),
            kept: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            refusals: Mutex::default(),
        }
    }

    /// Number of senders.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// What is known of each push of one sender, in order.
    pub fn records(&self, sender: usize) -> Vec<Record> {
        lock(&self.senders[sender]).clone()
    }

    /// Writes down the next push of `sender`, and returns its number. `rows`: its size, else one of the usual sizes.
    pub fn intend(&self, sender: usize, rows: Option<u64>) -> (u64, u64) {
        let mut records = lock(&self.senders[sender]);
        let number = records.len() as u64;
        let size = mix(self.seed ^ mix((sender as u64) << 40 | number)) % SIZES.len() as u64;
        let rows = rows.unwrap_or(SIZES[size as usize]);
        records.push(Record { rows, ..Record::default() });
        drop(records);
        self.sent.fetch_add(rows, Ordering::Relaxed);
        self.note(&format!("send {sender} {number} {rows}"));
        (number, rows)
    }

    /// The outcome of one send will never be known.
    pub fn unknown(&self, sender: usize, number: u64) {
        lock(&self.senders[sender])[number as usize].unknown += 1;
        self.repeats.fetch_add(1, Ordering::Relaxed);
    }

    /// It was acknowledged.
    pub fn acknowledge(&self, sender: usize, number: u64, level: &str, stream: &str, first_seq: u64) {
        let rows = {
            let record = &mut lock(&self.senders[sender])[number as usize];
            record.receipt = Some((stream.into(), first_seq));
            record.rows
        };
        self.acknowledged.fetch_add(rows, Ordering::Relaxed);
        self.note(&format!("ack {sender} {number} {level} {stream} {first_seq}"));
    }

    /// An answer that no sender should ever get.
    pub fn refused(&self, sender: usize, number: u64, answer: &str) {
        let mut refusals = lock(&self.refusals);
        if refusals.len() < 20 {
            refusals.push(format!("push {number} of sender {sender}: {answer}"));
        }
    }

    fn note(&self, line: &str) {
        let mut file = lock(&self.file);
        // Without its notes the oracle still knows; they are for the person who looks for a fault.
        let _ = writeln!(file, "{line}");
    }

    /// Everything noted so far is in the file.
    pub fn flush(&self) {
        let _ = lock(&self.file).flush();
    }

    /// What the last sender (fresh readings) has sent so far is part of what is copied.
    pub fn keep_fresh(&self) {
        self.kept.store(lock(&self.senders[self.senders.len() - 1]).len(), Ordering::Relaxed);
    }

    /// The copy has been put back: what the last sender sent after it was made is gone.
    pub fn forget_fresh(&self) {
        lock(&self.senders[self.senders.len() - 1]).truncate(self.kept.load(Ordering::Relaxed));
    }

    /// Engine and time of one reading.
    pub fn key(&self, sender: usize, number: u64, item: u64) -> (String, i64) {
        (format!("c{sender}-{}", item % ENGINES), self.base_us + number.cast_signed() * PUSH_US + item.cast_signed())
    }

    /// The place of the reading with this time: push and item.
    pub fn place(&self, at_us: i64) -> Option<(u64, u64)> {
        let offset = at_us - self.base_us;
        (offset >= 0).then_some(((offset / PUSH_US).unsigned_abs(), (offset % PUSH_US).unsigned_abs()))
    }

    /// The values of one reading.
    pub fn values(&self, sender: usize, number: u64, item: u64) -> Sent {
        let chance = mix(self.seed ^ mix((sender as u64) << 50 | number << 12 | item));
        let part = |shift: u32, scale: f64| ((chance >> shift) & 0xFFFF) as f64 / scale;
        Sent {
            status: chance.is_multiple_of(4).then(|| format!("s{}", chance >> 48)),
            // Now and then beyond the limits that rules have by default, so that alerts are raised as well.
            temperature: if chance.is_multiple_of(500) { 400.0 } else { part(0, 200.0) },
            rpm: part(16, 10.0),
            pressure: chance.is_multiple_of(2).then(|| part(32, 1_000.0)),
            fuel_flow: part(40, 8.0),
            vibration: chance.is_multiple_of(3).then(|| part(24, 10.0)),
        }
    }

    /// The body of one push; the same each time.
    pub fn body(&self, sender: usize, number: u64, rows: u64) -> String {
        let mut body = String::with_capacity(160 * rows as usize);
        for item in 0..rows {
            let (engine, at_us) = self.key(sender, number, item);
            let values = self.values(sender, number, item);
            let time = chrono::DateTime::from_timestamp_micros(at_us).unwrap_or_default().format("%Y-%m-%dT%H:%M:%S%.6fZ");
            body.push(if item == 0 { '[' } else { ',' });
            // Writing into memory cannot fail.
            let _ = write!(
                body,
                r#"{{"engineId":"{engine}","timestamp":"{time}","temperature":{},"rpm":{},"fuelFlow":{}"#,
                values.temperature, values.rpm, values.fuel_flow
            );
            let _ = values.pressure.map(|value| write!(body, r#","pressure":{value}"#));
            let _ = values.vibration.map(|value| write!(body, r#","vibration":{value}"#));
            let _ = values.status.map(|text| write!(body, r#","status":"{text}""#));
            body.push('}');
        }
        body.push(']');
        body
    }
}
