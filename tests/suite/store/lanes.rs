//! The order of a lane between two workers whose looks overlap: one holds its claim open while the other looks, and an earlier delivery has
//! become ready in between. PostgreSQL only: SQLite has one writer at a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use belayd::{
    config::OnUnknown,
    domain::delivery::Event,
    store::{
        StoreErrorKind,
        deliveries::{Claim, DeliveryRow, NewDelivery, Outcome, Settlement, act, claim_due, enqueue, promote_due, settle},
    },
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

fn claim_beside(store: &TestStore, worker: &str) -> Vec<String> {
    // As the dispatcher claims: a statement by itself, so that nothing is held open between it and its commit.
    let claimed = store.with(|conn| claim_due(conn, &of(worker, 9)));
    claimed.expect("claims").rows.into_iter().map(|row| row.id).collect()
}

/// Waits until a claim waits for the sink's turn.
fn until_one_waits(store: &TestStore) {
    #[derive(diesel::QueryableByName)]
    struct Number {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    let waiting = "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                   AND (query LIKE 'WITH turn AS%' OR query LIKE 'INSERT INTO delivery_turns%') AND pid <> pg_backend_pid()";
    let until = Instant::now() + Duration::from_secs(20);
    let waits = || {
        let found = store.with(|conn| Ok(belayd::on_backend!(conn, |c| diesel::sql_query(waiting).get_result::<Number>(c))?));
        found.expect("the server answers").n > 0
    };
    while !waits() {
        assert!(Instant::now() < until, "no claim waits for its turn");
        thread::sleep(Duration::from_millis(5));
    }
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
    let (held, beside) = thread::scope(|scope| {
        store
            .with(|conn| {
                conn.write(|conn| {
                    let held = claim_due(conn, &of("w1", 1))?.rows;
                    assert_eq!(ids(&held), ["b"]);
                    // Not committed: whoever looks now still sees b as nobody's.
                    scope.spawn(|| wake(&store)).join().expect("the earlier one is ready");
                    let beside = scope.spawn(|| claim_beside(&store, "w2"));
                    until_one_waits(&store);
                    Ok((held, beside))
                })
            })
            .map(|(held, beside)| (held, beside.join().expect("no panic")))
            .expect("claims")
    });
    assert_eq!(beside, ["a"], "c and d stand behind b, which somebody else has");
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
fn what_is_called_off_beside_a_claim_is_not_claimed() {
    let Some(store) = TestStore::postgres() else { return };
    let other = NewDelivery { lane: "m".into(), ..new("m", 0) };
    let rows = [new("a", 0), new("b", 0), new("c", 0), other];
    store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 100))).expect("enqueues");
    let beside = thread::scope(|scope| {
        store
            .with(|conn| {
                conn.write(|conn| {
                    // As a person does who calls b off and has not committed.
                    act(conn, "b", Event::Cancel, 300)?;
                    let beside = scope.spawn(|| claim_beside(&store, "w2"));
                    until_one_waits(&store);
                    Ok(beside)
                })
            })
            .expect("called off")
            .join()
            .expect("no panic")
    });
    assert_eq!(beside, ["a", "c", "m"]);
    let late = store.with(|conn| conn.write(|conn| act(conn, "a", Event::Cancel, 400)));
    assert_eq!(late.map_err(|error| error.kind), Err(StoreErrorKind::Conflict), "a worker was quicker");
}

/// Many workers at one sink: whatever each claims is its own, and none of them gives up while there is something.
#[test]
fn workers_that_claim_of_one_sink_at_once_share_it_without_double_work() {
    const EACH: usize = 400;
    let Some(store) = TestStore::postgres() else { return };
    let rows: Vec<NewDelivery> = (0..4 * EACH).map(|n| NewDelivery { lane: format!("l{n}"), ..new(&format!("d{n}"), 0) }).collect();
    store.with(|conn| conn.write(|conn| enqueue(conn, &rows, 100))).expect("enqueues");
    let mut all: Vec<String> = thread::scope(|scope| {
        let claim = |worker: &'static str| {
            let store = &store;
            scope.spawn(move || {
                let (mut mine, mut after, mut before) = (Vec::new(), None, usize::MAX);
                loop {
                    let claim = Claim { limit: 50, after: after.as_deref(), ..of(worker, 50) };
                    let taken = store.with(|conn| claim_due(conn, &claim)).expect("claims");
                    mine.extend(taken.rows.into_iter().map(|row| row.id));
                    after = taken.resume;
                    // A whole round that brought nothing.
                    if after.is_none() && std::mem::replace(&mut before, mine.len()) == mine.len() {
                        return mine;
                    }
                }
            })
        };
        let workers = ["w1", "w2", "w3", "w4"].map(claim);
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    all.sort_unstable();
    let claims = all.len();
    all.dedup();
    assert_eq!((claims, all.len()), (4 * EACH, 4 * EACH), "each is claimed once");
}
