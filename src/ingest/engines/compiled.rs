//! Rules made ready for the hot path: no name is compared there.

use std::sync::Arc;

use crate::domain::{
    alert::{AlertKind, Transition},
    reading::ReadingRef,
    rule::Rule,
};

/// A rule with its metric resolved, so that the hot path compares no names.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    pub(super) rule: Rule,
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

pub(super) fn compile(rules: &[Rule]) -> Arc<[CompiledRule]> {
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
    pub(super) fn value(&self, reading: &ReadingRef<'_>) -> Option<f64> {
        match self.metric {
            Metric::Temperature => reading.temperature,
            Metric::Rpm => reading.rpm,
            Metric::Pressure => reading.pressure,
            Metric::FuelFlow => reading.fuel_flow,
            Metric::Extra => reading.metric(&self.rule.metric),
        }
    }

    pub(super) fn describe(&self, engine_id: &str, value: f64, firing: bool) -> String {
        let Rule { name, metric, op, threshold, clear, .. } = &self.rule;
        // Sensors do not know more digits, and people read this; the alert's own value keeps them all.
        let value = (value * 1_000.0).round() / 1_000.0;
        match (firing, clear) {
            (true, _) => format!("{name}: {metric} of {engine_id} is {value}, limit {op} {threshold}"),
            (false, Some(clear)) => format!("{name}: {metric} of {engine_id} is back at {value}, clear at {clear}"),
            (false, None) => format!("{name}: {metric} of {engine_id} is back at {value}"),
        }
    }

    pub(super) fn transition(
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
