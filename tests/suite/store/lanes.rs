//! The order of a lane between two workers whose looks overlap: one holds its claim open while the other looks, and an earlier delivery has
//! become ready in between. PostgreSQL only: SQLite has one writer at a time.

use std::{thread, time::Duration};

use belayd::{
    config::OnUnknown,
    domain::delivery::Event,
    store::deliveries::{Claim, DeliveryRow, NewDelivery, Outcome, Settlement, act, claim_due, enqueue, promote_due, settle},
};
use diesel::RunQueryDsl;

use super::TestStore;

fn new(id: &str, due_at_us: i64) -> NewDelivery {
    NewDelivery {
        id: id.into(),
        sink: "hook".into(),
        lane: "l".into(),
        subject: "s".into(),
        payload: "{}".into(),
        due_at_us,
        max_attempts: 2,
        on_unknown: OnUnknown::Review,
        recipient: String::new(),
    }
}

fn of(worker: &str, limit: u32) -> Claim<'_> {
    Claim { sink: "hook", worker, limit, per_lane: 9, after: None, lease: Duration::from_secs(60), now_us: 100 }
}

fn ids(rows: &[DeliveryRow]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

/// A claim that must not wait for anybody: one that does fails after some seconds.
fn claim_beside(store: &TestStore, worker: &str) -> Vec<String> {
    let claimed = store.with(|conn| {
        conn.write(|conn| {
            if let belayd::store::Conn::Pg(c) = conn {
                diesel::sql_query("SET LOCAL lock_timeout = '10s'").execute(c)?;
            }
            claim_due(conn, &of(worker, 9))
        })
    });
    claimed.expect("nobody is waited for").rows.into_iter().map(|row| row.id).collect()
}

fn end(store: &TestStore, row: &DeliveryRow, outcome: Outcome) {
    let settlement = Settlement { held: row.held(), outcome, error: None, answer: None, made: None };
    assert_eq!(store.with(|conn| settle(conn, &[settlement], 200)), Ok(vec![]));
}

/// `first` is what stands before the others; `wake` makes it ready while another worker has claimed the one behind it.
fn an_earlier_one_wakes(first: &NewDelivery, prepare: impl Fn(&TestStore), wake: impl Fn(&TestStore) + Sync) {
    let Some(store) = TestStore::postgres() else { return };
    let rows = [first.clone(), new("b", 0), new("c", 0), new("d", 0)];
    store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 100))).expect("enqueues");
    prepare(&store);
    let held = store
        .with(|conn| {
            conn.write(|conn| {
                let held = claim_due(conn, &of("w1", 1))?.rows;
                assert_eq!(ids(&held), ["b"]);
                // Not committed: whoever looks now still sees b as ready.
                thread::scope(|scope| {
                    scope.spawn(|| wake(&store)).join().expect("the earlier one is ready");
                    let beside = scope.spawn(|| claim_beside(&store, "w2")).join().expect("no panic");
                    assert_eq!(beside, ["a"], "c and d stand behind b, which somebody else has");
                });
                Ok(held)
            })
        })
        .expect("claims");
    assert_eq!(claim_beside(&store, "w2"), Vec::<String>::new(), "both are on their way");
    end(&store, &held[0], Outcome::Retry { at_us: 900 });
    assert_eq!(claim_beside(&store, "w3"), Vec::<String>::new(), "b has to come again before c");
    store.with(|conn| promote_due(conn, 900)).expect("promotes");
    assert_eq!(claim_beside(&store, "w3"), Vec::<String>::new(), "a is still on its way");
    let a = store.with(|conn| belayd::store::deliveries::get(conn, "a")).expect("reads").expect("is there");
    end(&store, &a, Outcome::Sent);
    assert_eq!(claim_beside(&store, "w3"), ["b", "c", "d"]);
}

#[test]
fn one_that_becomes_due_beside_a_claim_does_not_let_the_rest_of_its_lane_past() {
    let wake = |store: &TestStore| assert_eq!(store.with(|conn| promote_due(conn, 500)), Ok(1));
    an_earlier_one_wakes(&new("a", 500), |_| (), wake);
}

#[test]
fn one_that_is_redriven_beside_a_claim_does_not_let_the_rest_of_its_lane_past() {
    let fail = |store: &TestStore| {
        let rows = store.with(|conn| conn.write(|conn| claim_due(conn, &of("w0", 1)))).expect("claims").rows;
        assert_eq!(ids(&rows), ["a"]);
        end(store, &rows[0], Outcome::Uncertain);
    };
    let redrive = |store: &TestStore| {
        store.with(|conn| conn.write(|conn| act(conn, "a", Event::Redrive, 300))).expect("sent again");
    };
    an_earlier_one_wakes(&new("a", 0), fail, redrive);
}

#[test]
fn of_a_lane_that_another_worker_has_in_the_middle_only_what_stands_before_is_taken() {
    let Some(store) = TestStore::postgres() else { return };
    let other = NewDelivery { lane: "m".into(), ..new("m", 0) };
    let rows = [new("a", 0), new("b", 0), new("c", 0), other];
    store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 100))).expect("enqueues");
    store
        .with(|conn| {
            conn.write(|conn| {
                // As a person does who calls b off and has not committed.
                act(conn, "b", Event::Cancel, 300)?;
                thread::scope(|scope| {
                    let beside = scope.spawn(|| claim_beside(&store, "w2")).join().expect("no panic");
                    assert_eq!(beside, ["a", "m"], "other lanes go on");
                });
                Ok(())
            })
        })
        .expect("called off");
    let a = store.with(|conn| belayd::store::deliveries::get(conn, "a")).expect("reads").expect("is there");
    end(&store, &a, Outcome::Sent);
    assert_eq!(claim_beside(&store, "w2"), ["c"]);
}
