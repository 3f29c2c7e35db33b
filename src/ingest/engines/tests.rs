//! What the table must do.

use super::{trend::TREND_SAMPLES, *};
use crate::domain::{batch::BatchBuilder, rule::Op};

fn rule(name: &str, metric: &str, threshold: f64) -> Rule {
    let level = Level::Critical;
    Rule {
        name: name.into(),
        metric: metric.into(),
        op: Op::Above,
        threshold,
        clear: None,
        for_us: 0,
        level,
        labels: Default::default(),
    }
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
    assert!(table.replace_rules(&[rule("hot", "temperature", 90.0), rule("oil", "oil", 99.0)], &[], 10, 5).is_empty());
    assert!(table.observe(&batch(&[("a", 2, 95.0)])).is_empty(), "still firing, told once");
    let closed = table.replace_rules(&[], &[], 10, 5);
    assert_eq!(closed.iter().map(|t| (t.name.as_str(), t.firing)).collect::<Vec<_>>(), [("hot", false)]);
}

#[test]
fn an_alert_whose_rule_went_between_two_runs_is_closed_at_the_start() {
    let table = EngineTable::new(&[rule("hot", "temperature", 100.0)], 10, Vec::new());
    table.observe(&batch(&[("a", 1, 101.0)]));
    let kept = [rule("oil", "oil", 99.0)];
    let again = EngineTable::new(&kept, 10, table.phases_to_save().expect("a phase changed"));
    // The store may remember the engine before the configuration is taken over.
    again.remember(batch(&[("a", 1, 101.0)]).iter());
    let closed = again.replace_rules(&kept, &[], 10, 5);
    assert_eq!(closed.iter().map(|t| (t.name.as_str(), t.subject.as_str(), t.firing)).collect::<Vec<_>>(), [("hot", "a", false)]);
    assert!(again.replace_rules(&kept, &[], 10, 6).is_empty(), "said once");
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
