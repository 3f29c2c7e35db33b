//! A quota: so many requests a minute for each key, as a bucket that fills evenly and holds a minute's worth. Pure: the time is given.
//!
//! What is kept for a key is one number, the moment at which its bucket is full again; a key whose bucket is full needs none.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// What a full bucket holds, in time: a minute's worth.
const MINUTE_NS: u64 = 60_000_000_000;

/// How a key stands after it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that would be let in right now.
    pub remaining: u32,
    /// Until the bucket is full again.
    pub reset: Duration,
    /// Where it was refused: until one request would be let in.
    pub wait: Option<Duration>,
}

/// The buckets of all keys, at most a fixed number of them.
///
/// Where another key needs room, those whose bucket is full are forgotten, which changes nothing for them; where there is none, the one
/// that is nearest to it. So whoever floods with ever new keys gives a few of their own requests back, and nobody who is over the limit
/// is let off before all others.
#[derive(Debug)]
pub struct Buckets<K> {
    full_at_ns: HashMap<K, u64>,
    most: usize,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// For at most `most` keys, at least 1.
    pub fn new(most: usize) -> Self {
        Self { full_at_ns: HashMap::new(), most: most.max(1) }
    }

    /// Takes one request out of the bucket of `key`, or says how long to wait. `per_minute` may change from call to call, and is at least 1;
    /// `now` is the time since any fixed moment, the same at every call.
    pub fn take(&mut self, key: &K, per_minute: u32, now: Duration) -> Standing {
        let limit = per_minute.max(1);
        let step_ns = MINUTE_NS / u64::from(limit);
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        // A higher rate than before may have left more than a minute's worth to fill.
        let owed_ns = self.full_at_ns.get(key).map_or(0, |at| at.saturating_sub(now_ns)).min(MINUTE_NS);
        let after_ns = owed_ns + step_ns;
        if after_ns > MINUTE_NS {
            let wait = Some(Duration::from_nanos(after_ns - MINUTE_NS));
            return Standing { limit, remaining: 0, reset: Duration::from_nanos(owed_ns), wait };
        }
        if !self.full_at_ns.contains_key(key) {
            self.make_room(now_ns);
        }
        self.full_at_ns.insert(key.clone(), now_ns.saturating_add(after_ns));
        let remaining = u32::try_from((MINUTE_NS - after_ns) / step_ns.max(1)).unwrap_or(u32::MAX).min(limit - 1);
        Standing { limit, remaining, reset: Duration::from_nanos(after_ns), wait: None }
    }

    fn make_room(&mut self, now_ns: u64) {
        if self.full_at_ns.len() < self.most {
            return;
        }
        self.full_at_ns.retain(|_, at| *at > now_ns);
        if self.full_at_ns.len() >= self.most
            && let Some(nearest) = self.full_at_ns.iter().min_by_key(|(_, at)| **at).map(|(key, _)| key.clone())
        {
            self.full_at_ns.remove(&nearest);
        }
    }

    /// How many keys are kept.
    pub fn len(&self) -> usize {
        self.full_at_ns.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.full_at_ns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_minutes_worth_passes_at_once_and_then_one_at_a_time() {
        let mut buckets = Buckets::new(10);
        for left in (0..6).rev() {
            let standing = buckets.take(&"a", 6, S);
            assert_eq!((standing.limit, standing.remaining, standing.wait), (6, left, None));
        }
        let refused = buckets.take(&"a", 6, S);
        assert_eq!((refused.remaining, refused.wait, refused.reset), (0, Some(S * 10), S * 60));
        assert_eq!(buckets.take(&"b", 6, S).remaining, 5, "every key has its own");
        assert_eq!(buckets.take(&"a", 6, S * 10).wait, Some(S));
        assert_eq!(buckets.take(&"a", 6, S * 11).wait, None, "who waits as long as told is let in");
        assert_eq!(buckets.take(&"a", 6, S * 200).remaining, 5, "full again");
    }

    #[test]
    fn a_rate_that_changes_holds_from_the_next_request_on() {
        let mut buckets = Buckets::new(10);
        for _ in 0..6 {
            buckets.take(&1, 6, S);
        }
        assert!(buckets.take(&1, 6, S).wait.is_some());
        assert_eq!(buckets.take(&1, 600, S * 2).remaining, 9, "a second at the new rate, less this one");
    }

    #[test]
    fn at_the_bound_full_buckets_go_first_and_then_the_fullest() {
        let mut buckets = Buckets::new(3);
        for _ in 0..60 {
            buckets.take(&1, 60, S);
        }
        buckets.take(&2, 60, S);
        buckets.take(&3, 60, S);
        buckets.take(&4, 60, S * 2);
        assert_eq!(buckets.len(), 2, "2 and 3 were full again");
        buckets.take(&5, 60, S * 2);
        buckets.take(&6, 60, S * 2);
        assert_eq!(buckets.len(), 3);
        assert_eq!(buckets.take(&1, 60, S * 2).remaining, 0, "who has used most is kept");
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_than_the_rate_and_a_minutes_worth_is_let_in(
            per_minute in 1u32..5_000, gaps_ms in proptest::collection::vec(0u64..5_000, 1..400)
        ) {
            let (mut buckets, mut now, mut taken) = (Buckets::new(1), S, 0u64);
            for gap in gaps_ms {
                now += Duration::from_millis(gap);
                let standing = buckets.take(&(), per_minute, now);
                taken += u64::from(standing.wait.is_none());
                if let Some(wait) = standing.wait {
                    let mut later = Buckets { full_at_ns: buckets.full_at_ns.clone(), most: 1 };
                    prop_assert!(later.take(&(), per_minute, now + wait).wait.is_none());
                }
                prop_assert!(standing.remaining < standing.limit);
            }
            let allowed = f64::from(per_minute) * (1.0 + (now - S).as_secs_f64() / 60.0) + 1.0;
            prop_assert!(taken as f64 <= allowed, "{taken} of {allowed}");
        }
    }
}
