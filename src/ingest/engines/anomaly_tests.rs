//! What anomaly rules must do in the table.

use super::*;
use crate::domain::{batch::BatchBuilder, rule::Op};

fn rule(name: &str) -> AnomalyRule {
    let (level, labels) = (Level::Warning, Default::default());
    AnomalyRule { name: name.into(), metrics: Vec::new(), sensitivity: 1.0, warm_up: 20, level, labels }
}

fn table(anomalies: &[AnomalyRule], saved: Vec<SavedPhase>, baselines: Vec<SavedBaseline>) -> EngineTable {
    EngineTable::with_anomalies(&[], anomalies, 10, saved, baselines)
}

/// Readings of one engine at the given seconds: a sensor that goes up and down, moved by `far`.
fn stream(table: &EngineTable, engine_id: &str, seconds: std::ops::Range<i64>, far: f64) -> Vec<Transition> {
    let mut builder = BatchBuilder::default();
    for second in seconds {
        let wave = (second * 7 % 11) as f64;
        builder.push(&ReadingRef {
            engine_id,
            observed_at_us: second * 1_000_000,
            status: None,
            temperature: Some(500.0 + wave + far),
            rpm: Some(4_000.0 - (second * 5 % 7) as f64),
            pressure: None,
            fuel_flow: None,
            extra: None,
        });
    }
    table.observe(&builder.finish(i64::MAX))
}

fn told(transitions: &[Transition]) -> Vec<(&str, &str, bool)> {
    transitions.iter().map(|t| (t.name.as_str(), t.subject.as_str(), t.firing)).collect()
}

#[test]
fn an_anomaly_opens_one_alert_of_its_engine_which_the_views_show_until_it_is_back() {
    let table = table(&[rule("wear")], Vec::new(), Vec::new());
    assert!(stream(&table, "a", 0..100, 0.0).is_empty());
    stream(&table, "b", 0..100, 0.0);
    let moved = stream(&table, "a", 100..150, 60.0);
    assert_eq!(told(&moved), [("wear", "a", true)]);
    assert!(moved[0].text.starts_with("wear: a has left its baseline: temperature +"), "{}", moved[0].text);
    assert_eq!((moved[0].level, moved[0].threshold), (Level::Warning, Some(2.5)));
    let views = table.views(10);
    assert_eq!((views[0].engine_id.as_str(), views[0].alarm, views[1].alarm), ("a", Some(Level::Warning), None));
    assert_eq!(told(&stream(&table, "a", 150..250, 0.0)), [("wear", "a", false)]);
}

#[test]
fn baselines_are_saved_once_and_survive_a_restart_with_the_open_alert() {
    let first = table(&[rule("wear")], Vec::new(), Vec::new());
    stream(&first, "a", 0..100, 0.0);
    let learned = first.baselines_to_save();
    assert_eq!(learned.len(), 1);
    assert!(first.baselines_to_save().is_empty());
    first.mark_baselines_unsaved();
    assert_eq!(first.baselines_to_save(), learned, "saving failed");
    stream(&first, "a", 100..150, 60.0);
    let phases = first.phases_to_save().unwrap_or_else(|| {
        first.mark_unsaved();
        first.phases_to_save().expect("unsaved")
    });
    let again = table(&[rule("wear")], phases, learned);
    assert!(stream(&again, "a", 150..300, 60.0).is_empty(), "a worn engine is not taken for the normal one, nor told twice");
    assert_eq!(told(&stream(&again, "a", 300..400, 0.0)), [("wear", "a", false)]);
}

#[test]
fn a_reload_keeps_what_unchanged_rules_know_and_ends_the_alerts_of_others() {
    let table = table(&[rule("wear"), rule("other")], Vec::new(), Vec::new());
    stream(&table, "a", 0..100, 0.0);
    stream(&table, "a", 100..150, 60.0);
    let finer = AnomalyRule { sensitivity: 2.0, level: Level::Critical, ..rule("wear") };
    let ended = table.replace_rules(&[], &[finer], 10, 5);
    assert_eq!(told(&ended), [("other", "a", false)]);
    assert!(stream(&table, "a", 150..200, 60.0).is_empty(), "still open, told once");
    assert_eq!(table.views(1)[0].alarm, Some(Level::Critical));
    let ended = table.replace_rules(&[], &[AnomalyRule { warm_up: 40, ..rule("wear") }], 10, 6);
    assert_eq!(told(&ended), [("wear", "a", false)]);
}

#[test]
fn a_rule_that_came_by_reload_learns_the_engines_that_are_there() {
    let table = EngineTable::new(&[], 10, Vec::new());
    stream(&table, "a", 0..100, 0.0);
    assert!(table.replace_rules(&[], &[rule("wear")], 10, 5).is_empty());
    stream(&table, "a", 100..200, 0.0);
    assert_eq!(told(&stream(&table, "a", 200..250, 60.0)), [("wear", "a", true)]);
}

#[test]
fn a_graver_anomaly_ends_the_alert_and_begins_another_in_one_commit() {
    let table = table(&[rule("wear")], Vec::new(), Vec::new());
    let whole = |seconds: std::ops::Range<i64>, far: f64| {
        let mut builder = BatchBuilder::default();
        for second in seconds {
            let wave = |step: i64, round: i64| (second * step % round) as f64 + far;
            builder.push(&ReadingRef {
                engine_id: "a",
                observed_at_us: second * 1_000_000,
                status: None,
                temperature: Some(wave(7, 11)),
                rpm: Some(wave(5, 13)),
                pressure: Some(wave(3, 7)),
                fuel_flow: Some(wave(4, 9)),
                extra: None,
            });
        }
        table.observe(&builder.finish(i64::MAX))
    };
    whole(0..100, 0.0);
    let moved = whole(100..200, 60.0);
    let firing: Vec<bool> = moved.iter().map(|t| t.firing).collect();
    assert!(firing.len() >= 3 && firing.chunks(2).all(|pair| pair[0]) && firing[1..].chunks(2).all(|pair| !pair[0]), "{firing:?}");
    assert!(moved.iter().any(|t| t.text == "wear: the anomaly of a became graver and is told anew"), "{moved:?}");
}

#[test]
fn threshold_and_anomaly_rules_of_one_engine_are_apart_and_the_table_stays_bounded() {
    let hot = Rule {
        name: "hot".into(),
        metric: "temperature".into(),
        op: Op::Above,
        threshold: 540.0,
        clear: None,
        for_us: 0,
        level: Level::Critical,
        labels: Default::default(),
    };
    let table = EngineTable::with_anomalies(&[hot], &[rule("wear")], 8, Vec::new(), Vec::new());
    stream(&table, "a", 0..100, 0.0);
    let names: Vec<String> = stream(&table, "a", 100..150, 60.0).into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["hot", "wear"]);
    for n in 0..100 {
        stream(&table, &format!("e{n}"), 0..30, 0.0);
    }
    assert!(table.len() <= 8);
    assert!(table.detector_bytes() < 8 * 8_192, "{}", table.detector_bytes());
    assert_eq!(table.views(1)[0].engine_id, "a", "what is alarmed stays");
}
