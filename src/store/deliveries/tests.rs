//! The outbox table on SQLite; the conformance suite runs the same functions on PostgreSQL.

use std::time::Duration;

use super::*;
use crate::{
    config::OnUnknown,
    store::{Store, StoreErrorKind, control::tests::scratch},
};

const LEASE: Duration = Duration::from_secs(30);

fn new(id: &str, lane: &str, due_at_us: i64) -> NewDelivery {
    NewDelivery {
        id: id.into(),
        sink: "hook".into(),
        lane: lane.into(),
        subject: "alert".into(),
        payload: "{}".into(),
        due_at_us,
        max_attempts: 3,
        on_unknown: OnUnknown::Review,
        recipient: String::new(),
    }
}

fn enqueue_all(store: &Store, rows: &[NewDelivery]) {
    store.with(|conn| conn.write(|conn| enqueue(conn, rows, 100))).expect("enqueues");
}

fn claim(store: &Store, limit: u32) -> Vec<DeliveryRow> {
    claim_with(store, limit, LEASE)
}

fn claim_with(store: &Store, limit: u32, lease: Duration) -> Vec<DeliveryRow> {
    store.with(|conn| conn.write(|conn| claim_due(conn, &of_hook(limit, 1, None, lease)))).expect("claims").rows
}

fn of_hook(limit: u32, per_lane: u32, after: Option<&str>, lease: Duration) -> Claim<'_> {
    Claim { sink: "hook", worker: "w1", limit, per_lane, after, lease, now_us: 100 }
}

fn held(rows: &[DeliveryRow]) -> Vec<Held> {
    rows.iter().map(DeliveryRow::held).collect()
}

fn finish(store: &Store, held: &Held, outcome: Outcome) -> Vec<Held> {
    let error = Some(("timeout".into(), "x".repeat(2_000)));
    let settlement = Settlement { held: held.clone(), outcome, error, answer: None, made: None };
    store.with(|conn| conn.write(|conn| settle(conn, &[settlement], 200))).expect("settles")
}

fn state(store: &Store, id: &str) -> DeliveryState {
    row(store, id).state().expect("a known state")
}

fn row(store: &Store, id: &str) -> DeliveryRow {
    store.with(|conn| get(conn, id)).expect("reads").expect("is there")
}

fn ids(rows: &[DeliveryRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

#[test]
fn of_many_successes_those_that_lost_their_claim_are_told() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("a", "l1", 50), new("b", "l2", 50), new("c", "l3", 50)]);
    let held = held(&claim(&store, 10));
    let keep = [held[0].clone(), held[2].clone()];
    store.with(|conn| conn.write(|conn| take_back(conn, Owner::Anyone, &keep, false, 100))).expect("takes back");
    let all = |now_us| {
        let sent = |held: &Held| Settlement { held: held.clone(), outcome: Outcome::Sent, error: None, answer: None, made: None };
        let ends: Vec<Settlement> = held.iter().map(sent).collect();
        store.with(|conn| conn.write(|conn| settle(conn, &ends, now_us))).expect("settles")
    };
    assert_eq!(all(200), held[1..2], "the others are sent");
    assert_eq!(["a", "b", "c"].map(|id| state(&store, id)), [DeliveryState::Sent, DeliveryState::Ready, DeliveryState::Sent]);
    let mut again: Vec<String> = all(201).into_iter().map(|held| held.id).collect();
    again.sort();
    assert_eq!(again, ["a", "b", "c"], "what is settled is settled once");
}

#[test]
fn what_fails_within_a_transaction_takes_all_of_it_back() {
    let (_dir, store) = scratch();
    let failing = |conn: &mut crate::store::Conn| {
        conn.write_within(|conn| {
            enqueue(conn, &[new("b", "l", 50)], 100)?;
            Err::<(), _>(crate::store::StoreError::invalid("on purpose"))
        })
    };
    let alone = store.with(failing);
    let within = store.with(|conn| conn.write(|conn| enqueue(conn, &[new("a", "l", 50)], 100).and_then(|()| failing(conn))));
    for result in [alone, within] {
        assert_eq!(result.map_err(|error| error.kind), Err(StoreErrorKind::Invalid));
    }
    assert_eq!(claim(&store, 10), [], "neither is there");
}

#[test]
fn a_delivery_goes_from_ready_to_sent_and_is_settled_once() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("a", "l", 50)]);
    let claimed = claim(&store, 10);
    assert_eq!((claimed[0].state(), claimed[0].epoch, claimed[0].attempt), (Ok(DeliveryState::Sending), 1, 1));
    assert_eq!(row(&store, "a"), claimed[0], "what was returned is what is there");
    assert_eq!(claim(&store, 10), [], "a claimed one is not claimed again");
    let held = held(&claimed);
    assert_eq!(finish(&store, &held[0], Outcome::Sent), []);
    assert_eq!(finish(&store, &held[0], Outcome::Sent), held, "the second settlement changes nothing");
    let sent = row(&store, "a");
    assert_eq!((sent.state(), sent.attempt, sent.settled_at_us), (Ok(DeliveryState::Sent), 1, Some(200)));
}

#[test]
fn what_is_scheduled_is_claimed_only_when_it_is_due() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("later", "l", 500)]);
    assert_eq!(store.with(|conn| promote_due(conn, 499)), Ok(0));
    assert_eq!(claim(&store, 1), []);
    assert_eq!(store.with(|conn| promote_due(conn, 500)), Ok(1));
    assert_eq!(ids(&claim(&store, 1)), ["later"]);
}

#[test]
fn a_retry_blocks_its_lane_and_uncertain_and_dead_do_not() {
    let (_dir, store) = scratch();
    enqueue_all(
        &store,
        &[new("a1", "a", 0), new("a2", "a", 0), new("b1", "b", 0), new("b2", "b", 0), new("c1", "c", 0), new("c2", "c", 0)],
    );
    let first = claim(&store, 10);
    assert_eq!(ids(&first), ["a1", "b1", "c1"], "one of each lane");
    let held = held(&first);
    finish(&store, &held[0], Outcome::Retry { at_us: 900 });
    finish(&store, &held[1], Outcome::Uncertain);
    finish(&store, &held[2], Outcome::Rejected);
    assert_eq!(ids(&claim(&store, 10)), ["b2", "c2"]);
    assert_eq!(row(&store, "a1").due_at_us, 900);
    assert_eq!(row(&store, "a1").last_error.map(|text| text.len()), Some(500));
    store.with(|conn| promote_due(conn, 900)).expect("promotes");
    assert_eq!(ids(&claim(&store, 10)), ["a1"], "the retry keeps its place");
}

#[test]
fn a_hot_lane_does_not_starve_the_rest() {
    let (_dir, store) = scratch();
    let mut rows: Vec<NewDelivery> = (0..1_000).map(|n| new(&format!("hot-{n}"), "hot", 0)).collect();
    rows.push(new("cold", "cold", 0));
    enqueue_all(&store, &rows);
    assert_eq!(ids(&claim(&store, 2)), ["hot-0", "cold"]);
}

#[test]
fn a_claimed_delivery_returns_after_its_lease_ends_and_its_old_worker_is_fenced() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[NewDelivery { on_unknown: OnUnknown::Resend, ..new("a", "l", 0) }]);
    let old = claim_with(&store, 1, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(store.with(|conn| conn.write(|conn| reclaim_expired(conn, &[], 100))), Ok(1));
    assert_eq!(state(&store, "a"), DeliveryState::Retry);
    store.with(|conn| promote_due(conn, 100)).expect("promotes");
    let fresh = claim(&store, 1);
    assert_eq!(fresh[0].epoch, old[0].epoch + 1);
    assert_eq!(finish(&store, &old[0].held(), Outcome::Sent), [old[0].held()]);
    assert_eq!(state(&store, "a"), DeliveryState::Sending);
    assert_eq!(store.with(|conn| renew(conn, &[old[0].held(), fresh[0].held()], LEASE)), Ok(vec![fresh[0].held()]));
}

#[test]
fn an_expired_send_is_uncertain_or_goes_out_again_as_its_route_wants() {
    let (_dir, store) = scratch();
    let resend = NewDelivery { on_unknown: OnUnknown::Resend, ..new("resend", "b", 0) };
    let last = NewDelivery { max_attempts: 1, ..NewDelivery { id: "last".into(), lane: "c".into(), ..resend.clone() } };
    enqueue_all(&store, &[new("review", "a", 0), resend, last]);
    claim_with(&store, 10, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(store.with(|conn| conn.write(|conn| reclaim_expired(conn, &[], 300))), Ok(3));
    assert_eq!(state(&store, "review"), DeliveryState::Uncertain);
    assert_eq!(state(&store, "last"), DeliveryState::Dead);
    let again = row(&store, "resend");
    assert_eq!((again.state(), again.possible_repeat(), again.due_at_us), (Ok(DeliveryState::Retry), true, 300));
}

#[test]
fn a_restarted_worker_takes_back_its_own_claims_but_not_what_it_still_works_on() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("kept", "a", 0), new("lost", "b", 0), new("unsent", "c", 0)]);
    let held = held(&claim(&store, 10));
    let take = |owner, keep: &[Held], may_be_sent| {
        store.with(|conn| conn.write(|conn| take_back(conn, owner, keep, may_be_sent, 100))).expect("takes back")
    };
    assert_eq!(take(Owner::Worker("w2"), &[], true), 0);
    assert_eq!(take(Owner::Worker("w1"), &held[..2], false), 1, "it never heard that it had claimed it");
    assert_eq!((state(&store, "unsent"), row(&store, "unsent").attempt), (DeliveryState::Ready, 0));
    assert_eq!(take(Owner::Worker("w1"), &held[..1], true), 1);
    assert_eq!(state(&store, "kept"), DeliveryState::Sending);
    assert_eq!(state(&store, "lost"), DeliveryState::Uncertain);
    assert_eq!(take(Owner::Anyone, &[], true), 1);
}

#[test]
fn a_person_can_only_make_the_moves_of_the_drawing() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("a", "l", 0), new("s", "m", 900)]);
    let act = |id: &str, event| store.with(|conn| conn.write(|conn| act(conn, id, event, 300)));
    assert_eq!(act("none", Event::Discard).map_err(|error| error.kind), Err(StoreErrorKind::NotFound));
    let refused = act("a", Event::Redrive).expect_err("a ready one is not redriven");
    assert_eq!((refused.kind, refused.message.contains("ready")), (StoreErrorKind::Conflict, true));
    assert_eq!(act("s", Event::Cancel).map(|row| row.state()), Ok(Ok(DeliveryState::Cancelled)));
    let rows = claim(&store, 1);
    finish(&store, &rows[0].held(), Outcome::Uncertain);
    assert_eq!(store.with(|conn| failures(conn, 10, None)).map(|rows| rows.len()), Ok(1));
    let again = act("a", Event::Redrive).expect("an uncertain one can be sent again");
    assert_eq!((again.state(), again.attempt, again.possible_repeat()), (Ok(DeliveryState::Ready), 0, true));
    let rows = claim(&store, 1);
    finish(&store, &rows[0].held(), Outcome::Exhausted);
    assert_eq!(act("a", Event::MarkSent).map(|row| row.settled_at_us), Ok(Some(300)));
}

#[test]
fn counts_tell_every_unsettled_state_once_and_settled_rows_are_pruned_by_age() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("a", "a", 0), new("b", "b", 10), new("s", "s", 900), new("r", "r", 5)]);
    let rows = claim(&store, 2);
    let held = held(&rows);
    finish(&store, &held[0], Outcome::Sent);
    finish(&store, &held[1], Outcome::Retry { at_us: 700 });
    let counted = store.with(counts).expect("counts");
    let seen: Vec<_> = counted.iter().map(|count| (count.state, count.count, count.oldest_due_at_us)).collect();
    assert_eq!(
        seen,
        [(DeliveryState::Scheduled, 1, Some(900)), (DeliveryState::Ready, 1, Some(5)), (DeliveryState::Retry, 1, Some(700))]
    );
    assert_eq!(store.with(|conn| prune(conn, 200, 10)), Ok(0));
    assert_eq!(store.with(|conn| prune(conn, 201, 10)), Ok(1));
}

#[test]
fn one_claim_takes_several_of_a_lane_in_order_and_a_round_passes_every_lane() {
    let (_dir, store) = scratch();
    let of = |lane: &'static str| (0..100).map(move |n| new(&format!("{lane}-{n:02}"), lane, 0));
    let mut rows: Vec<NewDelivery> = of("hot").chain(of("hotter")).collect();
    rows.extend(["a", "b", "zz"].map(|lane| new(lane, lane, 0)));
    enqueue_all(&store, &rows);
    let look = |after: Option<&str>| {
        let claim = of_hook(16, 2, after, LEASE);
        store.with(|conn| conn.write(|conn| claim_due(conn, &claim))).expect("claims")
    };
    let first = look(None);
    assert_eq!(
        ids(&first.rows),
        ["hot-00", "hot-01", "hotter-00", "hotter-01", "a", "b"],
        "eight of a lane are passed, sixteen looked at"
    );
    assert_eq!(first.resume.as_deref(), Some("hotter"));
    let second = look(first.resume.as_deref());
    assert_eq!((ids(&second.rows), second.resume), (vec!["zz"], None));
    // Both lanes are held up by what is on its way, and the whole look brings nothing.
    let third = look(None);
    assert_eq!((third.rows.len(), third.resume.as_deref()), (0, Some("hotter")));
    finish(&store, &first.rows[0].held(), Outcome::Retry { at_us: 900 });
    finish(&store, &first.rows[1].held(), Outcome::GivenBack { attempts: 0 });
    assert_eq!((row(&store, "hot-01").attempt, look(None).rows.len()), (0, 0), "what is behind a retry waits");
    store.with(|conn| promote_due(conn, 900)).expect("promotes");
    assert_eq!(ids(&look(None).rows), ["hot-00", "hot-01"]);
}

#[test]
fn a_claim_is_bounded_in_bytes() {
    let (_dir, store) = scratch();
    let large = |n: usize| NewDelivery { payload: "x".repeat(1_500_000), ..new(&format!("d{n}"), &format!("l{n}"), 0) };
    enqueue_all(&store, &(0..5).map(large).collect::<Vec<_>>());
    let first = store.with(|conn| conn.write(|conn| claim_due(conn, &of_hook(9, 1, None, LEASE)))).expect("claims");
    assert_eq!((ids(&first.rows), first.resume.as_deref()), (vec!["d0"], Some("l0")));
}

#[test]
fn attempts_are_told_unless_the_first_succeeds_and_are_bounded_and_pruned_with_their_delivery() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("a", "a", 0), new("b", "b", 0)]);
    let end = |held: Held, outcome: Outcome, error: Option<&str>| {
        let made = Made { worker: "w1".into(), attempt: 1, began_at_us: 100, ended_at_us: 150 };
        let error = error.map(|word| (word.to_owned(), "as told".to_owned()));
        let end = Settlement { held, outcome, error, answer: Some("250 fine".into()), made: Some(made) };
        store.with(|conn| settle(conn, &[end], 200)).expect("settles")
    };
    let told = |id: &str| store.with(|conn| attempts(conn, id)).expect("reads");
    let first = claim(&store, 9);
    end(first[1].held(), Outcome::Sent, None);
    assert_eq!(told("b"), [], "its answer stands in the delivery");
    end(first[0].held(), Outcome::Retry { at_us: 0 }, Some("connect"));
    for _ in 0..=ATTEMPTS_KEPT {
        store.with(|conn| promote_due(conn, 100)).expect("promotes");
        end(claim(&store, 1)[0].held(), Outcome::Retry { at_us: 0 }, Some("timeout"));
    }
    let kept = told("a");
    let last = kept.last().expect("there are some");
    assert_eq!((kept.len(), last.epoch, last.outcome.as_str()), (ATTEMPTS_KEPT as usize, 52, "retry"));
    assert_eq!((last.worker.as_str(), last.error_type.as_deref(), last.began_at_us), ("w1", Some("timeout"), 100));
    assert_eq!(end(first[0].held(), Outcome::Sent, None), [first[0].held()], "fenced");
    assert_eq!(told("a"), kept, "a fenced end tells nothing");
    store.with(|conn| promote_due(conn, 100)).expect("promotes");
    end(claim(&store, 1)[0].held(), Outcome::Sent, None);
    assert_eq!(
        told("a").last().map(|last| (last.outcome.clone(), last.answer.clone())),
        Some(("sent".into(), Some("250 fine".into())))
    );
    assert_eq!(store.with(|conn| prune(conn, 201, 10)), Ok(2));
    assert_eq!(told("a"), []);
}

#[test]
fn a_send_that_vanished_is_among_the_attempts() {
    let (_dir, store) = scratch();
    enqueue_all(&store, &[new("a", "a", 0)]);
    claim(&store, 1);
    store.with(|conn| conn.write(|conn| take_back(conn, Owner::Anyone, &[], true, 300))).expect("takes back");
    let told = store.with(|conn| attempts(conn, "a")).expect("reads");
    let seen: Vec<_> =
        told.iter().map(|one| (one.outcome.as_str(), one.error_type.as_deref(), one.worker.as_str(), one.ended_at_us)).collect();
    assert_eq!(seen, [("uncertain", Some("worker_vanished"), "w1", 300)]);
}

#[test]
fn two_workers_never_hold_the_same_delivery_and_lanes_keep_their_order() {
    let (_dir, store) = scratch();
    let rows: Vec<NewDelivery> = (0..200).map(|n| new(&format!("d{n:03}"), &format!("lane{}", n % 7), 0)).collect();
    enqueue_all(&store, &rows);
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                let mut sent = Vec::new();
                loop {
                    let rows = claim(&store, 3);
                    if rows.is_empty() && store.with(counts).expect("counts").is_empty() {
                        return sent;
                    }
                    for held in held(&rows) {
                        assert_eq!(finish(&store, &held, Outcome::Sent), []);
                        sent.push(held.id);
                    }
                }
            })
        })
        .collect();
    let sent: Vec<Vec<String>> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
    let mut all = sent.concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), sent[0].len() + sent[1].len()), (200, 200));
    for worker in &sent {
        for lane in 0..7 {
            let of_lane: Vec<&String> = worker.iter().filter(|id| id[1..].parse::<usize>().is_ok_and(|n| n % 7 == lane)).collect();
            assert!(of_lane.is_sorted(), "a lane is sent in order");
        }
    }
}
