//! What a reading costs in the table: without rules, with two threshold rules, and with an anomaly rule beside or alone.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use belayd::{
    domain::{
        alert::Level,
        anomaly::AnomalyRule,
        batch::Batch,
        rule::{Op, Rule},
    },
    ingest::engines::EngineTable,
    sim::{dice::Dice, sample::Sample},
};

use crate::Pushes;

const ENGINES: usize = 200;
/// How long one form is measured in one round.
const TURN: Duration = Duration::from_millis(100);
const ROUNDS: usize = 9;
/// 2025-01-01T00:00:00Z
const START_US: i64 = 1_735_689_600_000_000;

struct Form {
    name: String,
    table: EngineTable,
    batches: Vec<Batch>,
    at: usize,
    costs: Vec<f64>,
}

fn batches(further: usize, count: usize) -> Vec<Batch> {
    let (mut dice, mut pushes) = (Dice::new(7), Pushes::new());
    let names: Vec<Arc<str>> = (0..further).map(|n| Arc::from(format!("s{n:02}"))).collect();
    (0..count)
        .map(|at| {
            let samples: Vec<Sample> = (0..ENGINES)
                .map(|engine| Sample {
                    engine_id: format!("engine-{engine:03}"),
                    observed_at_us: START_US + at as i64 * 1_000_000,
                    temperature: Some(300.0 + dice.noise(2.0)),
                    rpm: Some(4_000.0 + dice.noise(30.0)),
                    pressure: Some(28.0 + dice.noise(0.2)),
                    fuel_flow: Some(1.2 + dice.noise(0.01)),
                    extra: names.iter().map(|name| (name.clone(), 500.0 + dice.noise(1.0))).collect(),
                    ..Sample::default()
                })
                .collect();
            pushes.batch(&samples)
        })
        .collect()
}

/// CPU time of this thread, so that a busy neighbour counts less than it would by the clock.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which writes nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

pub(crate) fn run(rule: &AnomalyRule) {
    let threshold = |name: &str, metric: &str, threshold| Rule {
        name: name.into(),
        metric: metric.into(),
        op: Op::Above,
        threshold,
        clear: None,
        for_us: 0,
        level: Level::Critical,
        labels: Default::default(),
    };
    let thresholds = [threshold("overheat", "temperature", 350.0), threshold("overspeed", "rpm", 8_000.0)];
    let (named, many) = (batches(0, 2_000), batches(23, 500));
    let mut forms = Vec::new();
    for (readings, of) in [(&named, "4 metrics"), (&many, "4 + 23 metrics")] {
        for (rules, anomalies, with) in [
            (&[][..], &[][..], "no rule"),
            (&thresholds[..], &[][..], "2 threshold rules"),
            (&thresholds[..], std::slice::from_ref(rule), "the same and an anomaly rule"),
        ] {
            forms.push(Form {
                name: format!("{of}, {with}"),
                table: EngineTable::with_anomalies(rules, anomalies, 1_000, Vec::new(), Vec::new()),
                batches: readings.clone(),
                at: 0,
                costs: Vec::new(),
            });
        }
    }
    // The first pass over the batches learns; times must rise, so a table sees each batch once and is then made anew.
    for _ in 0..ROUNDS {
        for form in &mut forms {
            let (begun, begun_ns, mut readings) = (Instant::now(), cpu_ns(), 0usize);
            while begun.elapsed() < TURN && form.at < form.batches.len() {
                black_box(form.table.observe(&form.batches[form.at]));
                form.at += 1;
                readings += ENGINES;
            }
            if readings > 0 && form.at > 2 * rule.warm_up {
                form.costs.push((cpu_ns() - begun_ns) as f64 / readings as f64);
            }
        }
    }
    println!("CPU time of a reading in the table, {ENGINES} engines in pushes of {ENGINES}, median of turns:");
    for form in &mut forms {
        form.costs.sort_unstable_by(f64::total_cmp);
        let median = form.costs.get(form.costs.len() / 2).copied().unwrap_or(f64::NAN);
        let bytes = form.table.detector_bytes() / ENGINES;
        println!("  {:<46} {median:7.0} ns, {bytes} bytes of detector an engine", form.name);
    }
}
