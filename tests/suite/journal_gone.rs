//! A journal that is gone as a whole when belayd starts: told, if the database knows that something may have been in it; and put back.

use std::{fs, time::Duration};

use serde_json::Value;

use super::{
    backup::on_both,
    restored::{SLOW, alert, push, settle, wait_for_alert},
};
use crate::support::daemon::Daemon;

fn state_of(daemon: &Daemon, receipt: &Value) -> String {
    let (stream, seq) = (receipt["stream"].as_str().expect("a stream"), receipt["firstSeq"].as_u64().expect("a number"));
    daemon.get(&format!("/api/receipts/{stream}/{seq}")).json()["state"].as_str().unwrap_or_default().to_owned()
}

fn move_journal(daemon: &Daemon, from: &str, to: &str) {
    let data = daemon.dir().join("data");
    fs::rename(data.join(from), data.join(to)).expect("moved");
}

#[test]
fn a_journal_that_is_gone_at_the_start_is_told_and_what_it_held_is_stored_once_it_is_put_back() {
    on_both(|side, _| {
        let mut daemon = side.setup_with(SLOW).start();
        settle(&daemon);
        push(&daemon, 0, 1_000);
        let one = r#"{"engineId":"waits","rpm":1}"#;
        let waits = daemon.post("/api/readings?ack=journal", one).json()["receipt"].clone();
        assert_eq!(state_of(&daemon, &waits), "buffered");
        daemon.kill();
        move_journal(&daemon, "journal", "aside");

        daemon.start_again();
        let told = wait_for_alert(&daemon, "journal-gone");
        let text = told["text"].as_str().expect("a text");
        assert!(text.contains(waits["stream"].as_str().expect("a stream")), "{text}");
        assert_eq!(told["level"].as_str(), Some("CRITICAL"));
        daemon.wait_for("the receipt", Duration::from_secs(20), |daemon| state_of(daemon, &waits) == "lost");
        // New readings go on under streams of their own.
        let fresh = daemon.post("/api/readings?ack=store", r#"{"engineId":"fresh","rpm":1}"#).json();
        assert_eq!(fresh["ack"].as_str(), Some("store"), "{fresh}");
        assert_ne!(fresh["receipt"]["stream"], waits["stream"]);
        daemon.drained();
        assert!(daemon.stop().success(), "in order, with nothing waiting");

        move_journal(&daemon, "journal", "meanwhile");
        move_journal(&daemon, "aside", "journal");
        daemon.start_again();
        settle(&daemon);
        assert_eq!(state_of(&daemon, &waits), "stored");
        assert_eq!(side.keys(&daemon).len(), 1_000 + 1 + 3, "each once");
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
        // Nothing waited in the one that was taken away, so that nobody is told of that; the alert before ended with the start.
        let over = |daemon: &Daemon| alert(daemon, "journal-gone").is_some_and(|alert| alert["state"] == "resolved");
        daemon.wait_for("the alert's end", Duration::from_secs(20), over);
    });
}

#[test]
fn a_journal_in_which_nothing_waited_at_an_orderly_stop_is_not_missed_and_one_that_was_killed_is() {
    on_both(|side, _| {
        let mut daemon = side.setup_with("[buffer]\nflush_interval = \"50ms\"\n").start();
        push(&daemon, 0, 1_000);
        daemon.drained();
        assert!(daemon.stop().success());
        move_journal(&daemon, "journal", "first");
        daemon.start_again();
        settle(&daemon);
        assert!(alert(&daemon, "journal-gone").is_none(), "nothing waited");

        daemon.kill();
        move_journal(&daemon, "journal", "second");
        daemon.start_again();
        wait_for_alert(&daemon, "journal-gone");
        settle(&daemon);

        // A start takes the note of the stop away: what is killed later is missed although it was once stopped in order.
        assert!(daemon.stop().success());
        daemon.start_again();
        settle(&daemon);
        daemon.kill();
        move_journal(&daemon, "journal", "third");
        daemon.start_again();
        wait_for_alert(&daemon, "journal-gone");
    });
}
