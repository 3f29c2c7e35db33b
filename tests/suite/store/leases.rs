//! Leases: one holder at a time, whatever fights for them, and a holder that lost one is told before it writes.

use std::{sync::mpsc, time::Duration};

use belayd::store::{
    Backend,
    leases::{self, Lease, TTL},
};

use super::{TestStore, on_both};

on_both!(
    a_lease_has_one_holder_until_it_is_given_back,
    a_lease_that_ran_out_is_taken_under_a_higher_epoch_and_its_holder_is_told,
    a_later_life_of_the_same_owner_fences_the_earlier_one,
    of_many_that_want_a_free_lease_one_gets_it,
    a_lease_cannot_be_taken_from_a_transaction_that_writes_under_it,
    what_an_earlier_run_left_or_another_clock_wrote_does_not_hold_for_ever,
    what_ran_out_long_ago_is_forgotten_a_bounded_number_at_a_time,
);

const NAME: &str = "duty/test";

fn take_for(store: &TestStore, owner: &str, ttl: Duration) -> Option<Lease> {
    store.with(|conn| leases::take(conn, NAME, owner, ttl)).expect("an answer")
}

fn take(store: &TestStore, owner: &str) -> Option<Lease> {
    take_for(store, owner, TTL)
}

fn held(store: &TestStore, lease: &Lease) -> bool {
    store.with(|conn| conn.write(|conn| leases::still_held(conn, lease))).expect("an answer")
}

/// The end of a time to live: none of these tests waits for the full one.
fn run_out(store: &TestStore, lease: &Lease) {
    assert_eq!(store.with(|conn| leases::renew(conn, lease, Duration::ZERO)), Ok(true));
    std::thread::sleep(Duration::from_millis(2));
}

fn a_lease_has_one_holder_until_it_is_given_back(store: &TestStore) {
    let mine = take(store, "a").expect("free");
    assert_eq!((mine.name.as_str(), mine.owner.as_str(), mine.epoch), (NAME, "a", 1));
    assert_eq!(take(store, "b"), None);
    assert_eq!((held(store, &mine), store.with(|conn| leases::renew(conn, &mine, TTL))), (true, Ok(true)));
    let rows = store.with(|conn| leases::list(conn, 9)).expect("a list");
    assert_eq!((rows.len(), rows[0].owner.as_str(), rows[0].live), (1, "a", true));
    store.with(|conn| leases::release(conn, &mine)).expect("given back");
    assert!(!store.with(|conn| leases::list(conn, 9)).expect("a list")[0].live);
    assert_eq!(take(store, "b").map(|lease| lease.epoch), Some(2));
    assert!(!held(store, &mine));
    // Giving back what is lost does not touch the new holder's.
    store.with(|conn| leases::release(conn, &mine)).expect("left alone");
    assert_eq!(take(store, "a"), None);
}

fn a_lease_that_ran_out_is_taken_under_a_higher_epoch_and_its_holder_is_told(store: &TestStore) {
    let old = take(store, "a").expect("free");
    run_out(store, &old);
    assert!(held(store, &old), "nobody took it: it may go on");
    assert_eq!(store.with(|conn| leases::renew(conn, &old, TTL)), Ok(true));
    assert_eq!(take(store, "b"), None, "renewed");
    run_out(store, &old);
    let new = take(store, "b").expect("it ran out");
    assert_eq!(new.epoch, old.epoch + 1);
    assert!(!held(store, &old) && held(store, &new));
    assert_eq!(store.with(|conn| leases::renew(conn, &old, TTL)), Ok(false));
    assert_eq!(store.with(|conn| leases::renew(conn, &new, TTL)), Ok(true));
}

fn a_later_life_of_the_same_owner_fences_the_earlier_one(store: &TestStore) {
    let before = take(store, "a").expect("free");
    let after = take(store, "a").expect("its own");
    assert_eq!(after.epoch, before.epoch + 1);
    assert!(!held(store, &before) && held(store, &after));
}

fn of_many_that_want_a_free_lease_one_gets_it(store: &TestStore) {
    let mut last = 0;
    for _ in 0..20 {
        let taken: Vec<Lease> = std::thread::scope(|scope| {
            let wanting: Vec<_> = ["a", "b", "c", "d"].map(|owner| scope.spawn(move || take(store, owner))).into_iter().collect();
            wanting.into_iter().filter_map(|one| one.join().expect("no panic")).collect()
        });
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert_eq!(taken[0].epoch, last + 1);
        last = taken[0].epoch;
        store.with(|conn| leases::release(conn, &taken[0])).expect("given back");
    }
}

fn a_lease_cannot_be_taken_from_a_transaction_that_writes_under_it(store: &TestStore) {
    let old = take_for(store, "a", Duration::from_millis(50)).expect("free");
    let (inside, entered) = mpsc::channel();
    let (taken, outcome) = mpsc::channel();
    std::thread::scope(|scope| {
        let old = &old;
        scope.spawn(move || {
            store
                .with(|conn| {
                    conn.write(|conn| {
                        assert!(leases::still_held(conn, old)?);
                        // It runs out while its holder writes.
                        std::thread::sleep(Duration::from_millis(60));
                        inside.send(()).expect("heard");
                        std::thread::sleep(Duration::from_millis(300));
                        assert!(leases::still_held(conn, old)?, "nobody came in between");
                        Ok(())
                    })
                })
                .expect("it ends");
        });
        scope.spawn(move || {
            entered.recv().expect("inside");
            taken.send(take(store, "b")).expect("heard");
        });
    });
    let new = outcome.recv().expect("an outcome").expect("once the writer had ended");
    assert_eq!(new.epoch, old.epoch + 1);
}

fn what_an_earlier_run_left_or_another_clock_wrote_does_not_hold_for_ever(store: &TestStore) {
    let old = take(store, "a").expect("free");
    // PostgreSQL's clock stepped back by a day; on SQLite any number of another run.
    let text = match store.backend() {
        Backend::Sqlite => "UPDATE leases SET lease_until_us = 12345678",
        Backend::Postgres => "UPDATE leases SET lease_until_us = lease_until_us + 86400000000",
    };
    store
        .with(|conn| {
            belayd::on_backend!(conn, |c| diesel::RunQueryDsl::execute(diesel::sql_query(text), c))?;
            Ok(())
        })
        .expect("written");
    assert_eq!(take(store, "b").map(|lease| lease.epoch), Some(old.epoch + 1));
}

fn what_ran_out_long_ago_is_forgotten_a_bounded_number_at_a_time(store: &TestStore) {
    let execute = |text: &str| {
        store
            .with(|conn| Ok(belayd::on_backend!(conn, |c| diesel::RunQueryDsl::execute(diesel::sql_query(text), c))?))
            .expect("executed")
    };
    let names = || {
        let rows = store.with(|conn| leases::list(conn, 9_999)).expect("a list");
        rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    let mine = take(store, "a").expect("free");
    let given_back = store.with(|conn| leases::take(conn, "relay/b", "b", TTL)).expect("an answer").expect("free");
    store.with(|conn| leases::release(conn, &given_back)).expect("given back");
    assert_eq!(store.with(leases::forget), Ok(0));
    assert_eq!(names(), [NAME, "relay/b"], "what was given back a moment ago stays");
    // 1,500 streams that ended eight days ago.
    let eight_days_us = 8 * 24 * 3_600_000_000_i64;
    let numbers = match store.backend() {
        Backend::Sqlite => "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1500)",
        Backend::Postgres => "WITH n AS (SELECT generate_series(1, 1500) AS n)",
    };
    let made = execute(&format!(
        "{numbers} INSERT INTO leases (name, owner, epoch, lease_until_us) \
         SELECT 'relay/old-' || n, 'gone', 1, (SELECT lease_until_us FROM leases WHERE name = '{NAME}') - {eight_days_us} FROM n"
    ));
    assert_eq!(made, 1_500);
    assert_eq!((store.with(leases::forget), store.with(leases::forget), store.with(leases::forget)), (Ok(1_000), Ok(500), Ok(0)));
    assert_eq!(names(), [NAME, "relay/b"]);
    assert!(held(store, &mine));
}
