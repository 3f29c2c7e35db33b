//! Three instances on one PostgreSQL, as real processes: what they share is done once, whichever of them dies or sleeps meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use diesel::{Connection, PgConnection, RunQueryDsl};

use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
};

/// Says once what is left out without a PostgreSQL.
fn has_postgres() -> bool {
    let installed = postgres::is_installed();
    if !installed {
        crate::support::left_out("several instances, because PostgreSQL's binaries are not installed (tests/run installs them)");
    }
    installed
}

/// What a receiver of webhooks heard: delivery id, body, when.
type Heard = Arc<Mutex<Vec<(String, serde_json::Value, Instant)>>>;

/// A receiver that takes everything.
fn receiver() -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let heard = Heard::default();
    let notes = heard.clone();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let notes = notes.clone();
            thread::spawn(move || {
                let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
                let mut request = Vec::new();
                let mut part = [0; 4096];
                while let Ok(read @ 1..) = socket.read(&mut part) {
                    request.extend_from_slice(&part[..read]);
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let field = |name: &str| {
                        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
                    };
                    let length: usize = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
                    if body.len() < length {
                        continue;
                    }
                    let json = serde_json::from_str(body).unwrap_or_default();
                    notes.lock().expect("no panic").push((field("belayd-delivery-id").unwrap_or_default(), json, Instant::now()));
                    let _ = socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                    return;
                }
            });
        }
    });
    (url, heard)
}

fn setup(url: &str, hook: &str) -> Setup {
    Setup::with(&format!(
        "[buffer]\nflush_interval = \"200ms\"\n[outbox]\nlease = \"8s\"\n[schedule]\nstatistics_interval = \"1s\"\n\
         [[webhooks]]\nname = \"hook\"\nurl = \"{hook}\"\n[[routes]]\nsinks = [\"hook\", \"log\"]\n"
    ))
    .store(url)
}

fn states(daemon: &Daemon) -> BTreeMap<String, u64> {
    let list = daemon.get("/admin/instances").json();
    let mut states = BTreeMap::new();
    for item in list["items"].as_array().into_iter().flatten() {
        *states.entry(item["state"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    states
}

fn three(url: &str, hook: &str) -> Vec<Daemon> {
    let daemons: Vec<Daemon> = (0..3).map(|_| setup(url, hook).start()).collect();
    for daemon in &daemons {
        daemon.wait_for("aware of all three", Duration::from_secs(20), |daemon| states(daemon).get("alive") == Some(&3));
    }
    daemons
}

fn count(conn: &mut PgConnection, sql: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    diesel::sql_query(sql).get_result::<Count>(conn).expect("an answer").n
}

fn duties_done(daemon: &Daemon, duty: &str) -> usize {
    let log = daemon.log();
    log.lines().filter(|line| line.contains("duty done") && line.contains(&format!("duty={duty} "))).count()
}

fn push_one(daemon: &Daemon, engine: &str, timestamp: i64, temperature: f64) {
    let body = format!(r#"{{"engineId":"{engine}","timestamp":{timestamp},"temperature":{temperature}}}"#);
    assert_eq!(daemon.post("/api/readings", &body).status, 202);
}

fn notices(heard: &Heard, engine: &str, event: &str) -> BTreeSet<String> {
    let heard = heard.lock().expect("no panic");
    heard.iter().filter(|(_, body, _)| body["subject"] == engine && body["event"] == event).map(|(id, ..)| id.clone()).collect()
}

#[test]
fn three_instances_know_each_other_do_duties_once_and_tell_an_alarm_once() {
    if !has_postgres() {
        return;
    }
    let server = Postgres::start(&["fsync=off"]);
    let (hook, heard) = receiver();
    let mut daemons = three(&server.new_database("three"), &hook);
    assert_eq!(daemons[0].metric("belayd_instances{state=\"alive\"}"), 3.0);

    // The same alarm at all three, within the same second.
    for (at, daemon) in daemons.iter().enumerate() {
        push_one(daemon, "hot", 1_700_000_000_000 + at as i64, 400.0);
    }
    daemons[0].wait_for("one notice", Duration::from_secs(10), |_| !notices(&heard, "hot", "firing").is_empty());
    // The counts are a second old at most.
    thread::sleep(Duration::from_secs(2));
    for daemon in &daemons {
        daemon.wait_for("rested", Duration::from_secs(30), |daemon| {
            let outbox = daemon.get("/admin/outbox").json();
            ["ready", "claimed", "sending", "retry"].iter().all(|state| outbox[state] == 0)
        });
        let open = daemon.get("/api/alerts").json();
        assert!(open["items"].as_array().is_some_and(|items| items.iter().any(|alert| alert["subject"] == "hot")), "{open}");
    }
    assert_eq!(notices(&heard, "hot", "firing").len(), 1);
    for (at, daemon) in daemons.iter().enumerate() {
        push_one(daemon, "hot", 1_700_000_100_000 + at as i64, 300.0);
    }
    daemons[0].wait_for("the end is told", Duration::from_secs(10), |_| !notices(&heard, "hot", "resolved").is_empty());

    thread::sleep(Duration::from_secs(3));
    assert_eq!((notices(&heard, "hot", "firing").len(), notices(&heard, "hot", "resolved").len()), (1, 1));

    // Duties of the shared store: one did them at the start, the others took over what it found.
    let done = |daemons: &[Daemon], duty| daemons.iter().map(|daemon| duties_done(daemon, duty)).sum::<usize>();
    assert_eq!(done(&daemons, "retention"), 1);
    let shown =
        |daemon: &Daemon| daemon.get("/admin/duties").json()["statistics"]["sizeBytes"].as_u64().is_some_and(|size| size > 0);
    assert!(daemons.iter().all(shown), "each shows the statistics");
    let working = daemons.iter().position(|daemon| duties_done(daemon, "statistics") > 0).expect("one of them");
    assert_eq!(daemons.iter().filter(|daemon| duties_done(daemon, "statistics") > 0).count(), 1, "always the same one");

    // It dies: another goes on, and the death is told, once.
    let mut dead = daemons.remove(working);
    dead.kill();
    let died = Instant::now();
    daemons[0].wait_for("taken over", Duration::from_secs(30), |_| done(&daemons, "statistics") > 0);
    let taken_over = died.elapsed();
    daemons[0].wait_for("noticed", Duration::from_secs(25), |daemon| states(daemon).get("dead") == Some(&1));
    let told = |event| {
        let heard = heard.lock().expect("no panic");
        heard.iter().filter(|(_, body, _)| body["name"] == "instance-dead" && body["event"] == event).count()
    };
    daemons[0].wait_for("told", Duration::from_secs(25), |_| told("firing") > 0);
    eprintln!("statistics taken over {taken_over:?} after the death, which was told after {:?}", died.elapsed());
    assert!(taken_over < Duration::from_secs(25));
    dead.start_again();
    daemons[0].wait_for("back", Duration::from_secs(20), |daemon| states(daemon).get("alive") == Some(&3));
    daemons[0].wait_for("told that it is back", Duration::from_secs(30), |_| told("resolved") > 0);
    assert_eq!(told("firing"), 1);
    let stopped = dead.stop();
    assert!(stopped.success());
    daemons[0].wait_for("stopped in order", Duration::from_secs(20), |daemon| states(daemon).get("stopped") == Some(&1));
    assert_eq!(daemons.iter().chain([&dead]).map(|daemon| duties_done(daemon, "retention")).sum::<usize>(), 1);
}

#[test]
fn a_copied_directory_on_the_same_database_is_noticed_and_told() {
    if !has_postgres() {
        return;
    }
    let server = Postgres::start(&["fsync=off"]);
    let url = server.new_database("twins");
    let (hook, _) = receiver();
    let mut first = setup(&url, &hook).start();
    first.stop();
    let second = setup(&url, &hook).bare();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(first.dir().join("data")).arg(second.dir()).status().expect("cp runs");
    assert!(copied.success());
    let mut second = second;
    second.token.clone_from(&first.token);
    first.start_again();
    second.start_again();
    let open = |daemon: &Daemon| {
        let alerts = daemon.get("/api/alerts").json();
        let items = alerts["items"].as_array().cloned().unwrap_or_default();
        items.iter().any(|alert| alert["name"] == "instance-twin" && alert["state"] == "firing")
    };
    first.wait_for("the first says so", Duration::from_secs(20), open);
    second.wait_for("the second says so", Duration::from_secs(20), open);
    second.stop();
    first.wait_for("over", Duration::from_secs(40), |daemon| !open(daemon));
}

/// A sender that writes down what it sends before, and repeats the same body until it is acknowledged.
fn send_for(address: String, token: String, lane: usize, until: &AtomicBool, acknowledged: &AtomicI64) {
    let client = Client::new(&address, &token);
    let mut n = 0_i64;
    while !until.load(Relaxed) {
        let at = 1_700_000_000_000 + n * 20;
        let items: Vec<String> =
            (0..20).map(|k| format!(r#"{{"engineId":"lane{lane}","timestamp":{},"temperature":200}}"#, at + k)).collect();
        let body = format!("[{}]", items.join(","));
        while client.post("/api/readings", &body).status != 202 {
            if until.load(Relaxed) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        n += 1;
        acknowledged.store(n * 20, Relaxed);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whatever_dies_or_sleeps_nothing_is_lost_or_done_twice() {
    if !has_postgres() {
        return;
    }
    let server = Postgres::start(&["fsync=off"]);
    let url = server.new_database("chaos");
    let (hook, heard) = receiver();
    let mut daemons = three(&url, &hook);
    let until = Arc::new(AtomicBool::new(false));
    let acknowledged: Arc<[AtomicI64; 3]> = Arc::default();
    let senders: Vec<_> = daemons
        .iter()
        .enumerate()
        .map(|(lane, daemon)| {
            let (address, token, until, acknowledged) =
                (daemon.address.clone(), daemon.token.clone(), until.clone(), acknowledged.clone());
            thread::spawn(move || send_for(address, token, lane, &until, &acknowledged[lane]))
        })
        .collect();
    // Deliveries of the shared store, for whichever instance comes first.
    let mut conn = PgConnection::establish(&url).expect("an answer");
    let enqueue = |conn: &mut PgConnection, from: i64, to: i64| {
        let sql = format!(
            "INSERT INTO deliveries (id, sink, lane, subject, payload, state, max_attempts, due_at_us, on_unknown, created_at_us, updated_at_us) \
             SELECT 'd' || n, 'hook', 'lane' || n % 40, 's' || n, '{{\"shared\":true}}', 'ready', 20, 0, 'resend', 0, 0 \
             FROM generate_series({from}, {to} - 1) AS n"
        );
        diesel::sql_query(sql).execute(conn).expect("enqueued");
    };
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    eprintln!("seed {dice}");
    let mut roll = |n: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        usize::try_from(dice % n).unwrap_or(0)
    };
    for round in 0..3_i64 {
        enqueue(&mut conn, round * 400, round * 400 + 400);
        thread::sleep(Duration::from_millis(300 + roll(700) as u64));
        let killed = roll(3);
        let asleep = (killed + 1 + roll(2)) % 3;
        daemons[asleep].signal(libc::SIGSTOP);
        daemons[killed].kill();
        // Longer than every lease.
        thread::sleep(Duration::from_secs(12));
        daemons[asleep].signal(libc::SIGCONT);
        daemons[killed].start_again();
        daemons[killed].wait_for("alive", Duration::from_secs(20), |daemon| states(daemon).get("alive") == Some(&3));
    }
    until.store(true, Relaxed);
    senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
    for daemon in &daemons {
        daemon.drained();
    }
    daemons[0].wait_for("all delivered", Duration::from_secs(40), |_| {
        let heard = heard.lock().expect("no panic");
        heard.iter().filter(|(_, body, _)| body["shared"] == true).map(|(id, ..)| id).collect::<BTreeSet<_>>().len() == 1_200
    });
    daemons[0].wait_for("all settled", Duration::from_secs(40), |_| {
        count(&mut PgConnection::establish(&url).expect("an answer"), "SELECT count(*) AS n FROM deliveries WHERE state <> 'sent'")
            == 0
    });
    let calls = heard.lock().expect("no panic").iter().filter(|(_, body, _)| body["shared"] == true).count();
    let marked = count(&mut conn, "SELECT count(*) AS n FROM deliveries WHERE possible_repeat = 1");
    eprintln!("1200 deliveries, {calls} calls, {marked} marked as possible repeats");
    assert!(calls as i64 - 1_200 <= marked, "a receiver that honours the id sees each once, and every repeat is marked");

    for (lane, acknowledged) in acknowledged.iter().enumerate() {
        let wanted = acknowledged.load(Relaxed);
        let sql = format!(
            "SELECT count(*) AS n FROM readings WHERE engine_id = 'lane{lane}' AND observed_at_us < {}",
            (1_700_000_000_000 + wanted) * 1_000
        );
        assert_eq!(count(&mut conn, &sql), wanted, "lane {lane}: what was acknowledged is there, once");
        assert!(wanted > 1_000, "{wanted}");
    }
    for daemon in &daemons {
        assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
    }
    let retention: usize = daemons.iter().map(|daemon| duties_done(daemon, "retention")).sum();
    assert_eq!(retention, 1, "an hourly duty ran once, whoever died");
}
