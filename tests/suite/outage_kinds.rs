//! Every kind of outage that a real PostgreSQL can have, through the whole daemon and on every tier that the build serves: senders are let
//! in, one alert begins and ends, nothing becomes a dead letter, everything is drained without a person.

use std::time::Duration;

use diesel::{Connection, PgConnection, connection::SimpleConnection};

use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
    tiers,
};

/// Takes the database away and returns what gives it back.
type Break = fn(&mut Postgres) -> Box<dyn FnOnce(&mut Postgres)>;

fn admin(server: &Postgres) -> PgConnection {
    let mut conn = PgConnection::establish(&server.url("postgres")).expect("the server answers");
    conn.batch_execute("SET default_transaction_read_only = off").expect("a setting of this connection");
    conn
}

fn stopped(server: &mut Postgres) -> Box<dyn FnOnce(&mut Postgres)> {
    server.stop();
    Box::new(Postgres::restart)
}

fn killed(server: &mut Postgres) -> Box<dyn FnOnce(&mut Postgres)> {
    server.kill();
    Box::new(Postgres::restart)
}

fn read_only(server: &mut Postgres) -> Box<dyn FnOnce(&mut Postgres)> {
    let set = |server: &Postgres, value: &str| {
        let mut conn = admin(server);
        conn.batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).expect("a setting");
        conn.batch_execute("SELECT pg_reload_conf()").expect("reloaded");
        // Each backend reads it when it likes: those that are there begin anew.
        conn.batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
            .expect("ended");
    };
    set(server, "on");
    Box::new(move |server| set(server, "off"))
}

/// A table that somebody holds: each write runs into the time-out.
fn slow(server: &mut Postgres) -> Box<dyn FnOnce(&mut Postgres)> {
    let mut conn = admin(server);
    conn.batch_execute("BEGIN; LOCK TABLE readings IN ACCESS EXCLUSIVE MODE").expect("the lock");
    Box::new(move |_| drop(conn))
}

/// Connections that the server lets in, without any kept for superusers.
const CONNECTIONS: usize = 12;

fn out_of_connections(server: &mut Postgres) -> Box<dyn FnOnce(&mut Postgres)> {
    let mut ours = vec![admin(server)];
    let others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'hog'";
    for _ in 0..200 {
        // Whoever is not ours is sent away, and its place is taken at once.
        let first = &mut ours[0];
        first.batch_execute("SET application_name = 'hog'").expect("a name");
        first.batch_execute(&format!("SELECT pg_terminate_backend(pid) {others}")).expect("sent away");
        while let Ok(mut conn) = PgConnection::establish(&server.url("postgres")) {
            conn.batch_execute("SET application_name = 'hog'").expect("a name");
            ours.push(conn);
        }
        // One that is only just being let in takes a place and is not listed yet: every place has to be ours.
        if ours.len() >= CONNECTIONS {
            return Box::new(move |_| drop(ours));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the daemon kept a connection");
}

fn state(daemon: &Daemon) -> String {
    daemon.get("/readyz").json()["state"].as_str().unwrap_or_default().to_owned()
}

fn push(client: &Client, from: i64, rows: i64) {
    for n in from..from + rows {
        let body = format!(r#"{{"engineId":"e{}","timestamp":{},"rpm":1}}"#, n % 7, 1_700_000_000_000_i64 + n);
        assert_eq!(client.post("/api/readings", &body).status, 202);
    }
}

/// The alerts about the outage: one a time that it began.
fn told(daemon: &Daemon) -> Vec<serde_json::Value> {
    let alerts = daemon.get("/api/alerts").json();
    let all = alerts["items"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|alert| alert["name"] == "database-down").collect()
}

fn outlast(take_away: Break) {
    if !postgres::is_installed() {
        crate::support::left_out("kinds of outages, because PostgreSQL's binaries are not installed (tests/run installs them)");
        return;
    }
    for tier in tiers() {
        let places = format!("max_connections={CONNECTIONS}");
        let mut server = Postgres::start(&["fsync=off", &places, "superuser_reserved_connections=0"]);
        let more = format!("[buffer]\ntier = \"{tier}\"\nflush_interval = \"200ms\"\n");
        let mut setup =
            Setup::with(&more).store(&format!("{}\"\nstatement_timeout = \"1s\"\nconnect_timeout = \"1s", server.url("postgres")));
        setup.log = "debug".into();
        let daemon = setup.start();
        let client = Client::new(&daemon.address, &daemon.token);
        push(&client, 0, 100);
        assert_eq!(daemon.drained(), 100);
        assert!(told(&daemon).is_empty(), "a start is no outage");

        let give_back = take_away(&mut server);
        push(&client, 100, 100);
        daemon.wait_for("buffering", Duration::from_secs(20), |daemon| state(daemon) == "buffering");
        daemon.wait_for("alarmed", Duration::from_secs(10), |daemon| told(daemon).iter().any(|alert| alert["state"] == "firing"));
        daemon.wait_for("open", Duration::from_secs(20), |daemon| daemon.metric("belayd_circuit_state{party=\"database\"}") == 2.0);
        daemon.wait_for("tried again", Duration::from_secs(20), |daemon| daemon.log().contains("circuit=half-open"));
        push(&client, 200, 100);
        assert_eq!(told(&daemon).len(), 1, "one alert, however often it is tried");

        give_back(&mut server);
        daemon.wait_for("ready", Duration::from_secs(40), |daemon| state(daemon) == "ready");
        assert_eq!(daemon.drained(), 300, "tier {tier}");
        daemon
            .wait_for("resolved", Duration::from_secs(10), |daemon| told(daemon).iter().all(|alert| alert["state"] == "resolved"));
        let alerts = told(&daemon);
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        let end = daemon.log().lines().rev().find(|line| line.contains("the database answers again after")).map(str::to_owned);
        let text = alerts[0]["text"].as_str().unwrap_or_default().to_owned();
        assert!(text.contains("answers again after") && text.contains("200 readings"), "how long and how much: {text}; {end:?}");
        assert_eq!(daemon.metric("belayd_circuit_state{party=\"database\"}"), 0.0);
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
        assert_eq!(daemon.metric("belayd_readings_dead"), 0.0, "an outage is no row's fault");
        // The first question after an outage may meet a connection that died with it.
        daemon.wait_for("a list without failures", Duration::from_secs(5), |daemon| {
            daemon.get("/admin/failures").json()["items"].as_array().is_some_and(Vec::is_empty)
        });
    }
}

#[test]
fn a_database_that_is_stopped() {
    outlast(stopped);
}

#[test]
fn a_database_that_is_killed() {
    outlast(killed);
}

#[test]
fn a_database_that_is_read_only() {
    outlast(read_only);
}

#[test]
fn a_database_that_is_slow() {
    outlast(slow);
}

#[test]
fn a_database_that_has_no_connection_left() {
    outlast(out_of_connections);
}
