//! Chance that can be thrown again: everything random in the campaign comes from one seed.

/// SplitMix64: small, and good enough to choose moments and places.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice of `seed` for the part of the campaign that `part` names.
    pub fn new(seed: u64, part: u64) -> Self {
        Self(mix(seed ^ mix(part)))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// True once in `n` throws.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Spreads a number over 64 bits.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
