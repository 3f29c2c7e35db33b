//! Settings of a real Redis that decide what an acknowledgement is worth: replicas that must have it too, and a policy that evicts.

use super::*;

fn entries(server: &Redis, stream: &str) -> u64 {
    server.ask(&["XLEN", &format!("belayd:{{{stream}}}")])
}

#[test]
fn with_a_replica_wanted_redis_is_acknowledged_only_while_it_follows() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--appendfsync always", "--repl-diskless-sync-delay 0"]);
    let mut replica = Redis::start(&[&format!("--replicaof 127.0.0.1 {}", server.port())]);
    let daemon = setup(&format!("url = \"{}\"\nreplicas = 1\n", server.url())).start();
    wait_up(&daemon);
    daemon.wait_for("the replica follows", Duration::from_secs(30), |_| {
        server.ask::<String>(&["INFO", "replication"]).contains("state=online")
    });
    let client = Client::new(&daemon.address, &daemon.token);
    // What it was asked before the replica followed may have closed the way for a moment.
    daemon.wait_for("acknowledged with the replica", Duration::from_secs(30), |_| {
        client.post("/api/readings", &reading(1)).json()["ack"] == "redis"
    });
    let answer = client.post("/api/readings", &reading(2)).json();
    assert_eq!(answer["ack"], "redis", "{answer}");
    let stream = answer["receipt"]["stream"].as_str().expect("a stream");
    let here = entries(&server, stream);
    assert!(here > 0 && entries(&replica, stream) == here, "the replica has what was acknowledged");

    replica.kill();
    let alone = client.post("/api/readings", &reading(3)).json();
    assert_eq!(alone["ack"], "journal", "one place is not what was asked for: {alone}");
    replica.restart();
    daemon.wait_for("acknowledged again", Duration::from_secs(60), |_| {
        client.post("/api/readings", &reading(4)).json()["ack"] == "redis"
    });
    daemon.wait_for("all stored, each once", Duration::from_secs(30), |daemon| {
        let look = account(daemon);
        look["total"]["buffered"] == 0 && look["difference"] == 0
    });
}

#[test]
fn a_redis_that_evicts_is_acknowledged_as_memory() {
    if !redis::is_installed() {
        return;
    }
    let server = Redis::start(&["--maxmemory 2gb", "--maxmemory-policy allkeys-lru"]);
    let daemon = on(&server).start();
    wait_up(&daemon);
    let client = Client::new(&daemon.address, &daemon.token);
    assert_eq!(client.post("/api/readings", &reading(1)).json()["ack"], "memory");
    let words = account(&daemon)["mayLose"].as_str().expect("words").to_owned();
    assert!(words.contains("set noeviction"), "{words}");
    daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| daemon.get("/api/alerts").body.contains("redis-forgets"));
}
