//! What the anomaly rule finds, and what it costs: `cargo bench --bench anomaly -- [--data DIR] [--sensitivity X] [--warm-up N]`.
//!
//! Three parts. Made-up engines with one fault each, and with none. The cost of a reading. And, where DIR holds files of NASA's C-MAPSS
//! (`train_FD001.txt` and the like; they are not part of this repository), engines that were run to failure: each line is mapped as
//! `belayd simulate --format cmapss` maps it, parsed as a push is, and goes through the same table as in the daemon.
#![allow(clippy::print_stdout)]

mod cmapss;
mod cost;
mod fleet;
mod judge;

use std::{path::PathBuf, sync::Arc, time::Duration};

use belayd::{
    clock::{ArrivalClock, SystemClock},
    config::ReadingsConfig,
    domain::{
        alert::Level,
        anomaly::{AnomalyRule, WARM_UP_DEFAULT},
        batch::Batch,
    },
    ingest::parse::{BodyKind, ParseContext, parse_body},
    sim::sample::Sample,
};

/// The rule that is tried.
fn rule(sensitivity: f64, warm_up: usize) -> AnomalyRule {
    let (level, labels) = (Level::Warning, Default::default());
    AnomalyRule { name: "wear".into(), metrics: Vec::new(), sensitivity, warm_up, level, labels }
}

/// Makes batches of samples as a push does.
struct Pushes {
    limits: ReadingsConfig,
    arrival: ArrivalClock,
    body: Vec<u8>,
}

impl Pushes {
    fn new() -> Self {
        let years = Duration::from_secs(3_600 * 24 * 365 * 50);
        Self {
            limits: ReadingsConfig { max_ahead: years, max_behind: years, ranges: Default::default(), max_engines: 1_000_000 },
            arrival: ArrivalClock::new(Arc::new(SystemClock)),
            body: Vec::new(),
        }
    }

    fn batch(&mut self, samples: &[Sample]) -> Batch {
        self.body.clear();
        for sample in samples {
            sample.write_json(&mut self.body);
            self.body.push(b'\n');
        }
        let parsed =
            parse_body(BodyKind::Ndjson, &self.body, &ParseContext::new(&self.limits, &self.arrival)).expect("valid lines");
        assert_eq!(parsed.batch.len() as usize, samples.len(), "every sample is a valid reading");
        parsed.batch
    }
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut data, mut sensitivity, mut warm_up, mut costs) = (None::<PathBuf>, 1.0, WARM_UP_DEFAULT, true);
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--data" => data = Some(value().into()),
            "--sensitivity" => sensitivity = value().parse().expect("a number"),
            "--warm-up" => warm_up = value().parse().expect("a whole number"),
            "--no-cost" => costs = false,
            _ => panic!("{arg}: known are --data DIR, --sensitivity X, --warm-up N, --no-cost"),
        }
    }
    let rule = rule(sensitivity, warm_up);
    println!("rule: sensitivity {sensitivity}, warm-up {warm_up} readings\n");
    if let Some(dir) = data {
        cmapss::run(&dir, &rule);
    } else {
        println!("no --data DIR: C-MAPSS is left out\n");
    }
    fleet::run(&rule);
    if costs {
        cost::run(&rule);
    }
}
