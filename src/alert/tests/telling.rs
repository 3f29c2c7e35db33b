//! Whom an alert is told and when, by an injected clock: spacing, storms, repeats, routes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::{
    order::{Done, Order, carry_out_all},
    round::Surroundings,
};
use super::*;
use crate::{
    domain::{
        alert::Labels,
        rule::{Op, Rule},
    },
    store::{StoreResult, alerts},
};

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const HOUR: i64 = 3_600 * SECOND;

/// A control store, a configuration, and a clock that stands until it is moved.
pub(super) struct World {
    _dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) config: Config,
    pub(super) now_us: i64,
}

impl World {
    pub(super) fn new(routes: Vec<RouteConfig>) -> Self {
        let (dir, store) = scratch();
        let config = Config { routes, ..Config::default() };
        Self { _dir: dir, store, config, now_us: 1_000 * HOUR }
    }

    fn order(&self, order: Order) -> Done {
        let orders = [Arc::new(order)];
        let mut done = self.store.with(|conn| carry_out_all(conn, &orders, &self.config, self.now_us)).expect("committed");
        done.remove(0)
    }

    pub(super) fn raise(&self, transitions: Vec<Transition>) -> Done {
        self.order(Order::Transitions(transitions))
    }

    pub(super) fn begin(&self, name: &str, subject: &str, level: Level) {
        self.raise(vec![self.transition(name, subject, level, true)]);
    }

    pub(super) fn end(&self, name: &str, subject: &str) {
        self.raise(vec![self.transition(name, subject, Level::Info, false)]);
    }

    pub(super) fn transition(&self, name: &str, subject: &str, level: Level, firing: bool) -> Transition {
        let at_us = self.now_us;
        Transition { name: name.into(), level, observed_at_us: at_us, arrived_at_us: at_us, ..super::transition(subject, firing) }
    }

    pub(super) fn round(&self, around: Surroundings) -> Done {
        self.order(Order::Round(around))
    }

    pub(super) fn later(&mut self, us: i64) -> &mut Self {
        self.now_us += us;
        self
    }

    pub(super) fn acknowledge(&self, id: &str) {
        self.order(Order::Acknowledge { id: id.into(), by: "kim".into(), reason: None });
    }

    pub(super) fn reroute(&self) {
        self.order(Order::Rerouted);
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut crate::store::Conn) -> StoreResult<T>) -> T {
        self.store.with(f).expect("works")
    }

    pub(super) fn sql(&self, text: &str) {
        self.with(|conn| diesel::connection::SimpleConnection::batch_execute(conn, text).map_err(Into::into));
    }

    /// What has left by now, in order: everything that is due leaves at once.
    pub(super) fn sent(&self) -> Vec<Value> {
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            payload: String,
        }
        let text = format!(
            "UPDATE deliveries SET state = 'sent' WHERE sink <> 'issues' AND \
             (state = 'ready' OR (state = 'scheduled' AND due_at_us <= {})) RETURNING payload",
            self.now_us
        );
        let rows: Vec<Row> = self.with(|conn| diesel::RunQueryDsl::load(diesel::sql_query(text), conn).map_err(Into::into));
        rows.into_iter().map(|row| serde_json::from_str(&row.payload).expect("JSON")).collect()
    }

    /// The same as `event subject`.
    pub(super) fn heard(&self) -> Vec<String> {
        let word = |notice: &Value, name: &str| notice[name].as_str().unwrap_or_default().to_owned();
        self.sent().iter().map(|notice| format!("{} {}", word(notice, "event"), word(notice, "subject"))).collect()
    }

    /// The open alert of this subject.
    pub(super) fn open(&self, subject: &str) -> Alert {
        let open = self.with(alerts::open);
        open.into_iter().find(|alert| alert.subject == subject).expect("open")
    }

    /// `event reason` of each notice, oldest first.
    pub(super) fn reasons(&self, id: &str) -> Vec<String> {
        let notices = self.with(|conn| alerts::notices::of_alert(conn, id));
        notices.into_iter().map(|notice| format!("{} {}", notice.event, notice.reason)).collect()
    }
}

pub(super) fn pager() -> RouteConfig {
    RouteConfig::to(vec!["pager".into()])
}

fn storm(world: &World, count: usize, firing: bool) -> Vec<Transition> {
    (0..count).map(|n| world.transition("overheat", &format!("e{n}"), Level::Warning, firing)).collect()
}

#[test]
fn the_first_is_told_at_once_and_what_follows_within_a_second_a_little_later_each_alone() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Critical);
    assert_eq!(world.heard(), ["firing e1"]);
    world.later(300_000).begin("overheat", "e2", Level::Critical);
    world.later(1).end("overheat", "e1");
    assert!(world.heard().is_empty(), "it waits for more");
    world.later(39_999);
    assert_eq!(world.heard(), ["firing e2"]);
    world.later(1);
    assert_eq!(world.heard(), ["resolved e1"]);
    world.later(SECOND).end("overheat", "e2");
    assert_eq!(world.heard(), ["resolved e2"], "quiet for a second: at once again");
}

#[test]
fn ten_thousand_at_once_are_three_messages_and_all_of_them_in_the_history() {
    let mut world = World::new(vec![pager()]);
    world.raise(storm(&world, 10_000, true));
    let alone = world.heard();
    assert_eq!(alone, ["firing e0"], "the first does not wait");
    world.later(40_000);
    let digest = world.sent();
    assert_eq!(digest.len(), 1);
    let digest = &digest[0];
    assert_eq!((&digest["event"], &digest["level"]), (&"digest".into(), &"WARNING".into()));
    assert_eq!((&digest["count"], &digest["firing"], &digest["resolved"]), (&9_999.into(), &9_999.into(), &0.into()));
    assert_eq!(digest["title"], "WARNING digest of 9999 alerts: 9999 firing, 0 resolved");
    let shown = digest["alerts"].as_array().expect("alerts");
    assert_eq!((shown.len(), &shown[0]["subject"], &shown[0]["event"]), (50, &"e1".into(), &"firing".into()));
    assert!(shown.iter().all(|notice| notice["id"].is_string() && notice["labels"].is_object()));

    world.later(SECOND);
    world.raise(storm(&world, 10_000, false));
    assert!(world.sent().is_empty());
    world.later(5 * SECOND);
    let ends = world.sent();
    assert_eq!(ends.len(), 1);
    assert_eq!((&ends[0]["count"], &ends[0]["resolved"], &ends[0]["firing"]), (&10_000.into(), &10_000.into(), &0.into()));
    assert!(world.later(HOUR).sent().is_empty(), "nothing is left");

    let (mut all, mut filter) = (Vec::new(), alerts::AlertFilter::default());
    loop {
        let (page, next) = world.with(|conn| alerts::list(conn, &filter, 1_000));
        all.extend(page);
        filter.before = next;
        if filter.before.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 10_000);
    let folded = all.iter().find(|alert| alert.subject == "e3").expect("there");
    assert_eq!(world.reasons(&folded.id), ["firing digest", "resolved digest"]);
    let notices = world.with(|conn| alerts::notices::of_alert(conn, &folded.id));
    assert!(notices.iter().all(|notice| notice.delivery_id.is_some() && notice.state.as_deref() == Some("sent")), "{notices:?}");
    assert!(notices[0].detail.is_some(), "e3 waited alone before it was folded");
}

#[test]
fn a_digest_is_filled_by_later_commits_until_it_is_due_and_says_what_became_of_each_alert() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "first", Level::Info);
    for n in 0..60 {
        world.later(500).begin("overheat", &format!("e{n}"), if n == 40 { Level::Critical } else { Level::Info });
    }
    world.later(100).end("overheat", "e3");
    let worse = world.transition("overheat", "e4", Level::Warning, true);
    world.raise(vec![worse]);
    assert_eq!(world.heard(), ["firing first"]);
    world.later(40_000);
    let sent = world.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let of = |name: &str| sent[0][name].as_u64();
    assert_eq!((of("count"), of("firing"), of("resolved")), (Some(60), Some(59), Some(1)));
    assert_eq!(sent[0]["level"], "CRITICAL");
    let shown: BTreeMap<&str, &str> = sent[0]["alerts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|notice| (notice["subject"].as_str().unwrap_or_default(), notice["event"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!((shown["e3"], shown["e4"], shown["e5"]), ("resolved", "escalated", "firing"));
    // What comes soon after a digest waits for the next one; one alert alone has its own form.
    world.later(SECOND).begin("overheat", "late", Level::Info);
    assert!(world.heard().is_empty());
    world.later(5 * SECOND);
    assert_eq!(world.heard(), ["firing late"]);
    world.later(6 * SECOND).begin("overheat", "later", Level::Info);
    assert_eq!(world.heard(), ["firing later"], "and after that it is as it was");
}

#[test]
fn a_trickle_that_goes_on_is_folded_once_the_channel_has_told_enough() {
    let mut world = World::new(vec![pager()]);
    let mut heard = Vec::new();
    for n in 0..100 {
        // Slow enough that few wait at a time.
        world.later(20_000).begin("overheat", &format!("e{n}"), Level::Warning);
        heard.extend(world.sent());
    }
    world.later(5 * SECOND);
    heard.extend(world.sent());
    let alone = heard.iter().filter(|notice| notice["event"] == "firing").count();
    let told: u64 = heard.iter().map(|notice| notice["count"].as_u64().filter(|_| notice["event"] == "digest").unwrap_or(1)).sum();
    assert_eq!((alone, told), (20, 100), "each is told once");
    assert!(heard.len() <= 22, "{}", heard.len());
}

#[test]
fn groups_are_told_and_folded_apart() {
    let route = RouteConfig { group_by: vec!["name".into()], ..pager() };
    let mut world = World::new(vec![route]);
    world.raise(storm(&world, 500, true));
    world.begin("overspeed", "e1", Level::Warning);
    assert_eq!(world.heard(), ["firing e0", "firing e1"], "the other rule's is not held up");
    world.later(40_000);
    assert_eq!(world.sent().len(), 1);
}

#[test]
fn many_groups_do_not_get_round_the_bound_of_the_channel() {
    let route = RouteConfig { group_by: vec!["subject".into()], ..pager() };
    let mut world = World::new(vec![route]);
    world.raise(storm(&world, 2_000, true));
    let mut messages = world.sent();
    world.later(40_000);
    messages.extend(world.sent());
    assert_eq!(messages.len(), 21);
    assert_eq!(messages[20]["count"], 1_980);
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    let count = diesel::sql_query("SELECT COUNT(*) AS n FROM alert_groups");
    let count: Count = world.with(|conn| diesel::RunQueryDsl::get_result(count, conn).map_err(Into::into));
    assert!(count.n <= 30, "{}", count.n);
}

#[test]
fn a_repeat_comes_after_its_interval_and_never_while_somebody_has_the_alert() {
    let mut world = World::new(vec![pager(), RouteConfig { repeat_interval: None, ..RouteConfig::to(vec!["log".into()]) }]);
    world.begin("overheat", "e1", Level::Warning);
    world.later(SECOND).begin("overheat", "e2", Level::Warning);
    assert_eq!(world.heard().len(), 4);
    world.later(4 * HOUR - 2 * SECOND).round(Surroundings::default());
    assert!(world.heard().is_empty(), "too early");
    world.later(SECOND).round(Surroundings::default());
    assert_eq!(world.heard(), ["repeat e1"], "to the pager alone");
    world.acknowledge(&world.open("e2").id);
    world.later(SECOND).round(Surroundings::default());
    assert!(world.later(SECOND).heard().is_empty(), "e2 is in somebody's hands");
    world.later(4 * HOUR).round(Surroundings::default());
    assert_eq!(world.heard(), ["repeat e1"], "again and again");
    let e2 = world.open("e2").id;
    world.later(SECOND).end("overheat", "e2");
    world.later(SECOND);
    assert_eq!(world.heard(), ["resolved e2", "resolved e2"], "its end is told");
    assert_eq!(
        world.reasons(&e2),
        ["firing route", "firing route", "repeat acknowledged", "resolved route", "resolved route"],
        "and all of it is written down"
    );
}

#[test]
fn an_end_is_told_to_whom_it_was_told_that_it_fires_and_to_nobody_else() {
    let critical = RouteConfig { levels: vec![Level::Critical], ..RouteConfig::to(vec!["phone".into()]) };
    let quiet = RouteConfig { notify_resolved: false, ..RouteConfig::to(vec!["tape".into()]) };
    let mut world = World::new(vec![RouteConfig { levels: vec![Level::Warning], ..pager() }, critical, quiet]);
    world.begin("overheat", "e1", Level::Warning);
    world.later(2 * SECOND).begin("overheat", "e1", Level::Critical);
    let id = world.open("e1").id;
    world.later(2 * SECOND).end("overheat", "e1");
    let notices = world.with(|conn| alerts::notices::of_alert(conn, &id));
    let told: Vec<String> = notices.iter().map(|one| format!("{} {} {}", one.event, one.sink, one.reason)).collect();
    let expected = [
        "firing pager route",
        "firing tape route",
        "escalated phone route",
        "escalated tape route",
        "resolved phone route",
        "resolved tape not_wanted",
        "resolved pager route",
    ];
    assert_eq!(told, expected);
}

#[test]
fn rules_give_their_labels_and_routes_go_by_them() {
    let north = RouteConfig { labels: Labels::from([("site".into(), "north*".into())]), ..pager() };
    let mut world = World::new(vec![north]);
    let rule = |name: &str, site: &str| Rule {
        name: name.into(),
        metric: "rpm".into(),
        op: Op::Above,
        threshold: 1.0,
        clear: None,
        for_us: 0,
        level: Level::Warning,
        labels: Labels::from([("site".into(), site.into())]),
    };
    world.config.rules = vec![rule("a", "north-1"), rule("b", "south-1")];
    for name in ["a", "b", "c"] {
        world.later(2 * SECOND).begin(name, name, Level::Warning);
    }
    let sent = world.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["labels"]["site"], "north-1");
    assert_eq!(world.reasons(&world.open("b").id), ["firing no_route"]);
    let filter = alerts::AlertFilter { label: Some(("site".into(), "south-1".into())), ..Default::default() };
    let (found, _) = world.with(|conn| alerts::list(conn, &filter, 10));
    assert_eq!(found.iter().map(|alert| alert.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn new_routes_tell_what_fires_to_those_who_have_not_heard_of_it() {
    let mut world = World::new(vec![pager()]);
    world.begin("overheat", "e1", Level::Warning);
    assert_eq!(world.heard().len(), 1);
    world.config.routes.push(RouteConfig::to(vec!["phone".into()]));
    world.later(2 * SECOND).reroute();
    world.round(Surroundings::default());
    assert_eq!(world.heard(), ["firing e1"], "the phone alone");
    world.later(2 * SECOND).reroute();
    world.round(Surroundings::default());
    assert!(world.heard().is_empty());
    world.later(4 * HOUR).round(Surroundings::default());
    assert_eq!(world.later(SECOND).heard(), ["repeat e1", "repeat e1"]);
}
