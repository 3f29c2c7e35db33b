//! The integrity check: silent on everything that is legitimate, loud on everything that is not.

use belayd::{
    buffer::{Gap, GapKind},
    on_backend,
    store::{
        Conn, StoreResult, failures,
        integrity::{self, CLOCKS_US, Findings, PART, Pass},
        ledger,
        readings::{self, Relaying, pass_over, store_for, store_frames},
        relay, shared_duties,
    },
};
use diesel::connection::SimpleConnection;

use super::{TestStore, chain, frame, new_stream, on_both, reading};

on_both!(
    what_ingest_retention_and_people_do_raises_no_alarm,
    a_reading_that_vanished_and_one_that_is_there_twice_are_found,
    a_hole_in_the_ledger_is_found_and_nothing_is_repaired_from_it,
    sums_that_differ_from_a_whole_ledger_are_set_right,
    a_range_in_which_people_decide_meanwhile_is_left_for_the_next_pass,
    every_relayed_ledger_row_has_its_delivery_and_no_numbers_have_two,
    what_another_instance_s_retention_drops_during_a_run_is_no_fault,
    what_redis_must_still_have_is_counted_by_when_it_was_stored,
);

fn run(conn: &mut Conn, sql: &str) -> StoreResult<()> {
    Ok(on_backend!(conn, |c| c.batch_execute(sql))?)
}

fn check(store: &TestStore) -> Findings {
    check_from(store, 0)
}

/// Deliveries from before `from_us` may have been dropped.
fn check_from(store: &TestStore, from_us: i64) -> Findings {
    store
        .with(|conn| {
            let mut pass = Pass::begin(conn, 1_000_000)?;
            pass.look_for_deliveries_from(from_us);
            loop {
                if let Some(found) = pass.step(conn)? {
                    return Ok(found);
                }
            }
        })
        .expect("a whole pass")
}

/// Around the border of the first range: 65,536 numbers and some more, in frames of 5,000.
fn fill(store: &TestStore, rows: i64) -> belayd::domain::receipt::StreamId {
    let stream = new_stream(store);
    let mut seq = 1;
    while seq <= rows {
        let end = (seq + 4_999).min(rows);
        let readings: Vec<_> = (seq..=end).map(|time| reading("a", time, 1.0)).collect();
        store.with(|conn| store_frames(conn, stream, &[frame(seq as u64, &readings)], seq)).expect("stored");
        seq = end + 1;
    }
    stream
}

fn what_ingest_retention_and_people_do_raises_no_alarm(store: &TestStore) {
    assert_eq!(check(store), Findings::default(), "an empty store");
    let rows = PART + 7_000;
    let stream = fill(store, rows);
    let next = rows as u64 + 1;
    let mixed = [reading("a", 1, 1.0), reading("a", 2, 2.0), reading("b", 1, 1.0), reading("a", 3, 9.0)];
    store.with(|conn| store_frames(conn, stream, &[frame(next, &mixed)], 2)).expect("stored");
    let gap = Gap {
        first_seq: next + 4,
        last_seq: next + 9,
        kind: GapKind::Void,
        acknowledged: 2,
        chain_before: chain(next + 3),
        chain: chain(next + 9),
    };
    store.with(|conn| pass_over(conn, stream, &gap, 3)).expect("passed over");
    let found = check(store);
    assert!(!found.is_fault() && found.unsettled == 0, "{found:?}");
    assert_eq!((found.rows, found.streams), (rows as u64 + 1, 1));
    // Retention takes readings and ledger rows, a person deletes by hand, another decides.
    store.with(|conn| readings::prune(conn, 3_000, 2_000)).expect("pruned");
    store.with(|conn| run(conn, "DELETE FROM readings WHERE observed_at_us BETWEEN 10000 AND 10100")).expect("deleted");
    assert!(store.with(|conn| ledger::prune(conn, 20_000, 3)).expect("pruned") > 0);
    let open = failures::FailureFilter { limit: 10, ..Default::default() };
    let open = store.with(|conn| failures::list(conn, &open)).expect("a page").items;
    store.with(|conn| failures::discard(conn, &open[0].id, "", "ann", 9)).expect("decided");
    store.with(|conn| run(conn, "DELETE FROM readings WHERE engine_id = 'a' AND observed_at_us = 2")).expect("deleted");
    store.with(|conn| failures::retry(conn, &open[1].id, "", "ann", 9)).expect("decided");
    let found = check(store);
    assert!(!found.is_fault() && found.unsettled == 0, "{found:?}");
    assert!(found.rows < rows as u64);
}

/// Deletes without a trace, as a damaged disk or a fault of the database would.
fn lose(conn: &mut Conn, what: &str) -> StoreResult<()> {
    let sql = match conn {
        Conn::Sqlite(_) => format!(
            "DROP TRIGGER readings_removed; DELETE FROM readings WHERE {what};
             CREATE TRIGGER readings_removed AFTER DELETE ON readings BEGIN SELECT 1; END"
        ),
        Conn::Pg(_) => format!(
            "ALTER TABLE readings DISABLE TRIGGER readings_removed; DELETE FROM readings WHERE {what};
             ALTER TABLE readings ENABLE TRIGGER readings_removed"
        ),
    };
    run(conn, &sql)
}

fn a_reading_that_vanished_and_one_that_is_there_twice_are_found(store: &TestStore) {
    fill(store, PART + 100);
    store.with(|conn| lose(conn, "seq IN (7, 8)")).expect("lost");
    let twice = format!(
        "INSERT INTO readings (engine_id, observed_at_us, stream_no, seq, created_at_us)
         SELECT 'copy', observed_at_us, stream_no, seq, created_at_us FROM readings WHERE seq = {}",
        PART + 50
    );
    store.with(|conn| run(conn, &twice)).expect("copied");
    let found = check(store);
    assert_eq!((found.missing, found.twice, found.ledger_faults), (2, 1, 0), "{found:?}");
    assert!(found.words[0].contains("2 of 65535 readings are missing"), "{found:?}");
}

fn a_hole_in_the_ledger_is_found_and_nothing_is_repaired_from_it(store: &TestStore) {
    let stream = fill(store, 15_000);
    store.with(|conn| run(conn, "DELETE FROM batches WHERE first_seq = 5001")).expect("a hole");
    let found = check(store);
    assert!(found.ledger_faults >= 1 && found.repaired == 0, "{found:?}");
    assert!(found.words[0].contains(&stream.to_string()) && found.words[0].contains("hole before number 10001"), "{found:?}");
    assert_eq!(store.with(ledger::totals).expect("totals").stored, 15_000);
}

fn sums_that_differ_from_a_whole_ledger_are_set_right(store: &TestStore) {
    fill(store, 10_000);
    store.with(|conn| run(conn, "UPDATE streams SET stored = 9990, void = 3")).expect("altered");
    let found = check(store);
    assert_eq!((found.ledger_faults, found.repaired, found.missing), (1, 1, 0), "{found:?}");
    let totals = store.with(ledger::totals).expect("totals");
    assert_eq!((totals.stored, totals.void), (10_000, 0));
    assert!(!check(store).is_fault());
}

fn a_range_in_which_people_decide_meanwhile_is_left_for_the_next_pass(store: &TestStore) {
    fill(store, 10_000);
    let found = store
        .with(|conn| {
            let mut pass = Pass::begin(conn, 0)?;
            // The ledger has been read, and some of the readings.
            for _ in 0..3 {
                assert_eq!(pass.step(conn)?, None);
            }
            run(conn, "DELETE FROM readings WHERE observed_at_us IN (1, 9999)")?;
            loop {
                if let Some(found) = pass.step(conn)? {
                    return Ok(found);
                }
            }
        })
        .expect("a pass");
    assert!(!found.is_fault() && found.unsettled == 1, "{found:?}");
    assert!(!check(store).is_fault());
}

fn every_relayed_ledger_row_has_its_delivery_and_no_numbers_have_two(store: &TestStore) {
    let stream = new_stream(store);
    let lane = stream.to_string();
    let relayed = |first: u64, times: &[i64], at_us: i64| {
        let readings: Vec<_> = times.iter().map(|time| reading("a", *time, 1.0)).collect();
        store.with(|conn| store_for(conn, stream, &[frame(first, &readings)], at_us, Relaying::On)).expect("stored");
    };
    let sent = |mark: &str| {
        let run = |conn: &mut Conn| {
            relay::claim_run(conn, &lane, mark, 1_000, 50)?;
            relay::settle_run(conn, &lane, mark, 60)
        };
        store.with(|conn| conn.write(run)).expect("settled")
    };
    let execute = |sql: &str| store.with(|conn| run(conn, sql)).expect("executed");
    let faults = |from_us: i64| {
        let found = check_from(store, from_us);
        (found.delivery_faults, found.words)
    };
    // One that was stored before there was a relay, one whose first number is a duplicate, one of which nothing was stored.
    store.with(|conn| store_frames(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], 5)).expect("stored");
    relayed(2, &[1, 2, 3], 10);
    relayed(5, &[3], 20);
    relayed(6, &[6, 7], 30);
    relayed(8, &[8], 40);
    assert_eq!(sent("m1"), 3);
    relayed(9, &[9], 45);
    // A person retries a conflict: its delivery lies within the numbers of another.
    let conflict = [reading("a", 6, 9.0), reading("b", 1, 1.0)];
    store.with(|conn| store_for(conn, stream, &[frame(10, &conflict)], 45, Relaying::On)).expect("stored");
    let open = failures::FailureFilter { limit: 10, ..Default::default() };
    let failure = store.with(|conn| failures::list(conn, &open)).expect("a page").items.remove(0);
    execute("DELETE FROM readings WHERE engine_id = 'a' AND observed_at_us = 6");
    store.with(|conn| failures::retry_for(conn, &failure.id, ("why", "ann"), 47, Relaying::On)).expect("stored");
    let found = check(store);
    assert!(!found.is_fault(), "{found:?}");
    assert_eq!(found.deliveries, 5, "{found:?}");

    // One that was sent is gone: retention may have dropped it, or it was lost.
    execute(&format!("DELETE FROM deliveries WHERE subject = '{lane}/6-7'"));
    assert_eq!(faults(31), (0, vec![]));
    let (count, words) = faults(30);
    assert!(count == 1 && words[0].contains("numbers 6 to 7, is gone"), "{words:?}");

    // The same numbers twice; numbers that the ledger does not have; one that waits without its readings.
    let columns =
        "sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, updated_at_us, settled_at_us";
    execute(&format!(
        "INSERT INTO deliveries (id, {columns}) SELECT 'twin', {columns} FROM deliveries WHERE subject = '{lane}/8-8'"
    ));
    let (count, words) = faults(31);
    assert!(count == 1 && words[0].contains("numbers 8 to 8") && words[0].contains("and twin"), "{words:?}");
    execute(
        r#"UPDATE deliveries SET payload = replace(payload, '"firstSeq":8,"lastSeq":8', '"firstSeq":80,"lastSeq":80') WHERE id = 'twin'"#,
    );
    let (count, words) = faults(31);
    assert!(count == 1 && words[0].contains("twin carries numbers 80 to 80"), "{words:?}");
    execute("DELETE FROM deliveries WHERE id = 'twin'");
    assert_eq!(faults(31), (0, vec![]));
    execute("DELETE FROM delivery_bodies WHERE first_seq = 9");
    let (count, words) = faults(31);
    assert!(count == 1 && words[0].contains("has lost its readings"), "{words:?}");

    // Deliveries of which retention has dropped the ledger row are no fault.
    assert!(store.with(|conn| ledger::prune(conn, 46, 1_000)).expect("pruned") > 0);
    let (count, words) = faults(31);
    assert!(count == 1 && words[0].contains("has lost its readings"), "{words:?}");
}

fn what_another_instance_s_retention_drops_during_a_run_is_no_fault(store: &TestStore) {
    let (stream, made_us) = (new_stream(store), 2 * CLOCKS_US);
    let lane = stream.to_string();
    store.with(|conn| store_for(conn, stream, &[frame(1, &[reading("a", 1, 1.0)])], made_us, Relaying::On)).expect("stored");
    let send = |conn: &mut Conn| {
        relay::claim_run(conn, &lane, "m", 1_000, made_us)?;
        relay::settle_run(conn, &lane, "m", made_us)
    };
    store.with(|conn| conn.write(send)).expect("settled");
    store.with(|conn| run(conn, "DELETE FROM deliveries")).expect("dropped");
    // The run has asked before: nothing from then on could have been dropped.
    let faults = || check_from(store, made_us).delivery_faults;
    assert_eq!(faults(), 1, "nobody said that it drops any");
    let says = |before_us: i64| {
        let mark = shared_duties::dropped_before(before_us);
        store.with(|conn| shared_duties::announce(conn, "retention", "another", &mark)).expect("announced");
    };
    says(made_us - CLOCKS_US);
    assert_eq!(faults(), 1, "older ones only");
    says(made_us - CLOCKS_US + 1);
    assert_eq!(faults(), 0, "said before it was dropped");
}

fn what_redis_must_still_have_is_counted_by_when_it_was_stored(store: &TestStore) {
    for (tier, counted) in [("redis", 1), ("triple", 1), ("journal", 0)] {
        let stream = belayd::domain::receipt::StreamId::new_v4();
        store.with(|conn| ledger::register_stream(conn, stream, tier, "me", 1)).expect("registered");
        for (first, at_us) in [(1, 100), (11, 200), (21, 300)] {
            let readings: Vec<_> = (0..10).map(|n| reading(tier, i64::try_from(first).expect("small") + n, 1.0)).collect();
            store.with(|conn| store_frames(conn, stream, &[frame(first, &readings)], at_us)).expect("stored");
        }
        let gap =
            Gap { first_seq: 31, last_seq: 34, kind: GapKind::Lost, acknowledged: 4, chain_before: chain(30), chain: chain(34) };
        store.with(|conn| pass_over(conn, stream, &gap, 400)).expect("passed over");
        let since =
            |numbers, since_us| store.with(|conn| integrity::settled_since(conn, stream, numbers, since_us)).expect("asked");
        assert_eq!(since((1, 40), 0), 30 * counted, "{tier}: without what is written off");
        assert_eq!(since((1, 40), 200), 20 * counted, "{tier}");
        assert_eq!(since((5, 25), 200), 15 * counted, "{tier}");
        assert_eq!((since((1, 10), 200), since((31, 34), 0), since((1, 40), 401)), (0, 0, 0), "{tier}");
    }
}
