//! A fleet of engines that do not exist, the same for the same seed.
//!
//! Each engine goes through idle, climb and cruise. One command (0 idle to 1 climb) drives the shaft speed through a first-order
//! lag; all else follows from the speed, so that the metrics move together as they do on a real machine:
//!
//! - pressure rise grows with the square and fuel flow with the cube of the speed (affinity laws of turbomachines: S. L. Dixon,
//!   C. A. Hall, "Fluid Mechanics and Thermodynamics of Turbomachinery", chapter 2: head ~ N², power ~ N³);
//! - exhaust temperature follows the square of the speed with the slower lag of metal; oil follows slower still;
//! - wear rises over hours until an overhaul: hotter, thirstier, rougher (the direction in which C-MAPSS engines age).
//!
//! The sizes are those of a small turbofan as a gauge shows it, not of a certain type. Without a fault no value comes near the
//! default limits: temperature stays below 330 (limit 350, clear 340), rpm below 7,200 (limit 8,000). [`faults`](super::faults)
//! breaks them now and then. Noise is bounded, so "stays below" is a fact, not a likelihood.

use std::sync::Arc;

use super::{
    dice::Dice,
    faults::{FaultPlan, Sensor},
    sample::Sample,
};

/// Most engines of one fleet: one moment of all of them still fits into one push or answer.
pub const ENGINES_MAX: u32 = 10_000;

const RPM_IDLE: f64 = 2_400.0;
const RPM_CLIMB: f64 = 7_000.0;
const CRUISE_COMMAND: f64 = 0.7;
/// Time constants in seconds.
const SPEED_LAG_S: f64 = 1.5;
const METAL_LAG_S: f64 = 4.0;
const OIL_LAG_S: f64 = 40.0;
/// Hours of running from new to overhaul.
const LIFE_H: f64 = 20.0;

/// What kind of fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FleetOptions {
    /// 1 to [`ENGINES_MAX`].
    pub engines: u32,
    /// Readings of each engine a second, above 0.
    pub rate_hz: f64,
    /// The same seed gives the same readings.
    pub seed: u64,
    /// Time of the first reading, microseconds since the epoch.
    pub start_us: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Climb,
    Cruise,
}

impl Phase {
    fn command(self) -> f64 {
        match self {
            Self::Idle => 0.0,
            Self::Climb => 1.0,
            Self::Cruise => CRUISE_COMMAND,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Idle => Self::Climb,
            Self::Climb => Self::Cruise,
            Self::Cruise => Self::Idle,
        }
    }

    fn lasts_s(self, dice: &mut Dice) -> f64 {
        match self {
            Self::Idle => dice.between(20.0, 40.0),
            Self::Climb => dice.between(15.0, 30.0),
            Self::Cruise => dice.between(45.0, 90.0),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Climb => "climb",
            Self::Cruise => "cruise",
        }
    }
}

/// The state of one engine between two moments.
#[derive(Debug)]
struct Engine {
    id: String,
    phase: Phase,
    phase_left_s: f64,
    command: f64,
    metal: f64,
    oil: f64,
    /// 0 new to 1 due for overhaul.
    wear: f64,
    wear_per_s: f64,
}

impl Engine {
    fn new(id: String, dice: &mut Dice) -> Self {
        let phase = [Phase::Idle, Phase::Climb, Phase::Cruise][dice.index(3)];
        let lasts_s = phase.lasts_s(dice);
        Self {
            id,
            phase,
            phase_left_s: dice.between(0.0, lasts_s),
            command: phase.command(),
            metal: phase.command(),
            oil: phase.command(),
            wear: dice.between(0.0, 0.8),
            wear_per_s: dice.between(0.7, 1.3) / (LIFE_H * 3600.0),
        }
    }

    fn step(&mut self, dt_s: f64, dice: &mut Dice) {
        self.phase_left_s -= dt_s;
        if self.phase_left_s <= 0.0 {
            self.phase = self.phase.next();
            self.phase_left_s = self.phase.lasts_s(dice);
        }
        let follow = |value: &mut f64, target: f64, lag_s: f64| *value += (target - *value) * (1.0 - (-dt_s / lag_s).exp());
        follow(&mut self.command, self.phase.command(), SPEED_LAG_S);
        follow(&mut self.metal, self.command, METAL_LAG_S);
        follow(&mut self.oil, self.metal, OIL_LAG_S);
        self.wear += self.wear_per_s * dt_s;
        if self.wear >= 1.0 {
            self.wear = 0.0;
        }
    }
}

/// Engines, moment by moment.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    tick: u64,
    engines: Vec<Engine>,
    faults: FaultPlan,
    dice: Dice,
    sample: Sample,
    vibration: Arc<str>,
    oil_temperature: Arc<str>,
}

impl Fleet {
    /// A fleet at its first moment. Options beyond their range are brought into it.
    pub fn new(mut options: FleetOptions) -> Self {
        options.engines = options.engines.clamp(1, ENGINES_MAX);
        options.rate_hz = options.rate_hz.clamp(0.001, 100_000.0);
        let mut dice = Dice::new(options.seed);
        let digits = options.engines.to_string().len().max(2);
        let engines = (1..=options.engines).map(|n| Engine::new(format!("engine-{n:0digits$}"), &mut dice)).collect();
        Self {
            faults: FaultPlan::new(options.engines as usize, &mut dice),
            options,
            tick: 0,
            engines,
            dice,
            sample: Sample::default(),
            vibration: "vibration".into(),
            oil_temperature: "oilTemperature".into(),
        }
    }

    /// What it was made of, in range.
    pub fn options(&self) -> &FleetOptions {
        &self.options
    }

    /// Number of the next moment, from 0.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// When the nth moment is, in seconds after the first.
    pub fn seconds_at(&self, tick: u64) -> f64 {
        tick as f64 / self.options.rate_hz
    }

    /// Leaves out moments up to `tick`: time passes, the engines stand still. For a fleet that nobody looked at.
    pub fn skip_to(&mut self, tick: u64) {
        self.tick = self.tick.max(tick);
    }

    /// Gives one reading of each engine at the next moment and moves on.
    pub fn next_moment(&mut self, mut take: impl FnMut(&Sample)) {
        let now_s = self.seconds_at(self.tick);
        let dt_s = if self.tick == 0 { 0.0 } else { 1.0 / self.options.rate_hz };
        let observed_at_us = self.options.start_us.saturating_add((now_s * 1e6) as i64);
        self.faults.step(now_s, &mut self.dice);
        for index in 0..self.engines.len() {
            self.engines[index].step(dt_s, &mut self.dice);
            self.measure(index, now_s);
            self.sample.observed_at_us = observed_at_us;
            take(&self.sample);
        }
        self.tick += 1;
    }

    fn measure(&mut self, index: usize, now_s: f64) {
        let (engine, dice) = (&self.engines[index], &mut self.dice);
        let effect = self.faults.effect(index, now_s);
        let rpm = toward(RPM_IDLE + (RPM_CLIMB - RPM_IDLE) * engine.command, effect.rpm_peak, effect.strength);
        let speed = rpm / RPM_CLIMB;
        let metal_speed = (RPM_IDLE + (RPM_CLIMB - RPM_IDLE) * engine.metal) / RPM_CLIMB;
        let normal_temperature = 120.0 + 180.0 * metal_speed.powi(2) + 15.0 * engine.wear;
        let temperature = toward(normal_temperature, effect.temperature_peak, effect.strength) + dice.noise(1.0);
        let pressure = 1.0 + 14.0 * speed.powi(2) - 0.4 * engine.wear + dice.noise(0.05);
        let fuel_flow = (150.0 + 850.0 * speed.powi(3)) * (1.0 + 0.04 * engine.wear) + dice.noise(4.0);
        let vibration = 1.5 + 1.5 * speed.powi(4) + 2.0 * engine.wear + dice.noise(0.1);
        let oil_temperature = 60.0 + 45.0 * engine.oil + 5.0 * engine.wear + dice.noise(0.3);
        let sample = &mut self.sample;
        sample.clear();
        sample.engine_id.push_str(&engine.id);
        let lost = |sensor| effect.lost == Some(sensor);
        sample.temperature = (!lost(Sensor::Temperature)).then_some(round(temperature, 100.0));
        sample.rpm = Some(round(rpm + dice.noise(12.0), 10.0));
        sample.pressure = (!lost(Sensor::Pressure)).then_some(round(pressure, 1000.0));
        sample.fuel_flow = (!lost(Sensor::FuelFlow)).then_some(round(fuel_flow, 100.0));
        sample.extra.push((Arc::clone(&self.vibration), round(vibration, 1000.0)));
        sample.extra.push((Arc::clone(&self.oil_temperature), round(oil_temperature, 100.0)));
        sample.status = Some(if effect.lost.is_some() { "sensor-fault" } else { engine.phase.as_str() }.to_owned());
    }
}

/// Between `normal` and `peak` by `strength` (0 to 1); a peak that is lower than normal pulls nothing down.
fn toward(normal: f64, peak: Option<f64>, strength: f64) -> f64 {
    peak.map_or(normal, |peak| normal + (peak - normal).max(0.0) * strength)
}

/// To a whole part of 1 / `parts`: a gauge has few digits.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(options: FleetOptions, moments: usize) -> Vec<Sample> {
        let mut fleet = Fleet::new(options);
        let mut samples = Vec::new();
        for _ in 0..moments {
            fleet.next_moment(|sample| samples.push(sample.clone()));
        }
        samples
    }

    const OPTIONS: FleetOptions = FleetOptions { engines: 6, rate_hz: 1.0, seed: 42, start_us: 1_700_000_000_000_000 };

    #[test]
    fn the_same_seed_gives_the_same_readings_and_another_seed_others() {
        assert_eq!(run(OPTIONS, 50), run(OPTIONS, 50));
        assert_ne!(run(OPTIONS, 50), run(FleetOptions { seed: 43, ..OPTIONS }, 50));
    }

    #[test]
    fn under_the_default_rules_an_alert_opens_within_ten_seconds_and_again_and_every_one_clears() {
        for seed in 0..20 {
            let mut hot = std::collections::HashMap::new();
            let (mut opened, mut first_s) = (0, None);
            for sample in run(FleetOptions { seed, ..OPTIONS }, 600) {
                let breach = sample.temperature.is_some_and(|t| t > 350.0) || sample.rpm.is_some_and(|rpm| rpm > 8_000.0);
                let clear = sample.temperature.is_some_and(|t| t <= 340.0) && sample.rpm.is_some_and(|rpm| rpm <= 8_000.0);
                let open = hot.entry(sample.engine_id.clone()).or_insert(None);
                let at_s = (sample.observed_at_us - OPTIONS.start_us) / 1_000_000;
                if breach && open.is_none() {
                    opened += 1;
                    first_s.get_or_insert(at_s);
                    *open = Some(at_s);
                } else if let (true, Some(since)) = (clear, *open) {
                    assert!(at_s - since <= 30, "seed {seed}: {} s", at_s - since);
                    *open = None;
                }
            }
            assert!(first_s.is_some_and(|s| s <= 8), "seed {seed}: {first_s:?}");
            assert!((6..=40).contains(&opened), "seed {seed}: {opened} in ten minutes");
        }
    }

    #[test]
    fn without_a_fault_every_value_stays_well_below_the_limits_for_a_whole_life() {
        // One reading in 10 s for 40 h: two lives of an engine. Faults are short, so most moments have none.
        let samples = run(FleetOptions { engines: 2, rate_hz: 0.1, ..OPTIONS }, 14_400);
        let high =
            samples.iter().filter(|s| s.temperature.is_some_and(|t| t > 335.0) || s.rpm.is_some_and(|rpm| rpm > 7_200.0)).count();
        assert!(high * 5 < samples.len(), "{high} of {}", samples.len());
        let mut calm = Fleet::new(FleetOptions { engines: 2, rate_hz: 0.1, ..OPTIONS });
        calm.faults = FaultPlan::none();
        for _ in 0..14_400 {
            calm.next_moment(|sample| {
                assert!(sample.temperature.is_some_and(|t| (100.0..330.0).contains(&t)), "{sample:?}");
                assert!(sample.rpm.is_some_and(|rpm| (2_000.0..7_200.0).contains(&rpm)), "{sample:?}");
                assert!(sample.pressure.is_some_and(|p| p > 1.0) && sample.fuel_flow.is_some_and(|f| f > 100.0), "{sample:?}");
            });
        }
    }

    #[test]
    fn the_metrics_move_together() {
        let mut calm = Fleet::new(OPTIONS);
        calm.faults = FaultPlan::none();
        let mut pairs = Vec::new();
        for _ in 0..600 {
            calm.next_moment(|s| pairs.extend(s.rpm.zip(s.fuel_flow)));
        }
        let count = pairs.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| pairs.iter().map(pick).sum::<f64>() / count;
        let (mx, my) = (mean(|p| p.0), mean(|p| p.1));
        let cov: f64 = pairs.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
        let (vx, vy): (f64, f64) = pairs.iter().fold((0.0, 0.0), |(vx, vy), (x, y)| (vx + (x - mx).powi(2), vy + (y - my).powi(2)));
        assert!(cov / (vx * vy).sqrt() > 0.9);
    }

    #[test]
    fn each_moment_gives_every_engine_once_at_one_time() {
        let samples = run(FleetOptions { engines: 100, rate_hz: 50.0, ..OPTIONS }, 3);
        assert_eq!(samples.len(), 300);
        assert_eq!(samples[0].engine_id, "engine-001");
        assert_eq!(samples[299].engine_id, "engine-100");
        assert!(samples[100..200].iter().all(|s| s.observed_at_us == OPTIONS.start_us + 20_000));
    }
}
