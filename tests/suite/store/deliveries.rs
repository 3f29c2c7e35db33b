//! The outbox table: the same states, claims and fences on both databases.

use std::time::Duration;

use belayd::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    store::{
        StoreErrorKind,
        deliveries::{
            Claim, DeliveryRow, Held, NewDelivery, Outcome, Owner, Settlement, act, claim_due, counts, enqueue, failures, get,
            mark_sending, next_due, promote_due, prune, reclaim_expired, renew, settle, take_back,
        },
    },
};

use super::{TestStore, on_both};

const LEASE: Duration = Duration::from_secs(60);

on_both!(
    a_delivery_is_claimed_by_one_worker_sent_and_settled_once,
    order_holds_within_a_lane_and_a_hot_lane_holds_back_only_itself,
    a_lease_that_ran_out_frees_its_delivery_and_fences_its_worker,
    a_send_that_vanished_goes_the_way_of_its_route,
    scheduled_and_retried_deliveries_become_ready_when_due,
    people_make_the_moves_of_the_drawing_and_no_other,
    four_workers_share_the_work_without_double_work_and_in_order,
    two_writers_of_one_lane_do_not_block_each_other_for_ever,
    settled_ones_go_in_slices_that_claims_do_not_wait_for,
);

fn new(id: &str, lane: &str) -> NewDelivery {
    NewDelivery {
        id: id.into(),
        sink: "hook".into(),
        lane: lane.into(),
        subject: "s".into(),
        payload: r#"{"text":"ünïcode"}"#.into(),
        due_at_us: 0,
        max_attempts: 2,
        on_unknown: OnUnknown::Review,
        recipient: String::new(),
    }
}

fn add(store: &TestStore, rows: &[NewDelivery]) {
    store.with(|conn| conn.write(|conn| enqueue(conn, rows, 100))).expect("enqueues");
}

fn claim_as(store: &TestStore, worker: &str, limit: u32, lease: Duration) -> Vec<DeliveryRow> {
    store
        .with(|conn| conn.write(|conn| claim_due(conn, &Claim { sink: "hook", worker, limit, lease, now_us: 100 })))
        .expect("claims")
}

fn begin(store: &TestStore, rows: &[DeliveryRow]) -> Vec<Held> {
    let held: Vec<Held> = rows.iter().map(DeliveryRow::held).collect();
    store.with(|conn| conn.write(|conn| mark_sending(conn, &held, 100))).expect("marks")
}

fn end(store: &TestStore, held: &Held, outcome: Outcome) -> Vec<Held> {
    let settlement = Settlement { held: held.clone(), outcome, error: Some(("timeout".into(), "no answer".into())), answer: None };
    store.with(|conn| conn.write(|conn| settle(conn, &[settlement], 200))).expect("settles")
}

fn row(store: &TestStore, id: &str) -> DeliveryRow {
    store.with(|conn| get(conn, id)).expect("reads").expect("is there")
}

fn state(store: &TestStore, id: &str) -> DeliveryState {
    row(store, id).state().expect("a known state")
}

fn ids(rows: &[DeliveryRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

fn a_delivery_is_claimed_by_one_worker_sent_and_settled_once(store: &TestStore) {
    add(store, &[new("a", "l")]);
    let rows = claim_as(store, "w1", 5, LEASE);
    assert_eq!((ids(&rows), rows[0].epoch, rows[0].claimed_by.as_deref()), (vec!["a"], 1, Some("w1")));
    assert!(claim_as(store, "w2", 5, LEASE).is_empty());
    let held = begin(store, &rows);
    assert_eq!((end(store, &held[0], Outcome::Sent), end(store, &held[0], Outcome::Sent)), (vec![], held));
    let sent = row(store, "a");
    assert_eq!((sent.state(), sent.attempt, sent.settled_at_us, sent.claimed_by), (Ok(DeliveryState::Sent), 1, Some(200), None));
    assert_eq!(sent.payload, r#"{"text":"ünïcode"}"#);
    let twice = store.with(|conn| conn.write(|conn| enqueue(conn, &[new("a", "l")], 1)));
    assert_eq!(twice.map_err(|error| error.kind), Err(StoreErrorKind::Conflict));
    assert_eq!((store.with(|conn| prune(conn, 200, 9)), store.with(|conn| prune(conn, 201, 9))), (Ok(0), Ok(1)));
}

fn order_holds_within_a_lane_and_a_hot_lane_holds_back_only_itself(store: &TestStore) {
    let mut rows: Vec<NewDelivery> = (0..600).map(|n| new(&format!("hot{n}"), "hot")).collect();
    rows.push(new("cold", "cold"));
    add(store, &rows);
    let first = claim_as(store, "w1", 9, LEASE);
    assert_eq!(ids(&first), ["hot0", "cold"]);
    let held = begin(store, &first);
    end(store, &held[0], Outcome::Retry { at_us: 900 });
    assert!(claim_as(store, "w1", 9, LEASE).is_empty(), "a retry blocks its lane");
    store.with(|conn| promote_due(conn, 900)).expect("promotes");
    let again = claim_as(store, "w1", 9, LEASE);
    assert_eq!(ids(&again), ["hot0"]);
    end(store, &begin(store, &again)[0], Outcome::Uncertain);
    assert_eq!(ids(&claim_as(store, "w1", 9, LEASE)), ["hot1"], "an uncertain one does not");
}

fn a_lease_that_ran_out_frees_its_delivery_and_fences_its_worker(store: &TestStore) {
    add(store, &[new("a", "l")]);
    let old = claim_as(store, "w1", 1, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(store.with(|conn| conn.write(|conn| reclaim_expired(conn, 150))), Ok(1));
    let fresh = claim_as(store, "w2", 1, LEASE);
    assert_eq!(fresh[0].epoch, 2);
    assert!(begin(store, &old).is_empty());
    let held = begin(store, &fresh);
    assert_eq!(end(store, &old[0].held(), Outcome::Sent), [old[0].held()]);
    assert_eq!(store.with(|conn| renew(conn, &[old[0].held(), held[0].clone()], LEASE)), Ok(held.clone()));
    assert_eq!(store.with(|conn| conn.write(|conn| reclaim_expired(conn, 150))), Ok(0), "renewed");
    assert_eq!(end(store, &held[0], Outcome::Sent), []);
}

fn a_send_that_vanished_goes_the_way_of_its_route(store: &TestStore) {
    let resend = NewDelivery { on_unknown: OnUnknown::Resend, ..new("resend", "b") };
    let last = NewDelivery { max_attempts: 1, id: "last".into(), lane: "c".into(), ..resend.clone() };
    add(store, &[new("review", "a"), resend, last, new("unsent", "d")]);
    let rows = claim_as(store, "w1", 9, LEASE);
    begin(store, &rows[..3]);
    assert_eq!(store.with(|conn| conn.write(|conn| take_back(conn, Owner::Worker("other"), &[], 300))), Ok(0));
    assert_eq!(store.with(|conn| conn.write(|conn| take_back(conn, Owner::Worker("w1"), &[], 300))), Ok(4));
    let states = ["review", "resend", "last", "unsent"].map(|id| state(store, id));
    assert_eq!(states, [DeliveryState::Uncertain, DeliveryState::Retry, DeliveryState::Dead, DeliveryState::Ready]);
    assert!(row(store, "resend").possible_repeat());
}

fn scheduled_and_retried_deliveries_become_ready_when_due(store: &TestStore) {
    add(store, &[NewDelivery { due_at_us: 500, ..new("later", "l") }, NewDelivery { due_at_us: 400, ..new("sooner", "m") }]);
    assert_eq!(store.with(next_due), Ok(Some(400)));
    assert_eq!((store.with(|conn| promote_due(conn, 399)), store.with(|conn| promote_due(conn, 450))), (Ok(0), Ok(1)));
    assert_eq!(ids(&claim_as(store, "w1", 9, LEASE)), ["sooner"]);
    let counted = store.with(counts).expect("counts");
    let seen: Vec<_> = counted.iter().map(|count| (count.state, count.count)).collect();
    assert_eq!(seen, [(DeliveryState::Scheduled, 1), (DeliveryState::Claimed, 1)]);
    assert_eq!(store.with(next_due), Ok(Some(500)));
}

fn people_make_the_moves_of_the_drawing_and_no_other(store: &TestStore) {
    add(store, &[new("a", "l"), new("b", "m")]);
    let held = begin(store, &claim_as(store, "w1", 9, LEASE));
    end(store, &held[0], Outcome::Exhausted);
    end(store, &held[1], Outcome::Uncertain);
    let act = |id: &str, event| store.with(|conn| conn.write(|conn| act(conn, id, event, 300)));
    let page = store.with(|conn| failures(conn, 1, None)).expect("lists");
    assert_eq!(ids(&page), ["b"]);
    assert_eq!(ids(&store.with(|conn| failures(conn, 9, Some(page[0].seq))).expect("lists")), ["a"]);
    assert_eq!(act("a", Event::Cancel).map_err(|error| error.kind), Err(StoreErrorKind::Conflict));
    assert_eq!(act("a", Event::Redrive).map(|row| (row.attempt, row.possible_repeat())), Ok((0, false)));
    assert_eq!(act("b", Event::MarkSent).map(|row| row.settled_at_us), Ok(Some(300)));
    assert_eq!(act("none", Event::Discard).map_err(|error| error.kind), Err(StoreErrorKind::NotFound));
    assert_eq!(act("a", Event::Cancel).map(|row| row.state()), Ok(Ok(DeliveryState::Cancelled)));
}

fn four_workers_share_the_work_without_double_work_and_in_order(store: &TestStore) {
    let rows: Vec<NewDelivery> = (0..300).map(|n| new(&format!("{n:03}"), &format!("lane{}", n % 11))).collect();
    add(store, &rows);
    let log = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in ["w1", "w2", "w3", "w4"] {
            let (log, store) = (&log, &store);
            scope.spawn(move || {
                loop {
                    let rows = claim_as(store, worker, 3, LEASE);
                    if rows.is_empty() && store.with(counts).expect("counts").is_empty() {
                        return;
                    }
                    for held in begin(store, &rows) {
                        log.lock().expect("no panic").push(held.id.clone());
                        assert_eq!(end(store, &held, Outcome::Sent), []);
                    }
                }
            });
        }
    });
    let sent = log.into_inner().expect("no panic");
    assert_eq!(sent.len(), 300);
    for lane in 0..11 {
        let of_lane: Vec<&String> = sent.iter().filter(|id| id.parse::<usize>().is_ok_and(|n| n % 11 == lane)).collect();
        assert!(of_lane.is_sorted() && of_lane.len() >= 27, "lane {lane}: {of_lane:?}");
    }
}

fn two_writers_of_one_lane_do_not_block_each_other_for_ever(store: &TestStore) {
    std::thread::scope(|scope| {
        for writer in 0..2 {
            scope.spawn(move || {
                for n in 0..20 {
                    // Opposite orders of the same lanes: locked in the order given, they would wait for each other in a circle.
                    let mut rows = vec![new(&format!("{writer}-{n}-a"), "a"), new(&format!("{writer}-{n}-b"), "b")];
                    if writer == 1 {
                        rows.reverse();
                    }
                    add(store, &rows);
                }
            });
        }
    });
    assert_eq!(store.with(counts).expect("counts").iter().map(|count| count.count).sum::<u64>(), 80);
}

fn settled_ones_go_in_slices_that_claims_do_not_wait_for(store: &TestStore) {
    const SETTLED: usize = 5_000;
    let many: Vec<_> = (0..SETTLED).map(|n| new(&format!("old{n}"), &format!("lane{n}"))).collect();
    add(store, &many);
    store
        .with(|conn| {
            let sql = "UPDATE deliveries SET state = 'sent', settled_at_us = seq";
            Ok(belayd::on_backend!(conn, |c| diesel::RunQueryDsl::execute(diesel::sql_query(sql), c))?)
        })
        .expect("as if sent");
    let fresh: Vec<_> = (0..100).map(|n| new(&format!("new{n}"), &format!("lane{n}"))).collect();
    add(store, &fresh);
    if store.backend() == belayd::store::Backend::Postgres {
        // A slice that is deleted and not committed yet holds back no claim of the lanes that it belonged to, and no new delivery.
        store
            .with(|conn| {
                conn.write(|conn| {
                    assert_eq!(prune(conn, i64::MAX, 2_000)?, 2_000);
                    std::thread::scope(|scope| {
                        let claims = scope.spawn(|| claim_as(store, "w", 100, LEASE).len());
                        assert_eq!(claims.join().expect("no panic"), 100);
                        scope.spawn(|| add(store, &[new("while", "lane0")])).join().expect("no panic");
                    });
                    Ok(())
                })
            })
            .expect("pruned");
    } else {
        assert_eq!(store.with(|conn| prune(conn, i64::MAX, 2_000)).expect("a slice"), 2_000);
        assert_eq!(claim_as(store, "w", 100, LEASE).len(), 100);
    }
    let mut left = SETTLED - 2_000;
    while left > 0 {
        let slice = store.with(|conn| prune(conn, i64::MAX, 2_000)).expect("a slice");
        assert!(slice > 0 && slice <= 2_000, "bounded");
        left -= slice;
    }
    assert_eq!(store.with(|conn| prune(conn, i64::MAX, 2_000)).expect("nothing"), 0, "what is not settled stays");
    assert_eq!(state(store, "new99"), DeliveryState::Claimed);
}
