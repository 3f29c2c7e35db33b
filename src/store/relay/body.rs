//! The readings of one delivery as bytes: segments of consecutive numbers, each a header and the records of a [`Batch`] as they were
//! buffered. Little endian: `version u8 | (first_seq i64 | received_at_us i64 | readings u32 | bytes u32 | records)…`.
//!
//! A segment ends where a number was not stored (a duplicate, a conflict, a dead one) and where a frame ends. Where a whole frame was
//! stored its bytes are copied as they are.

use bytes::{Bytes, BytesMut};

use crate::{
    buffer::Frame,
    domain::batch::{Batch, BatchBuilder},
    store::readings::Row,
};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8 + 8 + 4 + 4;

/// Consecutive readings of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Number of the first reading; the others follow without holes.
    pub first_seq: u64,
    /// The readings.
    pub batch: Batch,
}

/// Bytes that are no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyDamaged {
    /// Where, in bytes.
    pub offset: usize,
}

impl std::fmt::Display for BodyDamaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the readings of the delivery cannot be read at byte {}", self.offset)
    }
}

impl std::error::Error for BodyDamaged {}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// In the order of their numbers.
    pub segments: Vec<Segment>,
}

impl Body {
    /// What was stored of `frames`: all but `left_out`, which is sorted.
    pub fn of_frames(frames: &[Frame], left_out: &[i64]) -> Self {
        let mut body = Self::default();
        for frame in frames {
            let (first, last) = (frame.first_seq.cast_signed(), frame.last_seq().cast_signed());
            let from = left_out.partition_point(|seq| *seq < first);
            let upto = left_out.partition_point(|seq| *seq <= last);
            body.add_frame(frame, &left_out[from..upto]);
        }
        body
    }

    /// One reading alone.
    pub(in crate::store) fn of_row(row: &Row<'_>) -> Self {
        let mut builder = BatchBuilder::default();
        builder.push(&row.reading);
        Self { segments: vec![Segment { first_seq: row.seq.unsigned_abs(), batch: builder.finish(row.created_at_us) }] }
    }

    fn add_frame(&mut self, frame: &Frame, left_out: &[i64]) {
        if left_out.is_empty() {
            self.segments.push(Segment { first_seq: frame.first_seq, batch: frame.batch.clone() });
            return;
        }
        let (mut builder, mut begin) = (BatchBuilder::default(), frame.first_seq);
        for (seq, reading) in (frame.first_seq..).zip(frame.batch.iter()) {
            if left_out.binary_search(&seq.cast_signed()).is_err() {
                if builder.is_empty() {
                    begin = seq;
                }
                builder.push(&reading);
            } else if !builder.is_empty() {
                let batch = std::mem::take(&mut builder).finish(frame.batch.received_at_us());
                self.segments.push(Segment { first_seq: begin, batch });
            }
        }
        if !builder.is_empty() {
            self.segments.push(Segment { first_seq: begin, batch: builder.finish(frame.batch.received_at_us()) });
        }
    }

    /// How many readings there are.
    pub fn readings(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.batch.len())).sum()
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let size: usize = self.segments.iter().map(|segment| HEADER_BYTES + segment.batch.bytes().len()).sum();
        let mut bytes = Vec::with_capacity(1 + size);
        bytes.push(VERSION);
        for Segment { first_seq, batch } in &self.segments {
            bytes.extend_from_slice(&first_seq.to_le_bytes());
            bytes.extend_from_slice(&batch.received_at_us().to_le_bytes());
            bytes.extend_from_slice(&batch.len().to_le_bytes());
            // A frame holds 8 MB at most.
            bytes.extend_from_slice(&(batch.bytes().len() as u32).to_le_bytes());
            bytes.extend_from_slice(batch.bytes());
        }
        bytes
    }

    /// Takes [`Body::encode`] back, after looking at every record.
    ///
    /// # Errors
    /// [`BodyDamaged`] where the bytes say something else.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, BodyDamaged> {
        let mut bytes = BytesMut::from(Bytes::from(bytes)).freeze();
        let whole = bytes.len();
        if bytes.is_empty() || bytes.split_to(1)[0] != VERSION {
            return Err(BodyDamaged { offset: 0 });
        }
        let mut body = Self::default();
        while !bytes.is_empty() {
            let damaged = BodyDamaged { offset: whole - bytes.len() };
            if bytes.len() < HEADER_BYTES {
                return Err(damaged);
            }
            let header = bytes.split_to(HEADER_BYTES);
            let eight = |at: usize| header[at..at + 8].try_into().map(u64::from_le_bytes).map_err(|_| damaged);
            let four = |at: usize| header[at..at + 4].try_into().map(u32::from_le_bytes).map_err(|_| damaged);
            let (first_seq, received_at_us, len, size) = (eight(0)?, eight(8)?.cast_signed(), four(16)?, four(20)? as usize);
            if bytes.len() < size {
                return Err(damaged);
            }
            let batch = Batch::from_bytes(received_at_us, len, bytes.split_to(size)).map_err(|_| damaged)?;
            body.segments.push(Segment { first_seq, batch });
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reading::ReadingRef;

    fn frame(first_seq: u64, readings: u32) -> Frame {
        let mut builder = BatchBuilder::default();
        for n in 0..readings {
            builder.push(&ReadingRef {
                engine_id: "e",
                observed_at_us: i64::from(n),
                status: Some("ok"),
                temperature: Some(f64::from(n)),
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: Some(r#"{"a":1}"#),
            });
        }
        Frame { first_seq, batch: builder.finish(77), chain_before: 0, chain: 0 }
    }

    #[test]
    fn a_body_holds_what_was_stored_under_its_own_numbers_and_comes_back_the_same() {
        let frames = [frame(11, 4), frame(15, 3)];
        for (left_out, expected) in [
            (vec![], vec![(11, 4), (15, 3)]),
            (vec![11], vec![(12, 3), (15, 3)]),
            (vec![12, 13], vec![(11, 1), (14, 1), (15, 3)]),
            (vec![11, 12, 13, 14, 17], vec![(15, 2)]),
            ((11..=17).collect(), vec![]),
        ] {
            let body = Body::of_frames(&frames, &left_out);
            let seen: Vec<_> = body.segments.iter().map(|s| (s.first_seq, s.batch.len())).collect();
            assert_eq!(seen, expected, "{left_out:?}");
            assert_eq!(body.readings(), 7 - left_out.len() as u64);
            assert_eq!(Body::decode(body.encode()), Ok(body));
        }
    }

    #[test]
    fn a_reading_keeps_its_values_when_its_neighbour_is_left_out() {
        let body = Body::of_frames(&[frame(1, 3)], &[2]);
        let third = body.segments[1].batch.iter().next().expect("the third");
        assert_eq!((body.segments[1].first_seq, third.observed_at_us, third.temperature), (3, 2, Some(2.0)));
        assert_eq!(body.segments[1].batch.received_at_us(), 77);
    }

    #[test]
    fn every_cut_and_every_other_version_is_damage() {
        let bytes = Body::of_frames(&[frame(1, 2), frame(3, 1)], &[]).encode();
        let whole = [1, 1 + HEADER_BYTES + (bytes.len() - 1 - 2 * HEADER_BYTES) * 2 / 3];
        for end in (0..bytes.len()).filter(|end| !whole.contains(end)) {
            assert!(Body::decode(bytes[..end].to_vec()).is_err(), "cut at {end}");
        }
        let mut other = bytes;
        other[0] = 2;
        assert_eq!(Body::decode(other), Err(BodyDamaged { offset: 0 }));
    }
}
