//! The engine table: what is known of each engine right now — its newest reading, a short trend, and the phase of every rule.
//!
//! In: every accepted batch, once, in order of arrival. Out: the transitions that the rules made, and rows for the page and
//! `/api/engines`. It lives outside `IngestActor`, so that a panic there forgets no rule's phase; a crash of the process forgets
//! trends, and gets the newest readings from the store and the phases from the control store.

mod anomalies;
#[cfg(test)]
mod anomaly_tests;
mod compiled;
#[cfg(test)]
mod tests;
mod trend;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

pub use self::anomalies::SavedBaseline;
use self::{
    anomalies::Anomalies,
    compiled::{CompiledRule, compile},
    trend::Trend,
};
use crate::domain::{
    alert::{AlertKind, Level, Transition},
    anomaly::{AnomalyRule, Detector},
    batch::Batch,
    reading::ReadingRef,
    rule::{Phase, Rule, Verdict},
};

/// The engines, bounded in number. Beyond the bound the one that has been quiet for longest and has no open alert makes room.
#[derive(Debug)]
pub struct EngineTable {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rules: Arc<[CompiledRule]>,
    anomalies: Anomalies,
    engines: FxHashMap<Box<str>, Engine>,
    /// Phases from before the start, for engines that have not been heard of since.
    parked: FxHashMap<Box<str>, Vec<(Box<str>, Phase)>>,
    /// What was firing before the start under a rule that the configuration no longer has: ended by the first `replace_rules`.
    orphans: Vec<SavedPhase>,
    max_engines: usize,
    /// Engines whose phases have changed since they were last saved.
    unsaved: bool,
}

#[derive(Clone, Debug, Default)]
struct Engine {
    observed_at_us: i64,
    arrived_at_us: i64,
    status: Option<Box<str>>,
    metrics: [Option<f64>; 4],
    extra: Option<Box<str>>,
    phases: Vec<Phase>,
    /// One for each anomaly rule.
    detectors: Box<[Detector]>,
    trend: Trend,
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
    /// An empty table of at most `max_engines`, with the phases that an earlier run left, for threshold rules alone.
    pub fn new(rules: &[Rule], max_engines: usize, saved: Vec<SavedPhase>) -> Self {
        Self::with_anomalies(rules, &[], max_engines, saved, Vec::new())
    }

    /// The same with anomaly rules, and the baselines that an earlier run learned.
    pub fn with_anomalies(
        rules: &[Rule],
        anomalies: &[AnomalyRule],
        max_engines: usize,
        saved: Vec<SavedPhase>,
        baselines: Vec<SavedBaseline>,
    ) -> Self {
        let mut parked = FxHashMap::<Box<str>, Vec<_>>::default();
        let known = |name: &str| rules.iter().any(|rule| rule.name == name) || anomalies.iter().any(|rule| rule.name == name);
        let (saved, gone): (Vec<_>, Vec<_>) = saved.into_iter().partition(|saved| known(&saved.rule));
        let orphans = gone.into_iter().filter(|saved| matches!(saved.phase, Phase::Firing { .. })).collect();
        for phase in saved {
            parked.entry(phase.engine_id.into()).or_default().push((phase.rule.into(), phase.phase));
        }
        let inner = Inner {
            rules: compile(rules),
            anomalies: Anomalies::new(anomalies, baselines),
            engines: FxHashMap::default(),
            parked,
            orphans,
            max_engines: max_engines.max(1),
            unsaved: false,
        };
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
    /// changed is closed, and the returned transitions say so. So is one whose rule went between two runs: the daemon calls this
    /// once at its start.
    pub fn replace_rules(&self, rules: &[Rule], anomalies: &[AnomalyRule], max_engines: usize, now_us: i64) -> Vec<Transition> {
        let mut guard = self.lock();
        let inner = &mut *guard;
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
        let mut transitions: Vec<_> = inner.orphans.drain(..).map(|orphan| end_orphan(orphan, now_us)).collect();
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
        let detectors = inner.engines.iter_mut().map(|(engine_id, engine)| (engine_id, &mut engine.detectors));
        transitions.extend(inner.anomalies.replace(anomalies, detectors, now_us));
        for (engine_id, phases) in &mut inner.parked {
            phases.retain(|(name, phase)| {
                let known = new.iter().any(|rule| *rule.rule.name == **name) || anomalies.iter().any(|rule| *rule.name == **name);
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
            for (rule, _) in inner.anomalies.rules.iter().zip(&engine.detectors).filter(|(_, detector)| detector.is_firing()) {
                let phase = Phase::Firing { last_breach_us: engine.observed_at_us };
                saved.push(SavedPhase { rule: rule.name.clone(), engine_id: engine_id.to_string(), phase });
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

    /// Baselines that were learned since the last call, a part of them where there are many.
    pub fn baselines_to_save(&self) -> Vec<SavedBaseline> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.anomalies.take_unsaved(inner.engines.iter_mut().map(|(engine_id, engine)| (engine_id, &mut engine.detectors)))
    }

    /// Saving failed: the baselines are to be saved again.
    pub fn mark_baselines_unsaved(&self) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.anomalies.mark_unsaved(inner.engines.values_mut().map(|engine| &mut engine.detectors));
    }

    /// Bytes that the detectors of all engines hold.
    pub fn detector_bytes(&self) -> usize {
        let of = |detector: &Detector| size_of::<Detector>() + detector.heap_bytes();
        self.lock().engines.values().flat_map(|engine| &engine.detectors).map(of).sum()
    }

    /// How many engines are known.
    pub fn len(&self) -> usize {
        self.lock().engines.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many have an open alert.
    pub fn alarmed(&self) -> usize {
        let inner = self.lock();
        inner.engines.values().filter(|engine| inner.alarm(engine).is_some()).count()
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

/// The end of an alert whose rule is gone. The episode keeps its own level, so this one's does not count.
fn end_orphan(orphan: SavedPhase, now_us: i64) -> Transition {
    Transition {
        kind: AlertKind::Rule,
        text: format!("{}: the rule was removed", orphan.rule),
        name: orphan.rule,
        subject: orphan.engine_id,
        level: Level::Info,
        firing: false,
        observed_at_us: now_us,
        arrived_at_us: now_us,
        value: None,
        threshold: None,
    }
}

impl Inner {
    fn observe(&mut self, reading: &ReadingRef<'_>, arrived_at_us: i64, transitions: &mut Vec<Transition>) {
        // One look-up for an engine that is known, which nearly all are.
        if let Some(engine) = self.engines.get_mut(reading.engine_id) {
            self.unsaved |= engine.observe(&self.rules, reading, arrived_at_us, transitions);
            self.anomalies.observe(&mut engine.detectors, reading, arrived_at_us, transitions);
            return;
        }
        self.make_room();
        let mut engine = self.admit(reading.engine_id);
        self.unsaved |= engine.observe(&self.rules, reading, arrived_at_us, transitions);
        self.anomalies.observe(&mut engine.detectors, reading, arrived_at_us, transitions);
        self.engines.insert(reading.engine_id.into(), engine);
    }

    /// A new row for an engine, with the phases that an earlier run left for it.
    fn admit(&mut self, engine_id: &str) -> Engine {
        let mut phases = vec![Phase::Clear; self.rules.len()];
        let parked = self.parked.remove(engine_id).unwrap_or_default();
        for (name, phase) in &parked {
            if let Some(index) = self.rules.iter().position(|rule| *rule.rule.name == **name) {
                phases[index] = *phase;
            }
        }
        let firing = |rule: &str| parked.iter().any(|(name, phase)| **name == *rule && matches!(phase, Phase::Firing { .. }));
        let detectors = self.anomalies.admit(engine_id, firing);
        Engine { phases, detectors, observed_at_us: i64::MIN, ..Engine::default() }
    }

    fn make_room(&mut self) {
        if self.engines.len() < self.max_engines {
            return;
        }
        // An eighth at once: the scan is paid once for many newcomers.
        let firing = |engine: &Engine| {
            let fires = engine.phases.iter().any(|phase| matches!(phase, Phase::Firing { .. }));
            fires || engine.detectors.iter().any(Detector::is_firing)
        };
        let mut quiet: Vec<_> =
            self.engines.iter().filter(|(_, e)| !firing(e)).map(|(id, e)| (e.arrived_at_us, id.clone())).collect();
        quiet.sort_unstable();
        for (_, id) in quiet.into_iter().take((self.max_engines / 8).max(1)) {
            self.engines.remove(&id);
        }
    }

    fn alarm(&self, engine: &Engine) -> Option<Level> {
        let firing = self.rules.iter().zip(&engine.phases).filter(|(_, phase)| matches!(phase, Phase::Firing { .. }));
        let moved = self.anomalies.rules.iter().zip(&engine.detectors).filter(|(_, detector)| detector.is_firing());
        firing.map(|(rule, _)| rule.rule.level).chain(moved.map(|(rule, _)| rule.level)).max()
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
            let (next, verdict) = compiled.rule.step(*phase, value, reading.observed_at_us, arrived_at_us);
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
