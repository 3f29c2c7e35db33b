//! When a recorded reading is due: the file's own time, faster or slower.

use std::{str::FromStr, time::Duration};

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As fast as the other side takes it.
    Max,
    /// So many seconds of the file in one second; above 0.
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Self::Max),
            Ok(0.0) => Ok(Self::Max),
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            _ => Err("give a number above 0 (1 = as recorded, 10 = ten times as fast), or max".to_owned()),
        }
    }
}

/// Adds up the gaps between readings. A step back in time (the next engine's recording begins) is no gap: it is due at once.
#[derive(Clone, Debug)]
pub struct Pacer {
    speed: Speed,
    last_us: Option<i64>,
    due: Duration,
}

impl Pacer {
    /// Begins at zero.
    pub fn new(speed: Speed) -> Self {
        Self { speed, last_us: None, due: Duration::ZERO }
    }

    /// Begins at zero again.
    pub fn restart(&mut self) {
        (self.last_us, self.due) = (None, Duration::ZERO);
    }

    /// When this reading is due, after the start. Asking twice for the same reading adds nothing.
    pub fn due(&mut self, observed_at_us: i64) -> Duration {
        if let (Speed::Times(times), Some(last_us)) = (self.speed, self.last_us) {
            let gap_s = observed_at_us.saturating_sub(last_us).max(0) as f64 / 1e6 / times;
            // A gap of centuries (a file with a broken clock) is as good as for ever.
            self.due = self.due.saturating_add(Duration::try_from_secs_f64(gap_s).unwrap_or(Duration::MAX));
        }
        self.last_us = Some(observed_at_us);
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_played_at_the_speed_and_steps_back_at_once() {
        let mut pacer = Pacer::new(Speed::Times(10.0));
        let due: Vec<u128> = [5_000_000, 6_000_000, 6_000_000, 1_000_000, 3_000_000].map(|at| pacer.due(at).as_millis()).into();
        assert_eq!(due, [0, 100, 100, 100, 300]);
        let mut max = Pacer::new(Speed::Max);
        assert!([0, i64::MAX, i64::MIN, 7].iter().all(|&at| max.due(at).is_zero()));
        let mut slow = Pacer::new(Speed::Times(1e-300));
        slow.due(i64::MIN);
        assert_eq!(slow.due(i64::MAX), Duration::MAX);
        assert_eq!(slow.due(i64::MAX), Duration::MAX);
    }

    #[test]
    fn a_speed_is_a_positive_number_or_max() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("0".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for bad in ["-1", "inf", "NaN", "fast", ""] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }
}
