//! What a Redis with `appendfsync everysec` loses of what belayd acknowledged from it while the database was away, as a number: when it is
//! killed, when its host loses power, and when a replica takes over. `BELAYD_TEST_ROUNDS=20` repeats each; docs/TIERS.md has the figures.

use std::{collections::HashSet, io::Read, os::unix::fs::MetadataExt, path::PathBuf, time::Instant};

use diesel::{Connection, PgConnection, RunQueryDsl};

use super::*;

fn rounds() -> u64 {
    std::env::var("BELAYD_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// What one round came to: readings that Redis had acknowledged, how many of them are not in the database at the end, and how long before the
/// fault the first of these was acknowledged.
struct Round {
    acknowledged: u64,
    lost: u64,
    oldest: Duration,
}

/// What is told of all rounds.
fn tell(fault: &str, rounds: &[Round]) {
    let (acknowledged, lost) = rounds.iter().fold((0, 0), |(all, lost), round| (all + round.acknowledged, lost + round.lost));
    let most = rounds.iter().map(|round| round.lost).max().unwrap_or(0);
    let oldest = rounds.iter().map(|round| round.oldest).max().unwrap_or_default();
    eprintln!(
        "{fault}: {} rounds, {acknowledged} readings acknowledged by Redis, {lost} lost, {most} at most in one, the oldest {oldest:?} before",
        rounds.len()
    );
}

/// Numbers of the readings in the database.
fn stored_in(database: &Postgres) -> HashSet<i64> {
    #[derive(diesel::QueryableByName)]
    struct At {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        at_us: i64,
    }
    let mut conn = PgConnection::establish(&database.url("postgres")).expect("PostgreSQL answers");
    let rows: Vec<At> = diesel::sql_query("SELECT observed_at_us AS at_us FROM readings").load(&mut conn).expect("rows");
    rows.into_iter().map(|row| row.at_us / 1_000 - 1_700_000_000_000).collect()
}

/// How long readings are acknowledged before the fault, at least: well above what may be lost.
const BEFORE: Duration = Duration::from_secs(4);

/// Readings are acknowledged by Redis alone, for the database is away; then, once it is `ready` for it, `fault`, which brings Redis back; then the
/// database comes back too.
fn round((daemon, number): (&Daemon, u64), database: &mut Postgres, ready: impl Fn() -> bool, fault: impl FnOnce()) -> Round {
    wait_up(daemon);
    let told = Arc::new(Told::default());
    // Numbers that no other round used.
    *told.next.lock().expect("no panic") = i64::try_from(number).expect("a small number") * 10_000_000;
    database.crash();
    let mut times = Vec::new();
    let mut broke = Instant::now();
    run_for(daemon, &told, 2, || {
        let (begun, mut is_ready) = (Instant::now(), false);
        while begun.elapsed() < BEFORE || !is_ready {
            assert!(begun.elapsed() < BEFORE * 5, "Redis does not come to be as the fault needs it");
            thread::sleep(Duration::from_millis(5));
            times.push((Instant::now(), told.acknowledged.lock().expect("no panic").len()));
            is_ready = begun.elapsed() >= BEFORE && ready();
        }
        broke = Instant::now();
        fault();
    });
    wait_up(daemon);
    database.restart();
    daemon.wait_for("stored", Duration::from_secs(120), |daemon| daemon.get("/readyz").json()["state"] == "ready");
    daemon.drained();
    let there = stored_in(database);
    let acknowledged = told.acknowledged.lock().expect("no panic").clone();
    let missing: Vec<usize> = (0..acknowledged.len()).filter(|at| !there.contains(&acknowledged[*at])).collect();
    // When the first of them was acknowledged: between the looks at how many there were.
    let oldest = missing.first().map_or(Duration::ZERO, |at| {
        let seen = times.iter().find(|(_, count)| count > at).map_or(broke, |(seen, _)| *seen);
        broke.saturating_duration_since(seen)
    });
    let lost = missing.len() as u64;
    // Whatever is lost is known: belayd counts it.
    daemon.wait_for("counted", Duration::from_secs(60), |daemon| account(daemon)["difference"] == 0);
    Round { acknowledged: told.at("redis"), lost, oldest }
}

/// Kills a Redis whose disk takes so long for a sync, once it is `ready` by the number of syncs that it has not ended and the bytes that it has answered and
/// not handed to the kernel. What belayd counts as lost at the end is told with the rounds; `None` without a C compiler.
fn killed(sync_takes_ms: &str, fault: &str, ready: impl Fn(u64, u64) -> bool) -> Option<(Vec<Round>, u64)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(shim) = shim(dir.path()) else {
        crate::support::left_out("a killed Redis, because there is no C compiler");
        return None;
    };
    let env = [("LD_PRELOAD", shim.as_path()), ("SYNC_TAKES_MS", std::path::Path::new(sync_takes_ms))];
    let mut server = Redis::start_with_env(&["--appendfsync everysec"], &env);
    let mut database = Postgres::start(&["fsync=off"]);
    let daemon = on(&server).store(&database.url("postgres")).start();
    let mut all = Vec::new();
    for number in 0..rounds() {
        let server = std::cell::RefCell::new(&mut server);
        let is_ready = || {
            let facts = server.borrow().ask::<String>(&["INFO", "persistence"]);
            let fact =
                |name: &str| facts.lines().find_map(|line| line.trim().strip_prefix(name)).and_then(|text| text.parse().ok());
            ready(fact("aof_pending_bio_fsync:").expect("told"), fact("aof_buffer_length:").expect("told"))
        };
        all.push(round((&daemon, number), &mut database, is_ready, || {
            server.borrow_mut().kill();
            server.borrow_mut().restart();
        }));
    }
    tell(fault, &all);
    assert!(all.iter().all(|round| round.acknowledged > 0));
    let counted = lost(&daemon);
    if counted > 0 {
        daemon.wait_for("told", Duration::from_secs(60), |daemon| daemon.get("/api/alerts").body.contains("redis-data-lost"));
    }
    Some((all, counted))
}

#[test]
fn kill_9_of_redis_with_everysec_loses_nothing_while_no_sync_is_under_way_because_the_kernel_keeps_what_was_written() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let Some((all, counted)) = killed("0", "kill -9", |syncs, unwritten| syncs == 0 && unwritten == 0) else { return };
    assert!(all.iter().all(|round| round.lost == 0));
    assert_eq!(counted, 0);
}

/// While a sync is under way Redis puts off writing to the kernel as well, for up to 2 s, and answers meanwhile
/// (`flushAppendOnlyFile` in its aof.c; <https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/latency/>).
#[test]
fn kill_9_of_redis_with_everysec_during_a_slow_sync_loses_at_most_2_s_and_each_loss_is_counted() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let Some((all, counted)) = killed("3000", "kill -9 during a slow sync", |_, unwritten| unwritten > 1_000) else { return };
    // What was looked at while it came lies up to 5 ms further back; a kill takes its moment too.
    assert!(all.iter().all(|round| round.lost > 0 && round.oldest < Duration::from_millis(2_500)));
    let gone: u64 = all.iter().map(|round| round.lost).sum();
    assert!(counted >= gone, "each is in the account: {counted} of {gone}");
}

/// The preloaded layer, compiled; `None` without a C compiler.
fn shim(dir: &std::path::Path) -> Option<PathBuf> {
    let made = dir.join("synced.so");
    let mut compile = std::process::Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&made).arg("tests/suite/redis/synced.c").arg("-ldl");
    let built = compile.current_dir(env!("CARGO_MANIFEST_DIR")).status().is_ok_and(|status| status.success());
    crate::support::needs::met(built, "there is no C compiler (cc): install the package build-essential (tests/run does)")
        .then_some(made)
}

/// The file that Redis appends to, and how much of it a power cut leaves for sure.
fn synced(server: &Redis, note: &std::path::Path) -> (PathBuf, u64, u64) {
    let mut bytes = [0; 16];
    std::fs::File::open(note).and_then(|mut file| file.read_exact(&mut bytes)).expect("Redis has synced something");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let folder = server.data_dir().join("appendonlydir");
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let file =
        files.into_iter().find(|file| file.metadata().is_ok_and(|found| found.ino() == word(0))).expect("the file synced last");
    (file.path(), word(8), file.metadata().expect("it is there").len())
}

#[test]
fn a_power_cut_of_redis_with_everysec_loses_at_most_its_last_seconds_and_each_loss_is_counted() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(shim) = shim(dir.path()) else {
        crate::support::left_out("the power cut of a Redis, because there is no C compiler");
        return;
    };
    let note = dir.path().join("note");
    let env = [("LD_PRELOAD", shim.as_path()), ("SYNCED_FILE", note.as_path())];
    let mut server = Redis::start_with_env(&["--appendfsync everysec"], &env);
    let mut database = Postgres::start(&["fsync=off"]);
    let daemon = on(&server).store(&database.url("postgres")).start();
    let mut all = Vec::new();
    let mut unsynced = 0;
    for number in 0..rounds() {
        all.push(round(
            (&daemon, number),
            &mut database,
            || true,
            || {
                server.kill();
                let (file, sure, length) = synced(&server, &note);
                unsynced += length - sure;
                std::fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(sure)).expect("cut off");
                server.restart();
            },
        ));
    }
    tell("power cut", &all);
    assert!(unsynced > 0, "the layer saw nothing that was not synced");
    assert!(all.iter().all(|round| round.acknowledged > 0));
    let gone: u64 = all.iter().map(|round| round.lost).sum();
    assert!(lost(&daemon) >= gone, "each is in the account: {} of {gone}", lost(&daemon));
    if gone > 0 {
        daemon.wait_for("told", Duration::from_secs(60), |daemon| daemon.get("/api/alerts").body.contains("redis-data-lost"));
    }
}

#[test]
fn a_replica_that_takes_over_lacks_what_it_had_not_received_and_that_is_counted() {
    if !redis::is_installed() || !postgres::is_installed() {
        return;
    }
    let mut all = Vec::new();
    for number in 0..rounds() {
        let mut server = Redis::start(&["--appendfsync everysec"]);
        let mut replica = Redis::start(&["--appendfsync everysec", "--repl-diskless-sync-delay 0"]);
        let mut database = Postgres::start(&["fsync=off"]);
        let daemon = on(&server).store(&database.url("postgres")).start();
        let port = server.port().to_string();
        replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]);
        daemon.wait_for("followed", Duration::from_secs(60), |_| {
            replica.ask::<String>(&["INFO", "replication"]).contains("master_link_status:up")
        });
        all.push(round(
            (&daemon, number),
            &mut database,
            || true,
            || {
                // Every second time the replica is behind, as over a slow line: it is halted for the last 300 ms.
                if number % 2 == 1 {
                    replica.freeze(true);
                    thread::sleep(Duration::from_millis(300));
                }
                server.kill();
                replica.freeze(false);
                replica.ask::<()>(&["REPLICAOF", "NO", "ONE"]);
                // Its address becomes that of the one that is gone, as a failover does it by name or floating address.
                replica.move_to(server.port());
            },
        ));
        let found = all.last().expect("a round");
        assert!(found.acknowledged > 0);
        assert!(lost(&daemon) >= found.lost, "each is in the account: {} of {}", lost(&daemon), found.lost);
    }
    tell("failover", &all);
}
