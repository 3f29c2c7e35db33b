//! What the relay keeps in the store: deliveries of what was stored, runs, and what becomes of them.

use belayd::{
    domain::{delivery::Event, receipt::StreamId},
    store::{
        deliveries,
        failures::{self, FailureFilter},
        readings::{Relaying, prune, store_for, store_frames},
        relay::{self, Claimed, Numbers, Resolved, Run},
    },
};

use super::{TestStore, frame, new_stream, on_both, reading};

on_both!(
    a_delivery_holds_what_was_stored_and_nothing_else,
    what_is_rolled_back_leaves_no_delivery,
    a_run_is_claimed_whole_sent_whole_and_only_once,
    what_became_of_a_run_is_what_kafka_says,
    a_number_is_relayed_when_nothing_waits_that_holds_it,
    a_repeat_is_unsure_while_what_it_repeats_may_wait_elsewhere,
    a_reading_that_a_person_retries_is_relayed,
    a_delivery_that_is_given_up_was_never_relayed,
    an_engine_keeps_the_number_of_partitions_that_it_began_with,
);

fn store_relayed(store: &TestStore, stream: StreamId, first: u64, readings: &[(&str, i64)]) {
    let readings: Vec<_> = readings.iter().map(|(engine, at)| reading(engine, *at, 1.0)).collect();
    let stored = store.with(|conn| store_for(conn, stream, &[frame(first, &readings)], 5, Relaying::On)).expect("stored");
    assert_eq!(stored.last_seq, first + readings.len() as u64 - 1);
}

fn claimed(store: &TestStore, stream: StreamId, mark: &str, most: u64) -> Claimed {
    store.with(|conn| conn.write(|conn| relay::claim_run(conn, &stream.to_string(), mark, most, 10))).expect("claimed")
}

fn claim(store: &TestStore, stream: StreamId, mark: &str, most: u64) -> Option<Run> {
    match claimed(store, stream, mark, most) {
        Claimed::Run(run) => Some(run),
        Claimed::Nothing | Claimed::Unresolved => None,
    }
}

fn numbers(store: &TestStore, run: &Run) -> Vec<u64> {
    let body = |id: &str| store.with(|conn| relay::body(conn, id)).expect("read").expect("there").expect("whole");
    let bodies: Vec<_> = run.deliveries.iter().map(|delivery| body(&delivery.id)).collect();
    let segments = bodies.iter().flat_map(|body| &body.segments);
    segments.flat_map(|segment| segment.first_seq..segment.first_seq + u64::from(segment.batch.len())).collect()
}

fn resolve(store: &TestStore, stream: StreamId, mark: Option<&str>) -> Resolved {
    store.with(|conn| conn.write(|conn| relay::resolve(conn, &stream.to_string(), mark, 20))).expect("resolved")
}

fn is_relayed(store: &TestStore, stream: StreamId, seq: u64) -> bool {
    store.with(|conn| relay::is_relayed(conn, stream, seq)).expect("asked")
}

fn a_delivery_holds_what_was_stored_and_nothing_else(store: &TestStore) {
    let stream = new_stream(store);
    let plain = store.with(|conn| store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 5)).expect("stored");
    assert_eq!(plain.stored, 1);
    assert_eq!(store.with(|conn| relay::lanes(conn, 10)).expect("asked"), Vec::<String>::new(), "it was not to be relayed");
    // 2 is a duplicate, 4 a conflict, 6 comes twice in the same frame.
    let readings = [reading("a", 1, 1.0), reading("b", 1, 1.0), reading("a", 1, 9.0), reading("b", 2, 1.0), reading("b", 2, 1.0)];
    let outcome = store.with(|conn| store_for(conn, stream, &[frame(2, &readings)], 5, Relaying::On)).expect("stored");
    assert_eq!((outcome.stored, outcome.duplicate, outcome.conflict), (2, 2, 1));
    assert_eq!(store.with(|conn| relay::lanes(conn, 10)).expect("asked"), [stream.to_string()]);
    let run = claim(store, stream, "m", 100).expect("a run");
    assert_eq!((run.readings(), run.last_seq()), (2, 5));
    assert_eq!(numbers(store, &run), [3, 5]);
    let row = store.with(|conn| deliveries::get(conn, &run.deliveries[0].id)).expect("asked").expect("there");
    assert_eq!(
        (row.sink.as_str(), row.lane.as_str(), row.subject.as_str()),
        ("kafka", stream.to_string().as_str(), format!("{stream}/3-5").as_str())
    );
    assert_eq!(row.payload, format!(r#"{{"stream":"{stream}","firstSeq":3,"lastSeq":5,"rows":2}}"#));
    // Nothing stored: nothing to relay.
    store.with(|conn| store_for(conn, stream, &[frame(7, &[reading("a", 1, 1.0)])], 5, Relaying::On)).expect("stored");
    assert_eq!(resolve(store, stream, Some("m")), Resolved { sent: 1, readings: 2, last_seq: 5, ..Resolved::default() });
    assert_eq!(claim(store, stream, "n", 100), None);
}

fn what_is_rolled_back_leaves_no_delivery(store: &TestStore) {
    let stream = new_stream(store);
    let moved = store.with(|conn| store_for(conn, stream, &[frame(5, &[reading("a", 1, 1.0)])], 5, Relaying::On));
    assert!(moved.is_err(), "the cursor stands elsewhere");
    assert_eq!(claim(store, stream, "m", 100), None);
}

fn a_run_is_claimed_whole_sent_whole_and_only_once(store: &TestStore) {
    let stream = new_stream(store);
    for n in 0..5 {
        store_relayed(store, stream, 1 + 2 * n, &[("a", 2 * n as i64), ("a", 2 * n as i64 + 1)]);
    }
    let run = claim(store, stream, "m1", 5).expect("a run");
    assert_eq!(numbers(store, &run), [1, 2, 3, 4], "as many deliveries as fit");
    assert!(run.deliveries.iter().all(|delivery| delivery.attempt == 1));
    assert_eq!(claimed(store, stream, "m2", 5), Claimed::Unresolved, "one run at a time");
    let lane = stream.to_string();
    let settle = |mark: &str| store.with(|conn| conn.write(|conn| relay::settle_run(conn, &lane, mark, 11))).expect("settled");
    assert_eq!(settle("m2"), 0, "the mark is the fence");
    assert_eq!((settle("m1"), settle("m1")), (2, 0));
    assert_eq!(store.with(|conn| relay::last_waiting(conn, stream)).expect("asked"), Some(10));
    let large = claim(store, stream, "m3", 1).expect("a run");
    assert_eq!(numbers(store, &large), [5, 6], "at least one, however large");
    assert_eq!(store.with(|conn| relay::unresolved(conn, &lane)).expect("asked"), 1);
}

fn what_became_of_a_run_is_what_kafka_says(store: &TestStore) {
    let stream = new_stream(store);
    store_relayed(store, stream, 1, &[("a", 1)]);
    claim(store, stream, "m1", 10).expect("a run");
    assert_eq!(resolve(store, stream, Some("start")), Resolved { again: 1, ..Resolved::default() });
    let again = claim(store, stream, "m2", 10).expect("it goes again");
    assert_eq!(again.deliveries[0].attempt, 2);
    assert_eq!(resolve(store, stream, Some("m2")), Resolved { sent: 1, readings: 1, last_seq: 1, ..Resolved::default() });
    store_relayed(store, stream, 2, &[("a", 2)]);
    let id = claim(store, stream, "m3", 10).expect("a run").deliveries[0].id.clone();
    let left_out = Some((2, 2));
    assert_eq!(resolve(store, stream, None), Resolved { uncertain: 1, left_out, ..Resolved::default() });
    assert_eq!(
        resolve(store, stream, None),
        Resolved { left_out, ..Resolved::default() },
        "also where nobody heard of the first time"
    );
    // It holds up nothing, and goes when a person says so.
    store_relayed(store, stream, 3, &[("a", 3)]);
    assert_eq!(numbers(store, &claim(store, stream, "m4", 10).expect("a run")), [3]);
    resolve(store, stream, Some("m4"));
    store.with(|conn| conn.write(|conn| deliveries::act(conn, &id, Event::Redrive, 30))).expect("redriven");
    assert_eq!(numbers(store, &claim(store, stream, "m5", 10).expect("a run")), [2]);
}

fn a_number_is_relayed_when_nothing_waits_that_holds_it(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 5)).expect("stored");
    store_relayed(store, stream, 2, &[("a", 2), ("a", 3)]);
    store_relayed(store, stream, 4, &[("a", 4)]);
    assert!(!is_relayed(store, stream, 1), "it was stored before there was a relay");
    assert!(!is_relayed(store, stream, 2) && !is_relayed(store, stream, 4));
    claim(store, stream, "m1", 2).expect("a run");
    assert!(!is_relayed(store, stream, 2), "being sent is not sent");
    resolve(store, stream, Some("m1"));
    assert!(is_relayed(store, stream, 2) && is_relayed(store, stream, 3) && !is_relayed(store, stream, 4));
    assert!(!is_relayed(store, stream, 5));
}

fn a_repeat_is_unsure_while_what_it_repeats_may_wait_elsewhere(store: &TestStore) {
    const NONE: [Numbers; 0] = [];
    let (one, other) = (new_stream(store), new_stream(store));
    let unsure = |stream: StreamId, first: u64, readings: &[(&str, i64)]| -> Vec<Numbers> {
        let readings: Vec<_> = readings.iter().map(|(engine, at)| reading(engine, *at, 1.0)).collect();
        let stored = store.with(|conn| store_for(conn, stream, &[frame(first, &readings)], 5, Relaying::On)).expect("stored");
        store.with(|conn| relay::unsure(conn, stream, &stored)).expect("asked")
    };
    assert_eq!(unsure(one, 1, &[("a", 1), ("a", 2)]), NONE);
    assert_eq!(unsure(one, 3, &[("a", 1), ("a", 3)]), NONE, "what it repeats goes before it");
    assert_eq!(unsure(one, 5, &[("a", 3)]), [(5, 5)], "nothing of its own goes behind that");
    assert_eq!(unsure(other, 1, &[("a", 1), ("b", 1), ("a", 2), ("a", 3)]), [(1, 1), (3, 4)], "that goes by itself");
    for stream in [one, other] {
        let mark = stream.to_string();
        claim(store, stream, &mark, 100).expect("a run");
        resolve(store, stream, Some(&mark));
        assert_eq!(store.with(|conn| relay::last_waiting(conn, stream)).expect("asked"), None);
    }
    assert_eq!(unsure(other, 5, &[("a", 1)]), NONE);
    assert_eq!(unsure(other, 6, &[("a", 2), ("b", 2)]), NONE);
    let run = claim(store, other, "m1", 100).expect("a run");
    let id = &run.deliveries[0].id;
    store.with(|conn| conn.write(|conn| relay::reject(conn, id, ("unreadable", "no"), 20))).expect("rejected");
    assert_eq!(unsure(other, 8, &[("b", 2), ("b", 3)]), [(8, 8)], "it waits for a person, and others do not wait for it");
    assert_eq!(unsure(one, 6, &[("b", 2), ("c", 1)]), [(6, 6)]);
}

fn a_reading_that_a_person_retries_is_relayed(store: &TestStore) {
    let stream = new_stream(store);
    store.with(|conn| store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 5)).expect("stored");
    store_relayed(store, stream, 2, &[("b", 1)]);
    let conflict = [frame(3, &[reading("a", 1, 2.0)])];
    store.with(|conn| store_for(conn, stream, &conflict, 5, Relaying::On)).expect("a conflict");
    let filter = FailureFilter { limit: 10, ..FailureFilter::default() };
    let failure = store.with(|conn| failures::list(conn, &filter)).expect("a page").items.remove(0);
    store.with(|conn| prune(conn, 2, 10)).expect("the one that held its place is gone");
    store.with(|conn| failures::retry_for(conn, &failure.id, ("why", "ann"), 50, Relaying::On)).expect("stored");
    let run = claim(store, stream, "m1", 100).expect("a run");
    assert_eq!(numbers(store, &run), [2, 3]);
    assert!(!is_relayed(store, stream, 3));
    resolve(store, stream, Some("m1"));
    assert!(is_relayed(store, stream, 3));
}

fn a_delivery_that_is_given_up_was_never_relayed(store: &TestStore) {
    let stream = new_stream(store);
    store_relayed(store, stream, 1, &[("a", 1)]);
    store_relayed(store, stream, 2, &[("a", 2)]);
    let run = claim(store, stream, "m1", 100).expect("a run");
    let lane = stream.to_string();
    for delivery in &run.deliveries {
        store.with(|conn| conn.write(|conn| relay::reject(conn, &delivery.id, ("unreadable", "no"), 20))).expect("rejected");
    }
    assert_eq!(store.with(|conn| relay::unresolved(conn, &lane)).expect("asked"), 0);
    let act = |at: usize, event| store.with(|conn| conn.write(|conn| deliveries::act(conn, &run.deliveries[at].id, event, 30)));
    act(0, Event::Discard).expect("given up");
    act(1, Event::MarkSent).expect("somebody knows that it arrived");
    assert_eq!((is_relayed(store, stream, 1), is_relayed(store, stream, 2)), (false, true));
    assert_eq!(claim(store, stream, "m2", 100), None);
}

fn an_engine_keeps_the_number_of_partitions_that_it_began_with(store: &TestStore) {
    let remember = |topic: &str, engines: &[&str], partitions| {
        let mut known =
            store.with(|conn| conn.write(|conn| relay::remember(conn, topic, engines, partitions))).expect("remembered");
        known.sort();
        known
    };
    let spread = |engine: &str, partitions| (engine.to_owned(), partitions);
    assert_eq!(remember("t", &["b", "a", "a"], 3), [spread("a", 3), spread("b", 3)]);
    assert_eq!(remember("t", &["a", "c"], 6), [spread("a", 3), spread("c", 6)]);
    assert_eq!(remember("other", &["a"], 6), [spread("a", 6)]);
    let many: Vec<String> = (0..2_500).map(|n| format!("e{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(remember("t", &many, 9).len(), 2_500);
    assert_eq!(store.with(|conn| relay::spread_otherwise(conn, "t", 6)).expect("asked"), 2_502);
}
