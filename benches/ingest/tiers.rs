//! Tiers redis and triple with PostgreSQL and Redis on the same machine: how much is acknowledged at the tier's own level while the database
//! is written as fast as it goes.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    daemon::Daemon,
    load::Refused,
    redis_server::{self, Redis},
    report::{
        Aim::{self, AtLeast, AtMost},
        Figure, Scenario, aimed, plain,
    },
    setup::{self, Bench, Database},
};

pub const REDIS_EVERYSEC: Scenario = Scenario {
    name: "redis-everysec",
    what: "pushes of 100 on 16 connections acknowledged by a Redis with appendfsync everysec, into PostgreSQL",
    once: false,
    run: |bench| tier(bench, "redis", "everysec", AtLeast(100_000.0)),
};
pub const REDIS_ALWAYS: Scenario = Scenario {
    name: "redis-always",
    what: "pushes of 100 on 16 connections acknowledged by a Redis with appendfsync always, into PostgreSQL",
    once: false,
    run: |bench| tier(bench, "redis", "always", AtLeast(50_000.0)),
};
pub const TRIPLE: Scenario = Scenario {
    name: "triple",
    what: "pushes of 100 on 16 connections acknowledged by PostgreSQL's commit, with a copy in Redis (everysec)",
    once: false,
    run: |bench| tier(bench, "triple", "everysec", AtLeast(40_000.0)),
};

fn tier(bench: &mut Bench, tier: &str, fsync: &str, aim: Aim) -> Vec<Figure> {
    if !redis_server::is_installed() {
        return Vec::new();
    }
    let server = Redis::start(&[&format!("--appendfsync {fsync}")]);
    let more = format!("[buffer]\ntier = \"{tier}\"\njournal_bytes = \"8GB\"\n[redis]\nurl = \"{}\"\n", server.url());
    let daemon = bench.daemon(Database::Postgres, &more);
    let (other, level) = (["journal", "memory"], if tier == "triple" { "store" } else { "redis" });
    let until = Instant::now() + Duration::from_secs(30);
    while daemon.get("/admin/buffer").json()["redis"]["state"] != "up" {
        assert!(Instant::now() < until, "Redis is not used; the log:\n{}", daemon.log());
        thread::sleep(Duration::from_millis(20));
    }
    let at = |level: &str| daemon.metric(&format!("belayd_ack_seconds_count{{level=\"{level}\"}}"));
    let before = (at(level), other.map(at));
    let (cpu, stored) = (daemon.cpu(), daemon.metric("belayd_readings_stored_total"));
    let outcome = setup::load(&daemon, 16, 100).closed_under(bench.length(), &Arc::default(), Refused::Ends);
    let took = outcome.took.as_secs_f64();
    let cpu = (daemon.cpu() - cpu).as_secs_f64() / took * 100.0;
    let stored = daemon.metric("belayd_readings_stored_total") - stored;
    let pushes = at(level) - before.0;
    let lower: f64 = other.iter().zip(before.1).map(|(level, before)| at(level) - before).sum();
    let (private, resident) = daemon.memory();
    let behind = uncopied(&daemon);
    setup::check_all_stored(&daemon, outcome.accepted, Duration::from_secs(120));
    vec![
        aimed("readings/s acknowledged at the tier's level", outcome.readings_per_s() * pushes / (pushes + lower).max(1.0), aim),
        plain("pushes acknowledged at a lower level", lower),
        plain("answer p50, ms", outcome.ms(0.5)),
        plain("answer p99, ms", outcome.ms(0.99)),
        plain("readings/s stored meanwhile", stored / took),
        plain("readings without their copy at the end", behind),
        plain("daemon, % of a core", cpu),
        aimed("RssAnon, MB", private as f64 / 1e6, AtMost(24.0)),
        plain("VmRSS, MB", resident as f64 / 1e6),
        plain("refused pushes", outcome.refused as f64),
    ]
}

fn uncopied(daemon: &Daemon) -> f64 {
    daemon.metric("belayd_redis_uncopied_readings")
}
