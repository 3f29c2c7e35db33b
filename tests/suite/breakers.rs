//! The circuit breakers of Kafka and Redis keep to what their sections say. Neither server is there.

use std::time::Duration;

use crate::{
    redis::state,
    support::daemon::{Daemon, Setup, free_address},
};

/// A daemon whose Kafka and Redis are away, with further lines for both sections.
fn alone(breaker: &str) -> Daemon {
    let (kafka, redis) = (free_address(), free_address());
    Setup::with(&format!(
        "[kafka]\nbrokers = \"{kafka}\"\ntimeout = \"100ms\"\n{breaker}\n[buffer]\ntier = \"redis\"\nflush_interval = \"50ms\"\n\
         [redis]\nurl = \"redis://{redis}\"\ntimeout = \"100ms\"\n{breaker}\n"
    ))
    .start()
}

fn circuit(daemon: &Daemon, party: &str) -> f64 {
    daemon.metric(&format!("belayd_circuit_state{{party=\"{party}\"}}"))
}

/// Failed tries to reach Kafka.
fn failures(daemon: &Daemon) -> f64 {
    let metrics = daemon.get("/metrics").body;
    let lines = metrics.lines().filter(|line| line.starts_with("belayd_send_failures_total{sink=\"kafka\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn kafka_and_redis_are_left_alone_as_their_sections_say() {
    // By default both open soon; and with a long pause nothing more is tried.
    let daemon = alone("breaker_pause = \"1h\"\nbreaker_pause_max = \"1h\"");
    daemon
        .wait_for("both open", Duration::from_secs(90), |daemon| circuit(daemon, "kafka") > 1.0 && circuit(daemon, "redis") > 1.0);
    // Streams that were being opened end that first.
    std::thread::sleep(Duration::from_secs(3));
    let before = failures(&daemon);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(failures(&daemon), before);
    let shown = daemon.get("/admin/config").json();
    for section in ["kafka", "redis"] {
        assert_eq!(shown[section]["breakerPause"], "1h", "{shown}");
    }

    // One that forgives a thousand failures stays closed over many.
    let daemon = alone("breaker_failures = 1000");
    daemon.wait_for("tried", Duration::from_secs(90), |daemon| failures(daemon) >= 4.0);
    assert_eq!(circuit(&daemon, "kafka"), 0.0);
    assert_eq!((state(&daemon), circuit(&daemon, "redis")), ("down".to_owned(), 0.0));
}
