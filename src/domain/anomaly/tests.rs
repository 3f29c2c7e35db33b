//! What a detector must do, whatever the engine.

use proptest::prelude::*;

use super::{watch::Watch, *};

fn rule() -> AnomalyRule {
    let (level, labels) = (Level::Warning, Default::default());
    AnomalyRule { name: "wear".into(), metrics: Vec::new(), sensitivity: 1.0, warm_up: 50, level, labels }
}

/// Bell-shaped enough (sum of four), the same on every host.
fn noise(seed: &mut u64) -> f64 {
    let mut even = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..4).map(|_| even() - 0.5).sum::<f64>() * 3f64.sqrt()
}

struct Engine {
    rule: AnomalyRule,
    detector: Detector,
    names: Names,
    at_us: i64,
}

impl Engine {
    fn new(rule: AnomalyRule) -> Self {
        Self { rule, detector: Detector::default(), names: Names::default(), at_us: 0 }
    }

    fn at(&mut self, at_us: i64, named: [Option<f64>; 4], extra: &[(String, f64)]) -> Outcome {
        let pairs: Vec<String> = extra.iter().map(|(name, value)| format!("\"{name}\":{value:?}")).collect();
        let extra = format!("{{{}}}", pairs.join(","));
        let reading = ReadingRef {
            engine_id: "e1",
            observed_at_us: at_us,
            status: None,
            temperature: named[0],
            rpm: named[1],
            pressure: named[2],
            fuel_flow: named[3],
            extra: (extra.len() > 2).then_some(extra.as_str()),
        };
        self.detector.observe(&self.rule, &mut self.names, &reading, i64::MAX)
    }

    fn next(&mut self, named: [Option<f64>; 4], extra: &[(String, f64)]) -> Outcome {
        self.at_us += 1_000_000;
        self.at(self.at_us, named, extra)
    }
}

/// Streams four noisy metrics; `fault` moves them. The outcomes that told something, by index of the reading.
fn stream(engine: &mut Engine, count: usize, seed: u64, fault: impl Fn(usize, &mut [f64; 4])) -> Vec<(usize, Outcome)> {
    let mut seed = seed;
    let mut told = Vec::new();
    for at in 0..count {
        let mut z = std::array::from_fn(|_| noise(&mut seed));
        fault(at, &mut z);
        let outcome =
            engine.next([Some(300.0 + 2.0 * z[0]), Some(4_000.0 + 30.0 * z[1]), Some(28.0 + 0.1 * z[2]), Some(z[3])], &[]);
        if outcome != Outcome::Quiet {
            told.push((at, outcome));
        }
    }
    told
}

fn opened(told: &[(usize, Outcome)]) -> Option<(usize, String)> {
    told.iter().find_map(|(at, outcome)| match outcome {
        Outcome::Opens(finding) => Some((*at, finding.text("e1"))),
        _ => None,
    })
}

#[test]
fn an_engine_that_stays_as_it_was_raises_nothing() {
    for seed in 0..20 {
        assert_eq!(stream(&mut Engine::new(rule()), 1_000, seed, |_, _| ()), []);
    }
}

#[test]
fn a_step_is_told_with_the_metric_its_distance_and_since_when_and_ends_when_it_is_back() {
    let mut engine = Engine::new(rule());
    let told = stream(&mut engine, 400, 1, |at, z| z[2] -= if (200..300).contains(&at) { 7.0 } else { 0.0 });
    let (at, text) = opened(&told).expect("told");
    assert!((200..206).contains(&at), "{at}");
    assert!(
        text.starts_with("wear: e1 has left its baseline: pressure -") && text.contains(" sd; since 1970-01-01T00:03:2"),
        "{text}"
    );
    let [(_, Outcome::Opens(finding)), (back, Outcome::Closes(end))] = &told[..] else { panic!("{told:?}") };
    assert!(finding.value < -2.5 && finding.limit == Some(2.5), "{finding:?}");
    assert!((300..345).contains(back), "{back}");
    assert!(end.text("e1").contains("is back at its baseline"), "{}", end.text("e1"));
}

#[test]
fn slow_drifts_grown_noise_and_a_stuck_sensor_are_told_in_either_direction_and_any_metric() {
    for metric in 0..4 {
        for slope in [0.1, -0.1] {
            let told = stream(&mut Engine::new(rule()), 400, 7, |at, z| z[metric] += slope * at.saturating_sub(150) as f64);
            assert!(opened(&told).is_some_and(|(at, _)| (160..280).contains(&at)), "{metric} {slope}: {told:?}");
        }
        let told = stream(&mut Engine::new(rule()), 400, 7, |at, z| z[metric] *= if at >= 150 { 5.0 } else { 1.0 });
        let (at, text) = opened(&told).expect("told");
        assert!((150..250).contains(&at) && text.contains("times as noisy"), "{metric}: {text}");
        let told = stream(&mut Engine::new(rule()), 400, 7, |at, z| z[metric] = if at >= 150 { 0.25 } else { z[metric] });
        let (at, text) = opened(&told).expect("told");
        assert!((169..172).contains(&at) && text.contains("stuck for 20 readings"), "{metric} {at}: {text}");
    }
}

#[test]
fn one_wild_reading_raises_nothing_and_a_standstill_is_no_stuck_sensor() {
    let told = stream(&mut Engine::new(rule()), 400, 3, |at, z| z[1] += if at == 200 { 1e6 } else { 0.0 });
    assert_eq!(told, []);
    let told = stream(&mut Engine::new(rule()), 400, 3, |at, z| {
        if at >= 200 {
            *z = [0.0; 4];
        }
    });
    assert_eq!(told, []);
}

#[test]
fn wear_of_the_whole_engine_is_told_again_each_time_it_is_half_as_far_again() {
    let told = stream(&mut Engine::new(rule()), 500, 5, |at, z| {
        for (metric, z) in z.iter_mut().enumerate() {
            *z += 0.02 * at.saturating_sub(100) as f64 * if metric % 2 == 0 { 1.0 } else { -1.0 };
        }
    });
    let kinds: Vec<bool> = told.iter().map(|(_, outcome)| matches!(outcome, Outcome::Graver(_))).collect();
    assert!(matches!(told[0].1, Outcome::Opens(_)) && kinds.len() >= 3 && kinds[1..].iter().all(|graver| *graver), "{told:?}");
    assert!(
        opened(&told).expect("told").1.contains("as a whole is 2.5 sd from its baseline on average over 4 metrics"),
        "{told:?}"
    );
}

#[test]
fn sensitivity_moves_every_limit() {
    let first = |sensitivity| {
        let mut engine = Engine::new(AnomalyRule { sensitivity, ..rule() });
        opened(&stream(&mut engine, 600, 9, |at, z| z[0] += 0.05 * at.saturating_sub(100) as f64)).expect("told").0
    };
    assert!(first(2.0) + 20 < first(1.0) && first(1.0) + 20 < first(0.5), "{} {} {}", first(2.0), first(1.0), first(0.5));
}

#[test]
fn repeats_and_late_readings_change_nothing() {
    let (mut plain, mut messy) = (Engine::new(rule()), Engine::new(rule()));
    let mut seed = 11;
    for at in 1..400 {
        let z: [f64; 4] = std::array::from_fn(|_| noise(&mut seed));
        let far = if at >= 200 { 9.0 } else { 0.0 };
        let named = [Some(z[0] + far), Some(z[1]), Some(z[2]), Some(z[3])];
        let expected = plain.at(at, named, &[]);
        assert_eq!(messy.at(at, named, &[]), expected);
        assert_eq!(messy.at(at, [Some(1e9); 4], &[]), Outcome::Quiet, "a repeat");
        assert_eq!(messy.detector.observe(&rule(), &mut Names::default(), &late(at), i64::MAX), Outcome::Quiet);
    }
    assert!(plain.detector.is_firing() && messy.detector.is_firing());
}

fn late(at: i64) -> ReadingRef<'static> {
    ReadingRef {
        engine_id: "e1",
        observed_at_us: at - 3,
        status: None,
        temperature: Some(1e9),
        rpm: None,
        pressure: None,
        fuel_flow: None,
        extra: None,
    }
}

#[test]
fn a_reading_stamped_ahead_holds_up_nobody() {
    let mut engine = Engine::new(rule());
    let reading = ReadingRef { observed_at_us: 90_000_000, temperature: Some(1.0), ..late(0) };
    let mut names = Names::default();
    engine.detector.observe(&rule(), &mut names, &reading, 1_000);
    for at in 0..49 {
        let reading = ReadingRef { observed_at_us: 1_001 + at, ..reading };
        engine.detector.observe(&rule(), &mut names, &reading, 1_001 + at);
    }
    assert!(!engine.detector.is_learning(), "all fifty were taken");
}

#[test]
fn constants_counters_rare_metrics_and_an_empty_reading_are_no_trouble() {
    let mut engine = Engine::new(rule());
    let mut seed = 2;
    for at in 0..500_u32 {
        let mut extra = vec![("hours".to_owned(), f64::from(at) * 0.1), ("left".to_owned(), 1e6 - f64::from(at))];
        if at % 10 == 0 {
            extra.push(("rare".to_owned(), 1e300));
        }
        let named = if at % 7 == 3 { [None; 4] } else { [Some(21.6), Some(noise(&mut seed)), None, Some(f64::from(at % 2))] };
        let changed = if at > 300 { named[0].map(|value| value + 0.1) } else { named[0] };
        let outcome = engine.next([changed, named[1], named[2], named[3]], &extra);
        if at <= 300 {
            assert_eq!(outcome, Outcome::Quiet, "at {at}");
        } else if let Outcome::Opens(finding) = outcome {
            assert!(finding.text("e1").contains("temperature no longer constant"), "{}", finding.text("e1"));
        }
    }
    assert!(engine.detector.is_firing());
}

#[test]
fn operating_regimes_are_found_and_each_has_its_own_normal() {
    let mut engine = Engine::new(rule());
    let (mut seed, mut opened_at) = (4, None);
    let points = [(0.0, 500.0, 9.0), (10.0, 450.0, 5.0), (20.0, 300.0, 7.0), (42.0, 480.0, 1.0)];
    for at in 0..600 {
        let (altitude, hot, press) = points[(noise(&mut seed).abs() * 1e6) as usize % 4];
        let far = if at >= 400 { 6.5 } else { 0.0 };
        let z: [f64; 3] = std::array::from_fn(|_| noise(&mut seed));
        let outcome =
            engine.next([Some(hot + z[0] + far), None, Some(press + 0.01 * z[1]), None], &[("alt".into(), altitude + 0.01 * z[2])]);
        if let (Outcome::Opens(_), None) = (outcome, opened_at) {
            opened_at = Some(at);
        }
        if at == 100 {
            let State::Watching(watch) = &engine.detector.state else { panic!("learned") };
            assert_eq!(watch.baseline().regimes(), 4);
        }
    }
    assert!(opened_at.is_some_and(|at| (400..430).contains(&at)), "{opened_at:?}");
}

#[test]
fn another_set_of_sensors_is_learned_anew() {
    let mut engine = Engine::new(rule());
    stream(&mut engine, 100, 1, |_, _| ());
    let mut seed = 1;
    for _ in 0..60 {
        let extra = [("oil".to_owned(), noise(&mut seed))];
        engine.next([Some(300.0), None, None, None], &extra);
    }
    assert!(engine.detector.is_learning());
}

#[test]
fn what_was_learned_goes_on_after_a_restart_and_an_open_episode_is_not_told_twice() {
    let mut engine = Engine::new(rule());
    stream(&mut engine, 100, 1, |_, _| ());
    let kept = serde_json::to_string(engine.detector.take_learned().expect("learned")).expect("JSON");
    assert!(engine.detector.take_learned().is_none(), "given out once");
    let baseline: Baseline = serde_json::from_str(&kept).expect("a baseline");
    assert!(baseline.fits(&rule()) && !baseline.fits(&AnomalyRule { warm_up: 60, ..rule() }));
    for (firing, told) in [(false, 1), (true, 0)] {
        let mut again =
            Engine { detector: Detector::resume(Some(baseline.clone()), firing), at_us: 100_000_000, ..Engine::new(rule()) };
        assert_eq!(stream(&mut again, 60, 2, |_, z| z[0] += 7.0).len(), told, "firing {firing}");
        assert!(again.detector.is_firing());
    }
    let mut healthy = Engine { detector: Detector::resume(Some(baseline), true), at_us: 100_000_000, ..Engine::new(rule()) };
    assert!(matches!(stream(&mut healthy, 60, 2, |_, _| ())[..], [(20, Outcome::Closes(_))]));
}

#[test]
fn memory_is_bounded_by_warm_up_and_metrics() {
    let mut engine = Engine::new(rule());
    let mut most = 0;
    for at in 0..300 {
        // More names than any engine may have, each reading with others.
        let extra: Vec<(String, f64)> = (0..32).map(|n| (format!("{}{:059}", at % 5, n + at), f64::from(at))).collect();
        engine.next([Some(f64::from(at * at % 13)); 4], &extra);
        most = most.max(engine.detector.heap_bytes());
    }
    assert!(most <= 50 * (METRICS_MAX * 4 + 32) + METRICS_MAX * 200, "{most}");
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -10.0..10.0, 1 => proptest::num::f64::NORMAL, 1 => Just(0.0), 1 => Just(f64::MAX), 1 => Just(f64::MIN_POSITIVE)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_finite_readings_leave_finite_numbers(rows in proptest::collection::vec((any_value(), any_value(), proptest::option::of(any_value())), 60..160)) {
        let mut engine = Engine::new(AnomalyRule { warm_up: 20, ..rule() });
        for (a, b, c) in rows {
            let outcome = engine.next([Some(a), c, None, None], &[("x".into(), b)]);
            if let Outcome::Opens(finding) | Outcome::Graver(finding) | Outcome::Closes(finding) = outcome {
                prop_assert!(finding.value.is_finite() && finding.limit.is_none_or(f64::is_finite), "{finding:?}");
            }
        }
        if let Some(baseline) = engine.detector.take_learned() {
            prop_assert!(baseline.fits(&engine.rule));
            let text = serde_json::to_string(baseline).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<Baseline>(&text).expect("a baseline"), baseline);
        }
    }

    #[test]
    fn units_do_not_matter(seed in any::<u64>(), power in -6_i32..6, offset in -1e4..1e4) {
        let factor = 10f64.powi(power);
        let told = |factor: f64, offset: f64| {
            let (mut engine, mut seed) = (Engine::new(rule()), seed);
            let rows = (0..300).map(|at| {
                let z = noise(&mut seed) + if at >= 150 { 7.5 } else { 0.0 };
                (at, engine.next([Some((z + offset) * factor), None, None, None], &[]))
            });
            rows.filter(|(_, outcome)| matches!(outcome, Outcome::Opens(_))).map(|(at, _)| at).collect::<Vec<i32>>()
        };
        prop_assert_eq!(told(factor, offset), told(1.0, 0.0));
    }

    #[test]
    fn the_order_of_the_metrics_does_not_matter(seed in any::<u64>(), order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle()) {
        let run = |order: &[usize]| {
            let (mut engine, mut seed) = (Engine::new(rule()), seed);
            let mut told = Vec::new();
            for at in 0..300 {
                let z: Vec<f64> = (0..5).map(|metric| noise(&mut seed) + if at >= 150 && metric == 2 { 9.0 } else { 0.0 }).collect();
                let extra: Vec<(String, f64)> = order.iter().map(|metric| (format!("m{metric}"), z[*metric])).collect();
                if let Outcome::Opens(finding) = engine.next([None; 4], &extra) {
                    told.push((at, finding.text("e1")));
                }
            }
            told
        };
        prop_assert_eq!(run(&order), run(&[0, 1, 2, 3, 4]));
    }
}

#[test]
fn a_damaged_baseline_does_not_fit() {
    let mut engine = Engine::new(rule());
    stream(&mut engine, 60, 1, |_, _| ());
    let good = engine.detector.take_learned().expect("learned").clone();
    let mut zero = good.clone();
    zero.normals[0].scale = 0.0;
    let mut short = good.clone();
    short.normals[1].location = Box::default();
    assert!(good.fits(&rule()) && !zero.fits(&rule()) && !short.fits(&rule()));
    assert!(Watch::new(good).baseline().judged() == 4);
}
