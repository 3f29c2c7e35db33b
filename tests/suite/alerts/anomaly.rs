//! An anomaly rule through the whole daemon: readings are pushed, and an engine that wears is warned of before its threshold is reached.

use crate::support::daemon::{Daemon, Setup};

/// Noise of standard deviation 1, about normal, and the same in each run.
fn noise(n: u64, metric: u64) -> f64 {
    let uniform = |k: u64| {
        let mut word = (n * 97 + metric * 13 + k + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (word >> 40) as f64 / (1_u64 << 24) as f64
    };
    (0..12).map(uniform).sum::<f64>() - 6.0
}

/// Pushes readings `from` to `to` of `engine`, whose temperature is too high by `worn` standard deviations for each reading behind 200.
fn push(daemon: &Daemon, engine: &str, (from, to): (u64, u64), worn: f64) {
    let one = |n: u64| {
        let excess = worn * n.saturating_sub(200) as f64;
        format!(
            r#"{{"engineId":"{engine}","timestamp":{},"temperature":{:.4},"rpm":{:.3},"pressure":{:.5},"fuelFlow":{:.6}}}"#,
            1_700_000_000_000 + n * 1_000,
            300.0 + 2.0 * (noise(n, 0) + excess),
            5_000.0 + 20.0 * noise(n, 1),
            40.0 + 0.2 * noise(n, 2),
            2.0 + 0.01 * noise(n, 3),
        )
    };
    let body = format!("[{}]", (from..to).map(one).collect::<Vec<_>>().join(","));
    let answer = daemon.post("/api/readings", &body);
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(to - from)), "{}", answer.body);
}

/// Names, subjects, levels and states of the alerts of rules.
fn alerts(daemon: &Daemon) -> Vec<[String; 4]> {
    let listed = daemon.get("/api/alerts?kind=rule").json();
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .map(|alert| ["name", "subject", "level", "state"].map(|key| alert[key].as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[test]
fn an_engine_that_wears_is_warned_of_before_its_threshold_and_others_are_not() {
    let mut daemon = Setup::with(
        "[[rules]]\nname = \"wear\"\nkind = \"anomaly\"\n\
         [[rules]]\nname = \"too-hot\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 350\nlevel = \"CRITICAL\"\n",
    )
    .start();
    push(&daemon, "sound", (0, 100), 0.0);
    push(&daemon, "worn", (0, 100), 0.0);
    assert_eq!(daemon.drained(), 200);
    assert!(alerts(&daemon).is_empty(), "{:?}", alerts(&daemon));
    // What was learned outlives a restart: a worn engine must not be taken for a new one.
    assert!(daemon.stop().success());
    daemon.start_again();
    push(&daemon, "sound", (100, 400), 0.0);
    push(&daemon, "worn", (100, 260), 0.2);
    // At 312 degrees, far below the threshold. The answer waited for the alert.
    let warning = ["wear", "worn", "WARNING", "firing"].map(str::to_owned);
    assert_eq!(alerts(&daemon), [warning]);
    let alert = daemon.get("/api/alerts?name=wear&subject=worn").json()["items"][0].clone();
    assert!(alert["text"].as_str().is_some_and(|text| text.contains("temperature") && text.contains("sd")), "{alert}");
    // It goes on until it is too hot, which the threshold tells.
    push(&daemon, "worn", (260, 400), 0.2);
    let after = alerts(&daemon);
    assert!(after.contains(&["too-hot", "worn", "CRITICAL", "firing"].map(str::to_owned)), "{after:?}");
    assert!(after.iter().all(|alert| alert[1] == "worn"), "{after:?}");
}
