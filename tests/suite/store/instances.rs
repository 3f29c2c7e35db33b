//! Who uses the database, who tells of an alert, and what was done for all: the same on both databases.

use std::time::Duration;

use belayd::store::{
    StoreErrorKind,
    episodes::{self, Place, SETTLE, Verdict},
    instances::{self, DEAD_AFTER, Instance},
    leases::{self, TTL},
    shared_duties::{self, SharedRun},
};

use super::{TestStore, on_both};

on_both!(
    an_instance_is_alive_while_it_beats_and_says_when_it_stops,
    a_copy_of_a_directory_is_noticed_by_both,
    of_several_that_see_an_alert_one_tells_its_beginning_and_the_last_its_end,
    whoever_is_dead_or_has_no_alert_open_keeps_nobody_from_telling,
    what_is_written_under_a_lost_lease_is_not_written,
);

const NOW_US: i64 = 1_000_000_000;

fn instance(name: &str, run: &str) -> Instance {
    Instance {
        instance: name.into(),
        run: run.into(),
        host: format!("host-{name}"),
        pid: 7,
        version: "1".into(),
        url: "http://127.0.0.1:1".into(),
        tier: "journal".into(),
    }
}

fn beat(store: &TestStore, name: &str, run: &str) -> Option<String> {
    store.with(|conn| instances::beat(conn, &instance(name, run), NOW_US)).expect("written").map(|before| before.run)
}

/// Lets the clock of the rows run on: they are moved back.
fn pass(store: &TestStore, table: &str, column: &str, condition: &str, time: Duration) {
    let text = format!("UPDATE {table} SET {column} = {column} - {} WHERE {condition}", time.as_micros());
    let moved = store.with(|conn| Ok(belayd::on_backend!(conn, |c| diesel::RunQueryDsl::execute(diesel::sql_query(text), c))?));
    assert!(moved.expect("moved") > 0);
}

fn alive(store: &TestStore) -> Vec<(String, bool, bool)> {
    let mut rows = store.with(|conn| instances::list(conn, 9, NOW_US)).expect("a list");
    rows.sort_by(|a, b| a.instance.cmp(&b.instance));
    rows.into_iter().map(|row| (row.instance, row.alive, row.stopped_at_us.is_some())).collect()
}

fn an_instance_is_alive_while_it_beats_and_says_when_it_stops(store: &TestStore) {
    assert_eq!((beat(store, "a", "1"), beat(store, "b", "1"), beat(store, "a", "1")), (None, None, None));
    let row = |name: &str, alive, stopped| (name.to_owned(), alive, stopped);
    assert_eq!(alive(store), [row("a", true, false), row("b", true, false)]);
    pass(store, "instances", "heartbeat_at_us", "instance = 'b'", DEAD_AFTER);
    assert_eq!(alive(store), [row("a", true, false), row("b", false, false)]);
    store.with(|conn| instances::stopped(conn, &instance("a", "1"), NOW_US)).expect("noted");
    assert_eq!(alive(store), [row("a", false, true), row("b", false, false)]);
    beat(store, "a", "2");
    store.with(|conn| instances::stopped(conn, &instance("a", "1"), NOW_US)).expect("left alone");
    assert_eq!(alive(store)[0], row("a", true, false), "the end of an earlier start is not the end of this one");
    assert_eq!(store.with(|conn| instances::forget(conn, Duration::from_secs(10), NOW_US)), Ok(1));
    assert_eq!(alive(store).len(), 1);
}

fn a_copy_of_a_directory_is_noticed_by_both(store: &TestStore) {
    assert_eq!(beat(store, "a", "first"), None);
    assert_eq!(beat(store, "a", "second").as_deref(), Some("first"));
    assert_eq!(beat(store, "a", "first").as_deref(), Some("second"));
    assert_eq!(beat(store, "a", "first"), None);
}

fn enter(store: &TestStore, instance: &str) -> Verdict {
    let place = Place { episode: "rule/hot/e1", sink: "hook", instance };
    store.with(|conn| episodes::enter(conn, place, NOW_US)).expect("an answer")
}

fn leave(store: &TestStore, instance: &str) -> Verdict {
    let place = Place { episode: "rule/hot/e1", sink: "hook", instance };
    store.with(|conn| episodes::leave(conn, place, NOW_US)).expect("an answer")
}

fn told(store: &TestStore, instance: &str) {
    let place = Place { episode: "rule/hot/e1", sink: "hook", instance };
    store.with(|conn| episodes::told(conn, place)).expect("noted");
}

fn of_several_that_see_an_alert_one_tells_its_beginning_and_the_last_its_end(store: &TestStore) {
    for name in ["a", "b", "c"] {
        beat(store, name, "1");
    }
    assert_eq!(enter(store, "a"), Verdict::Tell);
    pass(store, "episodes", "since_us", "instance = 'a'", Duration::from_millis(5));
    assert_eq!((enter(store, "b"), enter(store, "a")), (Verdict::Wait, Verdict::Tell), "a has not told yet, and may try again");
    told(store, "a");
    assert_eq!((enter(store, "b"), enter(store, "c")), (Verdict::Wait, Verdict::Wait), "a's may be over at once");
    pass(store, "episodes", "since_us", "instance <> 'a'", SETTLE);
    assert_eq!((enter(store, "b"), enter(store, "c")), (Verdict::Told, Verdict::Told));
    assert_eq!((leave(store, "a"), leave(store, "c"), leave(store, "b")), (Verdict::Told, Verdict::Told, Verdict::Tell));
    assert_eq!(enter(store, "b"), Verdict::Tell, "a new episode");
    told(store, "b");
    pass(store, "episodes", "since_us", "instance = 'b'", Duration::from_millis(5));
    assert_eq!((enter(store, "c"), leave(store, "b")), (Verdict::Wait, Verdict::Told));
    assert_eq!((enter(store, "c"), leave(store, "c")), (Verdict::Told, Verdict::Tell), "b told of c's, c tells of the end");
}

fn whoever_is_dead_or_has_no_alert_open_keeps_nobody_from_telling(store: &TestStore) {
    for name in ["a", "b"] {
        beat(store, name, "1");
    }
    assert_eq!(enter(store, "a"), Verdict::Tell);
    told(store, "a");
    pass(store, "episodes", "since_us", "instance = 'a'", Duration::from_millis(5));
    assert_eq!(enter(store, "b"), Verdict::Wait);
    store.with(|conn| episodes::reconcile(conn, "a", &[], NOW_US)).expect("a has none open");
    assert_eq!(enter(store, "b"), Verdict::Tell);
    store.with(|conn| episodes::reconcile(conn, "a", &["rule/hot/e1".into()], NOW_US)).expect("a has it open again");
    assert_eq!(enter(store, "b"), Verdict::Wait);
    pass(store, "instances", "heartbeat_at_us", "instance = 'a'", DEAD_AFTER);
    assert_eq!(enter(store, "b"), Verdict::Tell);
    beat(store, "a", "1");
    // One that cannot reach its sink does not hold up the others for ever.
    forget_that_it_was_told(store);
    assert_eq!(enter(store, "b"), Verdict::Wait);
    pass(store, "episodes", "since_us", "1 = 1", Duration::from_secs(60));
    assert_eq!(enter(store, "b"), Verdict::Tell);
}

fn forget_that_it_was_told(store: &TestStore) {
    let text = "UPDATE episodes SET told = 0";
    store.with(|conn| Ok(belayd::on_backend!(conn, |c| diesel::RunQueryDsl::execute(diesel::sql_query(text), c))?)).expect("moved");
}

fn what_is_written_under_a_lost_lease_is_not_written(store: &TestStore) {
    let take = |owner: &str, ttl| store.with(|conn| leases::take(conn, "duty/x", owner, ttl)).expect("an answer");
    let old = take("a", Duration::ZERO).expect("free");
    let run = |instance: &str| SharedRun { instance: instance.into(), last_run_at_us: 5, outcome: "did".into(), result: None };
    store.with(|conn| shared_duties::record(conn, &old, "x", &run("a"))).expect("nobody else has it");
    std::thread::sleep(Duration::from_millis(2));
    let new = take("b", TTL).expect("it ran out");
    let late = store.with(|conn| shared_duties::record(conn, &old, "x", &run("late")));
    assert_eq!(late.map_err(|error| error.kind), Err(StoreErrorKind::Moved));
    assert_eq!(store.with(|conn| shared_duties::last(conn, "x")), Ok(Some(run("a"))));
    store.with(|conn| shared_duties::record(conn, &new, "x", &run("b"))).expect("the holder may");
    // A store function with a transaction of its own joins that of the lease.
    let undone = store.with(|conn| {
        shared_duties::under(conn, &new, |conn| {
            conn.write(|conn| shared_duties::record(conn, &new, "y", &run("b")))?;
            Err::<(), _>(belayd::store::StoreError::other("undone"))
        })
    });
    assert!(undone.is_err());
    assert_eq!(store.with(|conn| shared_duties::last(conn, "y")), Ok(None));
}
