//! What must come out of the log after all that has happened to it. See [`super::model`].

use std::time::Duration;

use super::{
    history::History,
    model::{Known, Said, Verdict, hold},
};
use crate::buffer::journal::{GapKind, Item, LaneReader, Log, Recovered, disk::Disk};

impl History {
    /// Reads everything that is durable and compares.
    pub(super) fn check(&mut self, recovered: Option<&Recovered>) -> Verdict {
        let Some(shared) = self.log.as_ref().map(Log::shared) else { return Ok(()) };
        let harmed = self.flips > 0 || self.worse;
        let states = shared.lanes();
        let mut lost_frames = 0;
        for (lane, state) in states.into_iter().enumerate().take(self.lanes) {
            let mut reader = LaneReader::new(shared.clone(), lane);
            let mut at = None;
            let (mut missing, mut there) = (Vec::new(), Vec::new());
            let mut forks = recovered.iter().flat_map(|recovered| &recovered.forked);
            let forked = forks.find(|fork| fork.lane == lane);
            // What was given up says the header of the segment behind, and nothing else: a cut that takes the whole of it takes that along.
            let forgotten = self.worse && forked.is_some_and(|fork| fork.end_lost);
            let mut tries = 0;
            let mut next = || loop {
                match reader.next() {
                    // Asked again until it counts as damage.
                    Err(_) if self.worse && tries < 1_000 => self.disk.wait(Duration::from_secs(1)),
                    other => return other,
                }
                tries += 1;
            };
            while let Some(item) = next().map_err(|error| format!("cannot be read: {error}"))? {
                let (first, last) = match &item {
                    Item::Frame { first_seq, rows, .. } => (state.base + first_seq, state.base + first_seq + u64::from(*rows) - 1),
                    Item::Gap { first_seq, last_seq, .. } => (state.base + first_seq, state.base + last_seq),
                };
                hold!(at.is_none_or(|at| at + 1 == first), "lane {lane}: {first} comes after {at:?}");
                if at.is_none() {
                    // A first segment of which nothing is left is a gap that the database's cursor tells of.
                    hold!(
                        self.worse || first <= self.floor[lane] + 1,
                        "lane {lane} begins with {first}, only {} is settled",
                        self.floor[lane]
                    );
                }
                at = Some(last);
                match item {
                    Item::Frame { rows, payload, .. } => match self.known[lane].get(&first) {
                        None => {
                            let unsaid = harmed && self.dropped.get(&(lane, first)) == Some(&payload);
                            hold!(unsaid || last <= self.floor[lane], "lane {lane}: {first} was never appended");
                            if unsaid {
                                self.known[lane].insert(first, Known { rows, payload, said: Said::Acknowledged });
                            }
                        }
                        Some(known) => {
                            hold!(known.rows == rows && known.payload == payload, "lane {lane}: {first} is another one");
                            hold!(
                                known.said != (Said::GivenUp { recorded: true }) || forgotten,
                                "lane {lane}: {first} was given up and comes out"
                            );
                            there.push(first);
                        }
                    },
                    Item::Gap { kind, .. } => {
                        for (first, known) in
                            self.known[lane].range(first.max(self.floor[lane] + 1)..(last + 1).max(self.floor[lane] + 1).max(first))
                        {
                            let void = matches!(known.said, Said::GivenUp { .. });
                            hold!(kind != GapKind::Void || void, "lane {lane}: {first} is void and was {:?}", known.said);
                            if !void {
                                missing.push(*first);
                            }
                            hold!(harmed || void, "lane {lane}: a gap at {first} ({:?}), and nothing was damaged", known.said);
                        }
                        hold!(
                            harmed || kind == GapKind::Void || last <= self.floor[lane],
                            "lane {lane}: quarantined, and nothing was damaged"
                        );
                    }
                }
            }
            lost_frames += missing.len() as u64;
            let end = at.map_or(state.next - 1, |at| at);
            hold!(end + 1 == state.next, "lane {lane}: reading ends at {end}, the lane at {}", state.next - 1);
            let beyond = self.known[lane].range(state.next..).find(|(first, known)| {
                **first > self.floor[lane] && matches!(known.said, Said::Acknowledged | Said::GivenUp { recorded: true })
            });
            hold!(
                beyond.is_none() || forked.is_some(),
                "lane {lane}: {:?} is gone from the end ({})",
                beyond.map(|known| known.0),
                state.next
            );
            if recovered.is_some() {
                // What nobody was told of is gone, or there to stay.
                if forked.is_some() {
                    self.known[lane].split_off(&state.next);
                }
                self.forget_unsaid(lane, state.next);
                for first in there {
                    if let Some(known) = self.known[lane].get_mut(&first) {
                        known.said = Said::Acknowledged;
                    }
                }
            }
        }
        hold!(self.worse || lost_frames <= self.flips, "{} flipped bits cost {lost_frames} frames", self.flips);
        Ok(())
    }
}
