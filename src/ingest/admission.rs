//! Admission in bytes: how much of request bodies may be in the works at once, decided before a byte is parsed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A budget of bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission {
    bound: u64,
    in_use: Arc<AtomicU64>,
}

impl Admission {
    /// A budget of `bound` bytes.
    pub fn new(bound: u64) -> Self {
        Self { bound, in_use: Arc::new(AtomicU64::new(0)) }
    }

    /// Takes `bytes` out of the budget, or nothing where that would exceed it. A single request larger than the whole budget is
    /// admitted when nothing else is in the works, since it could never be otherwise.
    pub fn try_admit(&self, bytes: u64) -> Option<Permit> {
        let admitted = self.in_use.fetch_update(Ordering::AcqRel, Ordering::Acquire, |in_use| {
            (in_use == 0 || in_use.saturating_add(bytes) <= self.bound).then_some(in_use + bytes)
        });
        admitted.ok().map(|_| Permit { bytes, in_use: self.in_use.clone() })
    }

    /// Bytes in the works.
    pub fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Acquire)
    }

    /// The bound.
    pub fn bound(&self) -> u64 {
        self.bound
    }
}

/// Bytes taken out of the budget; dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    bytes: u64,
    in_use: Arc<AtomicU64>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_kept_and_given_back() {
        let admission = Admission::new(100);
        let first = admission.try_admit(60);
        assert!(first.is_some());
        assert!(admission.try_admit(41).is_none());
        let second = admission.try_admit(40);
        assert!(second.is_some());
        drop(first);
        assert_eq!(admission.in_use(), 40);
        drop(second);
        assert_eq!(admission.in_use(), 0);
    }

    #[test]
    fn a_request_larger_than_the_budget_passes_alone() {
        let admission = Admission::new(100);
        let large = admission.try_admit(1_000);
        assert!(large.is_some());
        assert!(admission.try_admit(1).is_none());
    }
}
