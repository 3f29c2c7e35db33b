//! A gap of the journal that Redis fills: numbers that the database has not, because it was destroyed or put back, and that the journal holds
//! no more, or damaged.
//!
//! In: the gap as the journal tells it. Out: frames with its numbers from Redis, in order, and smaller gaps for what Redis has not either. A
//! crash loses nothing: the cursor then stands in the gap, and the rest of it is a gap again. While Redis cannot be read the lane waits, at
//! most [`PATIENCE`]; after that the numbers are passed over as they would be without Redis.

use std::time::{Duration, Instant};

use crate::{
    buffer::{
        Frame, Gap, GapKind, Work,
        journal::frame::gap_chain,
        redis::{again::entries_from, core::Core, entry::Entry, link::LinkError},
    },
    domain::receipt::StreamId,
};

/// How long a gap waits for a Redis that is away.
const PATIENCE: Duration = Duration::from_secs(600);
/// Entries that are asked for at once: 256 kB each at most.
const COUNT: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Fill {
    gap: Gap,
    /// The first number that is still to be had.
    next: u64,
    chain: u64,
    /// Since when Redis has been away.
    away: Option<Instant>,
}

impl Fill {
    pub(super) fn new(gap: Gap) -> Self {
        Self { gap, next: gap.first_seq, chain: gap.chain_before, away: None }
    }

    /// Everything was handed out.
    pub(super) fn is_done(&self) -> bool {
        self.next > self.gap.last_seq
    }

    /// What comes next.
    pub(super) fn next(&mut self, core: &Core, stream: StreamId) -> Work {
        let read = if core.is_readable() { self.read(core, stream) } else { Err(LinkError::ours("io", "Redis is away")) };
        match read {
            Ok(entries) => {
                self.away = None;
                self.hand_out(entries)
            }
            Err(cause) => {
                core.order_give_up(cause);
                let since = *self.away.get_or_insert_with(Instant::now);
                if since.elapsed() < PATIENCE { Work::Nothing } else { self.pass_over(self.gap.last_seq, self.gap.kind, None) }
            }
        }
    }

    fn read(&self, core: &Core, stream: StreamId) -> Result<Vec<Entry>, LinkError> {
        let key = core.keys.stream(stream);
        entries_from(&mut core.settings.server.connect(&key)?, &key, self.next, COUNT)
    }

    fn hand_out(&mut self, entries: Vec<Entry>) -> Work {
        let mut frames: Vec<Frame> = Vec::new();
        for entry in entries {
            match entry {
                Entry::Whole(frame) if frame.first_seq == self.next && frame.last_seq() <= self.gap.last_seq => {
                    let frame = Frame { chain_before: self.chain, ..frame };
                    (self.next, self.chain) = (frame.last_seq() + 1, frame.chain);
                    frames.push(frame);
                }
                _ if !frames.is_empty() => break,
                Entry::Whole(frame) if frame.first_seq > self.next => {
                    let last = (frame.first_seq - 1).min(self.gap.last_seq);
                    let chain = (last < self.gap.last_seq).then_some(frame.chain_before);
                    return self.pass_over(last, self.gap.kind, chain);
                }
                Entry::Void { first_seq, last_seq } if first_seq <= self.next => {
                    return self.pass_over(last_seq.min(self.gap.last_seq), GapKind::Void, None);
                }
                Entry::Void { first_seq, .. } => {
                    return self.pass_over((first_seq - 1).min(self.gap.last_seq), self.gap.kind, None);
                }
                Entry::Damaged { last_seq } => {
                    return self.pass_over(last_seq.min(self.gap.last_seq), GapKind::Quarantined, None);
                }
                // Begins before what is wanted, or ends behind it: framed otherwise, so of another history.
                _ => break,
            }
        }
        if frames.is_empty() { self.pass_over(self.gap.last_seq, self.gap.kind, None) } else { Work::Frames(frames) }
    }

    /// Redis has not got the numbers up to `last_seq` either. `chain`: what follows starts from it.
    fn pass_over(&mut self, last_seq: u64, kind: GapKind, chain: Option<u64>) -> Work {
        let (first_seq, chain_before) = (self.next, self.chain);
        let whole = first_seq == self.gap.first_seq && last_seq == self.gap.last_seq;
        let chain = if last_seq == self.gap.last_seq {
            self.gap.chain
        } else {
            chain.unwrap_or_else(|| gap_chain(chain_before, first_seq, last_seq))
        };
        let numbers = last_seq + 1 - first_seq;
        let acknowledged = match kind {
            // Nobody had been told of them.
            GapKind::Void => 0,
            _ if whole => self.gap.acknowledged,
            _ => numbers,
        };
        (self.next, self.chain) = (last_seq + 1, chain);
        Work::Gap(Gap { first_seq, last_seq, kind, acknowledged, chain_before, chain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{batch::BatchBuilder, reading::ReadingRef};

    fn frame(first_seq: u64, rows: u32, chain_before: u64, chain: u64) -> Frame {
        let mut builder = BatchBuilder::default();
        for n in 0..rows {
            builder.push(&ReadingRef {
                engine_id: "e",
                observed_at_us: i64::from(n),
                status: None,
                temperature: Some(1.0),
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: None,
            });
        }
        Frame { first_seq, batch: builder.finish(0), chain_before, chain }
    }

    fn gap() -> Gap {
        Gap { first_seq: 11, last_seq: 30, kind: GapKind::Lost, acknowledged: 20, chain_before: 7, chain: 99 }
    }

    #[test]
    fn what_redis_has_is_handed_out_and_only_the_rest_is_a_gap() {
        let mut fill = Fill::new(gap());
        let there =
            vec![Entry::Whole(frame(14, 5, 70, 71)), Entry::Whole(frame(19, 2, 71, 72)), Entry::Whole(frame(31, 5, 98, 100))];
        let Work::Gap(first) = fill.hand_out(there.clone()) else { panic!("a gap before the first entry") };
        assert_eq!((first.first_seq, first.last_seq, first.acknowledged, first.chain_before, first.chain), (11, 13, 3, 7, 70));
        let Work::Frames(frames) = fill.hand_out(there.clone()) else { panic!("frames") };
        assert_eq!(
            frames.iter().map(|frame| (frame.first_seq, frame.chain_before, frame.chain)).collect::<Vec<_>>(),
            [(14, 70, 71), (19, 71, 72)]
        );
        let Work::Gap(rest) = fill.hand_out(there[2..].to_vec()) else { panic!("the rest") };
        assert_eq!((rest.first_seq, rest.last_seq, rest.chain_before, rest.chain), (21, 30, 72, 99), "what follows begins at 99");
        assert!(fill.is_done());
    }

    #[test]
    fn numbers_that_were_given_up_were_acknowledged_to_nobody() {
        let mut fill = Fill::new(gap());
        let there = vec![Entry::Void { first_seq: 9, last_seq: 12 }, Entry::Whole(frame(13, 18, 50, 99))];
        let Work::Gap(void) = fill.hand_out(there.clone()) else { panic!("a gap") };
        assert_eq!((void.first_seq, void.last_seq, void.kind, void.acknowledged), (11, 12, GapKind::Void, 0));
        assert!(matches!(fill.hand_out(there[1..].to_vec()), Work::Frames(frames) if frames[0].last_seq() == 30));
        assert!(fill.is_done());
        let mut nothing = Fill::new(gap());
        assert!(matches!(nothing.hand_out(Vec::new()), Work::Gap(all) if all == gap()), "as the journal told it");
    }
}
