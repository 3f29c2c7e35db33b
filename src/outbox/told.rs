//! Which sends have a line of their own in the log. Tens of thousands a second would drown everything else, and cost more than the sends:
//! so many a second are told one by one, the others are counted and told together.
//!
//! A crash loses the count of at most a second; every send stands in its delivery.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Lines a second.
const LINES: u32 = 100;

/// See the module.
#[derive(Debug)]
pub(super) struct Told {
    lines: AtomicU32,
    untold: AtomicU64,
}

impl Default for Told {
    fn default() -> Self {
        Self { lines: AtomicU32::new(LINES), untold: AtomicU64::new(0) }
    }
}

impl Told {
    /// Whether the next send has a line.
    pub(super) fn has_line(&self) -> bool {
        let has = self.lines.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if !has {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        has
    }

    /// Once a second: tells of those without a line.
    pub(super) fn tick(&self) {
        self.lines.store(LINES, Ordering::Relaxed);
        let untold = self.untold.swap(0, Ordering::Relaxed);
        if untold > 0 {
            log::info!(target: "belayd::outbox", deliveries = untold; "more deliveries sent, too many to tell one by one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_have_a_line_and_the_others_are_counted() {
        let told = Told::default();
        assert_eq!((0..250).filter(|_| told.has_line()).count(), 100);
        assert_eq!(told.untold.load(Ordering::Relaxed), 150);
        told.tick();
        assert_eq!((told.has_line(), told.untold.load(Ordering::Relaxed)), (true, 0));
    }
}
