//! How fast small pushes come, for the commit thread. Beside the work that a large one brings, a sync for each group costs little.
//!
//! In: how many small pushes each group held. Out: whether gathering more of them pays. A crash loses nothing that matters.

use std::time::{Duration, Instant};

/// Pushes a second between which gathering pays: below, a sync each is cheap; above, groups form while the sync before is under way, and
/// waiting would hold up senders who wait for their answer before they send again.
const GATHER_BETWEEN: (f64, f64) = (1_000.0, 8_000.0);
/// How often the rate of pushes is taken.
const RATE_EVERY: Duration = Duration::from_millis(20);

/// How many pushes come, as a decaying mean.
pub(super) struct Rate {
    per_s: f64,
    counted: usize,
    since: Instant,
}

impl Rate {
    pub(super) fn new() -> Self {
        Self { per_s: 0.0, counted: 0, since: Instant::now() }
    }

    pub(super) fn count(&mut self, pushes: usize) {
        self.counted += pushes;
        let took = self.since.elapsed();
        if took >= RATE_EVERY {
            let now = self.counted as f64 / took.as_secs_f64();
            // Four periods to follow, so that one burst decides nothing.
            self.per_s += (now - self.per_s) / 4.0;
            self.counted = 0;
            self.since = Instant::now();
        }
    }

    pub(super) fn pays_to_gather(&self) -> bool {
        (GATHER_BETWEEN.0..GATHER_BETWEEN.1).contains(&self.per_s)
    }
}
