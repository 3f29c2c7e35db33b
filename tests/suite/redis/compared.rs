//! The integrity check of Redis in tier redis, and what a Redis is told that is too small.

use super::*;

const LONG: Duration = Duration::from_secs(90);

/// Runs the check once; what it counted, as words with a number each.
pub(crate) fn compared(daemon: &Daemon) -> BTreeMap<String, u64> {
    compared_by(daemon, "redis")
}

/// The same of another duty.
pub(crate) fn compared_by(daemon: &Daemon, name: &str) -> BTreeMap<String, u64> {
    let duty = |daemon: &Daemon| {
        let duties = daemon.get("/admin/duties").json();
        let all = duties["items"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|duty| duty["name"] == name).expect("the duty is listed")["status"].clone()
    };
    let ran = |duty: &Value| duty["lastRunAt"].as_str().map(str::to_owned);
    // The first run, at the start, is due by itself.
    daemon.wait_for("begun with", LONG, |daemon| ran(&duty(daemon)).is_some() && duty(daemon)["running"] == false);
    let before = ran(&duty(daemon));
    assert_eq!(daemon.post(&format!("/admin/duties/{name}/run"), r#"{"reason":"drill"}"#).status, 202);
    daemon.wait_for("compared", LONG, |daemon| ran(&duty(daemon)) != before && duty(daemon)["running"] == false);
    let outcome = duty(daemon)["outcome"].as_str().unwrap_or_default().to_owned();
    let word = |word: &str| word.split_once('=').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    outcome.split(' ').filter_map(word).collect()
}

/// Whether Redis is told to be incomplete, and at which level.
pub(crate) fn incomplete(daemon: &Daemon) -> Option<String> {
    let alerts = daemon.get("/api/alerts?name=redis-incomplete").json();
    let firing = alerts["items"].as_array()?.iter().find(|alert| alert["state"] == "firing")?.clone();
    firing["level"].as_str().map(str::to_owned)
}

/// Ids of the entries of a stream.
pub(crate) fn ids(server: &Redis, key: &str) -> Vec<String> {
    let entries: Vec<(String, library::Value)> = server.ask(&["XRANGE", key, "-", "+"]);
    entries.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn entries_that_somebody_deletes_are_told_whether_the_database_has_them_or_not() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&["fsync=off"]);
    let daemon = on(&server).store(&database.url("postgres")).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    let client = Client::new(&daemon.address, &daemon.token);
    for _ in 0..30 {
        told.push(&client, 10);
    }
    daemon.drained();
    let clean = compared(&daemon);
    assert_eq!((clean["readings"], clean["waitingMissing"], clean["copiesMissing"], clean["astray"]), (300, 0, 0, 0), "{clean:?}");
    assert_eq!(incomplete(&daemon), None);

    // The second copy of what is stored.
    let key = server.streams().into_iter().max_by_key(|key| server.ask::<u64>(&["XLEN", key])).expect("a stream");
    let of = ids(&server, &key);
    let gone = of[of.len() / 2].clone();
    assert_eq!(server.ask::<u64>(&["XDEL", &key, &gone]), 1);
    let found = compared(&daemon);
    assert_eq!((found["copiesMissing"], found["waitingMissing"]), (10, 0), "{found:?}");
    daemon.wait_for("told", LONG, |daemon| incomplete(daemon).as_deref() == Some("WARNING"));
    assert_eq!(daemon.metric("belayd_integrity_redis_faulty_rows"), 10.0);

    // What waits for a database that is away: in the middle, and at the end.
    database.crash();
    for _ in 0..30 {
        told.push(&client, 10);
    }
    daemon.wait_for("away", LONG, |daemon| daemon.get("/readyz").json()["checks"]["store"] != "ok");
    assert_eq!(told.at("redis"), 600, "{:?}", told.acks.lock());
    let waiting: Vec<(String, Vec<String>)> = server.streams().into_iter().map(|key| (key.clone(), ids(&server, &key))).collect();
    let (key, of) = waiting.iter().max_by_key(|(_, ids)| ids.len()).expect("a stream");
    assert_eq!(server.ask::<u64>(&["XDEL", key, &of[of.len() - 3]]), 1);
    let found = compared(&daemon);
    assert_eq!(found["waitingMissing"], 10, "{found:?}");
    daemon.wait_for("told", LONG, |daemon| incomplete(daemon).as_deref() == Some("CRITICAL"));

    // The drain comes to the hole, and writes the numbers off: they are told as lost, and not by every check again.
    database.restart();
    daemon.wait_for("written off", LONG, |daemon| lost(daemon) == 10 && account(daemon)["total"]["buffered"] == 0);
    let found = compared(&daemon);
    assert_eq!((found["waitingMissing"], found["copiesMissing"]), (0, 10), "only the copy of before: {found:?}");
}

#[test]
fn streams_that_are_kept_and_gone_as_a_whole_are_told_and_what_was_removed_in_time_is_not() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut daemon = on(&server).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    let push = |daemon: &Daemon, pushes: usize| {
        let client = Client::new(&daemon.address, &daemon.token);
        (0..pushes).for_each(|_| told.push(&client, 10));
        daemon.drained();
    };
    push(&daemon, 20);
    let [before] = &server.streams()[..] else { panic!("one stream") };
    assert!(daemon.stop().success());
    daemon.start_again();
    wait_up(&daemon);
    push(&daemon, 30);
    // What the earlier run wrote is settled to its end; the drain has asked the database.
    daemon.wait_for("kept only", LONG, |daemon| account(daemon)["redis"]["streams"] == 1);
    let clean = compared(&daemon);
    assert_eq!((clean["readings"], clean["copiesMissing"], clean["waitingMissing"]), (500, 0, 0), "{clean:?}");
    let now = server.streams().into_iter().find(|key| key != before).expect("the one that is written");

    assert_eq!(server.ask::<u64>(&["DEL", before]), 1);
    let found = compared(&daemon);
    assert_eq!((found["copiesMissing"], found["waitingMissing"]), (200, 0), "{found:?}");
    daemon.wait_for("told", LONG, |daemon| incomplete(daemon).as_deref() == Some("WARNING"));
    assert_eq!(daemon.metric("belayd_integrity_redis_faulty_rows"), 200.0);
    // The one that is written, of which the database has everything; and its entries from the front.
    let first = ids(&server, &now)[0].clone();
    assert_eq!(server.ask::<u64>(&["XDEL", &now, &first]), 1);
    let found = compared(&daemon);
    assert_eq!((found["copiesMissing"], found["waitingMissing"]), (210, 0), "{found:?}");
    assert_eq!(server.ask::<u64>(&["DEL", &now]), 1);
    let found = compared(&daemon);
    assert_eq!((found["copiesMissing"], found["waitingMissing"]), (500, 0), "{found:?}");
    assert_whole(&daemon, &told);
    drop(daemon);

    // Removed in time, by belayd itself.
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut setup = on(&server);
    setup.more = setup.more.replace("timeout", "keep = \"1s\"\ntimeout");
    let mut daemon = setup.start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    told.push(&client, 10);
    daemon.drained();
    let [before] = &server.streams()[..] else { panic!("one stream") };
    assert!(daemon.stop().success());
    daemon.start_again();
    wait_up(&daemon);
    daemon.wait_for("removed", LONG, |_| !server.streams().contains(before));
    let clean = compared(&daemon);
    assert_eq!((clean["copiesMissing"], incomplete(&daemon)), (0, None), "{clean:?}");
}

#[test]
fn a_redis_with_less_memory_than_its_streams_may_take_is_told() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--maxmemory 100mb", "--maxmemory-policy noeviction"]);
    let daemon = on(&server).start();
    wait_up(&daemon);
    let small = |daemon: &Daemon| {
        let alerts = daemon.get("/api/alerts?name=redis-small").json();
        alerts["items"].as_array().is_some_and(|all| all.iter().any(|alert| alert["state"] == "firing"))
    };
    daemon.wait_for("told", LONG, small);
    assert!(daemon.log().contains("is less than redis.stream_bytes"), "{}", daemon.log());
    let check = daemon.command(&["check", "--connect"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(said.contains("its maxmemory, 104857600 bytes, is less than redis.stream_bytes"), "{said}");
    // It is asked again every half minute.
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "2gb"]);
    daemon.wait_for("over", LONG, |daemon| !small(daemon));
}
