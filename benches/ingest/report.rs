//! Runs scenarios in interleaved rounds and prints what they came to, beside what was aimed at and what the disk did meanwhile.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use crate::{host, setup::Bench};

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// By which it is asked for.
    pub name: &'static str,
    /// For a person.
    pub what: &'static str,
    /// Whether once is enough: it takes minutes, and averages over them.
    pub once: bool,
    /// Measures. The figures are the same in each round.
    pub run: fn(&mut Bench) -> Vec<Figure>,
}

/// One number.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// What it is, with its unit.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// What it should be.
    pub aim: Aim,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Nothing was promised; it explains others.
    None,
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// At most this, or so many times the disk's fdatasync p50 and a number more where that is more.
    AtMostOnDisk(f64, Sync, f64, f64),
}

/// Which quantile of the disk's fdatasync excuses a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sync {
    /// The median.
    P50,
    /// The 99th percentile.
    P99,
}

/// A figure without an aim.
pub fn plain(name: &'static str, value: f64) -> Figure {
    Figure { name, value, aim: Aim::None }
}

/// A figure with one.
pub fn aimed(name: &'static str, value: f64, aim: Aim) -> Figure {
    Figure { name, value, aim }
}

impl Aim {
    /// The bound in words and whether `value` keeps it. `disk` is fdatasync p50 and p99.
    fn judge(self, value: f64, disk: (Duration, Duration)) -> Option<(String, bool)> {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        match self {
            Self::None => None,
            Self::AtLeast(bound) => Some((format!(">= {}", number(bound)), value >= bound)),
            Self::AtMost(bound) => Some((format!("<= {}", number(bound)), value <= bound)),
            Self::AtMostOnDisk(bound, quantile, times, more) => {
                let disk = if quantile == Sync::P50 { ms(disk.0) } else { ms(disk.1) };
                let bound = bound.max(times * disk + more);
                Some((format!("<= {}", number(bound)), value <= bound))
            }
        }
    }
}

/// What one round of a scenario came to.
#[derive(Clone, Debug)]
struct Round {
    figures: Vec<Figure>,
    /// fdatasync p50 and p99 just before.
    disk: (Duration, Duration),
    /// Cores that programs took which have nothing to do with it: a figure from a busy machine says little.
    others: f64,
}

/// Runs `scenarios` and prints their table.
pub fn run(bench: &mut Bench, scenarios: &[&Scenario]) {
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); scenarios.len()];
    for round in 0..bench.options.rounds {
        for (scenario, rounds) in scenarios.iter().zip(&mut rounds) {
            if round > 0 && scenario.once {
                continue;
            }
            let disk = host::fdatasync(Duration::from_secs(1));
            let (started, busy, ours) = (Instant::now(), host::busy(), bench.cpu());
            // One that fails is told of and leaves the others their turn.
            let Ok(figures) = catch_unwind(AssertUnwindSafe(|| (scenario.run)(bench))) else {
                println!("{} FAILED in round {}", scenario.name, round + 1);
                continue;
            };
            let others = (host::busy() - busy).saturating_sub(bench.cpu().saturating_sub(ours));
            let others = others.as_secs_f64() / started.elapsed().as_secs_f64();
            eprintln!("round {}: {} took {:.0} s", round + 1, scenario.name, started.elapsed().as_secs_f64());
            for figure in &figures {
                eprintln!("    {}: {}", figure.name, number(figure.value));
            }
            rounds.push(Round { figures, disk, others });
        }
    }
    println!(
        "\n| scenario | figure | median | lowest to highest | aim | | fdatasync p50, p99 | cores taken by others |\n|---|---|---|---|---|---|---|---|"
    );
    for (scenario, rounds) in scenarios.iter().zip(&rounds) {
        print(scenario, rounds);
    }
}

fn print(scenario: &Scenario, rounds: &[Round]) {
    let Some(first) = rounds.first() else { return };
    let mut disks: Vec<_> = rounds.iter().map(|round| round.disk).collect();
    disks.sort();
    let disk = disks[disks.len() / 2];
    let mut others: Vec<f64> = rounds.iter().map(|round| round.others).collect();
    others.sort_by(f64::total_cmp);
    let others = others[others.len() / 2];
    for (at, figure) in first.figures.iter().enumerate() {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.figures.get(at)).map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        let range = match values.as_slice() {
            [_] => String::new(),
            values => format!("{} to {}", number(values[0]), number(values[values.len() - 1])),
        };
        let (aim, kept) = match figure.aim.judge(median, disk) {
            Some((aim, true)) => (aim, "kept"),
            Some((aim, false)) => (aim, "MISSED"),
            None => (String::new(), ""),
        };
        let disk = format!("{:.2} ms, {:.2} ms", disk.0.as_secs_f64() * 1e3, disk.1.as_secs_f64() * 1e3);
        println!("| {} | {} | {} | {range} | {aim} | {kept} | {disk} | {others:.2} |", scenario.name, figure.name, number(median));
    }
}

/// A number as a person reads it: thousands apart, and no more digits than it has meaning.
pub fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
