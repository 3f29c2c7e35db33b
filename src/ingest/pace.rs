//! Admission by rate: how many readings a second are let in, decided at a request's head.
//!
//! In: the length that a sender announced. Out: a claim, or how long to wait. A crash loses the account of the last second.
//!
//! How many readings a body holds is known when it has been parsed, which is the work that a refusal is to save. So a request pays in
//! advance for as many as a body of its length is likely to hold, by the mean of those before, and the difference once they are counted;
//! what was not taken in the end costs nothing. The account is one number, the moment up to which everything is paid for, so that no
//! lock is on the way of a push.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::limits::MAX_ITEMS;

/// What may be let in at once after a quiet time: a second's worth.
const BURST_NS: i64 = 1_000_000_000;
/// Bytes of a reading before any was seen.
const FIRST_MEAN_BYTES: u64 = 128;
/// The mean is kept in sixteenths of a byte, and moves by an eighth of the difference.
const MEAN_SCALE: u64 = 16;
const MEAN_SHARE: u64 = 8;

/// A rate that is kept over all who share it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Account>);

#[derive(Debug)]
struct Account {
    readings_per_s: u32,
    /// Nanoseconds of the caller's clock up to which what was let in is paid for.
    paid_until_ns: AtomicI64,
    mean: AtomicU64,
}

impl Pace {
    /// A rate of `readings_per_s`, at least 1.
    pub fn new(readings_per_s: u32) -> Self {
        let (paid_until_ns, mean) = (AtomicI64::new(i64::MIN / 2), AtomicU64::new(FIRST_MEAN_BYTES * MEAN_SCALE));
        Self(Arc::new(Account { readings_per_s: readings_per_s.max(1), paid_until_ns, mean }))
    }

    /// The rate, readings a second.
    pub fn readings_per_s(&self) -> u32 {
        self.0.readings_per_s
    }

    /// How many readings could be let in at once at `now`; negative while more were than is paid for.
    pub fn room(&self, now: Duration) -> i64 {
        let ahead = nanos(now).saturating_sub(self.0.paid_until_ns.load(Ordering::Acquire)).min(BURST_NS);
        ahead.saturating_mul(i64::from(self.0.readings_per_s)) / BURST_NS
    }

    /// Lets a body of `bytes` in, or says how long it takes until one may come again. A body is let in as long as anything is left of a
    /// second's worth, however large it is: one that is larger than that could never be otherwise, and those behind it wait for longer.
    ///
    /// `now` is the time since any fixed moment, the same at every call.
    ///
    /// # Errors
    /// How long to wait.
    pub fn try_claim(&self, bytes: u64, now: Duration) -> Result<Claim, Duration> {
        let account = &self.0;
        let now_ns = nanos(now);
        let likely = (bytes * MEAN_SCALE / account.mean.load(Ordering::Relaxed).max(1)).clamp(1, u64::from(MAX_ITEMS));
        let cost = account.cost_ns(likely);
        let floor = now_ns - BURST_NS;
        let paid = account.paid_until_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, |until| {
            (until <= now_ns).then(|| until.max(floor).saturating_add(cost))
        });
        match paid {
            Ok(_) => Ok(Claim { account: account.clone(), bytes, paid: likely }),
            Err(until) => Err(Duration::from_nanos(u64::try_from(until - now_ns).unwrap_or(0))),
        }
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Account {
    fn cost_ns(&self, readings: u64) -> i64 {
        i64::try_from(readings * 1_000_000_000 / u64::from(self.readings_per_s)).unwrap_or(i64::MAX)
    }
}

/// What a request has paid in advance; dropped, it is paid back.
#[derive(Debug)]
pub struct Claim {
    account: Arc<Account>,
    bytes: u64,
    paid: u64,
}

impl Claim {
    /// The body has been counted: pays for what it really held.
    pub fn counted(&mut self, readings: u32) {
        let readings = u64::from(readings);
        let difference = self.account.cost_ns(readings) - self.account.cost_ns(self.paid);
        self.account.paid_until_ns.fetch_add(difference, Ordering::AcqRel);
        self.paid = readings;
        if let Some(seen) = (self.bytes * MEAN_SCALE).checked_div(readings) {
            // Two at once may miss one another: the mean is none the worse.
            let mean = self.account.mean.load(Ordering::Relaxed);
            self.account.mean.store((mean * (MEAN_SHARE - 1) + seen) / MEAN_SHARE, Ordering::Relaxed);
        }
    }

    /// The readings were taken.
    pub fn keep(mut self) {
        self.paid = 0;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.paid > 0 {
            self.account.paid_until_ns.fetch_sub(self.account.cost_ns(self.paid), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Pushes of 100 readings in 10,000 bytes, as many as are let in at `now`.
    fn flood(pace: &Pace, now: Duration) -> u32 {
        let mut taken = 0;
        while let Ok(mut claim) = pace.try_claim(10_000, now) {
            claim.counted(100);
            claim.keep();
            taken += 100;
        }
        taken
    }

    #[test]
    fn over_time_it_is_the_rate_that_is_let_in() {
        let pace = Pace::new(1_000);
        let mut taken = 0;
        for tenth in 0..=100 {
            taken += flood(&pace, S + S * tenth / 10);
        }
        // A second's worth at once, ten seconds of the rate, and the last push that is let in on what is left of it.
        assert!((11_000..=11_100).contains(&taken), "{taken}");
    }

    #[test]
    fn who_waits_as_long_as_told_is_let_in() {
        let pace = Pace::new(1_000);
        assert!(flood(&pace, S) >= 1_000);
        let wait = pace.try_claim(10_000, S).expect_err("used up");
        assert!(wait > Duration::ZERO && wait < S, "{wait:?}");
        assert_eq!((pace.room(S), pace.room(S * 9)), (-100, 1_000));
        assert!(pace.try_claim(10_000, S + wait).is_ok());
    }

    #[test]
    fn a_body_larger_than_a_second_passes_and_those_behind_it_wait_for_longer() {
        let pace = Pace::new(100);
        let mut claim = pace.try_claim(1_000_000, S).expect("something is left");
        claim.counted(10_000);
        claim.keep();
        let wait = pace.try_claim(1, S).expect_err("owed").as_secs_f64();
        assert!((98.9..=99.1).contains(&wait), "10,000 at 100 a second, less the second's worth: {wait}");
    }

    #[test]
    fn what_was_not_taken_costs_nothing() {
        let pace = Pace::new(100);
        for _ in 0..1_000 {
            let mut claim = pace.try_claim(100_000, S).expect("paid back");
            claim.counted(1_000);
        }
    }

    #[test]
    fn many_at_once_are_judged_by_what_bodies_of_their_length_held_before() {
        let pace = Pace::new(1_000);
        for second in 1..200 {
            if let Ok(mut claim) = pace.try_claim(10_000, S * second) {
                claim.counted(20);
                claim.keep();
            }
        }
        // None is counted before all have come.
        let claims: Vec<_> = std::iter::from_fn(|| pace.try_claim(10_000, S * 300).ok()).collect();
        assert!((50..=52).contains(&claims.len()), "{} bodies of 20 readings are a second's worth", claims.len());
    }
}
