//! Faults now and then: which engine, what, from when to when.
//!
//! One plan for the whole fleet, so that the pace of alarms does not depend on its size: the first fault is an overheating a few
//! seconds after the start (a newcomer shall not wait), later ones come 20 to 45 s apart. Each builds up, holds and fades.

use super::dice::Dice;

/// When the first fault begins, seconds after the first moment.
const FIRST_S: f64 = 3.0;
const RAMP_S: f64 = 2.0;

/// A sensor that can fall silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensor {
    /// Exhaust temperature.
    Temperature,
    /// Compressor pressure.
    Pressure,
    /// Fuel flow.
    FuelFlow,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Ramps to this temperature, above 350.
    Overheat(f64),
    /// Ramps to this speed, above 8,000.
    Overspeed(f64),
    /// The sensor gives no value.
    Dropout(Sensor),
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    engine: usize,
    kind: Kind,
    from_s: f64,
    until_s: f64,
}

/// What a fault does to one engine at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effect {
    /// 0 (nothing) to 1 (the peaks are reached).
    pub strength: f64,
    /// Degrees Celsius.
    pub temperature_peak: Option<f64>,
    /// Revolutions a minute.
    pub rpm_peak: Option<f64>,
    /// The sensor without a value.
    pub lost: Option<Sensor>,
}

/// At most one fault at a time, and when the next one comes.
#[derive(Debug)]
pub struct FaultPlan {
    engines: usize,
    current: Option<Fault>,
    next_s: f64,
    planned: u64,
}

impl FaultPlan {
    /// Faults for so many engines.
    pub fn new(engines: usize, dice: &mut Dice) -> Self {
        Self { engines, current: None, next_s: FIRST_S + dice.between(0.0, 1.0), planned: 0 }
    }

    /// No faults at all.
    #[cfg(test)]
    pub fn none() -> Self {
        Self { engines: 1, current: None, next_s: f64::INFINITY, planned: 0 }
    }

    /// Ends and begins faults up to `now_s`.
    pub fn step(&mut self, now_s: f64, dice: &mut Dice) {
        if self.current.is_some_and(|fault| fault.until_s < now_s) {
            self.current = None;
        }
        if self.current.is_some() || now_s < self.next_s {
            return;
        }
        let chance = if self.planned == 0 { 0.0 } else { dice.between(0.0, 1.0) };
        let (kind, hold_s) = match chance {
            c if c < 0.5 => (Kind::Overheat(dice.between(365.0, 395.0)), dice.between(6.0, 10.0)),
            c if c < 0.8 => (Kind::Overspeed(dice.between(8_150.0, 8_600.0)), dice.between(4.0, 7.0)),
            _ => {
                let sensor = [Sensor::Temperature, Sensor::Pressure, Sensor::FuelFlow][dice.index(3)];
                (Kind::Dropout(sensor), dice.between(3.0, 8.0))
            }
        };
        let until_s = now_s + hold_s + 2.0 * RAMP_S;
        self.current = Some(Fault { engine: dice.index(self.engines), kind, from_s: now_s, until_s });
        self.next_s = until_s + dice.between(12.0, 32.0);
        self.planned += 1;
    }

    /// What the engine feels at `now_s`.
    pub fn effect(&self, engine: usize, now_s: f64) -> Effect {
        let Some(fault) = self.current.filter(|fault| fault.engine == engine) else { return Effect::default() };
        let strength = ((now_s - fault.from_s) / RAMP_S).min((fault.until_s - now_s) / RAMP_S).clamp(0.0, 1.0);
        match fault.kind {
            Kind::Overheat(peak) => Effect { strength, temperature_peak: Some(peak), ..Effect::default() },
            Kind::Overspeed(peak) => Effect { strength, rpm_peak: Some(peak), ..Effect::default() },
            Kind::Dropout(sensor) => Effect { strength, lost: Some(sensor), ..Effect::default() },
        }
    }
}
