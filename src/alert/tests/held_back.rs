//! Silences, inhibition, and what the audit finds.

use super::super::round::Surroundings;
use super::telling::{HOUR, SECOND, World, pager};
use super::*;
use crate::{
    domain::silence::Matchers,
    store::{
        alerts,
        deliveries::Claim,
        silences::{self, NewSilence},
    },
};

fn silence(world: &World, subject: &str, from_us: i64, until_us: i64) -> String {
    let new = NewSilence {
        matchers: Matchers { subject: Some(subject.into()), ..Matchers::default() },
        starts_at_us: world.now_us + from_us,
        ends_at_us: world.now_us + until_us,
        reason: "works".into(),
        by: "kim".into(),
    };
    world.with(|conn| silences::create(conn, &new, world.now_us)).id
}

fn audit() -> Surroundings {
    Surroundings { audit: true, ..Surroundings::default() }
}

#[test]
fn a_silenced_alert_is_recorded_and_told_when_the_silence_ends_and_it_still_fires() {
    let mut world = World::new(vec![pager()]);
    let id = silence(&world, "e*", 0, HOUR);
    world.begin("overheat", "e1", Level::Critical);
    world.begin("overheat", "e2", Level::Critical);
    world.begin("overheat", "other", Level::Critical);
    assert_eq!(world.heard(), ["firing other"]);
    let alert = world.open("e1").id;
    let notices = world.with(|conn| alerts::notices::of_alert(conn, &alert));
    assert_eq!((notices[0].reason.as_str(), notices[0].detail.as_deref()), ("silenced", Some(id.as_str())));
    let e2 = world.open("e2").id;
    world.later(HOUR / 2).end("overheat", "e2");
    world.round(Surroundings::default());
    assert!(world.later(SECOND).heard().is_empty());
    assert_eq!(world.reasons(&e2), ["firing silenced", "resolved not_told"]);
    world.later(HOUR / 2).round(Surroundings::default());
    assert_eq!(world.heard(), ["firing e1"], "it still fires");
    assert_eq!(world.reasons(&alert), ["firing silenced", "firing route"]);
    world.later(2 * SECOND).end("overheat", "e1");
    assert_eq!(world.heard(), ["resolved e1"]);
}

#[test]
fn a_silence_holds_repeats_back_but_no_end_that_somebody_waits_for() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Warning);
    world.begin("overheat", "e2", Level::Warning);
    world.later(SECOND);
    assert_eq!(world.heard().len(), 2);
    let id = silence(&world, "*", 0, 9 * HOUR);
    world.later(4 * HOUR).round(Surroundings::default());
    assert!(world.later(SECOND).heard().is_empty());
    world.later(SECOND).end("overheat", "e2");
    assert_eq!(world.heard(), ["resolved e2"]);
    world.with(|conn| {
        silences::expire(conn, &id, "lee", world.now_us)?;
        alerts::looks::release_silenced(conn, world.now_us)
    });
    world.later(2 * SECOND).round(Surroundings::default());
    assert_eq!(world.heard(), ["repeat e1"], "ended early: told at once");
}

#[test]
fn a_silence_to_come_holds_nothing_back_yet_and_the_longest_counts() {
    let mut world = World::new(vec![pager()]);
    silence(&world, "e1", HOUR, 2 * HOUR);
    world.begin("overheat", "e1", Level::Warning);
    assert_eq!(world.heard(), ["firing e1"]);
    silence(&world, "e2", 0, HOUR);
    silence(&world, "e2", 0, 3 * HOUR);
    world.later(2 * SECOND).begin("overheat", "e2", Level::Warning);
    world.later(HOUR).round(Surroundings::default());
    assert!(world.heard().is_empty(), "the other silence still holds");
    world.later(2 * HOUR).round(Surroundings::default());
    assert_eq!(world.heard(), ["firing e2"]);
}

#[test]
fn a_critical_of_the_same_subject_and_kind_holds_lesser_ones_back_until_it_is_over() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Critical);
    world.begin("overspeed", "e1", Level::Warning);
    world.begin("hum", "e1", Level::Info);
    world.begin("overspeed", "e2", Level::Warning);
    world.raise(vec![Transition { kind: AlertKind::System, ..world.transition("busy", "e1", Level::Warning, true) }]);
    world.begin("fire", "e1", Level::Critical);
    world.later(SECOND);
    assert_eq!(
        world.heard(),
        ["firing e1", "firing e2", "firing e1", "firing e1"],
        "another subject, another kind, another CRITICAL"
    );
    world.later(SECOND).end("overheat", "e1");
    world.round(Surroundings::default());
    assert_eq!(world.later(SECOND).heard(), ["resolved e1"], "the fire still holds them back");
    world.later(SECOND).end("hum", "e1");
    world.later(SECOND).end("fire", "e1");
    world.round(Surroundings::default());
    world.later(SECOND);
    assert_eq!(world.heard(), ["resolved e1", "firing e1"], "overspeed is told now, and hum was over before");
}

#[test]
fn what_is_held_back_and_becomes_critical_is_told() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Critical);
    world.begin("overspeed", "e1", Level::Warning);
    assert_eq!(world.heard().len(), 1);
    world.later(2 * SECOND).begin("overspeed", "e1", Level::Critical);
    assert_eq!(world.heard(), ["escalated e1"]);
}

#[test]
fn a_notice_that_vanished_is_made_again_and_told_of() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Warning);
    world.begin("overheat", "e2", Level::Warning);
    assert_eq!(world.later(SECOND).heard().len(), 2);
    assert!(world.round(audit()).found.conditions.is_empty(), "all is well");
    let id = world.open("e1").id;
    world.sql(&format!("DELETE FROM deliveries WHERE subject = '{id}'"));
    let found = world.later(2 * SECOND).round(audit()).found;
    let named = |found: &[Transition]| found.iter().map(|one| (one.name.clone(), one.firing)).collect::<Vec<_>>();
    assert_eq!(named(&found.conditions), [("notification-missing".to_owned(), true)]);
    assert_eq!(world.heard(), ["firing e1"]);
    // Of e2 nobody ever decided anything.
    world.sql(&format!("DELETE FROM alert_notices WHERE alert_id = '{}'", world.open("e2").id));
    world.later(2 * SECOND).round(audit());
    assert_eq!(world.heard(), ["firing e2"]);
    world.raise(found.conditions);
    let around = Surroundings { open: world.with(alerts::open), ..audit() };
    assert_eq!(named(&world.later(2 * SECOND).round(around).found.conditions), [("notification-missing".to_owned(), false)]);
}

#[test]
fn what_is_due_and_untouched_is_told_unless_its_sink_is_away_or_busy() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Warning);
    assert!(world.later(59 * SECOND).round(audit()).found.conditions.is_empty(), "not yet");
    let away = Surroundings { away: vec!["pager".into()], ..audit() };
    assert!(world.later(2 * SECOND).round(away).found.conditions.is_empty(), "its circuit is open");
    let found = world.round(audit()).found;
    let told: Vec<_> = found.conditions.iter().map(|one| (one.name.as_str(), one.subject.as_str(), one.firing)).collect();
    assert_eq!(told, [("delivery-overdue", "pager", true)]);
    assert_eq!(found.overdue, Some(vec![("pager".to_owned(), 1)]));
    world.raise(found.conditions);
    // It is told to others, and to the log where there is nobody else.
    let open = || Surroundings { open: world.with(alerts::open), ..audit() };
    assert!(world.round(open()).found.conditions.is_empty(), "once");
    let lease = std::time::Duration::from_secs(60);
    let claim = Claim { sink: "pager", worker: "w", limit: 9, per_lane: 9, after: None, lease, now_us: 1 };
    assert_eq!(world.with(|conn| conn.write(|conn| deliveries::claim_due(conn, &claim))).rows.len(), 1);
    let over = world.round(open()).found.conditions;
    assert_eq!(over.iter().map(|one| (one.name.as_str(), one.firing)).collect::<Vec<_>>(), [("delivery-overdue", false)]);
}

fn with_fallback() -> World {
    let mut world = World::new(vec![pager()]);
    let parsed = crate::config::parse(
        "[[webhooks]]\nname = \"pager\"\nurl = \"http://h\"\nfallback = \"log\"\n[[webhooks]]\nname = \"phone\"\nurl = \"http://h\"\n",
    );
    world.config.webhooks = parsed.expect("no fault").webhooks;
    world
}

#[test]
fn what_waits_too_long_is_copied_to_the_fallback_once_and_says_so() {
    let mut world = with_fallback();
    world.begin("overheat", "e1", Level::Warning);
    world.later(299 * SECOND).round(Surroundings::default());
    let all = |world: &World| world.with(deliveries::counts).iter().map(|count| count.count).sum::<u64>();
    assert_eq!(all(&world), 1, "not yet");
    assert_eq!(world.later(SECOND).round(Surroundings::default()).found.copied, ["pager"]);
    for _ in 0..3 {
        assert!(world.later(HOUR).round(Surroundings::default()).found.copied.is_empty(), "once, and no copy of a copy");
    }
    let sent = world.sent();
    let copies: Vec<_> = sent.iter().filter(|notice| notice["fallbackFrom"].is_object()).collect();
    assert_eq!(copies.len(), 1, "{sent:?}");
    let original = world.with(|conn| alerts::notices::of_alert(conn, &world.open("e1").id))[0].delivery_id.clone();
    let from = &copies[0]["fallbackFrom"];
    assert_eq!((from["sink"].as_str(), from["deliveryId"].as_str()), (Some("pager"), original.as_deref()));
    assert_eq!((&copies[0]["event"], &copies[0]["subject"], &from["reason"]), (&"firing".into(), &"e1".into(), &"waiting".into()));
    // The copy is gone by age before its original has been decided: it is not made again.
    world.sql("DELETE FROM deliveries WHERE sink = 'log'; UPDATE deliveries SET state = 'dead'");
    assert!(world.round(Surroundings::default()).found.copied.is_empty());
}

#[test]
fn what_can_never_be_delivered_is_copied_at_once_and_what_died_long_ago_is_not() {
    let mut world = with_fallback();
    world.begin("overheat", "e1", Level::Warning);
    world.sql(&format!("UPDATE deliveries SET state = 'dead', updated_at_us = {}", world.now_us));
    world.later(25 * HOUR).begin("overheat", "e2", Level::Warning);
    world.sql(&format!("UPDATE deliveries SET state = 'dead', updated_at_us = {} WHERE state <> 'dead'", world.now_us));
    assert_eq!(world.round(Surroundings::default()).found.copied, ["pager"]);
    let sent = world.sent();
    assert_eq!((&sent[0]["subject"], &sent[0]["fallbackFrom"]["reason"]), (&"e2".into(), &"dead".into()));
}
