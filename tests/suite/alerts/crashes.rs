//! kill -9 between the commit of an alert and its send, and a receiver that comes back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{LIMIT, Receiver, push, to_hook};
use crate::support::daemon::Setup;

/// Of these the median is told.
const TRIALS: usize = 3;
/// Promised from the restart on; the quickest of the trials must keep it, on a machine that does much else as well.
const PROMISED: Duration = Duration::from_secs(2);
/// None may take longer than that after its first answer.
const SENT_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn what_was_committed_and_not_sent_when_the_process_died_is_sent_by_the_next_once_and_soon() {
    let (mut starts, mut answers): (Vec<_>, Vec<_>) = (0..TRIALS).map(|_| killed_before_the_send()).unzip();
    starts.sort_unstable();
    answers.sort_unstable();
    eprintln!("sent after the start of the new process: median {:?}, {starts:?}", starts[TRIALS / 2]);
    eprintln!("sent after its first answer (zero: before it): median {:?}, {answers:?}", answers[TRIALS / 2]);
    assert!(starts[0] < PROMISED, "{starts:?}");
    assert!(answers.iter().all(|time| *time < SENT_WITHIN), "{answers:?}");
}

/// Returns how long after the start of the new process, and after its first answer, the last one arrived; the latter is zero where it
/// arrived before.
fn killed_before_the_send() -> (Duration, Duration) {
    let receiver = Receiver::start(0);
    let more = format!("[outbox]\nconcurrency = 1\n{}", to_hook(&receiver, ""));
    let mut daemon = Setup::with(&more).start();
    // The first holds the only place; the others are committed and cannot be sent.
    push(&daemon, "held", "temperature", 400.0);
    daemon.wait_for("on its way", LIMIT, |_| receiver.count("firing held") == 1);
    push(&daemon, "e1", "temperature", 400.0);
    push(&daemon, "e2", "temperature", 400.0);
    assert_eq!(daemon.get("/api/alerts?kind=rule").json()["items"].as_array().map(Vec::len), Some(3));
    daemon.kill();
    receiver.says(204);
    let started = Instant::now();
    daemon.spawn();
    daemon.wait_for("answering", LIMIT, |daemon| daemon.get("/healthz").status == 200);
    let answers = Instant::now();
    daemon.wait_for("sent", LIMIT, |_| ["held", "e1", "e2"].iter().all(|name| receiver.count(&format!("firing {name}")) >= 1));
    daemon.wait_for("sent again", LIMIT, |_| receiver.count("firing held") == 2);
    let (mut times, mut last) = (BTreeMap::<String, usize>::new(), started);
    for one in receiver.all() {
        *times.entry(one.delivery_id.clone()).or_default() += 1;
        let unsent = one.body["subject"] != "held";
        if unsent {
            assert!(!one.possible_repeat, "not a byte of it had left: {one:?}");
            last = last.max(one.at);
        }
    }
    let mut counts: Vec<usize> = times.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2], "only the one whose outcome nobody knows went out again");
    assert!(last > started, "neither of the two that had not left was heard of");
    (last - started, last.saturating_duration_since(answers))
}
