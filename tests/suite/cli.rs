//! The command line from outside: what is printed where, and the exit codes.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn belayd(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_belayd")).args(args).current_dir(dir).env_clear().output().expect("it starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn the_printed_example_is_a_configuration_without_fault() {
    let dir = tempfile::tempdir().expect("a directory");
    let example = belayd(dir.path(), &["config", "--default"]);
    assert_eq!(example.status.code(), Some(0));
    fs::write(dir.path().join("belayd.toml"), &example.stdout).expect("a file");
    let check = belayd(dir.path(), &["check", "--connect"]);
    assert_eq!((check.status.code(), text(&check.stderr)), (Some(0), ""));
    let said = text(&check.stdout);
    assert!(said.starts_with("OK: belayd.toml\n") && said.contains("0 sources, 2 rules, 1 sink, 1 route"), "{said}");
    assert!(!dir.path().join("belayd-data").exists(), "a check makes nothing");
}

#[test]
fn every_fault_goes_to_stderr_and_the_code_is_78() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("mine.toml"), "[buffer]\nbatchrows = 1\ntier = \"threefold\"\n").expect("a file");
    let check = belayd(dir.path(), &["check", "--config", "mine.toml"]);
    assert_eq!((check.status.code(), text(&check.stdout)), (Some(78), ""));
    let lines: Vec<&str> = text(&check.stderr).lines().collect();
    assert_eq!(lines[0], "mine.toml:2:1: buffer.batchrows: unknown key; did you mean \"batch_rows\"?");
    assert!(lines[1].starts_with("mine.toml:3:8: buffer.tier: unknown value \"threefold\", expected one of"), "{lines:?}");
    assert_eq!(lines.len(), 2);
    assert_eq!(belayd(dir.path(), &["check", "--config", "absent.toml"]).status.code(), Some(78));
}

#[test]
fn what_cannot_be_reached_is_a_failure_and_no_fault() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("belayd.toml"), "[[sources]]\nname = \"s\"\nurl = \"http://127.0.0.1:1/\"\n").expect("a file");
    assert_eq!(belayd(dir.path(), &["check"]).status.code(), Some(0));
    let check = belayd(dir.path(), &["check", "--connect"]);
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check.stdout).contains("source \"s\": FAILED, 127.0.0.1:1: "), "{}", text(&check.stdout));
}

#[test]
fn faults_elsewhere_do_not_keep_status_from_the_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let config = |text: &str| fs::write(dir.join("belayd.toml"), text).expect("a file");
    let told = |args: &[&str]| {
        let output = belayd(dir, args);
        (output.status.code(), text(&output.stderr).to_owned())
    };
    let reached = |(code, said): (Option<i32>, String), data: &str| {
        let looked = said.contains(&format!("no daemon is running on {}", dir.canonicalize().expect("there").join(data).display()));
        assert!(code == Some(1) && looked && said.contains("belayd check"), "{code:?} {said}");
    };
    let refused = |(code, said): (Option<i32>, String), fault: &str| {
        assert!(code == Some(78) && said.contains(fault) && said.contains("--set server.data_dir=DIR"), "{code:?} {said}");
    };
    config("[server]\ndata_dir = \"here\"\n[buffer]\nbatch_rows = \"many\"\n");
    reached(told(&["status"]), "here");
    reached(told(&["tail"]), "here");
    config("[buffer]\nbatch_rows = \"many\"\n");
    reached(told(&["status"]), "belayd-data");
    // Here the directory would be guessed.
    config("[server]\ndata_dirr = \"here\"\n");
    refused(told(&["status"]), "data_dirr");
    config("[sever]\ndata_dir = \"here\"\n");
    refused(told(&["status"]), "sever");
    config("[server]\ndata_dir = \"here\n");
    refused(told(&["status"]), "belayd.toml:2");
    reached(told(&["status", "--set", "server.data_dir=there"]), "there");
    reached(told(&["status", "--config", "absent.toml", "--set", "server.data_dir=there"]), "there");
    refused(told(&["status", "--config", "absent.toml"]), "absent.toml");
}

/// A small machine may have none, and the control socket needs none.
#[test]
fn commands_work_where_the_system_has_no_ca_certificates() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut status = Command::new(env!("CARGO_BIN_EXE_belayd"));
    status.args(["status"]).current_dir(dir.path()).env_clear();
    status.env("SSL_CERT_FILE", dir.path().join("none.pem")).env("SSL_CERT_DIR", dir.path().join("none"));
    let output = status.output().expect("it starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no daemon is running on"), "{}", text(&output.stderr));
}

#[test]
fn wrong_usage_is_2_and_help_and_version_are_0() {
    let dir = tempfile::tempdir().expect("a directory");
    for (args, code) in
        [(&["frobnicate"][..], 2), (&["config"], 2), (&["check", "--colour"], 2), (&["--help"], 0), (&["--version"], 0)]
    {
        assert_eq!(belayd(dir.path(), args).status.code(), Some(code), "{args:?}");
    }
    assert_eq!(text(&belayd(dir.path(), &["--version"]).stdout), concat!("belayd ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn where_the_port_is_taken_or_the_directory_is_somebodys_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let run = |data: &str| belayd(dir.path(), &["run", "--listen", &address, "--data-dir", data]);
    let said = |output: &Output| format!("{}{}", text(&output.stdout), text(&output.stderr));
    let refused = run("fresh");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains(&address) && !dir.path().join("fresh").exists(), "{refused:?}");
    drop(taken);
    let home = dir.path().join("home");
    fs::create_dir_all(home.join("projects")).expect("a directory");
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    let refused = run("home");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains("not belayd's own"), "{refused:?}");
    assert_eq!(fs::read_dir(&home).expect("a directory").count(), 1, "only what was there");
}

#[test]
fn an_orderly_stop_leaves_whole_files() {
    let mut daemon = crate::support::daemon::Setup::with("").start();
    let answer = daemon.post("/api/readings?ack=store", r#"{"engineId":"e1","rpm":1}"#);
    assert_eq!(answer.status, 202, "{answer:?}");
    assert!(daemon.stop().success());
    for name in ["belayd.db-wal", "data/control.db-wal"] {
        let left = fs::metadata(daemon.dir().join(name)).map_or(0, |file| file.len());
        assert_eq!(left, 0, "{name}; the log:\n{}", daemon.log());
    }
}
