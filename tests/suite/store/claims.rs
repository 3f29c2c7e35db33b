//! The table of claims: how a delivery leaves its claim, and what was being sent when the table came or goes.

use std::time::Duration;

use belayd::{
    config::OnUnknown,
    domain::delivery::{DeliveryState, Event},
    on_backend,
    store::{
        StoreErrorKind,
        deliveries::{
            Claim, DeliveryRow, Held, NewDelivery, Outcome, Owner, Settlement, act, claim_due, counts, enqueue, get, promote_due,
            reclaim_expired, renew, settle, take_back,
        },
    },
};
use diesel::RunQueryDsl;

use super::{TestStore, on_both};

on_both!(
    what_leaves_a_claim_that_goes_on_can_be_claimed_again_at_once,
    a_claim_goes_with_the_last_of_its_deliveries,
    a_claim_of_which_nothing_is_left_goes_when_its_lease_has_run_out,
    what_was_freed_of_a_claim_that_goes_on_is_not_renewed,
    what_is_held_is_shown_as_being_sent_and_not_called_off,
    what_was_being_sent_is_known_there_and_back,
);

const LEASE: Duration = Duration::from_secs(60);
/// The version that makes the table.
const CLAIMS: &str = "20261122000023";

fn new(id: &str) -> NewDelivery {
    NewDelivery {
        id: id.into(),
        sink: "hook".into(),
        lane: id.into(),
        subject: "s".into(),
        payload: "{}".into(),
        due_at_us: 0,
        max_attempts: 5,
        on_unknown: OnUnknown::Review,
        recipient: String::new(),
    }
}

fn add(store: &TestStore, ids: &[&str]) {
    let rows: Vec<NewDelivery> = ids.iter().map(|id| new(id)).collect();
    store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 100))).expect("enqueues");
}

fn claim(store: &TestStore, worker: &str, lease: Duration) -> Vec<DeliveryRow> {
    let claim = Claim { sink: "hook", worker, limit: 9, per_lane: 1, after: None, lease, now_us: 100 };
    store.with(|conn| conn.write(|conn| claim_due(conn, &claim))).expect("claims").rows
}

fn end(store: &TestStore, held: Held, outcome: Outcome) -> Vec<Held> {
    let settlement = Settlement { held, outcome, error: None, answer: None, made: None };
    store.with(|conn| settle(conn, &[settlement], 200)).expect("settles")
}

fn row(store: &TestStore, id: &str) -> DeliveryRow {
    store.with(|conn| get(conn, id)).expect("reads").expect("is there")
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn number(store: &TestStore, text: &str) -> i64 {
    store.with(|conn| Ok(on_backend!(conn, |c| diesel::sql_query(text).get_result::<Number>(c))?)).expect("a number").n
}

fn claims(store: &TestStore) -> i64 {
    number(store, "SELECT count(*) AS n FROM delivery_claims")
}

fn run(store: &TestStore, text: &str) {
    store.with(|conn| Ok(on_backend!(conn, |c| diesel::sql_query(text).execute(c))?)).expect("runs");
}

fn what_leaves_a_claim_that_goes_on_can_be_claimed_again_at_once(store: &TestStore) {
    add(store, &["back", "later", "slow"]);
    let first = claim(store, "w1", LEASE);
    assert_eq!(end(store, first[0].held(), Outcome::GivenBack { attempts: 0 }), []);
    assert_eq!(end(store, first[1].held(), Outcome::Retry { at_us: 0 }), []);
    store.with(|conn| promote_due(conn, 300)).expect("promotes");
    let again = claim(store, "w2", LEASE);
    let seen: Vec<_> = again.iter().map(|row| (row.id.as_str(), row.epoch, row.attempt)).collect();
    assert_eq!(seen, [("back", 2, 1), ("later", 2, 2)], "what is still being sent stays with the first");
    assert_eq!(end(store, first[0].held(), Outcome::Sent), [first[0].held()], "the first has it no more");
    assert_eq!(end(store, again[0].held(), Outcome::Sent), []);
    assert_eq!(end(store, first[2].held(), Outcome::Sent), []);
    assert_eq!(claims(store), 1, "of the second one is left");
}

fn a_claim_goes_with_the_last_of_its_deliveries(store: &TestStore) {
    add(store, &["a", "b", "c"]);
    let rows = claim(store, "w1", LEASE);
    end(store, rows[0].held(), Outcome::Sent);
    end(store, rows[2].held(), Outcome::Rejected);
    assert_eq!((claims(store), number(store, "SELECT remaining AS n FROM delivery_claims")), (1, 1));
    let held = rows[1].held();
    assert_eq!(store.with(|conn| renew(conn, std::slice::from_ref(&held), LEASE)), Ok(vec![held.clone()]));
    end(store, held.clone(), Outcome::Uncertain);
    assert_eq!((claims(store), store.with(|conn| renew(conn, &[held], LEASE))), (0, Ok(vec![])));
}

/// As after a fault between the end of a delivery and that of its claim: the count is too high for ever.
fn a_claim_of_which_nothing_is_left_goes_when_its_lease_has_run_out(store: &TestStore) {
    add(store, &["a", "b"]);
    let rows = claim(store, "w1", Duration::ZERO);
    run(store, "UPDATE delivery_claims SET remaining = 99");
    rows.iter().for_each(|row| drop(end(store, row.held(), Outcome::Sent)));
    assert_eq!(claims(store), 1);
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(store.with(|conn| conn.write(|conn| reclaim_expired(conn, &[], 300))), Ok(0));
    assert_eq!((claims(store), row(store, "a").state()), (0, Ok(DeliveryState::Sent)));
}

/// As where another worker freed all but one that somebody had locked.
fn what_was_freed_of_a_claim_that_goes_on_is_not_renewed(store: &TestStore) {
    add(store, &["a", "b"]);
    let rows = claim(store, "w1", LEASE);
    let held: Vec<Held> = rows.iter().map(DeliveryRow::held).collect();
    let freed = store.with(|conn| conn.write(|conn| take_back(conn, Owner::Worker("w1"), &held[1..], true, 300)));
    assert_eq!((freed, claims(store)), (Ok(1), 1));
    assert_eq!(store.with(|conn| renew(conn, &held, LEASE)), Ok(held[1..].to_vec()));
}

fn what_is_held_is_shown_as_being_sent_and_not_called_off(store: &TestStore) {
    add(store, &["a"]);
    let rows = claim(store, "w1", LEASE);
    assert_eq!(row(store, "a"), rows[0], "what was returned is what is shown");
    let counted = store.with(counts).expect("counts");
    assert_eq!(counted.iter().map(|count| (count.state, count.count)).collect::<Vec<_>>(), [(DeliveryState::Sending, 1)]);
    let cancel = || store.with(|conn| conn.write(|conn| act(conn, "a", Event::Cancel, 300)));
    assert_eq!(cancel().map_err(|error| error.kind), Err(StoreErrorKind::Conflict));
    end(store, rows[0].held(), Outcome::GivenBack { attempts: 0 });
    assert_eq!(cancel().map(|row| row.state()), Ok(Ok(DeliveryState::Cancelled)));
}

fn what_was_being_sent_is_known_there_and_back(store: &TestStore) {
    add(store, &["before", "kafka"]);
    run(
        store,
        "UPDATE deliveries SET sink = 'kafka', state = 'sending', claimed_by = 'run', epoch = 1, attempt = 1 WHERE id = 'kafka'",
    );
    let rows = claim(store, "w1", LEASE);
    while store.revert_last_migration().expect("reverted").as_deref() != Some(CLAIMS) {}
    let before = "SELECT count(*) AS n FROM deliveries WHERE id = 'before' AND state = 'sending' AND epoch = 1 AND attempt = 1 \
                  AND claimed_by = 'w1' AND lease_until_us IS NOT NULL";
    assert_eq!(number(store, before), 1, "as a build of before would have claimed it");
    assert!(!store.migrate().expect("migrated").is_empty());
    let found = row(store, "before");
    assert_eq!((found.state(), found.epoch, found.attempt), (Ok(DeliveryState::Sending), 1, 1));
    assert_eq!((found.claimed_by.as_deref(), found.held().epoch), (Some("w1"), rows[0].held().epoch));
    assert_eq!(number(store, "SELECT count(*) AS n FROM deliveries WHERE id = 'kafka' AND state = 'sending' AND epoch = 1"), 1);
    let freed = store.with(|conn| conn.write(|conn| take_back(conn, Owner::Worker("w1"), &[], true, 300)));
    assert_eq!((freed, row(store, "before").state(), claims(store)), (Ok(1), Ok(DeliveryState::Uncertain), 0));
}
