//! Random numbers for the model.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

/// Random numbers that are the same on every host and in every release: the generator and what is made of it are pinned here.
#[derive(Debug)]
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// By a seed.
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Evenly within [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        // The upper 53 bits fill a double's mantissa exactly.
        let unit = (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }

    /// One of `count`, from 0.
    pub fn index(&mut self, count: usize) -> usize {
        (self.between(0.0, count as f64) as usize).min(count.saturating_sub(1))
    }

    /// Bell-shaped with this standard deviation, never beyond 3.5 of it (sum of four even numbers, Irwin-Hall).
    pub fn noise(&mut self, deviation: f64) -> f64 {
        let bits = self.0.next_u64();
        let sum: u32 = (0..4).map(|part| u32::from((bits >> (16 * part)) as u16)).sum();
        (f64::from(sum) / f64::from(u16::MAX) - 2.0) * 3f64.sqrt() * deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_within_their_bounds_and_noise_has_its_deviation() {
        let mut dice = Dice::new(7);
        assert!((0..10_000).all(|_| (2.0..3.0).contains(&dice.between(2.0, 3.0)) && dice.index(3) < 3));
        let noise: Vec<f64> = (0..10_000).map(|_| dice.noise(2.0)).collect();
        assert!(noise.iter().all(|value| value.abs() <= 7.0));
        let deviation = (noise.iter().map(|value| value * value).sum::<f64>() / 10_000.0).sqrt();
        assert!((1.9..2.1).contains(&deviation), "{deviation}");
    }

    #[test]
    fn a_seed_means_the_same_numbers_in_every_release() {
        let mut dice = Dice::new(42);
        let first: Vec<u64> = (0..3).map(|_| dice.between(0.0, 1e6) as u64).collect();
        assert_eq!(first, [814_305, 318_821, 983_894]);
    }
}
