//! How much of what was accepted has been stored: the success of recovery, over everything that an account holds.

use super::Account;

impl Account {
    /// Stored readings, repeats included, divided by those that do not wait any more and that nobody discarded; 1 before the first.
    pub fn success_ratio(&self) -> f64 {
        let good = self.stored + self.duplicate;
        let all = self.settled();
        if all == 0 { 1.0 } else { good as f64 / all as f64 }
    }

    /// Readings that do not wait any more and that nobody discarded.
    pub fn settled(&self) -> u64 {
        self.stored + self.duplicate + self.conflict + self.dead + self.quarantined + self.void + self.lost
    }
}
