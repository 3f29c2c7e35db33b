//! Made-up engines: several kinds of noise, and one fault each in a metric drawn by lot, or none.

use std::sync::Arc;

use belayd::{
    domain::anomaly::AnomalyRule,
    ingest::engines::EngineTable,
    sim::{dice::Dice, sample::Sample},
};

use crate::Pushes;

const ENGINES: usize = 20;
const READINGS: usize = 1_000;
/// The fault begins here; all of an engine's time counts for false alarms where it has none.
const FAULT_AT: usize = 500;
/// Readings within which a fault must be told.
const SOON: usize = 200;
/// 2025-01-01T00:00:00Z
const START_US: i64 = 1_735_689_600_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Noise {
    /// Independent, bell-shaped.
    White,
    /// Each reading hangs on the one before, correlation 0.9.
    Slow,
    /// White, rounded to whole standard deviations.
    Stepped,
    /// White around six operating points that come in any order.
    Regimes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Step(f64),
    /// Standard deviations a reading.
    Drift(f64),
    /// One reading out of 50, this far off.
    Spike(f64),
    Noise(f64),
    Stuck,
    /// Every metric drifts, standard deviations a reading.
    Wear(f64),
}

pub(crate) fn run(rule: &AnomalyRule) {
    use Fault::{Drift, None, Spike, Step, Stuck, Wear};
    println!(
        "made-up engines: {ENGINES} each of 4, 12 and 30 metrics, {READINGS} readings, the fault at {FAULT_AT}, in sd of the metric"
    );
    println!("told: within {SOON} readings of its begin; false: alerts begun before it, a 1,000 readings after the warm-up");
    print!("{:<12}", "fault");
    for noise in [Noise::White, Noise::Slow, Noise::Stepped, Noise::Regimes] {
        print!("{:>26}", format!("{noise:?}"));
    }
    println!();
    let faults =
        [None, Step(5.0), Step(-8.0), Drift(0.1), Drift(-0.3), Spike(10.0), Spike(100.0), Fault::Noise(4.0), Stuck, Wear(0.03)];
    for fault in faults {
        print!("{:<12}", format!("{fault:?}"));
        for noise in [Noise::White, Noise::Slow, Noise::Stepped, Noise::Regimes] {
            print!("{:>26}", try_all(rule, noise, fault));
        }
        println!();
    }
    println!();
}

fn try_all(rule: &AnomalyRule, noise: Noise, fault: Fault) -> String {
    let (mut told, mut starts, mut delay, mut readings, mut engines) = (0, 0, Vec::new(), 0, 0);
    for (kind, metrics) in [4, 12, 30].into_iter().enumerate() {
        for seed in 0..ENGINES {
            let begun = live(rule, metrics, noise, fault, (seed + kind * 1_000) as u64);
            let until = if fault == Fault::None { READINGS } else { FAULT_AT };
            starts += begun.iter().filter(|at| **at < until).count();
            readings += until - rule.warm_up;
            let first = begun.iter().find(|at| (FAULT_AT..FAULT_AT + SOON).contains(*at));
            told += usize::from(first.is_some());
            delay.extend(first.map(|at| at - FAULT_AT));
            engines += 1;
        }
    }
    delay.sort_unstable();
    let wrong = 1000.0 * starts as f64 / readings as f64;
    if fault == Fault::None {
        return format!("false {wrong:.2}");
    }
    let median = delay.get(delay.len() / 2).map_or("-".to_owned(), |at| at.to_string());
    format!("told {:.0} %, after {median}, {wrong:.2}", 100.0 * told as f64 / engines as f64)
}

/// The readings at which alerts began.
fn live(rule: &AnomalyRule, metrics: usize, noise: Noise, fault: Fault, seed: u64) -> Vec<usize> {
    let mut dice = Dice::new(seed);
    let table = EngineTable::with_anomalies(&[], std::slice::from_ref(rule), 10, Vec::new(), Vec::new());
    let mut pushes = Pushes::new();
    let names: Vec<Arc<str>> = (0..metrics).map(|metric| Arc::from(format!("m{metric:02}"))).collect();
    // A level and a scale of its own for each metric, and for each operating point.
    let levels: Vec<f64> = (0..metrics).map(|_| dice.between(-500.0, 2_000.0)).collect();
    let scales: Vec<f64> = (0..metrics).map(|_| 10f64.powf(dice.between(-3.0, 2.0))).collect();
    let points: Vec<Vec<f64>> = (0..6).map(|_| (0..metrics).map(|_| dice.between(-300.0, 300.0)).collect()).collect();
    let faulty = dice.index(metrics);
    let (mut before, mut held) = (vec![0.0; metrics], 0.0);
    let samples: Vec<Sample> = (0..READINGS)
        .map(|at| {
            let point = dice.index(points.len());
            let since = at.saturating_sub(FAULT_AT) as f64;
            let on = at >= FAULT_AT;
            let extra = (0..metrics)
                .map(|metric| {
                    let mut z = dice.noise(1.0);
                    if noise == Noise::Slow {
                        z = 0.9 * before[metric] + 0.19f64.sqrt() * z;
                        before[metric] = z;
                    }
                    let hit = metric == faulty;
                    match fault {
                        Fault::Step(step) if on && hit => z += step,
                        Fault::Drift(slope) if on && hit => z += slope * since,
                        Fault::Wear(slope) if on => z += slope * since * if metric % 2 == 0 { 1.0 } else { -1.0 },
                        Fault::Spike(far) if on && hit && at % 50 == 0 => z += far,
                        Fault::Noise(times) if on && hit => z *= times,
                        _ => {}
                    }
                    if noise == Noise::Stepped {
                        z = z.round();
                    }
                    let level = levels[metric] + if noise == Noise::Regimes { points[point][metric] * scales[metric] } else { 0.0 };
                    let mut value = level + z * scales[metric];
                    if hit && fault == Fault::Stuck {
                        if on {
                            value = held;
                        }
                        held = value;
                    }
                    (names[metric].clone(), value)
                })
                .collect();
            Sample { engine_id: "e".into(), observed_at_us: START_US + at as i64 * 1_000_000, extra, ..Sample::default() }
        })
        .collect();
    let mut begun = Vec::new();
    for (at, sample) in samples.iter().enumerate() {
        let transitions = table.observe(&pushes.batch(std::slice::from_ref(sample)));
        begun.extend(transitions.iter().filter(|transition| transition.firing).map(|_| at));
    }
    begun
}
