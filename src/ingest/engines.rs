//! The engine table: what is known of each engine right now — its newest reading, a short trend, and the phase of every rule.
//!
//! In: every accepted batch, once, in order of arrival. Out: the transitions that the rules made, and rows for the page and
//! `/api/engines`. It lives outside `IngestActor`, so that a panic there forgets no rule's phase; a crash of the process forgets
//! trends, and gets the newest readings from the store and the phases from the control store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::domain::{
    alert::{AlertKind, Level, Transition},
    batch::Batch,
    reading::ReadingRef,
    rule::{Phase, Rule, Verdict},
};

/// Samples kept for the small trend of each engine.
pub const TREND_SAMPLES: usize = 30;
/// Least reading time between two samples of a trend, microseconds.
const TREND_STEP_US: i64 = 1_000_000;

/// The engines, bounded in number. Beyond the bound the one that has been quiet for longest and has no open alert makes room.
#[derive(Debug)]
pub struct EngineTable {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rules: Arc<[CompiledRule]>,
    engines: FxHashMap<Box<str>, Engine>,
    /// Phases from before the start, for engines that have not been heard of since.
    parked: FxHashMap<Box<str>, Vec<(Box<str>, Phase)>>,
    max_engines: usize,
    /// Engines whose phases have changed since they were last saved.
    unsaved: bool,
}

/// A rule with its metric resolved, so that the hot path compares no names.
#[derive(Clone, Debug)]
struct CompiledRule {
    rule: Rule,
    metric: Metric,
}

#[derive(Clone, Debug)]
enum Metric {
    Temperature,
    Rpm,
    Pressure,
    FuelFlow,
    Extra,
}

#[derive(Clone, Debug, Default)]
struct Engine {
    observed_at_us: i64,
    arrived_at_us: i64,
    status: Option<Box<str>>,
    metrics: [Option<f64>; 4],
    extra: Option<Box<str>>,
    phases: Vec<Phase>,
    trend: Trend,
}

/// The last samples of the two metrics that the page draws, at most one a second of reading time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trend {
    last_us: i64,
    /// Oldest first; `NaN` where the reading lacked the metric.
    samples: Vec<(f32, f32)>,
}

/// One engine as the page and `/api/engines` show it.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineView {
    /// The engine's id.
    pub engine_id: String,
    /// Time of the newest reading, microseconds since the epoch.
    pub observed_at_us: i64,
    /// When it arrived, microseconds since the epoch.
    pub arrived_at_us: i64,
    /// Its status.
    pub status: Option<String>,
    /// Degrees Celsius.
    pub temperature: Option<f64>,
    /// Revolutions a minute.
    pub rpm: Option<f64>,
    /// Unit of the source.
    pub pressure: Option<f64>,
    /// Unit of the source.
    pub fuel_flow: Option<f64>,
    /// Further metrics, the text of a JSON object.
    pub extra: Option<String>,
    /// The highest level among its open alerts.
    pub alarm: Option<Level>,
    /// Temperatures, oldest first.
    pub trend_temperature: Vec<Option<f32>>,
    /// Speeds, oldest first.
    pub trend_rpm: Vec<Option<f32>>,
}

/// The phase of one rule for one engine, as it is saved.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedPhase {
    /// The rule's name.
    pub rule: String,
    /// The engine's id.
    pub engine_id: String,
    /// Never [`Phase::Clear`].
    pub phase: Phase,
}

impl EngineTable {
    /// An empty table of at most `max_engines`, with the phases that an earlier run left.
    pub fn new(rules: &[Rule], max_engines: usize, saved: Vec<SavedPhase>) -> Self {
        let mut parked = FxHashMap::<Box<str>, Vec<_>>::default();
        for phase in saved {
            parked.entry(phase.engine_id.into()).or_default().push((phase.rule.into(), phase.phase));
        }
        let inner =
            Inner { rules: compile(rules), engines: FxHashMap::default(), parked, max_engines: max_engines.max(1), unsaved: false };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves at most one engine's newest values mixed from two readings; phases are whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every reading of a batch into account and returns what the rules made of them, in order.
    pub fn observe(&self, batch: &Batch) -> Vec<Transition> {
        let mut transitions = Vec::new();
        let mut inner = self.lock();
        for reading in batch.iter() {
            inner.observe(&reading, batch.received_at_us(), &mut transitions);
        }
        transitions
    }

    /// Puts the newest stored readings of an earlier run into the table. Engines heard of since are left alone, rules do not run.
    pub fn remember<'a>(&self, readings: impl IntoIterator<Item = ReadingRef<'a>>) {
        let mut inner = self.lock();
        for reading in readings {
            if !inner.engines.contains_key(reading.engine_id) && inner.engines.len() < inner.max_engines {
                let mut engine = inner.admit(reading.engine_id);
                engine.take(&reading, reading.observed_at_us);
                inner.engines.insert(reading.engine_id.into(), engine);
            }
        }
    }

    /// Replaces the rules. A rule that kept its name, metric and side keeps its phases; an open alert of a rule that is gone or
    /// changed is closed, and the returned transitions say so.
    pub fn replace_rules(&self, rules: &[Rule], max_engines: usize, now_us: i64) -> Vec<Transition> {
        let mut inner = self.lock();
        inner.max_engines = max_engines.max(1);
        let new = compile(rules);
        let old = std::mem::replace(&mut inner.rules, new.clone());
        let kept: Vec<Option<usize>> = new
            .iter()
            .map(|new| {
                old.iter().position(|old| {
                    (&old.rule.name, &old.rule.metric, old.rule.op) == (&new.rule.name, &new.rule.metric, new.rule.op)
                })
            })
            .collect();
        let mut transitions = Vec::new();
        for (engine_id, engine) in &mut inner.engines {
            for (index, phase) in engine.phases.iter().enumerate() {
                if matches!(phase, Phase::Firing { .. }) && !kept.contains(&Some(index)) {
                    let text = format!("{}: the rule was removed or changed", old[index].rule.name);
                    transitions.push(old[index].transition(engine_id, false, now_us, now_us, None, text));
                }
            }
            engine.phases =
                kept.iter().map(|from| from.and_then(|from| engine.phases.get(from).copied()).unwrap_or_default()).collect();
        }
        for (engine_id, phases) in &mut inner.parked {
            phases.retain(|(name, phase)| {
                let known = new.iter().any(|rule| *rule.rule.name == **name);
                if let (false, Phase::Firing { .. }, Some(rule)) = (known, phase, old.iter().find(|rule| *rule.rule.name == **name))
                {
                    let text = format!("{name}: the rule was removed");
                    transitions.push(rule.transition(engine_id, false, now_us, now_us, None, text));
                }
                known
            });
        }
        inner.unsaved = true;
        transitions
    }

    /// Every phase that is not clear, where any has changed since the last call; `None` where none has.
    pub fn phases_to_save(&self) -> Option<Vec<SavedPhase>> {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.unsaved) {
            return None;
        }
        let mut saved = Vec::new();
        for (engine_id, engine) in &inner.engines {
            for (rule, phase) in inner.rules.iter().zip(&engine.phases).filter(|(_, phase)| **phase != Phase::Clear) {
                saved.push(SavedPhase { rule: rule.rule.name.clone(), engine_id: engine_id.to_string(), phase: *phase });
            }
        }
        for (engine_id, phases) in &inner.parked {
            saved.extend(phases.iter().map(|(rule, phase)| SavedPhase {
                rule: rule.to_string(),
                engine_id: engine_id.to_string(),
                phase: *phase,
            }));
        }
        Some(saved)
    }

    /// Saving failed: the phases are to be saved again.
    pub fn mark_unsaved(&self) {
        self.lock().unsaved = true;
    }

    /// How many engines are known.
    pub fn len(&self) -> usize {
        self.lock().engines.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `limit` engines: the worst alarm first, then by id.
    pub fn views(&self, limit: usize) -> Vec<EngineView> {
        let inner = self.lock();
        let mut order: Vec<_> = inner.engines.iter().map(|(id, engine)| (std::cmp::Reverse(inner.alarm(engine)), &**id)).collect();
        order.sort_unstable();
        order.truncate(limit);
        order.iter().filter_map(|(_, id)| inner.engines.get(*id).map(|engine| inner.view(id, engine))).collect()
    }
}

impl Inner {
    fn observe(&mut self, reading: &ReadingRef<'_>, arrived_at_us: i64, transitions: &mut Vec<Transition>) {
        // One look-up for an engine that is known, which nearly all are.
        if let Some(engine) = self.engines.get_mut(reading.engine_id) {
            self.unsaved |= engine.observe(&self.rules, reading, arrived_at_us, transitions);
            return;
        }
        self.make_room();
        let mut engine = self.admit(reading.engine_id);
        self.unsaved |= engine.observe(&self.rules, reading, arrived_at_us, transitions);
        self.engines.insert(reading.engine_id.into(), engine);
    }

    /// A new row for an engine, with the phases that an earlier run left for it.
    fn admit(&mut self, engine_id: &str) -> Engine {
        let mut phases = vec![Phase::Clear; self.rules.len()];
        for (name, phase) in self.parked.remove(engine_id).unwrap_or_default() {
            if let Some(index) = self.rules.iter().position(|rule| *rule.rule.name == *name) {
                phases[index] = phase;
            }
        }
        Engine { phases, observed_at_us: i64::MIN, ..Engine::default() }
    }

    fn make_room(&mut self) {
        if self.engines.len() < self.max_engines {
            return;
        }
        // An eighth at once: the scan is paid once for many newcomers.
        let firing = |engine: &Engine| engine.phases.iter().any(|phase| matches!(phase, Phase::Firing { .. }));
        let mut quiet: Vec<_> =
            self.engines.iter().filter(|(_, e)| !firing(e)).map(|(id, e)| (e.arrived_at_us, id.clone())).collect();
        quiet.sort_unstable();
        for (_, id) in quiet.into_iter().take((self.max_engines / 8).max(1)) {
            self.engines.remove(&id);
        }
    }

    fn alarm(&self, engine: &Engine) -> Option<Level> {
        let firing = self.rules.iter().zip(&engine.phases).filter(|(_, phase)| matches!(phase, Phase::Firing { .. }));
        firing.map(|(rule, _)| rule.rule.level).max()
    }

    fn view(&self, engine_id: &str, engine: &Engine) -> EngineView {
        let sample = |value: f32| (!value.is_nan()).then_some(value);
        let [temperature, rpm, pressure, fuel_flow] = engine.metrics;
        EngineView {
            engine_id: engine_id.to_owned(),
            observed_at_us: engine.observed_at_us,
            arrived_at_us: engine.arrived_at_us,
            status: engine.status.as_deref().map(str::to_owned),
            temperature,
            rpm,
            pressure,
            fuel_flow,
            extra: engine.extra.as_deref().map(str::to_owned),
            alarm: self.alarm(engine),
            trend_temperature: engine.trend.samples.iter().map(|(t, _)| sample(*t)).collect(),
            trend_rpm: engine.trend.samples.iter().map(|(_, r)| sample(*r)).collect(),
        }
    }
}

impl Engine {
    /// Steps every rule that has a say, and returns whether a phase began or ended that a restart must know of.
    fn observe(
        &mut self,
        rules: &[CompiledRule],
        reading: &ReadingRef<'_>,
        arrived_at_us: i64,
        transitions: &mut Vec<Transition>,
    ) -> bool {
        let mut changed = false;
        for (compiled, phase) in rules.iter().zip(&mut self.phases) {
            let Some(value) = compiled.value(reading) else { continue };
            let (next, verdict) = compiled.rule.step(*phase, value, reading.observed_at_us);
            changed |= (next == Phase::Clear) != (*phase == Phase::Clear);
            *phase = next;
            if verdict != Verdict::Quiet {
                let firing = verdict == Verdict::Opens;
                let text = compiled.describe(reading.engine_id, value, firing);
                let at = reading.observed_at_us;
                transitions.push(compiled.transition(reading.engine_id, firing, at, arrived_at_us, Some(value), text));
            }
        }
        if reading.observed_at_us >= self.observed_at_us {
            self.take(reading, arrived_at_us);
        }
        changed
    }

    fn take(&mut self, reading: &ReadingRef<'_>, arrived_at_us: i64) {
        self.observed_at_us = reading.observed_at_us;
        self.arrived_at_us = arrived_at_us;
        self.metrics = [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow];
        for (kept, new) in [(&mut self.status, reading.status), (&mut self.extra, reading.extra)] {
            if kept.as_deref() != new {
                *kept = new.map(Into::into);
            }
        }
        self.trend.take(reading);
    }
}

impl Trend {
    fn take(&mut self, reading: &ReadingRef<'_>) {
        if !self.samples.is_empty() && reading.observed_at_us < self.last_us.saturating_add(TREND_STEP_US) {
            return;
        }
        self.last_us = reading.observed_at_us;
        if self.samples.len() == TREND_SAMPLES {
            self.samples.remove(0);
        }
        // A trend is drawn 60 pixels high: single precision is plenty.
        let sample = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        self.samples.push((sample(reading.temperature), sample(reading.rpm)));
    }
}

fn compile(rules: &[Rule]) -> Arc<[CompiledRule]> {
    rules
        .iter()
        .map(|rule| {
            let metric = match rule.metric.as_str() {
                "temperature" => Metric::Temperature,
                "rpm" => Metric::Rpm,
                "pressure" => Metric::Pressure,
                "fuel_flow" => Metric::FuelFlow,
                _ => Metric::Extra,
            };
            CompiledRule { rule: rule.clone(), metric }
        })
        .collect()
}

impl CompiledRule {
    fn value(&self, reading: &ReadingRef<'_>) -> Option<f64> {
        match self.metric {
            Metric::Temperature => reading.temperature,
            Metric::Rpm => reading.rpm,
            Metric::Pressure => reading.pressure,
            Metric::FuelFlow => reading.fuel_flow,
            Metric::Extra => reading.metric(&self.rule.metric),
        }
    }

    fn describe(&self, engine_id: &str, value: f64, firing: bool) -> String {
        let Rule { name, metric, op, threshold, clear, .. } = &self.rule;
        match (firing, clear) {
            (true, _) => format!("{name}: {metric} of {engine_id} is {value}, limit {op} {threshold}"),
            (false, Some(clear)) => format!("{name}: {metric} of {engine_id} is back at {value}, clear at {clear}"),
            (false, None) => format!("{name}: {metric} of {engine_id} is back at {value}"),
        }
    }

    fn transition(
        &self,
        engine_id: &str,
        firing: bool,
        observed_at_us: i64,
        arrived_at_us: i64,
        value: Option<f64>,
        text: String,
    ) -> Transition {
        Transition {
            kind: AlertKind::Rule,
            name: self.rule.name.clone(),
            subject: engine_id.to_owned(),
            level: self.rule.level,
            firing,
            observed_at_us,
            arrived_at_us,
            value,
            threshold: Some(self.rule.threshold),
            text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{batch::BatchBuilder, rule::Op};

    fn rule(name: &str, metric: &str, threshold: f64) -> Rule {
        Rule { name: name.into(), metric: metric.into(), op: Op::Above, threshold, clear: None, for_us: 0, level: Level::Critical }
    }

    fn batch(readings: &[(&str, i64, f64)]) -> Batch {
        let mut builder = BatchBuilder::default();
        for &(engine_id, observed_at_us, temperature) in readings {
            builder.push(&ReadingRef {
                engine_id,
                observed_at_us,
                status: Some("ok"),
                temperature: Some(temperature),
                rpm: None,
                pressure: None,
                fuel_flow: None,
                extra: Some(r#"{"oil":7}"#),
            });
        }
        builder.finish(1)
    }

    #[test]
    fn each_engine_has_its_own_phase() {
        let table = EngineTable::new(&[rule("hot", "temperature", 100.0)], 10, Vec::new());
        let got = table.observe(&batch(&[("a", 1, 101.0), ("b", 1, 99.0), ("a", 2, 102.0), ("b", 2, 101.0), ("a", 3, 50.0)]));
        let got: Vec<_> = got.iter().map(|t| (t.subject.as_str(), t.firing, t.value)).collect();
        assert_eq!(got, [("a", true, Some(101.0)), ("b", true, Some(101.0)), ("a", false, Some(50.0))]);
        let views = table.views(10);
        assert_eq!((views[0].engine_id.as_str(), views[0].alarm), ("b", Some(Level::Critical)), "the alarmed engine comes first");
        assert_eq!(views[1].temperature, Some(50.0));
    }

    #[test]
    fn a_rule_on_an_extra_metric_is_checked() {
        let table = EngineTable::new(&[rule("oil", "oil", 5.0)], 10, Vec::new());
        assert_eq!(table.observe(&batch(&[("a", 1, 1.0)])).len(), 1);
    }

    #[test]
    fn phases_survive_a_restart_and_do_not_fire_twice() {
        let rules = [rule("hot", "temperature", 100.0)];
        let table = EngineTable::new(&rules, 10, Vec::new());
        table.observe(&batch(&[("a", 1, 101.0)]));
        let saved = table.phases_to_save().expect("a phase changed");
        assert_eq!(table.phases_to_save(), None);
        let again = EngineTable::new(&rules, 10, saved.clone());
        assert!(again.observe(&batch(&[("a", 2, 105.0)])).is_empty());
        assert!(!again.observe(&batch(&[("a", 3, 5.0)]))[0].firing);
        let parked = EngineTable::new(&rules, 10, saved.clone());
        parked.mark_unsaved();
        assert_eq!(parked.phases_to_save(), Some(saved), "an engine that is silent keeps its phase");
    }

    #[test]
    fn a_changed_threshold_keeps_the_phase_and_a_removed_rule_closes_its_alert() {
        let table = EngineTable::new(&[rule("hot", "temperature", 100.0)], 10, Vec::new());
        table.observe(&batch(&[("a", 1, 101.0)]));
        assert!(table.replace_rules(&[rule("hot", "temperature", 90.0), rule("oil", "oil", 99.0)], 10, 5).is_empty());
        assert!(table.observe(&batch(&[("a", 2, 95.0)])).is_empty(), "still firing, told once");
        let closed = table.replace_rules(&[], 10, 5);
        assert_eq!(closed.iter().map(|t| (t.name.as_str(), t.firing)).collect::<Vec<_>>(), [("hot", false)]);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_alarmed() {
        let table = EngineTable::new(&[rule("hot", "temperature", 100.0)], 8, Vec::new());
        table.observe(&batch(&[("alarmed", 1, 101.0)]));
        for n in 0..100 {
            table.observe(&batch(&[(&format!("e{n}"), 1, 1.0)]));
        }
        assert!(table.len() <= 8);
        assert_eq!(table.views(1)[0].engine_id, "alarmed");
    }

    #[test]
    fn a_late_reading_does_not_replace_the_newest_values() {
        let table = EngineTable::new(&[], 8, Vec::new());
        table.observe(&batch(&[("a", 10, 2.0), ("a", 5, 1.0)]));
        assert_eq!(table.views(1)[0].temperature, Some(2.0));
    }

    #[test]
    fn a_trend_takes_one_sample_a_second_and_stays_short() {
        let table = EngineTable::new(&[], 8, Vec::new());
        for n in 0..100i64 {
            table.observe(&batch(&[("a", n * 500_000, n as f64)]));
        }
        let trend = &table.views(1)[0].trend_temperature;
        assert_eq!(trend.len(), TREND_SAMPLES);
        assert_eq!(trend.last(), Some(&Some(98.0)));
    }
}
