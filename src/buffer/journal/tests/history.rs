//! One random history, and what is known of it. What must come of it says [`super::oracle`]; see [`super::model`].

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    disk::{Faults, ModelDisk, Random},
    model::{Known, Mutant, Said, Verdict, hold},
    new_history_settings,
    random::some_payload,
    shaky::{is_healthy, reopen},
    uuid,
};
use crate::buffer::{
    audit::Audit,
    journal::{AppendError, Log, audit::JournalAudit, open},
};

pub(super) struct History {
    pub(super) random: Random,
    pub(super) disk: ModelDisk,
    pub(super) log: Option<Log<ModelDisk>>,
    pub(super) lanes: usize,
    /// By lane and position of the first reading.
    pub(super) known: Vec<BTreeMap<u64, Known>>,
    /// Cut short once. A bit that flips in what is missing of it may make it look damaged instead, and what stands behind comes out.
    pub(super) dropped: BTreeMap<(usize, u64), Bytes>,
    /// Everything up to here is settled.
    pub(super) floor: Vec<u64>,
    pub(super) next_id: u64,
    pub(super) damages: bool,
    /// Bits flipped, and whether anything worse was done.
    pub(super) flips: u64,
    /// Those of them in the headers of segments.
    pub(super) header_flips: u64,
    pub(super) worse: bool,
    pub(super) mutant: Mutant,
    /// Each step is told, for a person who looks into one history.
    pub(super) tells: bool,
}

impl History {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let lanes = 1 + random.below(2) as usize;
        let damages = match mutant {
            Mutant::None => random.one_in(3),
            other => other == Mutant::SeedIgnored,
        };
        let disk = ModelDisk::new();
        disk.inner().faults =
            Faults { sync_is_a_lie: mutant == Mutant::FileSync, sync_dir_is_a_lie: mutant == Mutant::DirSync, ..Faults::default() };
        let known = vec![BTreeMap::new(); lanes];
        Self {
            random,
            disk,
            log: None,
            lanes,
            known,
            dropped: BTreeMap::new(),
            floor: vec![0; lanes],
            next_id: 1,
            damages,
            flips: 0,
            header_flips: 0,
            worse: false,
            mutant,
            tells: false,
        }
    }

    fn run(&mut self) -> Verdict {
        self.reopen()?;
        for _ in 0..6 + self.random.below(24) {
            self.step()?;
        }
        self.crash(false)?;
        self.check(None)
    }

    fn step(&mut self) -> Verdict {
        let step = self.random.below(if self.damages { 26 } else { 23 });
        if self.tells {
            let lanes: Option<Vec<_>> =
                self.log.as_ref().map(|log| log.lanes().iter().map(|lane| (lane.base, lane.next)).collect());
            let known: Vec<Vec<_>> =
                self.known.iter().map(|all| all.iter().map(|(first, known)| (*first, known.rows, known.said)).collect()).collect();
            eprintln!("step {step}: lanes {lanes:?}, known {known:?}, settled {:?}, flips {}", self.floor, self.flips);
        }
        match step {
            0..=7 => self.append(),
            8..=11 => self.sync(),
            12 => {
                // Dies somewhere in what comes.
                let after = self.random.below(14) as u32;
                self.disk.inner().faults.dies_after = Some(after);
                for _ in 0..1 + self.random.below(4) {
                    match self.random.below(5) {
                        0 => self.trim()?,
                        1 => self.fork()?,
                        2 => self.sync()?,
                        _ => self.append()?,
                    }
                }
                self.sync()?;
                self.crash(true)
            }
            13 => self.crash(false),
            14 => self.trim(),
            15 => self.fork(),
            16 => self.check(None),
            17 => {
                let (kind, count) = (self.random.below(3), 1 + self.random.below(3) as u32);
                {
                    let mut inner = self.disk.inner();
                    match kind {
                        0 => inner.faults.sync = count,
                        1 => inner.faults.write = count,
                        _ => inner.faults.sync_dir = count,
                    }
                }
                self.append()?;
                self.sync()?;
                self.heal();
                Ok(())
            }
            18 => {
                // No room for another segment.
                self.disk.inner().room = 0;
                self.append()?;
                self.append()?;
                if self.random.one_in(4) {
                    self.fork()?;
                    self.append()?;
                }
                self.sync()?;
                self.heal();
                Ok(())
            }
            19 if self.random.one_in(2) => self.close(),
            19 => {
                let Some(log) = &mut self.log else { return Ok(()) };
                let _ = log.prepare();
                Ok(())
            }
            20 | 21 => {
                self.append()?;
                self.sync()
            }
            22 => {
                let Some(log) = &self.log else { return Ok(()) };
                let shared = log.shared();
                let damaged: u64 = shared.segments().into_iter().map(|segment| shared.scrub(segment).damaged).sum();
                hold!(damaged == 0 || self.damages, "a scrub found {damaged} damaged on a disk that is not");
                let of = shared.clone();
                let settled = move |lane: usize| Some((of.lanes()[lane].stream, of.first_retained(lane) - 1));
                let mut audit = JournalAudit::begin(shared, Box::new(settled));
                let found = loop {
                    match audit.step() {
                        Ok(None) => {}
                        Ok(Some(found)) => break Ok(found),
                        Err(cause) => break Err(cause),
                    }
                };
                hold!(
                    self.damages || found.as_ref().is_ok_and(|found| found.absent.is_empty()),
                    "a comparison of what is held ended with {found:?} on a disk that is not damaged"
                );
                Ok(())
            }
            _ => self.damage(),
        }
    }

    fn heal(&mut self) {
        let mut inner = self.disk.inner();
        inner.room = u64::MAX;
        (inner.faults.sync, inner.faults.write, inner.faults.sync_dir) = (0, 0, 0);
    }

    fn append(&mut self) -> Verdict {
        let lane = self.random.below(self.lanes as u64) as usize;
        let rows = 1 + self.random.below(4) as u32;
        let payload = self.payload(lane);
        let Some(log) = &mut self.log else { return Ok(()) };
        let before = log.lanes()[lane];
        match log.append(lane, 1, rows, std::slice::from_ref(&payload)) {
            Ok(appended) => {
                let first = before.base + appended.first_seq;
                hold!(appended.first_seq == before.next_seq(), "numbers have a hole: {appended:?} after {before:?}");
                let said = if self.mutant == Mutant::EarlyAck { Said::Acknowledged } else { Said::Nothing };
                self.forget_unsaid(lane, first);
                let taken = self.known[lane].range(first..).next();
                hold!(taken.is_none(), "given out twice: {first} of lane {lane}, {:?}", taken.map(|taken| taken.1.said));
                self.known[lane].insert(first, Known { rows, payload, said });
                Ok(())
            }
            Err(AppendError::Failed(_)) => self.sync(),
            Err(AppendError::Full | AppendError::DiskFull | AppendError::NoSegment(_)) => Ok(()),
        }
    }

    /// Numbers of which nobody was told may be given out again, by another process than the first.
    pub(super) fn forget_unsaid(&mut self, lane: usize, from: u64) {
        let said = |known: &Known| matches!(known.said, Said::Acknowledged | Said::GivenUp { recorded: true });
        let gone: Vec<u64> = self.known[lane].range(from..).filter(|(_, known)| !said(known)).map(|(first, _)| *first).collect();
        for first in gone {
            if let Some(known) = self.known[lane].remove(&first) {
                self.dropped.insert((lane, first), known.payload);
            }
        }
    }

    fn payload(&mut self, lane: usize) -> Bytes {
        self.next_id += 1;
        let state = self.log.as_ref().map(|log| log.lanes()[lane]);
        some_payload(&mut self.random, self.next_id, lane, state)
    }

    fn sync(&mut self) -> Verdict {
        let Some(log) = &mut self.log else { return Ok(()) };
        if self.disk.inner().faults.dies_after == Some(0) {
            // Whoever is dead tells nobody.
            return Ok(());
        }
        let outcome = log.sync();
        let dead = self.disk.inner().faults.dies_after == Some(0);
        let bases: Vec<u64> = log.lanes().iter().map(|lane| lane.base).collect();
        match outcome {
            Ok(()) => {
                for known in self.known.iter_mut().flat_map(BTreeMap::values_mut).filter(|known| known.said == Said::Nothing) {
                    known.said = Said::Acknowledged;
                }
            }
            // It died on the way.
            Err(_) if dead => {}
            Err(failed) => {
                for (lane, all) in self.known.iter_mut().enumerate() {
                    for (first, known) in all.iter_mut().filter(|(_, known)| known.said == Said::Nothing) {
                        let seq = first - bases[lane];
                        let void = failed.voids.iter().any(|(of, from, to)| *of == lane && (*from..=*to).contains(&seq));
                        known.said = if void { Said::GivenUp { recorded: failed.recorded } } else { Said::Acknowledged };
                    }
                }
            }
        }
        Ok(())
    }

    /// An orderly stop, or one that fails on the way; then another start.
    fn close(&mut self) -> Verdict {
        self.sync()?;
        self.disk.inner().faults.sync = u32::from(self.random.one_in(4));
        let Some(log) = &mut self.log else { return Ok(()) };
        let _ = log.close();
        self.heal();
        self.sync()?;
        self.crash(false)
    }

    fn trim(&mut self) -> Verdict {
        let mut settled = Vec::new();
        let Some(log) = &mut self.log else { return Ok(()) };
        for lane in 0..self.lanes {
            let said = self.known[lane].iter().take_while(|(_, known)| known.said != Said::Nothing);
            let all: Vec<u64> = said.map(|(first, known)| first + u64::from(known.rows) - 1).collect();
            if let Some(last) = all.get(self.random.below(all.len() as u64) as usize) {
                self.floor[lane] = self.floor[lane].max(*last);
            }
            settled.push(self.floor[lane].saturating_sub(log.lanes()[lane].base));
        }
        let _ = log.trim(&settled);
        Ok(())
    }

    fn fork(&mut self) -> Verdict {
        self.sync()?;
        let Some(log) = &mut self.log else { return Ok(()) };
        let lane = self.random.below(self.lanes as u64) as usize;
        let base = log.lanes()[lane].base;
        let from = self.known[lane].keys().filter(|first| **first > self.floor[lane]).nth(self.random.below(3) as usize).copied();
        let from = from.unwrap_or(log.lanes()[lane].next);
        let stream = uuid(&mut self.random);
        let forked = (from > base).then(|| log.fork(lane, from - base, stream));
        if let Some(Err(error)) = &forked {
            hold!(!is_healthy(&self.disk) || self.damages, "a disk that is whole does not take a fork: {error}");
        }
        if matches!(forked, Some(Ok(()))) {
            hold!(log.lanes()[lane].stream == stream && log.lanes()[lane].base == from - 1, "not forked at {from}");
        }
        // Also where it failed: it may have happened, and what was before counts as settled then.
        self.floor[lane] = self.floor[lane].max(from - 1);
        Ok(())
    }

    fn damage(&mut self) -> Verdict {
        let segments = self.disk.segments();
        let Some(name) = segments.get(self.random.below(segments.len() as u64) as usize) else { return Ok(()) };
        let content = self.disk.content(name);
        let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
        match self.random.below(8) {
            0 => {
                self.worse = true;
                self.disk.truncate(name, self.random.below(content.len() as u64 + 1) as usize);
            }
            1 => {
                self.worse = true;
                self.disk.spoil(name, self.random.below(content.len().div_ceil(4096) as u64));
            }
            _ => {
                self.flips += 1;
                // Mostly where the frames are.
                let at = if used > 8192 && !self.random.one_in(5) {
                    8192 + self.random.below(used - 8192)
                } else {
                    self.random.below(used)
                };
                self.header_flips += u64::from(at < 8192);
                if self.tells {
                    eprintln!("  a bit of {name} at {at}, {used} used");
                }
                self.disk.flip(name, at as usize, self.random.below(8) as u8);
            }
        }
        self.crash(false)
    }

    fn crash(&mut self, dead: bool) -> Verdict {
        self.log = None;
        // A process that has died at a change leaves what it wrote; sometimes the power goes with it.
        if self.random.one_in(3) {
            self.disk.kill();
        } else {
            let mut random = self.random.clone();
            self.disk.power_cut(&mut random);
            self.random = random;
        }
        if dead && self.random.one_in(3) {
            // Dies while it opens, too.
            let after = self.random.below(8) as u32;
            self.disk.inner().faults.dies_after = Some(after);
            let mut random = self.random.clone();
            let _ = open(self.disk.clone(), new_history_settings(), &mut || uuid(&mut random), self.lanes);
            self.disk.power_cut(&mut random);
            self.random = random;
        }
        self.reopen()
    }

    fn reopen(&mut self) -> Verdict {
        let mut random = self.random.clone();
        let (shaky, opened) = reopen(&self.disk, &mut random, self.lanes);
        self.random = random;
        if self.tells {
            eprintln!("  opened, the proof fails: {shaky}, {:?}", opened.as_ref().map(|(_, recovered)| recovered));
        }
        let (log, recovered) = opened.map_err(|error| format!("does not open: {error}"))?;
        self.log = Some(log);
        let harmed = self.flips > 0 || self.worse;
        hold!(harmed || shaky || recovered.damage.is_empty(), "damage on a disk that is not damaged: {:?}", recovered.damage);
        if recovered.fresh {
            let told = self.known.iter().flat_map(BTreeMap::values).any(|known| known.said == Said::Acknowledged);
            hold!(self.worse || self.header_flips > 1 || !told, "the whole log is gone");
            // Other streams: numbers begin again, and belong to nobody else.
            self.known.iter_mut().for_each(BTreeMap::clear);
            self.floor.fill(0);
        }
        hold!(harmed || recovered.forked.is_empty(), "forked on a disk that is not damaged: {:?}", recovered.forked);
        self.check(Some(&recovered))
    }
}

/// One history, each step told.
pub(super) fn tell(seed: u64) -> Verdict {
    History { tells: true, ..History::new(seed, Mutant::None) }.run()
}

pub(super) fn run(seed: u64, mutant: Mutant) -> Verdict {
    History::new(seed, mutant).run().map_err(|what| format!("history {seed} with {mutant:?}: {what}"))
}
