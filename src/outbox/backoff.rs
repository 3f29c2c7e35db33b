//! How long to wait before another attempt: doubling, bounded, with jitter so that what failed together does not return together.

use std::time::Duration;

/// The wait after `attempt` attempts (from 1): `base * 2^(attempt-1)`, at most `max`, of which the upper half is random.
pub(super) fn wait(base: Duration, max: Duration, attempt: u32) -> Duration {
    jittered(base.saturating_mul(1_u32 << attempt.saturating_sub(1).min(30)).min(max))
}

/// Half of `wait` for sure, the other half by chance.
fn jittered(wait: Duration) -> Duration {
    wait / 2 + (wait / 2).mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_differ() {
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(60));
        for (attempt, full_s) in [(1, 1), (2, 2), (3, 4), (7, 60), (1_000, 60)] {
            let got = wait(base, max, attempt);
            assert!(got >= Duration::from_secs(full_s) / 2 && got <= Duration::from_secs(full_s), "{attempt}: {got:?}");
        }
        assert_ne!(wait(max, max, 1), wait(max, max, 1));
    }
}
