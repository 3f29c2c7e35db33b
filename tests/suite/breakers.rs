//! The circuit breakers of the database, Kafka and Redis: they keep to what their sections say while neither server is there, and turn with real ones
//! where everybody can see it.

use std::time::Duration;

use crate::{
    redis::state,
    support::{
        daemon::{Daemon, Setup, free_address},
        kafka::Kafka,
        postgres::{self, Postgres},
        redis::{self, Redis},
    },
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

#[test]
fn the_database_is_left_alone_as_its_section_says() {
    if !postgres::is_installed() {
        return;
    }
    let mut database = Postgres::start(&["fsync=off"]);
    let on = |name: &str| Setup::with("[buffer]\nflush_interval = \"50ms\"\n").store(&database.new_database(name));
    let patient = on("patient").env("BELAYD__STORE__BREAKER_PAUSE", "1h").env("BELAYD__STORE__BREAKER_PAUSE_MAX", "1h").start();
    let forgiving = on("forgiving").env("BELAYD__STORE__BREAKER_FAILURES", "1000").start();
    let push = |daemon: &Daemon, n: i64| {
        let body = format!(r#"{{"engineId":"e","timestamp":{},"rpm":1}}"#, 1_700_000_000_000 + n);
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    };
    let limit = Duration::from_secs(60);
    for daemon in [&patient, &forgiving] {
        push(daemon, 1);
        daemon.wait_for("stored", limit, |daemon| daemon.metric("belayd_readings_stored_total") == 1.0);
    }
    database.crash();
    push(&patient, 2);
    push(&forgiving, 2);
    patient.wait_for("open", limit, |daemon| circuit(daemon, "database") == 2.0);
    forgiving.wait_for("buffering", limit, |daemon| daemon.get("/readyz").body.contains("buffering"));
    assert_eq!(circuit(&forgiving, "database"), 0.0, "a thousand failures are forgiven");
    database.restart();
    forgiving.wait_for("stored", limit, |daemon| daemon.metric("belayd_readings_stored_total") == 2.0);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((circuit(&patient, "database"), patient.metric("belayd_readings_buffered")), (2.0, 1.0), "left alone for an hour");
}

/// What `/api/state` and the overview say of a party's circuit.
fn shown(daemon: &Daemon, party: &str) -> (String, String) {
    let state = daemon.get("/api/state").json();
    let circuits = state["circuits"].as_array().cloned().unwrap_or_default();
    let told =
        circuits.iter().find(|one| one["party"] == party).and_then(|one| one["state"].as_str()).unwrap_or_default().to_owned();
    let page = daemon.get("/").body;
    let list =
        page.split("data-list=\"circuits\"").nth(1).and_then(|rest| rest.split("</ul>").next()).unwrap_or_default().to_owned();
    let word = list.split(&format!("<b>{party}</b><span>")).nth(1).and_then(|rest| rest.split('<').next()).unwrap_or_default();
    (told, word.to_owned())
}

#[test]
fn a_real_redis_and_a_real_kafka_that_are_killed_and_come_back_turn_their_circuits_in_log_metrics_state_and_page() {
    if !redis::is_installed() {
        return;
    }
    let Some(mut kafka) = Kafka::start() else { return };
    let mut server = Redis::start(&["--appendfsync everysec"]);
    // Longer pauses than by default: open is to be seen.
    let pauses = "breaker_pause = \"2s\"\nbreaker_pause_max = \"2s\"";
    let mut setup = Setup::with(&format!(
        "[kafka]\nbrokers = \"{}\"\npartitions = 1\nreplication = 1\ntimeout = \"1s\"\n{pauses}\n\
         [buffer]\ntier = \"redis\"\nflush_interval = \"50ms\"\n[redis]\nurl = \"{}\"\ntimeout = \"500ms\"\n{pauses}\n",
        kafka.brokers(),
        server.url()
    ));
    setup.log = "info,belayd::circuit=debug".into();
    let daemon = setup.start();
    let limit = Duration::from_secs(180);
    let push = |n: i64| {
        let body = format!(r#"{{"engineId":"e","timestamp":{},"rpm":1}}"#, 1_700_000_000_000 + n);
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    };
    let parties = ["kafka", "redis"];
    let all = |what: &str, metric: f64| {
        daemon.wait_for(what, limit, |daemon| {
            parties
                .iter()
                .all(|party| circuit(daemon, party) == metric && shown(daemon, party) == (what.to_owned(), what.to_owned()))
        });
    };
    push(1);
    daemon.wait_for("up", limit, |daemon| state(daemon) == "up" && daemon.metric("belayd_readings_relayed_total") == 1.0);
    all("closed", 0.0);
    kafka.kill();
    server.kill();
    push(2);
    for party in parties {
        daemon.wait_for("open", limit, |daemon| {
            circuit(daemon, party) == 2.0 && shown(daemon, party) == ("open".to_owned(), "open".to_owned())
        });
    }
    // It is seen by who looks: a try lasts for as long as the time-out.
    daemon.wait_for("half-open", limit, |daemon| circuit(daemon, "kafka") == 1.0);
    server.restart();
    kafka.restart();
    all("closed", 0.0);
    daemon.wait_for("relayed", limit, |daemon| daemon.metric("belayd_readings_relayed_total") == 2.0);
    let log = daemon.log();
    for party in parties {
        for state in ["open", "half-open", "closed"] {
            let turned = |line: &str| {
                line.contains("circuit breaker turned")
                    && line.contains(&format!("party={party} "))
                    && line.contains(&format!("circuit={state} "))
            };
            assert!(log.lines().any(turned), "{party} {state}");
        }
    }
}
