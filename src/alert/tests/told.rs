//! Nobody is left with an alert that never ends, and nothing is swallowed: by routes that change, by silences, by a clock that is set
//! back, by a control store that fails for a while.

use super::super::round::Surroundings;
use super::telling::{HOUR, SECOND, World, pager};
use super::*;
use crate::{
    domain::silence::Matchers,
    store::{
        alerts::{self, notices::REPEATS_KEPT},
        silences::{self, NewSilence},
    },
};

fn audit() -> Surroundings {
    Surroundings { audit: true, ..Surroundings::default() }
}

#[test]
fn whoever_was_told_by_a_route_that_is_gone_is_told_of_the_end() {
    let mut world = World::new(vec![pager(), RouteConfig::to(vec!["log".into()])]);
    world.begin("overheat", "e1", Level::Warning);
    assert_eq!(world.heard(), ["firing e1", "firing e1"]);
    let id = world.open("e1").id;
    world.config.routes = vec![RouteConfig::to(vec!["phone".into()])];
    world.later(2 * SECOND).end("overheat", "e1");
    assert_eq!(world.heard(), ["resolved e1"], "the log still is a sink; the pager is none any more, and the phone knew nothing");
    let told = world.with(|conn| alerts::notices::of_alert(conn, &id));
    let told: Vec<String> = told.iter().skip(2).map(|one| format!("{} {} {}", one.event, one.sink, one.reason)).collect();
    assert_eq!(told, ["resolved pager no_route", "resolved phone not_told", "resolved log route"]);
}

#[test]
fn a_rise_that_a_silence_or_a_critical_held_back_is_told_when_that_is_over() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Warning);
    world.begin("hum", "e2", Level::Info);
    assert_eq!(world.later(SECOND).heard(), ["firing e1", "firing e2"]);
    let new = NewSilence {
        matchers: Matchers { subject: Some("e1".into()), ..Matchers::default() },
        starts_at_us: world.now_us,
        ends_at_us: world.now_us + HOUR,
        reason: "works".into(),
        by: "kim".into(),
    };
    world.with(|conn| silences::create(conn, &new, world.now_us));
    world.later(SECOND).begin("overheat", "e1", Level::Critical);
    world.begin("fire", "e2", Level::Critical);
    world.begin("hum", "e2", Level::Warning);
    assert_eq!(world.later(SECOND).heard(), ["firing e2"], "the fire");
    world.later(2 * SECOND).end("fire", "e2");
    world.round(Surroundings::default());
    assert_eq!(world.later(SECOND).heard(), ["resolved e2", "escalated e2"], "hum is a WARNING now");
    world.later(HOUR).round(Surroundings::default());
    assert_eq!(world.later(SECOND).heard(), ["escalated e1"]);
    world.reroute();
    world.round(Surroundings::default());
    assert!(world.later(SECOND).heard().is_empty(), "once");
}

#[test]
fn a_clock_that_is_set_back_does_not_hold_back_what_was_about_to_be_told() {
    let mut world = World::new(vec![pager()]);
    let storm = |world: &World, subject: &str| {
        world.raise((0..30).map(|n| world.transition("overheat", &format!("{subject}{n}"), Level::Warning, true)).collect());
    };
    storm(&world, "e");
    let heard = world.heard();
    assert_eq!(heard, ["firing e0"], "the others wait for their digest");
    world.later(-HOUR).round(audit());
    let sent = world.later(SECOND).sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!((sent[0]["event"].as_str(), sent[0]["count"].as_u64()), (Some("digest"), Some(29)));
    world.later(10 * SECOND).begin("overheat", "late", Level::Warning);
    assert_eq!(world.heard(), ["firing late"], "and nothing waits for the old time");
}

#[test]
fn repeats_of_one_alert_are_kept_in_number() {
    let often = RouteConfig { repeat_interval: Some(Duration::from_secs(60)), ..pager() };
    let mut world = World::new(vec![often]);
    world.begin("overheat", "e1", Level::Warning);
    for _ in 0..REPEATS_KEPT + 20 {
        world.later(60 * SECOND).round(Surroundings::default());
    }
    let reasons = world.reasons(&world.open("e1").id);
    assert_eq!((reasons.len() as i64, reasons[0].as_str()), (REPEATS_KEPT + 1, "firing route"));
    world.later(60 * SECOND).end("overheat", "e1");
    assert_eq!(world.heard().last().map(String::as_str), Some("resolved e1"));
}

#[actix::test]
async fn new_routes_are_followed_although_the_control_store_failed_when_they_came() {
    let log = RouteConfig::to(vec!["log".into()]);
    let bench = bench_with(Config { routes: vec![pager()], ..Config::default() });
    raise(&bench, vec![Transition { level: Level::Warning, ..transition("e1", true) }]).await.expect("committed");
    let rename = |text: &'static str| {
        let renamed = bench.store.with(|conn| diesel::connection::SimpleConnection::batch_execute(conn, text).map_err(Into::into));
        renamed.expect("renames");
    };
    rename("ALTER TABLE alerts RENAME TO away");
    let config = Arc::new(Config { routes: vec![pager(), log], ..Config::default() });
    bench.config.store(config.clone());
    bench.actor.do_send(crate::protocol::Reconfigure(config));
    // A person is refused only once a commit has failed, and the new routes with him.
    assert!(matches!(acknowledge(&bench, "x").await, Err(AcknowledgeError::Unavailable(_))));
    rename("ALTER TABLE away RENAME TO alerts");
    let told = || {
        let counts = bench.store.with(deliveries::counts).expect("counts");
        counts.iter().any(|count| count.sink == "log")
    };
    let end = Instant::now() + Duration::from_secs(30);
    while !told() {
        assert!(Instant::now() < end, "the log was never told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
