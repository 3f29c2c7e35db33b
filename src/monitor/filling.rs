//! How soon something that fills up will be full, from how fast it grew in the last minutes. Pure: looks come in with their time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::Condition;
use crate::domain::alert::Level;

/// What happened longer ago says little about what comes.
const WINDOW: Duration = Duration::from_secs(180);
/// Looks closer together than this are one.
const SPACING: Duration = Duration::from_millis(900);
/// Growth is taken as spread over at least this long.
const SPREAD: Duration = Duration::from_secs(10);
/// An alert opens where it would be full within this.
const HORIZON: Duration = Duration::from_secs(30 * 60);
/// Emptier than this, percent, nothing is urgent, however fast it fills.
const FLOOR: f64 = 10.0;
/// Projected fill, percent, at which the alert is over.
const CLEAR: f64 = 80.0;
/// Looks in a row before an alert opens.
const LOOKS: u32 = 3;
/// Growth that has lasted for some time says something of this many times as long. A build or a copy that writes for ten seconds is not
/// taken for half an hour of it.
const REACH: u32 = 10;
/// An alert that is open stays so for as long after the last look that asked for it.
const CALM: Duration = Duration::from_secs(120);

/// What was seen of one thing in the last minutes, at most one look a second.
#[derive(Debug, Default)]
pub struct Filling {
    looks: VecDeque<(Instant, u64)>,
    used: u64,
    bound: u64,
    /// The last look that asked for an alert, and how much was used then.
    urgent: Option<(Instant, u64)>,
}

impl Filling {
    /// Takes one look into account.
    pub fn look(&mut self, at: Instant, used: u64, bound: u64) {
        (self.used, self.bound) = (used, bound);
        if self.looks.back().is_none_or(|(last, _)| at.saturating_duration_since(*last) >= SPACING) {
            self.looks.push_back((at, used));
        }
        while self.looks.front().is_some_and(|(first, _)| at.saturating_duration_since(*first) > WINDOW) {
            self.looks.pop_front();
        }
        if self.projected() > 100.0 {
            self.urgent = Some((at, used));
        }
    }

    /// Bytes a second since it was emptiest within the window, and for how long that was; 0 where it does not grow.
    fn rate(&self) -> (f64, Duration) {
        // Of equal ones the last: what lies before the growth began would only thin it out.
        let emptiest = |from: usize| (from..self.looks.len()).rev().min_by_key(|at| self.looks[*at].1);
        let Some(mut base) = emptiest(0) else { return (0.0, Duration::ZERO) };
        // What has been fuller since then is being emptied: only what came after that counts.
        if let Some(peak) = (base..self.looks.len()).max_by_key(|at| self.looks[*at].1)
            && self.looks[peak].1 > self.used
        {
            base = emptiest(peak).unwrap_or(base);
        }
        let (since, least) = self.looks[base];
        let lasted = self.looks.back().map_or(Duration::ZERO, |(now, _)| now.saturating_duration_since(since));
        // A journal grows by whole segments: the largest step may have come just now, and is no trend by itself.
        let steps = (base + 1..self.looks.len()).map(|at| self.looks[at].1.saturating_sub(self.looks[at - 1].1));
        let grown = self.used.saturating_sub(least).saturating_sub(steps.max().unwrap_or(0));
        (grown as f64 / lasted.max(SPREAD).as_secs_f64(), lasted)
    }

    fn share(&self, bytes: f64) -> f64 {
        if self.bound == 0 { 0.0 } else { bytes * 100.0 / self.bound as f64 }
    }

    /// How full it will be, percent: at [`HORIZON`], or as far ahead as can be told. What is nearly empty is not urgent.
    fn projected(&self) -> f64 {
        let now = self.share(self.used as f64);
        if now < FLOOR {
            return now;
        }
        let (rate, lasted) = self.rate();
        self.share(self.used as f64 + rate * HORIZON.min(lasted * REACH).as_secs_f64()).min(999.0)
    }

    /// When it is full at this rate; `None` where it does not grow.
    pub fn full_in(&self) -> Option<Duration> {
        let (rate, _) = self.rate();
        let left = self.bound.saturating_sub(self.used) as f64;
        // A year is long enough to be never, and keeps the division within what a duration can hold.
        (rate > 0.0 && left / rate < 365.0 * 86_400.0).then(|| Duration::from_secs_f64(left / rate))
    }

    /// The condition: how full it will be, percent. `then` says what happens and what to do.
    pub fn condition(&self, name: &'static str, subject: &str, what: &'static str, then: &str) -> Condition {
        let cause = self.full_in().map(|left| {
            let (used, bound) = (told(self.used), told(self.bound));
            format!("{what}: {used} of {bound}, full in about {} at the rate of the last minutes; {then}", about(left))
        });
        let projected = self.projected();
        let last = self.looks.back().map(|(at, _)| *at);
        // What has been emptied by a quarter is over at once; a pause of what grows is not yet its end.
        let wary = last
            .zip(self.urgent)
            .is_some_and(|(last, (urgent, used))| last.saturating_duration_since(urgent) < CALM && self.used > used / 4 * 3);
        Condition {
            name,
            subject: subject.into(),
            level: Level::Warning,
            value: if wary { projected.max(CLEAR + 1.0) } else { projected },
            limit: 100.0,
            clear: CLEAR,
            looks: LOOKS,
            what,
            unit: " % in half an hour",
            cause,
        }
    }
}

/// `45 s`, `12 min`, `3 h`.
fn about(time: Duration) -> String {
    match time.as_secs() {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3_600),
    }
}

/// `97.7 GB`: three digits, nobody needs the byte.
fn told(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if size < 999.5 {
            break;
        }
        (size, unit) = (size / 1_000.0, larger);
    }
    let digits = usize::from(size < 99.95) + usize::from(size < 9.995);
    let text = format!("{size:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filling(looks: impl Iterator<Item = u64>) -> Filling {
        let (start, mut filling) = (Instant::now(), Filling::default());
        looks.enumerate().for_each(|(s, used)| filling.look(start + Duration::from_secs(s as u64), used, 1_000_000));
        filling
    }

    #[test]
    fn the_time_left_follows_from_the_rate_since_it_began_to_grow() {
        // Two minutes of nothing, then 1,000 bytes a second.
        let filled = filling((0..120).map(|_| 400_000).chain((1..=60).map(|s| 400_000 + 1_000 * s)));
        // 60 seconds of growth, of which the last step does not count.
        assert_eq!(filled.full_in().map(|left| left.as_secs()), Some(549));
        let condition = filled.condition("journal-filling", "journal", "The journal", "then 503");
        assert!(condition.value > condition.limit, "{condition:?}");
        assert_eq!(
            condition.cause.as_deref(),
            Some("The journal: 460 kB of 1 MB, full in about 9 min at the rate of the last minutes; then 503")
        );
    }

    #[test]
    fn what_does_not_grow_or_shrinks_is_never_full() {
        assert_eq!(filling((0..100).map(|_| 700_000)).full_in(), None);
        assert_eq!(filling((0..100).map(|s| 700_000 - s * 1_000)).full_in(), None);
        let calm = filling((0..100).map(|_| 700_000)).condition("journal-filling", "journal", "The journal", "");
        assert!(calm.value <= calm.clear, "{calm:?}");
    }

    #[test]
    fn one_segment_in_an_empty_journal_alarms_nobody() {
        let condition = filling([0, 0, 64_000, 64_000].into_iter()).condition("journal-filling", "journal", "The journal", "");
        assert!(condition.value <= condition.limit, "{condition:?}");
    }

    #[test]
    fn what_has_been_emptied_again_is_calm_although_it_was_emptier_before() {
        let calm = filling((0..10).map(|_| 125_000).chain((1..=6).map(|n| n * 140_000)).chain((0..10).map(|_| 250_000)));
        assert_eq!(calm.full_in(), None);
        let sawtooth = (0..100).map(|s| 400_000 + if s % 20 < 10 { 0 } else { 125_000 });
        let value = filling(sawtooth).condition("journal-filling", "journal", "The journal", "").value;
        assert!(value <= CLEAR, "{value}");
    }

    #[test]
    fn a_slow_rise_is_no_alarm_until_half_an_hour_before_the_end() {
        let at = |used: u64| filling((0..180).map(|s| used + 100 * s)).condition("journal-filling", "journal", "The journal", "");
        assert!(at(500_000).value < 100.0);
        assert!(at(850_000).value > 100.0);
    }

    #[test]
    fn ten_seconds_of_writing_are_not_taken_for_half_an_hour_of_it() {
        // A disk a quarter full, of which a build takes a thousandth each second, with pauses.
        let burst = |s: u64| if s % 40 < 10 { 1_000 } else { 0 };
        let looks: Vec<u64> = (0..170).scan(250_000, |used, s| Some(std::mem::replace(used, *used + burst(s)))).collect();
        for seconds in 1..looks.len() {
            let condition = filling(looks[..seconds].iter().copied()).condition("disk-filling", "host", "The disk", "");
            assert!(condition.value <= condition.limit, "after {seconds} s: {condition:?}");
        }
    }

    #[test]
    fn what_fills_within_a_minute_is_told_before_it_has() {
        let told = (5..30).find(|s| {
            let condition =
                filling((0..*s).map(|s| 120_000 + 20_000 * s)).condition("journal-filling", "journal", "The journal", "");
            condition.value > condition.limit
        });
        assert!(told.is_some_and(|seconds| seconds < 15), "{told:?}");
    }

    #[test]
    fn a_pause_does_not_end_an_alert_and_two_calm_minutes_do() {
        let after = |calm: u64| {
            let looks = (0..100).map(|s| 500_000 + 1_000 * s).chain((0..calm).map(|_| 599_000));
            filling(looks).condition("disk-filling", "host", "The disk", "")
        };
        assert!(after(0).value > 100.0);
        assert!((100..110).map(after).all(|condition| condition.value > condition.clear));
        let calm = after(310);
        assert!(calm.value <= calm.clear, "{calm:?}");
        let emptied =
            filling((0..100).map(|s| 500_000 + 1_000 * s).chain([40_000])).condition("journal-filling", "journal", "", "");
        assert!(emptied.value <= emptied.clear, "{emptied:?}");
    }

    #[test]
    fn sizes_are_told_in_three_digits() {
        let sizes = [0, 999, 33_554_432, 2_000_000_000, 22_449_000_000, 97_700_000_000, 999_700_000].map(told);
        assert_eq!(sizes, ["0 B", "999 B", "33.6 MB", "2 GB", "22.4 GB", "97.7 GB", "1 GB"]);
    }

    #[test]
    fn memory_is_bounded_however_often_one_looks() {
        let (start, mut filling) = (Instant::now(), Filling::default());
        (0..100_000).for_each(|n| filling.look(start + Duration::from_millis(n * 10), n, 1_000_000));
        assert!(filling.looks.len() <= 201, "{}", filling.looks.len());
    }
}
