//! The integrity check of Redis in tier triple: a copy with a hole is made again from the journal, and where that holds it no more it is told.

use super::*;
use crate::redis::compared::{compared, ids, incomplete};

/// Sends so many pushes of ten, and waits until both others have them.
fn push(daemon: &Daemon, told: &Told, pushes: usize) {
    let client = Client::new(&daemon.address, &daemon.token);
    (0..pushes).for_each(|_| told.push(&client, 10));
    daemon.drained();
    wait_copied(daemon);
}

/// The files of the journal, oldest first.
fn segments(daemon: &Daemon) -> Vec<String> {
    let files = fs::read_dir(daemon.dir().join("data/journal")).expect("the journal").flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

#[test]
fn a_copy_with_a_hole_is_made_again_where_the_journal_has_it_and_told_where_not() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    // A small journal, so that what is stored and copied leaves it soon.
    let daemon = with(&server, "journal_bytes = \"8MB\"\n").start();
    wait_whole(&daemon);
    let idle = compared(&daemon);
    assert_eq!((idle["readings"], idle["copiesMissing"], idle["astray"]), (0, 0, 0), "a copy without an entry: {idle:?}");
    assert_eq!(incomplete(&daemon), None);
    let told = Arc::new(Told::default());
    push(&daemon, &told, 30);
    let clean = compared(&daemon);
    assert_eq!((clean["readings"], clean["copiesMissing"], clean["copiedAgain"]), (300, 0, 0), "{clean:?}");

    // In the middle, at the front and at the end, one after the other.
    let key = server.streams().into_iter().max_by_key(|key| server.ask::<u64>(&["XLEN", key])).expect("a copy");
    let whole = ids(&server, &key);
    for at in [whole.len() / 2, 0, whole.len() - 1] {
        assert_eq!(server.ask::<u64>(&["XDEL", &key, &whole[at]]), 1);
        let found = compared(&daemon);
        assert_eq!((found["copiesMissing"], found["waitingMissing"]), (0, 0), "{found:?}");
        assert!(found["copiedAgain"] >= 10, "{found:?}");
        daemon.wait_for("made again", LONG, |_| ids(&server, &key) == whole);
        wait_copied(&daemon);
    }
    assert!(daemon.metric("belayd_integrity_redis_copied_again_total") >= 30.0);
    // As a whole: the copier sees that by itself.
    assert_eq!(server.ask::<u64>(&["DEL", &key]), 1);
    daemon.wait_for("made again", LONG, |_| ids(&server, &key) == whole);
    wait_copied(&daemon);
    assert_eq!(incomplete(&daemon), None, "nothing is missing any more");
    let clean = compared(&daemon);
    assert_eq!((clean["readings"], clean["copiedAgain"]), (300, 0), "{clean:?}");

    // The journal lets the beginning go; a hole there is told.
    let filler = "x".repeat(30);
    let first = segments(&daemon).remove(0);
    let client = Client::new(&daemon.address, &daemon.token);
    let mut n = 0;
    daemon.wait_for("let go by the journal", LONG * 4, |daemon| {
        let one =
            |at: i64| format!(r#"{{"engineId":"f","timestamp":{},"rpm":1,"status":"{filler}"}}"#, 1_700_000_000_000_i64 + n + at);
        let items: Vec<String> = (0..1_000).map(one).collect();
        n += 1_000;
        assert_eq!(client.post("/api/readings", &format!("[{}]", items.join(","))).status, 202);
        !segments(daemon).contains(&first)
    });
    daemon.drained();
    wait_copied(&daemon);
    assert_eq!(server.ask::<u64>(&["XDEL", &key, &whole[3]]), 1);
    let found = compared(&daemon);
    assert_eq!((found["copiesMissing"], found["copiedAgain"]), (10, 0), "{found:?}");
    daemon.wait_for("told", LONG, |daemon| incomplete(daemon).as_deref() == Some("WARNING"));
    assert_eq!(account(&daemon)["difference"], 0);
}

#[test]
fn a_redis_that_takes_no_changes_for_a_moment_does_not_end_the_making_anew_of_copies() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let daemon = on(&server).start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    push(&daemon, &told, 30);
    let key = server.streams().into_iter().max_by_key(|key| server.ask::<u64>(&["XLEN", key])).expect("a copy");
    let whole = ids(&server, &key);
    assert_eq!(server.ask::<u64>(&["XDEL", &key, &whole[10]]), 1);
    // After a failover belayd may still speak to what is a replica by now: it is read, and refuses whatever changes it.
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let found = compared(&daemon);
    assert_eq!((found["copiesMissing"], found["waitingMissing"]), (0, 0), "{found:?}");
    assert!(found["copiedAgain"] >= 10, "{found:?}");
    daemon.wait_for("refused", LONG, |daemon| daemon.log().contains("Redis takes no readings"));
    assert!(!daemon.log().contains("is not made anew, because Redis refuses"), "no right is missing: {}", daemon.log());
    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
    wait_whole(&daemon);
    wait_copied(&daemon);
    let found = compared(&daemon);
    assert_eq!(found["copiesMissing"], 0, "{found:?}");
    daemon.wait_for("made again", LONG, |_| ids(&server, &key) == whole);
    assert_eq!(incomplete(&daemon), None);
}

#[test]
fn copies_that_redis_lost_while_belayd_was_down_are_told_as_far_as_the_journal_cannot_make_them_anew() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut daemon = with(&server, "journal_bytes = \"8MB\"\n").start();
    wait_whole(&daemon);
    let told = Arc::new(Told::default());
    let client = Client::new(&daemon.address, &daemon.token);
    let oldest = segments(&daemon).remove(0);
    daemon.wait_for("let go by the journal", LONG * 4, |daemon| {
        told.push(&client, 1_000);
        !segments(daemon).contains(&oldest)
    });
    daemon.drained();
    wait_copied(&daemon);
    let clean = compared(&daemon);
    assert_eq!((clean["readings"], clean["copiesMissing"]), (told.total(), 0), "{clean:?}");
    assert!(daemon.stop().success());
    server.ask::<()>(&["FLUSHALL"]);
    daemon.start_again();
    wait_whole(&daemon);
    wait_copied(&daemon);
    let found = compared(&daemon);
    assert!(found["copiesMissing"] > 0 && found["readings"] > 0, "{found:?}");
    assert_eq!(found["copiesMissing"] + found["readings"], told.total(), "what is made again, and the rest: {found:?}");
    daemon.wait_for("told", LONG, |daemon| incomplete(daemon).as_deref() == Some("WARNING"));
    assert_whole(&daemon, &told);
}
