//! Channels that are down for long and come back: what waited goes out at once, once, in order, and no attempts are used up.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};

use super::*;
use crate::clock::SharedClock;

/// An hour, microseconds.
const HOUR_US: i64 = 3_600_000_000;

/// Down while it is told so; what it answers for an id is told beforehand, until it is taken back.
#[derive(Debug, Default)]
struct Channel {
    down: AtomicBool,
    errors: Mutex<HashMap<String, SendError>>,
    tries: Mutex<Vec<String>>,
    took: Mutex<Vec<Letter>>,
}

impl Channel {
    fn that_is_down() -> Arc<Self> {
        Arc::new(Self { down: AtomicBool::new(true), ..Self::default() })
    }

    fn tries(&self) -> usize {
        self.tries.lock().expect("no panic").len()
    }

    fn took(&self) -> Vec<String> {
        self.took.lock().expect("no panic").iter().map(|letter| letter.id.clone()).collect()
    }
}

fn error(class: ErrorClass, error_type: &'static str) -> SendError {
    SendError { class, error_type, message: "as told".into() }
}

impl Sink for Channel {
    fn name(&self) -> &str {
        "hook"
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async move {
            self.tries.lock().expect("no panic").push(letter.id.clone());
            if let Some(error) = self.errors.lock().expect("no panic").get(&letter.id) {
                return Err(error.clone());
            }
            if self.down.load(Ordering::SeqCst) {
                return Err(error(ErrorClass::Retry { after: None }, "connect"));
            }
            self.took.lock().expect("no panic").push(letter.clone());
            Ok(Sent::default())
        })
    }
}

/// Waits that are long by the injected clock.
fn patient() -> Config {
    let outbox = OutboxConfig { retry_base: Duration::from_secs(60), retry_max: Duration::from_secs(900), ..config().outbox };
    Config { outbox, ..Config::default() }
}

fn outbox(control: &Store, store: Option<&Store>, clock: &SharedClock, sink: Arc<Channel>) -> Arc<Outbox> {
    let is_up: Box<dyn Fn() -> bool + Send + Sync> = Box::new(|| true);
    Outbox::new(OutboxParts {
        control: control.clone(),
        store: store.map(|store| (store.clone(), is_up)),
        config: Arc::new(ArcSwap::from_pointee(patient())),
        own_sinks: Vec::new(),
        sinks: vec![sink],
        clock: clock.clone(),
        metrics: Arc::new(Metrics::new().expect("the catalogue is sound")),
        worker: "w1".into(),
    })
}

/// `count` deliveries in each of the lanes, named after them.
fn lanes(lanes: &[&str], count: usize) -> Vec<NewDelivery> {
    lanes.iter().flat_map(|lane| (0..count).map(move |n| new(&format!("{lane}{n}"), "hook", lane))).collect()
}

async fn until_open(outbox: &Outbox) {
    until("the circuit opens", || outbox.circuits().contains(&("hook".to_owned(), CircuitState::Open))).await;
}

/// Time passes by the injected clock, a minute at a time, and so many trials at least by the other.
async fn an_hour_passes(clock: &ManualClock, sink: &Channel) {
    let tries = sink.tries();
    for _ in 0..60 {
        clock.advance_us(HOUR_US / 60);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("it is tried again and again", || sink.tries() >= tries + 4).await;
}

#[actix::test]
async fn after_an_hour_away_all_that_waited_goes_out_once_and_in_order_without_the_clock_moving_on() {
    let (_dir, control) = scratch();
    let (_other, store) = scratch();
    let clock = ManualClock::at(1_000);
    let sink = Channel::that_is_down();
    let shared: SharedClock = clock.clone();
    let outbox = outbox(&control, Some(&store), &shared, sink.clone());
    let _actor = OutboxActor::new(outbox.clone()).start();
    let (alerts, messages) = (lanes(&["a", "b", "c"], 3), lanes(&["x", "y", "z", "v", "w"], 3));
    enqueue(&control, &alerts);
    enqueue(&store, &messages);
    outbox.wake();
    until_open(&outbox).await;
    an_hour_passes(&clock, &sink).await;
    assert_eq!(sink.took(), Vec::<String>::new());
    let each = alerts.iter().map(|new| (&control, new)).chain(messages.iter().map(|new| (&store, new)));
    for (store, new) in each.clone() {
        assert_ne!(row(store, &new.id).state(), Ok(DeliveryState::Dead), "{}: an outage uses up no attempts", new.id);
    }
    // From here on only the return itself can bring anything forward: what is due by the clock is due already.
    let (back_at_us, back) = (clock.now_us(), Instant::now());
    sink.down.store(false, Ordering::SeqCst);
    until("all are sent", || outbox.sent_total() == 24).await;
    let took = back.elapsed();
    eprintln!("all were sent {took:?} after the return");
    assert!(took < Duration::from_secs(2), "{took:?} after the return");
    for (store, new) in each {
        until_state(store, &new.id, DeliveryState::Sent).await;
        let took_us = row(store, &new.id).settled_at_us.expect("it is settled") - back_at_us;
        assert!((0..=2_000_000).contains(&took_us), "{}: {took_us} us after the return", new.id);
    }
    let took = sink.took();
    assert_eq!(took.iter().collect::<HashSet<_>>().len(), took.len(), "each once: {took:?}");
    for lane in ["a", "b", "c", "x", "y", "z", "v", "w"] {
        let of_lane: Vec<&String> = took.iter().filter(|id| id.starts_with(lane)).collect();
        assert!(of_lane.is_sorted() && of_lane.len() == 3, "{of_lane:?}");
    }
}

#[actix::test]
async fn a_start_finds_what_waits_from_an_earlier_life_and_tries_with_one() {
    let (_dir, control) = scratch();
    let clock = ManualClock::at(1_000);
    let shared: SharedClock = clock.clone();
    let sink = Channel::that_is_down();
    let rows = lanes(&["a", "b", "c", "d", "e", "f"], 1);
    enqueue(&control, &rows);
    let stop = |outbox: Arc<Outbox>| async move {
        outbox.stopping.store(true, Ordering::SeqCst);
        outbox.wake();
        until("nothing is on its way", || outbox.in_flight() == 0).await;
    };
    let first = outbox(&control, None, &shared, sink.clone());
    let actor = OutboxActor::new(first.clone()).start();
    until_open(&first).await;
    until("what failed is written down", || first.in_flight() == 0).await;
    drop(actor);
    stop(first).await;

    // Still down: the next life does not knock with all of them.
    let (before, attempts) = (sink.tries(), |store: &Store| rows.iter().map(|new| row(store, &new.id).attempt).sum::<i32>());
    let counted = attempts(&control);
    let second = outbox(&control, None, &shared, sink.clone());
    let actor = OutboxActor::new(second.clone()).start();
    until_open(&second).await;
    until("its end is written", || second.in_flight() == 0).await;
    drop(actor);
    stop(second).await;
    assert!(sink.tries() <= before + 3, "one at a time: {} more", sink.tries() - before);
    assert_eq!(attempts(&control), counted, "and not one of them is counted");

    // Back while nobody looked; the clock stands still, so nothing is due for a quarter of an hour.
    sink.down.store(false, Ordering::SeqCst);
    let third = outbox(&control, None, &shared, sink.clone());
    let _actor = OutboxActor::new(third.clone()).start();
    until("all are sent", || third.sent_total() == 6).await;
    assert_eq!(sink.took().iter().collect::<HashSet<_>>().len(), 6);
}

#[actix::test]
async fn what_was_refused_for_its_own_sake_keeps_its_time_and_does_not_keep_the_channel_shut() {
    let (_dir, control) = scratch();
    let shared: SharedClock = ManualClock::at(1_000);
    let sink = Channel::that_is_down();
    let again = |after| ErrorClass::Retry { after };
    sink.errors.lock().expect("no panic").extend([
        // It gets the first lane, and is refused as if the channel were down, which it is not.
        ("a0".to_owned(), error(again(None), "status_5xx")),
        ("polite0".to_owned(), error(again(Some(Duration::from_secs(600))), "asked_to_wait")),
        ("grey0".to_owned(), error(again(None), "smtp_4xx")),
    ]);
    let outbox = outbox(&control, None, &shared, sink.clone());
    let _actor = OutboxActor::new(outbox.clone()).start();
    enqueue(&control, &lanes(&["polite", "grey"], 1));
    outbox.wake();
    until_state(&control, "polite0", DeliveryState::Retry).await;
    until_state(&control, "grey0", DeliveryState::Retry).await;
    enqueue(&control, &lanes(&["a", "b", "c", "d"], 1));
    outbox.wake();
    until_open(&outbox).await;
    for id in ["a0", "b0", "c0", "d0"] {
        until(&format!("{id} was tried"), || sink.tries.lock().expect("no panic").iter().any(|tried| tried == id)).await;
    }
    sink.down.store(false, Ordering::SeqCst);
    for id in ["b0", "c0", "d0"] {
        until_state(&control, id, DeliveryState::Sent).await;
    }
    for id in ["polite0", "grey0"] {
        assert_eq!((row(&control, id).state(), row(&control, id).attempt), (Ok(DeliveryState::Retry), 1), "{id}");
    }
}

#[actix::test]
async fn what_has_one_attempt_is_told_at_once_that_the_channel_is_down() {
    let (_dir, control) = scratch();
    let shared: SharedClock = ManualClock::at(1_000);
    let sink = Channel::that_is_down();
    let outbox = outbox(&control, None, &shared, sink.clone());
    let _actor = OutboxActor::new(outbox.clone()).start();
    enqueue(&control, &lanes(&["a", "b", "c", "d", "e", "f"], 1));
    outbox.wake();
    until_open(&outbox).await;
    enqueue(&control, &[NewDelivery { max_attempts: 1, ..new("trial", "hook", "trial") }]);
    outbox.wake();
    until_state(&control, "trial", DeliveryState::Dead).await;
}
