//! Whether every position of every lane has a frame, or is told to have none.
//!
//! In: what a scrub finds, segment by segment. Out: positions that are missing without damage that explains them: a backup that was put
//! together wrongly, a file that was exchanged. A crash loses nothing: it is a look.

use super::{
    scan::Found,
    shared::{Damage, SegmentView},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dense {
    /// The position that comes next in each lane; `None` behind damage that does not say which it took.
    next: Vec<Option<u64>>,
    pub(super) missing: Vec<Damage>,
}

impl Dense {
    /// A segment begins.
    pub(super) fn begin(&mut self, view: &SegmentView) {
        let Some(start) = &view.start else { return self.lose() };
        for (lane, state) in start.iter().enumerate() {
            self.expect(lane);
            if let Some(mut at) = self.next[lane] {
                for void in view.voids.iter().filter(|void| usize::from(void.lane) == lane) {
                    self.miss(view.number, lane, at, void.first);
                    at = at.max(void.last + 1);
                }
                self.miss(view.number, lane, at, state.next);
            }
            self.next[lane] = Some(state.next);
        }
    }

    /// Something stands in segment `number`.
    pub(super) fn take(&mut self, number: u64, found: &Found) {
        let frame = match found {
            Found::Frame { frame, .. } => frame,
            Found::Bad(bad) => match &bad.frame {
                Some(frame) => frame,
                None => return self.lose(),
            },
        };
        let lane = usize::from(frame.lane);
        self.expect(lane);
        if let Some(at) = self.next[lane] {
            self.miss(number, lane, at, frame.first);
        }
        self.next[lane] = Some(frame.last() + 1);
    }

    fn expect(&mut self, lane: usize) {
        if self.next.len() <= lane {
            self.next.resize(lane + 1, None);
        }
    }

    fn lose(&mut self) {
        self.next.fill(None);
    }

    fn miss(&mut self, segment: u64, lane: usize, from: u64, to: u64) {
        if from < to {
            let what = "readings without a frame: positions are missing before what stands here";
            let readings = Some((lane as u8, from, to - 1));
            self.missing.push(Damage { segment, offset: 0, bytes: 0, what, quarantine_file: None, readings });
        }
    }
}
