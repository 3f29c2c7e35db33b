//! Anomaly rules beside the threshold rules: one detector for each rule and engine, and what they have learned.
//!
//! Without an anomaly rule nothing here costs anything. A crash of the process loses the averages, which are there again after some
//! twenty readings; baselines are saved once they are learned, and an open episode is known from its alert.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::domain::{
    alert::{AlertKind, Transition},
    anomaly::{AnomalyRule, Baseline, Detector, Finding, Names, Outcome},
    reading::ReadingRef,
};

/// Baselines that are saved in one go; the rest waits for the next.
const SAVE_MAX: usize = 500;

/// What was learned of one engine under one rule, as it is saved.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedBaseline {
    /// The rule's name.
    pub rule: String,
    /// The engine's id.
    pub engine_id: String,
    /// What was learned.
    pub baseline: Baseline,
}

/// The rules, and what is shared between engines.
#[derive(Debug, Default)]
pub(super) struct Anomalies {
    pub(super) rules: Arc<[AnomalyRule]>,
    names: Names,
    /// Baselines of an earlier run, for engines that have not been heard of since.
    parked: FxHashMap<Box<str>, Vec<(Box<str>, Baseline)>>,
    /// Whether some detector has learned something that is not saved.
    learned: bool,
}

impl Anomalies {
    pub(super) fn new(rules: &[AnomalyRule], saved: Vec<SavedBaseline>) -> Self {
        let mut anomalies = Self { rules: rules.into(), ..Self::default() };
        for mut saved in saved {
            if rules.iter().any(|rule| rule.name == saved.rule && saved.baseline.fits(rule)) {
                saved.baseline.share_names(&mut anomalies.names);
                anomalies.parked.entry(saved.engine_id.into()).or_default().push((saved.rule.into(), saved.baseline));
            }
        }
        anomalies
    }

    /// The detectors of a newcomer, with what an earlier run knew of it.
    pub(super) fn admit(&mut self, engine_id: &str, firing: impl Fn(&str) -> bool) -> Box<[Detector]> {
        let mut parked = self.parked.remove(engine_id).unwrap_or_default();
        let detector = |rule: &AnomalyRule| {
            let at = parked.iter().position(|(name, _)| **name == *rule.name);
            Detector::resume(at.map(|at| parked.swap_remove(at).1), firing(&rule.name))
        };
        self.rules.iter().map(detector).collect()
    }

    /// Lets every rule look at a reading.
    pub(super) fn observe(
        &mut self,
        detectors: &mut [Detector],
        reading: &ReadingRef<'_>,
        arrived_at_us: i64,
        transitions: &mut Vec<Transition>,
    ) {
        for (rule, detector) in self.rules.iter().zip(detectors) {
            let was_learning = detector.is_learning();
            let outcome = detector.observe(rule, &mut self.names, reading, arrived_at_us);
            self.learned |= was_learning && !detector.is_learning();
            let mut tell = |firing, finding: &Finding, text| {
                transitions.push(transition(rule, reading, firing, finding, text, arrived_at_us));
            };
            match outcome {
                Outcome::Quiet => {}
                Outcome::Opens(finding) => tell(true, &finding, finding.text(reading.engine_id)),
                Outcome::Closes(finding) => tell(false, &finding, finding.text(reading.engine_id)),
                Outcome::Graver(finding) => {
                    // An episode that somebody took on must not swallow a graver one: it ends, and a new one is told.
                    let text = format!("{}: the anomaly of {} became graver and is told anew", rule.name, reading.engine_id);
                    tell(false, &finding, text);
                    tell(true, &finding, finding.text(reading.engine_id));
                }
            }
        }
    }

    /// Takes over other rules. A rule that kept its name, metrics and warm-up keeps its detectors; the ends of episodes of the others
    /// are returned.
    pub(super) fn replace<'a>(
        &mut self,
        rules: &[AnomalyRule],
        engines: impl Iterator<Item = (&'a Box<str>, &'a mut Box<[Detector]>)>,
        now_us: i64,
    ) -> Vec<Transition> {
        let old = std::mem::replace(&mut self.rules, rules.into());
        let kept: Vec<Option<usize>> = rules.iter().map(|new| old.iter().position(|old| old.learns_like(new))).collect();
        let mut ended = Vec::new();
        for (engine_id, detectors) in engines {
            for (index, detector) in detectors.iter().enumerate() {
                if detector.is_firing() && !kept.contains(&Some(index)) {
                    ended.push(end(&old[index], engine_id, now_us));
                }
            }
            let take = |from: &Option<usize>| from.and_then(|from| detectors.get_mut(from).map(std::mem::take)).unwrap_or_default();
            let taken = kept.iter().map(take).collect();
            *detectors = taken;
        }
        for baselines in self.parked.values_mut() {
            baselines.retain(|(name, baseline)| rules.iter().any(|rule| *rule.name == **name && baseline.fits(rule)));
        }
        self.parked.retain(|_, baselines| !baselines.is_empty());
        ended
    }

    /// What was learned since the last call, at most [`SAVE_MAX`] baselines.
    pub(super) fn take_unsaved<'a>(
        &mut self,
        engines: impl Iterator<Item = (&'a Box<str>, &'a mut Box<[Detector]>)>,
    ) -> Vec<SavedBaseline> {
        let mut saved = Vec::new();
        if !std::mem::take(&mut self.learned) {
            return saved;
        }
        for (engine_id, detectors) in engines {
            if saved.len() >= SAVE_MAX {
                self.learned = true;
                break;
            }
            for (rule, detector) in self.rules.iter().zip(detectors.iter_mut()) {
                if let Some(baseline) = detector.take_learned() {
                    let baseline = baseline.clone();
                    saved.push(SavedBaseline { rule: rule.name.clone(), engine_id: engine_id.to_string(), baseline });
                }
            }
        }
        saved
    }

    /// Saving failed: everything is to be saved again.
    pub(super) fn mark_unsaved<'a>(&mut self, engines: impl Iterator<Item = &'a mut Box<[Detector]>>) {
        engines.flat_map(|detectors| detectors.iter_mut()).for_each(Detector::mark_unsaved);
        self.learned = true;
    }
}

fn transition(
    rule: &AnomalyRule,
    reading: &ReadingRef<'_>,
    firing: bool,
    finding: &Finding,
    text: String,
    arrived_at_us: i64,
) -> Transition {
    Transition {
        kind: AlertKind::Rule,
        name: rule.name.clone(),
        subject: reading.engine_id.to_owned(),
        level: rule.level,
        firing,
        observed_at_us: reading.observed_at_us,
        arrived_at_us,
        value: Some(finding.value),
        threshold: finding.limit,
        text,
    }
}

fn end(rule: &AnomalyRule, engine_id: &str, now_us: i64) -> Transition {
    Transition {
        kind: AlertKind::Rule,
        name: rule.name.clone(),
        subject: engine_id.to_owned(),
        level: rule.level,
        firing: false,
        observed_at_us: now_us,
        arrived_at_us: now_us,
        value: None,
        threshold: None,
        text: format!("{}: the rule was removed or learns differently", rule.name),
    }
}
