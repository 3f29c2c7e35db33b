//! Backup and restore through the whole daemon, on both databases: made under load, put back elsewhere, put back each alone, and
//! refused where something is in the way. PostgreSQL needs its binaries; see `tests/run`.

use std::{
    collections::HashSet,
    fs,
    io::{Read, Write},
    path::Path,
    process::Output,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};

use crate::support::{
    client::Client,
    daemon::{Daemon, Setup},
    postgres::{self, Postgres},
    rows,
};

/// Where the daemon's readings are, seen past it.
pub enum Side {
    Sqlite,
    Postgres(String),
}

#[derive(QueryableByName)]
struct Key {
    #[diesel(sql_type = Text)]
    engine_id: String,
    #[diesel(sql_type = BigInt)]
    observed_at_us: i64,
}

impl Side {
    pub fn setup(&self) -> Setup {
        self.setup_with("[buffer]\nflush_interval = \"50ms\"\n")
    }

    pub fn setup_with(&self, more: &str) -> Setup {
        let setup = Setup::with(more);
        match self {
            Self::Sqlite => setup,
            Self::Postgres(url) => setup.store(url),
        }
    }

    /// Engine and time of every stored reading.
    pub fn keys(&self, daemon: &Daemon) -> HashSet<(String, i64)> {
        match self {
            Self::Sqlite => rows::keys(&daemon.dir().join("belayd.db")),
            Self::Postgres(url) => {
                let mut conn = PgConnection::establish(url).expect("the server answers");
                let rows: Vec<Key> =
                    sql_query("SELECT engine_id, observed_at_us FROM readings").load(&mut conn).expect("the table");
                rows.into_iter().map(|row| (row.engine_id, row.observed_at_us)).collect()
            }
        }
    }
}

/// Runs `test` with a database to back up and one to restore into, on each kind that is there.
pub fn on_both(test: impl Fn(Side, Side)) {
    test(Side::Sqlite, Side::Sqlite);
    if !postgres::is_installed() {
        crate::support::left_out("backups of PostgreSQL, because its binaries are not installed (tests/run installs them)");
        return;
    }
    let server = Postgres::start(&[]);
    let mut admin = PgConnection::establish(&server.url("postgres")).expect("the server answers");
    for name in ["first", "second"] {
        sql_query(format!("CREATE DATABASE {name}")).execute(&mut admin).expect("a database");
    }
    test(Side::Postgres(server.url("first")), Side::Postgres(server.url("second")));
}

/// One reading, by its number.
fn reading(n: i64) -> String {
    format!(r#"{{"engineId":"e{}","timestamp":{},"temperature":300,"vibration":{n}}}"#, n % 7, 1_700_000_000_000_i64 + n)
}

fn key(n: i64) -> (String, i64) {
    (format!("e{}", n % 7), (1_700_000_000_000 + n) * 1_000)
}

fn push(client: &Client, from: i64, rows: i64) {
    let body = (from..from + rows).map(reading).collect::<Vec<_>>().join(",");
    let answer = client.post("/api/readings?ack=store", &format!("[{body}]"));
    assert_eq!((answer.status, answer.json()["ack"].as_str()), (202, Some("store")), "{answer:?}");
}

/// Pushes until told to stop; what was acknowledged is noted after its answer.
fn keep_pushing(daemon: &Daemon, stop: &Arc<AtomicBool>) -> (Arc<Mutex<i64>>, thread::JoinHandle<()>) {
    let (acknowledged, stop) = (Arc::new(Mutex::new(0)), stop.clone());
    let (client, noted) = (Client::new(&daemon.address, &daemon.token), acknowledged.clone());
    let handle = thread::spawn(move || {
        let mut next = 0;
        while !stop.load(SeqCst) {
            push(&client, next, 50);
            next += 50;
            *noted.lock().expect("whole") = next;
        }
    });
    (acknowledged, handle)
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn done(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.command(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said(&output));
    said(&output)
}

fn refused(daemon: &Daemon, args: &[&str], because: &str) {
    let output = daemon.command(args);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(said.contains(because), "{args:?}: {said}");
}

pub fn path(file: &Path) -> &str {
    file.to_str().expect("a plain path")
}

#[test]
fn a_backup_made_under_load_holds_what_was_acknowledged_before_and_the_daemon_carries_on_from_it() {
    on_both(|from, to| {
        let daemon = from.setup().start();
        let stop = Arc::new(AtomicBool::new(false));
        let (acknowledged, pusher) = keep_pushing(&daemon, &stop);
        daemon.wait_for("under way", Duration::from_secs(20), |_| *acknowledged.lock().expect("whole") >= 1_000);
        let file = daemon.dir().join("backup.tar.gz");
        let before = *acknowledged.lock().expect("whole");
        done(&daemon, &["backup", path(&file)]);
        let after = *acknowledged.lock().expect("whole");
        daemon.wait_for("taking more", Duration::from_secs(20), |_| *acknowledged.lock().expect("whole") > after);
        stop.store(true, SeqCst);
        pusher.join().expect("the pusher ends");
        refused(&daemon, &["backup", path(&file)], "is there already");
        assert!(done(&daemon, &["restore", path(&file), "--check"]).contains("whole; made at 20"));

        let mut other = to.setup().bare();
        done(&other, &["restore", path(&file)]);
        other.token.clone_from(&daemon.token);
        other.start_again();
        let kept = to.keys(&other);
        let missing: Vec<i64> = (0..before).filter(|n| !kept.contains(&key(*n))).collect();
        assert!(missing.is_empty(), "of {before} acknowledged before, {} are missing: {:?}", missing.len(), missing.first());
        // The senders repeat what they know nothing of, and go on: each is there once.
        let client = Client::new(&other.address, &other.token);
        push(&client, 0, 2_000);
        push(&client, 1_000_000, 100);
        let now = to.keys(&other);
        assert!((0..2_000).chain(1_000_000..1_000_100).all(|n| now.contains(&key(n))));
        assert_eq!(other.metric("belayd_conservation_violation"), 0.0);
        assert_eq!(other.metric("belayd_readings_conflict_total"), 0.0);
    });
}

#[test]
fn a_restore_touches_nothing_that_is_there_unless_it_is_told_to() {
    on_both(|from, to| {
        let mut daemon = from.setup().start();
        let client = Client::new(&daemon.address, &daemon.token);
        push(&client, 0, 300);
        let file = daemon.dir().join("backup.tar.gz");
        done(&daemon, &["backup", path(&file)]);
        push(&client, 300, 300);
        refused(&daemon, &["restore", path(&file)], "in use by another belayd");
        assert!(daemon.stop().success());
        refused(&daemon, &["restore", path(&file)], "holds data already; --replace");
        assert_eq!(from.keys(&daemon).len(), 600);

        let said = done(&daemon, &["restore", path(&file), "--replace"]);
        assert_eq!(from.keys(&daemon).len(), 300);
        let aside = said.lines().filter(|line| line.starts_with("what was there is now ")).count();
        assert!(aside >= if matches!(from, Side::Sqlite) { 2 } else { 1 }, "{said}");
        daemon.start_again();
        let client = Client::new(&daemon.address, &daemon.token);
        push(&client, 300, 300);
        assert_eq!(from.keys(&daemon).len(), 600);

        // The same file somewhere else, where a database is in the way.
        let other = to.setup().bare();
        done(&other, &["restore", path(&file), "--only", "database"]);
        assert_eq!(to.keys(&other).len(), 300);
        refused(&other, &["restore", path(&file)], "holds data already; --replace");
        assert!(!other.dir().join("data/control.db").exists(), "refused before anything was changed");
    });
}

/// Bytes of a compressed archive that are changed, one at a time.
const FLIPS: usize = 60;
/// Bytes of gzip's head and end.
const GZIP: (usize, usize) = (10, 8);

/// The archive without its compression, and which bytes of the compressed stream say something else than zeros: most of a young journal is
/// room for what comes, and what stands for a run of zeros can be written in many ways.
fn unpacked(whole: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let mut inflate = flate2::Decompress::new(false);
    let (mut plain, mut telling, mut room) = (Vec::new(), Vec::new(), vec![0; 64 * 1024]);
    for at in GZIP.0..whole.len() - GZIP.1 {
        let (before, mut fed) = (plain.len(), &whole[at..=at]);
        loop {
            let (read, written) = (inflate.total_in(), inflate.total_out());
            inflate.decompress(fed, &mut room, flate2::FlushDecompress::None).expect("as it was written");
            fed = &fed[(inflate.total_in() - read) as usize..];
            let made = (inflate.total_out() - written) as usize;
            plain.extend_from_slice(&room[..made]);
            if fed.is_empty() && made < room.len() {
                break;
            }
        }
        if plain[before..].iter().any(|byte| *byte != 0) {
            telling.push(at);
        }
    }
    (plain, telling)
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(plain).and_then(|()| gzip.finish()).expect("into memory")
}

/// Name, place and length of each member.
fn members(plain: &[u8]) -> Vec<(String, usize, usize)> {
    let mut archive = tar::Archive::new(plain);
    let entries = archive.entries().expect("an archive").map(|entry| {
        let entry = entry.expect("a member");
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        (name, entry.raw_file_position() as usize, entry.size() as usize)
    });
    entries.collect()
}

#[test]
fn a_backup_that_was_damaged_or_cut_is_refused_before_anything_is_changed() {
    let daemon = Side::Sqlite.setup_with("[buffer]\nflush_interval = \"50ms\"\njournal_bytes = \"16MB\"\n").start();
    push(&Client::new(&daemon.address, &daemon.token), 0, 200);
    let file = daemon.dir().join("backup.tar.gz");
    done(&daemon, &["backup", path(&file)]);
    let whole = fs::read(&file).expect("the backup");
    let other = Side::Sqlite.setup().bare();
    let accepted = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        daemon.command(&["restore", path(&file), "--check"]).status.code() == Some(0)
    };

    // One bit of what says something, all over the compressed stream. Some codes have others for the very same bytes (the second of two
    // places from which a run can be repeated): only then is it no damage.
    let (plain, telling) = unpacked(&whole);
    let mut harmless = Vec::new();
    for at in telling.iter().step_by(telling.len().div_ceil(FLIPS)) {
        let mut damaged = whole.clone();
        damaged[*at] ^= 0x10;
        if accepted(&damaged) {
            let mut now = Vec::new();
            flate2::read::MultiGzDecoder::new(&damaged[..]).read_to_end(&mut now).expect("it was read");
            assert!(now == plain, "byte {at} of {} is another and nobody saw it", whole.len());
            harmless.push(*at);
        }
    }
    assert!(harmless.len() * 10 <= FLIPS, "of {FLIPS} bytes that say something these do not matter: {harmless:?}");

    // The same in the members themselves, packed as if it had been written so: the checksums of the list of contents see each.
    let mut seen = Vec::new();
    for (name, from, bytes) in members(&plain) {
        let told: Vec<usize> = (from..from + bytes).filter(|at| plain[*at] != 0).collect();
        for at in [told.first(), told.get(told.len() / 2), told.last()].into_iter().flatten() {
            let mut damaged = plain.clone();
            damaged[*at] ^= 0x10;
            assert!(!accepted(&packed(&damaged)), "{name}: byte {} of {bytes} is another and nobody saw it", at - from);
        }
        seen.push(name);
    }
    let is_there = |wanted: &str| seen.iter().any(|name| name.starts_with(wanted));
    assert!(["belayd-backup.json", "journal/", "store.db", "control.db", "contents.json"].into_iter().all(is_there), "{seen:?}");

    // Harmless by its meaning: the time in gzip's head, which nothing goes by.
    let mut damaged = whole.clone();
    damaged[4] ^= 0x10;
    assert!(accepted(&damaged));
    let unharmed = Side::Sqlite.setup().bare();
    done(&unharmed, &["restore", path(&file)]);
    assert_eq!(Side::Sqlite.keys(&unharmed), Side::Sqlite.keys(&daemon));

    let middle = whole.len() / 2;
    let mut damaged = whole.clone();
    damaged[middle..middle + 64].fill(0x55);
    fs::write(&file, &damaged).expect("written");
    refused(&other, &["restore", path(&file)], "backup.tar.gz ");
    for len in [0, 9, whole.len() / 2, whole.len() - 1_000] {
        fs::write(&file, &whole[..len]).expect("written");
        refused(&other, &["restore", path(&file)], "backup.tar.gz ");
    }
    fs::write(&file, "a text that is no archive at all").expect("written");
    refused(&other, &["restore", path(&file)], "backup.tar.gz ");
    assert!(!other.dir().join("data").join("control.db").exists() && !other.dir().join("belayd.db").exists());
}

#[test]
fn a_restore_that_was_cut_off_keeps_the_daemon_from_starting_until_it_is_run_again() {
    let mut daemon = Side::Sqlite.setup().start();
    push(&Client::new(&daemon.address, &daemon.token), 0, 200);
    let file = daemon.dir().join("backup.tar.gz");
    done(&daemon, &["backup", path(&file)]);
    assert!(daemon.stop().success());
    // As a power cut between two changes of names leaves it.
    fs::create_dir(daemon.dir().join("data/restoring")).expect("made");
    daemon.spawn();
    assert_eq!(daemon.wait(Duration::from_secs(20)).code(), Some(1));
    assert!(daemon.log().contains("has not come to its end; run it again"), "{}", daemon.log());
    done(&daemon, &["restore", path(&file), "--replace"]);
    daemon.start_again();
    assert_eq!(Side::Sqlite.keys(&daemon).len(), 200);
}

#[test]
fn a_backup_of_one_database_is_not_put_into_another() {
    let daemon = Side::Sqlite.setup().start();
    push(&Client::new(&daemon.address, &daemon.token), 0, 1);
    let file = daemon.dir().join("backup.tar.gz");
    done(&daemon, &["backup", path(&file)]);
    let other = Side::Sqlite.setup().store("postgres://127.0.0.1:1/x").bare();
    refused(&other, &["restore", path(&file)], "set store.url to one on sqlite, or use --only directory");
    done(&other, &["restore", path(&file), "--only", "directory"]);
    assert!(other.dir().join("data/control.db").exists());
}
