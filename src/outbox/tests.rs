//! The outbox from the committed row to the written end.

mod batches;
mod channel;

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use actix::prelude::*;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, oneshot};

use super::*;
use crate::{
    clock::{Clock, ManualClock, SystemClock},
    config::{Config, OnUnknown, OutboxConfig},
    domain::{alert::Transition, breaker::CircuitState, delivery::DeliveryState},
    event::Metrics,
    protocol::{Drain, Wake},
    sinks::{
        ErrorClass, Letter, SendError, Sent, Sink,
        doubles::{FailingSink, NoopSink},
    },
    store::{
        Store,
        control::tests::scratch,
        deliveries::{self, Claim, DeliveryRow, NewDelivery},
    },
};

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    outbox: Arc<Outbox>,
    raised: Arc<Mutex<Vec<Transition>>>,
}

fn config() -> Config {
    let outbox = OutboxConfig {
        poll_interval: Duration::from_millis(20),
        lease: Duration::from_secs(30),
        max_attempts: 3,
        retry_base: Duration::from_millis(1),
        retry_max: Duration::from_millis(4),
        concurrency: 4,
    };
    Config { outbox, ..Config::default() }
}

fn bench(sinks: Vec<Arc<dyn Sink>>) -> Bench {
    let (dir, store) = scratch();
    bench_over(dir, store, sinks, None)
}

fn bench_over(
    dir: tempfile::TempDir,
    control: Store,
    sinks: Vec<Arc<dyn Sink>>,
    store: Option<(Store, Box<dyn Fn() -> bool + Send + Sync>)>,
) -> Bench {
    bench_with(config(), dir, control, sinks, store)
}

fn bench_with(
    config: Config,
    dir: tempfile::TempDir,
    control: Store,
    sinks: Vec<Arc<dyn Sink>>,
    store: Option<(Store, Box<dyn Fn() -> bool + Send + Sync>)>,
) -> Bench {
    let outbox = Outbox::new(OutboxParts {
        control: control.clone(),
        store,
        config: Arc::new(ArcSwap::from_pointee(config)),
        own_sinks: Vec::new(),
        sinks,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
        worker: "w1".into(),
    });
    let raised = Arc::new(Mutex::new(Vec::new()));
    let seen = raised.clone();
    outbox.set_raise(Box::new(move |transitions| seen.lock().expect("no panic").extend(transitions)));
    Bench { _dir: dir, store: control, outbox, raised }
}

fn new(id: &str, sink: &str, lane: &str) -> NewDelivery {
    NewDelivery {
        id: id.into(),
        sink: sink.into(),
        lane: lane.into(),
        subject: "alert".into(),
        payload: "{}".into(),
        due_at_us: 0,
        max_attempts: 3,
        on_unknown: OnUnknown::Resend,
        recipient: String::new(),
    }
}

fn enqueue(store: &Store, rows: &[NewDelivery]) {
    store.with(|conn| conn.write(|conn| deliveries::enqueue(conn, rows, 1))).expect("enqueues");
}

fn row(store: &Store, id: &str) -> DeliveryRow {
    store.with(|conn| deliveries::get(conn, id)).expect("reads").expect("is there")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until_state(store: &Store, id: &str, state: DeliveryState) {
    until(&format!("{id} is {state}"), || row(store, id).state() == Ok(state)).await;
}

fn failure(class: ErrorClass) -> Option<SendError> {
    Some(SendError { class, error_type: "test", message: "as told".into() })
}

/// Sends nothing before it is let.
#[derive(Debug)]
struct GateSink(Semaphore, Mutex<Vec<String>>);

impl GateSink {
    fn closed() -> Arc<Self> {
        Arc::new(Self(Semaphore::new(0), Mutex::default()))
    }
}

impl Sink for GateSink {
    fn name(&self) -> &str {
        "gate"
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            self.1.lock().expect("no panic").push(letter.id.clone());
            if let Ok(permit) = self.0.acquire().await {
                permit.forget();
            }
            Ok(Sent::default())
        })
    }
}

#[actix::test]
async fn a_woken_outbox_sends_at_once_and_writes_it_down() {
    let sink = NoopSink::named("hook");
    let bench = bench(vec![sink.clone()]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    enqueue(&bench.store, &[new("a", "hook", "l")]);
    actor.do_send(Wake);
    until_state(&bench.store, "a", DeliveryState::Sent).await;
    let taken = sink.taken();
    assert_eq!((taken.len(), taken[0].id.as_str(), taken[0].attempt, taken[0].possible_repeat), (1, "a", 1, false));
    // The row is committed a moment before the place is given back.
    until("its place is free", || bench.outbox.in_flight() == 0).await;
    assert_eq!(bench.outbox.sent_total(), 1);
}

#[actix::test]
async fn a_lost_wake_up_costs_one_poll_interval() {
    let sink = NoopSink::named("hook");
    let bench = bench(vec![sink]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "hook", "l"), new("b", "hook", "l")]);
    until_state(&bench.store, "b", DeliveryState::Sent).await;
}

#[actix::test]
async fn what_is_due_at_a_time_goes_out_then_without_a_look_in_between() {
    let (dir, control) = scratch();
    let sink = NoopSink::named("hook");
    let hour = Duration::from_secs(3_600);
    // No look by the way would find it: what fires is the timer.
    let rare = Config { outbox: OutboxConfig { poll_interval: hour, lease: hour * 4, ..config().outbox }, ..Config::default() };
    let bench = bench_with(rare, dir, control, vec![sink.clone()], None);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    let due_at_us = SystemClock.now_us() + 300_000;
    enqueue(&bench.store, &[NewDelivery { due_at_us, ..new("later", "hook", "l") }]);
    bench.outbox.wake();
    until_state(&bench.store, "later", DeliveryState::Sent).await;
    assert!(SystemClock.now_us() >= due_at_us, "and not before");
}

#[actix::test]
async fn retries_come_again_and_the_last_attempt_makes_it_dead_and_told() {
    let sink = FailingSink::named("hook", vec![failure(ErrorClass::Retry { after: None })]);
    let bench = bench(vec![sink.clone(), NoopSink::named("log")]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "hook", "l")]);
    actor.do_send(Wake);
    until_state(&bench.store, "a", DeliveryState::Dead).await;
    assert_eq!(sink.tries().iter().map(|letter| letter.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(row(&bench.store, "a").last_error_type.as_deref(), Some("test"));
    let told =
        || bench.raised.lock().expect("no panic").iter().any(|t| t.name == "delivery-failed" && t.firing && t.subject == "hook");
    until("the failure is told", told).await;
    // It is told once and read for as long as it lasts, when there are more.
    let first = bench.raised.lock().expect("no panic").iter().find(|t| t.name == "delivery-failed" && t.firing).cloned();
    let first = first.expect("just told");
    assert!(first.value.is_none() && !first.text.contains(|c: char| c.is_ascii_digit()), "{first:?}");
    bench
        .store
        .with(|conn| conn.write(|conn| deliveries::act(conn, "a", crate::domain::delivery::Event::Discard, 9)))
        .expect("discards");
    actor.do_send(Wake);
    let over = || bench.raised.lock().expect("no panic").last().is_some_and(|t| t.name == "delivery-failed" && !t.firing);
    until("the end is told", over).await;
}

#[actix::test]
async fn an_unknown_outcome_is_repeated_with_its_mark_or_left_to_a_person() {
    let unknown = failure(ErrorClass::Unknown);
    let sink = FailingSink::named("hook", vec![unknown.clone(), None]);
    let careful = FailingSink::named("careful", vec![unknown]);
    let bench = bench(vec![sink.clone(), careful]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "hook", "l"), NewDelivery { on_unknown: OnUnknown::Review, ..new("b", "careful", "l") }]);
    actor.do_send(Wake);
    until_state(&bench.store, "a", DeliveryState::Sent).await;
    until_state(&bench.store, "b", DeliveryState::Uncertain).await;
    assert_eq!(sink.tries().iter().map(|letter| letter.possible_repeat).collect::<Vec<_>>(), [false, true]);
}

#[actix::test]
async fn a_sink_that_fails_in_a_row_is_paused_and_others_are_told() {
    let sink = FailingSink::named("hook", vec![failure(ErrorClass::Retry { after: None })]);
    let other = NoopSink::named("log");
    let bench = bench(vec![sink.clone(), other.clone()]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    let rows: Vec<NewDelivery> = (0..20).map(|n| new(&format!("d{n}"), "hook", &format!("l{n}"))).collect();
    enqueue(&bench.store, &rows);
    let opened = || bench.raised.lock().expect("no panic").iter().any(|t| t.name == "sink-down" && t.firing && t.subject == "hook");
    until("the circuit opens", opened).await;
    assert!(bench.outbox.circuits().contains(&("hook".to_owned(), CircuitState::Open)));
    let tries = sink.tries().len();
    enqueue(&bench.store, &[new("fine", "log", "l")]);
    until_state(&bench.store, "fine", DeliveryState::Sent).await;
    assert!(sink.tries().len() <= tries + 4, "only what was on its way: {tries} then {}", sink.tries().len());
}

#[actix::test]
async fn the_first_success_of_a_run_ends_what_an_earlier_run_told_of_a_sink() {
    let bench = bench(vec![NoopSink::named("hook")]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "hook", "l"), new("b", "hook", "m")]);
    until_state(&bench.store, "a", DeliveryState::Sent).await;
    until_state(&bench.store, "b", DeliveryState::Sent).await;
    let raised = bench.raised.lock().expect("no panic");
    let told: Vec<_> = raised.iter().filter(|t| t.name == "sink-down").map(|t| (t.subject.as_str(), t.firing)).collect();
    assert_eq!(told, [("hook", false)], "once");
}

#[actix::test]
async fn an_attempt_and_its_end_survive_the_actor() {
    let sink = GateSink::closed();
    let bench = bench(vec![sink.clone()]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "gate", "l")]);
    until_state(&bench.store, "a", DeliveryState::Sending).await;
    drop(actor); // The last address: the actor stops between claim and end.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let _again = OutboxActor::new(bench.outbox.clone()).start();
    sink.0.add_permits(10);
    until_state(&bench.store, "a", DeliveryState::Sent).await;
    assert_eq!(sink.1.lock().expect("no panic").len(), 1, "sent once");
}

#[actix::test]
async fn what_an_earlier_process_was_sending_goes_out_again_with_its_mark() {
    let (dir, store) = scratch();
    enqueue(&store, &[new("a", "hook", "l"), NewDelivery { on_unknown: OnUnknown::Review, ..new("b", "hook", "m") }]);
    store
        .with(|conn| {
            conn.write(|conn| {
                let lease = Duration::from_secs(900);
                let claim = Claim { sink: "hook", worker: "dead", limit: 9, per_lane: 1, after: None, lease, now_us: 1 };
                deliveries::claim_due(conn, &claim)
            })
        })
        .expect("claims");
    let sink = NoopSink::named("hook");
    let bench = bench_over(dir, store, vec![sink.clone()], None);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    until_state(&bench.store, "a", DeliveryState::Sent).await;
    until_state(&bench.store, "b", DeliveryState::Uncertain).await;
    assert!(sink.taken().iter().all(|letter| letter.id == "a" && letter.possible_repeat));
}

#[actix::test]
async fn ends_that_cannot_be_written_are_written_later_and_nothing_is_sent_twice() {
    let sink = GateSink::closed();
    let bench = bench(vec![sink.clone()]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "gate", "l")]);
    until_state(&bench.store, "a", DeliveryState::Sending).await;
    let rename = |text: &'static str| {
        bench
            .store
            .with(|conn| diesel::connection::SimpleConnection::batch_execute(conn, text).map_err(Into::into))
            .expect("renames");
    };
    rename("ALTER TABLE deliveries RENAME TO away");
    sink.0.add_permits(1);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(bench.outbox.in_flight(), 1);
    rename("ALTER TABLE away RENAME TO deliveries");
    until_state(&bench.store, "a", DeliveryState::Sent).await;
    assert_eq!(sink.1.lock().expect("no panic").len(), 1);
}

#[actix::test]
async fn a_store_that_is_away_holds_up_nothing() {
    let (dir, control) = scratch();
    let (store_dir, _other) = scratch();
    let away = Store::open_control(&store_dir.path().join("missing").join("dir")).expect("opens nothing yet");
    std::fs::write(store_dir.path().join("missing"), "a file where a directory should be").expect("writes");
    let up = Arc::new(AtomicBool::new(true));
    let seen = up.clone();
    let sink = NoopSink::named("hook");
    let is_up = Box::new(move || seen.load(std::sync::atomic::Ordering::SeqCst));
    let bench = bench_over(dir, control, vec![sink], Some((away, is_up)));
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    for n in 0..5 {
        let id = format!("d{n}");
        enqueue(&bench.store, &[new(&id, "hook", "l")]);
        until_state(&bench.store, &id, DeliveryState::Sent).await;
    }
}

#[actix::test]
async fn a_store_that_hangs_holds_up_the_other_only_until_it_is_found_away() {
    let (dir, control) = scratch();
    let (_other, hung) = scratch();
    let (locked, lock_is_held) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holder = hung.clone();
    // As long as this thread holds the write lock, a claim waits for it: five seconds, its longest.
    let holding = std::thread::spawn(move || {
        holder.with(|conn| {
            conn.write(|_| {
                locked.send(()).expect("the test waits");
                let _ = released.recv();
                Ok(())
            })
        })
    });
    lock_is_held.recv().expect("locked");
    let up = Arc::new(AtomicBool::new(true));
    let seen = up.clone();
    let is_up = Box::new(move || seen.load(std::sync::atomic::Ordering::SeqCst));
    let bench = bench_over(dir, control, vec![NoopSink::named("hook")], Some((hung, is_up)));
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    tokio::time::sleep(Duration::from_millis(200)).await;
    enqueue(&bench.store, &[new("alarm", "hook", "l")]);
    let began = Instant::now();
    up.store(false, std::sync::atomic::Ordering::SeqCst);
    until_state(&bench.store, "alarm", DeliveryState::Sent).await;
    assert!(began.elapsed() < Duration::from_secs(3), "the alarm left after {:?}", began.elapsed());
    drop(release);
    holding.join().expect("no panic").expect("committed");
}

#[actix::test]
async fn a_stop_waits_for_attempts_on_their_way_and_no_longer_than_its_deadline() {
    let sink = GateSink::closed();
    let bench = bench(vec![sink.clone()]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    enqueue(&bench.store, &[new("a", "gate", "l"), new("b", "gate", "l")]);
    until_state(&bench.store, "a", DeliveryState::Sending).await;
    until("its attempt has begun", || sink.1.lock().expect("no panic").len() == 1).await;
    let drain = |within: Duration| {
        let (done, drained) = oneshot::channel();
        actor.do_send(Drain { deadline: Instant::now() + within, done });
        drained
    };
    let began = Instant::now();
    drain(Duration::from_millis(30)).await.expect("gave up");
    assert!(began.elapsed() < Duration::from_secs(5));
    sink.0.add_permits(1);
    drain(Duration::from_secs(5)).await.expect("drained");
    assert_eq!(row(&bench.store, "a").state(), Ok(DeliveryState::Sent));
    assert_eq!(row(&bench.store, "b").state(), Ok(DeliveryState::Ready), "nothing new is begun");
}

#[actix::test]
async fn a_scheduled_delivery_waits_for_the_injected_clock() {
    let (_dir, control) = scratch();
    let clock = ManualClock::at(1_000);
    let sink = NoopSink::named("hook");
    let outbox = Outbox::new(OutboxParts {
        control: control.clone(),
        store: None,
        config: Arc::new(ArcSwap::from_pointee(config())),
        own_sinks: Vec::new(),
        sinks: vec![sink.clone()],
        clock: clock.clone(),
        metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
        worker: "w1".into(),
    });
    let _actor = OutboxActor::new(outbox).start();
    enqueue(&control, &[NewDelivery { due_at_us: 60_000_000, ..new("later", "hook", "l") }]);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(sink.taken(), []);
    clock.advance_us(60_000_000);
    until_state(&control, "later", DeliveryState::Sent).await;
}

#[actix::test]
async fn what_waits_for_a_sink_that_was_removed_goes_to_a_person() {
    let bench = bench(vec![NoopSink::named("hook")]);
    enqueue(&bench.store, &[new("a", "gone", "l"), new("b", "gone", "l")]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    actor.do_send(Wake);
    until_state(&bench.store, "a", DeliveryState::Dead).await;
    until_state(&bench.store, "b", DeliveryState::Dead).await;
    assert_eq!(row(&bench.store, "a").last_error_type.as_deref(), Some("sink_removed"));
    let told = || bench.raised.lock().expect("no panic").iter().any(|raised| raised.subject == "gone" && raised.firing);
    until("a person is told", told).await;
}
