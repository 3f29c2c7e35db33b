//! One part of the campaign while it runs: how often, for how long, what was counted and what was found.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{compare::Verdict, dice::Dice, world::World};

/// Failures after which a part is given up: what comes then says nothing new.
const FAILURES_MAX: usize = 5;

/// What all parts share.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Everything random follows from it.
    pub seed: u64,
    /// All of it, and not the short round.
    pub long: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it does, for the report.
    pub about: &'static str,
    /// Faults committed.
    pub done: u64,
    /// How many were asked for.
    pub wanted: u64,
    /// What was counted, by its name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Times until fresh readings passed after a fault.
    pub recoveries: Vec<Duration>,
    /// What was found.
    pub failures: Vec<String>,
    /// What else the report says.
    pub notes: Vec<String>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
    /// How long it took.
    pub took: Duration,
    started: Instant,
    told: Instant,
    limit: Duration,
    bar: ProgressBar,
    /// A trial whose failures are wished for: they are not told of, and nothing is kept.
    quiet: bool,
}

impl Part {
    /// A part that commits `wanted` faults within `limit`.
    pub fn new(name: &'static str, about: &'static str, wanted: u64, limit: Duration) -> Self {
        let bar = ProgressBar::new(wanted);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>10} {bar:30} {pos}/{len} {elapsed} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        Self {
            name,
            about,
            done: 0,
            wanted,
            counts: BTreeMap::new(),
            recoveries: Vec::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            left_out: Vec::new(),
            took: Duration::ZERO,
            started: Instant::now(),
            told: Instant::now(),
            limit,
            bar,
            quiet: false,
        }
    }

    /// A trial within this part whose failures are wished for.
    pub fn trial(&self, wanted: u64, limit: Duration) -> Self {
        let mut trial = Self::new(self.name, self.about, wanted, limit);
        trial.bar = ProgressBar::hidden();
        trial.quiet = true;
        trial
    }

    /// Dice for one history of this part.
    pub fn dice(&self, campaign: &Campaign, history: u64) -> Dice {
        let name = self.name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        Dice::new(campaign.seed, name << 20 | history)
    }

    /// Whether there is more to do.
    pub fn goes_on(&self) -> bool {
        self.done < self.wanted && self.started.elapsed() < self.limit && !self.is_given_up()
    }

    /// Whether somebody ends it early, or it has found enough, or lasts far longer than it should.
    pub fn is_given_up(&self) -> bool {
        let found = self.failures.len() >= FAILURES_MAX || self.started.elapsed() > self.limit * 2;
        found || super::INTERRUPTED.load(Ordering::Relaxed)
    }

    /// One fault was committed.
    pub fn fault(&mut self, kind: &'static str) {
        self.done += 1;
        self.count(kind, 1);
        self.bar.inc(1);
        // Where there is no terminal, a line a minute says that it lives.
        if self.bar.is_hidden() && !self.quiet && self.told.elapsed() > Duration::from_secs(60) {
            self.told = Instant::now();
            println!("{}: {} of {} after {} s", self.name, self.done, self.wanted, self.started.elapsed().as_secs());
        }
    }

    /// Adds to a figure of the report.
    pub fn count(&mut self, what: &'static str, more: u64) {
        *self.counts.entry(what).or_default() += more;
    }

    /// What a comparison came to.
    pub fn compared(&mut self, verdict: &Verdict) {
        self.count("readings acknowledged", verdict.acknowledged);
        self.count("readings stored", verdict.stored);
        self.count("comparisons", 1);
    }

    /// Something was found. The directory is kept.
    pub fn failed(&mut self, what: String, world: Option<&World>) {
        if self.quiet {
            self.failures.push(what);
            return;
        }
        let kept =
            world.and_then(|world| world.keep(&format!("{}-{}", self.name, std::process::id() as usize + self.failures.len())));
        let kept = kept.map(|path| format!("\nkept: {}", path.display())).unwrap_or_default();
        let text = format!("{} after {} faults: {what}{kept}", self.name, self.done);
        self.bar.suspend(|| println!("FOUND {text}"));
        self.failures.push(text);
    }

    /// Does something that may panic; a panic and an error are failures.
    pub fn attempt(&mut self, what: &str, act: impl FnOnce(&mut Self) -> Result<(), String>) {
        let result = catch_unwind(AssertUnwindSafe(|| act(self)));
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failed(format!("{what}: {error}"), None),
            Err(panic) => self.failed(format!("{what}: {}", said(panic.as_ref())), None),
        }
    }

    /// The part is over.
    pub fn finish(&mut self) {
        self.took = self.started.elapsed();
        self.bar.finish_and_clear();
        println!(
            "{}: {} of {} in {:.0} s, {} failures, {:?}",
            self.name,
            self.done,
            self.wanted,
            self.took.as_secs_f64(),
            self.failures.len(),
            self.counts
        );
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_else(|| "a panic".into())
}
