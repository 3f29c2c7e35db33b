//! The journal's bound while Redis is away: room is made with what the database has, and that is said.

use super::*;
use crate::redis::room::{alert, push_bulky};

#[test]
fn what_the_journal_drops_before_redis_had_it_is_counted_and_told_and_pushes_go_on() {
    if !redis::is_installed() {
        return;
    }
    let mut server = Redis::start(&[]);
    let mut daemon = with(&server, "journal_bytes = \"8MB\"\n").start();
    wait_whole(&daemon);
    push_bulky(&daemon, 0, 100);
    wait_copied(&daemon);
    server.kill();
    let mut pushed = 100;
    daemon.wait_for("dropped", LONG, |daemon| {
        pushed += 500;
        let acks = push_bulky(daemon, pushed - 500, pushed);
        assert_eq!(acks.get("store"), Some(&500), "the database answers all the while");
        daemon.metric("belayd_redis_uncopied_dropped_bytes") > 0.0
    });
    daemon.wait_for("alarmed", LONG, |daemon| alert(daemon, "redis-copy-missing") == "firing");
    let dropped = account(&daemon)["redis"]["uncopiedDroppedBytes"].as_u64();
    assert!(dropped > Some(0), "{dropped:?}");
    server.restart();
    wait_whole(&daemon);
    wait_copied(&daemon);
    pushed += 100;
    push_bulky(&daemon, pushed - 100, pushed);
    wait_copied(&daemon);
    daemon.drained();
    let mut there = crate::redis::stored(&daemon);
    there.sort_unstable();
    assert!(there == (0..pushed).collect::<Vec<_>>(), "{} of {pushed}", there.len());
    assert_eq!(alert(&daemon, "redis-copy-missing"), "firing", "the database has the only copy still");
    // What it tells is of a moment: whoever has not looked by the next start finds it in the history.
    assert!(daemon.stop().success());
    daemon.start_again();
    daemon.wait_for("over", LONG, |daemon| alert(daemon, "redis-copy-missing") == "resolved");
}
