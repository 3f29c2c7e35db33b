//! Mailboxes: their bound, their depth, their fairness; and the ordered stop.

use super::*;

/// Fills the mailbox behind a message that blocks the thread for `time`.
fn fill(orders: &Courier<Do>, time: Duration) -> usize {
    orders.try_send(Do::Block(time)).unwrap();
    while orders.depth() > 0 {
        std::thread::yield_now();
    }
    let mut taken = 0;
    while orders.try_send(Do::Work(Duration::ZERO)).is_ok() {
        taken += 1;
    }
    taken
}

#[actix::test]
async fn the_bound_holds_however_many_couriers_there_are() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let orders = puppet.courier();
    assert_eq!(fill(&orders, Duration::from_millis(500)), 512);
    for _ in 0..100 {
        let (tx, _rx) = oneshot::channel();
        assert!(matches!(puppet.courier().try_send(Ask(tx)), Err(SendRefused::Full(_))));
        assert!(matches!(orders.clone().try_send(Do::Panic), Err(SendRefused::Full(_))));
    }
    let status = supervisor.registry().status("Puppet").unwrap();
    assert_eq!((status.mailbox_depth, status.mailbox_bound), (512, 512));
    // A sender that waits gets its turn.
    assert_eq!(ask(&puppet.courier()).await, (1, 1));
    assert_eq!(orders.depth(), 0);
}

#[actix::test]
async fn the_depth_returns_to_zero_after_panics_in_a_full_mailbox() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let orders = puppet.courier();
    orders.try_send(Do::Block(Duration::from_millis(300))).unwrap();
    for turn in 0..500 {
        orders.try_send(if turn % 25 == 0 { Do::Panic } else { Do::Work(Duration::ZERO) }).unwrap();
    }
    assert!(orders.depth() > 400);
    until("all are handled", || orders.depth() == 0).await;
    assert_eq!(ask(&puppet.courier()).await.0, 21);
    assert_eq!(puppet.courier::<Ask>().depth(), 0);
}

#[actix::test]
async fn a_mailbox_that_never_runs_empty_starves_neither_timers_nor_the_thread() {
    static TICKS: AtomicU32 = AtomicU32::new(0);
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let (_overseer, ended) = watch::oversee(&supervisor, Default::default());
    let (courier, end) = (puppet.courier(), Arc::new(AtomicBool::new(false)));
    for _ in 0..100 {
        courier.try_send(Boomerang(courier.clone(), end.clone())).unwrap();
    }
    puppet.courier().try_send(Do::Tick(&TICKS)).unwrap();
    until("timers fire", || TICKS.load(SeqCst) >= 50).await;
    tokio::time::sleep(settings().hang_after * 3).await;
    assert!(courier.depth() >= 99, "{}", courier.depth());
    assert!(ended.lock().unwrap().is_empty() && supervisor.registry().status("Puppet").unwrap().restarts == 0);
    end.store(true, SeqCst);
    until("they end", || courier.depth() == 0).await;
}

#[actix::test]
async fn a_probe_stands_in_for_an_actor() {
    let (courier, mut probe) = Courier::<u32>::probe(1);
    courier.try_send(1).unwrap();
    assert!(matches!(courier.try_send(2), Err(SendRefused::Full(2))));
    assert_eq!((courier.depth(), probe.recv().await, courier.depth()), (1, Some(1), 0));
    courier.send(3).await.unwrap();
    assert_eq!(probe.try_recv(), Some(3));
    drop(probe);
    assert!(matches!(courier.try_send(4), Err(SendRefused::Closed(4))));
    assert!(!courier.connected());
}

#[actix::test]
async fn the_ordered_stop_asks_again_after_a_crash_and_names_who_did_not_finish() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let report = supervisor.drain(&["Puppet", "Nobody"], Instant::now() + Duration::from_secs(5)).await;
    assert_eq!((report.finished.len(), report.finished[0].0.as_str()), (1, "Puppet"));
    assert_eq!(report.unfinished, ["Nobody"]);
    assert!(!report.is_complete());
    // A stop after the drain is the end, not a failure.
    puppet.courier().try_send(Do::Stop).unwrap();
    until("it has stopped", || supervisor.registry().status("Puppet").unwrap().state == ActorState::Stopped).await;
    assert_eq!(supervisor.registry().status("Puppet").unwrap().restarts_by_reason.stop, 0);
}

#[actix::test]
async fn an_actor_that_does_not_finish_costs_the_deadline_and_no_more() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    puppet.courier().try_send(Do::Hang).unwrap();
    let began = Instant::now();
    let report = supervisor.drain(&["Puppet", "Puppet"], began + Duration::from_millis(50)).await;
    assert_eq!(report.unfinished, ["Puppet", "Puppet"]);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[actix::test]
async fn a_message_costs_little_more_than_without_the_count() {
    let supervisor = Supervisor::new(settings());
    let puppet = start(&supervisor);
    let orders = puppet.courier();
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let began = Instant::now();
        for _ in 0..500 {
            orders.try_send(Do::Work(Duration::ZERO)).unwrap();
        }
        best = best.min(began.elapsed() / 500);
        until("all are handled", || orders.depth() == 0).await;
    }
    // Without optimization, on a machine that may be busy; the module says what an optimized build takes.
    assert!(best < Duration::from_micros(20), "{best:?} a message");
}
