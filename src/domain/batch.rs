//! A batch: accepted readings in the compact form in which they wait, in memory now and on disk or in Redis by the same bytes.
//!
//! Layout, little endian, one record a reading:
//! `observed_at_us i64 | mask u8 | engine len u8 | status len u8 | extra len u16 | named metrics f64 each | engine | status | extra`.
//! The low four bits of `mask` say which named metrics follow, in the order of [`NAMED_METRICS`](super::reading::NAMED_METRICS).
//! A record of four metrics takes about 55 bytes; the same reading as a struct of owned strings would take 150.

use bytes::{BufMut, Bytes, BytesMut};

use super::reading::ReadingRef;

const HEADER_BYTES: usize = 8 + 1 + 1 + 1 + 2;
const HAS_STATUS: u8 = 1 << 4;
const HAS_EXTRA: u8 = 1 << 5;

/// Readings that came together. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    received_at_us: i64,
    len: u32,
    bytes: Bytes,
}

/// Bytes that are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotABatch {
    /// Where the record starts that cannot be read, in bytes.
    pub offset: usize,
}

impl std::fmt::Display for NotABatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the record at byte {} is not a reading", self.offset)
    }
}

impl std::error::Error for NotABatch {}

impl Batch {
    /// Takes bytes written by [`Batch::bytes`] back, after looking at every record.
    ///
    /// # Errors
    /// [`NotABatch`] where a record is cut, its text is not UTF-8, or the count differs.
    pub fn from_bytes(received_at_us: i64, len: u32, bytes: Bytes) -> Result<Self, NotABatch> {
        let mut offset = 0;
        let mut seen = 0u32;
        while offset < bytes.len() {
            let (_, next) = decode(&bytes, offset).ok_or(NotABatch { offset })?;
            offset = next;
            seen += 1;
        }
        if seen != len {
            return Err(NotABatch { offset });
        }
        Ok(Self { received_at_us, len, bytes })
    }

    /// How many readings there are.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are so few that waking a thread for them costs about as much as handling them: fewer than 16.
    pub fn is_small(&self) -> bool {
        self.len < 16
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The encoded records.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// When the push or answer arrived, microseconds since the epoch; it becomes `created_at_us`.
    pub fn received_at_us(&self) -> i64 {
        self.received_at_us
    }

    /// The readings in their order.
    pub fn iter(&self) -> impl Iterator<Item = ReadingRef<'_>> {
        let mut offset = 0;
        std::iter::from_fn(move || {
            // Bytes are checked when a batch is made, so a record that cannot be read is the end.
            let (reading, next) = decode(&self.bytes, offset)?;
            offset = next;
            Some(reading)
        })
    }
}

/// Collects readings into a [`Batch`].
#[derive(Debug, Default)]
pub struct BatchBuilder {
    len: u32,
    bytes: BytesMut,
}

impl BatchBuilder {
    /// An empty builder with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { len: 0, bytes: BytesMut::with_capacity(bytes) }
    }

    /// Adds a reading. The caller has checked the bounds of names and texts (see [`super::reading`]); longer ones are cut to what
    /// the lengths in the record can say.
    pub fn push(&mut self, reading: &ReadingRef<'_>) {
        let engine = &reading.engine_id.as_bytes()[..reading.engine_id.len().min(usize::from(u8::MAX))];
        let status = reading.status.unwrap_or_default().as_bytes();
        let status = &status[..status.len().min(usize::from(u8::MAX))];
        let extra = reading.extra.unwrap_or_default().as_bytes();
        let extra = &extra[..extra.len().min(usize::from(u16::MAX))];
        let metrics = [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow];
        let mut mask = 0u8;
        for (bit, metric) in metrics.iter().enumerate() {
            mask |= u8::from(metric.is_some()) << bit;
        }
        mask |= if reading.status.is_some() { HAS_STATUS } else { 0 };
        mask |= if reading.extra.is_some() { HAS_EXTRA } else { 0 };
        self.bytes.reserve(HEADER_BYTES + 32 + engine.len() + status.len() + extra.len());
        self.bytes.put_i64_le(reading.observed_at_us);
        self.bytes.put_u8(mask);
        self.bytes.put_u8(engine.len() as u8);
        self.bytes.put_u8(status.len() as u8);
        self.bytes.put_u16_le(extra.len() as u16);
        for metric in metrics.into_iter().flatten() {
            self.bytes.put_f64_le(metric);
        }
        self.bytes.put_slice(engine);
        self.bytes.put_slice(status);
        self.bytes.put_slice(extra);
        self.len += 1;
    }

    /// How many readings were added.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds all readings of another batch, by copying its bytes.
    pub fn append(&mut self, batch: &Batch) {
        self.bytes.extend_from_slice(&batch.bytes);
        self.len += batch.len;
    }

    /// Bytes collected so far.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch. Room reserved in vain is given back where it is more than a quarter: a batch may wait for hours.
    pub fn finish(self, received_at_us: i64) -> Batch {
        let wasted = self.bytes.capacity() - self.bytes.len();
        let bytes = if wasted * 4 > self.bytes.len() { Bytes::copy_from_slice(&self.bytes) } else { self.bytes.freeze() };
        Batch { received_at_us, len: self.len, bytes }
    }
}

/// Reads the record at `offset`; `None` where it is cut or its texts are not UTF-8.
fn decode(bytes: &[u8], offset: usize) -> Option<(ReadingRef<'_>, usize)> {
    let header = bytes.get(offset..offset + HEADER_BYTES)?;
    let observed_at_us = i64::from_le_bytes(header[..8].try_into().ok()?);
    let mask = header[8];
    let lengths = [usize::from(header[9]), usize::from(header[10]), usize::from(u16::from_le_bytes([header[11], header[12]]))];
    let mut at = offset + HEADER_BYTES;
    let mut metrics = [None; 4];
    for (bit, metric) in metrics.iter_mut().enumerate() {
        if mask & (1 << bit) != 0 {
            *metric = Some(f64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
            at += 8;
        }
    }
    let mut texts = [""; 3];
    for (text, len) in texts.iter_mut().zip(lengths) {
        *text = std::str::from_utf8(bytes.get(at..at + len)?).ok()?;
        at += len;
    }
    let reading = ReadingRef {
        engine_id: texts[0],
        observed_at_us,
        status: (mask & HAS_STATUS != 0).then_some(texts[1]),
        temperature: metrics[0],
        rpm: metrics[1],
        pressure: metrics[2],
        fuel_flow: metrics[3],
        extra: (mask & HAS_EXTRA != 0).then_some(texts[2]),
    };
    Some((reading, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings() -> [ReadingRef<'static>; 3] {
        let full = ReadingRef {
            engine_id: "engine-1",
            observed_at_us: 1_700_000_000_000_001,
            status: Some("läuft"),
            temperature: Some(-40.25),
            rpm: Some(0.0),
            pressure: Some(1e-300),
            fuel_flow: Some(f64::MAX),
            extra: Some(r#"{"oil":1.5}"#),
        };
        let bare =
            ReadingRef { status: None, temperature: None, pressure: None, fuel_flow: None, extra: None, engine_id: "x", ..full };
        [full, bare, ReadingRef { status: Some(""), observed_at_us: i64::MIN, ..bare }]
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut builder = BatchBuilder::default();
        readings().iter().for_each(|reading| builder.push(reading));
        let batch = builder.finish(7);
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.iter().collect::<Vec<_>>(), readings());
        assert_eq!(Batch::from_bytes(7, 3, batch.bytes().clone()), Ok(batch));
    }

    #[test]
    fn a_cut_or_miscounted_batch_is_refused() {
        let mut builder = BatchBuilder::default();
        readings().iter().for_each(|reading| builder.push(reading));
        let batch = builder.finish(7);
        for cut in 1..batch.bytes().len() {
            assert!(Batch::from_bytes(7, 3, batch.bytes().slice(..cut)).is_err(), "cut at {cut}");
        }
        assert!(Batch::from_bytes(7, 2, batch.bytes().clone()).is_err());
    }
}
