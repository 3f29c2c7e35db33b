//! Alerts from the message to the committed delivery.

mod held_back;
mod telling;
mod told;

use std::time::{Duration, Instant};

use actix::prelude::*;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::oneshot;

use super::*;
use crate::{
    clock::ManualClock,
    config::{Config, OnUnknown, RouteConfig},
    domain::{
        alert::{Alert, AlertKind, AlertState, Level, Transition},
        delivery::DeliveryState,
        rule::Phase,
    },
    event::Metrics,
    protocol::{AcknowledgeAlert, AcknowledgeError, Drain, Raise, Wake},
    store::{Store, audit, control::tests::scratch, deliveries, rule_state},
    supervise::{Courier, Probe},
};

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    board: Arc<AlertBoard>,
    desk: Arc<AlertDesk>,
    actor: Addr<AlertActor>,
    woken: Probe<Wake>,
    metrics: Arc<Metrics>,
    clock: Arc<ManualClock>,
    config: Arc<ArcSwap<Config>>,
}

fn bench_with(config: Config) -> Bench {
    let (dir, store) = scratch();
    let (outbox, woken) = Courier::probe(8);
    let board = Arc::new(AlertBoard::default());
    let metrics = Arc::new(Metrics::new().expect("the catalogue is sound"));
    let clock = ManualClock::at(5_000);
    let config = Arc::new(ArcSwap::from_pointee(config));
    let desk = AlertDesk::new(AlertParts {
        metrics: metrics.clone(),
        store: store.clone(),
        board: board.clone(),
        config: config.clone(),
        clock: clock.clone(),
        outbox,
        away: Box::new(Vec::new),
    });
    Bench { _dir: dir, store, board, actor: AlertActor::new(desk.clone()).start(), desk, woken, metrics, clock, config }
}

fn bench() -> Bench {
    bench_with(Config { webhooks: Vec::new(), routes: Vec::new(), ..Config::default() })
}

fn transition(subject: &str, firing: bool) -> Transition {
    Transition {
        kind: AlertKind::Rule,
        name: "overheat".into(),
        subject: subject.into(),
        level: Level::Critical,
        firing,
        observed_at_us: 1_000,
        arrived_at_us: 2_000,
        value: Some(351.5),
        threshold: Some(350.0),
        text: format!("{subject}: temperature 351.5 > 350"),
    }
}

async fn raise(bench: &Bench, transitions: Vec<Transition>) -> Result<(), oneshot::error::RecvError> {
    let (committed, answer) = oneshot::channel();
    bench.actor.do_send(Raise { transitions, committed: Some(committed) });
    answer.await
}

async fn acknowledge(bench: &Bench, id: &str) -> Result<Alert, AcknowledgeError> {
    let (reply, answer) = oneshot::channel();
    bench.actor.do_send(AcknowledgeAlert { id: id.into(), by: "kim".into(), reason: Some("on it".into()), reply });
    answer.await.expect("answered")
}

#[actix::test]
async fn a_transition_is_committed_with_its_deliveries_and_phase_before_anyone_is_told() {
    let mut bench = bench();
    raise(&bench, vec![transition("e1", true)]).await.expect("committed");
    assert!(bench.woken.try_recv().is_some(), "the outbox is woken");
    let shown = bench.board.list(10);
    assert_eq!((shown.len(), shown[0].state), (1, AlertState::Firing));
    bench
        .store
        .with(|conn| {
            assert_eq!(rule_state::load_all(conn)?[0].phase, Phase::Firing { last_breach_us: 1_000 });
            let waiting = deliveries::counts(conn)?;
            let told: Vec<_> = waiting.iter().map(|count| (count.sink.as_str(), count.state)).collect();
            assert_eq!(told, [("issues", DeliveryState::Ready), ("log", DeliveryState::Ready)]);
            assert_eq!(waiting[1].oldest_due_at_us, Some(2_000), "due since its reading arrived");
            Ok(())
        })
        .expect("reads");
    raise(&bench, vec![transition("e1", true)]).await.expect("committed");
    assert!(bench.woken.try_recv().is_none(), "a repeat tells nobody");
    assert_eq!(bench.board.list(10)[0].count, 2);
    raise(&bench, vec![transition("e1", false)]).await.expect("committed");
    assert_eq!((bench.board.open_count(), bench.board.list(10)[0].state), (0, AlertState::Resolved));
    assert_eq!(bench.store.with(rule_state::load_all), Ok(vec![]));
}

#[actix::test]
async fn a_person_acknowledges_once_and_it_is_audited() {
    let bench = bench();
    raise(&bench, vec![transition("e1", true)]).await.expect("committed");
    let id = bench.board.list(1)[0].id.clone();
    assert_eq!(acknowledge(&bench, &id).await.map(|alert| alert.state), Ok(AlertState::Acknowledged));
    assert_eq!(bench.board.list(1)[0].acknowledged_by.as_deref(), Some("kim"));
    assert_eq!(acknowledge(&bench, "none").await, Err(AcknowledgeError::NotFound));
    raise(&bench, vec![transition("e1", false)]).await.expect("committed");
    assert_eq!(acknowledge(&bench, &id).await, Err(AcknowledgeError::Resolved));
    let outcomes: Vec<String> =
        bench.store.with(|conn| audit::list(conn, 10, None)).expect("reads").into_iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, ["conflict", "not_found", "ok"]);
}

#[actix::test]
async fn what_cannot_be_committed_waits_and_is_committed_later() {
    let bench = bench();
    bench
        .store
        .with(|conn| {
            diesel::connection::SimpleConnection::batch_execute(conn, "ALTER TABLE alerts RENAME TO away").map_err(Into::into)
        })
        .expect("breaks the control store");
    let (committed, mut answer) = oneshot::channel();
    bench.actor.do_send(Raise { transitions: vec![transition("e1", true)], committed: Some(committed) });
    assert!(matches!(acknowledge(&bench, "x").await, Err(AcknowledgeError::Unavailable(_))), "people are told at once");
    assert!(answer.try_recv().is_err());
    assert_eq!(bench.desk.waiting(), 1);
    bench
        .store
        .with(|conn| {
            diesel::connection::SimpleConnection::batch_execute(conn, "ALTER TABLE away RENAME TO alerts").map_err(Into::into)
        })
        .expect("heals it");
    answer.await.expect("committed after all");
    assert_eq!(bench.board.open_count(), 1);
}

#[actix::test]
async fn a_transition_that_the_control_store_refuses_for_ever_holds_nobody() {
    let bench = bench();
    let trigger =
        "CREATE TRIGGER no_devils BEFORE INSERT ON alerts WHEN new.subject = 'devil' BEGIN SELECT RAISE(ABORT, 'no'); END";
    bench
        .store
        .with(|conn| diesel::connection::SimpleConnection::batch_execute(conn, trigger).map_err(Into::into))
        .expect("a rule of somebody's own");
    let mut answers = Vec::new();
    for subjects in [vec!["e1"], vec!["e2", "devil", "e3"], vec!["devil"], vec!["e4"]] {
        let (committed, answer) = oneshot::channel();
        let transitions = subjects.iter().map(|subject| transition(subject, true)).collect();
        bench.actor.do_send(Raise { transitions, committed: Some(committed) });
        answers.push(answer);
    }
    for answer in answers {
        tokio::time::timeout(Duration::from_secs(10), answer).await.expect("in time").expect("nobody waits for ever");
    }
    let shown: Vec<String> = bench.board.list(10).into_iter().map(|alert| alert.subject).collect();
    for subject in ["e1", "e2", "e3", "e4", "control store"] {
        assert!(shown.iter().any(|shown| shown == subject), "{subject} in {shown:?}");
    }
    assert!(!shown.iter().any(|shown| shown == "devil"));
    assert_eq!((bench.metrics.alerts_set_aside.get(), bench.desk.waiting()), (2, 0));
}

#[actix::test]
async fn a_full_desk_takes_nothing_more_and_the_sender_sees_it() {
    let bench = bench();
    for _ in 0..super::desk::QUEUE_MAX {
        bench.desk.take_raise(Raise { transitions: Vec::new(), committed: None });
    }
    let (committed, answer) = oneshot::channel();
    bench.desk.take_raise(Raise { transitions: Vec::new(), committed: Some(committed) });
    assert!(answer.await.is_err());
    bench.desk.work();
    let (done, drained) = oneshot::channel();
    bench.actor.do_send(Drain { deadline: Instant::now() + Duration::from_secs(20), done });
    drained.await.expect("drained");
    assert_eq!(bench.desk.waiting(), 0);
}

#[actix::test]
async fn routes_choose_sinks_and_a_sink_that_is_down_is_not_told_about_itself() {
    let route = RouteConfig {
        levels: vec![Level::Critical],
        subjects: vec!["e1".into()],
        on_unknown: OnUnknown::Review,
        notify_resolved: false,
        ..RouteConfig::to(vec!["pager".into(), "pager".into()])
    };
    let rest = RouteConfig { levels: Vec::new(), subjects: Vec::new(), kinds: vec![AlertKind::System], ..route.clone() };
    let bench = bench_with(Config { routes: vec![route, rest], ..Config::default() });
    raise(&bench, vec![transition("e1", true), transition("e2", true), transition("e1", false)]).await.expect("committed");
    let count = |sink: &str| {
        let counts = bench.store.with(deliveries::counts).expect("counts");
        counts.iter().filter(|count| count.sink == sink).map(|count| count.count).sum::<u64>()
    };
    assert_eq!((count("pager"), count("log")), (1, 0), "e2 has no route, and the end is not told");
    let down = Transition { kind: AlertKind::System, name: crate::sinks::SINK_DOWN.into(), ..transition("pager", true) };
    raise(&bench, vec![down]).await.expect("committed");
    assert_eq!((count("pager"), count("log")), (1, 1));
}

#[actix::test]
async fn what_nobody_sends_is_found_by_the_tick_counted_and_told() {
    let bench = bench();
    raise(&bench, vec![transition("e1", true)]).await.expect("committed");
    // Nobody works off the outbox here.
    bench.clock.advance_us(120_000_000);
    let end = Instant::now() + Duration::from_secs(30);
    while bench.board.open().iter().all(|alert| alert.name != "delivery-overdue") {
        assert!(Instant::now() < end, "{:?}", bench.board.open());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.metrics.alerts.overdue.get(), 1);
    assert!(bench.metrics.alerts.notices.with_label_values(&["told"]).get() >= 1);
    assert_eq!(bench.desk.waiting(), 0);
}

#[test]
fn the_board_shows_open_alerts_first_when_there_is_no_room() {
    let (_dir, store) = scratch();
    let board = AlertBoard::default();
    store
        .with(|conn| {
            for n in 0..5 {
                let begin = Transition { observed_at_us: n, ..transition(&format!("e{n}"), true) };
                crate::store::alerts::take_over(conn, &begin, &Default::default(), n)?;
                if n > 0 {
                    crate::store::alerts::take_over(conn, &Transition { firing: false, ..begin }, &Default::default(), n)?;
                }
            }
            board.load(conn)
        })
        .expect("loads");
    assert_eq!((board.open_count(), board.worst(), board.revision()), (1, Some(Level::Critical), 1));
    let two: Vec<String> = board.list(2).into_iter().map(|alert| alert.subject).collect();
    assert_eq!(two, ["e4", "e0"]);
    assert_eq!(board.list(10).len(), 5);
    let tally = board.tally();
    assert_eq!(
        (tally.open, tally.critical, tally.warning, tally.resolved, tally.resolved_more),
        (1, 1, 0, 4, false),
        "not only the listed"
    );
}
