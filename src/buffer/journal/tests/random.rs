//! Numbers and payloads for histories.

use bytes::Bytes;

use super::counterfeit;
use crate::buffer::journal::LaneState;

/// Numbers from a seed: the same history every time.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// Sometimes empty, sometimes with runs of zeros, sometimes with what would pass for a frame if checksums knew no place.
pub(super) fn some_payload(random: &mut Random, id: u64, lane: usize, state: Option<LaneState>) -> Bytes {
    let mut bytes = id.to_le_bytes().to_vec();
    match random.below(8) {
        0 => bytes.resize(8 + random.below(2000) as usize, 0),
        1 | 2 => {
            if let Some(state) = state {
                bytes.extend_from_slice(&counterfeit(lane, &state));
            }
        }
        _ => {
            for _ in 0..random.below(90) {
                bytes.extend_from_slice(&random.next().to_le_bytes());
            }
            bytes.truncate(bytes.len() - random.below(8) as usize);
        }
    }
    bytes.into()
}
