//! Alarms and counts that only a real cause moves: a disk that fills, a disk that does not take what was acknowledged, a stop while the
//! database is away.

use std::{
    fs,
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};

use crate::support::{
    daemon::{Daemon, Setup},
    left_out, needs,
};

/// Generous: what is waited for comes within seconds on a quiet machine.
const LONG: Duration = Duration::from_secs(120);

fn state_of(daemon: &Daemon, alert: &str) -> Option<String> {
    let alerts = daemon.get("/api/alerts").json();
    let found = alerts["items"].as_array()?.iter().find(|found| found["name"] == alert)?.clone();
    found["state"].as_str().map(str::to_owned)
}

/// A small file system in memory, taken away when dropped.
struct Small(PathBuf);

impl Small {
    fn over(place: &Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m,mode=0700");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "belayd-test"]).arg(place).output().ok()?;
        done.status.success().then(|| Self(place.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Detached: it goes as soon as nobody uses it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_will_be_full_soon_is_told_before_it_is_and_is_over_when_it_was_emptied() {
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        return left_out("the alarm of a disk that fills, because only root may mount a small file system");
    }
    const SIZE_MB: u32 = 128;
    let mut daemon = Setup::with("[buffer]\ntier = \"memory\"\n").bare();
    let data = daemon.dir().join("data");
    fs::create_dir(&data).expect("a directory");
    let Some(small) = Small::over(&data, SIZE_MB) else {
        return left_out("the alarm of a disk that fills, because no small file system can be mounted here");
    };
    daemon.token = daemon.create_token("test", "admin");
    daemon.start_again();
    let place = data.join("ballast");
    let (mut ballast, mut written) = (fs::File::create(&place).expect("a file"), 0_u64);
    let piece = vec![1; 128 * 1024];
    // Never more than three quarters: what is told is what would come.
    let most = u64::from(SIZE_MB) * 1_024 * 1_024 * 3 / 4;
    daemon.wait_for("told that the disk fills", LONG, |daemon| {
        if written < most {
            ballast.write_all(&piece).expect("there is room");
            written += piece.len() as u64;
        }
        state_of(daemon, "disk-filling").as_deref() == Some("firing")
    });
    assert!(daemon.metric("belayd_full_in_seconds{what=\"disk\"}") > 0.0);
    drop(ballast);
    fs::remove_file(&place).expect("removed");
    daemon.wait_for("told that it is over", LONG, |daemon| state_of(daemon, "disk-filling").as_deref() == Some("resolved"));
    daemon.kill();
    drop(small);
}

/// What is left on the file system of `place`, bytes.
fn room(place: &Path) -> u64 {
    let path = std::ffi::CString::new(place.as_os_str().as_bytes()).expect("a plain path");
    // SAFETY: numbers, which zeroes are; filled in by the call, with a path that ends.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut found) }, 0, "it can be asked");
    found.f_bavail * found.f_frsize
}

#[test]
fn a_journal_without_room_on_its_disk_is_told_and_refuses_with_507_until_there_is_room() {
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        return left_out("507 of a full disk, because only root may mount a small file system");
    }
    // A segment is of 1 MB; what is left is too little for another, and enough for the alert's row.
    const LEFT: u64 = 800_000;
    let more = "[buffer]\ntier = \"journal\"\njournal_bytes = \"8MB\"\nflush_interval = \"100ms\"\n";
    let mut daemon = Setup::with(more).bare();
    let data = daemon.dir().join("data");
    fs::create_dir(&data).expect("a directory");
    let Some(small) = Small::over(&data, 64) else {
        return left_out("507 of a full disk, because no small file system can be mounted here");
    };
    daemon.token = daemon.create_token("test", "admin");
    daemon.start_again();
    let (mut pushed, mut acknowledged) = (0, 0);
    let mut push = |daemon: &Daemon, ack: &str| {
        let reading = |n: u64| format!(r#"{{"engineId":"e{}","timestamp":{},"rpm":{n}}}"#, n % 7, 1_700_000_000_000 + n);
        let body = format!("[{}]", (pushed..pushed + 1_000).map(reading).collect::<Vec<_>>().join(","));
        let answer = daemon.post(&format!("/api/readings?ack={ack}"), &body);
        pushed += 1_000;
        acknowledged += if answer.status == 202 { 1_000 } else { 0 };
        answer
    };
    assert_eq!(push(&daemon, "store").status, 202);
    // What is acknowledged from now on stays in the journal.
    let path = daemon.dir().join("belayd.db");
    let mut held = SqliteConnection::establish(path.to_str().expect("a plain path")).expect("opens");
    held.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").expect("held");
    let ballast = data.join("ballast");
    fs::write(&ballast, vec![1; usize::try_from(room(&data).saturating_sub(LEFT)).expect("small")]).expect("there is room");
    let mut refused = None;
    daemon.wait_for("refused", LONG, |daemon| {
        let answer = push(daemon, "journal");
        assert!(matches!(answer.status, 202 | 507), "{answer:?}");
        refused = (answer.status == 507).then_some(answer);
        refused.is_some()
    });
    let refused = refused.expect("just seen");
    assert_eq!(refused.code(), "disk_full", "{refused:?}");
    daemon.wait_for("told", LONG, |daemon| state_of(daemon, "journal-disk-full").as_deref() == Some("firing"));
    assert_eq!(push(&daemon, "journal").status, 507, "still");
    fs::remove_file(&ballast).expect("removed");
    daemon.wait_for("taking readings again", LONG, |daemon| push(daemon, "journal").status == 202);
    daemon.wait_for("told that it is over", LONG, |daemon| state_of(daemon, "journal-disk-full").as_deref() == Some("resolved"));
    drop(held);
    assert_eq!(daemon.drained(), acknowledged, "what was acknowledged, and nothing of what was refused");
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
    daemon.kill();
    drop(small);
}

/// Makes the library that lets syncs of the journal fail while a file exists.
fn failing_syncs(dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/causes/sync.c");
    let library = dir.join("sync.so");
    let made = Command::new("cc").args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").output().ok();
    needs::met(made.is_some(), "there is no C compiler (cc): install the package build-essential (tests/run does)");
    let made = made?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(library)
}

#[test]
fn what_was_acknowledged_in_memory_and_not_taken_by_the_disk_is_counted_as_void() {
    let tools = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = failing_syncs(tools.path()) else {
        return left_out("the count of readings that a failed sync lost, because there is no C compiler (cc)");
    };
    let fails = tools.path().join("fails");
    let setup = Setup::with("[buffer]\nflush_interval = \"100ms\"\n")
        .env("LD_PRELOAD", library.to_str().expect("a plain path"))
        .env("SYNC_FAILS_FILE", fails.to_str().expect("a plain path"));
    let daemon = setup.start();
    let push = |ack: &str, n: i64| {
        let body = format!(r#"[{{"engineId":"e","timestamp":{n},"rpm":1}},{{"engineId":"f","timestamp":{n},"rpm":1}}]"#);
        daemon.post(&format!("/api/readings?ack={ack}"), &body)
    };
    let now = 1_700_000_000_000;
    assert_eq!(push("journal", now).status, 202);
    fs::write(&fails, b"").expect("written");
    let answered = push("memory", now + 1);
    assert_eq!(answered.status, 202, "answered before the sync");
    daemon.wait_for("told that a sync failed", LONG, |daemon| state_of(daemon, "journal-sync-failed").as_deref() == Some("firing"));
    assert!(push("journal", now + 2).status >= 500, "whoever waits for the sync is told");
    fs::remove_file(&fails).expect("removed");
    daemon.wait_for("taking readings again", LONG, |_| push("store", now + 3).status == 202);
    let void = "belayd_readings_lost_total{reason=\"void\"}";
    daemon.wait_for("counted", LONG, |daemon| daemon.metric(void) > 0.0);
    assert_eq!(daemon.metric(void), 2.0, "the refused ones were never acknowledged");
    let receipt = answered.json()["receipt"].clone();
    let asked = format!("/api/receipts/{}/{}", receipt["stream"].as_str().unwrap_or_default(), receipt["firstSeq"]);
    assert_eq!(daemon.get(&asked).json()["state"], "void", "{receipt}");
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
    daemon.wait_for("told that readings are lost", LONG, |daemon| state_of(daemon, "readings-lost").as_deref() == Some("firing"));
}

#[test]
fn what_memory_holds_at_a_stop_without_the_database_is_lost_and_said_with_its_number() {
    let mut daemon = Setup {
        server: "stop_timeout = \"2s\"".into(),
        ..Setup::with("[buffer]\ntier = \"memory\"\nflush_interval = \"100ms\"\n")
    }
    .start();
    assert_eq!(daemon.post("/api/readings?ack=store", r#"{"engineId":"e","rpm":1}"#).status, 202);
    let path = daemon.dir().join("belayd.db");
    let mut held = SqliteConnection::establish(path.to_str().expect("a plain path")).expect("opens");
    held.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE").expect("held");
    for n in 0..7 {
        let body = format!(r#"{{"engineId":"e{n}","rpm":1}}"#);
        assert_eq!(daemon.post("/api/readings", &body).status, 202);
    }
    let status = daemon.stop();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("readings lost")).expect("it is said");
    assert!(line.contains('7') && line.contains("stop"), "{line}");
    drop(held);
    // Nobody counts them as stored, and nothing that was not lost is missing.
    daemon.start_again();
    assert_eq!(daemon.drained(), 1);
    assert_eq!(daemon.metric("belayd_conservation_violation"), 0.0);
}

fn open_files(daemon: &Daemon) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("the process is there");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    line.split_whitespace().skip(3).take(2).map(str::to_owned).collect()
}

#[test]
fn the_soft_limit_of_open_files_is_raised_and_one_that_is_too_low_is_told() {
    let told = "files may be open at once";
    let daemon = Setup { open_files: Some((128, 4_096)), log: "debug".into(), ..Setup::default() }.start();
    assert_eq!(open_files(&daemon), ["4096", "4096"]);
    let log = daemon.log();
    assert!(log.contains("limit of open files raised") && log.contains("128") && !log.contains(told), "{log}");
    drop(daemon);
    let daemon = Setup { open_files: Some((128, 500)), ..Setup::default() }.start();
    assert_eq!(open_files(&daemon), ["500", "500"]);
    assert!(daemon.log().contains(told) && daemon.log().contains("LimitNOFILE="), "{}", daemon.log());
}
