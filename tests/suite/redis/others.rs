//! Several nodes of Redis, and several instances of belayd.

use std::{sync::Arc, thread, time::Duration};

use super::*;
use crate::support::redis::Cluster;

#[test]
fn a_dead_instance_s_readings_in_redis_are_stored_by_another() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&[]);
    let mut first = on(&server).store(&database.url("postgres")).start();
    let second = on(&server).store(&database.url("postgres")).start();
    wait_up(&first);
    wait_up(&second);
    for daemon in [&first, &second] {
        daemon.wait_for("ready", Duration::from_secs(20), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    }
    database.crash();
    let told = Arc::new(Told::default());
    run_for(&first, &told, 2, || thread::sleep(Duration::from_millis(500)));
    assert_eq!(told.at("redis"), told.total());
    first.kill();
    database.restart();
    let began = std::time::Instant::now();
    second.wait_for("stored by the other", Duration::from_secs(40), |second| stored(second).len() as u64 == told.total());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let look = account(&second);
    assert_eq!((look["difference"].as_i64(), look["total"]["accepted"].as_u64()), (Some(0), Some(0)), "{look:#}");
    // It comes back, finds that all of it is settled, and goes on.
    first.start_again();
    wait_up(&first);
    let client = Client::new(&first.address, &first.token);
    assert_eq!(client.post("/api/readings?ack=store", &reading(900_000)).json()["ack"], "store");
    assert_whole(&first, &told);
}

#[test]
fn a_dead_instance_s_streams_that_redis_has_lost_with_their_lines_are_told_by_another() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync everysec"]);
    let mut database = Postgres::start(&[]);
    let mut first = on(&server).store(&database.url("postgres")).start();
    let second = on(&server).store(&database.url("postgres")).start();
    for daemon in [&first, &second] {
        wait_up(daemon);
        daemon.wait_for("ready", Duration::from_secs(60), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    }
    // The database knows the stream, and then lacks what Redis alone has of it.
    let client = Client::new(&first.address, &first.token);
    let answer = client.post("/api/readings?ack=store", &reading(1)).json();
    let stream = answer["receipt"]["stream"].as_str().expect("a stream").to_owned();
    database.crash();
    assert_eq!(client.post("/api/readings", &reading(2)).json()["ack"], "redis");
    first.kill();
    // As a Redis that was put back to where it stood before that instance began.
    let lines: BTreeMap<String, String> = server.ask(&["HGETALL", "belayd:streams"]);
    let instance = lines[&stream].split(' ').next().expect("an instance").to_owned();
    let of_first: Vec<&String> = lines.iter().filter(|(_, line)| line.starts_with(&instance)).map(|(stream, _)| stream).collect();
    for stream in &of_first {
        server.ask::<()>(&["DEL", &format!("belayd:{{{stream}}}")]);
        server.ask::<()>(&["HDEL", "belayd:streams", stream]);
    }
    database.restart();
    let said = "Redis has lost a stream of an instance that does not run";
    second.wait_for("told", Duration::from_secs(90), |second| second.log().contains(said));
    second.wait_for("alarmed", Duration::from_secs(30), |second| {
        let alerts = second.get("/api/alerts?name=redis-data-lost").json();
        alerts["items"].as_array().is_some_and(|all| all.iter().any(|alert| alert["text"].to_string().contains(&instance)))
    });
    let log = second.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
    assert!(told.iter().all(|line| of_first.iter().any(|stream| line.contains(stream.as_str()))), "its own are there: {told:?}");
}

#[test]
fn a_cluster_is_followed_when_slots_move_and_left_alone_while_a_node_is_down() {
    if !redis::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(true);
    let daemon = setup(&cluster.config()).start();
    wait_up(&daemon);
    let told = Arc::new(Told::default());
    run_for(&daemon, &told, 2, || {
        thread::sleep(Duration::from_millis(300));
        // An orderly change of hands of every slot: MOVED.
        for replica in &cluster.nodes[3..] {
            replica.ask::<()>(&["CLUSTER", "FAILOVER"]);
        }
        thread::sleep(Duration::from_secs(3));
        wait_up(&daemon);
    });
    assert!(told.at("redis") > 0);
    assert_whole(&daemon, &told);

    // A master dies; its replica takes over.
    let masters = |cluster: &Cluster| -> Vec<usize> {
        (0..6).filter(|at| cluster.nodes[*at].ask::<String>(&["INFO", "replication"]).contains("role:master")).collect()
    };
    let victim = masters(&cluster)[0];
    run_for(&daemon, &told, 2, || {
        thread::sleep(Duration::from_millis(300));
        for at in masters(&cluster) {
            if at != victim {
                continue;
            }
            cluster.nodes[at].kill();
        }
        thread::sleep(Duration::from_secs(5));
        wait_up(&daemon);
        thread::sleep(Duration::from_millis(500));
    });
    daemon.drained();
    let look = account(&daemon);
    assert_eq!(look["difference"], 0, "{look:#}");
    let accounted = look["total"]["stored"].as_u64().unwrap_or(0) + look["total"]["duplicate"].as_u64().unwrap_or(0);
    // A replica that takes over may lack the newest of what was acknowledged: then it is told.
    assert_eq!(accounted + lost(&daemon), told.total(), "{look:#}");
    cluster.nodes[victim].restart();
    assert_eq!(
        Client::new(&daemon.address, &daemon.token).post("/api/readings?ack=store", &reading(900_000)).json()["ack"],
        "store"
    );
}

#[test]
fn a_slot_on_its_way_to_another_node_is_followed() {
    if !redis::is_installed() {
        return;
    }
    let cluster = Cluster::start(false);
    let daemon = setup(&cluster.config()).start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    let answer = client.post("/api/readings", &reading(1)).json();
    assert_eq!(answer["ack"], "redis");
    let stream = answer["receipt"]["stream"].as_str().expect("a stream").to_owned();
    daemon.drained();
    let key = format!("belayd:{{{stream}}}");
    let from = cluster.nodes.iter().position(|node| node.ask::<Vec<String>>(&["KEYS", &key]).len() == 1).expect("a holder");
    let (from, to) = (&cluster.nodes[from], &cluster.nodes[(from + 1) % 3]);
    let slot = from.ask::<u64>(&["CLUSTER", "KEYSLOT", &key]).to_string();
    let (from_id, to_id) = (from.ask::<String>(&["CLUSTER", "MYID"]), to.ask::<String>(&["CLUSTER", "MYID"]));
    to.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    from.ask::<()>(&["MIGRATE", "127.0.0.1", &to.port().to_string(), &key, "0", "5000"]);
    // ASK, then MOVED.
    for n in 2..5 {
        let answer = client.post("/api/readings?ack=store", &reading(n)).json();
        assert_eq!(
            (answer["ack"].as_str(), answer["receipt"]["stream"].as_str()),
            (Some("store"), Some(stream.as_str())),
            "{answer}"
        );
    }
    for node in [to, from] {
        node.ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    for n in 5..8 {
        let answer = client.post("/api/readings?ack=store", &reading(n)).json();
        assert_eq!(
            (answer["ack"].as_str(), answer["receipt"]["stream"].as_str()),
            (Some("store"), Some(stream.as_str())),
            "{answer}"
        );
    }
    assert_eq!(daemon.drained(), 7);
    assert_eq!(account(&daemon)["difference"], 0);
}
