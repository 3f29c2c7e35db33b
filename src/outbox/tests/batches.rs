//! Claims of many at once: their order, their end before their turn, and the limits of a sink.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{super::dispatcher::Beat, *};
use crate::sinks::{Limits, doubles::LimitedSink};

/// Takes batches; what it answers for an id is told beforehand, once each; it counts how many it is asked for at once.
#[derive(Debug, Default)]
struct BatchSink {
    errors: Mutex<HashMap<String, SendError>>,
    always: Option<SendError>,
    asked: Mutex<Vec<String>>,
    at_once: AtomicUsize,
    most: AtomicUsize,
    limits: Limits,
    slow: bool,
}

impl Sink for BatchSink {
    fn name(&self) -> &str {
        "batch"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn takes_batches(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            self.asked.lock().expect("no panic").push(letter.id.clone());
            self.most.fetch_max(self.at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            if self.slow {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            let error = self.errors.lock().expect("no panic").remove(&letter.id).or_else(|| self.always.clone());
            error.map_or(Ok(Sent::default()), Err)
        })
    }
}

impl BatchSink {
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

/// Until the sink is known to be quick, little is claimed at once.
async fn warm(bench: &Bench) {
    enqueue(&bench.store, &[new("warm", "batch", "warm")]);
    bench.outbox.wake();
    until_state(&bench.store, "warm", DeliveryState::Sent).await;
    until("its place is free", || bench.outbox.in_flight() == 0).await;
}

fn lane_of(count: usize, lane: &str) -> Vec<NewDelivery> {
    (0..count).map(|n| new(&format!("{lane}{n:03}"), "batch", lane)).collect()
}

#[actix::test]
async fn a_lane_is_sent_in_order_and_one_that_must_come_again_holds_up_what_was_claimed_with_it() {
    let again = failure(ErrorClass::Retry { after: None }).expect("an error");
    let lost = failure(ErrorClass::Reject).expect("an error");
    let sink =
        Arc::new(BatchSink { errors: Mutex::new([("a005".into(), again), ("a009".into(), lost)].into()), ..BatchSink::default() });
    let bench = bench(vec![sink.clone()]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    warm(&bench).await;
    enqueue(&bench.store, &lane_of(40, "a"));
    bench.outbox.wake();
    until_state(&bench.store, "a039", DeliveryState::Sent).await;
    let asked: Vec<String> = sink.asked().into_iter().filter(|id| id != "warm").collect();
    let mut expected: Vec<String> = (0..40).map(|n| format!("a{n:03}")).collect();
    expected.insert(6, "a005".into());
    assert_eq!(asked, expected, "a retry blocks, a dead one does not");
    assert_eq!(row(&bench.store, "a009").state(), Ok(DeliveryState::Dead));
    let attempts: HashSet<i32> = (0..40).filter(|n| *n != 5).map(|n| row(&bench.store, &format!("a{n:03}")).attempt).collect();
    assert_eq!(attempts, HashSet::from([1]), "what was given back was no attempt");
}

#[actix::test]
async fn what_waits_for_a_sink_whose_circuit_opens_is_given_back() {
    let sink = Arc::new(BatchSink::default());
    let bench = bench(vec![sink.clone()]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    warm(&bench).await;
    bench
        .outbox
        .replace_sinks(vec![Arc::new(BatchSink { always: failure(ErrorClass::Retry { after: None }), ..BatchSink::default() })]);
    let rows: Vec<NewDelivery> = (0..200).map(|n| new(&format!("d{n}"), "batch", &format!("l{n}"))).collect();
    enqueue(&bench.store, &rows);
    bench.outbox.wake();
    until("the circuit opens", || bench.outbox.circuits().contains(&("batch".to_owned(), CircuitState::Open))).await;
    until("nothing is on its way", || bench.outbox.in_flight() == 0).await;
    let states: Vec<_> = (0..200).map(|n| row(&bench.store, &format!("d{n}"))).collect();
    let untouched = states.iter().filter(|row| row.attempt == 0 && row.state() == Ok(DeliveryState::Ready)).count();
    assert!(untouched >= 180, "{untouched} of 200 were given back");
}

#[actix::test]
async fn no_more_are_sent_at_once_than_the_sink_takes() {
    let limits = Limits { concurrency: Some(3), per_minute: None };
    let sink = Arc::new(BatchSink { limits, slow: true, ..BatchSink::default() });
    let bench = bench(vec![sink.clone()]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    let rows: Vec<NewDelivery> = (0..60).map(|n| new(&format!("d{n}"), "batch", &format!("l{n}"))).collect();
    enqueue(&bench.store, &rows);
    bench.outbox.wake();
    until("all are sent", || bench.outbox.sent_total() == 60).await;
    assert_eq!(sink.most.load(Ordering::SeqCst), 3);
}

#[actix::test]
async fn a_limit_a_minute_holds_back_what_is_too_much() {
    let sink = LimitedSink::named("slow", Limits { concurrency: Some(50), per_minute: Some(300) });
    let bench = bench(vec![sink.clone()]);
    let _actor = OutboxActor::new(bench.outbox.clone()).start();
    let rows: Vec<NewDelivery> = (0..33).map(|n| new(&format!("d{n}"), "slow", &format!("l{n}"))).collect();
    enqueue(&bench.store, &rows);
    bench.outbox.wake();
    until("all are sent", || bench.outbox.sent_total() == 33).await;
    let begun = sink.begun();
    // Thirty at once, the others one each 60 s / 271.
    let took = begun[32].1 - begun[0].1;
    assert!(took >= Duration::from_millis(500), "the last of them waited: {took:?}");
}

#[actix::test]
async fn what_was_claimed_and_not_begun_when_its_worker_stops_is_given_back() {
    let sink = Arc::new(BatchSink { slow: true, ..BatchSink::default() });
    let bench = bench(vec![sink.clone()]);
    let actor = OutboxActor::new(bench.outbox.clone()).start();
    warm(&bench).await;
    enqueue(&bench.store, &lane_of(60, "a"));
    actor.do_send(Wake);
    until("some are sent", || sink.asked().len() > 3).await;
    let (done, drained) = oneshot::channel();
    actor.do_send(Drain { deadline: Instant::now() + Duration::from_secs(10), done });
    drained.await.expect("drained");
    assert_eq!(bench.outbox.in_flight(), 0);
    let states: Vec<_> = (0..60).map(|n| row(&bench.store, &format!("a{n:03}"))).collect();
    let sent = states.iter().filter(|row| row.state() == Ok(DeliveryState::Sent)).count();
    let ready = states.iter().filter(|row| row.state() == Ok(DeliveryState::Ready) && row.attempt == 0).count();
    assert_eq!((sent + ready, sent), (60, sink.asked().len() - 1), "each was sent or never begun");
}

/// Never answers.
#[derive(Debug)]
struct Silent;

impl Sink for Silent {
    fn name(&self) -> &str {
        "batch"
    }

    fn limits(&self) -> Limits {
        Limits { concurrency: Some(32), per_minute: None }
    }

    fn send<'a>(&'a self, _: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(std::future::pending())
    }
}

#[actix::test]
async fn a_look_ends_while_more_is_on_its_way_than_one_claim_looks_at() {
    let bench = bench(vec![Arc::new(Silent)]);
    let rows: Vec<NewDelivery> = (0..20).map(|n| new(&format!("d{n}"), "batch", &format!("l{n}"))).collect();
    enqueue(&bench.store, &rows);
    let mut beat = Beat::new();
    for _ in 0..3 {
        let look = bench.outbox.look(0, &mut beat);
        tokio::time::timeout(Duration::from_secs(20), look).await.expect("it looks no further where a whole round brought nothing");
    }
    assert_eq!(bench.outbox.in_flight(), 20, "places are left, and what is held stands before all else in the index");
}

#[actix::test]
async fn a_claim_whose_lease_ran_out_while_the_process_was_halted_is_not_sent() {
    let sink = NoopSink::named("hook");
    let bench = bench(vec![sink.clone()]);
    enqueue(&bench.store, &[new("a", "hook", "l")]);
    let claim =
        Claim { sink: "hook", worker: "w1", limit: 1, per_lane: 1, after: None, lease: Duration::from_secs(900), now_us: 1 };
    let taken = bench.store.with(|conn| conn.write(|conn| deliveries::claim_due(conn, &claim))).expect("claims");
    // As if the claim had been asked for an hour ago.
    let Some(long_ago) = Instant::now().checked_sub(Duration::from_secs(3_600)) else { return };
    bench.outbox.start(0, taken.rows, long_ago);
    until("it is given back", || !super::super::state::lock(&bench.outbox.sides[0].ends).is_empty()).await;
    assert_eq!(sink.taken(), [], "others may have it");
    bench.outbox.settle(0).await;
    assert_eq!((row(&bench.store, "a").state(), row(&bench.store, "a").attempt), (Ok(DeliveryState::Ready), 0));
}
