//! `belayd simulate` and `belayd demo` from outside, with recordings that the tests make: every row stored once with the values of the
//! file, by pushing and by polling, though the daemon is killed in between.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    daemon::{Daemon, Setup, free_address},
    rows,
};

/// Ends its process when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn simulate(args: &[&str]) -> Command {
    let mut command = Command::new(Daemon::binary());
    command.arg("simulate").args(args).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A recording in the form of C-MAPSS: units of different lives, values that need all their digits.
fn write_cmapss(path: &Path, units: u32, cycles: u32) -> i64 {
    let (mut text, mut rows) = (String::new(), 0);
    for unit in 1..=units {
        for cycle in 1..=cycles + unit % 7 {
            text.push_str(&format!("{unit} {cycle} 0.0{} -0.0003 100.0", unit % 10));
            for sensor in 1..=21 {
                text.push_str(&format!(" {}.{:04}", 100 * sensor + cycle % 50, (unit * 7919 + cycle * 31 + sensor) % 10_000));
            }
            text.push_str("  \n");
            rows += 1;
        }
    }
    fs::write(path, text).expect("written");
    rows
}

fn write_csv(path: &Path, count: u32) {
    let rows: String = (0..count).map(|row| format!("e{},{},{}\n", row % 9, 1_790_000_000_000_i64 + i64::from(row), row)).collect();
    fs::write(path, format!("engineId,timestamp,rpm\n{rows}")).expect("written");
}

fn quick() -> Setup {
    Setup::with("[buffer]\nflush_interval = \"100ms\"\n")
}

#[test]
fn a_pushed_recording_is_stored_once_with_the_values_of_the_file_and_a_repeat_is_harmless() {
    let daemon = quick().start();
    let file = daemon.dir().join("recording.txt");
    let count = write_cmapss(&file, 23, 60);
    let url = format!("http://{}", daemon.address);
    let path = file.to_str().expect("a plain path");
    for _ in 0..2 {
        let output = simulate(&["--replay", path, "--format", "cmapss", "--start", "2026-11-01T00:00:00Z", "--batch", "100"])
            .args(["--push", &url, "--token", &daemon.create_token(&format!("t{}", rand::random::<u32>()), "ingest")])
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains(&format!("{count} accepted, 0 rejected, 0 not delivered")), "{}", text(&output));
    }
    daemon.drained();
    let db = daemon.dir().join("belayd.db");
    assert_eq!(rows::number(&db, "SELECT count(*) AS n FROM readings"), count);
    // What the file says, computed by the database from the columns that are kept as they are.
    let same = "SELECT count(*) AS n FROM readings WHERE temperature = (json_extract(extra, '$.s4') - 491.67) * 5 / 9 \
                AND fuel_flow = json_extract(extra, '$.s12') * json_extract(extra, '$.s11') \
                AND observed_at_us = 1793491200000000 + json_extract(extra, '$.cycle') * 1000000";
    assert_eq!(rows::number(&db, same), count);
    let line = fs::read_to_string(&file).expect("text").lines().nth(700).expect("a line").to_owned();
    let columns: Vec<&str> = line.split_whitespace().collect();
    let exactly = format!(
        "SELECT count(*) AS n FROM readings WHERE engine_id = '{}' AND json_extract(extra, '$.cycle') = {} AND rpm = {} AND pressure = {} \
         AND json_extract(extra, '$.s21') = {}",
        columns[0], columns[1], columns[13], columns[11], columns[25]
    );
    assert_eq!(rows::number(&db, &exactly), 1);
}

#[test]
fn a_polled_recording_is_stored_once_though_the_daemon_is_killed_in_between() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    write_csv(file.path(), 30_000);
    let address = free_address();
    let simulator = simulate(&["--replay", file.path().to_str().expect("a plain path"), "--format", "csv", "--listen", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut simulator = Process(simulator);
    let mut out = BufReader::new(simulator.0.stdout.take().expect("piped"));
    let mut snippet = String::new();
    while !snippet.contains("interval") {
        assert_ne!(out.read_line(&mut snippet).expect("text"), 0, "{snippet}");
    }
    // The snippet as it is printed, only faster.
    let source = snippet[snippet.find("[[sources]]").expect("a snippet")..].replace("\"1s\"", "\"100ms\"");
    let mut daemon = Setup::with(&format!("[buffer]\nflush_interval = \"100ms\"\n{source}")).start();
    let db = daemon.dir().join("belayd.db");
    let stored = || rows::number(&db, "SELECT count(*) AS n FROM readings");
    daemon.wait_for("some rows", Duration::from_secs(30), |daemon| daemon.metric("belayd_readings_stored_total") > 5_000.0);
    daemon.kill();
    daemon.start_again();
    daemon.wait_for("every row", Duration::from_secs(60), |_| stored() == 30_000);
    assert_eq!(rows::number(&db, "SELECT sum(rpm) AS n FROM (SELECT CAST(rpm AS INTEGER) AS rpm FROM readings)"), 449_985_000);
    assert_eq!(daemon.metric("belayd_readings_conflict_total"), 0.0);
}

#[test]
fn a_push_that_asks_for_the_store_loses_nothing_though_the_daemon_is_killed_again_and_again() {
    let mut daemon = quick().start();
    let file = daemon.dir().join("recording.csv");
    write_csv(&file, 30_000);
    let url = format!("http://{}/api/readings?ack=store", daemon.address);
    let token = daemon.create_token("pusher", "ingest");
    let pusher =
        simulate(&["--replay", file.to_str().expect("a plain path"), "--format", "csv", "--speed", "20", "--batch", "200"])
            .args(["--push", &url, "--token", &token])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
    let mut pusher = Process(pusher);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(300));
        daemon.kill();
        daemon.start_again();
    }
    let mut summary = String::new();
    pusher.0.stdout.take().expect("piped").read_to_string(&mut summary).expect("text");
    assert!(pusher.0.wait().expect("it ends").success(), "{summary}");
    assert!(summary.contains("30000 accepted, 0 rejected, 0 not delivered"), "{summary}");
    assert_eq!(rows::keys(&daemon.dir().join("belayd.db")).len(), 30_000);
}

#[test]
fn a_refused_push_and_a_bad_line_end_with_a_reason_and_a_failure() {
    let daemon = quick().start();
    let url = format!("http://{}", daemon.address);
    let output = simulate(&["--push", &url, "--token", "bly_no"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("401"), "{}", text(&output));
    let file = daemon.dir().join("bad.ndjson");
    fs::write(&file, "{\"engineId\":\"a\",\"rpm\":1}\n{\"engineId\":\"a\",\"rpm\":}\n").expect("written");
    let output = simulate(&[
        "--replay",
        file.to_str().expect("a plain path"),
        "--format",
        "ndjson",
        "--push",
        &url,
        "--token",
        &daemon.token,
    ])
    .output()
    .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("bad.ndjson:2:") && text(&output).contains("1 accepted"), "{}", text(&output));
    let output = simulate(&["--replay", "/nowhere/x", "--format", "csv", "--listen", "127.0.0.1:0"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
}

/// GET with a token, on a connection of its own; the body, or nothing.
fn get(address: &str, path: &str, token: &str) -> String {
    let Ok(mut socket) = TcpStream::connect(address) else { return String::new() };
    let _ = socket.set_read_timeout(Some(Duration::from_secs(10)));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = socket.write_all(request.as_bytes()).and_then(|()| socket.read_to_string(&mut answer));
    answer
}

#[test]
fn the_demo_shows_readings_and_a_delivered_alert_within_ten_seconds_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().expect("a directory");
    let address = free_address();
    let started = Instant::now();
    let demo = Command::new(Daemon::binary())
        .args(["demo", "--listen", &address])
        .env("TMPDIR", tmp.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut demo = Process(demo);
    let mut line = String::new();
    BufReader::new(demo.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let token =
        line.trim().strip_prefix(&format!("belayd demo: http://{address}/?token=")).unwrap_or_else(|| panic!("{line}")).to_owned();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(get(&address, &format!("/?token={token}"), "").starts_with("HTTP/1.1 303"));
    let arrived = || {
        let state = get(&address, "/api/state", &token);
        let (_, body) = state.split_once("\r\n\r\n").unwrap_or_default();
        let state: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        state["engines"]["total"] == 6 && state["inbox"].as_array().is_some_and(|items| !items.is_empty())
    };
    while !arrived() {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", get(&address, "/api/state", &token));
        thread::sleep(Duration::from_millis(100));
    }
    let pid = i32::try_from(demo.0.id()).expect("a process id");
    // SAFETY: plain system call on a child of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
    assert!(demo.0.wait().expect("it ends").success());
    assert_eq!(fs::read_dir(tmp.path()).expect("a directory").count(), 0, "the demo's directory is still there");
}
