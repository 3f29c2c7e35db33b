//! The model as a source: what is due by now is computed when somebody asks.
//!
//! The newest readings are kept in a window, so that the same answer can be asked for again: 60 s of them, at most 32 MB. What is
//! older falls out; a poller that stays away for longer misses it, is told how many in `X-Missed`, and goes on with the oldest
//! that are there. Time that nobody asked about for long is skipped, not computed: the engines stood still.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    answer::{ANSWER_MAX_BYTES, ANSWER_MAX_ROWS, Answer, ArrayWriter},
    model::{Fleet, FleetOptions},
};

const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Readings computed for one request at most; it bounds how long one takes.
const CATCH_UP_MAX_ROWS: u64 = 200_000;

/// A fleet and its newest readings. A position counts moments.
#[derive(Debug)]
pub struct LiveFeed {
    fleet: Fleet,
    started: Instant,
    /// One array for each moment, oldest first; the last one is the latest state.
    window: VecDeque<Bytes>,
    window_bytes: usize,
    writer: ArrayWriter,
}

impl LiveFeed {
    /// A feed whose first moment is now.
    pub fn new(options: FleetOptions, now: Instant) -> Self {
        let mut feed = Self {
            fleet: Fleet::new(options),
            started: now,
            window: VecDeque::new(),
            window_bytes: 0,
            writer: ArrayWriter::default(),
        };
        feed.advance(now);
        feed
    }

    /// The latest reading of each engine.
    pub fn latest(&mut self, now: Instant) -> Bytes {
        self.advance(now);
        self.window.back().cloned().unwrap_or_else(|| Bytes::from_static(b"[]"))
    }

    /// What came since `position` (`None`: all that is kept), and how many readings had fallen out before.
    pub fn after(&mut self, position: Option<u64>, now: Instant) -> (Answer, u64) {
        self.advance(now);
        let engines = u64::from(self.fleet.options().engines);
        let next_tick = self.fleet.tick();
        let oldest = next_tick - self.window.len() as u64;
        let asked = position.unwrap_or(oldest).min(next_tick);
        let from = asked.max(oldest);
        let mut joined = BytesMut::new();
        let mut rows = 0;
        let moments = self.window.iter().skip((from - oldest) as usize);
        let taken = moments.take_while(|moment| {
            let fits = rows == 0 || (rows + engines <= ANSWER_MAX_ROWS && joined.len() + moment.len() <= ANSWER_MAX_BYTES);
            if fits {
                joined.put_u8(if rows == 0 { b'[' } else { b',' });
                // Without its own brackets.
                joined.put_slice(&moment[1..moment.len() - 1]);
                rows += engines;
            }
            fits
        });
        let next = from + taken.count() as u64;
        joined.put_slice(if rows == 0 { b"[]" } else { b"]" });
        (Answer { from, next, rows, body: joined.freeze() }, (from - asked) * engines)
    }

    fn advance(&mut self, now: Instant) {
        let options = *self.fleet.options();
        let elapsed_s = now.saturating_duration_since(self.started).as_secs_f64();
        // The moment at zero is due at once, so there is always a latest state.
        let due = (elapsed_s * options.rate_hz) as u64 + 1;
        let kept = ((WINDOW.as_secs_f64() * options.rate_hz) as u64).max(1);
        let most = kept.min(CATCH_UP_MAX_ROWS / u64::from(options.engines)).max(1);
        if due.saturating_sub(self.fleet.tick()) > most {
            // Positions count moments without a gap, so what was before the skip cannot stay.
            self.window.clear();
            self.window_bytes = 0;
            self.fleet.skip_to(due - most);
        }
        while self.fleet.tick() < due {
            self.fleet.next_moment(|sample| self.writer.push(sample));
            let moment = self.writer.finish();
            self.window_bytes += moment.len();
            self.window.push_back(moment);
            while self.window.len() as u64 > kept || (self.window_bytes > WINDOW_MAX_BYTES && self.window.len() > 1) {
                self.window_bytes -= self.window.pop_front().map_or(0, |moment| moment.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: FleetOptions = FleetOptions { engines: 3, rate_hz: 2.0, seed: 1, start_us: 1_700_000_000_000_000 };

    fn rows(body: &[u8]) -> Vec<serde_json::Value> {
        serde_json::from_slice(body).expect("an array")
    }

    fn later(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_latest_state_is_one_reading_of_each_engine() {
        let start = Instant::now();
        let mut feed = LiveFeed::new(OPTIONS, start);
        assert_eq!(rows(&feed.latest(start)).len(), 3);
        let latest = rows(&feed.latest(later(start, 1_700)));
        assert_eq!(latest.len(), 3);
        assert_eq!(latest[0]["timestamp"], "2023-11-14T22:13:21.500000Z");
    }

    #[test]
    fn the_same_cursor_gives_the_same_readings_again_and_the_next_one_the_rest() {
        let start = Instant::now();
        let mut feed = LiveFeed::new(OPTIONS, start);
        let (first, missed) = feed.after(None, later(start, 2_000));
        assert_eq!((first.from, first.next, first.rows, missed), (0, 5, 15, 0));
        let (again, _) = feed.after(Some(0), later(start, 2_000));
        assert_eq!(first, again);
        let (rest, missed) = feed.after(Some(first.next), later(start, 3_000));
        assert_eq!((rest.rows, missed), (6, 0));
        assert_eq!(rows(&rest.body)[0]["timestamp"], "2023-11-14T22:13:22.500000Z");
        let (none, _) = feed.after(Some(rest.next), later(start, 3_000));
        assert_eq!((none.rows, none.next, &none.body[..]), (0, rest.next, &b"[]"[..]));
    }

    #[test]
    fn what_falls_out_of_the_window_is_counted_and_the_rest_goes_on() {
        let start = Instant::now();
        let mut feed = LiveFeed::new(OPTIONS, start);
        feed.after(None, start);
        let (answer, missed) = feed.after(Some(1), later(start, 100_000));
        assert_eq!(answer.next, 201);
        assert_eq!(answer.rows, 120 * 3);
        assert_eq!(missed, (answer.from - 1) * 3);
        // A cursor from a longer run of the same feed cannot ask for the future.
        assert_eq!(feed.after(Some(u64::MAX), later(start, 100_000)).0.next, 201);
    }

    #[test]
    fn an_answer_is_bounded_and_nothing_is_left_out_between_two() {
        let start = Instant::now();
        let mut feed = LiveFeed::new(FleetOptions { engines: 100, rate_hz: 50.0, ..OPTIONS }, start);
        let now = later(start, 10_000);
        let (mut position, mut total) = (0, 0);
        loop {
            let (answer, missed) = feed.after(Some(position), now);
            assert!(answer.rows <= ANSWER_MAX_ROWS && missed == 0 && answer.from == position);
            if answer.rows == 0 {
                break;
            }
            total += rows(&answer.body).len();
            position = answer.next;
        }
        assert_eq!(total, 501 * 100);
    }
}
